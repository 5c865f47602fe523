//! What the process logs, changed while it runs.

use std::fmt::Debug;

/// Whoever set up logging: the process, not this library.
pub trait LogControl: Debug + Send + Sync {
    /// Returns the filter in use, such as `warn,ballast_lb=debug`.
    fn filter(&self) -> String;

    /// Uses another.
    ///
    /// # Errors
    /// Why it cannot be used.
    fn set_filter(&self, filter: &str) -> Result<(), String>;
}
