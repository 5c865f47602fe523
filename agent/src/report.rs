//! What is still to be reported to the manager: the newest of each try, in order.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ballast_model::{Generation, TaskId};
use ballast_wire::agent::TaskReport;
use tokio::sync::Notify;

/// Reports kept for a manager that is slow; past them all is forgotten and everything is sent
/// anew, which is less.
const QUEUE: usize = 8192;

/// What a manager is to be sent next.
#[derive(Debug, PartialEq, Eq)]
pub enum Batch {
    /// These reports, then this generation if there is one.
    Some(Vec<TaskReport>, Option<Generation>),
    /// A snapshot: there were too many.
    Everything,
}

#[derive(Debug, Default)]
struct Queue {
    /// Whether a manager is there to take them; what happens without one is in the next snapshot.
    connected: bool,
    overflow: bool,
    reports: Vec<TaskReport>,
    places: BTreeMap<TaskId, usize>,
    applied: Option<Generation>,
}

/// Reports on their way to the manager.
#[derive(Debug, Default)]
pub struct Reports {
    queue: Mutex<Queue>,
    changed: Notify,
}

impl Reports {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a report; one of the same try that was not sent yet is replaced.
    pub fn push(&self, report: TaskReport) {
        let mut queue = self.lock();
        if !queue.connected || queue.overflow {
            return;
        }
        match queue.places.get(&report.task).copied() {
            Some(place) => queue.reports[place] = report,
            None if queue.reports.len() >= QUEUE => {
                queue.overflow = true;
                queue.reports.clear();
                queue.places.clear();
            }
            None => {
                let place = queue.reports.len();
                queue.places.insert(report.task, place);
                queue.reports.push(report);
            }
        }
        drop(queue);
        self.changed.notify_one();
    }

    /// Adds that a set is being acted on.
    pub fn applied(&self, generation: Generation) {
        self.lock().applied = Some(generation);
        self.changed.notify_one();
    }

    /// Forgets what is queued, as a snapshot has it, and queues from now on.
    pub fn begin(&self) {
        let mut queue = self.lock();
        *queue = Queue {
            connected: true,
            applied: queue.applied,
            ..Queue::default()
        };
    }

    /// Forgets what is queued and queues nothing more.
    pub fn end(&self) {
        *self.lock() = Queue::default();
    }

    /// Waits until there is something to send.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Takes what there is.
    pub fn take(&self) -> Batch {
        let mut queue = self.lock();
        if queue.overflow {
            return Batch::Everything;
        }
        queue.places.clear();
        Batch::Some(std::mem::take(&mut queue.reports), queue.applied.take())
    }
}
