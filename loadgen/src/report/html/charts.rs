//! The plots of a report.

use std::fmt::Write as _;

use super::super::timeline::ROWS_PER_DOUBLING;
use super::super::{Report, TimelinePoint};
use super::plot::{Axis, Plot};
use crate::record::ErrorClass;
use crate::report::table::count;

/// Most columns of the heat map: a page is about 700 pixels wide.
const MAX_COLUMNS: usize = 180;
/// Shades of the heat map.
const SHADES: usize = 10;
/// Points of the percentile curve: a fortieth of a decade is less than a pixel.
const CURVE_POINTS: u32 = 240;

/// Returns a duration of milliseconds in the unit that suits it.
pub(super) fn span(ms: f64) -> String {
    let (value, unit) = match ms {
        ms if ms < 1.0 => (ms * 1e3, "µs"),
        ms if ms < 1e3 => (ms, "ms"),
        ms => (ms / 1e3, "s"),
    };
    if value >= 100.0 || (value - value.round()).abs() < 1e-6 {
        format!("{value:.0} {unit}")
    } else if value >= 10.0 {
        format!("{value:.1} {unit}")
    } else {
        format!("{value:.2} {unit}")
    }
}

fn seconds(value: f64) -> String {
    match value {
        value if value >= 600.0 => format!("{:.0} min", value / 60.0),
        value => format!("{value:.0} s"),
    }
}

/// Returns bytes in powers of ten, which the axis has its marks at.
fn decimal_bytes(value: f64) -> String {
    match value {
        value if value < 1e3 => format!("{value} B"),
        value if value < 1e6 => format!("{} kB", value / 1e3),
        value if value < 1e9 => format!("{} MB", value / 1e6),
        value => format!("{} GB", value / 1e9),
    }
}

fn percent(value: f64) -> String {
    format!("{:.0} %", value * 100.0)
}

/// Returns the points that are long enough to have a rate.
fn whole(report: &Report) -> Vec<&TimelinePoint> {
    let span = report.series.span_seconds as f64;
    let points = report.series.points.iter();
    points.filter(|point| point.seconds >= span * 0.5).collect()
}

fn time_axis(report: &Report) -> Axis {
    let end = report.series.points.last();
    Axis::exact(0.0, end.map_or(1.0, |last| last.start + last.seconds))
}

fn middle(point: &TimelinePoint) -> f64 {
    point.start + point.seconds / 2.0
}

fn figure(title: &str, legend: &[(&str, &str)], plot: String) -> String {
    let mut html = format!("<figure><figcaption><b>{title}</b>");
    for (class, name) in legend {
        let _ = write!(html, " <span class=\"key {class}\">{name}</span>");
    }
    html.push_str("</figcaption>\n");
    html.push_str(&plot);
    html.push_str("</figure>\n");
    html
}

/// Returns latency and service time by percentile, the nines spread out.
pub(super) fn percentiles(report: &Report) -> String {
    let (Some(latency), service) = (report.histogram("latency"), report.histogram("service"))
    else {
        return String::new();
    };
    let ms = |ns: u64| ns as f64 / 1e6;
    let nines = (latency.len() as f64).log10().clamp(1.0, 6.0);
    let service_low = service
        .as_ref()
        .map_or(u64::MAX, |it| it.value_at_quantile(0.01));
    let low = ms(latency.value_at_quantile(0.01).min(service_low));
    let mut plot = Plot::new(
        "Latency by percentile",
        (Axis::exact(0.0, nines), |_| String::new()),
        (Axis::log(low, ms(latency.max())), span),
    );
    for (at, name) in [
        (0.0, "0"),
        (0.301, "50 %"),
        (1.0, "90 %"),
        (2.0, "99 %"),
        (3.0, "99.9 %"),
        (4.0, "99.99 %"),
        (5.0, "99.999 %"),
        (6.0, "99.9999 %"),
    ] {
        if at <= nines + 1e-9 {
            plot.x_mark(at, name);
        }
    }
    let steps = (0..=CURVE_POINTS).map(|step| f64::from(step) / f64::from(CURVE_POINTS) * nines);
    let quantile = |at: f64| 1.0 - 10_f64.powf(-at);
    if let Some(service) = service {
        let points = steps
            .clone()
            .map(|at| (at, ms(service.value_at_quantile(quantile(at)))));
        plot.line("c3", points);
    }
    plot.line(
        "c0",
        steps.map(|at| (at, ms(latency.value_at_quantile(quantile(at))))),
    );
    figure(
        "Latency by percentile",
        &[
            ("c0", "latency, from when due"),
            ("c3", "service time, from when sent"),
        ],
        plot.end(),
    )
}

