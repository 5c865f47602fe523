//! Profiles as they are written on the command line: `step:…`, `spike:…`, `sawtooth:…`.

use std::time::Duration;

use super::curve::{Curve, CurveError, SEGMENTS};
use super::nearest;
use super::units::{InvalidQuantity, rate, rate_or_zero, span};

/// The kinds of waves.
const KINDS: [&str; 4] = ["ramp", "step", "spike", "sawtooth"];

/// A rate that changes in a way that fits a line.
#[derive(Debug, Clone, PartialEq)]
pub enum Wave {
    /// `ramp:FROM..TO`: evenly over the duration.
    Ramp {
        /// Requests a second at the start.
        from: f64,
        /// Requests a second at the end.
        to: f64,
    },
    /// `step:RATE,RATE,…`: each for its part of the duration, or `RATE/TIME` for that long.
    Step(Vec<(f64, Option<Duration>)>),
    /// `spike:RATE@AT+LENGTH`: that rate from then, for that long; `--rate` otherwise.
    Spike {
        /// Requests a second in the spike.
        rate: f64,
        /// When it begins.
        at: Duration,
        /// How long it lasts.
        length: Duration,
    },
    /// `sawtooth:LOW..HIGH/PERIOD`: up evenly, down at once, again and again.
    Sawtooth {
        /// Requests a second at the start of each period.
        low: f64,
        /// Requests a second at its end.
        high: f64,
        /// How long one tooth lasts.
        period: Duration,
    },
}

