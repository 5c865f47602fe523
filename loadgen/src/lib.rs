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
//! - [`Plan`]: what to do ([`plan`])
//! - [`start`], [`Running`]: do it, one thread for each core ([`run`]), with an engine ([`engine`]:
//!   plain HTTP/1.1; [`general`]: everything), on `io_uring` or epoll
//! - [`Outcome`]: the [`Report`] and, if asked, one [`Record`] for each request

pub mod compare;
pub mod control;
pub mod engine;
pub mod fleet;
pub mod general;
pub mod live;
pub mod plan;
pub mod record;
pub mod recorder;
pub mod report;
pub mod run;
pub mod sample;
pub mod slo;

pub use control::Control;
pub use plan::Plan;
pub use record::{ErrorClass, Method, Record, Result};
pub use report::{Report, Verdict};
pub use run::{LoadError, Outcome, Running, start};
pub use slo::Slo;
