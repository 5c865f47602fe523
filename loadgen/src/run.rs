//! One run from start to end: its threads, its engine, its outcome.

use ballast_ring::RingError;

/// A run that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The rate, share or number of connections makes no sense.
    #[error("{0}")]
    Invalid(&'static str),
    /// The operating system refused a thread or a timer.
    #[error("cannot start the generator")]
    Start(#[source] std::io::Error),
    /// There is no such event loop here.
    #[error("cannot start the engine")]
    Ring(#[source] RingError),
    /// The generator's thread panicked.
    #[error("the generator panicked")]
    Panicked,
}
