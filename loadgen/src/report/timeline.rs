//! What happened when, as reports tell it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::errors_by_name;
use crate::record::ErrorClass;
use crate::recorder::{Cells, Point, Series};

/// Rows of the heat map for each doubling of latency.
pub const ROWS_PER_DOUBLING: u32 = 4;

/// Latencies of a span of time, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Spread {
    /// The mean, exactly.
    pub mean: f64,
    /// The median, to 1 % like the other percentiles.
    pub p50: f64,
    /// 90 %.
    pub p90: f64,
    /// 99 %.
    pub p99: f64,
    /// 99.9 %.
    pub p999: f64,
    /// The largest, exactly.
    pub max: f64,
}

impl Spread {
    /// Returns the latencies of `point`.
    pub fn of(point: &Point) -> Self {
        let max = point.latency_max_ns as f64 / 1e3;
        let at = |quantile| (point.cells.quantile(quantile) / 1e3).min(max);
        Self {
            mean: point.latency_sum_ns as f64 / 1e3 / point.cells.count().max(1) as f64,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max,
        }
    }
}

/// One span of time. Requests count where they ended.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct TimelinePoint {
    /// Seconds since the start of the run.
    pub start: f64,
    /// How long it is: the last one may be shorter than the others.
    pub seconds: f64,
    /// Requests that became due.
    pub released: u64,
    /// Requests done, failed ones included.
    pub requests: u64,
    /// Requests done, a second.
    pub rate: f64,
    /// Failed ones, by class.
    pub errors: BTreeMap<String, u64>,
    /// Bytes of answers.
    pub received_bytes: u64,
    /// Bytes of requests.
    pub sent_bytes: u64,
    /// From when requests were due to their ends.
    pub latency_us: Spread,
    /// The same, to 1 %, for those who merge points.
    pub cells: Cells,
    /// Requests due and not ended at the end of it.
    pub in_flight: u64,
    /// The generator's lag.
    pub lag_mean_us: f64,
    /// The longest.
    pub lag_max_us: f64,
    /// The share of its time that a lane's thread ran.
    pub cpu_share: f64,
    /// The share of its time that it could have run and no core was free.
    pub wait_share: f64,
}

/// How many requests took how long, when.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Heat {
    /// Lower end of the first row, in microseconds. Each row ends 2^¼ higher than it starts.
    pub lowest_us: f64,
    /// One for each point of the series, from the first row on.
    pub columns: Vec<Vec<u64>>,
}

/// A run as points of equal length.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Timeline {
    /// Seconds that a point covers.
    pub span_seconds: u64,
    /// From the start of the run on.
    pub points: Vec<TimelinePoint>,
    /// Their latencies.
    pub heat: Heat,
}

impl Timeline {
    /// Returns what `series` tells of a run that took `elapsed` seconds.
    pub fn of(series: &Series, elapsed: f64) -> Self {
        let span = series.span_seconds();
        let points = series.points().iter().enumerate().map(|(index, point)| {
            let start = (index as u64 * span) as f64;
            timeline_point(point, start, (elapsed - start).clamp(1e-3, span as f64))
        });
        let mut points: Vec<_> = points.collect();
        // What was closed a moment after the end has nothing to tell.
        while points.len() > 1
            && points
                .last()
                .is_some_and(|last| last.start >= elapsed && last.requests + last.released == 0)
        {
            points.pop();
        }
        let cells = series.points()[..points.len()].iter().map(|p| &p.cells);
        Self {
            span_seconds: span,
            heat: Heat::of(cells),
            points,
        }
    }

    /// Returns it as CSV, one line for each point, with a line of names.
    pub fn csv(&self) -> String {
        let mut text = String::from(
            "start_s,seconds,released,requests,rate,failed,received_bytes,sent_bytes,mean_us,\
             p50_us,p90_us,p99_us,p999_us,max_us,in_flight,lag_mean_us,lag_max_us,cpu_share,\
             wait_share",
        );
        for class in ErrorClass::ALL {
            let _ = write!(text, ",{}", class.name());
        }
        text.push('\n');
        for point in &self.points {
            let failed: u64 = point.errors.values().sum();
            let spread = &point.latency_us;
            let _ = write!(
                text,
                "{},{:.3},{},{},{:.1},{failed},{},{},{:.1},{:.1},{:.1},{:.1},{:.1},{:.1},{},\
                 {:.1},{:.1},{:.3},{:.3}",
                point.start,
                point.seconds,
                point.released,
                point.requests,
                point.rate,
                point.received_bytes,
                point.sent_bytes,
                spread.mean,
                spread.p50,
                spread.p90,
                spread.p99,
                spread.p999,
                spread.max,
                point.in_flight,
                point.lag_mean_us,
                point.lag_max_us,
                point.cpu_share,
                point.wait_share,
            );
            for class in ErrorClass::ALL {
                let count = point.errors.get(class.name()).copied().unwrap_or(0);
                let _ = write!(text, ",{count}");
            }
            text.push('\n');
        }
        text
    }
}

fn timeline_point(point: &Point, start: f64, seconds: f64) -> TimelinePoint {
    TimelinePoint {
        start,
        seconds,
        released: point.released,
        requests: point.done,
        rate: point.done as f64 / seconds,
        errors: errors_by_name(&point.errors),
        received_bytes: point.received_bytes,
        sent_bytes: point.sent_bytes,
        latency_us: Spread::of(point),
        cells: point.cells.clone(),
        in_flight: point.in_flight,
        lag_mean_us: point.mean_lag_ns() / 1e3,
        lag_max_us: point.lag_max_ns as f64 / 1e3,
        cpu_share: point.cpu_share(),
        wait_share: point.wait_ns as f64 / point.wall_ns.max(1) as f64,
    }
}

/// Returns the row that latencies from `start` to `end` fall in, counted from 1 ns.
fn row_of(start: u64, end: u64) -> usize {
    let middle = f64::midpoint(start as f64, end as f64);
    let row = middle.max(1.0).log2() * f64::from(ROWS_PER_DOUBLING);
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "64 doublings have 256 rows"
    )]
    let row = row as usize;
    row
}

impl Heat {
    fn of<'a>(columns: impl Iterator<Item = &'a Cells>) -> Self {
        let rows: Vec<BTreeMap<usize, u64>> = columns
            .map(|cells| {
                let mut rows = BTreeMap::new();
                for (start, end, count) in cells.spans() {
                    *rows.entry(row_of(start, end)).or_default() += count;
                }
                rows
            })
            .collect();
        let lowest = rows.iter().filter_map(|rows| rows.keys().next()).min();
        let lowest = lowest.copied().unwrap_or(0);
        let columns = rows.iter().map(|rows| {
            let length = rows.keys().next_back().map_or(0, |last| last - lowest + 1);
            let mut column = vec![0; length];
            for (row, count) in rows {
                column[row - lowest] = *count;
            }
            column
        });
        Self {
            lowest_us: (lowest as f64 / f64::from(ROWS_PER_DOUBLING)).exp2() / 1e3,
            columns: columns.collect(),
        }
    }
}
