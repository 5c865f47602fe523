//! A run as a picture: nodes × utilisation over time, and what of the fleet was allocated.
//!
//! The picture is one SVG without scripts, fonts or references to anything outside. Above, each
//! row is a node (or the mean of some), the busiest at the bottom, each column a moment, and the
//! colour the node's most used resource. Below are the shares of the fleet's CPU, memory and GPUs
//! that are allocated, and of its nodes that have a task.

use std::fmt::Write as _;

use crate::timeline::{Axis, Timeline};

/// Rows of the map of nodes: more would be thinner than a pixel.
const ROWS: usize = 120;
/// Steps of colour; the first is idle.
const LEVELS: usize = 11;
/// From idle to full: pale to dark, told apart in grey, too.
const COLOURS: [&str; LEVELS] = [
    "#f1f3f5", "#e3f2e1", "#cbe8cf", "#a9dcc3", "#7fccba", "#55b8b5", "#349fae", "#2383a3",
    "#216693", "#234a7d", "#1f2f5f",
];
const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 640.0;
/// Where the plots begin and end, from the left.
const LEFT: f64 = 72.0;
const RIGHT: f64 = 840.0;
/// The map of nodes.
const MAP_TOP: f64 = 84.0;
const MAP_BOTTOM: f64 = 372.0;
/// The shares of the fleet.
const LINES_TOP: f64 = 424.0;
const LINES_BOTTOM: f64 = 584.0;
const LINES: [(&str, &str); 4] = [
    ("nodes in use", "#868e96"),
    ("CPU", "#216693"),
    ("memory", "#2b8a3e"),
    ("GPUs", "#d9480f"),
];

/// Returns an SVG of a run. `title` and `subtitle` are any text.
pub fn draw(timeline: &Timeline, title: &str, subtitle: &str) -> String {
    let mut svg = String::new();
    frame(&mut svg, title, subtitle);
    map(&mut svg, timeline);
    legend(&mut svg);
    lines(&mut svg, timeline);
    time_axis(&mut svg, timeline);
    svg.push_str("</svg>\n");
    svg
}

// Writing to a String cannot fail, so the results of `write!` are dropped.

fn frame(svg: &mut String, title: &str, subtitle: &str) {
    let _ = writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         width=\"{WIDTH}\" height=\"{HEIGHT}\" role=\"img\" aria-label=\"{}\" \
         font-family=\"system-ui, 'DejaVu Sans', sans-serif\" font-size=\"12\" fill=\"#343a40\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>",
        escape(title)
    );
    text(
        svg,
        LEFT,
        32.0,
        "font-size=\"18\" font-weight=\"600\"",
        title,
    );
    text(svg, LEFT, 52.0, "fill=\"#868e96\"", subtitle);
    text(
        svg,
        LEFT,
        MAP_TOP - 10.0,
        "font-weight=\"600\"",
        "Nodes, by their most used resource",
    );
    text(
        svg,
        LEFT,
        LINES_TOP - 10.0,
        "font-weight=\"600\"",
        "Share of the fleet",
    );
}

/// Draws the map: for each colour one path of runs of equal cells.
fn map(svg: &mut String, timeline: &Timeline) {
    let rows = busiest_first(timeline);
    let columns = timeline.samples.len();
    if rows.is_empty() || columns == 0 {
        return;
    }
    let _ = writeln!(
        svg,
        "<g transform=\"translate({LEFT} {MAP_TOP}) scale({:.5} {:.5})\" \
         shape-rendering=\"crispEdges\">\n<path fill=\"{}\" d=\"M0 0h{columns}v{}h-{columns}z\"/>",
        (RIGHT - LEFT) / columns as f64,
        (MAP_BOTTOM - MAP_TOP) / rows.len() as f64,
        COLOURS[0],
        rows.len()
    );
    let mut paths = vec![String::new(); LEVELS];
    for (row, levels) in rows.iter().rev().enumerate() {
        let mut begin = 0;
        for run in levels.chunk_by(|a, b| a == b) {
            if run[0] > 0 {
                let length = run.len();
                let _ = write!(paths[run[0]], "M{begin} {row}h{length}v1h-{length}z");
            }
            begin += run.len();
        }
    }
    for (path, colour) in paths
        .iter()
        .zip(COLOURS)
        .filter(|(path, _)| !path.is_empty())
    {
        let _ = writeln!(svg, "<path fill=\"{colour}\" d=\"{path}\"/>");
    }
    svg.push_str("</g>\n");
    let end = "text-anchor=\"end\" fill=\"#868e96\"";
    text(
        svg,
        LEFT - 8.0,
        MAP_TOP + 10.0,
        end,
        &timeline.nodes.to_string(),
    );
    text(
        svg,
        LEFT - 8.0,
        f64::midpoint(MAP_TOP, MAP_BOTTOM),
        end,
        "nodes",
    );
    text(svg, LEFT - 8.0, MAP_BOTTOM, end, "0");
}

