//! What a run must keep to: `p99<20ms`, `service.p99.9<1s`, `errors<0.1%`, `rate>1000`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::record::ErrorClass;
use crate::report::Report;

/// What can stand before the dot: the names of [`Report::histogram`].
const SCOPES: [&str; 7] = [
    "latency",
    "service",
    "lag",
    "connect",
    "tls",
    "first_byte",
    "last_byte",
];

/// One objective.
#[derive(Debug, Clone, PartialEq)]
pub struct Slo {
    text: String,
    figure: Figure,
    relation: Relation,
    limit: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Figure {
    /// A quantile of a histogram, in nanoseconds.
    Quantile(&'static str, f64),
    /// The largest of a histogram, in nanoseconds.
    Max(&'static str),
    /// The mean of a histogram, in nanoseconds.
    Mean(&'static str),
    /// Failed requests, of a class or of all.
    Errors(Option<ErrorClass>),
    /// Failed requests as a share of all.
    ErrorShare(Option<ErrorClass>),
    /// Requests done a second.
    Rate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    Below,
    AtMost,
    Above,
    AtLeast,
}

/// An objective that does not parse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSlo {
    /// There is no comparison in it.
    #[error(
        "`{0}` compares nothing: FIGURE<LIMIT, such as `p99<20ms`, `errors<0.1%` or `rate>1000`"
    )]
    NoRelation(String),
    /// What is compared is not known.
    #[error("`{figure}` is no figure{}", near(*nearest))]
    Figure {
        /// What was written.
        figure: String,
        /// The figure that it is most like.
        nearest: Option<&'static str>,
    },
    /// A percentile that is none.
    #[error("`{0}` is no percentile: p50, p99, p99.9, up to p100")]
    Percentile(String),
    /// The limit has another unit than the figure.
    #[error("`{limit}` is no limit for {figure}: {expected}")]
    Limit {
        /// What was written.
        limit: String,
        /// What it is to limit.
        figure: String,
        /// What it could be.
        expected: &'static str,
    },
}

fn near(nearest: Option<&'static str>) -> String {
    let known = "p50, p99.9, max, mean (also service.p99, first_byte.p99, …), errors, \
                 errors.timeout or rate";
    match nearest {
        Some(nearest) => format!("; is `{nearest}` meant? Known are {known}"),
        None => format!("; known are {known}"),
    }
}

/// An objective and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Assertion {
    /// As it was written.
    pub slo: String,
    /// What was measured: nanoseconds, requests, a share, or requests a second.
    pub measured: Option<f64>,
    /// What was allowed, in the same unit.
    pub limit: f64,
    /// Whether it was kept to. One about something that was not measured is missed.
    pub met: bool,
    /// How it was missed, in words; empty if it was met.
    pub miss: String,
}

impl Slo {
    /// Returns what came of it in `report`.
    pub fn assert(&self, report: &Report) -> Assertion {
        let measured = self.measured(report);
        let met = measured.is_some_and(|measured| match self.relation {
            Relation::Below => measured < self.limit,
            Relation::AtMost => measured <= self.limit,
            Relation::Above => measured > self.limit,
            Relation::AtLeast => measured >= self.limit,
        });
        let miss = match measured {
            _ if met => String::new(),
            Some(measured) => format!("{}: it is {}", self.text, self.show(measured)),
            None => format!("{}: nothing of it was measured", self.text),
        };
        Assertion {
            slo: self.text.clone(),
            measured,
            limit: self.limit,
            met,
            miss,
        }
    }

    /// Returns how `report` misses it, if it does.
    pub fn miss(&self, report: &Report) -> Option<String> {
        let assertion = self.assert(report);
        (!assertion.met).then_some(assertion.miss)
    }

    fn measured(&self, report: &Report) -> Option<f64> {
        let failed = |class: Option<ErrorClass>| match class {
            Some(class) => report.errors.get(class.name()).copied().unwrap_or(0),
            None => report.failed(),
        } as f64;
        Some(match self.figure {
            Figure::Quantile(name, quantile) => {
                report.histogram(name)?.value_at_quantile(quantile) as f64
            }
            Figure::Max(name) => report.histogram(name)?.max() as f64,
            Figure::Mean(name) => report.histogram(name)?.mean(),
            Figure::Errors(class) => failed(class),
            Figure::ErrorShare(_) if report.requests == 0 => return None,
            Figure::ErrorShare(class) => failed(class) / report.requests as f64,
            Figure::Rate => report.achieved_rate,
        })
    }

