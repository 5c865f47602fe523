//! Packs tasks onto nodes: which node takes one, on which ports, and if none, why.
//!
//! [`Scheduler::place`] reserves on the index of nodes; the caller proposes what was reserved and,
//! once it is applied or refused, calls [`Scheduler::commit`] or [`Scheduler::release`]: exactly
//! one of them, exactly once. [`Scheduler::free`] takes a committed claim back when its task has
//! ended. The index is a cache of the replicated state: a new leader builds it with
//! [`Scheduler::rebuild`] and stores it nowhere.
//!
//! Deliberately absent: clocks, random bits, threads, files, the network, and what tasks are for.
//! The same calls in the same order give the same placements.
//!
//! * [`request`]: what is asked, what is answered, and the reservation between
//! * [`refusal`]: why no node takes it
//! * `index`: nodes by equivalence class and quantised free capacity
//! * `policy`: which of the nodes that fit is best
//! * `devices`: which devices and sockets of a node a task is given
//! * `ports`: which ports of a node are handed out next
//! * `rules`: which nodes may take a task and which would rather, beside room
//! * `explain`: the scan that words a refusal

mod devices;
mod explain;
mod index;
mod policy;
mod ports;
pub mod refusal;
pub mod request;
mod rules;
mod scheduler;

pub use refusal::{Excluded, NearestMiss, Reason, Refusal};
pub use request::{Peers, Placed, Repelling, Request, Reservation};
pub use rules::{Preemption, Standing};
pub use scheduler::{GangRefusal, Scheduler, Tally};
