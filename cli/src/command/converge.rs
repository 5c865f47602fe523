//! Waits until services are what was asked for, and shows how far they are.
//!
//! Polls the API instead of following its events: the answer is the whole truth at once, also for
//! what happened before the first poll, and at this rate it costs the manager nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::IsTerminal;
use std::time::Duration;

use ballast_model::view::{ServiceView, UpdateView};
use ballast_model::{Generation, Millis, Mode};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;

use crate::Failure;
use crate::api::Api;

/// Between two polls at first, doubling up to [`SLOWEST_POLL`]: a small service is there within
/// tens of milliseconds.
const FIRST_POLL: Duration = Duration::from_millis(10);
/// Between two polls at last.
const SLOWEST_POLL: Duration = Duration::from_millis(200);

/// A service to wait for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watch {
    /// Its name.
    pub name: String,
    /// The version of its spec that was asked for.
    pub generation: Generation,
}

impl Watch {
    /// Returns the service as this answer has it.
    pub fn of(view: &ServiceView) -> Self {
        Self {
            name: view.name.clone(),
            generation: view.generation,
        }
    }

    /// Returns whether the service is what was asked for.
    fn is_met(&self, view: &ServiceView) -> bool {
        let replicas = view.replicas;
        if view.generation < self.generation || view.update != UpdateView::Completed {
            return false;
        }
        match view.spec.mode {
            Mode::Job { .. } => replicas.complete >= replicas.desired,
            _ => replicas.healthy >= replicas.desired && replicas.running <= replicas.desired,
        }
    }
}

/// Waits until every service is what was asked for; returns them as they are then.
///
/// # Errors
/// If the time is up, or an update was paused because its tasks fail; with the reasons.
pub async fn converge(
    api: &Api,
    watches: &[Watch],
    timeout: Millis,
) -> Result<Vec<ServiceView>, Failure> {
    let deadline = Instant::now() + Duration::from_millis(timeout.0);
    let mut display = Display::new();
    let mut pause = FIRST_POLL;
    loop {
        let mut views = Vec::with_capacity(watches.len());
        for watch in watches {
            views.push(api.service(&watch.name).await?);
        }
        for view in &views {
            display.show(view);
        }
        let met = |(watch, view): (&Watch, &ServiceView)| watch.is_met(view);
        if watches.iter().zip(&views).all(met) {
            display.finish();
            return Ok(views);
        }
        let paused = views.iter().find(|v| v.update == UpdateView::Paused);
        if let Some(view) = paused {
            display.finish();
            return Err(Failure::Failed(format!(
                "the update of `{}` is paused because its new tasks fail{}\n  \
                 help: `ballast service update {0} …` with a repaired spec, or `ballast service rollback {0}`",
                view.name,
                reasons(view)
            )));
        }
        if Instant::now() >= deadline {
            display.finish();
            return Err(Failure::Failed(late(watches, &views, timeout)));
        }
        tokio::time::sleep(pause.min(deadline.saturating_duration_since(Instant::now()))).await;
        pause = (pause * 2).min(SLOWEST_POLL);
    }
}

fn late(watches: &[Watch], views: &[ServiceView], timeout: Millis) -> String {
    let mut text = String::new();
    for (watch, view) in watches.iter().zip(views) {
        if watch.is_met(view) {
            continue;
        }
        if !text.is_empty() {
            text.push('\n');
        }
        let _ = write!(
            text,
            "`{}` is not there after {timeout}: {}{}",
            view.name,
            progress(view),
            reasons(view)
        );
    }
    text.push_str(
        "\n  help: it goes on in the background; `ballast service ps NAME` shows its tasks",
    );
    text
}

/// Returns how far a service is, in words.
fn progress(view: &ServiceView) -> String {
    let replicas = view.replicas;
    match view.spec.mode {
        Mode::Job { .. } => format!(
            "{} of {} complete, {} running",
            replicas.complete, replicas.desired, replicas.running
        ),
        _ => format!(
            "{} of {} healthy, {} running",
            replicas.healthy, replicas.desired, replicas.running
        ),
    }
}

fn reasons(view: &ServiceView) -> String {
    let mut text = String::new();
    for problem in &view.problems {
        let _ = write!(text, "\n  reason: {problem}");
    }
    text
}

/// Bars on a terminal, a line for each change elsewhere; both on standard error.
struct Display {
    bars: Option<MultiProgress>,
    shown: BTreeMap<String, Shown>,
}

struct Shown {
    bar: Option<ProgressBar>,
    text: String,
}

impl Display {
    fn new() -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bars = || MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        Self {
            bars: terminal.then(bars),
            shown: BTreeMap::new(),
        }
    }

    fn show(&mut self, view: &ServiceView) {
        let mut text = progress(view);
        if view.update == UpdateView::Updating {
            text.push_str(", updating");
        }
        if let Some(problem) = view.problems.first() {
            text.push_str(" (");
            text.push_str(problem);
            text.push(')');
        }
        let shown = self
            .shown
            .entry(view.name.clone())
            .or_insert_with(|| Shown {
                bar: self.bars.as_ref().map(|bars| bars.add(bar(&view.name))),
                text: String::new(),
            });
        if let Some(bar) = &shown.bar {
            let replicas = view.replicas;
            let done = match view.spec.mode {
                Mode::Job { .. } => replicas.complete,
                _ => replicas.healthy,
            };
            bar.set_length(u64::from(replicas.desired));
            bar.set_position(u64::from(done.min(replicas.desired)));
            bar.set_message(text.clone());
        } else if shown.text != text {
            eprintln!("{}: {text}", view.name);
        }
        shown.text = text;
    }

    fn finish(&self) {
        for shown in self.shown.values() {
            if let Some(bar) = &shown.bar {
                bar.abandon();
            }
        }
    }
}

fn bar(name: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix} [{bar:24}] {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ");
    ProgressBar::no_length()
        .with_style(style)
        .with_prefix(name.to_owned())
}
