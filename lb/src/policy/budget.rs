//! How many retries a service may have: a part of its requests.
//!
//! Without a budget, retries multiply the load on what fails under load: with four tries, an
//! overloaded service gets four times its requests. With it, at most a fifth more.

use std::sync::atomic::{AtomicU64, Ordering};

use super::settings::Retries;
use crate::table::Moment;

/// Over how many seconds requests and retries are counted.
const WINDOW: u64 = SLOTS as u64;
/// One for each second.
const SLOTS: usize = 10;
/// One request in so many is counted, for as many: a shared counter per request would be paid by
/// every thread. A power of two.
const SAMPLE: u64 = 16;

/// Counts requests and retries of the last seconds.
#[derive(Debug, Default)]
pub struct RetryBudget {
    requests: Window,
    retries: Window,
}

impl RetryBudget {
    /// Counts a request, by a sample that `random` draws.
    pub fn request(&self, random: u64, now: Moment) {
        // The top bits choose endpoints.
        if random & (SAMPLE - 1) == 0 {
            self.requests.add(SAMPLE, now);
        }
    }

    /// Takes one retry from the budget, if there is one left.
    pub fn retry(&self, rules: &Retries, now: Moment) -> bool {
        let spent = self.retries.sum(now);
        let earned = self.requests.sum(now) * u64::from(rules.budget_percent) / 100;
        // Two threads may both take the last one: a budget bears that.
        if spent >= earned + u64::from(rules.budget_per_second) * WINDOW {
            return false;
        }
        self.retries.add(1, now);
        true
    }

    /// Returns the requests (by sample) and the retries of the window.
    pub fn counted(&self, now: Moment) -> (u64, u64) {
        (self.requests.sum(now), self.retries.sum(now))
    }
}

/// A sum over the last [`WINDOW`] seconds, by slots of one.
///
/// Each slot holds its second in the high and its count in the low half, so that both change at
/// once and a slot of an earlier round is known for what it is.
#[derive(Debug, Default)]
struct Window([AtomicU64; SLOTS]);

impl Window {
    fn add(&self, count: u64, now: Moment) {
        let second = second_of(now);
        let slot = &self.0[slot_of(second)];
        let mut old = slot.load(Ordering::Relaxed);
        loop {
            let kept = if old >> 32 == second { old & COUNT } else { 0 };
            let new = second << 32 | (kept + count).min(COUNT);
            match slot.compare_exchange_weak(old, new, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(seen) => old = seen,
            }
        }
    }

    fn sum(&self, now: Moment) -> u64 {
        let second = second_of(now);
        let slots = self.0.iter().map(|slot| slot.load(Ordering::Relaxed));
        slots
            .filter(|slot| (slot >> 32) + WINDOW > second)
            .map(|slot| slot & COUNT)
            .sum()
    }
}

const COUNT: u64 = 0xffff_ffff;

/// From 1, so that an empty slot is of no second: the window begins empty.
fn second_of(now: Moment) -> u64 {
    (now.0 / 1_000_000 + WINDOW) & COUNT
}

fn slot_of(second: u64) -> usize {
    usize::try_from(second % WINDOW).expect("less than the window")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::policy::Settings;

    const SECOND: u64 = 1_000_000;

    fn rules(budget_percent: u16, budget_per_second: u32) -> Retries {
        Retries {
            budget_percent,
            budget_per_second,
            ..Settings::default().retry
        }
    }

    #[test]
    fn quiet_service_has_the_fixed_part_and_no_more() {
        let budget = RetryBudget::default();
        let rules = rules(20, 5);
        let now = Moment(7 * SECOND);
        let granted = (0..1000).filter(|_| budget.retry(&rules, now)).count();
        assert_eq!(granted, 50);
        let later = Moment((7 + WINDOW) * SECOND);
        assert!(budget.retry(&rules, later), "the window has passed");
    }

    #[test]
    fn outage_adds_a_fifth_to_the_load_and_not_four_times_it() {
        let budget = RetryBudget::default();
        let rules = rules(20, 0);
        let (mut requests, mut retries) = (0u64, 0u64);
        let mut random = 1u64;
        for micros in (0..30 * SECOND).step_by(500) {
            random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            let now = Moment(micros);
            budget.request(random >> 20, now);
            requests += 1;
            for _ in 1..4 {
                if !budget.retry(&rules, now) {
                    break;
                }
                retries += 1;
            }
        }
        let share = retries * 100 / requests;
        assert!((17..=22).contains(&share), "{share} %");
    }

    proptest! {
        #[test]
        fn prop_retries_never_pass_the_budget_of_any_window(
            steps in prop::collection::vec((0u64..3 * SECOND, 0u64..40, 0u64..40), 1..60),
            percent in 0u16..=100,
            fixed in 0u32..=5,
        ) {
            let budget = RetryBudget::default();
            let rules = rules(percent, fixed);
            let mut now = Moment(0);
            let mut history: Vec<(u64, u64, u64)> = Vec::new();
            for (after, requests, retries) in steps {
                now = Moment(now.0 + after);
                for _ in 0..requests {
                    // Every one is in the sample, and counts for all.
                    budget.request(0, now);
                }
                let granted = (0..retries).filter(|_| budget.retry(&rules, now)).count() as u64;
                history.push((now.0 / SECOND, requests * SAMPLE, granted));
                let second = now.0 / SECOND;
                let recent = history.iter().filter(|(at, ..)| at + WINDOW > second);
                let (asked, given) = recent.fold((0, 0), |(a, g), (_, asked, given)| {
                    (a + asked, g + given)
                });
                let limit = asked * u64::from(percent) / 100 + u64::from(fixed) * WINDOW;
                prop_assert!(given <= limit.max(given.saturating_sub(granted)), "{given} > {limit}");
                if granted < retries {
                    prop_assert!(given >= limit, "refused with {given} of {limit} spent");
                }
            }
        }
    }
}
