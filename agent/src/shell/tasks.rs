//! Starts programs and watches them to their end.

use std::sync::Arc;
use std::time::Instant;

use ballast_model::{Exit, TaskId};

use super::Agent;
use crate::driver::process::exit::ExitWatch;
use crate::driver::process::{self, StartError, Started, procfs};
use crate::worker::{Bound, Event, Process, Start};

impl Agent {
    pub(super) fn start_task(self: Arc<Self>, start: Start) {
        self.logs.watch(start.bound.assignment.assignment);
        let agent = self.clone();
        agent.spawn(async move {
            let Start { bound, task } = start;
            let assignment = bound.assignment.assignment;
            match self.start_program(&bound, task).await {
                Ok((process, watch)) => {
                    self.dispatch(Event::Started(assignment, task, process));
                    self.watch_task(&bound, task, process, watch).await;
                }
                Err(error) => {
                    let reason = error.to_string();
                    tracing::warn!(service = bound.template.name, task_id = %task, reason, "cannot start a task");
                    self.metrics.rejected(&bound.template.name);
                    self.dispatch(Event::Rejected(assignment, task, reason));
                }
            }
        });
    }

    async fn start_program(
        &self,
        bound: &Arc<Bound>,
        task: TaskId,
    ) -> Result<(Process, ExitWatch), StartError> {
        let _permit = self.starts.acquire().await;
        let begun = Instant::now();
        let (driver, shared) = (self.driver.clone(), bound.clone());
        let started = tokio::task::spawn_blocking(move || driver.start(&shared, task)).await;
        let Started { process, pidfd } =
            started.map_err(|error| StartError::Spawn(std::io::Error::other(error)))??;
        self.metrics.started(&bound.template.name, begun.elapsed());
        let watch = ExitWatch::new(pidfd)
            .map_err(StartError::Spawn)
            .inspect_err(|_| {
                self.driver.kill(bound.assignment.assignment, process);
            })?;
        Ok((process, watch))
    }

    pub(super) fn adopt_task(self: Arc<Self>, bound: Arc<Bound>, task: TaskId, process: Process) {
        self.logs.watch(bound.assignment.assignment);
        let agent = self.clone();
        agent.spawn(async move {
            match process::adopt(process).and_then(ExitWatch::new) {
                Ok(watch) => self.watch_task(&bound, task, process, watch).await,
                Err(_) => self.finish(&bound, task, process, Exit::Unknown).await,
            }
        });
    }

    async fn watch_task(
        self: &Arc<Self>,
        bound: &Arc<Bound>,
        task: TaskId,
        process: Process,
        watch: ExitWatch,
    ) {
        watch.ended().await;
        // The ingresses first: everything below can wait, requests cannot.
        self.dispatch(Event::Exiting(bound.assignment.assignment, task));
        if let Some(stat) = procfs::Stat::read(process.pid)
            && stat.start_time == process.start_time
        {
            // Still a zombie, so neither its pid nor its group can mean anybody else.
            self.metrics
                .ended(&bound.template.name, task, stat.cpu_ticks);
            process::kill_group(process);
        }
        let exit = watch.reap();
        self.finish(bound, task, process, exit).await;
    }

    async fn finish(
        self: &Arc<Self>,
        bound: &Arc<Bound>,
        task: TaskId,
        process: Process,
        exit: Exit,
    ) {
        let assignment = bound.assignment.assignment;
        // With cgroups this is one short file; without, all of /proc.
        let listed = self.driver.cgroups.can_list();
        if !listed || !self.driver.leftovers(assignment, process).is_empty() {
            let _permit = self.sweeps.acquire().await;
            let driver = self.driver.clone();
            let sweep = tokio::task::spawn_blocking(move || driver.sweep(assignment, process));
            let left = sweep.await.unwrap_or_default();
            if left > 0 {
                tracing::info!(service = bound.template.name, task_id = %task, left, "killed what a task had left behind");
            }
        }
        tracing::info!(service = bound.template.name, task_id = %task, %exit, "a task has ended");
        self.metrics.exited(&bound.template.name, exit);
        self.dispatch(Event::Exited(assignment, task, exit));
    }
}
