//! When requests are due.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::Arrivals;

/// The due times of an open loop, as offsets from its start, in order.
pub struct Schedule {
    arrivals: Arrivals,
    rate: f64,
    duration: Duration,
    number: u64,
    at: f64,
    rng: StdRng,
}

impl Schedule {
    /// Returns the schedule of `rate` requests a second for `duration`.
    pub fn new(arrivals: Arrivals, rate: f64, duration: Duration, seed: u64) -> Self {
        Self {
            arrivals,
            rate,
            duration,
            number: 0,
            at: 0.0,
            rng: StdRng::seed_from_u64(seed),
        }
    }
}

impl Iterator for Schedule {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let number = self.number as f64;
        let at = match self.arrivals {
            Arrivals::Constant => number / self.rate,
            Arrivals::Poisson => {
                let uniform: f64 = self.rng.random();
                self.at -= (1.0 - uniform).ln() / self.rate;
                self.at
            }
            // The integral of a rate that grows evenly is a parabola; this is its inverse.
            Arrivals::Ramp => (2.0 * number * self.duration.as_secs_f64() / self.rate).sqrt(),
        };
        self.number += 1;
        let at = Duration::from_secs_f64(at);
        (at < self.duration).then_some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECONDS: Duration = Duration::from_secs(10);

    #[test]
    fn constant_schedule_is_even_and_complete() {
        let due: Vec<_> = Schedule::new(Arrivals::Constant, 1000.0, SECONDS, 1).collect();
        assert_eq!(due.len(), 10_000);
        assert_eq!(due[1].abs_diff(due[0]), Duration::from_millis(1));
        assert!(due.is_sorted());
    }

    #[test]
    fn poisson_schedule_has_the_rate_and_the_spread() {
        let due: Vec<_> = Schedule::new(Arrivals::Poisson, 1000.0, SECONDS, 7).collect();
        assert!((9_500..10_500).contains(&due.len()), "{}", due.len());
        let gaps: Vec<f64> = due
            .windows(2)
            .map(|two| two[1].abs_diff(two[0]).as_secs_f64())
            .collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        // The standard deviation of an exponential distribution is its mean.
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.1);
    }

    #[test]
    fn ramp_sends_a_quarter_in_the_first_half() {
        let due: Vec<_> = Schedule::new(Arrivals::Ramp, 1000.0, SECONDS, 1).collect();
        assert!((4_990..=5_010).contains(&due.len()), "{}", due.len());
        let early = due.iter().filter(|at| **at < SECONDS / 2).count();
        assert!((1_240..=1_260).contains(&early), "{early}");
    }
}
