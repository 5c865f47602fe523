//! The agent: runs the tasks of one node, watches them, and says how they are.
//!
//! * [`worker`]: the core, which decides; no IO
//! * [`shell`]: runs what it decides
//! * [`driver`]: what runs programs
//! * [`task_exec`]: the hidden subcommand that a program is started through
//! * [`feed`]: health to the ingresses, in one hop
//! * [`report`]: what the manager is told
//! * [`store`]: what one life leaves the next
//! * [`logs`]: what tasks write
//! * [`metrics`]: what is counted
//! * [`config`]: what it can be told; [`run`](fn@run): the whole of it, as a role

mod admin;
mod backoff;
pub mod config;
pub mod driver;
pub mod feed;
pub mod logs;
mod machine;
mod manager;
pub mod metrics;
mod offer;
pub mod report;
mod run;
pub mod shell;
pub mod store;
pub mod worker;

pub use config::{Config, InvalidConfig, RawConfig};
pub use run::{AgentError, run};

pub use driver::process::exec as task_exec;
