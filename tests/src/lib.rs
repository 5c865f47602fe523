//! What proves the whole of Ballast rather than one crate of it.
//!
//! - [`cluster`]: real `ballast` processes on separate hosts, each of which can be killed, hung,
//!   cut off and restarted; the cluster tests, the demo and the failover bench drive it.
//!
//! The tests themselves live in `tests/tests/`. What a single crate can prove alone is not here.

pub mod cluster;
