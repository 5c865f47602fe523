//! What one lane has measured: the hot side of the results.
//!
//! - [`Recorder`]: takes samples at a few tens of nanoseconds each, in at most 1.5 MiB
//! - [`Series`], [`Point`]: what happened when; a long run has longer points, not more
//! - [`Board`]: where those who look on see it while it goes on
//! - [`Cells`]: a second's latencies in some hundred bytes

mod board;
mod cells;
mod health;
mod own;
mod series;
mod state;
mod window;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

pub use board::{Board, Seen};
pub use cells::Cells;
pub use series::{Errors, MAX_POINTS, Point, Series};
pub use state::{InvalidHistogram, histogram_from_text, histogram_to_text};

use crate::plan::{Check, Lane, Plan, Protocol};
use crate::record::{ErrorClass, Method, Record};
use crate::sample::{Opened, Sample};
use own::{Own, Watch};
use window::{LONGEST_NS, Window};

/// The shortest span that the histograms tell apart, in nanoseconds.
const SHORTEST_NS: u64 = 100;
/// Significant digits of the histograms.
const DIGITS: u8 = 3;
/// Targets with percentiles of their own; a run with more shows their counts and means.
const MAX_TARGET_HISTOGRAMS: usize = 16;
/// Statuses are counted one by one up to here.
const STATUSES: usize = 1000;
/// Characters of a reason: a peer has a say in it.
const MAX_REASON: usize = 200;
const SECOND_NS: u64 = 1_000_000_000;

/// Returns an empty histogram of nanoseconds, up to an hour, with three digits.
pub(crate) fn histogram() -> Histogram<u32> {
    Histogram::new_with_bounds(SHORTEST_NS, LONGEST_NS, DIGITS)
        .expect("the bounds are constants that fit")
}

/// What the generator itself ran out of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// File descriptors, or slots for sockets.
    Descriptors,
    /// Local ports.
    Ports,
    /// Connections: it could not open as many as it was to keep.
    Connections,
    /// The core that it was to be pinned to.
    Core,
    /// Memory, or buffers lent to the kernel.
    Memory,
}

impl Limit {
    /// Every limit, in the order of their numbers.
    pub const ALL: [Self; 5] = [
        Self::Descriptors,
        Self::Ports,
        Self::Connections,
        Self::Core,
        Self::Memory,
    ];

    /// Returns the name that reports use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Descriptors => "descriptors",
            Self::Ports => "ports",
            Self::Connections => "connections",
            Self::Core => "core",
            Self::Memory => "memory",
        }
    }
}

/// Running totals.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Requests that became due.
    pub released: u64,
    /// Requests that ended.
    pub done: u64,
    /// Of these, those that were answered, with whatever status.
    pub answered: u64,
    /// Of these, failed ones.
    pub errors: Errors,
    /// Bytes of answers.
    pub received_bytes: u64,
    /// Bytes of requests.
    pub sent_bytes: u64,
    /// Connections opened.
    pub opened: u64,
    /// Answers that came after their requests' timeouts, where it can be told (UDP).
    pub late: u64,
    /// How often each [`Limit`] was met.
    pub limits: [u64; Limit::ALL.len()],
    /// CPU time of the lanes' threads.
    pub cpu_ns: u64,
    /// Time for which they could have run and no core was free.
    pub wait_ns: u64,
}

impl Counts {
    /// Adds what another lane has done.
    pub fn add(&mut self, other: &Self) {
        self.released += other.released;
        self.done += other.done;
        self.answered += other.answered;
        for (sum, count) in self.errors.iter_mut().zip(other.errors) {
            *sum += count;
        }
        self.received_bytes += other.received_bytes;
        self.sent_bytes += other.sent_bytes;
        self.opened += other.opened;
        self.late += other.late;
        for (sum, count) in self.limits.iter_mut().zip(other.limits) {
            *sum += count;
        }
        self.cpu_ns += other.cpu_ns;
        self.wait_ns += other.wait_ns;
    }

    /// Returns how many requests failed.
    pub fn failed(&self) -> u64 {
        self.errors.iter().sum()
    }
}

