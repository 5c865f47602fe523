//! A histogram of durations with buckets a quarter of an octave wide, for counting without a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets in one doubling: a quantile read from them is off by an eighth at most.
const PARTS: usize = 4;
/// The first doubling ends at 64 µs; below it the buckets are 16 µs wide.
const FIRST_OCTAVE: u32 = 6;
/// The last doubling ends at 16.8 s; what takes longer is in the last bucket.
const LAST_OCTAVE: u32 = 24;
/// Doublings with buckets of their own, the first one included.
const OCTAVES: usize = (LAST_OCTAVE - FIRST_OCTAVE + 1) as usize;
/// All buckets, the one past the last doubling included.
const BUCKETS: usize = OCTAVES * PARTS + 1;

/// Returns the bucket of a duration.
fn bucket(took: Duration) -> usize {
    let nanos = took
        .as_secs()
        .saturating_mul(1_000_000_000)
        .saturating_add(u64::from(took.subsec_nanos()));
    // Rounded up, less one: a duration that is a bound belongs below it, as Prometheus has it.
    let micros = nanos.div_ceil(1000).saturating_sub(1);
    let octave = micros.max(1).ilog2();
    let index = if octave < FIRST_OCTAVE {
        micros >> (FIRST_OCTAVE - 2)
    } else {
        let part = (micros >> (octave - 2)) & 3;
        u64::from(octave - FIRST_OCTAVE + 1) * PARTS as u64 + part
    };
    usize::try_from(index).map_or(BUCKETS - 1, |index| index.min(BUCKETS - 1))
}

/// Returns where a bucket ends, in microseconds; the last one has no end.
fn end_of(bucket: usize) -> u64 {
    let (octave, part) = (bucket / PARTS, (bucket % PARTS) as u64 + 1);
    if octave == 0 {
        part << (FIRST_OCTAVE - 2)
    } else {
        let shift = FIRST_OCTAVE as usize + octave - 1;
        (PARTS as u64 + part) << (shift - 2)
    }
}

/// What one thread counts.
#[derive(Debug)]
pub(super) struct Counted {
    buckets: [AtomicU64; BUCKETS],
    nanos: AtomicU64,
}

impl Default for Counted {
    fn default() -> Self {
        Self {
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
            nanos: AtomicU64::new(0),
        }
    }
}

impl Counted {
    pub(super) fn add(&self, took: Duration) {
        self.buckets[bucket(took)].fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    pub(super) fn add_to(&self, all: &mut Latency) {
        for (sum, one) in all.buckets.iter_mut().zip(&self.buckets) {
            *sum += one.load(Ordering::Relaxed);
        }
        let nanos = self.nanos.load(Ordering::Relaxed);
        all.sum += Duration::from_nanos(nanos);
    }
}

/// How long things took, summed over threads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Latency {
    buckets: [u64; BUCKETS],
    /// All of them together.
    pub sum: Duration,
}

impl Default for Latency {
    fn default() -> Self {
        Self {
            buckets: [0; BUCKETS],
            sum: Duration::ZERO,
        }
    }
}

impl Latency {
    /// Returns how many there were.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Returns the end of each doubling in seconds, and how many fell into it; the last is infinite.
    pub fn doublings(&self) -> Vec<(f64, u64)> {
        let (octaves, rest) = self.buckets.split_at(BUCKETS - 1);
        let octaves = octaves.chunks(PARTS).enumerate();
        let mut all: Vec<(f64, u64)> = octaves
            .map(|(octave, parts)| {
                let micros = end_of(octave * PARTS + PARTS - 1);
                (micros as f64 / 1e6, parts.iter().sum())
            })
            .collect();
        all.push((f64::INFINITY, rest.iter().sum()));
        all
    }

    /// Returns the ends in microseconds and the counts of the buckets that hold something; what is
    /// past all bounds counts at the last one.
    pub fn filled(&self) -> Vec<(u64, u64)> {
        let filled = self
            .buckets
            .iter()
            .enumerate()
            .filter(|(_, count)| **count > 0);
        filled
            .map(|(bucket, &count)| (end_of(bucket.min(BUCKETS - 2)), count))
            .collect()
    }

    /// Returns a quantile (0 to 1) to an eighth of itself; `None` if there were none.
    pub fn quantile(&self, quantile: f64) -> Option<Duration> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 1 and the count"
        )]
        let rank = ((count as f64 * quantile).ceil() as u64).clamp(1, count);
        let mut seen = 0;
        let found = self.buckets.iter().position(|&count| {
            seen += count;
            seen >= rank
        })?;
        let begin = found.checked_sub(1).map_or(0, end_of);
        // What is past all bounds is at least as long as the last one.
        let end = end_of(found.min(BUCKETS - 2));
        Some(Duration::from_micros(u64::midpoint(begin.min(end), end)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_at_a_bound_are_below_it_and_quantiles_come_close() {
        for bucket_of in 0..BUCKETS - 1 {
            let end = Duration::from_micros(end_of(bucket_of));
            assert_eq!(bucket(end), bucket_of, "{end:?}");
            assert_eq!(bucket(end + Duration::from_nanos(1)), bucket_of + 1);
        }
        assert_eq!(bucket(Duration::ZERO), 0);
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
        let counted = Counted::default();
        for micros in 1..=10_000 {
            counted.add(Duration::from_micros(micros));
        }
        let mut latency = Latency::default();
        counted.add_to(&mut latency);
        assert_eq!(latency.count(), 10_000);
        assert_eq!(latency.sum, Duration::from_millis(50_005));
        for (quantile, micros) in [(0.5, 5000.0), (0.9, 9000.0), (0.99, 9900.0)] {
            let found = latency.quantile(quantile).expect("has some").as_micros() as f64;
            assert!((found / micros - 1.0).abs() < 0.13, "{quantile}: {found}");
        }
        assert_eq!(Latency::default().quantile(0.5), None);
    }

    #[test]
    fn doublings_hold_everything_once() {
        let counted = Counted::default();
        for micros in [1, 64, 65, 128, 129, 1 << 24, (1 << 24) + 1] {
            counted.add(Duration::from_micros(micros));
        }
        let mut latency = Latency::default();
        counted.add_to(&mut latency);
        let doublings = latency.doublings();
        assert_eq!(doublings.len(), OCTAVES + 1);
        assert_eq!(doublings[0], (64e-6, 2));
        assert_eq!(doublings[1], (128e-6, 2));
        assert_eq!(doublings[2], (256e-6, 1));
        assert_eq!(doublings[OCTAVES - 1], (16.777_216, 1));
        assert_eq!(doublings[OCTAVES], (f64::INFINITY, 1));
    }

    proptest! {
        #[test]
        fn prop_longer_durations_are_in_no_lower_bucket(a in 0..40_000_000_000u64, b in 0..40_000_000_000u64) {
            let (short, long) = (a.min(b), a.max(b));
            prop_assert!(bucket(Duration::from_nanos(short)) <= bucket(Duration::from_nanos(long)));
        }
    }
}
