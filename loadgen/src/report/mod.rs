//! The figures of a run, and whether they can be believed.
//!
//! - [`Report`]: everything that is known of a run; as JSON the contract that tools build on
//! - [`verdict`]: when a run is invalid, with each bound and its reason
//! - [`timeline`]: what happened when; as CSV, too
//! - [`html`]: one page with plots
//! - [`hlog`]: histograms in the interval log format of HdrHistogram

pub mod hlog;
pub mod html;
pub(crate) mod table;
#[cfg(test)]
mod tests;
pub mod timeline;
pub mod verdict;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

pub use timeline::{Heat, Timeline, TimelinePoint};
pub use verdict::Verdict;

use crate::plan::{Pacing, Plan, Target};
use crate::record::ErrorClass;
use crate::recorder::{Limit, OfTarget, Recorder, histogram_from_text, histogram_to_text};
use crate::slo::{Assertion, Slo};

/// What a report tells beside what was measured.
#[derive(Debug, Clone, PartialEq)]
pub struct About {
    /// Which engine ran, and why.
    pub engine: String,
    /// Requests that the schedule asked for until [`About::duration`]; none of a closed loop.
    pub expected: Option<f64>,
    /// Over which requests were scheduled, in fact.
    pub duration: Duration,
    /// Kept open.
    pub connections: usize,
    /// Names of the targets, in their order.
    pub targets: Vec<String>,
    /// When the run began.
    pub started: SystemTime,
    /// The command line; empty if there was none.
    pub command: Vec<String>,
    /// The host that it ran on.
    pub host: String,
    /// Of every random draw.
    pub seed: u64,
    /// Remarks of the engine for whoever reads the figures.
    pub notes: Vec<String>,
}

impl About {
    /// Returns what there is to tell of a run of `plan` that scheduled requests for
    /// `scheduled_for`: less than the plan's duration if it was stopped.
    pub fn of(
        plan: &Plan,
        engine: impl Into<String>,
        scheduled_for: Duration,
        started: SystemTime,
    ) -> Self {
        let expected = match &plan.pacing {
            Pacing::Open(profile) => Some(profile.expected(scheduled_for)),
            Pacing::Closed { .. } => None,
        };
        Self {
            engine: engine.into(),
            expected,
            duration: scheduled_for,
            connections: plan.connections,
            targets: plan
                .targets
                .iter()
                .map(|target| name_of(target, &plan.targets))
                .collect(),
            started,
            command: Vec::new(),
            host: host(),
            seed: plan.seed,
            notes: Vec::new(),
        }
    }
}

/// Returns what a target is called among `all`: its authority, with the path of its first request
/// where another has the same one.
pub fn name_of(target: &Target, all: &[Target]) -> String {
    let same = all
        .iter()
        .filter(|other| other.authority == target.authority);
    match target.requests.first() {
        Some(request) if same.count() > 1 => format!("{}{}", target.authority, request.path),
        _ => target.authority.clone(),
    }
}

fn host() -> String {
    let name = rustix::system::uname();
    name.nodename().to_string_lossy().into_owned()
}

/// Percentiles, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Percentiles {
    /// The mean.
    pub mean: f64,
    /// The median.
    pub p50: u64,
    /// 90 %.
    pub p90: u64,
    /// 95 %.
    pub p95: u64,
    /// 99 %.
    pub p99: u64,
    /// 99.9 %.
    pub p999: u64,
    /// 99.99 %.
    pub p9999: u64,
    /// The largest.
    pub max: u64,
}

impl Percentiles {
    /// Returns the percentiles of a histogram of nanoseconds.
    pub fn of(histogram: &Histogram<u32>) -> Self {
        let us = |ns: u64| (ns + 500) / 1000;
        let at = |quantile| us(histogram.value_at_quantile(quantile));
        Self {
            mean: histogram.mean() / 1e3,
            p50: at(0.5),
            p90: at(0.9),
            p95: at(0.95),
            p99: at(0.99),
            p999: at(0.999),
            p9999: at(0.9999),
            max: us(histogram.max()),
        }
    }
}

/// What a request or connection spent its time with. Absent: it never happened.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Phases {
    /// To an established TCP connection.
    pub connect: Option<Percentiles>,
    /// From then to the end of the TLS handshake.
    pub tls: Option<Percentiles>,
    /// From sending a request to the first byte of its answer.
    pub first_byte: Option<Percentiles>,
    /// From the first byte of an answer to its last.
    pub last_byte: Option<Percentiles>,
}

/// Bytes of requests and answers, heads included.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Bytes {
    /// Of answers.
    pub received: u64,
    /// Of requests.
    pub sent: u64,
    /// Of answers, a second.
    pub received_per_second: f64,
    /// Of requests, a second.
    pub sent_per_second: f64,
}

