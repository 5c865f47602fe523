//! What the latencies of an open loop truly were, by what its target saw.
//!
//! Requests are due by a schedule that is known beforehand, and a target notes when it had answered
//! each. Who waits for a connection is served in the order in which it was due, so the n-th answer
//! belongs to the n-th due time: latency is the one less the other, and nothing that the generator
//! measured goes into it.
//!
//! Where the schedule lies on the target's clock is found by the requests that came soonest after
//! their due times (the hundredth part of them: a few may have come too soon). Their way to the
//! target, some 20 µs on one machine, is missing from every latency, and so is the way back: that
//! is [`SLACK`].

use std::time::Duration;

use anyhow::{Result, ensure};

use super::Seen;

/// What the two ends of a connection may differ by although neither is wrong: the ways through the
/// kernel, and waking up.
pub const SLACK: Duration = Duration::from_micros(150);

/// How arrivals are spread over time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Arrivals {
    /// The same gap between any two.
    Constant,
    /// Exponential gaps. They are random: only who drew them knows them.
    Poisson {
        /// What they were drawn with.
        seed: u64,
    },
    /// From nothing to the rate, evenly over the duration.
    Ramp,
}

impl Arrivals {
    /// Returns its name, as generators call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Constant => "constant",
            Self::Poisson { .. } => "poisson",
            Self::Ramp => "ramp",
        }
    }

    /// Returns when requests are due, from the start.
    pub fn due(self, rate: f64, duration: Duration) -> Vec<Duration> {
        let seconds = duration.as_secs_f64();
        let steps = |at: &dyn Fn(f64) -> f64| {
            (0..u32::MAX)
                .map(|number| at(f64::from(number)))
                .take_while(|at| *at < seconds)
                .map(Duration::from_secs_f64)
                .collect()
        };
        match self {
            Self::Constant => steps(&|number| number / rate),
            // The rate grows as rate·t/duration, so that rate·t²/(2·duration) are due until t.
            Self::Ramp => steps(&|number| (2.0 * number * seconds / rate).sqrt()),
            Self::Poisson { seed } => {
                let profile = ballast_loadgen::plan::Profile::Poisson { rate };
                ballast_loadgen::plan::Schedule::new(profile.into(), duration, seed, 0, 1).collect()
            }
        }
    }
}

/// Latencies from the due times, microseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Truth {
    /// The median.
    pub p50: f64,
    /// 99 %.
    pub p99: f64,
    /// 99.9 %.
    pub p999: f64,
    /// The largest.
    pub max: f64,
}

/// The statistics of a truth, by the names that reports give them.
pub const STATISTICS: [&str; 4] = ["p50", "p99", "p999", "max"];

impl Truth {
    /// Returns what was true of requests due at `due` that a target `saw`.
    ///
    /// # Errors
    /// Not every request reached the target, or more did: then nothing can be said.
    pub fn of(due: &[Duration], saw: &[Seen]) -> Result<Self> {
        ensure!(
            due.len() == saw.len() && !due.is_empty(),
            "{} requests were due and {} were seen",
            due.len(),
            saw.len()
        );
        let due: Vec<f64> = due.iter().map(|due| due.as_secs_f64() * 1e6).collect();
        let sorted = |of: &dyn Fn(&Seen) -> u64| {
            let mut times: Vec<f64> = saw.iter().map(|seen| of(seen) as f64 / 1e3).collect();
            times.sort_by(f64::total_cmp);
            times
        };
        let read = sorted(&|seen| seen.read_ns);
        let mut zeros: Vec<f64> = read.iter().zip(&due).map(|(at, due)| at - due).collect();
        zeros.sort_by(f64::total_cmp);
        let zero = zeros[zeros.len() / 100];
        let mut latencies: Vec<f64> = sorted(&|seen| seen.answered_ns)
            .iter()
            .zip(&due)
            .map(|(answered, due)| answered - zero - due)
            .collect();
        latencies.sort_by(f64::total_cmp);
        // The nearest rank: the smallest latency that so many of a thousand do not exceed.
        let at = |thousandth: usize| {
            let rank = (latencies.len() * thousandth).div_ceil(1000).max(1);
            latencies[rank - 1]
        };
        Ok(Self {
            p50: at(500),
            p99: at(990),
            p999: at(999),
            max: at(1000),
        })
    }

