//! A second's latencies, kept small.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::window::{BUCKETS, start_of};

/// A cell is 2⁴ buckets of a [`super::window::Window`]: 64 cells for each doubling.
pub(crate) const CELL_BITS: u32 = 4;

/// Counts of spans in cells 0.8 to 1.6 % wide; about 500 bytes for a second of a typical service.
///
/// Merges exactly. Ascending pairs of numbers in seven bits a byte: how many cells are skipped, and
/// the count.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Cells(Vec<u8>);

impl From<Cells> for String {
    fn from(cells: Cells) -> Self {
        STANDARD.encode(cells.0)
    }
}

impl TryFrom<String> for Cells {
    type Error = base64::DecodeError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        STANDARD.decode(text).map(Self)
    }
}

impl Cells {
    /// Returns the cells of `(cell, count)`, which must ascend; equal neighbours are added up.
    pub(crate) fn from_sorted(counts: impl Iterator<Item = (usize, u64)>) -> Self {
        let mut cells = Self::default();
        let mut last: Option<(usize, u64)> = None;
        let mut next = 0;
        for (cell, count) in counts {
            match &mut last {
                Some((same, sum)) if *same == cell => *sum = sum.saturating_add(count),
                _ => {
                    if let Some((cell, sum)) = last.replace((cell, count)) {
                        cells.push(cell - next, sum);
                        next = cell + 1;
                    }
                }
            }
        }
        if let Some((cell, sum)) = last {
            cells.push(cell - next, sum);
        }
        cells.0.shrink_to_fit();
        cells
    }

    fn push(&mut self, skipped: usize, count: u64) {
        for mut number in [skipped as u64, count] {
            loop {
                let [low, ..] = number.to_le_bytes();
                number >>= 7;
                if number == 0 {
                    self.0.push(low);
                    break;
                }
                self.0.push(low | 0x80);
            }
        }
    }

    /// Returns `(cell, count)` of each that is not empty, ascending. What does not decode ends it.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, u64)> {
        let mut rest = self.0.iter();
        let mut next = 0_usize;
        std::iter::from_fn(move || {
            let mut number = || {
                let mut number = 0_u64;
                for shift in (0..64).step_by(7) {
                    let byte = *rest.next()?;
                    number |= u64::from(byte & 0x7f) << shift;
                    if byte < 0x80 {
                        return Some(number);
                    }
                }
                None
            };
            let cell = next.checked_add(usize::try_from(number()?).ok()?)?;
            next = cell + 1;
            (cell <= BUCKETS >> CELL_BITS)
                .then(number)
                .flatten()
                .map(|count| (cell, count))
        })
    }

    /// Returns `(shortest, end, count)` of each that is not empty, ascending, in nanoseconds.
    pub fn spans(&self) -> impl Iterator<Item = (u64, u64, u64)> {
        self.iter().map(|(cell, count)| {
            let (start, end) = (
                start_of(cell << CELL_BITS),
                start_of((cell + 1) << CELL_BITS),
            );
            (start, end, count)
        })
    }

    /// Returns how many spans were counted.
    pub fn count(&self) -> u64 {
        self.iter()
            .fold(0, |sum, (_, count)| sum.saturating_add(count))
    }

    /// Returns how many bytes it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.0.len()
    }

    /// Adds the counts of `other`.
    pub fn merge(&mut self, other: &Self) {
        if other.0.is_empty() {
            return;
        }
        let merged = {
            let (mut left, mut right) = (self.iter().peekable(), other.iter().peekable());
            Self::from_sorted(std::iter::from_fn(move || {
                match (left.peek(), right.peek()) {
                    (Some(a), Some(b)) if a.0 <= b.0 => left.next(),
                    (Some(_), None) => left.next(),
                    _ => right.next(),
                }
            }))
        };
        *self = merged;
    }

    /// Returns the span below which the share `quantile` of all lies, in nanoseconds, evenly
    /// between a cell's ends; 0 of none.
    pub fn quantile(&self, quantile: f64) -> f64 {
        let wanted = (quantile * self.count() as f64).max(1.0);
        let mut below = 0.0;
        let mut last = 0.0;
        for (start, end, count) in self.spans() {
            let count = count as f64;
            if below + count >= wanted {
                let part = (wanted - below - 0.5) / count;
                return start as f64 + part.clamp(0.0, 1.0) * (end - start) as f64;
            }
            below += count;
            last = end as f64;
        }
        last
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::window::{LONGEST_NS, Window};
    use super::*;

    fn of(spans: &[u64]) -> Cells {
        let mut window = Window::new();
        for span in spans {
            window.record(*span);
        }
        window.cells()
    }

    proptest! {
        #[test]
        fn prop_merging_is_counting_together(
            left in prop::collection::vec(0..LONGEST_NS, 0..100),
            right in prop::collection::vec(0..10_000_000_u64, 0..100),
        ) {
            let mut merged = of(&left);
            merged.merge(&of(&right));
            let together = of(&[left, right].concat());
            prop_assert_eq!(merged, together);
        }

        #[test]
        fn prop_what_is_no_encoding_ends_and_does_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let mut cells = Cells(bytes);
            let listed = cells.iter().take(100).count();
            prop_assert!(listed <= 30);
            let _ = cells.iter().last();
            cells.merge(&of(&[5]));
        }
    }

    #[test]
    fn quantile_is_within_a_cell_of_the_truth() {
        let spans: Vec<u64> = (1..=100_000).map(|n| n * 100).collect();
        let cells = of(&spans);
        for (quantile, truth) in [(0.5, 5e6), (0.9, 9e6), (0.99, 9.9e6), (0.999, 9.99e6)] {
            let found = cells.quantile(quantile);
            assert!((found / truth - 1.0).abs() < 0.016, "{quantile}: {found}");
        }
        assert!(Cells::default().quantile(0.5).abs() < f64::EPSILON);
    }
}
