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
//! * [`Pool`]: the same index for several threads
//! * `index`: what each node has free, in atomic words, and files that find the right node
//! * `fleet`: nodes around the index, their equivalence classes, the tasks of each service
//! * `policy`: which of the nodes that fit is best
//! * `devices`: which devices and sockets of a node a task is given
//! * `digest`: what a question about all nodes needs of each
//! * `offer`: what a node would give, and taking it by the words
//! * `ports`: which ports of a node are handed out next
//! * `rules`: which nodes may take a task and which would rather, beside room
//! * [`rebalance`]: which few moves would make a running fleet better
//! * `explain`: the scan that words a refusal

mod devices;
mod digest;
mod explain;
mod fleet;
mod index;
mod map;
mod offer;
mod policy;
mod pool;
mod ports;
pub mod rebalance;
pub mod refusal;
pub mod request;
mod rules;
mod scheduler;
mod sync;

pub use policy::Learnt;
pub use pool::{Pool, Taken, Wanted, Worker};
pub use refusal::{Change, Excluded, NearestMiss, Reason, Refusal, Suggestion};
pub use request::{Peers, Placed, Repelling, Request, Reservation};
pub use rules::{Preemption, Standing};
pub use scheduler::{GangRefusal, Scheduler, Tally};