/// Returns the colour of each cell, row by row, rows that are used most first.
fn busiest_first(timeline: &Timeline) -> Vec<Vec<usize>> {
    let kept = timeline
        .samples
        .first()
        .map_or(0, |sample| sample.rows.len());
    let mean = |row: usize| -> u64 {
        timeline
            .samples
            .iter()
            .map(|sample| u64::from(sample.rows[row]))
            .sum()
    };
    let mut order: Vec<usize> = (0..kept).collect();
    order.sort_by_key(|&row| (std::cmp::Reverse(mean(row)), row));
    let per_row = kept.div_ceil(ROWS).max(1);
    let cell = |rows: &[usize], column: usize| {
        let rows_of = &timeline.samples[column].rows;
        let sum: usize = rows.iter().map(|&row| usize::from(rows_of[row])).sum();
        level(sum, rows.len())
    };
    let columns = timeline.samples.len();
    let row = |rows: &[usize]| (0..columns).map(|column| cell(rows, column)).collect();
    order.chunks(per_row).map(row).collect()
}

/// Returns the colour of a mean of values of 0 to 255; only what is idle has the first.
fn level(sum: usize, count: usize) -> usize {
    (sum * (LEVELS - 1))
        .div_ceil(255 * count.max(1))
        .min(LEVELS - 1)
}

fn legend(svg: &mut String) {
    let left = RIGHT + 20.0;
    for (step, colour) in COLOURS.iter().enumerate() {
        let top = MAP_BOTTOM - (step + 1) as f64 * 18.0;
        let _ = writeln!(
            svg,
            "<rect x=\"{left}\" y=\"{top}\" width=\"14\" height=\"18\" fill=\"{colour}\"/>"
        );
        let name = match step {
            0 => "idle".to_owned(),
            step if step % 2 == 0 => format!("{} %", step * 10),
            _ => continue,
        };
        text(svg, left + 20.0, top + 13.0, "fill=\"#868e96\"", &name);
    }
}

fn lines(svg: &mut String, timeline: &Timeline) {
    for percent in [0, 25, 50, 75, 100] {
        let y = y_of(f64::from(percent) / 100.0);
        let _ = writeln!(
            svg,
            "<path stroke=\"#dee2e6\" d=\"M{LEFT} {y:.1}H{RIGHT}\"/>"
        );
        let end = "text-anchor=\"end\" fill=\"#868e96\"";
        text(svg, LEFT - 8.0, y + 4.0, end, &format!("{percent} %"));
    }
    let shown = if timeline.has_gpus {
        LINES.len()
    } else {
        LINES.len() - 1
    };
    let mut labels: Vec<(f64, &str, &str)> = Vec::new();
    for (number, (name, colour)) in LINES.into_iter().take(shown).enumerate() {
        let share = |sample: &crate::timeline::Sample| match number {
            0 => sample.nodes_used as f64 / timeline.nodes.max(1) as f64,
            number => sample.shares[number - 1],
        };
        let mut points = String::new();
        for sample in &timeline.samples {
            let x = x_of(timeline, sample.at);
            let _ = write!(points, "{x:.1},{:.1} ", y_of(share(sample)));
        }
        let _ = writeln!(
            svg,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.8\" \
             stroke-linejoin=\"round\" points=\"{}\"/>",
            points.trim_end()
        );
        if let Some(last) = timeline.samples.last() {
            labels.push((y_of(share(last)), name, colour));
        }
    }
    // Names at the ends of their lines, one below the other where lines end together.
    labels.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut lowest = f64::NEG_INFINITY;
    let room = (labels.len() as f64 - 1.0) * 15.0;
    for (y, name, colour) in labels {
        let y = y.min(LINES_BOTTOM - room).max(lowest + 15.0);
        lowest = y;
        text(
            svg,
            RIGHT + 8.0,
            y + 4.0,
            &format!("fill=\"{colour}\""),
            name,
        );
    }
}

