//! A run under way as plain lines.

use super::View;
use crate::report::table::count;
use crate::report::timeline::Spread;

/// Seconds for which there is a line for each; afterwards one for each [`LATER`].
const AT_FIRST: u64 = 60;
/// Seconds between lines of a long run.
const LATER: u64 = 10;

/// Which lines were shown.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// The second that is shown next.
    next: u64,
}

impl Lines {
    /// Returns a line if there is something new to tell.
    pub fn next(&mut self, view: &View<'_>) -> Option<String> {
        let series = &view.seen.series;
        let span = series.span_seconds();
        let points = view.points();
        let point = points.last()?;
        let second = points.len() as u64 * span;
        if second <= self.next {
            return None;
        }
        self.next = if second < AT_FIRST {
            second
        } else {
            second + LATER - 1
        };
        let spread = Spread::of(point);
        Some(format!(
            "{second:5} s  {:>9} /s  p50 {:.3} ms  p99 {:.3} ms  max {:.3} ms  failed {}  in flight \
             {}  lag {:.3} ms  cpu {:.0} %",
            count(point.done as f64 / span as f64),
            spread.p50 / 1e3,
            spread.p99 / 1e3,
            spread.max / 1e3,
            count(view.seen.counts.failed() as f64),
            point.in_flight,
            point.mean_lag_ns() / 1e6,
            point.cpu_share() * 100.0
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::super::screen::tests::{seen, title};
    use super::*;
    use std::time::Duration;

    #[test]
    fn second_of_which_a_part_may_be_on_its_way_is_not_shown_yet() {
        let title = super::super::Title {
            behind: Duration::from_millis(700),
            ..title()
        };
        let seen = seen(3);
        let shown = |millis| {
            let view = View {
                title: &title,
                elapsed: Duration::from_millis(millis),
                seen: &seen,
            };
            view.points().len()
        };
        assert_eq!(
            [shown(500), shown(3600), shown(3700), shown(9000)],
            [0, 2, 3, 3]
        );
    }

    #[test]
    fn line_comes_once_for_each_second_and_less_often_later() {
        let mut lines = Lines::default();
        let title = title();
        let mut shown = 0;
        for seconds in 1..=100 {
            let seen = seen(seconds);
            let view = View {
                title: &title,
                elapsed: Duration::from_secs(seconds),
                seen: &seen,
            };
            let first = lines.next(&view);
            shown += u32::from(first.is_some());
            assert_eq!(lines.next(&view), None);
            if seconds == 3 {
                let line = first.expect("is new");
                assert!(line.starts_with("    3 s      1,000 /s  p50 "), "{line}");
            }
        }
        assert!((62..=66).contains(&shown), "{shown}");
    }
}
