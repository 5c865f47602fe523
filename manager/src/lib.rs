//! The manager: what is wanted, what is, and the decisions that bring the second to the first.
//!
//! The core is synchronous: inputs, `now` and random bits come in, values go out.
//!
//! * [`state`]: what all managers agree on, and the pure `apply`
//! * [`reconcile`]: the leader's decisions, as commands to propose
//! * [`forecast`]: what a change would do, tried on a copy
//! * [`project`]: what agents and ingresses are sent
//! * [`views`]: what the API answers
//!
//! Around it, what runs:
//!
//! * [`config`]: what a manager is told
//! * [`api`]: the HTTP API
//! * `raft`: the log of commands and the state it makes
//! * `leader`: what only the leader does, in one scope that ends with the leadership
//! * `links`: the port that agents, ingresses, joiners and clients connect to
//! * `ca`: certificates and join tokens
//! * `run`: how it all comes up and goes down

pub mod api;
mod ca;
mod clock;
pub mod config;
mod data_dir;
pub mod forecast;
mod leader;
mod links;
mod metrics;
pub mod project;
mod raft;
pub mod reconcile;
mod run;
pub mod state;
pub mod views;

pub use config::{Config, ConfigError, RawConfig};
pub use data_dir::DataDirError;
pub use run::{ManagerError, Ready, run, run_until};

#[cfg(test)]
mod fixture;