/// What became of the requests of one target.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct OfTarget {
    /// Requests that ended.
    pub done: u64,
    /// Of these, failed ones.
    pub failed: u64,
    /// Bytes of answers.
    pub received_bytes: u64,
    /// Of all latencies together.
    pub latency_sum_ns: u64,
    /// Latencies, to two digits; none if there is one target, or more than 16.
    pub latency: Option<Histogram<u32>>,
}

/// For each class of errors what the first one was, in words.
pub type Reasons = BTreeMap<ErrorClass, String>;

/// Gathers one lane's samples. Not shared between threads; merged exactly at the end.
///
/// Times are nanoseconds since the start of the run.
#[derive(Debug, Clone)]
pub struct Recorder {
    counts: Counts,
    latency: Histogram<u32>,
    service: Histogram<u32>,
    lag: Histogram<u32>,
    connect: Histogram<u32>,
    tls: Histogram<u32>,
    first_byte: Histogram<u32>,
    last_byte: Histogram<u32>,
    last_done_ns: u64,
    statuses: Vec<u64>,
    targets: Vec<OfTarget>,
    series: Series,
    open: Open,
    watch: Watch,
    /// A status of 400 or more is a failure; no check has a say in it.
    judges_status: bool,
    /// Requests that the lane can have in flight.
    capacity: u64,
    /// One for each request of each target, if records are kept.
    methods: Option<Vec<Vec<Method>>>,
    records: Vec<Record>,
    reasons: Reasons,
    board: Option<(Arc<Board>, usize)>,
    fresh: Vec<(u64, Point)>,
}

/// The second that is under way.
#[derive(Debug, Clone)]
struct Open {
    second: u64,
    end_ns: u64,
    /// When the last one was closed.
    since_ns: u64,
    window: Window,
    lag_sum_ns: u64,
    lag_max_ns: u64,
    /// As of its beginning.
    before: Counts,
}

impl Recorder {
    /// Returns a recorder of one target that has seen nothing.
    pub fn new() -> Self {
        Self {
            counts: Counts::default(),
            latency: histogram(),
            service: histogram(),
            lag: histogram(),
            connect: histogram(),
            tls: histogram(),
            first_byte: histogram(),
            last_byte: histogram(),
            last_done_ns: 0,
            statuses: vec![0; STATUSES],
            targets: vec![OfTarget::default()],
            series: Series::new(),
            open: Open {
                second: 0,
                end_ns: SECOND_NS,
                since_ns: 0,
                window: Window::new(),
                lag_sum_ns: 0,
                lag_max_ns: 0,
                before: Counts::default(),
            },
            watch: Watch::default(),
            judges_status: true,
            capacity: u64::MAX,
            methods: None,
            records: Vec::new(),
            reasons: Reasons::new(),
            board: None,
            fresh: Vec::new(),
        }
    }

    /// Returns the recorder for `lane`: it knows the lane's targets, how many requests can be in
    /// flight, whether a check judges statuses, and whether records are kept.
    pub fn of(lane: &Lane) -> Self {
        let plan: &Plan = &lane.plan;
        let at_once = match plan.protocol {
            Protocol::Http1 { pipeline } => pipeline,
            Protocol::Http2 { streams } | Protocol::Grpc { streams } => streams,
            Protocol::UdpEcho => crate::general::DATAGRAMS_IN_FLIGHT,
            _ => 1,
        };
        let methods = |target: &crate::plan::Target| {
            let methods = target.requests.iter();
            methods.map(|request| (&request.method).into()).collect()
        };
        Self {
            targets: of_targets(plan.targets.len()),
            judges_status: !plan
                .checks
                .iter()
                .any(|check| matches!(check, Check::Status(_))),
            capacity: lane.connections() as u64 * u64::from(at_once),
            methods: plan
                .records
                .then(|| plan.targets.iter().map(methods).collect()),
            ..Self::new()
        }
    }

    /// Lets those who look at `board` see what this recorder takes down, as lane `lane`.
    pub fn seen_on(mut self, board: &Arc<Board>, lane: usize) -> Self {
        self.board = Some((board.clone(), lane));
        self
    }

