//! Measurements of what runs in memory, and what all measurements share: figures with their goals,
//! where they come from, and how they are reported.
//!
//! `cargo xtask bench scheduler` runs the cases in [`scheduler`]; benches of clusters of real
//! processes live in `tests/`, and report through the same [`Bench`].

pub mod figures;
pub mod machine;
mod options;
mod report;
pub mod scheduler;

pub use figures::{Figure, Figures};
pub use options::Options;
pub use report::Bench;
