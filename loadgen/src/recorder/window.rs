//! The spans of the second that is under way.

use hdrhistogram::Histogram;

use super::cells::{CELL_BITS, Cells};

/// Spans are told apart to 64 ns.
pub(crate) const UNIT_BITS: u32 = 6;
/// Above 2,048 units, each doubling is cut into 1,024 parts: the layout of an `HdrHistogram` of
/// three digits, so that counts can be moved between the two without loss.
pub(crate) const HALF_BITS: u32 = 10;
/// The longest span told apart, an hour, in nanoseconds.
pub(crate) const LONGEST_NS: u64 = 3_600_000_000_000;
/// The number of the longest span's bucket, plus one.
pub(crate) const BUCKETS: usize = bucket_of(LONGEST_NS) + 1;

/// Returns the number of the bucket that `ns` falls in.
pub(crate) const fn bucket_of(ns: u64) -> usize {
    let units = ns >> UNIT_BITS;
    let linear = (2 << HALF_BITS) - 1;
    let shift = (u64::BITS - (units | linear).leading_zeros()) - (HALF_BITS + 1);
    ((shift as usize) << HALF_BITS) + (units >> shift) as usize
}

/// Returns the shortest span of `bucket`, in nanoseconds.
pub(crate) const fn start_of(bucket: usize) -> u64 {
    let shift = (bucket >> HALF_BITS).saturating_sub(1);
    ((bucket - (shift << HALF_BITS)) as u64) << shift << UNIT_BITS
}

/// Counts spans for a second, at a few nanoseconds each.
///
/// A histogram of its own, because a second's figures have to be read and cleared while requests
/// are due: only the buckets between the least and the greatest seen are looked at, a few thousand
/// instead of 28,000.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    counts: Box<[u32]>,
    least: usize,
    greatest: usize,
    /// Spans counted.
    pub count: u64,
    /// Of all of them.
    pub sum_ns: u64,
    /// The longest, exactly.
    pub max_ns: u64,
}

impl Window {
    /// Returns a window that has seen nothing.
    pub fn new() -> Self {
        Self {
            counts: vec![0; BUCKETS].into_boxed_slice(),
            least: BUCKETS,
            greatest: 0,
            count: 0,
            sum_ns: 0,
            max_ns: 0,
        }
    }

    /// Counts one span; those over an hour count as an hour.
    #[inline]
    pub fn record(&mut self, ns: u64) {
        let ns = ns.min(LONGEST_NS);
        let bucket = bucket_of(ns);
        self.counts[bucket] = self.counts[bucket].saturating_add(1);
        self.least = self.least.min(bucket);
        self.greatest = self.greatest.max(bucket);
        self.count += 1;
        self.sum_ns += ns;
        self.max_ns = self.max_ns.max(ns);
    }

    fn buckets(&self) -> impl Iterator<Item = (usize, u32)> {
        let seen = self.least..(self.greatest + 1).max(self.least);
        let counts = self.counts.get(seen).unwrap_or_default();
        (self.least..)
            .zip(counts.iter().copied())
            .filter(|(_, count)| *count > 0)
    }

    /// Returns its counts, coarser: [`Cells`].
    pub fn cells(&self) -> Cells {
        Cells::from_sorted(
            self.buckets()
                .map(|(bucket, count)| (bucket >> CELL_BITS, u64::from(count))),
        )
    }

    /// Adds its counts to `histogram`, which must have its layout.
    pub fn add_to(&self, histogram: &mut Histogram<u32>) {
        for (bucket, count) in self.buckets() {
            histogram.saturating_record_n(start_of(bucket), count);
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        if self.least <= self.greatest {
            self.counts[self.least..=self.greatest].fill(0);
        }
        self.least = BUCKETS;
        self.greatest = 0;
        self.count = 0;
        self.sum_ns = 0;
        self.max_ns = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::histogram;
    use super::*;

    proptest! {
        #[test]
        fn prop_buckets_are_those_of_the_histogram(ns in 0..LONGEST_NS) {
            let bucket = bucket_of(ns);
            prop_assert!(start_of(bucket) <= ns && ns < start_of(bucket + 1));
            let histogram = histogram();
            prop_assert_eq!(histogram.lowest_equivalent(ns), start_of(bucket));
        }

        #[test]
        fn prop_nothing_is_lost_on_the_way_to_the_histogram(
            spans in prop::collection::vec(0..LONGEST_NS, 0..200)
        ) {
            let mut window = Window::new();
            let mut direct = histogram();
            for span in &spans {
                window.record(*span);
                direct.saturating_record(*span);
            }
            let mut through = histogram();
            window.add_to(&mut through);
            prop_assert_eq!(&through, &direct);
            prop_assert_eq!(window.cells().count(), spans.len() as u64);
            window.clear();
            prop_assert_eq!(window.cells().count(), 0);
            prop_assert!(window.counts.iter().all(|count| *count == 0));
        }
    }
}
