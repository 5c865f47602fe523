//! The ingress: owns the route table and fronts it.
pub mod table;
