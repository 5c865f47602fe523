//! Whether the figures are the target's or the generator's.
//!
//! A target that is slow, stalls or refuses makes figures bad, not invalid: requests were made when
//! they were due and every wait counts, the one for a free connection, too. Invalid is a run in
//! which the *generator* did not do what it was told:
//!
//! - nothing was asked, or nothing answered at all: there are no figures
//! - it ran out of descriptors, ports, memory or places for requests that wait
//! - it was late, because its core was full, because others had the core, or for another reason
//! - in a closed loop, where nothing is due: its core was full, or others had it, most of the time
//! - it made fewer requests than the schedule asked for
//! - its connections were too few: for most of the run requests queued in the generator although
//!   answers came all the time, and the rate was missed. Percentiles then grow with the length of
//!   the run and say nothing of the target. A stall of the target is told from that by its silence:
//!   no answers come in it.

use serde::{Deserialize, Serialize};

use super::{About, Report};
use crate::record::ErrorClass;
use crate::recorder::{Limit, Recorder};

/// Lag at p50 below which it never spoils a run, in nanoseconds: what pacing has to keep to, and
/// five times the kernel's default timer slack.
const LAG_TOLERATED_P50_NS: u64 = 250_000;
/// Lag at p99 below which it never spoils a run, in nanoseconds: the tail of a machine on which
/// other things run now and then.
const LAG_TOLERATED_P99_NS: u64 = 1_000_000;
/// The part of a measured percentile that may be the generator's own lag: one in this.
const LAG_SHARE: u64 = 4;
/// The part of a run's lane-seconds in which a lane may be late without making it invalid. One
/// second of twenty moves no percentile up to p95; what it does to those above is what the bound
/// on lag at p99 is for.
const LATE_SECONDS_SHARE: f64 = 0.05;
/// The part of its time that a generator must have waited for a core for that to be named as the
/// cause of its lag, where no whole second was late. Threads that meet now and then wait for 1 to
/// 2 %.
const WAITED_SHARE: f64 = 0.05;
/// The part of a closed loop's lane-seconds in which the core may be full, or others' may have it:
/// up to half of them the rate is the target's more than the generator's.
const CLOSED_SECONDS_SHARE: f64 = 0.5;
/// The part of the scheduled requests that must have been released. Random arrivals may be fewer
/// than expected, by [`DEVIATIONS`].
const RELEASED_SHARE: f64 = 0.99;
/// How many standard deviations random arrivals may fall short of their mean: one run in three
/// million does.
const DEVIATIONS: f64 = 5.0;
/// The part of the asked rate that has to be achieved for the number of connections to be enough
/// without a look at what waited.
const RATE_SHARE: f64 = 0.95;
/// The part of a run's lane-seconds in which requests may queue while answers come.
const CROWDED_SHARE: f64 = 0.5;

/// Whether a run says anything about its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The figures are the target's.
    Valid,
    /// They are the generator's, or nothing was measured.
    Invalid,
}

/// Sets the verdict, the reason and the notes of `report`.
pub(super) fn judge(report: &mut Report, about: &About, recorder: &Recorder) {
    let facts = Facts {
        report,
        released: recorder.counts().released,
        answered: recorder.counts().answered,
        expected: about.expected,
        lag: Quantiles::of(recorder, "lag"),
        latency: Quantiles::of(recorder, "latency"),
    };
    let flaw = facts.flaw();
    let notes = facts.notes();
    report.notes.extend(notes);
    if let Some(reason) = flaw {
        report.verdict = Verdict::Invalid;
        report.reason = reason;
    }
}

struct Quantiles {
    p50: u64,
    p99: u64,
    p999: u64,
}

impl Quantiles {
    fn of(recorder: &Recorder, name: &str) -> Self {
        let histograms = recorder.histograms();
        let found = histograms.iter().find(|(other, _)| *other == name);
        let at = |quantile| found.map_or(0, |(_, found)| found.value_at_quantile(quantile));
        Self {
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
        }
    }
}

struct Facts<'a> {
    report: &'a Report,
    released: u64,
    answered: u64,
    expected: Option<f64>,
    lag: Quantiles,
    latency: Quantiles,
}

