//! When requests are due.
//!
//! A profile is a rate over time ([`Curve`]) and a spread. The spread makes a sequence of counts:
//! 0, 1, 2, … for even gaps, sums of random numbers of mean 1 otherwise. Each count is due when
//! that many requests have become due by the curve: the inverse of its integral. Any spread goes
//! with any curve that way, and the number of requests is right to ±1 for even gaps.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::curve::{Curve, CurveError};
use super::pick::mix;

/// How requests are spread over time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Profile {
    /// The same gap between any two.
    Constant {
        /// Requests a second.
        rate: f64,
    },
    /// Exponential gaps, as from many independent users.
    Poisson {
        /// Requests a second, on average.
        rate: f64,
    },
    /// Gaps drawn evenly from 0 to twice their mean.
    Uniform {
        /// Requests a second, on average.
        rate: f64,
    },
    /// From one rate to another, evenly over the duration.
    Ramp {
        /// Requests a second at the start.
        from: f64,
        /// Requests a second at the end.
        to: f64,
    },
    /// A rate that changes: steps, spikes, a sawtooth, a file.
    Curve {
        /// The rate over time.
        curve: Curve,
        /// What gaps are like.
        spread: Spread,
    },
    /// Given times, in nanoseconds since the start, in order: a replayed log.
    Times(Vec<u64>),
}

/// What gaps are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Spread {
    /// All the same.
    #[default]
    Even,
    /// Exponential.
    Poisson,
    /// Drawn evenly from 0 to twice their mean.
    Uniform,
}

impl Profile {
    /// Returns whether the profile can be run over `duration`.
    ///
    /// # Errors
    /// [`CurveError`] if not.
    pub fn check(&self, duration: Duration) -> Result<(), CurveError> {
        match self {
            Self::Times(times) if times.is_empty() => Err(CurveError::Empty),
            Self::Times(_) => Ok(()),
            _ if self.shape(duration)?.0.expected(duration) <= 0.0 => Err(CurveError::Empty),
            _ => Ok(()),
        }
    }

    /// Returns how many requests are due within `duration`: exact to ±1 for even gaps, the mean of
    /// random ones.
    pub fn expected(&self, duration: Duration) -> f64 {
        match (self, self.shape(duration)) {
            (Self::Times(times), _) => {
                times.partition_point(|at| Duration::from_nanos(*at) < duration) as f64
            }
            (_, Ok((curve, _))) => curve.expected(duration),
            (_, Err(_)) => 0.0,
        }
    }