    /// Returns the statistic of that name; none of another.
    pub fn statistic(&self, name: &str) -> Option<f64> {
        match name {
            "p50" => Some(self.p50),
            "p99" => Some(self.p99),
            "p999" => Some(self.p999),
            "max" => Some(self.max),
            _ => None,
        }
    }
}

/// Returns by how much of the truth a report is wrong, in percent, signed; within [`SLACK`] it is
/// right.
pub fn error_percent(reported_us: f64, true_us: f64) -> f64 {
    let off = reported_us - true_us;
    let slack = SLACK.as_secs_f64() * 1e6;
    let beyond = off.signum() * (off.abs() - slack).max(0.0);
    beyond * 100.0 / true_us.max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A target that answers after 50 µs but for a stall from 0.5 s on.
    fn saw(due: &[Duration], stall: Duration) -> Vec<Seen> {
        let from = Duration::from_millis(500);
        let offset = Duration::from_millis(77);
        let nanos = |at: Duration| u64::try_from((at + offset).as_nanos()).expect("short");
        due.iter()
            .map(|due| {
                let free = if *due >= from && *due < from + stall {
                    from + stall
                } else {
                    *due
                };
                Seen {
                    read_ns: nanos(free),
                    answered_ns: nanos(free + Duration::from_micros(50)),
                }
            })
            .collect()
    }

    #[test]
    fn stall_shows_in_full_however_the_clock_lies() {
        let due = Arrivals::Constant.due(1000.0, SECOND);
        let saw = saw(&due, Duration::from_millis(100));
        let truth = Truth::of(&due, &saw).expect("a truth");
        assert!((truth.p50 - 50.0).abs() < 1.0, "{truth:?}");
        // The first of 100 requests waits 100 ms, the tenth 91 ms.
        assert!((truth.max - 100_050.0).abs() < 1.0, "{truth:?}");
        assert!((truth.p99 - 90_050.0).abs() < 1.0, "{truth:?}");
    }

    #[test]
    fn request_that_came_too_soon_moves_no_other() {
        let due = Arrivals::Constant.due(1000.0, SECOND);
        let mut saw = saw(&due, Duration::ZERO);
        saw[0].read_ns -= 2_000_000;
        saw[0].answered_ns -= 2_000_000;
        let truth = Truth::of(&due, &saw).expect("a truth");
        assert!((truth.p50 - 50.0).abs() < 1.0, "{truth:?}");
    }

    #[test]
    fn request_that_was_not_seen_leaves_nothing_to_say() {
        let due = Arrivals::Constant.due(1000.0, SECOND);
        let saw = saw(&due, Duration::ZERO);
        assert!(Truth::of(&due, &saw[1..]).is_err());
        assert!(Truth::of(&[], &[]).is_err());
    }

    #[test]
    fn own_schedules_are_those_of_the_generator() {
        use ballast_loadgen::plan::{Profile, Schedule};
        let ramp = Profile::Ramp {
            from: 0.0,
            to: 500.0,
        };
        for (arrivals, profile) in [
            (Arrivals::Constant, Profile::Constant { rate: 500.0 }),
            (Arrivals::Ramp, ramp),
        ] {
            let ours = arrivals.due(500.0, SECOND);
            let theirs: Vec<_> = Schedule::new(profile.into(), SECOND, 1, 0, 1).collect();
            assert_eq!(ours.len(), theirs.len(), "{arrivals:?}");
            for (one, other) in ours.iter().zip(theirs) {
                assert!(
                    one.abs_diff(other) < Duration::from_micros(1),
                    "{arrivals:?}"
                );
            }
        }
    }

    #[test]
    fn error_counts_from_where_the_ends_may_differ() {
        let slack = SLACK.as_secs_f64() * 1e6;
        assert!(error_percent(100.0 + slack, 100.0).abs() < 1e-9);
        assert!((error_percent(101_000.0 + slack, 100_000.0) - 1.0).abs() < 1e-9);
        assert!((error_percent(50_000.0 - slack, 100_000.0) + 50.0).abs() < 1e-9);
    }
}
