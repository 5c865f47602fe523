//! Durations, rates and cores as people write them.

use std::time::Duration;

use super::curve::RATE;

/// The longest run, timeout or pause: past it, it is a slip of the hand.
pub const LONGEST: Duration = Duration::from_hours(7 * 24);

/// Text that is no quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidQuantity {
    /// No duration.
    #[error("`{0}` is no duration: write a number and ns, us, ms, s, m or h, such as 10s or 500ms")]
    Duration(String),
    /// A number alone.
    #[error("`{0}` has no unit: did you mean {0}s?")]
    NoUnit(String),
    /// Past [`LONGEST`].
    #[error("`{0}` is longer than seven days")]
    TooLong(String),
    /// No time at all.
    #[error("`{0}` is no time at all")]
    Zero(String),
    /// No rate.
    #[error("`{0}` is no rate: write requests a second, such as 20000, 0.5 or 20k")]
    Rate(String),
    /// Zero or less, or more than anything can do.
    #[error("the rate `{0}` must be above 0 and at most {RATE:.0} requests a second")]
    RateRange(String),
    /// No cores.
    #[error("`{0}` is no set of cores: write `all`, how many, or which: 0,1 or 2-5 or 3,")]
    Cores(String),
    /// No share.
    #[error("`{0}` is no share between 0 and 1")]
    Share(String),
}

/// Returns the duration in `text`: `10s`, `1.5ms`, `2m`. Zero is one, too.
///
/// # Errors
/// [`InvalidQuantity`] that says what would be right.
pub fn duration(text: &str) -> Result<Duration, InvalidQuantity> {
    let bad = || InvalidQuantity::Duration(text.to_owned());
    let Some(at) = text.find(|c: char| c.is_alphabetic()) else {
        return Err(match text.parse::<f64>() {
            Ok(_) => InvalidQuantity::NoUnit(text.to_owned()),
            Err(_) => bad(),
        });
    };
    let number: f64 = text[..at].trim_end().parse().map_err(|_| bad())?;
    let seconds = match &text[at..] {
        "ns" => 1e-9,
        "us" | "µs" | "μs" => 1e-6,
        "ms" => 1e-3,
        "s" | "sec" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(bad()),
    };
    if number < 0.0 {
        return Err(bad());
    }
    match Duration::try_from_secs_f64(number * seconds) {
        Ok(span) if span <= LONGEST => Ok(span),
        _ => Err(InvalidQuantity::TooLong(text.to_owned())),
    }
}

/// Returns the duration in `text`, which is longer than nothing.
///
/// # Errors
/// As [`duration`], and [`InvalidQuantity::Zero`].
pub fn span(text: &str) -> Result<Duration, InvalidQuantity> {
    match duration(text)? {
        Duration::ZERO => Err(InvalidQuantity::Zero(text.to_owned())),
        span => Ok(span),
    }
}

/// Returns the rate in `text`, in requests a second; it may be 0.
///
/// # Errors
/// [`InvalidQuantity::Rate`] or [`InvalidQuantity::RateRange`].
pub fn rate_or_zero(text: &str) -> Result<f64, InvalidQuantity> {
    let bare = text.strip_suffix("/s").unwrap_or(text);
    let (number, factor) = match bare.chars().last() {
        Some('k') => (&bare[..bare.len() - 1], 1e3),
        Some('M') => (&bare[..bare.len() - 1], 1e6),
        _ => (bare, 1.0),
    };
    let rate: f64 = number
        .parse()
        .map_err(|_| InvalidQuantity::Rate(text.to_owned()))?;
    let rate = rate * factor;
    if (0.0..=RATE).contains(&rate) {
        Ok(rate)
    } else {
        Err(InvalidQuantity::RateRange(text.to_owned()))
    }
}

/// Returns the rate in `text`, in requests a second, above 0.
///
/// # Errors
/// As [`rate_or_zero`].
pub fn rate(text: &str) -> Result<f64, InvalidQuantity> {
    match rate_or_zero(text)? {
        0.0 => Err(InvalidQuantity::RateRange(text.to_owned())),
        rate => Ok(rate),
    }
}

/// Returns the share in `text`, from 0 to 1.
///
/// # Errors
/// [`InvalidQuantity::Share`].
pub fn share(text: &str) -> Result<f64, InvalidQuantity> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err(InvalidQuantity::Share(text.to_owned())),
    }
}

/// Which cores lanes are pinned to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cores {
    /// All that this process may use.
    All,
    /// This many of them.
    Count(usize),
    /// These.
    These(Vec<usize>),
}

