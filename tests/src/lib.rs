//! What proves the whole of Ballast rather than one crate of it.
//!
//! - [`cluster`]: real `ballast` processes on separate hosts, each of which can be killed, hung,
//!   cut off and restarted; the cluster tests, the demo and the failover bench drive it.
//! - [`watch`]: looks on while faults happen, and dates what it sees.
//! - [`demo`]: the story that `cargo xtask demo` tells.
//! - [`mod@bench`]: what `cargo xtask bench failover` and `scale` measure.
//! - [`sim`]: the manager's and the agents' cores in virtual time, with seeded faults.
//!
//! The tests themselves live in `tests/tests/`. What a single crate can prove alone is not here.

pub mod bench;
pub mod cluster;
pub mod demo;
pub mod sim;
pub mod watch;
