//! Simulates the scheduler on traces: the very [`ballast_scheduler::Scheduler`] that runs in
//! production, on lists of nodes and tasks, by a protocol.
//!
//! A [`Fleet`] of nodes and a [`Workload`] of tasks go in, a [`Report`] comes out: how many tasks
//! were placed, how many nodes that took, how much of them was allocated. The same seed gives the
//! same placements.
//!
//! Deliberately absent: files (bytes come in), the screen, and any way to place a task but the
//! scheduler's.
//!
//! * [`trace`]: lists of nodes and tasks, read by the names of their columns; generated ones
//! * [`fleet`], [`workload`]: the same as the scheduler's nodes and requests
//! * [`protocol`]: what arrives when, and what is measured
//! * [`report`]: the figures, as JSON has them
//! * [`picture`]: an SVG of nodes × utilisation over time
//! * [`numa`]: requests for virtual machines on hosts of two sockets, and their verifier

pub mod amounts;
mod cluster;
pub mod fleet;
pub mod numa;
pub mod picture;
pub mod protocol;
pub mod report;
mod timeline;
pub mod trace;
pub mod workload;

pub use amounts::Amounts;
pub use fleet::Fleet;
pub use protocol::{Error, Options, Progress, Protocol, Simulated, simulate};
pub use report::{GpuAllocated, Mean, Report, Run};
pub use timeline::{Sample, Timeline};
pub use workload::Workload;