/// Returns percentiles of latency over time.
pub(super) fn latency(report: &Report) -> String {
    let points = whole(report);
    let answered = points.iter().filter(|point| point.latency_us.max > 0.0);
    let low = answered
        .map(|point| point.latency_us.p50)
        .fold(f64::MAX, f64::min);
    let high = points
        .iter()
        .map(|point| point.latency_us.max)
        .fold(0.0, f64::max);
    if high <= 0.0 {
        return String::new();
    }
    let mut plot = Plot::new(
        "Latency over time",
        (time_axis(report), seconds),
        (Axis::log(low / 1e3, high / 1e3), span),
    );
    let mut line = |class, of: fn(&TimelinePoint) -> f64| {
        let some = points.iter().filter(|point| point.latency_us.max > 0.0);
        plot.line(class, some.map(|point| (middle(point), of(point) / 1e3)));
    };
    line("c4", |point| point.latency_us.max);
    line("c2", |point| point.latency_us.p99);
    line("c1", |point| point.latency_us.p90);
    line("c0", |point| point.latency_us.p50);
    figure(
        "Latency over time",
        &[("c0", "p50"), ("c1", "p90"), ("c2", "p99"), ("c4", "max")],
        plot.end(),
    )
}

/// Returns the heat map: how many requests took how long, when.
pub(super) fn heat(report: &Report) -> String {
    let heat = &report.series.heat;
    let rows = heat.columns.iter().map(Vec::len).max().unwrap_or(0);
    if rows == 0 {
        return String::new();
    }
    let together = heat.columns.len().div_ceil(MAX_COLUMNS);
    let columns = heat.columns.chunks(together).map(|chunk| {
        let mut sum = vec![0; rows];
        for column in chunk {
            for (row, requests) in column.iter().enumerate() {
                sum[row] += requests;
            }
        }
        sum
    });
    let columns: Vec<Vec<u64>> = columns.collect();
    let most = columns.iter().flatten().copied().max().unwrap_or(1).max(1);
    let edge =
        |row: usize| heat.lowest_us / 1e3 * (row as f64 / f64::from(ROWS_PER_DOUBLING)).exp2();
    let mut plot = Plot::new(
        "Latency heat map",
        (time_axis(report), seconds),
        (Axis::log(edge(0), edge(rows)), span),
    );
    let width = together as f64 * report.series.span_seconds as f64;
    let shade = |requests: u64| {
        // One request in a million still has to be seen: it is the tail that matters.
        let part = (requests as f64).ln_1p() / (most as f64).ln_1p();
        (1..=SHADES)
            .find(|shade| *shade as f64 >= part * SHADES as f64)
            .unwrap_or(SHADES)
    };
    for wanted in 1..=SHADES {
        let cells = columns.iter().enumerate().flat_map(|(nth, column)| {
            let start = nth as f64 * width;
            let rows = column.iter().enumerate();
            rows.filter(move |(_, requests)| **requests > 0 && shade(**requests) == wanted)
                .map(move |(row, _)| (start, start + width, edge(row), edge(row + 1)))
        });
        plot.boxes(&format!("heat h{wanted}"), cells);
    }
    let legend = format!("up to {} requests a cell, logarithmic", count(most as f64));
    figure("Latency heat map", &[("heat h7", &legend)], plot.end())
}

/// Returns the rate over time.
pub(super) fn rate(report: &Report) -> String {
    let points = whole(report);
    let asked = |point: &TimelinePoint| point.released as f64 / point.seconds;
    let high = points.iter().map(|point| point.rate.max(asked(point)));
    let mut plot = Plot::new(
        "Rate",
        (time_axis(report), seconds),
        (Axis::from_zero(high.fold(0.0, f64::max)), count),
    );
    let done = points.iter().map(|point| (middle(point), point.rate));
    plot.area("c0", done.clone());
    plot.line("c0", done);
    let mut legend = vec![("c0", "requests done a second")];
    if report.asked_rate.is_some() {
        plot.line(
            "c5",
            points.iter().map(|point| (middle(point), asked(point))),
        );
        legend.push(("c5", "came due"));
    }
    figure("Rate", &legend, plot.end())
}

