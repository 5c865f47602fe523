//! The ingress: owns the route table and fronts it.

mod admin;
pub mod hub;
pub mod l4;
pub mod l7;
pub mod listeners;
pub mod metrics;
mod stall;
pub mod table;