    /// Takes down that a request became due at `due_ns` and was taken up at `now_ns`. Not for a
    /// closed loop, in which nothing is due.
    #[inline]
    pub fn released(&mut self, due_ns: u64, now_ns: u64) {
        if now_ns >= self.open.end_ns {
            self.roll(now_ns);
        }
        self.counts.released += 1;
        let lag = now_ns.saturating_sub(due_ns);
        self.lag.saturating_record(lag);
        self.open.lag_sum_ns = self.open.lag_sum_ns.saturating_add(lag);
        self.open.lag_max_ns = self.open.lag_max_ns.max(lag);
    }

    /// Takes down that a connection was opened.
    pub fn opened(&mut self, opened: &Opened) {
        self.counts.opened += 1;
        self.connect.saturating_record(opened.connect_ns);
        if let Some(span) = opened.tls_ns {
            self.tls.saturating_record(span);
        }
    }

    /// Takes down an answer that came after its request's timeout, where it can be told (UDP).
    pub fn late(&mut self) {
        self.counts.late += 1;
    }

    /// Takes down that the generator itself ran out of something: the run will be invalid.
    pub fn limit(&mut self, limit: Limit) {
        self.counts.limits[limit as usize] += 1;
    }

    /// Takes down what a failure of this class was, in words; the first of each class is kept.
    #[cold]
    pub fn reason(&mut self, class: ErrorClass, why: impl fmt::Display) {
        self.reasons.entry(class).or_insert_with(|| {
            let mut why = why.to_string();
            if let Some((end, _)) = why.char_indices().nth(MAX_REASON) {
                why.truncate(end);
                why.push('…');
            }
            why
        });
    }

    /// Takes down a request that ended. A status of 400 or more counts as a failure unless a check
    /// of the plan judges statuses. Requests that never left the generator
    /// ([`ErrorClass::unsent`]) have no latency.
    #[inline]
    pub fn done(&mut self, sample: &Sample) {
        if sample.done_ns >= self.open.end_ns {
            self.roll(sample.done_ns);
        }
        self.counts.done += 1;
        self.counts.received_bytes += sample.received_bytes;
        self.counts.sent_bytes += sample.sent_bytes;
        self.last_done_ns = self.last_done_ns.max(sample.done_ns);
        let failure = self.failure(sample.outcome);
        if let Some(class) = failure {
            self.counts.errors[class.index()] += 1;
        }
        let latency = sample.done_ns.saturating_sub(sample.due_ns);
        if usize::from(sample.target) >= self.targets.len() {
            self.add_targets(sample.target);
        }
        let target = &mut self.targets[usize::from(sample.target)];
        target.done += 1;
        target.failed += u64::from(failure.is_some());
        target.received_bytes += sample.received_bytes;
        if !failure.is_some_and(ErrorClass::unsent) {
            target.latency_sum_ns = target.latency_sum_ns.saturating_add(latency);
            if let Some(histogram) = &mut target.latency {
                histogram.saturating_record(latency);
            }
            self.open.window.record(latency);
            self.service
                .saturating_record(sample.done_ns.saturating_sub(sample.sent_ns));
            if sample.first_byte_ns != 0 {
                self.first_byte
                    .saturating_record(sample.first_byte_ns.saturating_sub(sample.sent_ns));
                self.last_byte
                    .saturating_record(sample.done_ns.saturating_sub(sample.first_byte_ns));
            }
        }
        if self.methods.is_some() {
            self.keep(sample);
        }
    }

    #[inline]
    fn failure(&mut self, outcome: crate::Result) -> Option<ErrorClass> {
        match outcome {
            Ok(status) => {
                self.counts.answered += 1;
                if let Some(count) = self.statuses.get_mut(usize::from(status)) {
                    *count += 1;
                }
                (status >= 400 && self.judges_status).then_some(ErrorClass::Status)
            }
            Err(class) => {
                self.counts.answered += u64::from(class.answered());
                Some(class)
            }
        }
    }

    #[cold]
    fn add_targets(&mut self, last: u16) {
        self.targets
            .resize(usize::from(last) + 1, OfTarget::default());
    }

