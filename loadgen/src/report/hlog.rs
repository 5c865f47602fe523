//! Histograms in the interval log format of HdrHistogram, for its many readers.
//!
//! Lines without a tag are the latencies of the points of the series, one after the other, in cells
//! 0.8 to 1.6 % wide: what plots over time are made of. Lines with a tag (`Tag=latency`,
//! `Tag=service`, …) are the whole run, exactly.

use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

use super::Report;
use crate::recorder::{Cells, histogram};

/// Values are nanoseconds; the maximum beside each histogram is milliseconds, as is usual.
const MAX_DIVISOR: f64 = 1e6;

/// Writes the histograms of `report`.
///
/// # Errors
/// Whatever `out` fails with.
pub fn write(out: &mut impl Write, report: &Report) -> io::Result<()> {
    let started = report.started.parse::<jiff::Timestamp>();
    let started = started.map_or(SystemTime::UNIX_EPOCH, SystemTime::from);
    let seconds = |number: f64| Duration::try_from_secs_f64(number).unwrap_or_default();
    let mut serializer = V2DeflateSerializer::new();
    let mut builder = IntervalLogWriterBuilder::new();
    builder
        .add_comment("[Logged by ballast-loadgen; nanoseconds, Interval_Max in milliseconds]")
        .with_start_time(started)
        .with_base_time(started)
        .with_max_value_divisor(MAX_DIVISOR);
    let mut log = builder.begin_log_with(out, &mut serializer)?;
    let failed = |error| io::Error::other(format!("{error:?}"));
    for point in &report.series.points {
        let (start, length) = (seconds(point.start), seconds(point.seconds));
        log.write_histogram(&from_cells(&point.cells), start, length, None)
            .map_err(failed)?;
    }
    let duration = seconds(report.duration_seconds);
    for name in report.histograms.keys() {
        if let Some(histogram) = report.histogram(name) {
            log.write_histogram(&histogram, Duration::ZERO, duration, Tag::new(name))
                .map_err(failed)?;
        }
    }
    Ok(())
}

fn from_cells(cells: &Cells) -> Histogram<u32> {
    let mut histogram = histogram();
    for (start, end, count) in cells.spans() {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        histogram.saturating_record_n(start.midpoint(end), count);
    }
    histogram
}