/// What became of the requests of one target.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct TargetFigures {
    /// Its authority.
    pub name: String,
    /// Requests done, failed ones included.
    pub requests: u64,
    /// Failed ones.
    pub failed: u64,
    /// Bytes of answers.
    pub received_bytes: u64,
    /// The mean latency.
    pub latency_mean_us: f64,
    /// Latencies, to two digits; none if there is one target, or more than 16.
    pub latency_us: Option<Percentiles>,
}

/// What the generator itself used and how late it was.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Generator {
    /// CPU time of the lanes' threads per request, in microseconds.
    pub cpu_us_per_request: f64,
    /// From when a request was due to when it was released to the connections.
    pub lag_us: Percentiles,
    /// Resident memory of the process.
    pub rss_bytes: u64,
    /// The share of its time that a lane's thread ran, on average.
    pub cpu_share: f64,
    /// The greatest share of a second that a lane's thread ran.
    pub cpu_share_peak: f64,
    /// The share of its time that a lane's thread could have run and no core was free.
    pub wait_share: f64,
    /// Seconds of lanes that were judged; the next three are parts of them.
    pub lane_seconds: u64,
    /// The thread had no more CPU to give, and was late.
    pub saturated_seconds: u64,
    /// The thread was kept from running, and was late.
    pub starved_seconds: u64,
    /// Requests waited for a connection although answers came.
    pub crowded_seconds: u64,
}

/// The figures of a run: the JSON of `ballast-loadgen --json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Whether the rest can be believed.
    pub verdict: Verdict,
    /// Why not; empty if it can.
    pub reason: String,
    /// What to know when reading the figures; none of it spoils them.
    #[serde(default)]
    pub notes: Vec<String>,
    /// The objectives that were asserted, and whether they were met.
    #[serde(default)]
    pub slos: Vec<Assertion>,
    /// Requests done, failed ones included.
    pub requests: u64,
    /// Failed ones, by class.
    pub errors: BTreeMap<String, u64>,
    /// For each class that tells, what its first failure was.
    #[serde(default)]
    pub error_reasons: BTreeMap<String, String>,
    /// Answers by status.
    #[serde(default)]
    pub statuses: BTreeMap<u16, u64>,
    /// Answers that came after their requests' timeouts, where it can be told (UDP).
    #[serde(default)]
    pub late_answers: u64,
    /// The mean rate that was asked for; none of a closed loop.
    pub asked_rate: Option<f64>,
    /// Requests done a second.
    pub achieved_rate: f64,
    /// Over which requests were scheduled.
    pub duration_seconds: f64,
    /// Kept open.
    pub connections: usize,
    /// Opened in all.
    #[serde(default)]
    pub connections_opened: u64,
    /// From when a request was due to its end; failed requests count, too.
    pub latency_us: Percentiles,
    /// From when it was sent to its end.
    pub service_time_us: Percentiles,
    /// Its parts, and those of connecting.
    #[serde(default)]
    pub phases_us: Phases,
    /// Throughput.
    #[serde(default)]
    pub bytes: Bytes,
    /// By target, in their order.
    #[serde(default)]
    pub targets: Vec<TargetFigures>,
    /// What the generator ran out of, and how often.
    #[serde(default)]
    pub limits: BTreeMap<String, u64>,
    /// The generator's own part.
    pub generator: Generator,
    /// Which engine ran, and why.
    #[serde(default)]
    pub engine: String,
    /// The command line; empty if there was none.
    #[serde(default)]
    pub command: Vec<String>,
    /// The host that it ran on.
    #[serde(default)]
    pub host: String,
    /// When it began: RFC 3339.
    #[serde(default)]
    pub started: String,
    /// Of every random draw.
    #[serde(default)]
    pub seed: u64,
    /// What happened when.
    #[serde(default)]
    pub series: Timeline,
    /// Histograms of nanoseconds by name, in HdrHistogram's V2 format, deflated, as base64.
    #[serde(default)]
    pub histograms: BTreeMap<String, String>,
}

