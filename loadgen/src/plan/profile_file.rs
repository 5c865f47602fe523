//! A rate over time from a file.
//!
//! CSV: a line for each point, `time,rate`, with or without a header; times are seconds or have a
//! unit, rates are requests a second. `#` begins a comment. YAML (`.yaml`, `.yml`):
//!
//! ```yaml
//! interpolation: step        # linear without it
//! points:
//!   - { at: 0s, rate: 100 }
//!   - { at: 30s, rate: 20k }
//! ```
//!
//! Linear: the rate goes evenly from each point to the next; two points of one time are a jump.
//! Step: each rate holds until the next point. Before the first point its rate holds, and after
//! the last one its.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use super::curve::{Curve, CurveError, SEGMENTS};
use super::units::{InvalidQuantity, duration, rate_or_zero};

/// Bytes of a file; more than [`SEGMENTS`] points need.
const BYTES: u64 = 64 << 20;

/// What the rate is between two points.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Interpolation {
    /// On the straight line between them.
    #[default]
    Linear,
    /// That of the first.
    Step,
}

/// A profile as a file describes it.
#[derive(Debug, Clone, PartialEq)]
pub struct ProfileFile {
    /// The rate over time.
    pub curve: Curve,
    /// The last point's time: how long a run is if nothing else is asked for.
    pub duration: Duration,
}