/// A wave that does not parse, or does not fit the run.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum InvalidWave {
    /// No such kind.
    #[error("`{name}` is no kind of profile; there are ramp, step, spike and sawtooth{hint}")]
    Kind {
        /// As it was written.
        name: String,
        /// The nearest that there is, as the end of a sentence; may be empty.
        hint: String,
    },
    /// Not the form of its kind.
    #[error("`{text}` is not {form}")]
    Form {
        /// As it was written.
        text: String,
        /// What it ought to look like.
        form: &'static str,
    },
    /// A rate or time in it.
    #[error(transparent)]
    Quantity(#[from] InvalidQuantity),
    /// A spike has no ground to stand on.
    #[error("a spike needs --rate: the rate before and after it")]
    NoBase,
    /// The spike is not within the run.
    #[error("the spike from {at:?} for {length:?} is not within the {duration:?} of the run")]
    Outside {
        /// When it begins.
        at: Duration,
        /// How long it lasts.
        length: Duration,
        /// Of the run.
        duration: Duration,
    },
    /// The others say their rates themselves.
    #[error("{0} says its own rates: leave --rate out")]
    OwnRate(&'static str),
    /// The times of steps are longer than the run, or no rest is left for those without.
    #[error("the steps' times do not fit the {0:?} of the run")]
    Steps(Duration),
    /// No curve.
    #[error(transparent)]
    Curve(#[from] CurveError),
}

impl std::str::FromStr for Wave {
    type Err = InvalidWave;

    fn from_str(text: &str) -> Result<Self, InvalidWave> {
        let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
        let form = |form| InvalidWave::Form {
            text: text.to_owned(),
            form,
        };
        match kind {
            "ramp" => {
                let bad = || form("ramp:FROM..TO, such as ramp:0..1000");
                let (from, to) = rest.split_once("..").ok_or_else(bad)?;
                Ok(Self::Ramp {
                    from: rate_or_zero(from)?,
                    to: rate_or_zero(to)?,
                })
            }
            "step" => steps(rest).map(Self::Step),
            "spike" => {
                let bad = || form("spike:RATE@AT+LENGTH, such as spike:5000@3s+500ms");
                let (peak, when) = rest.split_once('@').ok_or_else(bad)?;
                let (at, length) = when.split_once('+').ok_or_else(bad)?;
                Ok(Self::Spike {
                    rate: rate(peak)?,
                    at: super::units::duration(at)?,
                    length: span(length)?,
                })
            }
            "sawtooth" => {
                let bad = || form("sawtooth:LOW..HIGH/PERIOD, such as sawtooth:100..1000/5s");
                let (rates, period) = rest.split_once('/').ok_or_else(bad)?;
                let (low, high) = rates.split_once("..").ok_or_else(bad)?;
                Ok(Self::Sawtooth {
                    low: rate_or_zero(low)?,
                    high: rate_or_zero(high)?,
                    period: span(period)?,
                })
            }
            _ => Err(InvalidWave::Kind {
                name: kind.to_owned(),
                hint: nearest(kind, KINDS)
                    .map(|near| format!("; did you mean {near}?"))
                    .unwrap_or_default(),
            }),
        }
    }
}

fn steps(text: &str) -> Result<Vec<(f64, Option<Duration>)>, InvalidWave> {
    text.split(',')
        .map(|step| match step.split_once('/') {
            Some((rate, "s")) => Ok((rate_or_zero(rate)?, None)),
            Some((rate, time)) => Ok((rate_or_zero(rate)?, Some(span(time)?))),
            None => Ok((rate_or_zero(step)?, None)),
        })
        .collect()
}

impl Wave {
    /// Returns the curve of this wave over `duration`; `base` is `--rate`.
    ///
    /// # Errors
    /// [`InvalidWave`] if it does not fit the run.
    pub fn curve(&self, base: Option<f64>, duration: Duration) -> Result<Curve, InvalidWave> {
        let seconds = duration.as_secs_f64();
        let pieces = match self {
            Self::Spike { rate, at, length } => {
                let base = base.ok_or(InvalidWave::NoBase)?;
                if *at + *length > duration {
                    return Err(InvalidWave::Outside {
                        at: *at,
                        length: *length,
                        duration,
                    });
                }
                vec![
                    (at.as_secs_f64(), base, base),
                    (length.as_secs_f64(), *rate, *rate),
                    (0.0, base, base),
                ]
            }
            other if base.is_some() => return Err(InvalidWave::OwnRate(other.kind())),
            Self::Ramp { from, to } => vec![(seconds, *from, *to)],
            Self::Step(steps) => step_pieces(steps, duration)?,
            Self::Sawtooth { low, high, period } => {
                let teeth = duration.as_nanos().div_ceil(period.as_nanos());
                let teeth = usize::try_from(teeth).unwrap_or(usize::MAX);
                if teeth > SEGMENTS {
                    return Err(CurveError::TooMany.into());
                }
                vec![(period.as_secs_f64(), *low, *high); teeth]
            }
        };
        Ok(Curve::new(pieces)?)
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Ramp { .. } => KINDS[0],
            Self::Step(_) => KINDS[1],
            Self::Spike { .. } => KINDS[2],
            Self::Sawtooth { .. } => KINDS[3],
        }
    }
}

fn step_pieces(
    steps: &[(f64, Option<Duration>)],
    duration: Duration,
) -> Result<Vec<(f64, f64, f64)>, InvalidWave> {
    let given: Duration = steps.iter().filter_map(|(_, time)| *time).sum();
    let open = steps.iter().filter(|(_, time)| time.is_none()).count();
    let rest = duration
        .checked_sub(given)
        .filter(|rest| open == 0 || !rest.is_zero())
        .ok_or(InvalidWave::Steps(duration))?;
    let share = rest.as_secs_f64() / open.max(1) as f64;
    Ok(steps
        .iter()
        .map(|(rate, time)| (time.map_or(share, |time| time.as_secs_f64()), *rate, *rate))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: Duration = Duration::from_secs(10);

    /// Requests due in each second of the run.
    fn seconds(text: &str, base: Option<f64>) -> Vec<f64> {
        let wave: Wave = text.parse().expect("parses");
        let curve = wave.curve(base, RUN).expect("fits");
        (0..10)
            .map(|second| {
                let at = |second| curve.expected(Duration::from_secs(second));
                ((at(second + 1) - at(second)) * 1000.0).round() / 1000.0
            })
            .collect()
    }

    fn error(text: &str, base: Option<f64>) -> String {
        text.parse::<Wave>()
            .and_then(|wave| wave.curve(base, RUN))
            .expect_err(text)
            .to_string()
    }

    #[test]
    fn waves_have_their_shape() {
        assert_eq!(
            seconds("step:1,2", None),
            [1.0, 1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0, 2.0]
        );
        assert_eq!(seconds("step:1/8s,2,3/1s", None)[6..], [1.0, 1.0, 2.0, 3.0]);
        assert_eq!(
            seconds("spike:50@3s+500ms", Some(10.0))[2..5],
            [10.0, 30.0, 10.0]
        );
        assert_eq!(
            seconds("sawtooth:0..20/2s", None)[..4],
            [5.0, 15.0, 5.0, 15.0]
        );
        assert_eq!(seconds("ramp:0..20", None)[..2], [1.0, 3.0]);
    }

    #[test]
    fn errors_show_the_form() {
        assert!(error("sawtoth:1..2/1s", None).ends_with("did you mean sawtooth?"));
        assert!(error("spike:5", None).contains("spike:RATE@AT+LENGTH"));
        assert_eq!(
            error("spike:5@1s+1s", None),
            "a spike needs --rate: the rate before and after it"
        );
        assert!(error("spike:5@9s+2s", Some(1.0)).contains("not within"));
        assert!(error("step:1,2", Some(1.0)).contains("leave --rate out"));
        assert!(error("step:1/20s", None).contains("do not fit"));
        assert!(error("step:1/10s,5", None).contains("do not fit"));
        assert!(error("step:", None).contains("is no rate"));
        assert!(error("step:0", None).contains("0 all the time"));
        assert!(error("sawtooth:1..2/1us", None).contains("more than"));
        assert!(error("", None).contains("is no kind"));
    }
}
