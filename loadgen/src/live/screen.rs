//! A run under way as a picture.

use std::io::{self, Stderr, stderr};
use std::sync::Once;

use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Axis, Block, Borders, Chart, Dataset, Gauge, GraphType, Paragraph};
use ratatui::{Frame, Terminal};

use super::View;
use crate::record::ErrorClass;
use crate::recorder::Point;
use crate::report::table::{bytes, count};
use crate::report::timeline::Spread;

/// Points that the plots show.
const SHOWN: usize = 120;

static RESTORE_ON_PANIC: Once = Once::new();

/// The terminal's other screen; left when this is dropped, and before a panic is told.
pub(super) struct Screen {
    terminal: Terminal<CrosstermBackend<Stderr>>,
    color: bool,
}

impl Screen {
    /// Takes the terminal's other screen. Keys stay with the terminal, so that Ctrl-C is a signal
    /// like in any other program.
    pub fn open() -> io::Result<Self> {
        RESTORE_ON_PANIC.call_once(|| {
            let told = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                restore();
                told(panic);
            }));
        });
        let terminal = Terminal::new(CrosstermBackend::new(stderr()))?;
        execute!(stderr(), EnterAlternateScreen, Hide)?;
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Ok(Self {
            terminal,
            color: !no_color,
        })
    }

    /// Draws what is seen.
    pub fn draw(&mut self, view: &View<'_>) -> io::Result<()> {
        let color = self.color;
        self.terminal.draw(|frame| draw(frame, view, color))?;
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

fn restore() {
    // There is nobody to tell if the terminal is gone.
    let _ = execute!(stderr(), Show, LeaveAlternateScreen);
}

struct Paint(bool);

impl Paint {
    fn with(&self, color: Color) -> Style {
        if self.0 {
            Style::new().fg(color)
        } else {
            Style::new()
        }
    }

    fn bold(&self, color: Color) -> Style {
        self.with(color).add_modifier(Modifier::BOLD)
    }
}

fn draw(frame: &mut Frame<'_>, view: &View<'_>, color: bool) {
    let paint = Paint(color);
    let [head, bar, numbers, latency, rate, health] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(3),
        Constraint::Fill(3),
        Constraint::Fill(2),
        Constraint::Length(2),
    ])
    .areas(frame.area());
    let asked = match view.title.asked_rate {
        Some(rate) => format!("{} /s asked", count(rate)),
        None => "closed loop".to_owned(),
    };
    let title = format!("{}   {asked}   {}", view.title.targets, view.title.engine);
    frame.render_widget(Line::styled(title, paint.bold(Color::Reset)), head);
    progress(frame, bar, view, &paint);
    let points = view.points();
    let recent = &points[points.len().saturating_sub(SHOWN)..];
    figures(frame, numbers, view, recent.last(), &paint);
    let width = shown(view, recent.len());
    latencies(frame, latency, (recent, width), &paint);
    rates(frame, rate, view, (recent, width), &paint);
    generator(frame, health, recent.last(), &paint);
}

fn progress(frame: &mut Frame<'_>, area: Rect, view: &View<'_>, paint: &Paint) {
    let (elapsed, all) = (
        view.elapsed.as_secs_f64(),
        view.title.duration.as_secs_f64(),
    );
    let part = (elapsed / all.max(f64::MIN_POSITIVE)).clamp(0.0, 1.0);
    let label = if elapsed > all {
        format!("{all:.0} s over; waiting for {} in flight", waiting(view))
    } else {
        format!("{elapsed:.0} of {all:.0} s")
    };
    let gauge = Gauge::default().ratio(part).label(label);
    frame.render_widget(gauge.gauge_style(paint.with(Color::Blue)), area);
}

fn waiting(view: &View<'_>) -> u64 {
    let counts = &view.seen.counts;
    counts.released.saturating_sub(counts.done)
}

fn figures(
    frame: &mut Frame<'_>,
    area: Rect,
    view: &View<'_>,
    last: Option<&Point>,
    paint: &Paint,
) {
    let counts = &view.seen.counts;
    let spread = last.map(Spread::of).unwrap_or_default();
    let span = view.seen.series.span_seconds() as f64;
    let rate = last.map_or(0.0, |point| point.done as f64 / span);
    let received = last.map_or(0.0, |point| point.received_bytes as f64 / span);
    let failed = counts.failed();
    let ms = |us: f64| format!("{:.3} ms", us / 1e3);
    let mut classes = vec![Span::styled(
        format!("failed {}", count(failed as f64)),
        if failed > 0 {
            paint.bold(Color::Red)
        } else {
            Style::new()
        },
    )];
    for (class, errors) in ErrorClass::ALL.into_iter().zip(counts.errors) {
        if errors > 0 {
            let text = format!("  {} {}", class.name(), count(errors as f64));
            classes.push(Span::styled(text, paint.with(Color::Red)));
        }
    }
    let lines = vec![
        Line::from(format!(
            "{} /s   {} requests   {}/s received   {} in flight",
            count(rate),
            count(counts.done as f64),
            bytes(received),
            count(waiting(view) as f64)
        )),
        Line::from(vec![
            Span::styled(format!("p50 {}", ms(spread.p50)), paint.with(Color::Cyan)),
            Span::styled(
                format!("   p90 {}", ms(spread.p90)),
                paint.with(Color::Green),
            ),
            Span::styled(
                format!("   p99 {}", ms(spread.p99)),
                paint.with(Color::Yellow),
            ),
            Span::styled(
                format!("   max {}", ms(spread.max)),
                paint.with(Color::Magenta),
            ),
        ]),
        Line::from(classes),
    ];
    frame.render_widget(Paragraph::new(lines), area);
}