impl Facts<'_> {
    fn flaw(&self) -> Option<String> {
        self.nothing()
            .or_else(|| self.ran_out())
            .or_else(|| self.late())
            .or_else(|| self.closed())
            .or_else(|| self.short())
            .or_else(|| self.crowded())
    }

    fn nothing(&self) -> Option<String> {
        if self.report.requests == 0 && self.released > 0 {
            return Some(format!(
                "no request was answered: {} were given up unanswered",
                self.released
            ));
        }
        if self.report.requests == 0 {
            return Some("no request was made".to_owned());
        }
        (self.answered == 0).then(|| {
            let most = self.report.errors.iter().max_by_key(|(_, count)| **count);
            match most.and_then(|(class, _)| Some((class, self.report.error_reasons.get(class)?))) {
                Some((class, why)) => format!("no request was answered; {class}: {why}"),
                None => "no request was answered".to_owned(),
            }
        })
    }

    fn ran_out(&self) -> Option<String> {
        let failed = |class: ErrorClass| self.report.errors.get(class.name()).copied();
        if let Some(count) = failed(ErrorClass::Overload) {
            return Some(format!(
                "{count} requests were never sent: as many as can be kept were waiting for a \
                 connection; raise --connections or lower --rate"
            ));
        }
        let met = |limit: Limit, class: Option<ErrorClass>| {
            let told = self.report.limits.contains_key(limit.name());
            told || class.and_then(failed).is_some()
        };
        if met(Limit::Descriptors, Some(ErrorClass::Descriptors)) {
            return Some(
                "the generator ran out of file descriptors; raise the limit (ulimit -n)".to_owned(),
            );
        }
        if met(Limit::Ports, Some(ErrorClass::Ports)) {
            return Some(
                "the generator ran out of local ports; use fewer new connections, or more local \
                 addresses"
                    .to_owned(),
            );
        }
        if met(Limit::Connections, None) {
            return Some(format!(
                "the generator could not open the {} connections asked for",
                self.report.connections
            ));
        }
        if met(Limit::Memory, None) {
            return Some("the generator ran out of memory or buffers".to_owned());
        }
        met(Limit::Core, None).then(|| {
            "the generator was not given the core asked for, or it had no more to give".to_owned()
        })
    }

    /// Returns which share of the judged lane-seconds `seconds` is.
    fn share(&self, seconds: u64) -> f64 {
        seconds as f64 / self.report.generator.lane_seconds.max(1) as f64
    }

    fn late(&self) -> Option<String> {
        self.expected?;
        let generator = &self.report.generator;
        let over = |lag: u64, latency: u64, tolerated: u64| {
            lag > tolerated && lag.saturating_mul(LAG_SHARE) > latency
        };
        let p50 = over(self.lag.p50, self.latency.p50, LAG_TOLERATED_P50_NS);
        let p99 = over(self.lag.p99, self.latency.p99, LAG_TOLERATED_P99_NS);
        let (saturated, starved) = (generator.saturated_seconds, generator.starved_seconds);
        let seconds = self.share(saturated + starved) > LATE_SECONDS_SHARE;
        if !(p50 || p99 || seconds) {
            return None;
        }
        let why = match (saturated, starved) {
            (0, 0) if generator.wait_share < WAITED_SHARE => String::new(),
            (0, 0) => format!(
                "; it waited for a core {:.0} % of the time: give it cores of its own",
                generator.wait_share * 100.0
            ),
            (saturated, starved) if saturated >= starved => format!(
                "; its core was full in {saturated} of {} lane-seconds: use more cores or a lower \
                 rate",
                generator.lane_seconds
            ),
            (_, starved) => format!(
                "; others had its core in {starved} of {} lane-seconds ({:.0} % of the time it \
                 waited to run): give it cores of its own",
                generator.lane_seconds,
                generator.wait_share * 100.0
            ),
        };
        let (quantile, lag, latency) = if p50 && !p99 {
            ("p50", self.lag.p50, self.latency.p50)
        } else {
            ("p99", self.lag.p99, self.latency.p99)
        };
        Some(format!(
            "the generator was late: {quantile} of its lag is {:.3} ms of a {quantile} latency of \
             {:.3} ms{why}",
            lag as f64 / 1e6,
            latency as f64 / 1e6
        ))
    }

    fn closed(&self) -> Option<String> {
        if self.expected.is_some() {
            return None;
        }
        let generator = &self.report.generator;
        if self.share(generator.saturated_seconds) > CLOSED_SECONDS_SHARE {
            return Some(format!(
                "the generator's core was full in {} of {} lane-seconds: the rate is its own, not \
                 the target's; use more cores",
                generator.saturated_seconds, generator.lane_seconds
            ));
        }
        (self.share(generator.starved_seconds) > CLOSED_SECONDS_SHARE).then(|| {
            format!(
                "others had the generator's core: it waited longer than it ran in {} of {} \
                 lane-seconds; give it cores of its own",
                generator.starved_seconds, generator.lane_seconds
            )
        })
    }

    fn short(&self) -> Option<String> {
        let expected = self.expected?;
        let least = expected * RELEASED_SHARE - DEVIATIONS * expected.max(0.0).sqrt() - 1.0;
        ((self.released as f64) < least).then(|| {
            format!(
                "the generator made {} of the {expected:.0} requests that were scheduled",
                self.released
            )
        })
    }

    fn misses_rate(&self) -> bool {
        let scheduled = self.released as f64 / self.report.duration_seconds.max(f64::MIN_POSITIVE);
        self.expected.is_some() && self.report.achieved_rate < scheduled * RATE_SHARE
    }

    fn crowded(&self) -> Option<String> {
        let crowded = self.report.generator.crowded_seconds;
        (self.misses_rate() && self.share(crowded) > CROWDED_SHARE).then(|| {
            format!(
                "{} connections carried {:.0} of {:.0} requests/s: in {crowded} of {} \
                 lane-seconds requests queued in the generator while answers came; raise \
                 --connections or lower --rate",
                self.report.connections,
                self.report.achieved_rate,
                self.report.asked_rate.unwrap_or(0.0),
                self.report.generator.lane_seconds
            )
        })
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.expected.is_some()
            && self.lag.p999 > LAG_TOLERATED_P99_NS
            && self.lag.p999.saturating_mul(LAG_SHARE) > self.latency.p999
        {
            notes.push(format!(
                "p99.9 is in part the generator's own lag ({:.3} ms at p99.9)",
                self.lag.p999 as f64 / 1e6
            ));
        }
        if self.misses_rate() {
            notes.push(format!(
                "the target answered {:.0} of {:.0} requests/s; latency holds the time that \
                 requests waited for a free connection",
                self.report.achieved_rate,
                self.report.asked_rate.unwrap_or(0.0)
            ));
        }
        notes
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{about, recorder};
    use super::*;
    use crate::report::Generator;

    const MS: u64 = 1_000_000;

    /// A run of 10 s at 1,000/s in which nothing is wrong.
    fn fine() -> Report {
        let mut report = Report::new(&about(Some(1000.0)), &recorder());
        report.errors.clear();
        report.notes.clear();
        (report.requests, report.achieved_rate) = (10_000, 999.0);
        (report.asked_rate, report.duration_seconds) = (Some(1000.0), 10.0);
        report.generator = Generator {
            lane_seconds: 20,
            ..Generator::default()
        };
        report
    }

    fn quantiles(p50: u64, p99: u64, p999: u64) -> Quantiles {
        Quantiles { p50, p99, p999 }
    }

    fn facts(report: &Report) -> Facts<'_> {
        Facts {
            report,
            released: 10_000,
            answered: 10_000,
            expected: Some(10_000.0),
            lag: quantiles(50_000, 80_000, 200_000),
            latency: quantiles(MS, 2 * MS, 5 * MS),
        }
    }

    #[test]
    fn run_in_time_is_valid_whatever_the_target_does() {
        let mut report = fine();
        assert_eq!(facts(&report).flaw(), None);
        report.errors.insert("refused".to_owned(), 9_999);
        assert_eq!(
            facts(&Report { ..report.clone() }).flaw(),
            None,
            "refuses nearly all"
        );
        report.achieved_rate = 600.0;
        report.generator.crowded_seconds = 3;
        let stalled = Facts {
            latency: quantiles(MS, 4_000 * MS, 5_000 * MS),
            ..facts(&report)
        };
        assert_eq!(stalled.flaw(), None, "stalls for four seconds of ten");
        assert_eq!(stalled.notes().len(), 1, "and says so");
    }

    #[test]
    fn lag_spoils_a_run_where_it_is_much_of_the_latency() {
        let report = fine();
        for (lag, latency, flaw) in [
            (
                quantiles(200_000, 900_000, MS),
                quantiles(300_000, MS, MS),
                false,
            ),
            (
                quantiles(300_000, 900_000, MS),
                quantiles(400_000, 9 * MS, MS),
                true,
            ),
            (
                quantiles(300_000, 900_000, MS),
                quantiles(2 * MS, 9 * MS, MS),
                false,
            ),
            (
                quantiles(50_000, 2 * MS, MS),
                quantiles(MS, 7 * MS, MS),
                true,
            ),
            (
                quantiles(50_000, 2 * MS, MS),
                quantiles(MS, 9 * MS, MS),
                false,
            ),
            (
                quantiles(50_000, 80_000, 40 * MS),
                quantiles(MS, 2 * MS, 41 * MS),
                false,
            ),
        ] {
            let told = format!("{} {} {} {}", lag.p50, lag.p99, latency.p50, latency.p99);
            let facts = Facts {
                lag,
                latency,
                ..facts(&report)
            };
            assert_eq!(facts.flaw().is_some(), flaw, "{told}");
        }
        let tail = Facts {
            lag: quantiles(50_000, 80_000, 4 * MS),
            ..facts(&report)
        };
        assert!(
            tail.notes()[0].contains("p99.9"),
            "a spoilt p99.9 is a note"
        );
    }

    #[test]
    fn lateness_names_its_cause() {
        let mut report = fine();
        report.generator.saturated_seconds = 1;
        assert_eq!(facts(&report).flaw(), None, "one of twenty");
        report.generator.saturated_seconds = 2;
        assert!(
            facts(&report)
                .flaw()
                .is_some_and(|why| why.contains("core was full in 2 of 20"))
        );
        (
            report.generator.saturated_seconds,
            report.generator.starved_seconds,
        ) = (0, 5);
        assert!(
            facts(&report)
                .flaw()
                .is_some_and(|why| why.contains("others had its core in 5"))
        );
    }

    #[test]
    fn closed_loop_is_invalid_where_its_core_is_the_limit() {
        let mut report = fine();
        report.asked_rate = None;
        let mut flaw = |saturated, starved| {
            report.generator.saturated_seconds = saturated;
            report.generator.starved_seconds = starved;
            let lag = quantiles(9 * MS, 9 * MS, 9 * MS);
            Facts {
                expected: None,
                released: 0,
                lag,
                ..facts(&report)
            }
            .flaw()
        };
        assert_eq!((flaw(0, 0), flaw(10, 0), flaw(0, 10)), (None, None, None));
        assert!(flaw(11, 0).is_some_and(|why| why.contains("core was full")));
        assert!(flaw(0, 11).is_some_and(|why| why.contains("others had")));
    }

    #[test]
    fn everything_that_can_run_out_has_a_reason_of_its_own() {
        for (name, told) in [
            ("descriptors", "ulimit"),
            ("ports", "local ports"),
            ("connections", "64 connections"),
            ("memory", "memory"),
            ("core", "core"),
        ] {
            let mut report = fine();
            report.limits.insert(name.to_owned(), 1);
            assert!(
                facts(&report).flaw().is_some_and(|why| why.contains(told)),
                "{name}"
            );
        }
        for (class, told) in [
            ("overload", "--connections"),
            ("ports", "ports"),
            ("descriptors", "ulimit"),
        ] {
            let mut report = fine();
            report.errors.insert(class.to_owned(), 1);
            assert!(
                facts(&report).flaw().is_some_and(|why| why.contains(told)),
                "{class}"
            );
        }
    }

    #[test]
    fn fewer_requests_than_scheduled_is_invalid_beyond_what_chance_explains() {
        let report = fine();
        for (released, flaw) in [(10_000, false), (9_500, false), (9_300, true)] {
            let facts = Facts {
                released,
                ..facts(&report)
            };
            assert_eq!(facts.flaw().is_some(), flaw, "{released}");
        }
    }

    #[test]
    fn too_few_connections_are_told_from_a_slow_target() {
        for (rate, crowded, flaw) in [
            (990.0, 20, false), // the rate was kept
            (800.0, 10, false), // half of the time: a stall, and catching up with it
            (800.0, 11, true),
        ] {
            let mut report = fine();
            report.achieved_rate = rate;
            report.generator.crowded_seconds = crowded;
            assert_eq!(facts(&report).flaw().is_some(), flaw, "{rate} {crowded}");
        }
    }

    #[test]
    fn nothing_asked_and_nothing_answered_are_invalid() {
        let report = Report {
            requests: 0,
            ..fine()
        };
        assert_eq!(
            facts(&report).flaw().as_deref(),
            Some("no request was answered: 10000 were given up unanswered")
        );
        let idle = Facts {
            released: 0,
            ..facts(&report)
        };
        assert_eq!(idle.flaw().as_deref(), Some("no request was made"));
        let report = fine();
        let silent = Facts {
            answered: 0,
            ..facts(&report)
        };
        assert_eq!(silent.flaw().as_deref(), Some("no request was answered"));
        let mut report = fine();
        report.errors = [("refused".to_owned(), 2), ("tls".to_owned(), 9)].into();
        report.error_reasons = [("tls".to_owned(), "not trusted".to_owned())].into();
        let silent = Facts {
            answered: 0,
            ..facts(&report)
        };
        assert_eq!(
            silent.flaw().as_deref(),
            Some("no request was answered; tls: not trusted")
        );
    }
}
