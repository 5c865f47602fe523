//! What became of the requests around a moment.

use std::time::{Duration, Instant};

use ballast_loadgen::Record;

/// Requests that were due in a span of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Due from.
    pub from: Instant,
    /// Due before.
    pub to: Instant,
}

impl Window {
    /// Returns the records of a load with that zero that fall into this.
    pub fn of(self, zero: Instant, records: &[Record]) -> impl Iterator<Item = &Record> {
        let micros = move |at: Instant| {
            u64::try_from(at.saturating_duration_since(zero).as_micros()).unwrap_or(u64::MAX)
        };
        let (from, to) = (micros(self.from), micros(self.to));
        records
            .iter()
            .filter(move |record| (from..to).contains(&record.scheduled_us))
    }

    /// Returns how many of them failed.
    pub fn failed(self, zero: Instant, records: &[Record]) -> usize {
        self.of(zero, records)
            .filter(|record| record.failure().is_some())
            .count()
    }

    /// Returns the longest time from when one of them was due to when it was done.
    pub fn slowest(self, zero: Instant, records: &[Record]) -> Duration {
        let micros = self.of(zero, records).map(Record::latency_us).max();
        Duration::from_micros(micros.unwrap_or_default())
    }
}