/// Returns how many points the plots have room for: those of the whole run if it is a short one.
fn shown(view: &View<'_>, points: usize) -> f64 {
    const FEWEST: f64 = 10.0;
    let all = view.title.duration.as_secs_f64() / view.seen.series.span_seconds() as f64;
    all.ceil().max(points as f64).clamp(FEWEST, SHOWN as f64)
}

fn latencies(frame: &mut Frame<'_>, area: Rect, (points, width): (&[Point], f64), paint: &Paint) {
    let spreads: Vec<_> = points.iter().map(Spread::of).collect();
    // On a logarithmic axis: a tail of seconds would press a median of microseconds to the floor.
    let line = |of: fn(&Spread) -> f64| -> Vec<(f64, f64)> {
        (0_u32..)
            .zip(&spreads)
            .filter(|(_, spread)| spread.max > 0.0)
            .map(|(at, spread)| (f64::from(at), of(spread).max(1.0).log10()))
            .collect()
    };
    let lines = [
        ("max", Color::Magenta, line(|spread| spread.max)),
        ("p99", Color::Yellow, line(|spread| spread.p99)),
        ("p90", Color::Green, line(|spread| spread.p90)),
        ("p50", Color::Cyan, line(|spread| spread.p50)),
    ];
    let all = || lines.iter().flat_map(|(_, _, line)| line).map(|(_, y)| *y);
    let low = all().fold(f64::MAX, f64::min).floor().min(5.0);
    let high = all().fold(low + 1.0, f64::max).ceil();
    let labels = (0_u32..)
        .map(|decade| low + f64::from(decade))
        .take_while(|decade| *decade <= high)
        .map(|decade| label(10_f64.powf(decade)));
    let datasets = lines.iter().map(|(name, color, line)| {
        Dataset::default()
            .name(*name)
            .marker(Marker::Braille)
            .graph_type(GraphType::Line)
            .style(paint.with(*color))
            .data(line)
    });
    let chart = Chart::new(datasets.collect())
        .block(Block::new().borders(Borders::TOP).title(" latency "))
        .x_axis(Axis::default().bounds([0.0, width - 1.0]))
        .y_axis(
            Axis::default()
                .bounds([low, high])
                .labels(labels.collect::<Vec<_>>()),
        );
    frame.render_widget(chart, area);
}

fn label(us: f64) -> String {
    match us {
        us if us < 1e3 => format!("{us:.0} µs"),
        us if us < 1e6 => format!("{:.0} ms", us / 1e3),
        us => format!("{:.0} s", us / 1e6),
    }
}

fn rates(
    frame: &mut Frame<'_>,
    area: Rect,
    view: &View<'_>,
    (points, width): (&[Point], f64),
    paint: &Paint,
) {
    let span = view.seen.series.span_seconds() as f64;
    let line = |of: fn(&Point) -> u64| -> Vec<(f64, f64)> {
        let points = (0_u32..).zip(points);
        points
            .map(|(at, point)| (f64::from(at), of(point) as f64 / span))
            .collect()
    };
    let (done, failed) = (line(|point| point.done), line(Point::failed));
    let high = done.iter().map(|(_, y)| *y).fold(1.0, f64::max) * 1.1;
    let dataset = |name: &'static str, color: Color, data| {
        Dataset::default()
            .name(name)
            .marker(Marker::Braille)
            .graph_type(GraphType::Line)
            .style(paint.with(color))
            .data(data)
    };
    let sets = vec![
        dataset("done", Color::Blue, &done[..]),
        dataset("failed", Color::Red, &failed[..]),
    ];
    let chart = Chart::new(sets)
        .block(Block::new().borders(Borders::TOP).title(" requests/s "))
        .x_axis(Axis::default().bounds([0.0, width - 1.0]))
        .y_axis(
            Axis::default()
                .bounds([0.0, high])
                .labels(["0".to_owned(), count(high.round())]),
        );
    frame.render_widget(chart, area);
}

