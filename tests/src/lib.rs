//! What proves the whole of Ballast rather than one crate of it.
//!
//! - [`cluster`]: real `ballast` processes on separate hosts, each of which can be killed, hung,
//!   cut off and restarted; the cluster tests, the demo and the failover bench drive it.
//! - [`watch`]: looks on while faults happen, and dates what it sees.
//! - [`demo`]: the story that `cargo xtask demo` tells.
//! - [`mod@bench`]: what `cargo xtask bench` measures on running managers.
//! - [`fleet`]: thousands of agents that run nothing, on real links to a real manager.
//! - [`sim`]: the manager's and the agents' cores in virtual time, with seeded faults.
//!
//! The tests themselves live in `tests/tests/`. What a single crate can prove alone is not here.

pub mod bench;
pub mod cluster;
pub mod demo;
pub mod fleet;
pub mod sim;
pub mod watch;