fn time_axis(svg: &mut String, timeline: &Timeline) {
    let last = timeline.samples.last().map_or(0.0, |sample| sample.at);
    for quarter in 0..=4 {
        let at = last * f64::from(quarter) / 4.0;
        let anchor = match quarter {
            0 => "start",
            4 => "end",
            _ => "middle",
        };
        let name = match timeline.axis {
            Axis::Seconds => span(at),
            Axis::Arrivals => format!("{at:.0}"),
        };
        let style = format!("text-anchor=\"{anchor}\" fill=\"#868e96\"");
        for y in [MAP_BOTTOM + 16.0, LINES_BOTTOM + 18.0] {
            text(svg, x_of(timeline, at), y, &style, &name);
        }
    }
    let what = match timeline.axis {
        Axis::Seconds => "time since the first arrival",
        Axis::Arrivals => "tasks that arrived",
    };
    let middle = f64::midpoint(LEFT, RIGHT);
    text(
        svg,
        middle,
        LINES_BOTTOM + 40.0,
        "text-anchor=\"middle\" fill=\"#868e96\"",
        what,
    );
}

fn x_of(timeline: &Timeline, at: f64) -> f64 {
    let last = timeline.samples.last().map_or(0.0, |sample| sample.at);
    LEFT + (RIGHT - LEFT) * (at / last.max(f64::MIN_POSITIVE)).clamp(0.0, 1.0)
}

fn y_of(share: f64) -> f64 {
    LINES_BOTTOM - (LINES_BOTTOM - LINES_TOP) * share.clamp(0.0, 1.0)
}

/// Returns a span of time as short as it can be read: `3 d 4 h`, `2 h 30 min`, `45 s`.
fn span(seconds: f64) -> String {
    let minutes = seconds / 60.0;
    if seconds < 120.0 {
        format!("{seconds:.0} s")
    } else if minutes < 120.0 {
        format!("{minutes:.0} min")
    } else if minutes < 48.0 * 60.0 {
        format!("{:.0} h", minutes / 60.0)
    } else {
        format!("{:.0} d", minutes / 60.0 / 24.0)
    }
}

fn text(svg: &mut String, x: f64, y: f64, style: &str, words: &str) {
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" {style}>{}</text>",
        escape(words)
    );
}

/// Returns text that is safe between tags and in attributes; what XML cannot hold is left out.
fn escape(words: &str) -> String {
    let mut safe = String::with_capacity(words.len());
    for letter in words.chars() {
        match letter {
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '&' => safe.push_str("&amp;"),
            '"' => safe.push_str("&quot;"),
            letter if letter.is_control() => {}
            letter => safe.push(letter),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timeline::Sample;

    fn timeline(columns: usize, rows: usize) -> Timeline {
        let sample = |column: usize| Sample {
            at: column as f64 * 100.0,
            nodes_used: column % (rows + 1),
            shares: [0.5, 0.25, 1.0],
            rows: (0..rows)
                .map(|row| u8::try_from((row * column) % 256).expect("below"))
                .collect(),
        };
        Timeline {
            axis: Axis::Seconds,
            nodes: rows,
            has_gpus: true,
            samples: (0..columns).map(sample).collect(),
        }
    }

    #[test]
    fn title_cannot_break_out_of_the_picture() {
        let svg = draw(&timeline(3, 2), "<script>\"&\u{1}", "b");
        assert!(svg.contains("&lt;script&gt;&quot;&amp;<"), "{svg}");
        assert!(!svg.contains("<script"));
    }

    #[test]
    fn picture_of_a_large_fleet_stays_small_and_of_none_is_drawn() {
        assert!(draw(&timeline(241, 1024), "t", "s").len() < 1 << 20);
        assert!(draw(&timeline(0, 0), "t", "s").ends_with("</svg>\n"));
        assert!(draw(&timeline(1, 1), "t", "s").ends_with("</svg>\n"));
    }

    #[test]
    fn only_an_idle_node_has_the_colour_of_idle_ones() {
        assert_eq!(level(0, 3), 0);
        assert_eq!(level(1, 3), 1);
        assert_eq!(level(3 * 255, 3), LEVELS - 1);
    }
}
