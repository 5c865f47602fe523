//! The ingress: owns the route table and fronts it.

pub mod hub;
pub mod l7;
pub mod metrics;
pub mod table;
