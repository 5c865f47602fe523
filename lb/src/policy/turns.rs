//! Whose turn it is: round robin with weights, spread as evenly as they allow.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use ballast_model::Weight;

/// Turns in one round at most; weights are rounded to fit.
const ROUND: usize = 8192;

/// The order of turns.
#[derive(Debug)]
pub enum Turns {
    /// Each in its turn.
    Even(usize),
    /// A round of places; one comes as often as it weighs, at even distances.
    Round(Box<[u32]>),
}

impl Turns {
    /// Prepares a round; weights of 0 count only if there is no other.
    ///
    /// # Complexity
    /// A round of at most 8,192 turns or one for each place, times the logarithm of the places.
    pub fn new(weights: &[Weight]) -> Self {
        let even = weights.windows(2).all(|pair| pair[0] == pair[1]);
        let total: u64 = weights.iter().map(|weight| u64::from(weight.0)).sum();
        if even || total == 0 {
            return Self::Even(weights.len());
        }
        let common = weights
            .iter()
            .fold(0, |common, weight| gcd(common, u64::from(weight.0)));
        let scale = |weight: u64| {
            let turns = weight / common;
            if total / common <= ROUND as u64 {
                turns
            } else {
                (weight * ROUND as u64 / total).max(u64::from(weight > 0))
            }
        };
        // The next turn of a place with `n` turns is due at (k + ½)/n, in units of the round.
        const UNIT: u64 = 1 << 32;
        let mut round = Vec::new();
        let mut due = BinaryHeap::new();
        for (place, weight) in weights.iter().enumerate() {
            let turns = scale(u64::from(weight.0));
            if turns > 0 {
                due.push(Reverse((UNIT / (2 * turns), place, turns, 0u64)));
            }
        }
        while let Some(Reverse((_, place, turns, taken))) = due.pop() {
            round.push(u32::try_from(place).expect("endpoints are far fewer than 2³²"));
            let taken = taken + 1;
            if taken < turns {
                let at = (2 * taken + 1) * UNIT / (2 * turns);
                due.push(Reverse((at, place, turns, taken)));
            }
        }
        Self::Round(round.into())
    }

    /// Returns whose turn number `turn` is, if there is anybody.
    pub fn place(&self, turn: u64) -> Option<usize> {
        let at = |length: usize| usize::try_from(turn % length as u64).expect("less than a length");
        match self {
            Self::Even(0) => None,
            Self::Even(count) => Some(at(*count)),
            Self::Round(round) => Some(round[at(round.len())] as usize),
        }
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn prop_one_round_gives_each_its_weight_and_never_clusters(
            weights in prop::collection::vec(0u16..=20, 1..10),
        ) {
            let weights: Vec<Weight> = weights.into_iter().map(Weight).collect();
            let turns = Turns::new(&weights);
            let length = match &turns {
                Turns::Even(count) => *count,
                Turns::Round(round) => round.len(),
            };
            let mut had = vec![0usize; weights.len()];
            for turn in 0..length {
                had[turns.place(turn as u64).expect("there is somebody")] += 1;
                for (place, &had) in had.iter().enumerate() {
                    let total: u64 = weights.iter().map(|w| u64::from(w.0)).sum();
                    let share = match total {
                        0 => 1.0 / weights.len() as f64,
                        total => f64::from(weights[place].0) / total as f64,
                    };
                    let due = share * (turn + 1) as f64;
                    let slack = weights.len() as f64;
                    prop_assert!((had as f64 - due).abs() <= slack, "{had} of {due}");
                }
            }
            let total: u64 = weights.iter().map(|w| u64::from(w.0)).sum();
            for (weight, had) in weights.iter().zip(had) {
                let due = match total {
                    0 => length as u64,
                    total => u64::from(weight.0) * length as u64 / total * weights.len() as u64,
                };
                prop_assert_eq!(had as u64 * weights.len() as u64, due);
            }
        }
    }

    #[test]
    fn huge_weights_are_rounded_to_a_short_round() {
        let weights: Vec<Weight> = (0..100).map(|n| Weight(9_999 - n)).collect();
        let Turns::Round(round) = Turns::new(&weights) else {
            panic!("weights differ");
        };
        assert!(round.len() <= ROUND + weights.len(), "{}", round.len());
    }
}