    /// Returns the requests a second over `duration`, on average.
    pub fn mean_rate(&self, duration: Duration) -> f64 {
        self.expected(duration) / duration.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    fn shape(&self, duration: Duration) -> Result<(Curve, Spread), CurveError> {
        Ok(match self {
            Self::Constant { rate } => (Curve::level(*rate)?, Spread::Even),
            Self::Poisson { rate } => (Curve::level(*rate)?, Spread::Poisson),
            Self::Uniform { rate } => (Curve::level(*rate)?, Spread::Uniform),
            Self::Ramp { from, to } => {
                let whole = (duration.as_secs_f64(), *from, *to);
                (Curve::new([whole])?, Spread::Even)
            }
            Self::Curve { curve, spread } => (curve.clone(), *spread),
            Self::Times(_) => return Err(CurveError::Empty),
        })
    }
}

/// The due times of one lane's requests, in order, as offsets from the start.
///
/// Deterministic, and all lanes together make the same times whatever their number: of the whole
/// sequence, lane `index` of `of` takes the numbers `index`, `index + of`, `index + 2·of`, ….
#[derive(Debug)]
pub struct Schedule {
    source: Source,
    duration: Duration,
    of: u64,
    /// The number of the request that is due next.
    number: u64,
}

#[derive(Debug)]
enum Source {
    Curve {
        curve: Curve,
        hint: usize,
        gaps: Gaps,
    },
    Times(Arc<Profile>),
    /// The profile was not checked, and makes no sense.
    Nothing,
}

/// The counts at which requests are due, one after the other.
#[derive(Debug)]
struct Gaps {
    spread: Spread,
    seed: u64,
    /// Gaps that were drawn.
    drawn: u64,
    /// Their sum.
    sum: f64,
}

impl Gaps {
    /// Returns the count at which request `number` is due; numbers only go up.
    fn until(&mut self, number: u64) -> f64 {
        if self.spread == Spread::Even {
            return number as f64;
        }
        // A lane draws the others' gaps, too: some nanoseconds each, for which it gets the same
        // sequence whatever the number of lanes.
        while self.drawn <= number {
            let bits = mix(self.seed ^ mix(self.drawn)) >> 11;
            let uniform = bits as f64 / (1_u64 << 53) as f64;
            self.sum += match self.spread {
                Spread::Poisson => -(1.0 - uniform).ln(),
                _ => 2.0 * uniform,
            };
            self.drawn += 1;
        }
        self.sum
    }
}

impl Schedule {
    /// Returns the schedule of lane `index` of `of`; an empty one for a profile that
    /// [`Profile::check`] refuses.
    pub fn new(
        profile: Arc<Profile>,
        duration: Duration,
        seed: u64,
        index: usize,
        of: usize,
    ) -> Self {
        let source = match profile.shape(duration) {
            _ if matches!(*profile, Profile::Times(_)) => Source::Times(profile),
            Ok((curve, spread)) => Source::Curve {
                curve,
                hint: 0,
                gaps: Gaps {
                    spread,
                    seed,
                    drawn: 0,
                    sum: 0.0,
                },
            },
            Err(_) => Source::Nothing,
        };
        Self {
            source,
            duration,
            of: of as u64,
            number: index as u64,
        }
    }
}

impl Iterator for Schedule {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let at = match &mut self.source {
            Source::Curve { curve, hint, gaps } => {
                let at = curve.invert(gaps.until(self.number), hint)?;
                Duration::try_from_secs_f64(at).ok()?
            }
            Source::Times(profile) => match &**profile {
                Profile::Times(times) => {
                    let at = usize::try_from(self.number).ok()?;
                    Duration::from_nanos(*times.get(at)?)
                }
                _ => return None,
            },
            Source::Nothing => return None,
        };
        self.number += self.of;
        (at < self.duration).then_some(at)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECONDS: Duration = Duration::from_secs(10);

    fn lanes(profile: &Profile, of: usize) -> Vec<Vec<Duration>> {
        let profile = Arc::new(profile.clone());
        (0..of)
            .map(|index| Schedule::new(profile.clone(), SECONDS, 7, index, of).collect())
            .collect()
    }

    fn due(profile: &Profile, of: usize) -> Vec<Duration> {
        let mut all = lanes(profile, of).concat();
        all.sort();
        all
    }

    /// Mean and standard deviation of the gaps, in seconds.
    fn gaps(due: &[Duration]) -> (f64, f64) {
        let gaps: Vec<f64> = due
            .windows(2)
            .map(|two| two[1].abs_diff(two[0]).as_secs_f64())
            .collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let squares = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>();
        (mean, (squares / gaps.len() as f64).sqrt())
    }

    #[test]
    fn constant_schedule_is_even_and_complete() {
        let alone = due(&Profile::Constant { rate: 1000.0 }, 1);
        assert_eq!(alone.len(), 10_000);
        assert_eq!(alone[0], Duration::ZERO);
        assert_eq!(alone[1].abs_diff(alone[0]), Duration::from_millis(1));
    }

    #[test]
    fn random_schedules_have_the_rate_and_the_spread() {
        // The standard deviation of an exponential distribution is its mean, that of a uniform
        // one from 0 is its mean by √3.
        for (profile, ratio) in [
            (Profile::Poisson { rate: 1000.0 }, 1.0),
            (Profile::Uniform { rate: 1000.0 }, 1.0 / 3_f64.sqrt()),
        ] {
            let due = due(&profile, 1);
            assert!((9_500..10_500).contains(&due.len()), "{}", due.len());
            let (mean, deviation) = gaps(&due);
            assert!((deviation / mean / ratio - 1.0).abs() < 0.05, "{profile:?}");
        }
    }

    #[test]
    fn ramp_sends_a_quarter_in_the_first_half() {
        let ramp = Profile::Ramp {
            from: 0.0,
            to: 1000.0,
        };
        let due = due(&ramp, 2);
        assert!((4_999..=5_001).contains(&due.len()), "{}", due.len());
        let early = due.iter().filter(|at| **at < SECONDS / 2).count();
        assert!((1_249..=1_251).contains(&early), "{early}");
    }

