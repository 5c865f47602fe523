//! The hot engine: plain HTTP/1.1 on a ring, one lane on one thread.
//!
//! - [`run`]: one lane, from opening its connections to its last answer (`shell`)
//! - `core`: the engine without its sockets; `simulation` tests it in virtual time
//! - [`response`]: reads answers where they lie; `head` scans their heads
//! - `render`: the bytes of requests
//! - `flights`, `pool`, `connection`: what the core keeps
//!
//! Deliberately absent: whatever is not plain HTTP/1.1; the general engine speaks that.

mod connection;
mod core;
mod fault;
mod flights;
mod head;
mod pool;
pub(crate) mod render;
pub mod response;
mod shell;
#[cfg(test)]
mod simulation;
mod wire;

pub use fault::Fault;
pub use head::{Headers, Memo};
pub use shell::{probe, run};
