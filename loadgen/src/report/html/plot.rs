//! Axes, lines and areas as SVG.

use std::fmt::Write as _;

/// The size of a plot, in its own units; it is scaled to the page.
pub(super) const WIDTH: f64 = 760.0;
pub(super) const HEIGHT: f64 = 250.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 34.0;
/// Ticks that an axis has at most, about.
const TICKS: f64 = 6.0;

/// One axis.
#[derive(Debug, Clone, Copy)]
pub(super) struct Axis {
    pub low: f64,
    pub high: f64,
    pub log: bool,
}

impl Axis {
    /// Returns an even axis from 0 to a round number above `high`.
    pub fn from_zero(high: f64) -> Self {
        let step = step(high.max(1e-9));
        Self {
            low: 0.0,
            high: (high.max(1e-9) / step).ceil() * step,
            log: false,
        }
    }

    /// Returns an even axis of just this.
    pub fn exact(low: f64, high: f64) -> Self {
        Self {
            low,
            high: if high > low { high } else { low + 1.0 },
            log: false,
        }
    }

    /// Returns a logarithmic axis, widened to a whole share of a decade.
    pub fn log(low: f64, high: f64) -> Self {
        let low = low.max(1e-3);
        let round = |value: f64, up: bool| {
            let decade = 10_f64.powf(value.log10().floor());
            let marks = [1.0, 2.0, 5.0, 10.0].map(|mark| mark * decade);
            let near = |mark: &&f64| {
                if up {
                    **mark >= value * 0.999
                } else {
                    **mark <= value * 1.001
                }
            };
            let found = if up {
                marks.iter().find(near)
            } else {
                marks.iter().rfind(near)
            };
            found.copied().unwrap_or(value)
        };
        let (low, high) = (round(low, false), round(high.max(low * 1.01), true));
        Self {
            low,
            high: if high > low { high } else { low * 10.0 },
            log: true,
        }
    }

