//! The load generator: asks at the times it was told to, and measures from those times.
//!
//! With a rate it is an open loop: a request is due at its scheduled time whether or not earlier
//! ones were answered, and its latency counts from then, so that a stall of the server shows in
//! full (no coordinated omission). The time from sending to the answer stands beside it as service
//! time. Without a rate it is a closed loop: each connection asks as fast as it is answered.
//!
//! It judges itself: a run in which the generator was late, or could not keep the rate, is
//! [`Verdict::Invalid`] and says why.
//!
//! - [`Load`] and [`Target`]: what to do ([`config`])
//! - [`start`], [`Running`]: do it, on a thread of its own ([`engine`])
//! - [`Outcome`]: the [`Report`] and, if asked, one [`Record`] for each request
//!
//! Deliberately absent until their issue comes: HTTP/2, TLS, several threads, `io_uring`, the
//! comparison of two runs.

pub mod config;
mod connection;
pub mod control;
pub mod engine;
pub mod general;
mod old;
pub mod plan;
pub mod record;
pub mod recorder;
pub mod report;
mod response;
pub mod run;
pub mod sample;
mod schedule;
pub mod slo;

pub use config::{Arrivals, Load, Target};
pub use old::{Outcome, Running, start};
pub use run::LoadError;
pub use record::{ErrorClass, Method, Record, Result};
pub use report::{Report, Verdict};
pub use slo::Slo;
