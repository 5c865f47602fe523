//! Endpoints that answer with errors are taken out for a while, whatever their probes say.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use ballast_model::EjectionSpec;

use crate::table::Moment;

/// How an endpoint has answered lately, and since when it is out.
///
/// Counts are loads and stores without a lock: two threads may lose one of each other's, which an
/// estimate bears, and a request pays next to nothing.
#[derive(Debug, Default)]
pub struct Outlier {
    consecutive: AtomicU32,
    good: AtomicU32,
    bad: AtomicU32,
    window_from: AtomicU64,
    /// Ejections that followed each other.
    times: AtomicU32,
    /// How long the last one was.
    span_micros: AtomicU64,
    until: AtomicU64,
}

/// Why an endpoint is to be taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Failures in a row.
    Consecutive,
    /// The share of good answers.
    SuccessRate,
}

impl Outlier {
    /// Counts a good answer.
    pub fn succeeded(&self) {
        if self.consecutive.load(Ordering::Relaxed) != 0 {
            self.consecutive.store(0, Ordering::Relaxed);
        }
        let good = self.good.load(Ordering::Relaxed);
        self.good.store(good.saturating_add(1), Ordering::Relaxed);
    }

    /// Counts a failure; returns why the endpoint should be out now, if it should.
    pub fn failed(&self, rules: &EjectionSpec, now: Moment) -> Option<Cause> {
        if self.is_out(now) {
            return None;
        }
        let consecutive = self.consecutive.fetch_add(1, Ordering::Relaxed) + 1;
        let from = Moment(self.window_from.load(Ordering::Relaxed));
        if now.since(from) > rules.window.to_duration() {
            // A window begins with a failure: as long as there is none, nobody asks.
            self.window_from.store(now.0, Ordering::Relaxed);
            self.good.store(0, Ordering::Relaxed);
            self.bad.store(0, Ordering::Relaxed);
        }
        let bad = u64::from(self.bad.fetch_add(1, Ordering::Relaxed)) + 1;
        let all = u64::from(self.good.load(Ordering::Relaxed)) + bad;
        if rules.consecutive > 0 && consecutive >= rules.consecutive {
            return Some(Cause::Consecutive);
        }
        let good_percent = (all - bad) * 100 / all;
        let counts = rules.success_percent > 0 && all >= u64::from(rules.min_requests);
        (counts && good_percent < u64::from(rules.success_percent)).then_some(Cause::SuccessRate)
    }

    /// Takes the endpoint out; returns until when. Each time is twice the one before, unless it
    /// was well in between for twice as long as it had been out.
    pub fn eject(&self, rules: &EjectionSpec, now: Moment) -> Moment {
        let last = Moment(self.until.load(Ordering::Relaxed));
        let span = Duration::from_micros(self.span_micros.load(Ordering::Relaxed));
        let times = if now.since(last) > span * 2 {
            0
        } else {
            self.times.load(Ordering::Relaxed).saturating_add(1)
        };
        let factor = 1u32.checked_shl(times).unwrap_or(u32::MAX);
        let span = rules.time.to_duration().saturating_mul(factor);
        let span = span.min(rules.max_time.to_duration());
        let until = now.after(span);
        self.times.store(times, Ordering::Relaxed);
        let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        self.span_micros.store(micros, Ordering::Relaxed);
        self.until.store(until.0, Ordering::Relaxed);
        self.consecutive.store(0, Ordering::Relaxed);
        self.window_from.store(0, Ordering::Relaxed);
        until
    }

    /// Takes it in again.
    pub fn forgive(&self) {
        self.until.store(0, Ordering::Relaxed);
        self.consecutive.store(0, Ordering::Relaxed);
    }

    /// Whether it is out.
    pub fn is_out(&self, now: Moment) -> bool {
        self.until.load(Ordering::Relaxed) > now.0
    }

    /// Returns until when it is out, if it is.
    pub fn out_until(&self, now: Moment) -> Option<Moment> {
        let until = Moment(self.until.load(Ordering::Relaxed));
        (until > now).then_some(until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    fn rules() -> EjectionSpec {
        EjectionSpec {
            success_percent: 80,
            ..EjectionSpec::default()
        }
    }

    #[test]
    fn failures_in_a_row_count_and_a_success_between_them_starts_anew() {
        let outlier = Outlier::default();
        let rules = EjectionSpec::default();
        for _ in 0..3 {
            for _ in 0..4 {
                assert_eq!(outlier.failed(&rules, Moment(SECOND)), None);
            }
            outlier.succeeded();
        }
        for _ in 0..4 {
            assert_eq!(outlier.failed(&rules, Moment(SECOND)), None);
        }
        let fifth = outlier.failed(&rules, Moment(SECOND));
        assert_eq!(fifth, Some(Cause::Consecutive));
    }

    #[test]
    fn share_counts_only_from_a_minimum_volume_on_and_within_its_window() {
        let outlier = Outlier::default();
        let mut now = Moment(20 * SECOND);
        assert_eq!(outlier.failed(&rules(), now), None);
        // One in four fails, but slowly: never twenty within a window.
        for _ in 0..100 {
            now = now.after(Duration::from_secs(1));
            (0..3).for_each(|_| outlier.succeeded());
            assert_eq!(outlier.failed(&rules(), now), None);
            now = now.after(Duration::from_secs(3));
        }
        let mut cause = None;
        for _ in 0..8 {
            (0..3).for_each(|_| outlier.succeeded());
            cause = cause.or(outlier.failed(&rules(), now));
        }
        assert_eq!(cause, Some(Cause::SuccessRate));
    }

    #[test]
    fn time_out_doubles_up_to_its_limit_and_is_forgotten_when_well() {
        let outlier = Outlier::default();
        let rules = rules();
        let mut now = Moment(100 * SECOND);
        for seconds in [5, 10, 20, 40, 80, 160, 300, 300] {
            let until = outlier.eject(&rules, now);
            assert_eq!(until.since(now), Duration::from_secs(seconds));
            assert!(outlier.is_out(now) && !outlier.is_out(until));
            now = until.after(Duration::from_secs(1));
        }
        now = now.after(Duration::from_secs(601));
        let until = outlier.eject(&rules, now);
        assert_eq!(until.since(now), Duration::from_secs(5));
    }
}