impl std::str::FromStr for Cores {
    type Err = InvalidQuantity;

    fn from_str(text: &str) -> Result<Self, InvalidQuantity> {
        let bad = || InvalidQuantity::Cores(text.to_owned());
        if text == "all" {
            return Ok(Self::All);
        }
        if let Ok(count) = text.parse() {
            return if count == 0 {
                Err(bad())
            } else {
                Ok(Self::Count(count))
            };
        }
        let mut cores = Vec::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (from, to) = part.split_once('-').unwrap_or((part, part));
            let from: usize = from.trim().parse().map_err(|_| bad())?;
            let to: usize = to.trim().parse().map_err(|_| bad())?;
            if from > to || to - from > 4096 {
                return Err(bad());
            }
            cores.extend(from..=to);
        }
        let given = cores.len();
        cores.sort_unstable();
        cores.dedup();
        if cores.is_empty() || cores.len() < given {
            return Err(bad());
        }
        Ok(Self::These(cores))
    }
}

/// Cores that cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{asked}, but this process may use {allowed:?}")]
pub struct NoSuchCore {
    asked: String,
    allowed: Vec<usize>,
}

impl Cores {
    /// Returns these cores, of those that this process may use.
    ///
    /// # Errors
    /// [`NoSuchCore`] if there are too few, or others.
    pub fn resolve(&self, allowed: &[usize]) -> Result<Vec<usize>, NoSuchCore> {
        let none = |asked| NoSuchCore {
            asked,
            allowed: allowed.to_vec(),
        };
        match self {
            Self::All => Ok(allowed.to_vec()),
            Self::Count(count) if *count > allowed.len() => {
                Err(none(format!("{count} cores are asked for")))
            }
            Self::Count(count) => Ok(allowed[..*count].to_vec()),
            Self::These(cores) => match cores.iter().find(|core| !allowed.contains(core)) {
                Some(core) => Err(none(format!("core {core} is asked for"))),
                None => Ok(cores.clone()),
            },
        }
    }

    /// Returns the cores that this process may use.
    pub fn allowed() -> Vec<usize> {
        let set = rustix::thread::sched_getaffinity(None);
        set.map(|set| {
            (0..rustix::thread::CpuSet::MAX_CPU)
                .filter(|core| set.is_set(*core))
                .collect()
        })
        .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("1.5ms"), Ok(Duration::from_micros(1500)));
        assert_eq!(duration("250us"), Ok(Duration::from_micros(250)));
        assert_eq!(duration("2h"), Ok(Duration::from_hours(2)));
        assert_eq!(
            duration("10").expect_err("no unit").to_string(),
            "`10` has no unit: did you mean 10s?"
        );
        assert_eq!(
            duration("8000h"),
            Err(InvalidQuantity::TooLong("8000h".to_owned()))
        );
        for bad in ["", "s", "-1s", "nans", "infs", "10 parsecs", "1e3s", "ten"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        assert_eq!(span("0ms"), Err(InvalidQuantity::Zero("0ms".to_owned())));
    }

    #[test]
    fn rates_are_positive_and_possible() {
        for (text, expected) in [
            ("20k", 20_000.0),
            ("1.5M", 1_500_000.0),
            ("0.5", 0.5),
            ("100/s", 100.0),
        ] {
            assert_eq!(rate(text), Ok(expected));
        }
        for bad in ["NaN", "-5", "0", "1e9", "inf", "2G", "", "k", "fast", "é"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn cores_are_all_or_a_number_or_a_list() {
        let allowed = [0, 1, 4, 5];
        let cores = |text: &str| text.parse::<Cores>().map(|cores| cores.resolve(&allowed));
        assert_eq!(cores("all"), Ok(Ok(vec![0, 1, 4, 5])));
        assert_eq!(cores("2"), Ok(Ok(vec![0, 1])));
        assert_eq!(cores("4-5"), Ok(Ok(vec![4, 5])));
        assert_eq!(cores("5,0"), Ok(Ok(vec![0, 5])));
        assert_eq!(cores("4,"), Ok(Ok(vec![4])));
        let missing = cores("2,3").expect("parses").expect_err("not allowed");
        assert_eq!(
            missing.to_string(),
            "core 2 is asked for, but this process may use [0, 1, 4, 5]"
        );
        assert!(cores("9").expect("parses").is_err());
        for bad in ["", ",", "0", "a", "1,1", "5-2", "1-", "0-99999"] {
            assert!(bad.parse::<Cores>().is_err(), "{bad}");
        }
    }

    #[test]
    fn this_process_may_use_a_core() {
        assert!(!Cores::allowed().is_empty());
    }
}
