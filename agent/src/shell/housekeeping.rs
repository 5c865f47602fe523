//! What has to be done now and then: logs kept in bounds, what is over cleared away.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::{Instant, SystemTime};

use ballast_model::AssignmentId;
use tokio_util::sync::CancellationToken;

use super::Agent;
use crate::driver::process::Files;
use crate::logs::Logs;

/// Assignments that are over whose logs are kept, so that `service logs` and people can read why;
/// the oldest go first.
const ENDED_LOGS: usize = 100;

impl Agent {
    pub(super) async fn keep_house(self: Arc<Self>, shutdown: CancellationToken) {
        let mut interval = tokio::time::interval(Logs::check_interval());
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut first = true;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = interval.tick() => {}
            }
            let agent = self.clone();
            let round = move || {
                agent.logs.check(Instant::now());
                agent.clear_retired(first);
            };
            first = false;
            // A panic in there would be a bug of ours; the next round tries again.
            drop(tokio::task::spawn_blocking(round).await);
        }
    }

    /// Removes the cgroups and scratch folders of assignments that are over, and old logs. Not
    /// done where they are forgotten: removing a cgroup may take the kernel milliseconds.
    pub(super) fn clear_retired(&self, first: bool) {
        let retired = {
            let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *retired)
        };
        if retired.is_empty() && !first {
            return;
        }
        for assignment in retired {
            self.driver.forget(assignment);
            let files = Files::of(&self.driver.folder, assignment);
            if let Err(error) = fs::remove_dir_all(&files.work)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::debug!(%assignment, %error, "cannot remove a scratch folder");
            }
        }
        let known: BTreeSet<AssignmentId> = self.lock().worker.assignments_known().collect();
        let mut ended: Vec<(SystemTime, PathBuf)> = fs::read_dir(&self.driver.folder)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| {
                let name = entry.file_name();
                let id = name
                    .to_str()
                    .and_then(|name| name.parse::<AssignmentId>().ok());
                id.is_some_and(|id| !known.contains(&id))
            })
            .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
            .collect();
        ended.sort_unstable();
        let surplus = ended.len().saturating_sub(ENDED_LOGS);
        for (_, folder) in ended.drain(..surplus) {
            if let Err(error) = fs::remove_dir_all(&folder) {
                tracing::debug!(folder = %folder.display(), %error, "cannot remove old logs");
            }
        }
    }
}