    #[cold]
    fn keep(&mut self, sample: &Sample) {
        let target = self.methods.iter().flatten().nth(sample.target.into());
        let request = usize::try_from(sample.request).unwrap_or(usize::MAX);
        let method = target.and_then(|methods| methods.get(request));
        self.records.push(Record {
            number: sample.number,
            method: method.copied().unwrap_or(Method::Get),
            scheduled_us: sample.due_ns / 1000,
            sent_us: sample.sent_ns / 1000,
            done_us: sample.done_ns / 1000,
            result: sample.outcome,
        });
    }

    /// Closes a second that is over, and tells those who look on. Engines call it about ten times
    /// a second, on the lane's own thread.
    pub fn tick(&mut self, now_ns: u64) {
        if now_ns >= self.open.end_ns {
            self.roll(now_ns);
        }
        self.publish();
    }

    /// Closes the second that is under way: the lane is done. Engines call it last, on the lane's
    /// own thread.
    pub fn finish(&mut self, now_ns: u64) {
        self.roll(now_ns);
        self.publish();
    }

    fn publish(&mut self) {
        if let Some((board, lane)) = &self.board {
            board.put(*lane, &self.counts, &mut self.fresh);
        }
    }

    #[cold]
    fn roll(&mut self, now_ns: u64) {
        let Own { cpu_ns, wait_ns } = self.watch.read();
        self.counts.cpu_ns = cpu_ns;
        self.counts.wait_ns = wait_ns;
        self.close(now_ns);
    }

    /// Closes the second that is under way, without a look at the thread.
    fn close(&mut self, now_ns: u64) {
        let (second, point) = self.point(now_ns);
        self.open.window.add_to(&mut self.latency);
        self.open.window.clear();
        self.open.before.clone_from(&self.counts);
        self.open.lag_sum_ns = 0;
        self.open.lag_max_ns = 0;
        self.open.since_ns = now_ns.max(self.open.since_ns);
        self.open.second = (now_ns / SECOND_NS).max(second);
        self.open.end_ns = (self.open.second + 1).saturating_mul(SECOND_NS);
        self.series.push(second, &point);
        if self.board.is_some() {
            self.fresh.push((second, point));
        }
    }

    /// Returns the second that is under way and what happened in it.
    fn point(&self, now_ns: u64) -> (u64, Point) {
        let (now, before, open) = (&self.counts, &self.open.before, &self.open);
        let mut errors = now.errors;
        for (count, before) in errors.iter_mut().zip(before.errors) {
            *count -= before;
        }
        let mut point = Point {
            released: now.released - before.released,
            done: now.done - before.done,
            errors,
            received_bytes: now.received_bytes - before.received_bytes,
            sent_bytes: now.sent_bytes - before.sent_bytes,
            cells: open.window.cells(),
            latency_sum_ns: open.window.sum_ns,
            latency_max_ns: open.window.max_ns,
            lag_sum_ns: open.lag_sum_ns,
            lag_max_ns: open.lag_max_ns,
            in_flight: now.released.saturating_sub(now.done),
            cpu_ns: now.cpu_ns.saturating_sub(before.cpu_ns),
            wait_ns: now.wait_ns.saturating_sub(before.wait_ns),
            wall_ns: now_ns.saturating_sub(open.since_ns),
            ..Point::default()
        };
        health::judge(&mut point, self.capacity);
        (open.second, point)
    }

    /// Adds everything that `other` has taken down: the same as if one recorder had seen both.
    pub fn merge(&mut self, other: &Recorder) {
        self.settle();
        self.counts.add(&other.counts);
        self.open.before.clone_from(&self.counts);
        for (own, others) in [
            (&mut self.latency, &other.latency),
            (&mut self.service, &other.service),
            (&mut self.lag, &other.lag),
            (&mut self.connect, &other.connect),
            (&mut self.tls, &other.tls),
            (&mut self.first_byte, &other.first_byte),
            (&mut self.last_byte, &other.last_byte),
        ] {
            own.add(others).expect("all have the same bounds");
        }
        other.open.window.add_to(&mut self.latency);
        self.last_done_ns = self.last_done_ns.max(other.last_done_ns);
        for (sum, count) in self.statuses.iter_mut().zip(&other.statuses) {
            *sum += count;
        }
        self.merge_targets(&other.targets);
        self.series.merge(&other.whole_series());
        self.records.extend_from_slice(&other.records);
        for (class, why) in &other.reasons {
            self.reasons.entry(*class).or_insert_with(|| why.clone());
        }
    }

