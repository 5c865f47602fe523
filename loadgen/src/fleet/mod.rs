//! Several generators, one result.
//!
//! Workers wait on other hosts; a coordinator sends each the plan and its lanes' numbers, learns
//! its clock, names a common start, and merges what they measured, exactly.
//!
//! ```text
//! coordinator                      worker
//!   Hello {version, token}   →
//!                            ←  Welcome {lanes, …} or Refused
//!   Ping                     →
//!                            ←  Pong {clock}              sixteen times
//!   Plan {plan, first, of}   →
//!                            ←  Ready or Refused
//!   Start {at}               →                            the worker's clock
//!                            ←  Progress …                twice a second: it lives
//!   Stop, Abort              →                            Ctrl-C
//!                            ←  Done {recorder} or Failed
//! ```
//!
//! A message is its length in four bytes, most significant first, and that much JSON; never more
//! than [`MESSAGE`]. A worker serves one run at a time, refuses other versions and whoever does not
//! know its token, and gives a run up when its coordinator is gone.
//!
//! - [`message`]: what is said
//! - `link`: one connection, with the bounds
//! - [`clock`]: how far apart two clocks are, and how sure that is
//! - [`worker`], [`coordinator`]: the two sides

pub mod clock;
pub mod coordinator;
mod link;
pub mod message;
pub mod worker;

use std::time::Duration;

/// What is said changed when this did: both sides must have the same.
pub const VERSION: u32 = 2;
/// Bytes of one message: a plan with its bodies or its log, a result with its histograms.
pub const MESSAGE: usize = 256 << 20;
/// Bytes of one message of somebody who has not said who he is.
pub const STRANGER: usize = 64 * 1024;
/// How long an answer may take that needs no work.
pub const ANSWER: Duration = Duration::from_secs(5);
/// How often a worker says that it lives.
pub const PROGRESS: Duration = Duration::from_millis(500);
/// How long a worker may say nothing during a run: past it, it is lost.
pub const SILENCE: Duration = Duration::from_secs(5);
/// From sending the start to the start: every worker must have got it by then, busy hosts included.
pub const LEAD: Duration = Duration::from_secs(1);
/// Workers of one coordinator.
pub const WORKERS: usize = 256;
