//! Draws one of several by their weights.

use ballast_model::Weight;

/// Random bits drawn out of the 64 that were handed in: as many as are needed.
///
/// # Source
/// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA'14).
#[derive(Debug, Clone, Copy)]
pub struct Bits(u64);

impl Bits {
    /// Begins with these.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns the next 64.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Returns a number below `end`; 0 if that is 0.
    pub fn below(&mut self, end: usize) -> usize {
        below(self.next(), end)
    }

    /// Returns true with a chance of `chance` in 2³².
    pub fn chance(&mut self, chance: u64) -> bool {
        self.next() >> 32 < chance
    }
}

/// Returns 64 bits that all depend on each of those given.
pub const fn mix(bits: u64) -> u64 {
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// Maps 64 random bits to a number below `end`, without a division.
fn below(bits: u64, end: usize) -> usize {
    let wide = u128::from(bits) * end as u128;
    usize::try_from(wide >> 64).expect("less than `end`")
}

/// Draws places by their weights, in constant time.
///
/// # Source
/// Vose: A Linear Algorithm for Generating Random Numbers with a Given Distribution, 1991.
#[derive(Debug)]
pub enum Draw {
    /// All alike.
    Even(usize),
    /// Each place keeps a draw with a chance (in 2³²), and gives it to another place otherwise.
    Weighted(Box<[(u32, u32)]>),
}

impl Draw {
    /// Prepares draws among these; weights of 0 count only if there is no other.
    ///
    /// # Complexity
    /// Linear.
    pub fn new(weights: &[Weight]) -> Self {
        let total: u64 = weights.iter().map(|weight| u64::from(weight.0)).sum();
        let even = weights.windows(2).all(|pair| pair[0] == pair[1]);
        if even || total == 0 {
            return Self::Even(weights.len());
        }
        let count = weights.len() as u64;
        // In units of which a place holds `total`.
        let mut left: Vec<u64> = weights.iter().map(|w| u64::from(w.0) * count).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) =
            (0..weights.len()).partition(|&place| left[place] < total);
        let mut slots = vec![(u32::MAX, 0); weights.len()];
        while let (Some(&giver), Some(taker)) = (large.last(), small.pop()) {
            let keeps = (left[taker] << 32) / total;
            let keeps = u32::try_from(keeps).expect("less than a place holds");
            slots[taker] = (keeps, index(giver));
            left[giver] -= total - left[taker];
            if left[giver] < total {
                large.pop();
                small.push(giver);
            }
        }
        for place in small.into_iter().chain(large) {
            slots[place] = (u32::MAX, index(place));
        }
        Self::Weighted(slots.into())
    }

    /// Draws one.
    pub fn draw(&self, bits: &mut Bits) -> usize {
        match self {
            Self::Even(count) => bits.below(*count),
            Self::Weighted(slots) => {
                let place = bits.below(slots.len());
                let (keeps, other) = slots[place];
                if bits.next() >> 32 < u64::from(keeps) {
                    place
                } else {
                    other as usize
                }
            }
        }
    }
}

fn index(place: usize) -> u32 {
    u32::try_from(place).expect("endpoints are far fewer than 2³²")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn prop_each_is_drawn_as_often_as_it_weighs(
            weights in prop::collection::vec(0u16..=300, 1..20),
            seed: u64,
        ) {
            const DRAWS: u64 = 20_000;
            let weights: Vec<Weight> = weights.into_iter().map(Weight).collect();
            let total: u64 = weights.iter().map(|w| u64::from(w.0)).sum();
            let draw = Draw::new(&weights);
            let mut bits = Bits::new(seed);
            let mut drawn = vec![0u64; weights.len()];
            for _ in 0..DRAWS {
                drawn[draw.draw(&mut bits)] += 1;
            }
            for (weight, drawn) in weights.iter().zip(drawn) {
                let share = match total {
                    0 => 1.0 / weights.len() as f64,
                    total => f64::from(weight.0) / total as f64,
                };
                let expected = share * DRAWS as f64;
                // Six standard deviations.
                let slack = 6.0 * (expected.max(1.0)).sqrt() + 1.0;
                prop_assert!((drawn as f64 - expected).abs() <= slack, "{drawn} for {expected}");
            }
        }
    }
}
