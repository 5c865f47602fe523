//! What one step of the reconciler wants proposed.

use std::borrow::Cow;
use std::collections::BTreeMap;

use ballast_model::{Desired, TaskId, Timestamp};
use ballast_wire::log::{Batch, Command, NewTask, Placement};

/// Commands in the making; the order in which they are applied is the order of the fields.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub updates: Vec<Command>,
    pub stop: BTreeMap<Cow<'static, str>, Vec<TaskId>>,
    pub create: Vec<NewTask>,
    pub place: Vec<Placement>,
    pub pending: Vec<(TaskId, String)>,
}

impl Plan {
    /// Returns how many tasks are made or stopped.
    pub fn len(&self) -> usize {
        self.create.len() + self.stop.values().map(Vec::len).sum::<usize>()
    }

    /// Returns the batch to propose; empty if there is nothing to do.
    pub fn into_batch(self, time: Timestamp) -> Batch {
        let mut batch = self.updates;
        for (reason, tasks) in self.stop {
            batch.push(Command::SetDesired {
                tasks,
                desired: Desired::Shutdown,
                reason: reason.into_owned(),
                time,
            });
        }
        if !self.create.is_empty() {
            batch.push(Command::CreateTasks {
                tasks: self.create,
                time,
            });
        }
        if !self.place.is_empty() {
            batch.push(Command::PlaceTasks {
                placements: self.place,
                time,
            });
        }
        if !self.pending.is_empty() {
            batch.push(Command::SetPending {
                tasks: self.pending,
                time,
            });
        }
        batch
    }
}
