//! Makes runs, here or on workers, and heeds Ctrl-C while they go on.

use std::time::Duration;

use anyhow::Result;
use ballast_loadgen::fleet::coordinator::{Fleet, FleetOptions};
use ballast_loadgen::plan::Plan;
use ballast_loadgen::{Outcome, Running};

use super::args::MachineArgs;
use super::interrupt::Interrupts;

/// How often a run is looked at: nobody sees a shorter delay.
const LOOK: Duration = Duration::from_millis(100);

/// Where runs are made.
pub struct Driver {
    /// Of Ctrl-C.
    pub interrupts: Interrupts,
    fleet: Option<FleetOptions>,
    command: Vec<String>,
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
        })
    }

    /// Makes one run to its end, or to the first Ctrl-C; a second one gives up what is in flight.
    pub fn drive(&self, plan: Plan) -> Result<Outcome> {
        let before = self.interrupts.count();
        let underway = match &self.fleet {
            None => Underway::Here(ballast_loadgen::start(plan)?),
            Some(options) => Underway::There(Fleet::start(plan, options)?),
        };
        while !underway.is_finished() {
            match self.interrupts.count() - before {
                0 => {}
                1 => underway.stop(),
                _ => underway.abort(),
            }
            std::thread::park_timeout(LOOK);
        }
        let mut outcome = underway.join()?;
        outcome.report.command.clone_from(&self.command);
        outcome.about.command.clone_from(&self.command);
        Ok(outcome)
    }
}

impl Underway {
    fn is_finished(&self) -> bool {
        match self {
            Self::Here(running) => running.is_finished(),
            Self::There(fleet) => fleet.is_finished(),
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