fn generator(frame: &mut Frame<'_>, area: Rect, last: Option<&Point>, paint: &Paint) {
    let Some(point) = last else {
        return;
    };
    let late = point.saturated + point.starved > 0;
    let (text, style) = if late {
        ("generator LATE", paint.bold(Color::Red))
    } else {
        ("generator in time", paint.with(Color::Green))
    };
    let line = Line::from(vec![
        Span::styled(text, style),
        Span::raw(format!(
            "   lag {:.3} ms (most {:.3})   cpu {:.0} %   waited for cpu {:.0} %",
            point.mean_lag_ns() / 1e6,
            point.lag_max_ns as f64 / 1e6,
            point.cpu_share() * 100.0,
            point.wait_ns as f64 / point.wall_ns.max(1) as f64 * 100.0
        )),
    ]);
    let block = Block::new().borders(Borders::TOP);
    frame.render_widget(Paragraph::new(line).block(block), area);
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use ratatui::backend::TestBackend;

    use super::super::Title;
    use super::*;
    use crate::recorder::{Recorder, Seen};
    use crate::sample::Sample;

    pub(in super::super) fn title() -> Title {
        Title {
            targets: "one.test".to_owned(),
            engine: "hot engine on epoll".to_owned(),
            asked_rate: Some(1000.0),
            duration: Duration::from_mins(2),
            behind: Duration::ZERO,
        }
    }

    /// What is seen after `seconds` at 1,000/s.
    pub(in super::super) fn seen(seconds: u64) -> Seen {
        let mut recorder = Recorder::new();
        for number in 0..seconds * 1000 {
            let due_ns = number * 1_000_000;
            let done_ns = due_ns + 1000 * (number % 900);
            recorder.released(due_ns, due_ns);
            recorder.done(&Sample {
                number,
                target: 0,
                request: 0,
                due_ns,
                sent_ns: due_ns,
                first_byte_ns: done_ns,
                done_ns,
                received_bytes: 300,
                sent_bytes: 60,
                outcome: if number % 500 == 0 {
                    Err(ErrorClass::Reset)
                } else {
                    Ok(200)
                },
            });
        }
        recorder.tick(seconds * 1_000_000_000);
        Seen {
            counts: recorder.counts().clone(),
            series: recorder.series().clone(),
            ..Seen::default()
        }
    }

    fn drawn(width: u16, height: u16, seconds: u64, color: bool) -> Terminal<TestBackend> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("opens");
        let (title, seen) = (title(), seen(seconds));
        let view = View {
            title: &title,
            elapsed: Duration::from_secs(seconds),
            seen: &seen,
        };
        terminal
            .draw(|frame| draw(frame, &view, color))
            .expect("draws");
        terminal
    }

    #[test]
    fn screen_tells_rate_percentiles_failures_and_its_own_health() {
        let text = drawn(100, 30, 20, true).backend().to_string();
        for part in [
            "one.test",
            "20 of 120 s",
            "1,000 /s",
            "20,000 requests",
            "p99 0.8",
            "failed 40  reset 40",
            "latency",
            "requests/s",
            "generator in time",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }

    #[test]
    fn plots_have_room_for_a_short_run_and_for_the_end_of_a_long_one() {
        let seen = seen(3);
        let room = |seconds, points| {
            let title = Title {
                duration: Duration::from_secs(seconds),
                ..title()
            };
            let view = View {
                title: &title,
                elapsed: Duration::ZERO,
                seen: &seen,
            };
            shown(&view, points).to_string()
        };
        assert_eq!(room(30, 5), "30");
        assert_eq!(room(30, 35), "35", "what is in flight takes longer");
        assert_eq!(room(1, 1), "10");
        assert_eq!(room(3600, 500), "120");
    }

    #[test]
    fn health_of_a_late_generator_fits_80_columns() {
        let late = Point {
            starved: 1,
            done: 1,
            lag_sum_ns: 123_456_000,
            lag_max_ns: 57_003_000,
            wall_ns: 1_000_000_000,
            cpu_ns: 1_000_000_000,
            wait_ns: 530_000_000,
            ..Point::default()
        };
        let mut terminal = Terminal::new(TestBackend::new(80, 2)).expect("opens");
        terminal
            .draw(|frame| generator(frame, frame.area(), Some(&late), &Paint(false)))
            .expect("draws");
        let text = terminal.backend().to_string();
        assert!(text.contains("waited for cpu 53 %"), "{text}");
    }

    #[test]
    fn screen_without_colours_has_none() {
        let terminal = drawn(100, 30, 3, false);
        let plain =
            |cell: &ratatui::buffer::Cell| cell.fg == Color::Reset && cell.bg == Color::Reset;
        assert!(terminal.backend().buffer().content().iter().all(plain));
    }

    #[test]
    fn any_size_of_terminal_and_no_data_can_be_drawn() {
        for (width, height) in [(1, 1), (10, 3), (40, 10), (300, 100)] {
            drawn(width, height, 0, true);
            drawn(width, height, 2, true);
        }
    }
}
