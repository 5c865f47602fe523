//! Makes runs, here or on workers, and heeds Ctrl-C while they go on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use ballast_loadgen::fleet::PROGRESS;
use ballast_loadgen::fleet::coordinator::{Fleet, FleetOptions};
use ballast_loadgen::live::{Exporter, Live, Title};
use ballast_loadgen::plan::{Pacing, Plan};
use ballast_loadgen::recorder::Board;
use ballast_loadgen::report::name_of;
use ballast_loadgen::{Outcome, Running};

use super::args::{MachineArgs, OutArgs};
use super::interrupt::Interrupts;

/// How often a run is looked at: nobody sees a shorter delay.
const LOOK: Duration = Duration::from_millis(100);

/// Where runs are made.
pub struct Driver {
    /// Of Ctrl-C.
    pub interrupts: Interrupts,
    fleet: Option<FleetOptions>,
    command: Vec<String>,
    prometheus: Option<SocketAddr>,
    live: bool,
}

/// A run under way.
enum Underway {
    Here(Running),
    There(Fleet),
}

impl Driver {
    /// Returns a driver of runs where these flags say.
    ///
    /// # Errors
    /// The operating system's, if Ctrl-C cannot be watched for.
    pub fn new(machine: &MachineArgs) -> std::io::Result<Self> {
        Ok(Self {
            interrupts: Interrupts::watch()?,
            fleet: (!machine.workers.is_empty()).then(|| FleetOptions {
                workers: machine.workers.clone(),
                token: machine.token.clone(),
                clock_bound: machine.clock_bound,
            }),
            command: command_line(std::env::args()),
            prometheus: None,
            live: false,
        })
    }

    /// Shows its runs while they go on, as these flags say.
    pub fn showing(mut self, out: &OutArgs) -> Self {
        self.prometheus = out.prometheus;
        self.live = !out.quiet;
        self
    }

    /// Lets others look on at a run, until what this returns is dropped.
    fn show(
        &self,
        board: &Arc<Board>,
        title: Title,
        zero: Instant,
    ) -> Result<(Option<Exporter>, Option<Live>)> {
        let exporter = self.prometheus.map(|address| {
            Exporter::start(board.clone(), address)
                .with_context(|| format!("cannot serve metrics on {address}"))
        });
        let live = self.live.then(|| Live::start(board.clone(), title, zero));
        Ok((exporter.transpose()?, live.transpose()?))
    }

    /// Makes one run to its end, or to the first Ctrl-C; a second one gives up what is in flight.
    pub fn drive(&self, plan: Plan) -> Result<Outcome> {
        let before = self.interrupts.count();
        let title = title(&plan);
        let (underway, engine, behind) = match &self.fleet {
            None => {
                let running = ballast_loadgen::start(plan)?;
                let engine = running.engine().to_owned();
                (Underway::Here(running), engine, Duration::ZERO)
            }
            Some(options) => {
                let fleet = Fleet::start(plan, options)?;
                let engine = format!("{} workers", fleet.workers());
                (Underway::There(fleet), engine, PROGRESS + LOOK * 2)
            }
        };
        let (board, zero) = underway.seen();
        let shown = self
            .show(
                board,
                Title {
                    engine,
                    behind,
                    ..title
                },
                zero,
            )
            .inspect_err(|_| underway.abort())?;
        while !underway.is_finished() {
            match self.interrupts.count() - before {
                0 => {}
                1 => underway.stop(),
                _ => underway.abort(),
            }
            std::thread::park_timeout(LOOK);
        }
        drop(shown);
        let mut outcome = underway.join()?;
        outcome.report.command.clone_from(&self.command);
        outcome.about.command.clone_from(&self.command);
        Ok(outcome)
    }
}

fn title(plan: &Plan) -> Title {
    let targets = plan.targets.iter();
    let names: Vec<_> = targets.map(|it| name_of(it, &plan.targets)).collect();
    Title {
        targets: names.join(", "),
        engine: String::new(),
        asked_rate: match &plan.pacing {
            Pacing::Open(profile) => Some(profile.mean_rate(plan.duration)),
            Pacing::Closed { .. } => None,
        },
        duration: plan.duration,
        behind: Duration::ZERO,
    }
}

impl Underway {
    fn is_finished(&self) -> bool {
        match self {
            Self::Here(running) => running.is_finished(),
            Self::There(fleet) => fleet.is_finished(),
        }
    }

    /// Returns where it is seen, and when its first request is due.
    fn seen(&self) -> (&Arc<Board>, Instant) {
        match self {
            Self::Here(running) => (running.board(), running.zero),
            Self::There(fleet) => (fleet.board(), fleet.zero()),
        }
    }

    fn stop(&self) {
        match self {
            Self::Here(running) => running.stop(),
            Self::There(fleet) => fleet.stop(),
        }
    }

    fn abort(&self) {
        match self {
            Self::Here(running) => running.abort(),
            Self::There(fleet) => fleet.abort(),
        }
    }

    fn join(self) -> Result<Outcome> {
        Ok(match self {
            Self::Here(running) => running.join()?,
            Self::There(fleet) => fleet.join(),
        })
    }
}

/// Returns the command line as it may be shown to others: without the token.
fn command_line(words: impl Iterator<Item = String>) -> Vec<String> {
    const HIDDEN: &str = "…";
    let mut shown: Vec<String> = Vec::new();
    for word in words {
        let follows = shown.last().is_some_and(|last| last == "--token");
        shown.push(match word.split_once('=') {
            _ if follows => HIDDEN.to_owned(),
            Some(("--token", _)) => format!("--token={HIDDEN}"),
            _ => word,
        });
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_is_not_in_the_command_line_of_a_report() {
        let words = [
            "ballast-loadgen",
            "--token",
            "a",
            "--token=b",
            "http://a/?--token=c",
        ];
        let shown = command_line(words.into_iter().map(str::to_owned));
        assert_eq!(
            shown,
            [
                "ballast-loadgen",
                "--token",
                "…",
                "--token=…",
                "http://a/?--token=c"
            ]
        );
    }
}