/// Returns throughput over time.
pub(super) fn bytes(report: &Report) -> String {
    let points = whole(report);
    let line = |of: fn(&TimelinePoint) -> u64| {
        let points = points.iter();
        points.map(move |point| (middle(point), of(point) as f64 / point.seconds))
    };
    let received = || line(|point| point.received_bytes);
    let sent = || line(|point| point.sent_bytes);
    let high = received().chain(sent()).map(|(_, y)| y).fold(0.0, f64::max);
    let mut plot = Plot::new(
        "Bytes a second",
        (time_axis(report), seconds),
        (Axis::from_zero(high), decimal_bytes),
    );
    plot.area("c0", received());
    plot.line("c0", received());
    plot.line("c2", sent());
    let legend = [("c0", "received"), ("c2", "sent")];
    figure("Bytes a second", &legend, plot.end())
}

/// Returns failed requests over time, by class; nothing if none failed.
pub(super) fn errors(report: &Report) -> String {
    if report.failed() == 0 {
        return String::new();
    }
    let points = &report.series.points;
    let failed = |point: &TimelinePoint| point.errors.values().sum::<u64>() as f64;
    let mut plot = Plot::new(
        "Failed requests",
        (time_axis(report), seconds),
        (
            Axis::from_zero(points.iter().map(failed).fold(0.0, f64::max)),
            count,
        ),
    );
    let mut below = vec![0.0; points.len()];
    let mut legend = Vec::new();
    for (nth, class) in ErrorClass::ALL.into_iter().enumerate() {
        let name = class.name();
        if !report.errors.contains_key(name) {
            continue;
        }
        let color = ["c2", "c4", "c1", "c3", "c0", "c5"][nth % 6];
        let boxes = points.iter().zip(&mut below).filter_map(|(point, below)| {
            let failed = *point.errors.get(name)? as f64;
            *below += failed;
            let (left, right) = (point.start, point.start + point.seconds);
            Some((left, right, *below - failed, *below))
        });
        plot.boxes(&format!("fill {color}"), boxes);
        legend.push((color, name));
    }
    figure("Failed requests", &legend, plot.end())
}

/// Returns how the generator itself fared.
pub(super) fn generator(report: &Report) -> String {
    let points = whole(report);
    let mut plot = Plot::new(
        "The generator's CPU",
        (time_axis(report), seconds),
        (Axis::exact(0.0, 1.0), percent),
    );
    let cpu = points.iter().map(|point| (middle(point), point.cpu_share));
    plot.area("c3", cpu.clone());
    plot.line("c3", cpu);
    plot.line(
        "c2",
        points.iter().map(|point| (middle(point), point.wait_share)),
    );
    figure(
        "The generator: share of its cores",
        &[
            ("c3", "it ran"),
            ("c2", "it could have run, and others did"),
        ],
        plot.end(),
    )
}

/// Returns the generator's lag over time; nothing of a closed loop.
pub(super) fn lag(report: &Report) -> String {
    let points = whole(report);
    let high = points
        .iter()
        .map(|point| point.lag_max_us)
        .fold(0.0, f64::max);
    if report.asked_rate.is_none() || high <= 0.0 {
        return String::new();
    }
    let late = points.iter().filter(|point| point.lag_mean_us > 0.0);
    let low = late
        .clone()
        .map(|point| point.lag_mean_us)
        .fold(high, f64::min);
    let mut plot = Plot::new(
        "The generator's lag",
        (time_axis(report), seconds),
        (Axis::log(low / 1e3, high / 1e3), span),
    );
    plot.line(
        "c4",
        late.clone()
            .map(|point| (middle(point), point.lag_max_us / 1e3)),
    );
    plot.line(
        "c3",
        late.map(|point| (middle(point), point.lag_mean_us / 1e3)),
    );
    figure(
        "The generator: its lag",
        &[("c3", "mean"), ("c4", "max")],
        plot.end(),
    )
}
