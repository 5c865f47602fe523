//! Makes the probes that the worker asks for.

use std::fs::File;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ballast_model::{Exit, ProbeKind};
use ballast_probe::Question;

use super::Agent;
use crate::driver::process::exit::ExitWatch;
use crate::driver::process::{self, env, procfs};
use crate::worker::{Event, Probe, ProbeFailure};

/// What an asked-for probe of a runnable process gets at least: some time slices of every other
/// process of a busy machine.
const STARVED: Duration = Duration::from_millis(250);

impl Agent {
    pub(super) fn probe_task(self: Arc<Self>, probe: Probe) {
        let agent = self.clone();
        agent.spawn(async move {
            let result = self.probe(&probe).await;
            self.metrics
                .probed(&probe.bound.template.name, result.is_ok());
            self.dispatch(Event::Probed {
                assignment: probe.bound.assignment.assignment,
                task: probe.task,
                demand: probe.demand,
                result,
            });
        });
    }

    async fn probe(&self, probe: &Probe) -> Result<(), ProbeFailure> {
        let check = probe.bound.check.as_ref();
        // A stopped process cannot answer: known at once, without waiting for a timeout. Not looked
        // at in every periodic probe, where it would double the cost.
        if probe.demand || check.is_none() {
            let stat = procfs::Stat::read(probe.process.pid);
            if stat.is_some_and(procfs::Stat::is_stopped) {
                return Err(failure("the process is stopped"));
            }
        }
        let Some(check) = check else {
            return Ok(());
        };
        let timeout = probe.timeout.to_duration();
        let address = |name: &str| {
            let port = probe.bound.port(name);
            let port = port.ok_or_else(|| failure(format!("the task has no port `{name}`")))?;
            Ok::<_, ProbeFailure>(SocketAddr::new(self.address, port))
        };
        let question = match &check.probe {
            ProbeKind::Http { port, path, status } => Question::Http {
                address: address(port)?,
                path: path.clone(),
                status: *status,
            },
            ProbeKind::Tcp { port } => Question::Tcp {
                address: address(port)?,
            },
            ProbeKind::Command { argv } => {
                return self.probe_by_command(probe, argv, timeout).await;
            }
        };
        let mut answer = ballast_probe::ask(&question, timeout).await;
        // An asked-for probe has little time. A program that has work to do and waits for a CPU is
        // slow, not hung: it gets the time that a starved machine needs.
        let silent = answer.as_ref().is_err_and(|error| !error.is_refusal());
        if probe.demand && silent && timeout < STARVED {
            let stat = procfs::Stat::read(probe.process.pid);
            if stat.is_some_and(procfs::Stat::is_runnable) {
                answer = ballast_probe::ask(&question, STARVED).await;
            }
        }
        answer.map_err(|error| ProbeFailure {
            refused: error.is_refusal(),
            reason: error.to_string(),
        })
    }

    async fn probe_by_command(
        &self,
        probe: &Probe,
        argv: &[String],
        timeout: Duration,
    ) -> Result<(), ProbeFailure> {
        let _permit = self.commands.acquire().await;
        let (driver, bound, task) = (self.driver.clone(), probe.bound.clone(), probe.task);
        let argv = argv.to_vec();
        let spawn = move || {
            let mut spec = driver.spec_for_command(&bound, task, &argv)?;
            // Not to be taken for the task itself by the next life of the agent.
            spec.env.remove(env::ASSIGNMENT_ID);
            let null = || File::options().write(true).open("/dev/null");
            let (out, err) = (null(), null());
            let (out, err) = (
                out.map_err(process::StartError::Spawn)?,
                err.map_err(process::StartError::Spawn)?,
            );
            driver.spawn(&spec, out, err)
        };
        let started = tokio::task::spawn_blocking(spawn)
            .await
            .map_err(|error| failure(error.to_string()))?
            .map_err(|error| failure(format!("probe command: {error}")))?;
        let command = started.process;
        let watch = ExitWatch::new(started.pidfd).map_err(|error| failure(error.to_string()))?;
        let in_time = tokio::time::timeout(timeout, watch.ended()).await.is_ok();
        // What it has started must not outlive it, whether it was in time or not.
        process::kill_group(command);
        watch.ended().await;
        match watch.reap() {
            _ if !in_time => Err(failure(format!(
                "the probe command took longer than {timeout:?}"
            ))),
            Exit::Code(0) => Ok(()),
            exit => Err(failure(format!("the probe command ended with {exit}"))),
        }
    }
}

fn failure(reason: impl Into<String>) -> ProbeFailure {
    ProbeFailure {
        reason: reason.into(),
        refused: false,
    }
}
