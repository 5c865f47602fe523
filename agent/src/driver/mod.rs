//! What actually runs tasks.
//!
//! * [`process`]: programs as processes of this machine

pub mod process;