    fn show(&self, measured: f64) -> String {
        match self.figure {
            Figure::Quantile(..) | Figure::Max(_) | Figure::Mean(_) => {
                format!("{:.3} ms", measured / 1e6)
            }
            Figure::Errors(_) => format!("{measured:.0}"),
            Figure::ErrorShare(_) => format!("{:.4} %", measured * 100.0),
            Figure::Rate => format!("{measured:.1}/s"),
        }
    }
}

impl fmt::Display for Slo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Slo {
    type Err = InvalidSlo;

    fn from_str(text: &str) -> Result<Self, InvalidSlo> {
        let at = text
            .find(['<', '>', '='])
            .ok_or_else(|| InvalidSlo::NoRelation(text.to_owned()))?;
        let (name, rest) = (text[..at].trim(), &text[at..]);
        let (relation, limit) = match rest.strip_prefix("<=") {
            Some(limit) => (Relation::AtMost, limit),
            None => match rest.strip_prefix(">=") {
                Some(limit) => (Relation::AtLeast, limit),
                None => match rest.split_at(1) {
                    ("<", limit) => (Relation::Below, limit),
                    (">", limit) => (Relation::Above, limit),
                    // `p99=5ms` and `errors=0` say what is allowed at most; a rate is a least.
                    (_, limit) if name == "rate" => (Relation::AtLeast, limit),
                    (_, limit) => (Relation::AtMost, limit),
                },
            },
        };
        let limit = limit.trim();
        let (figure, limit) = figure(name)?.with_limit(name, limit)?;
        Ok(Self {
            text: text.to_owned(),
            figure,
            relation,
            limit,
        })
    }
}

impl Figure {
    /// Returns the figure and its limit, in the figure's unit.
    fn with_limit(self, name: &str, limit: &str) -> Result<(Self, f64), InvalidSlo> {
        let invalid = |expected| InvalidSlo::Limit {
            limit: limit.to_owned(),
            figure: name.to_owned(),
            expected,
        };
        let number = |text: &str| {
            let number: f64 = text.trim().parse().ok()?;
            (number.is_finite() && number >= 0.0).then_some(number)
        };
        match self {
            Self::Errors(class) => match limit.strip_suffix('%') {
                Some(percent) => number(percent)
                    .filter(|percent| *percent <= 100.0)
                    .map(|percent| (Self::ErrorShare(class), percent / 100.0)),
                None => limit.parse::<u64>().ok().map(|count| (self, count as f64)),
            }
            .ok_or_else(|| invalid("a number of requests, such as 10, or a share, such as 0.1%")),
            Self::Rate => number(limit)
                .map(|rate| (self, rate))
                .ok_or_else(|| invalid("requests a second, such as 1000")),
            _ => duration(limit)
                .map(|span| (self, span.as_secs_f64() * 1e9))
                .ok_or_else(|| invalid("a duration, such as 500us, 20ms or 1s")),
        }
    }
}

fn figure(name: &str) -> Result<Figure, InvalidSlo> {
    if name == "rate" {
        return Ok(Figure::Rate);
    }
    let unknown = |nearest| InvalidSlo::Figure {
        figure: name.to_owned(),
        nearest,
    };
    let (scope, figure) = match name.split_once('.') {
        // The dot of `p99.9` separates nothing.
        Some((before, after)) if !after.starts_with(|c: char| c.is_ascii_digit()) => {
            (before, after)
        }
        _ if name == "errors" => return Ok(Figure::Errors(None)),
        _ => ("latency", name),
    };
    if scope == "errors" {
        let class = ErrorClass::ALL.into_iter().find(|c| c.name() == figure);
        let names = ErrorClass::ALL.map(ErrorClass::name);
        return class
            .map(|class| Figure::Errors(Some(class)))
            .ok_or_else(|| unknown(nearest(figure, &names)));
    }
    let histogram = SCOPES.iter().find(|known| **known == scope);
    let histogram = histogram.ok_or_else(|| unknown(nearest(scope, &SCOPES)))?;
    match figure {
        "max" => Ok(Figure::Max(histogram)),
        "mean" => Ok(Figure::Mean(histogram)),
        _ => match figure.strip_prefix('p') {
            Some(digits) if digits.starts_with(|c: char| c.is_ascii_digit()) => {
                let quantile = quantile(digits);
                let quantile = quantile.ok_or_else(|| InvalidSlo::Percentile(figure.to_owned()));
                Ok(Figure::Quantile(histogram, quantile?))
            }
            _ => Err(unknown(nearest(
                figure,
                &["p50", "p90", "p99", "max", "mean", "errors", "rate"],
            ))),
        },
    }
}

