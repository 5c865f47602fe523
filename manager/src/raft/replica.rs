//! The applied state, shared by everything in this process that reads it.

use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, Weak};

use ballast_wire::log::Command;
use tokio::sync::{Notify, watch};

use super::types::Outcome;
use crate::metrics::Metrics;
use crate::state::{Changes, State};

/// Something that hears of every change as soon as it is applied. It is called while the next entry
/// waits, so it only takes note.
pub trait Watcher: Send + Sync {
    /// Takes note of what the commands of one entry changed, in their order.
    fn changed(&self, changes: &[Changes]);
}

/// The state as the last applied entry left it, and who wants to hear of changes.
pub struct Replica {
    state: RwLock<State>,
    applied: watch::Sender<u64>,
    watchers: Mutex<Vec<Weak<dyn Watcher>>>,
    metrics: Metrics,
}

impl std::fmt::Debug for Replica {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replica")
            .field("applied", &*self.applied.borrow())
            .finish_non_exhaustive()
    }
}

impl Replica {
    /// Wraps a state that came from a snapshot, or an empty one.
    pub fn new(state: State, metrics: Metrics) -> Arc<Self> {
        Arc::new(Self {
            state: RwLock::new(state),
            applied: watch::Sender::new(0),
            watchers: Mutex::default(),
            metrics,
        })
    }

    /// Returns the state for a short look: applying waits until the guard is gone, so it is never
    /// held across an `await`.
    pub fn read(&self) -> RwLockReadGuard<'_, State> {
        // A panic in `apply` is a breach of an invariant, and ends the process in release builds.
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the index of the last applied entry, and a way to wait for the next.
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    /// Tells a watcher of every change from now on, as long as it lives.
    pub fn watch(&self, watcher: Weak<dyn Watcher>) {
        let mut watchers = self.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        watchers.retain(|watcher| watcher.strong_count() > 0);
        watchers.push(watcher);
    }

    /// Applies the commands of one entry.
    pub(super) fn apply(&self, index: u64, batch: &[Command]) -> Vec<Outcome> {
        let applied = {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            state.apply_batch(batch)
        };
        let (outcomes, changes): (Vec<_>, Vec<_>) = applied
            .into_iter()
            .map(|applied| (applied.result, applied.changes))
            .unzip();
        let watchers = self.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        for watcher in watchers.iter().filter_map(Weak::upgrade) {
            watcher.changed(&changes);
        }
        drop(watchers);
        self.pass(index);
        outcomes
    }

    /// Puts another state in place: a snapshot from the leader. Only a follower gets one, and
    /// nothing watches a follower's changes.
    pub(super) fn replace(&self, index: u64, state: State) {
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = state;
        self.pass(index);
    }

    /// Notes an entry as applied.
    pub(super) fn pass(&self, index: u64) {
        self.metrics.applied(index);
        self.applied.send_replace(index);
    }
}

/// Commands whose changes an [`Inbox`] holds at most.
const INBOX_CHANGES: usize = 65_536;

/// What commands changed, one by one and in order, until it is taken.
#[derive(Debug, Default)]
pub struct Inbox {
    waiting: Mutex<Waiting>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    changes: Vec<Changes>,
    overflow: bool,
}

impl Inbox {
    /// Takes what has changed since the last time; none if so much did that it was dropped, and
    /// the reader has to look at everything.
    pub fn take(&self) -> Option<Vec<Changes>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = std::mem::take(&mut *waiting);
        (!taken.overflow).then_some(taken.changes)
    }

    /// Waits until there is something to take. Cancel-safe.
    pub async fn filled(&self) {
        self.filled.notified().await;
    }
}

impl Watcher for Inbox {
    fn changed(&self, changes: &[Changes]) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let new = changes.iter().filter(|changes| !changes.is_empty());
        if waiting.overflow || waiting.changes.len() + changes.len() > INBOX_CHANGES {
            *waiting = Waiting {
                changes: Vec::new(),
                overflow: true,
            };
        } else {
            waiting.changes.extend(new.cloned());
        }
        let is_filled = waiting.overflow || !waiting.changes.is_empty();
        drop(waiting);
        if is_filled {
            self.filled.notify_one();
        }
    }
}
