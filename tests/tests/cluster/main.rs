//! Facts about whole clusters of real processes. Every test stands alone, has deadlines, and says
//! SKIP and why where the machine lacks something.

mod agents;
mod bad_input;
mod bad_luck;
mod dev;
mod examples;
mod faults;
mod joins;
mod manager;
mod metrics;
mod scenario;
mod service;