    fn merge_targets(&mut self, others: &[OfTarget]) {
        if self.targets.len() < others.len() {
            self.targets.resize(others.len(), OfTarget::default());
        }
        for (own, other) in self.targets.iter_mut().zip(others) {
            own.done += other.done;
            own.failed += other.failed;
            own.received_bytes += other.received_bytes;
            own.latency_sum_ns = own.latency_sum_ns.saturating_add(other.latency_sum_ns);
            match (&mut own.latency, &other.latency) {
                (Some(own), Some(other)) => own.add(other).expect("all have the same bounds"),
                (own @ None, Some(other)) => *own = Some(other.clone()),
                (_, None) => {}
            }
        }
    }

    /// Returns the series with the second that is under way.
    fn whole_series(&self) -> Series {
        let mut series = self.series.clone();
        if self.is_open() {
            let (second, point) = self.point(self.last_done_ns);
            series.push(second, &point);
        }
        series
    }

    fn is_open(&self) -> bool {
        self.open.before != self.counts
    }

    /// Closes the second that is under way if anything happened in it: for those who read a
    /// recorder that was not finished.
    fn settle(&mut self) {
        if self.is_open() {
            self.close(self.last_done_ns);
        }
    }

    /// Returns it with the second that is under way closed.
    pub(crate) fn settled(&self) -> Self {
        let mut settled = self.clone();
        settled.settle();
        settled
    }

    /// Returns the running totals.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Returns when the last request ended, in nanoseconds since the start.
    pub fn last_done_ns(&self) -> u64 {
        self.last_done_ns
    }

    /// Returns what happened when, but for the second that is under way.
    pub fn series(&self) -> &Series {
        &self.series
    }

    /// Returns what became of each target's requests.
    pub fn targets(&self) -> &[OfTarget] {
        &self.targets
    }

    /// Returns how many answers had which status.
    pub fn statuses(&self) -> BTreeMap<u16, u64> {
        (0..)
            .zip(&self.statuses)
            .filter(|(_, count)| **count > 0)
            .map(|(status, count)| (status, *count))
            .collect()
    }

    /// Returns whether a failure of this class is yet to be told in words.
    pub fn wants_reason(&self, class: ErrorClass) -> bool {
        !self.reasons.contains_key(&class)
    }

    /// Returns what the first failure of each class was, where it was told.
    pub fn reasons(&self) -> &Reasons {
        &self.reasons
    }

    /// Returns the records, if they were kept; afterwards there are none.
    pub fn take_records(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.records)
    }

    /// Returns a histogram with its name: `latency`, `service`, `lag`, `connect`, `tls`,
    /// `first_byte`, `last_byte`. Nanoseconds.
    ///
    /// Latency and service count failed requests, too. First byte counts from sending, last byte
    /// from the first one.
    pub fn histograms(&self) -> [(&'static str, &Histogram<u32>); 7] {
        [
            ("latency", &self.latency),
            ("service", &self.service),
            ("lag", &self.lag),
            ("connect", &self.connect),
            ("tls", &self.tls),
            ("first_byte", &self.first_byte),
            ("last_byte", &self.last_byte),
        ]
    }
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}

fn of_targets(count: usize) -> Vec<OfTarget> {
    let one = OfTarget {
        latency: (2..=MAX_TARGET_HISTOGRAMS).contains(&count).then(|| {
            Histogram::new_with_bounds(SHORTEST_NS, LONGEST_NS, 2)
                .expect("the bounds are constants that fit")
        }),
        ..OfTarget::default()
    };
    vec![one; count.max(1)]
}

#[cfg(test)]
mod tests;