    #[test]
    fn given_times_are_kept_and_dealt_out_in_turn() {
        let times = Profile::Times(vec![0, 5, 5, 9, 20_000_000_000]);
        let nanos = |lane: &[Duration]| lane.iter().map(Duration::as_nanos).collect::<Vec<_>>();
        let lanes = lanes(&times, 2);
        assert_eq!(
            (nanos(&lanes[0]), nanos(&lanes[1])),
            (vec![0, 5], vec![5, 9])
        );
        assert!((times.expected(SECONDS) - 4.0).abs() < 1e-9);
    }

    #[test]
    fn profile_without_load_is_refused_and_makes_no_times() {
        for bad in [
            Profile::Constant { rate: 0.0 },
            Profile::Poisson { rate: f64::NAN },
            Profile::Ramp { from: 0.0, to: 0.0 },
            Profile::Times(Vec::new()),
        ] {
            assert!(bad.check(SECONDS).is_err(), "{bad:?}");
            assert!(due(&bad, 2).is_empty());
        }
        // The curve has load, but only after the run.
        let late = Profile::Curve {
            curve: Curve::new([(11.0, 0.0, 0.0), (1.0, 5.0, 5.0)]).expect("curve"),
            spread: Spread::Even,
        };
        assert_eq!(late.check(SECONDS), Err(CurveError::Empty));
    }

    fn profiles() -> impl Strategy<Value = Profile> {
        let piece = (0.01..4.0_f64, 0.0..2000.0_f64, 0.0..2000.0_f64);
        let spread = prop_oneof![
            Just(Spread::Even),
            Just(Spread::Poisson),
            Just(Spread::Uniform)
        ];
        let curve = (proptest::collection::vec(piece, 1..6), spread).prop_filter_map(
            "without load",
            |(pieces, spread)| {
                Some(Profile::Curve {
                    curve: Curve::new(pieces).ok()?,
                    spread,
                })
            },
        );
        prop_oneof![
            (0.1..2000.0_f64).prop_map(|rate| Profile::Constant { rate }),
            (0.1..2000.0_f64).prop_map(|rate| Profile::Poisson { rate }),
            (0.1..2000.0_f64).prop_map(|rate| Profile::Uniform { rate }),
            (0.0..2000.0_f64, 0.1..2000.0_f64).prop_map(|(from, to)| Profile::Ramp { from, to }),
            curve,
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn prop_lanes_partition_one_sequence_whatever_their_number(
            profile in profiles(),
            of in 2..7_usize,
        ) {
            let alone = due(&profile, 1);
            let lanes = lanes(&profile, of);
            for (number, at) in alone.iter().enumerate() {
                prop_assert_eq!(lanes[number % of].get(number / of), Some(at));
            }
            prop_assert_eq!(lanes.concat().len(), alone.len());
        }

        #[test]
        fn prop_times_are_sorted_and_as_many_as_the_integral_of_the_rate(profile in profiles()) {
            let profile_due: Vec<_> = Schedule::new(
                Arc::new(profile.clone()), SECONDS, 7, 0, 1,
            ).collect();
            prop_assert!(profile_due.is_sorted());
            prop_assert!(profile_due.last().is_none_or(|last| *last < SECONDS));
            let expected = profile.expected(SECONDS);
            let found = profile_due.len() as f64;
            let random = matches!(
                profile,
                Profile::Poisson { .. } | Profile::Uniform { .. }
                    | Profile::Curve { spread: Spread::Poisson | Spread::Uniform, .. }
            );
            // Six standard deviations of a Poisson count.
            let slack = if random { 6.0 * expected.sqrt() + 2.0 } else { 1.0 + 1e-6 };
            prop_assert!((found - expected).abs() <= slack, "{} of {}", found, expected);
        }

        #[test]
        fn prop_each_part_of_the_time_gets_its_share(profile in profiles(), tenth in 1..10_u32) {
            if let Profile::Curve { curve, spread: Spread::Even } = &profile {
                let until = SECONDS * tenth / 10;
                let found = due(&profile, 1).iter().filter(|at| **at < until).count() as f64;
                prop_assert!((found - curve.expected(until)).abs() <= 1.0 + 1e-6);
            }
        }
    }
}
