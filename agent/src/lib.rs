//! The agent: runs the tasks of one node, watches them, and says how they are.
//!
//! * [`worker`]: the core, which decides
//! * [`driver`]: what runs programs
//! * [`task_exec`]: the hidden subcommand that a program is started through

pub mod driver;
pub mod worker;

pub use driver::process::exec as task_exec;
