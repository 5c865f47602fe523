//! Which request a number is.

use std::sync::Arc;

use super::{Plan, Target};

/// Chooses target and request of each number by weight, or as a log says.
///
/// A function of the plan and the number alone: however many lanes there are, together they send
/// the same requests.
#[derive(Debug, Clone)]
pub struct Picker {
    seed: u64,
    /// Of each choice, the sum of its weight and those before it.
    sums: Vec<u64>,
    picks: Vec<Pick>,
    replay: Option<Arc<Vec<u32>>>,
}

/// Which request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pick {
    /// Which of [`Plan::targets`].
    pub target: u16,
    /// Which of the target's requests.
    pub request: u32,
}

impl Picker {
    /// Returns the picker of `plan`'s requests.
    pub fn new(plan: &Plan) -> Self {
        Self {
            replay: plan.replay.clone(),
            ..Self::over(plan.seed, &plan.targets)
        }
    }

    /// Returns a picker of one target's requests, for engines that give each connection a target.
    pub fn of_target(plan: &Plan, target: u16) -> Self {
        let only = usize::from(target);
        let mut picker = Self {
            replay: plan.replay.clone(),
            ..Self::over(plan.seed, &plan.targets[only..=only])
        };
        picker
            .picks
            .iter_mut()
            .for_each(|pick| pick.target = target);
        picker
    }

    fn over(seed: u64, targets: &[Target]) -> Self {
        let mut picker = Self {
            seed,
            sums: Vec::new(),
            picks: Vec::new(),
            replay: None,
        };
        let mut sum = 0;
        for (target, at) in targets.iter().zip(0_u16..) {
            let all: u64 = target.requests.iter().map(|it| u64::from(it.weight)).sum();
            for (request, within) in target.requests.iter().zip(0_u32..) {
                // A target's share does not depend on the weights inside it: both are taken to a
                // common scale, fine enough for any mix.
                let share = (u128::from(target.weight) * u128::from(request.weight)) << 32;
                let share = u64::try_from(share / u128::from(all.max(1))).unwrap_or(u64::MAX >> 16);
                if share > 0 {
                    sum += share;
                    picker.sums.push(sum);
                    picker.picks.push(Pick {
                        target: at,
                        request: within,
                    });
                }
            }
        }
        picker
    }

    /// Returns which request `number` is.
    pub fn pick(&self, number: u64) -> Pick {
        if let Some(replay) = &self.replay {
            // A log is replayed to one target.
            let request = usize::try_from(number).ok().and_then(|at| replay.get(at));
            return Pick {
                target: 0,
                request: request.copied().unwrap_or_default(),
            };
        }
        if let [only] = self.picks[..] {
            return only;
        }
        let Some(all) = self.sums.last() else {
            return Pick {
                target: 0,
                request: 0,
            };
        };
        let random = mix(self.seed ^ mix(number));
        let at = ((u128::from(random) * u128::from(*all)) >> 64) as u64;
        self.picks[self.sums.partition_point(|sum| *sum <= at)]
    }
}

/// Returns a hash of `x` in which every bit depends on every bit of it.
///
/// # Source
/// The finaliser of SplitMix64: Steele, Lea and Flood, "Fast splittable pseudorandom number
/// generators", OOPSLA 2014.
pub(crate) fn mix(x: u64) -> u64 {
    let mut z = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::super::{Request, Template};
    use super::*;

    fn plan(weights: &[(u32, &[u32])]) -> Plan {
        let mut plan = Plan::http("http://127.0.0.1:1/").expect("plan");
        let one = plan.targets[0].clone();
        plan.targets = weights
            .iter()
            .map(|(weight, requests)| Target {
                weight: *weight,
                requests: requests
                    .iter()
                    .map(|weight| Request {
                        weight: *weight,
                        ..Request::get(Template::literal("/"))
                    })
                    .collect(),
                ..one.clone()
            })
            .collect();
        plan
    }

    #[test]
    fn shares_are_the_weights() {
        let picker = Picker::new(&plan(&[(3, &[1, 1]), (1, &[10]), (0, &[1])]));
        let mut counts = [[0_u32; 2]; 3];
        for number in 0..40_000 {
            let pick = picker.pick(number);
            counts[usize::from(pick.target)][pick.request as usize] += 1;
        }
        for (count, expected) in [
            (counts[0][0], 15_000),
            (counts[0][1], 15_000),
            (counts[1][0], 10_000),
        ] {
            assert!(count.abs_diff(expected) < 500, "{counts:?}");
        }
        assert_eq!(counts[2], [0, 0], "a weight of 0 gets nothing");
    }

    #[test]
    fn pick_depends_on_seed_and_number_alone() {
        let mut plan = plan(&[(1, &[1, 1, 1, 1])]);
        let picks = |plan: &Plan| -> Vec<Pick> {
            let picker = Picker::new(plan);
            (0..100).map(|number| picker.pick(number)).collect()
        };
        let first = picks(&plan);
        assert_eq!(first, picks(&plan));
        plan.seed += 1;
        assert_ne!(first, picks(&plan));
    }

    #[test]
    fn one_target_alone_keeps_its_number() {
        let picker = Picker::of_target(&plan(&[(3, &[1]), (1, &[1, 1])]), 1);
        assert!((0..100).all(|number| picker.pick(number).target == 1));
    }
}
