//! A latency that rises at once and falls slowly.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::table::Moment;

/// In which a peak falls to a third.
const DECAY: Duration = Duration::from_secs(10);

/// The peak-sensitive moving average of an endpoint's latency.
///
/// # Source
/// Finagle's Peak EWMA (`com.twitter.finagle.loadbalancer.p2c.P2CPeakEwma`).
#[derive(Debug, Default)]
pub struct PeakLatency {
    /// As the bits of an `f32`, in microseconds; 0: no sample yet.
    micros: AtomicU32,
    at: AtomicU64,
}

impl PeakLatency {
    /// Takes a sample.
    pub fn sample(&self, latency: Duration, now: Moment) {
        let sample = (latency.as_micros() as f32).max(1.0);
        let old = f32::from_bits(self.micros.load(Ordering::Relaxed));
        let new = if sample >= old {
            sample
        } else {
            let keeps = self.keeps(now);
            old * keeps + sample * (1.0 - keeps)
        };
        // Two threads may overwrite each other's sample: an average bears that.
        self.micros.store(new.to_bits(), Ordering::Relaxed);
        self.at.store(now.0, Ordering::Relaxed);
    }

    /// Returns the estimate in microseconds, lower the longer nothing was heard: an endpoint that
    /// was slow once is asked again. 0 without a sample.
    pub fn micros(&self, now: Moment) -> f32 {
        let old = f32::from_bits(self.micros.load(Ordering::Relaxed));
        if old == 0.0 {
            0.0
        } else {
            old * self.keeps(now)
        }
    }

    fn keeps(&self, now: Moment) -> f32 {
        let age = now.since(Moment(self.at.load(Ordering::Relaxed)));
        (-age.as_secs_f32() / DECAY.as_secs_f32()).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn rise_counts_at_once_and_fall_slowly() {
        let latency = PeakLatency::default();
        let mut now = Moment(1_000_000);
        assert!(latency.micros(now) == 0.0);
        latency.sample(MS, now);
        latency.sample(MS * 100, now);
        assert!((99_000.0..=100_000.0).contains(&latency.micros(now)));
        for _ in 0..10 {
            now = now.after(MS * 100);
            latency.sample(MS, now);
        }
        assert!(
            (85_000.0..95_000.0).contains(&latency.micros(now)),
            "a second: a tenth"
        );
        let later = now.after(Duration::from_mins(1));
        assert!(latency.micros(later) < 1000.0, "silence is forgiven");
    }
}
