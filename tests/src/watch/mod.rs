//! Looks on while faults happen: what an ingress holds ready, moment by moment, and what became of
//! requests around a moment. The demo and the benches measure with it.

mod ready;
mod scrape;
mod window;

pub use ready::ReadyWatch;
pub use scrape::{Sample, Scraper};
pub use window::Window;
