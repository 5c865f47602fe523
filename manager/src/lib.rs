//! The manager: what is wanted, what is, and the decisions that bring the second to the first.
//!
//! The core is synchronous: inputs, `now` and random bits come in, values go out.
//!
//! * [`state`]: what all managers agree on, and the pure `apply`
//! * [`reconcile`]: the leader's decisions, as commands to propose
//! * [`project`]: what agents and ingresses are sent
//! * [`views`]: what the API answers

pub mod project;
pub mod reconcile;
pub mod state;
pub mod views;