/// A file that is no profile.
#[derive(Debug, thiserror::Error)]
pub enum ProfileFileError {
    /// It cannot be read.
    #[error("cannot read it")]
    Read(#[from] std::io::Error),
    /// It is too large.
    #[error("it has more than {SEGMENTS} points, or {BYTES} bytes")]
    TooLarge,
    /// A line is none of a profile.
    #[error("line {line}: `{text}` is not TIME,RATE such as 30s,1000")]
    Line {
        /// From 1.
        line: usize,
        /// As it was written.
        text: String,
    },
    /// A time or rate in a line.
    #[error("line {line}: {wrong}")]
    Quantity {
        /// From 1.
        line: usize,
        /// What is wrong with it.
        wrong: InvalidQuantity,
    },
    /// A time or rate of a YAML point.
    #[error("point {point}: {wrong}")]
    Point {
        /// From 1.
        point: usize,
        /// What is wrong with it.
        wrong: InvalidQuantity,
    },
    /// A time before the one before it.
    #[error("{place} {number}: its time is before that of the point before it")]
    Order {
        /// `line` or `point`.
        place: &'static str,
        /// From 1.
        number: usize,
    },
    /// Not the YAML of a profile.
    #[error("{0}")]
    Yaml(String),
    /// Nothing in it.
    #[error("it has no points")]
    NoPoints,
    /// No load in it.
    #[error(transparent)]
    Curve(#[from] CurveError),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(default)]
    interpolation: Option<Interpolation>,
    points: Vec<RawPoint>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPoint {
    at: Scalar,
    rate: Scalar,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Scalar {
    Number(f64),
    Text(String),
}

impl Scalar {
    fn text(&self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text.clone(),
        }
    }
}

/// When, the rate from then, and the line or point that says so.
type Point = (Duration, f64, usize);

impl ProfileFile {
    /// Returns the profile in the file at `path`; `asked` is stronger than what the file says.
    ///
    /// # Errors
    /// [`ProfileFileError`] with the line that does not parse.
    pub fn read(path: &Path, asked: Option<Interpolation>) -> Result<Self, ProfileFileError> {
        let mut text = String::new();
        let file = std::fs::File::open(path)?;
        file.take(BYTES + 1).read_to_string(&mut text)?;
        if text.len() as u64 > BYTES {
            return Err(ProfileFileError::TooLarge);
        }
        let is_yaml = path
            .extension()
            .is_some_and(|it| it.eq_ignore_ascii_case("yaml") || it.eq_ignore_ascii_case("yml"));
        if is_yaml {
            Self::from_yaml(&text, asked)
        } else {
            Self::from_csv(&text, asked.unwrap_or_default())
        }
    }

    /// Returns the profile that `text` describes, as CSV.
    ///
    /// # Errors
    /// [`ProfileFileError`].
    pub fn from_csv(text: &str, interpolation: Interpolation) -> Result<Self, ProfileFileError> {
        let mut points: Vec<Point> = Vec::new();
        for (line, number) in text.lines().zip(1..) {
            let bare = line.split('#').next().unwrap_or_default().trim();
            if bare.is_empty() || (points.is_empty() && is_header(bare)) {
                continue;
            }
            let mut fields = bare.split(',').map(str::trim);
            let (Some(at), Some(rate), None) = (fields.next(), fields.next(), fields.next()) else {
                return Err(ProfileFileError::Line {
                    line: number,
                    text: line.to_owned(),
                });
            };
            let bad = |wrong| ProfileFileError::Quantity {
                line: number,
                wrong,
            };
            let at = seconds(at).map_err(bad)?;
            points.push((at, rate_or_zero(rate).map_err(bad)?, number));
        }
        Self::from_points(&points, interpolation, "line")
    }

    /// Returns the profile that `text` describes, as YAML; `asked` is stronger than what it says.
    ///
    /// # Errors
    /// [`ProfileFileError`].
    pub fn from_yaml(text: &str, asked: Option<Interpolation>) -> Result<Self, ProfileFileError> {
        let raw: Raw = serde_saphyr::from_str(text)
            .map_err(|error| ProfileFileError::Yaml(error.to_string()))?;
        let mut points: Vec<Point> = Vec::new();
        for (point, number) in raw.points.iter().zip(1..) {
            let bad = |wrong| ProfileFileError::Point {
                point: number,
                wrong,
            };
            let at = seconds(&point.at.text()).map_err(bad)?;
            let rate = rate_or_zero(&point.rate.text()).map_err(bad)?;
            points.push((at, rate, number));
        }
        let interpolation = asked.or(raw.interpolation).unwrap_or_default();
        Self::from_points(&points, interpolation, "point")
    }

    fn from_points(
        points: &[Point],
        interpolation: Interpolation,
        place: &'static str,
    ) -> Result<Self, ProfileFileError> {
        let (Some(first), Some(last)) = (points.first(), points.last()) else {
            return Err(ProfileFileError::NoPoints);
        };
        if points.len() >= SEGMENTS {
            return Err(ProfileFileError::TooLarge);
        }
        if let Some(back) = points.windows(2).find(|two| two[1].0 < two[0].0) {
            return Err(ProfileFileError::Order {
                place,
                number: back[1].2,
            });
        }
        let until_first = (first.0.as_secs_f64(), first.1, first.1);
        let between = points.windows(2).map(|two| {
            let length = two[1].0.saturating_sub(two[0].0).as_secs_f64();
            match interpolation {
                Interpolation::Linear => (length, two[0].1, two[1].1),
                Interpolation::Step => (length, two[0].1, two[0].1),
            }
        });
        let after_last = (0.0, last.1, last.1);
        let pieces = std::iter::once(until_first)
            .chain(between)
            .chain(std::iter::once(after_last));
        Ok(Self {
            curve: Curve::new(pieces)?,
            duration: last.0,
        })
    }
}

fn is_header(line: &str) -> bool {
    line.starts_with(|c: char| c.is_ascii_alphabetic())
}

/// Seconds without a unit, or a duration with one.
fn seconds(text: &str) -> Result<Duration, InvalidQuantity> {
    match duration(text) {
        Err(InvalidQuantity::NoUnit(_)) => duration(&format!("{text}s")),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn csv(text: &str) -> ProfileFile {
        ProfileFile::from_csv(text, Interpolation::Linear).expect("parses")
    }

    fn error(text: &str) -> String {
        let failed = ProfileFile::from_csv(text, Interpolation::Linear);
        failed.expect_err(text).to_string()
    }

    fn expected(file: &ProfileFile, second: u64) -> f64 {
        file.curve.expected(Duration::from_secs(second))
    }

    #[test]
    fn csv_and_yaml_describe_the_same_profile() {
        let lines = "time,rate\n# up\n0,100\n\n10s,300 # top\n10,0\n20s,0\n";
        let yaml = "points:\n  - {at: 0, rate: 100}\n  - {at: 10s, rate: 300}\n  \
                    - {at: 10s, rate: 0}\n  - {at: 20, rate: 0.0}\n";
        let file = csv(lines);
        assert_eq!(file, ProfileFile::from_yaml(yaml, None).expect("parses"));
        assert_eq!(file.duration, Duration::from_secs(20));
        assert!((expected(&file, 10) - 2000.0).abs() < 1e-6);
        assert!((expected(&file, 30) - 2000.0).abs() < 1e-6);
    }

    #[test]
    fn step_holds_each_rate() {
        let yaml = "interpolation: step\npoints: [{at: 1s, rate: 10}, {at: 2s, rate: 1k}]";
        let file = ProfileFile::from_yaml(yaml, None).expect("parses");
        assert!((expected(&file, 2) - 20.0).abs() < 1e-6);
        assert!((expected(&file, 3) - 1020.0).abs() < 1e-6);
        let linear = ProfileFile::from_yaml(yaml, Some(Interpolation::Linear)).expect("parses");
        assert!((expected(&linear, 2) - 515.0).abs() < 1e-6);
    }

    #[test]
    fn errors_name_the_line_and_what_is_wrong_with_it() {
        assert_eq!(
            error("0,1\n5\n"),
            "line 2: `5` is not TIME,RATE such as 30s,1000"
        );
        assert!(error("0,1\n5,2,3\n").starts_with("line 2"));
        assert_eq!(
            error("0,1\n5,2\n4,1\n"),
            "line 3: its time is before that of the point before it"
        );
        assert!(error("0,1\n5,fast\n").starts_with("line 2: `fast` is no rate"));
        assert!(error("0,1\n5 parsecs,2\n").starts_with("line 2: `5 parsecs` is no duration"));
        assert_eq!(error("# nothing\n"), "it has no points");
        assert_eq!(error("0,0\n9,0\n"), "the rate is 0 all the time");
        let yaml = |text| {
            ProfileFile::from_yaml(text, None)
                .expect_err(text)
                .to_string()
        };
        assert!(yaml("points: [{at: 0, rat: 1}]").contains("rat"));
        assert!(yaml("points: [{at: 0, rate: -1}]").starts_with("point 1"));
        assert!(yaml("points: 5").len() > 5);
    }
}
