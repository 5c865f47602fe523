//! A rate that changes over time, and the inverse of its integral.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Segments of one curve: a sawtooth of a second for a week. More are refused.
pub const SEGMENTS: usize = 1 << 20;
/// Requests a second above which nothing could be meant but a slip of the hand.
pub const RATE: f64 = 1e8;

/// A rate over time: straight segments, one after the other, with jumps allowed between them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    segments: Vec<Segment>,
}

/// One straight piece.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Segment {
    /// When it begins, in seconds.
    start: f64,
    /// How long it lasts, in seconds; the last one may be infinite if it is level.
    length: f64,
    /// Requests a second at its start.
    from: f64,
    /// Requests a second at its end.
    to: f64,
    /// Requests due before it.
    before: f64,
}

/// A curve that makes no sense.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CurveError {
    /// Not a rate.
    #[error("{0} is no rate: it is a number of requests a second from 0 to {RATE:.0}")]
    Rate(f64),
    /// Nothing is ever due.
    #[error("the rate is 0 all the time")]
    Empty,
    /// More segments than are kept.
    #[error("more than {SEGMENTS} changes of the rate")]
    TooMany,
}

impl Segment {
    fn slope(&self) -> f64 {
        if self.length.is_finite() && self.length > 0.0 {
            (self.to - self.from) / self.length
        } else {
            0.0
        }
    }

    /// Requests due in its first `seconds`.
    fn within(&self, seconds: f64) -> f64 {
        self.from * seconds + self.slope() * seconds * seconds / 2.0
    }

    /// The seconds from its start in which `count` requests are due.
    fn invert(&self, count: f64) -> f64 {
        if count <= 0.0 {
            return 0.0;
        }
        // The form of the quadratic formula without a difference of like numbers: right for a
        // slope of 0 and for a start at 0, too.
        let root = (self.from * self.from + 2.0 * self.slope() * count).max(0.0);
        2.0 * count / (self.from + root.sqrt())
    }
}

impl Curve {
    /// Returns the curve through `pieces` of (length in seconds, rate at its start, rate at its
    /// end); past the last the rate stays as it was.
    ///
    /// # Errors
    /// [`CurveError`] for rates that are none, too many pieces, or nothing ever due.
    pub fn new(pieces: impl IntoIterator<Item = (f64, f64, f64)>) -> Result<Self, CurveError> {
        let mut segments: Vec<Segment> = Vec::new();
        let (mut start, mut before, mut last) = (0.0, 0.0, 0.0);
        for (length, from, to) in pieces {
            for rate in [from, to] {
                if !(0.0..=RATE).contains(&rate) {
                    return Err(CurveError::Rate(rate));
                }
            }
            if segments.len() == SEGMENTS {
                return Err(CurveError::TooMany);
            }
            last = to;
            if length <= 0.0 {
                continue;
            }
            let segment = Segment {
                start,
                length,
                from,
                to,
                before,
            };
            start += length;
            before += segment.within(length);
            segments.push(segment);
        }
        segments.push(Segment {
            start,
            length: f64::INFINITY,
            from: last,
            to: last,
            before,
        });
        if before == 0.0 && last == 0.0 {
            return Err(CurveError::Empty);
        }
        Ok(Self { segments })
    }

    /// Returns a level one.
    ///
    /// # Errors
    /// [`CurveError`] for what is no rate above 0.
    pub fn level(rate: f64) -> Result<Self, CurveError> {
        Self::new([(0.0, rate, rate)])
    }

    /// Returns how many requests are due until `at`: the integral of the rate.
    pub fn expected(&self, at: Duration) -> f64 {
        let at = at.as_secs_f64();
        let index = self.segments.partition_point(|segment| segment.start <= at);
        let segment = &self.segments[index.saturating_sub(1)];
        segment.before + segment.within(at - segment.start)
    }

    /// Returns the highest rate before `until`.
    pub fn peak(&self, until: Duration) -> f64 {
        let until = until.as_secs_f64();
        self.segments
            .iter()
            .take_while(|segment| segment.start < until)
            .map(|segment| segment.from.max(segment.to))
            .fold(0.0, f64::max)
    }

    /// Returns the second at which `count` requests have been due, none if that never comes;
    /// `hint` is where the last search ended, from 0, for searches in order.
    pub(super) fn invert(&self, count: f64, hint: &mut usize) -> Option<f64> {
        while let Some(next) = self.segments.get(*hint + 1)
            && next.before <= count
        {
            *hint += 1;
        }
        let segment = self.segments.get(*hint)?;
        let at = segment.start + segment.invert(count - segment.before);
        at.is_finite().then_some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integral_is_that_of_the_segments() {
        let curve = Curve::new([(2.0, 0.0, 100.0), (1.0, 300.0, 300.0)]).expect("curve");
        for (at, expected) in [
            (0.0, 0.0),
            (1.0, 25.0),
            (2.0, 100.0),
            (3.0, 400.0),
            (5.0, 1000.0),
        ] {
            let found = curve.expected(Duration::from_secs_f64(at));
            assert!((found - expected).abs() < 1e-9, "{at}: {found}");
        }
        assert!((curve.peak(Duration::from_secs(1)) - 100.0).abs() < 1e-9);
        assert!((curve.peak(Duration::from_secs(3)) - 300.0).abs() < 1e-9);
    }

    #[test]
    fn gap_without_load_is_jumped_over() {
        let curve = Curve::new([(1.0, 1.0, 1.0), (5.0, 0.0, 0.0), (1.0, 1.0, 1.0)]).expect("curve");
        let mut hint = 0;
        assert_eq!(curve.invert(0.5, &mut hint), Some(0.5));
        assert_eq!(curve.invert(1.0, &mut hint), Some(6.0));
    }

    #[test]
    fn what_is_no_rate_is_refused() {
        for bad in [f64::NAN, -1.0, f64::INFINITY, 1e9] {
            assert!(
                matches!(Curve::level(bad), Err(CurveError::Rate(_))),
                "{bad}"
            );
        }
        assert_eq!(Curve::level(0.0), Err(CurveError::Empty));
        assert_eq!(Curve::new([]), Err(CurveError::Empty));
    }
}
