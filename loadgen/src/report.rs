//! The figures of a run, and whether they can be believed.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::config::Load;
use crate::record::{ErrorClass, Record};

/// The longest time that the histograms tell apart: an hour, in microseconds.
const LONGEST_US: u64 = 3_600_000_000;
/// Lag of the generator, at p99, below which it never spoils a run, in microseconds.
const LAG_TOLERATED_US: u64 = 1_000;
/// The part of the measured p99 that may be the generator's own lag.
const LAG_SHARE: u64 = 4;
/// The part of the asked rate that must be achieved.
const RATE_SHARE: f64 = 0.95;

/// Whether a run says anything about its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The figures are the target's.
    Valid,
    /// They are the generator's, or nothing was measured.
    Invalid,
}

/// Percentiles, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Percentiles {
    /// The median.
    pub p50: u64,
    /// 90 %.
    pub p90: u64,
    /// 99 %.
    pub p99: u64,
    /// 99.9 %.
    pub p999: u64,
    /// The largest.
    pub max: u64,
}

impl Percentiles {
    fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile);
        Self {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: histogram.max(),
        }
    }
}

/// What the generator itself used and how late it was.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Generator {
    /// CPU time per request, in microseconds.
    pub cpu_us_per_request: f64,
    /// From when a request was due to when it was released to the connections.
    pub lag_us: Percentiles,
    /// Resident memory of the process.
    pub rss_bytes: u64,
}

/// The figures of a run: the JSON of `ballast-loadgen --json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Whether the rest can be believed.
    pub verdict: Verdict,
    /// Why not; empty if it can.
    pub reason: String,
    /// Requests done, failed ones included.
    pub requests: u64,
    /// Failed ones, by class.
    pub errors: BTreeMap<&'static str, u64>,
    /// The rate that was asked for; none of a closed loop.
    pub asked_rate: Option<f64>,
    /// Requests done a second.
    pub achieved_rate: f64,
    /// Over which requests were scheduled.
    pub duration_seconds: f64,
    /// Kept open.
    pub connections: usize,
    /// From when a request was due to its end; failed requests count, too.
    pub latency_us: Percentiles,
    /// From when it was sent to its end.
    pub service_time_us: Percentiles,
    /// The generator's own part.
    pub generator: Generator,
}

/// What is gathered while a run goes on.
pub(crate) struct Stats {
    latency: Histogram<u64>,
    service: Histogram<u64>,
    lag: Histogram<u64>,
    released: u64,
    requests: u64,
    answered: u64,
    last_done_us: u64,
    errors: BTreeMap<ErrorClass, u64>,
    keep: bool,
    pub(crate) records: Vec<Record>,
}

impl Stats {
    pub(crate) fn new(keep: bool) -> Self {
        let histogram =
            || Histogram::new_with_max(LONGEST_US, 3).expect("the bounds are constants that fit");
        Self {
            latency: histogram(),
            service: histogram(),
            lag: histogram(),
            released: 0,
            requests: 0,
            answered: 0,
            last_done_us: 0,
            errors: BTreeMap::new(),
            keep,
            records: Vec::new(),
        }
    }

    pub(crate) fn released(&mut self, lag_us: u64) {
        self.released += 1;
        self.lag.saturating_record(lag_us);
    }

    pub(crate) fn done(&mut self, record: Record) {
        self.requests += 1;
        self.answered += u64::from(record.result.is_ok());
        self.last_done_us = self.last_done_us.max(record.done_us);
        if let Some(class) = record.failure() {
            *self.errors.entry(class).or_default() += 1;
        }
        self.latency.saturating_record(record.latency_us());
        self.service.saturating_record(record.service_time_us());
        if self.keep {
            self.records.push(record);
        }
    }
}

impl Report {
    pub(crate) fn new(
        load: &Load,
        scheduled_for: Duration,
        stats: &Stats,
        cpu: Duration,
        rss_bytes: u64,
    ) -> Self {
        let elapsed = scheduled_for
            .as_secs_f64()
            .max(stats.last_done_us as f64 / 1e6)
            .max(f64::MIN_POSITIVE);
        let mut report = Self {
            verdict: Verdict::Valid,
            reason: String::new(),
            requests: stats.requests,
            errors: stats
                .errors
                .iter()
                .map(|(class, count)| (class.name(), *count))
                .collect(),
            asked_rate: load.rate,
            achieved_rate: stats.requests as f64 / elapsed,
            duration_seconds: scheduled_for.as_secs_f64(),
            connections: load.connections,
            latency_us: Percentiles::of(&stats.latency),
            service_time_us: Percentiles::of(&stats.service),
            generator: Generator {
                cpu_us_per_request: cpu.as_secs_f64() * 1e6 / stats.requests.max(1) as f64,
                lag_us: Percentiles::of(&stats.lag),
                rss_bytes,
            },
        };
        if let Some(reason) = report.flaw(stats) {
            report.verdict = Verdict::Invalid;
            report.reason = reason;
        }
        report
    }