    /// Returns where on the axis `value` is, 0 to 1.
    fn part(&self, value: f64) -> f64 {
        let part = if self.log {
            (value.max(self.low) / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        part.clamp(0.0, 1.0)
    }

    fn ticks(&self) -> Vec<f64> {
        if !self.log {
            let step = step(self.high - self.low);
            let count = ((self.high - self.low) / step).round();
            return (0..=100_u32)
                .map(f64::from)
                .take_while(|nth| *nth <= count + 1e-9)
                .map(|nth| self.low + nth * step)
                .filter(|tick| *tick <= self.high * 1.0001)
                .collect();
        }
        let decades = (self.high / self.low).log10();
        let marks: &[f64] = if decades > 3.5 {
            &[1.0]
        } else {
            &[1.0, 2.0, 5.0]
        };
        let first = self.low.log10().floor();
        (0..24_u32)
            .flat_map(|decade| {
                marks
                    .iter()
                    .map(move |mark| mark * 10_f64.powf(first + f64::from(decade)))
            })
            .filter(|tick| *tick >= self.low * 0.999 && *tick <= self.high * 1.001)
            .collect()
    }
}

/// Returns a round step that cuts `range` into about [`TICKS`] parts.
fn step(range: f64) -> f64 {
    let raw = range / TICKS;
    let decade = 10_f64.powf(raw.log10().floor());
    let marks = [1.0, 2.0, 5.0, 10.0].map(|mark| mark * decade);
    marks
        .into_iter()
        .find(|mark| *mark >= raw * 0.999)
        .unwrap_or(raw)
}

/// A plot under construction.
pub(super) struct Plot {
    svg: String,
    x: Axis,
    y: Axis,
}

impl Plot {
    /// Returns a plot with its axes drawn.
    pub fn new(
        title: &str,
        (x, x_name): (Axis, fn(f64) -> String),
        (y, y_name): (Axis, fn(f64) -> String),
    ) -> Self {
        let mut plot = Self {
            svg: format!(
                "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">\n"
            ),
            x,
            y,
        };
        plot.axes(x_name, y_name);
        plot
    }

    fn axes(&mut self, x_name: fn(f64) -> String, y_name: fn(f64) -> String) {
        let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
        for tick in self.y.ticks() {
            let y = self.y_at(tick);
            let _ = writeln!(
                self.svg,
                "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{right}\"/><text class=\"left\" \
                 x=\"{:.0}\" y=\"{:.1}\">{}</text>",
                LEFT - 8.0,
                y + 4.0,
                y_name(tick)
            );
        }
        for tick in self.x.ticks() {
            self.x_mark(tick, &x_name(tick));
        }
        let _ = writeln!(
            self.svg,
            "<path class=\"axis\" d=\"M{LEFT} {bottom}H{right}\"/>"
        );
    }

    /// Marks a place on the horizontal axis.
    pub fn x_mark(&mut self, at: f64, name: &str) {
        let (x, bottom) = (self.x_at(at), HEIGHT - BOTTOM);
        let _ = writeln!(
            self.svg,
            "<path class=\"tick\" d=\"M{x:.1} {bottom}v4\"/><text class=\"below\" x=\"{x:.1}\" \
             y=\"{:.0}\">{name}</text>",
            bottom + 18.0
        );
    }

    pub fn x_at(&self, value: f64) -> f64 {
        LEFT + self.x.part(value) * (WIDTH - LEFT - RIGHT)
    }

    pub fn y_at(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - self.y.part(value) * (HEIGHT - TOP - BOTTOM)
    }

    /// Draws a line through `points`.
    pub fn line(&mut self, class: &str, points: impl Iterator<Item = (f64, f64)>) {
        let path = self.path(points);
        if !path.is_empty() {
            let _ = writeln!(self.svg, "<path class=\"line {class}\" d=\"{path}\"/>");
        }
    }

    /// Fills what is below `points`.
    pub fn area(&mut self, class: &str, points: impl Iterator<Item = (f64, f64)> + Clone) {
        let ends = (points.clone().next(), points.clone().last());
        let (Some(first), Some(last)) = ends else {
            return;
        };
        let bottom = HEIGHT - BOTTOM;
        let path = self.path(points);
        let (first, last) = (self.x_at(first.0), self.x_at(last.0));
        let _ = writeln!(
            self.svg,
            "<path class=\"area {class}\" d=\"{path}L{last:.1} {bottom}L{first:.1} {bottom}Z\"/>"
        );
    }

    fn path(&self, points: impl Iterator<Item = (f64, f64)>) -> String {
        let mut path = String::new();
        for (x, y) in points.filter(|(x, y)| x.is_finite() && y.is_finite()) {
            let letter = if path.is_empty() { 'M' } else { 'L' };
            let _ = write!(path, "{letter}{:.1} {:.1}", self.x_at(x), self.y_at(y));
        }
        path
    }

    /// Draws boxes from corner to corner: `(left, right, low, high)`.
    pub fn boxes(&mut self, class: &str, boxes: impl Iterator<Item = (f64, f64, f64, f64)>) {
        let mut path = String::new();
        for (left, right, low, high) in boxes {
            let (left, right) = (self.x_at(left), self.x_at(right));
            let (low, high) = (self.y_at(low), self.y_at(high));
            // A hair of overlap, so that neighbours leave no seam.
            let (width, height) = (right - left + 0.3, low - high + 0.3);
            let _ = write!(
                path,
                "M{left:.1} {high:.1}h{width:.1}v{height:.1}h-{width:.1}z"
            );
        }
        if !path.is_empty() {
            let _ = writeln!(self.svg, "<path class=\"{class}\" d=\"{path}\"/>");
        }
    }

    /// Returns the drawing.
    pub fn end(mut self) -> String {
        self.svg.push_str("</svg>\n");
        self.svg
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_within_the_axis() {
        assert_eq!(
            Axis::from_zero(930.0).ticks(),
            [0.0, 200.0, 400.0, 600.0, 800.0, 1000.0]
        );
        let ticks = Axis::log(0.13, 40.0).ticks();
        assert!(
            (ticks[0] - 0.1).abs() < 1e-9 && (ticks[ticks.len() - 1] - 50.0).abs() < 1e-6,
            "{ticks:?}"
        );
        for axis in [
            Axis::from_zero(0.0),
            Axis::log(0.0, 0.0),
            Axis::exact(3.0, 3.0),
            Axis::log(5.0, 5.0),
        ] {
            assert!(axis.high > axis.low, "{axis:?}");
            assert!(axis.ticks().iter().all(|tick| tick.is_finite()));
        }
    }
}
