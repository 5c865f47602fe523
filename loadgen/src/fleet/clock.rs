//! How far apart two clocks are.
//!
//! As NTP does it: a question leaves at `sent` and its answer is back at `received`, by this
//! clock; in between the other clock said `theirs`. Wherever in between that was, the offset is
//! `theirs − (sent + received) ÷ 2` to within half the round trip. Of several round trips the
//! shortest is the surest.

use std::time::Duration;

/// Round trips of one comparison.
pub const ROUNDS: usize = 16;

/// How far the other clock is ahead of this one, and how sure that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offset {
    /// Nanoseconds; below 0 if it is behind.
    pub ahead_ns: i128,
    /// The truth is at most this far from it.
    pub uncertainty: Duration,
}

/// One round trip, in nanoseconds of each clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoundTrip {
    /// When the question left, by this clock.
    pub sent_ns: u64,
    /// What the other clock said.
    pub theirs_ns: u64,
    /// When its answer was here, by this clock.
    pub received_ns: u64,
}

impl Offset {
    /// Returns the offset that the shortest of these round trips shows; none without any.
    pub fn of(rounds: &[RoundTrip]) -> Option<Self> {
        rounds
            .iter()
            .map(|round| {
                let span = round.received_ns.saturating_sub(round.sent_ns);
                let middle = i128::from(round.sent_ns) + i128::from(span) / 2;
                Self {
                    ahead_ns: i128::from(round.theirs_ns) - middle,
                    uncertainty: Duration::from_nanos(span.div_ceil(2)),
                }
            })
            .min_by_key(|offset| offset.uncertainty)
    }

    /// Returns what the other clock says when this one says `here_ns`; none before its zero.
    pub fn theirs(&self, here_ns: u64) -> Option<u64> {
        u64::try_from(i128::from(here_ns) + self.ahead_ns).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn shortest_round_trip_decides() {
        let round = |sent_ns, theirs_ns, received_ns| RoundTrip {
            sent_ns,
            theirs_ns,
            received_ns,
        };
        let offset = Offset::of(&[
            round(0, 700, 1000),
            round(2000, 1550, 2100),
            round(5000, 1, 9000),
        ])
        .expect("offset");
        assert_eq!(offset.ahead_ns, -500);
        assert_eq!(offset.uncertainty, Duration::from_nanos(50));
        assert_eq!(offset.theirs(2100), Some(1600));
        assert_eq!(offset.theirs(100), None, "before its zero");
        assert_eq!(Offset::of(&[]), None);
    }

    proptest! {
        #[test]
        fn prop_truth_is_within_the_uncertainty(
            ahead in -1_000_000_i64..1_000_000,
            trips in proptest::collection::vec((0..50_000_u64, 0..50_000_u64), 1..20),
        ) {
            let mut here = 2_000_000_u64;
            let rounds: Vec<RoundTrip> = trips
                .iter()
                .map(|(there, back)| {
                    let sent_ns = here;
                    here += there + back + 1_000;
                    RoundTrip {
                        sent_ns,
                        theirs_ns: (sent_ns + there).checked_add_signed(ahead).expect("positive"),
                        received_ns: sent_ns + there + back,
                    }
                })
                .collect();
            let offset = Offset::of(&rounds).expect("offset");
            let error = (offset.ahead_ns - i128::from(ahead)).unsigned_abs();
            prop_assert!(error <= offset.uncertainty.as_nanos() + 1);
        }
    }
}