fn nearest(word: &str, known: &[&'static str]) -> Option<&'static str> {
    let scored = known
        .iter()
        .map(|known| (strsim::jaro_winkler(word, known), *known));
    scored
        .filter(|(score, _)| *score > 0.7)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, known)| known)
}

/// Returns the quantile in `digits`: `99`, `99.9`, and `999` for 99.9.
fn quantile(digits: &str) -> Option<f64> {
    let percent: f64 = match digits.strip_prefix("99") {
        Some(more) if !more.is_empty() && !more.starts_with('.') => {
            format!("99.{more}").parse().ok()?
        }
        _ => digits.parse().ok()?,
    };
    // 99.9 ÷ 100 is not the number nearest to 0.999.
    (0.0..=100.0)
        .contains(&percent)
        .then_some((percent * 1e6).round() / 1e8)
}

/// Returns the duration in `text`: `10s`, `500ms`, `100us`, `2m`, `1h`, `250ns`.
pub fn duration(text: &str) -> Option<Duration> {
    let unit = text.find(|c: char| c.is_alphabetic())?;
    let number: f64 = text[..unit].trim().parse().ok()?;
    let seconds = match &text[unit..] {
        "ns" => 1e-9,
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number * seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slo(text: &str) -> Slo {
        text.parse()
            .unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn objectives_have_a_figure_a_relation_and_a_limit() {
        for (text, figure, relation, limit) in [
            (
                "p99<20ms",
                Figure::Quantile("latency", 0.99),
                Relation::Below,
                20e6,
            ),
            (
                "p99=5ms",
                Figure::Quantile("latency", 0.99),
                Relation::AtMost,
                5e6,
            ),
            (
                "p99.9<1s",
                Figure::Quantile("latency", 0.999),
                Relation::Below,
                1e9,
            ),
            (
                "p999 <= 1s",
                Figure::Quantile("latency", 0.999),
                Relation::AtMost,
                1e9,
            ),
            (
                "service.p99.9<1s",
                Figure::Quantile("service", 0.999),
                Relation::Below,
                1e9,
            ),
            (
                "first_byte.max<9us",
                Figure::Max("first_byte"),
                Relation::Below,
                9e3,
            ),
            ("mean<1ms", Figure::Mean("latency"), Relation::Below, 1e6),
            (
                "errors<0.1%",
                Figure::ErrorShare(None),
                Relation::Below,
                0.001,
            ),
            ("errors=0", Figure::Errors(None), Relation::AtMost, 0.0),
            (
                "errors.timeout<10",
                Figure::Errors(Some(ErrorClass::Timeout)),
                Relation::Below,
                10.0,
            ),
            ("rate>1000", Figure::Rate, Relation::Above, 1000.0),
            ("rate=1000", Figure::Rate, Relation::AtLeast, 1000.0),
        ] {
            let parsed = slo(text);
            assert_eq!(
                (parsed.figure, parsed.relation),
                (figure, relation),
                "{text}"
            );
            assert!(
                (parsed.limit - limit).abs() < limit * 1e-9 + 1e-12,
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_objective_is_refused_and_says_why() {
        for (text, why) in [
            ("", "compares nothing"),
            ("p99", "compares nothing"),
            ("p99<5", "`5` is no limit for p99: a duration"),
            ("p99<", "`` is no limit"),
            ("p99=-5ms", "no limit"),
            ("p99<1e999s", "no limit"),
            ("p101<5ms", "`p101`"),
            ("p<5ms", "`p` is no figure"),
            (
                "errors=1ms",
                "`1ms` is no limit for errors: a number of requests",
            ),
            ("errors<101%", "no limit"),
            ("errors<-1", "no limit"),
            ("errors<nan%", "no limit"),
            ("errors.timeot<1", "is `timeout` meant?"),
            ("servce.p99<1s", "is `service` meant?"),
            ("rte>5", "is `rate` meant?"),
            ("rate>fast", "requests a second"),
            ("p99é<5ms", "p99é"),
        ] {
            let error = text.parse::<Slo>().expect_err(text);
            assert!(error.to_string().contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(duration("1.5ms"), Some(Duration::from_micros(1500)));
        assert_eq!(duration("2h"), Some(Duration::from_hours(2)));
        for bad in ["5", "ms", "5 parsec", "-1s", "infs", "é"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }
}
