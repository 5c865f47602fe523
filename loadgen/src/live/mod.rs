//! A run while it goes on: on a terminal, as plain lines, or for Prometheus.
//!
//! Lanes put what they have on a [`Board`] and never wait; whoever looks does so a few times a
//! second on a thread of its own.
//!
//! - [`Live`]: the terminal's view, or lines where there is no terminal
//! - [`Exporter`]: an endpoint for Prometheus

mod lines;
mod prometheus;
mod screen;

use std::io::{IsTerminal as _, Write as _, stderr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use prometheus::Exporter;

use crate::recorder::{Board, Point, Seen};

/// How often the view is drawn: more is not seen, and costs the generator's machine.
const DRAW: Duration = Duration::from_millis(250);

/// What the view tells beside what is measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Title {
    /// Names of the targets.
    pub targets: String,
    /// Which engine runs.
    pub engine: String,
    /// The mean rate asked for; none of a closed loop.
    pub asked_rate: Option<f64>,
    /// Over which requests are scheduled.
    pub duration: Duration,
    /// How much later than their ends all of its seconds have come: those of other hosts are some
    /// time on their way, and a second of which a part is missing is no dip of the rate.
    pub behind: Duration,
}

/// What is shown.
struct View<'a> {
    title: &'a Title,
    elapsed: Duration,
    seen: &'a Seen,
}

impl View<'_> {
    /// Returns the points that are whole.
    fn points(&self) -> &[Point] {
        let points = self.seen.series.points();
        if self.title.behind.is_zero() {
            return points;
        }
        let come = self.elapsed.saturating_sub(self.title.behind).as_secs();
        let whole = usize::try_from(come / self.seen.series.span_seconds()).unwrap_or(usize::MAX);
        &points[..points.len().min(whole)]
    }
}

/// A view of a run under way; ends with [`Live::end`], or when it is dropped.
#[derive(Debug)]
pub struct Live {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Live {
    /// Starts to show what is on `board`, on standard error: results may go to standard output.
    /// On a terminal it is a picture, in colours unless `NO_COLOR` is set; elsewhere a line now
    /// and then. `zero` is when the first request is due.
    ///
    /// # Errors
    /// The operating system's, for want of a thread.
    pub fn start(board: Arc<Board>, title: Title, zero: Instant) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::Builder::new()
            .name("live".to_owned())
            .spawn(move || {
                let shown = stderr().is_terminal() && terminal_can_draw();
                let screen = shown.then(screen::Screen::open).and_then(Result::ok);
                show(&board, &title, zero, screen, &stopped);
            })?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }

    /// Ends the view; the terminal is as it was.
    pub fn end(mut self) {
        self.finish();
    }

    fn finish(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A view that panicked has told so; the run is not harmed by it.
            let _ = thread.join();
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.finish();
    }
}

fn terminal_can_draw() -> bool {
    std::env::var_os("TERM").is_some_and(|term| term != "dumb" && !term.is_empty())
}

fn show(
    board: &Board,
    title: &Title,
    zero: Instant,
    mut screen: Option<screen::Screen>,
    stop: &AtomicBool,
) {
    let mut lines = lines::Lines::default();
    loop {
        // Once more at the end: the last second belongs to what is shown.
        let last = stop.load(Ordering::Relaxed);
        // By then all has come.
        let more = if last { title.behind } else { Duration::ZERO };
        let elapsed = zero.elapsed() + more;
        board.look(|seen| {
            let view = View {
                title,
                elapsed,
                seen,
            };
            match &mut screen {
                Some(open) => {
                    if open.draw(&view).is_err() {
                        screen = None;
                    }
                }
                None => {
                    if let Some(line) = lines.next(&view) {
                        let _ = writeln!(stderr(), "{line}");
                    }
                }
            }
        });
        if last {
            return;
        }
        std::thread::park_timeout(DRAW);
    }
}