    /// Returns why the figures are not the target's, if they are not.
    fn flaw(&self, stats: &Stats) -> Option<String> {
        if stats.answered == 0 {
            return Some("no request was answered".to_owned());
        }
        let overload = self.errors.get(ErrorClass::Overload.name()).copied();
        if let Some(count) = overload {
            return Some(format!(
                "{count} requests were never sent: the backlog was full"
            ));
        }
        let lag = self.generator.lag_us.p99;
        if lag > LAG_TOLERATED_US && lag * LAG_SHARE > self.latency_us.p99 {
            return Some(format!(
                "the generator was late: p99 of its lag is {lag} µs of a p99 latency of {} µs",
                self.latency_us.p99
            ));
        }
        let scheduled_rate = stats.released as f64 / self.duration_seconds.max(f64::MIN_POSITIVE);
        if self.achieved_rate < scheduled_rate * RATE_SHARE {
            return Some(format!(
                "{:.0} requests/s of {scheduled_rate:.0} asked for: the target or {} connections \
                 could not take more",
                self.achieved_rate, self.connections
            ));
        }
        None
    }

    /// Returns how many requests failed.
    pub fn failed(&self) -> u64 {
        self.errors.values().sum()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |us: u64| us as f64 / 1e3;
        writeln!(
            f,
            "{} requests in {:.1} s, {:.0}/s, {} connections",
            self.requests, self.duration_seconds, self.achieved_rate, self.connections
        )?;
        write!(f, "failed         {}", self.failed())?;
        for (class, count) in &self.errors {
            write!(f, "  {class} {count}")?;
        }
        writeln!(f)?;
        writeln!(
            f,
            "ms                p50      p90      p99    p99.9      max"
        )?;
        for (name, row) in [
            ("latency", self.latency_us),
            ("service time", self.service_time_us),
            ("own lag", self.generator.lag_us),
        ] {
            writeln!(
                f,
                "{name:12} {:8.3} {:8.3} {:8.3} {:8.3} {:8.3}",
                ms(row.p50),
                ms(row.p90),
                ms(row.p99),
                ms(row.p999),
                ms(row.max)
            )?;
        }
        writeln!(
            f,
            "generator      {:.1} µs CPU a request, {:.1} MiB",
            self.generator.cpu_us_per_request,
            self.generator.rss_bytes as f64 / f64::from(1 << 20)
        )?;
        match self.verdict {
            Verdict::Valid => writeln!(f, "valid"),
            Verdict::Invalid => writeln!(f, "INVALID: {}", self.reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Method;

    fn report(lag_us: u64, latency_us: u64, result: crate::Result) -> Report {
        let mut load = Load::new("http://127.0.0.1:1/".parse().expect("target"));
        load.rate = Some(1000.0);
        let mut stats = Stats::new(false);
        for number in 0..1000 {
            stats.released(lag_us);
            stats.done(Record {
                number,
                method: Method::Get,
                scheduled_us: number * 1000,
                sent_us: number * 1000,
                done_us: number * 1000 + latency_us,
                result,
            });
        }
        let second = Duration::from_secs(1);
        Report::new(&load, second, &stats, Duration::from_millis(10), 1 << 20)
    }

    #[test]
    fn late_generator_makes_the_run_invalid() {
        assert_eq!(report(10, 500, Ok(200)).verdict, Verdict::Valid);
        assert_eq!(report(2_000, 50_000, Ok(200)).verdict, Verdict::Valid);
        let late = report(2_000, 2_500, Ok(200));
        assert_eq!(late.verdict, Verdict::Invalid);
        assert!(late.reason.contains("late"), "{}", late.reason);
    }

    #[test]
    fn missed_rate_makes_the_run_invalid() {
        let slow = report(10, 500_000, Ok(200));
        assert_eq!(slow.verdict, Verdict::Invalid);
        assert!(slow.reason.contains("asked for"), "{}", slow.reason);
    }

    #[test]
    fn run_without_an_answer_is_invalid_and_counts_its_errors() {
        let dead = report(10, 500, Err(ErrorClass::Refused));
        assert_eq!(dead.verdict, Verdict::Invalid);
        assert_eq!((dead.failed(), dead.errors["refused"]), (1000, 1000));
    }

    #[test]
    fn json_has_the_names_of_the_contract() {
        let json = serde_json::to_value(report(10, 500, Ok(503))).expect("serializes");
        assert_eq!(json["verdict"], "valid");
        assert_eq!(json["errors"]["status"], 1000);
        assert!(json["achieved_rate"].is_f64() && json["requests"].is_u64());
        for group in ["latency_us", "service_time_us"] {
            for name in ["p50", "p90", "p99", "p999", "max"] {
                assert!(json[group][name].is_u64(), "{group}.{name}");
            }
        }
        assert!(json["generator"]["cpu_us_per_request"].is_f64());
        assert!(json["generator"]["lag_us"]["p99"].is_u64());
        assert!(json["generator"]["rss_bytes"].is_u64());
    }
}
