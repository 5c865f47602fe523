//! What a run must keep to.

use std::str::FromStr;
use std::time::Duration;

use crate::report::Report;

/// One objective, such as `p99=5ms` or `errors=0`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Slo {
    figure: Figure,
    limit: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Figure {
    P50,
    P90,
    P99,
    P999,
    Max,
    Errors,
}

/// An objective that does not parse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not p50|p90|p99|p999|max=DURATION or errors=NUMBER, such as `p99=5ms`")]
pub struct InvalidSlo(String);

impl Slo {
    /// Returns how `report` misses this, if it does.
    pub fn miss(&self, report: &Report) -> Option<String> {
        let (name, figure) = match self.figure {
            Figure::P50 => ("p50 in µs", report.latency_us.p50),
            Figure::P90 => ("p90 in µs", report.latency_us.p90),
            Figure::P99 => ("p99 in µs", report.latency_us.p99),
            Figure::P999 => ("p99.9 in µs", report.latency_us.p999),
            Figure::Max => ("max in µs", report.latency_us.max),
            Figure::Errors => ("failed requests", report.failed()),
        };
        (figure as f64 > self.limit).then(|| format!("{name}: {figure}, allowed {}", self.limit))
    }
}

impl FromStr for Slo {
    type Err = InvalidSlo;

    fn from_str(text: &str) -> Result<Self, InvalidSlo> {
        let invalid = || InvalidSlo(text.to_owned());
        let (name, limit) = text.split_once('=').ok_or_else(invalid)?;
        let figure = match name {
            "p50" => Figure::P50,
            "p90" => Figure::P90,
            "p99" => Figure::P99,
            "p999" => Figure::P999,
            "max" => Figure::Max,
            "errors" => Figure::Errors,
            _ => return Err(invalid()),
        };
        let limit = if figure == Figure::Errors {
            limit.parse::<u32>().map_err(|_| invalid())?.into()
        } else {
            duration(limit).ok_or_else(invalid)?.as_secs_f64() * 1e6
        };
        Ok(Self { figure, limit })
    }
}

/// Returns the duration in `text`: `10s`, `500ms`, `100us`, `2m`.
pub fn duration(text: &str) -> Option<Duration> {
    let unit = text.find(|c: char| c.is_ascii_alphabetic())?;
    let number: f64 = text[..unit].parse().ok()?;
    let seconds = match &text[unit..] {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number * seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objectives_have_a_figure_and_a_limit() {
        let slo: Slo = "p99=5ms".parse().expect("parses");
        assert_eq!(
            slo,
            Slo {
                figure: Figure::P99,
                limit: 5_000.0
            }
        );
        assert!("errors=0".parse::<Slo>().is_ok());
        for bad in ["p99", "p99=5", "p98=5ms", "errors=1ms", "p99=-5ms", ""] {
            assert!(bad.parse::<Slo>().is_err(), "{bad}");
        }
    }
}
