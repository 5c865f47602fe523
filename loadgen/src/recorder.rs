//! What one lane has measured: the hot side of the results.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use crate::record::ErrorClass;
use crate::sample::{Opened, Sample};

/// The shortest span that the histograms tell apart, in nanoseconds.
const SHORTEST_NS: u64 = 100;
/// The longest, an hour, in nanoseconds.
const LONGEST_NS: u64 = 3_600_000_000_000;
/// Significant digits of the histograms.
const DIGITS: u8 = 3;

/// Gathers one lane's samples. Not shared between threads; merged exactly at the end.
#[derive(Debug)]
pub struct Recorder {
    /// From when a request was due to its end; failed requests count, too.
    pub latency: Histogram<u32>,
    /// From when it was sent to its end.
    pub service: Histogram<u32>,
    /// From when it was due to when the engine took it up.
    pub lag: Histogram<u32>,
    /// Requests that became due.
    pub released: u64,
    /// Requests that ended.
    pub done: u64,
    /// Of these, those that were answered.
    pub answered: u64,
    /// Bytes of answers.
    pub received_bytes: u64,
    /// Bytes of requests.
    pub sent_bytes: u64,
    /// Datagrams that answered a request after its timeout.
    pub late: u64,
    /// When the last request ended, in nanoseconds since the start.
    pub last_done_ns: u64,
    /// Connections opened.
    pub opened: u64,
    /// Failed requests, by class.
    pub errors: BTreeMap<ErrorClass, u64>,
}

impl Recorder {
    /// Returns a recorder that has seen nothing.
    pub fn new() -> Self {
        let histogram = || {
            Histogram::new_with_bounds(SHORTEST_NS, LONGEST_NS, DIGITS)
                .expect("the bounds are constants that fit")
        };
        Self {
            latency: histogram(),
            service: histogram(),
            lag: histogram(),
            released: 0,
            done: 0,
            answered: 0,
            received_bytes: 0,
            sent_bytes: 0,
            late: 0,
            last_done_ns: 0,
            opened: 0,
            errors: BTreeMap::new(),
        }
    }

    /// Takes down that a request became due at `due_ns` and was taken up at `now_ns`.
    pub fn released(&mut self, due_ns: u64, now_ns: u64) {
        self.released += 1;
        self.lag.saturating_record(now_ns.saturating_sub(due_ns));
    }

    /// Takes down that a connection was opened.
    pub fn opened(&mut self, _opened: &Opened) {
        self.opened += 1;
    }

    /// Takes down an answer that came after its request's timeout, where it can be told (UDP).
    pub fn late(&mut self) {
        self.late += 1;
    }

    /// Takes down a request that ended.
    pub fn done(&mut self, sample: &Sample) {
        self.done += 1;
        self.answered += u64::from(sample.outcome.is_ok());
        self.received_bytes += sample.received_bytes;
        self.sent_bytes += sample.sent_bytes;
        self.last_done_ns = self.last_done_ns.max(sample.done_ns);
        if let Err(class) = sample.outcome {
            *self.errors.entry(class).or_default() += 1;
        }
        self.latency
            .saturating_record(sample.done_ns.saturating_sub(sample.due_ns));
        self.service
            .saturating_record(sample.done_ns.saturating_sub(sample.sent_ns));
    }
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}