impl Report {
    /// Returns the figures and the verdict of what `recorder` has taken down.
    pub fn new(about: &About, recorder: &Recorder) -> Self {
        let recorder = &recorder.settled();
        let counts = recorder.counts();
        let [latency, service, lag, connect, tls, first_byte, last_byte] =
            recorder.histograms().map(|(_, histogram)| histogram);
        let some = |histogram: &Histogram<u32>| {
            (!histogram.is_empty()).then(|| Percentiles::of(histogram))
        };
        let elapsed = about
            .duration
            .as_secs_f64()
            .max(recorder.last_done_ns() as f64 / 1e9)
            .max(f64::MIN_POSITIVE);
        let seconds = about.duration.as_secs_f64();
        let mut report = Self {
            verdict: Verdict::Valid,
            reason: String::new(),
            notes: about.notes.clone(),
            slos: Vec::new(),
            requests: counts.done,
            errors: errors_by_name(&counts.errors),
            error_reasons: reasons_by_name(recorder),
            statuses: recorder.statuses(),
            late_answers: counts.late,
            asked_rate: about
                .expected
                .map(|expected| expected / seconds.max(f64::MIN_POSITIVE)),
            achieved_rate: counts.done as f64 / elapsed,
            duration_seconds: seconds,
            connections: about.connections,
            connections_opened: counts.opened,
            latency_us: Percentiles::of(latency),
            service_time_us: Percentiles::of(service),
            phases_us: Phases {
                connect: some(connect),
                tls: some(tls),
                first_byte: some(first_byte),
                last_byte: some(last_byte),
            },
            bytes: Bytes {
                received: counts.received_bytes,
                sent: counts.sent_bytes,
                received_per_second: counts.received_bytes as f64 / elapsed,
                sent_per_second: counts.sent_bytes as f64 / elapsed,
            },
            targets: target_figures(&about.targets, recorder.targets()),
            limits: Limit::ALL
                .into_iter()
                .zip(counts.limits)
                .filter(|(_, count)| *count > 0)
                .map(|(limit, count)| (limit.name().to_owned(), count))
                .collect(),
            generator: generator(recorder, lag),
            engine: about.engine.clone(),
            command: about.command.clone(),
            host: about.host.clone(),
            started: jiff::Timestamp::try_from(about.started)
                .map(|time| time.to_string())
                .unwrap_or_default(),
            seed: about.seed,
            series: Timeline::of(recorder.series(), elapsed),
            histograms: recorder
                .histograms()
                .into_iter()
                .filter(|(_, histogram)| !histogram.is_empty())
                .map(|(name, histogram)| (name.to_owned(), histogram_to_text(histogram)))
                .collect(),
        };
        verdict::judge(&mut report, about, recorder);
        report
    }

    /// Holds the figures against `slos` and keeps what came of it.
    pub fn assert(&mut self, slos: &[Slo]) {
        self.slos = slos.iter().map(|slo| slo.assert(self)).collect();
    }

    /// Returns how many requests failed.
    pub fn failed(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Returns a histogram of nanoseconds: `latency`, `service`, `lag`, `connect`, `tls`,
    /// `first_byte` or `last_byte`; none if there is nothing in it.
    pub fn histogram(&self, name: &str) -> Option<Histogram<u32>> {
        histogram_from_text(self.histograms.get(name)?).ok()
    }

    /// Returns the exit status: 0 valid and within the asserted objectives, 1 an objective was
    /// missed, 3 invalid.
    pub fn exit_status(&self) -> u8 {
        match self.verdict {
            Verdict::Invalid => 3,
            Verdict::Valid => u8::from(self.slos.iter().any(|slo| !slo.met)),
        }
    }
}

fn reasons_by_name(recorder: &Recorder) -> BTreeMap<String, String> {
    let errors = &recorder.counts().errors;
    let counted = recorder.reasons().iter();
    counted
        .filter(|(class, _)| errors[class.index()] > 0)
        .map(|(class, why)| (class.name().to_owned(), why.clone()))
        .collect()
}

fn errors_by_name(errors: &crate::recorder::Errors) -> BTreeMap<String, u64> {
    ErrorClass::ALL
        .into_iter()
        .zip(errors)
        .filter(|(_, count)| **count > 0)
        .map(|(class, count)| (class.name().to_owned(), *count))
        .collect()
}

fn target_figures(names: &[String], targets: &[OfTarget]) -> Vec<TargetFigures> {
    let name = |index: usize| {
        let named = names.get(index).cloned();
        named.unwrap_or_else(|| format!("target {index}"))
    };
    targets
        .iter()
        .enumerate()
        .map(|(index, target)| TargetFigures {
            name: name(index),
            requests: target.done,
            failed: target.failed,
            received_bytes: target.received_bytes,
            latency_mean_us: target.latency_sum_ns as f64 / 1e3 / target.done.max(1) as f64,
            latency_us: target.latency.as_ref().map(Percentiles::of),
        })
        .collect()
}

fn generator(recorder: &Recorder, lag: &Histogram<u32>) -> Generator {
    let counts = recorder.counts();
    let points = recorder.series().points();
    let sum = |of: fn(&crate::recorder::Point) -> u64| points.iter().map(of).sum::<u64>();
    let wall = sum(|point| point.wall_ns).max(1) as f64;
    let peak = points.iter().map(|point| point.peak_cpu_permille).max();
    Generator {
        cpu_us_per_request: counts.cpu_ns as f64 / 1e3 / counts.done.max(1) as f64,
        lag_us: Percentiles::of(lag),
        rss_bytes: resident_bytes(),
        cpu_share: sum(|point| point.cpu_ns) as f64 / wall,
        cpu_share_peak: f64::from(peak.unwrap_or(0)) / 1e3,
        wait_share: sum(|point| point.wait_ns) as f64 / wall,
        lane_seconds: sum(|point| point.lane_seconds.into()),
        saturated_seconds: sum(|point| point.saturated.into()),
        starved_seconds: sum(|point| point.starved.into()),
        crowded_seconds: sum(|point| point.crowded.into()),
    }
}

/// Returns the resident memory of this process; 0 where `/proc` does not tell.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<u64>().ok())
        .unwrap_or_default()
        * 1024
}
