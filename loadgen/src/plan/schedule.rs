//! When requests are due.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// How requests are spread over time.
#[derive(Debug, Clone, PartialEq)]
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
    /// From one rate to another, evenly over the duration.
    Ramp {
        /// Requests a second at the start.
        from: f64,
        /// Requests a second at the end.
        to: f64,
    },
}

/// The due times of one lane's requests, in order, as offsets from the start.
///
/// Deterministic: all lanes together make the same times whatever their number, except where gaps
/// are random.
#[derive(Debug)]
pub struct Schedule {
    profile: Arc<Profile>,
    duration: Duration,
    index: usize,
    of: usize,
    number: u64,
    at: f64,
    rng: StdRng,
}

impl Schedule {
    /// Returns the schedule of lane `index` of `of`.
    pub fn new(
        profile: Arc<Profile>,
        duration: Duration,
        seed: u64,
        index: usize,
        of: usize,
    ) -> Self {
        Self {
            profile,
            duration,
            index,
            of,
            number: 0,
            at: 0.0,
            rng: StdRng::seed_from_u64(seed.wrapping_add(index as u64)),
        }
    }
}

impl Iterator for Schedule {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let number = (self.number * self.of as u64 + self.index as u64) as f64;
        let at = match *self.profile {
            Profile::Constant { rate } => number / rate,
            Profile::Poisson { rate } => {
                let uniform: f64 = self.rng.random();
                self.at -= (1.0 - uniform).ln() * self.of as f64 / rate;
                self.at
            }
            // The number of requests until `t` is from·t + (to − from)·t² ÷ 2·duration.
            Profile::Ramp { from, to } => {
                let slope = (to - from) / self.duration.as_secs_f64();
                if slope == 0.0 {
                    number / from
                } else {
                    ((from * from + 2.0 * slope * number).max(0.0).sqrt() - from) / slope
                }
            }
        };
        self.number += 1;
        let at = Duration::try_from_secs_f64(at).ok()?;
        (at < self.duration).then_some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECONDS: Duration = Duration::from_secs(10);

    fn due(profile: Profile, of: usize) -> Vec<Duration> {
        let profile = Arc::new(profile);
        let mut all: Vec<_> = (0..of)
            .flat_map(|index| Schedule::new(profile.clone(), SECONDS, 7, index, of))
            .collect();
        all.sort();
        all
    }

    #[test]
    fn constant_schedule_is_even_and_complete() {
        let alone = due(Profile::Constant { rate: 1000.0 }, 1);
        assert_eq!(alone.len(), 10_000);
        assert_eq!(alone[1].abs_diff(alone[0]), Duration::from_millis(1));
        assert_eq!(alone, due(Profile::Constant { rate: 1000.0 }, 3));
    }

    #[test]
    fn poisson_schedule_has_the_rate_and_the_spread() {
        for of in [1, 3] {
            let due = due(Profile::Poisson { rate: 1000.0 }, of);
            assert!((9_500..10_500).contains(&due.len()), "{}", due.len());
            let gaps: Vec<f64> = due
                .windows(2)
                .map(|two| two[1].abs_diff(two[0]).as_secs_f64())
                .collect();
            let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
            let squares = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>();
            let variance = squares / gaps.len() as f64;
            // The standard deviation of an exponential distribution is its mean.
            assert!((variance.sqrt() / mean - 1.0).abs() < 0.1);
        }
    }

    #[test]
    fn ramp_sends_a_quarter_in_the_first_half() {
        let ramp = Profile::Ramp {
            from: 0.0,
            to: 1000.0,
        };
        let due = due(ramp, 2);
        assert!((4_990..=5_010).contains(&due.len()), "{}", due.len());
        let early = due.iter().filter(|at| **at < SECONDS / 2).count();
        assert!((1_240..=1_260).contains(&early), "{early}");
    }
}
