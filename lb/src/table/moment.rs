//! Moments on the monotonic clock of this process.

use std::time::Duration;

/// A moment on a monotonic clock that was handed in.
///
/// # Units
/// Microseconds since a start that the caller chose. Never leaves the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment(pub u64);

impl Moment {
    /// Returns how long after `earlier` this is; zero if it is not.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// Returns this moment plus a span.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(as_micros(span)))
    }
}

/// Whole microseconds of a span, at most `u64::MAX`.
fn as_micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}
