//! What users ask of the leader's decisions that is no change of the state.

use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use crate::reconcile::Goal;

/// The last wish that nobody has taken up yet; a later one takes its place.
#[derive(Debug, Default)]
pub struct Wishes {
    goal: Mutex<Option<Goal>>,
    made: Notify,
}

impl Wishes {
    /// Asks for moves towards a goal.
    pub fn ask(&self, goal: Goal) {
        *self.goal.lock().unwrap_or_else(PoisonError::into_inner) = Some(goal);
        self.made.notify_one();
    }

    /// Returns what was asked for since the last time.
    pub(super) fn take(&self) -> Option<Goal> {
        let mut goal = self.goal.lock().unwrap_or_else(PoisonError::into_inner);
        goal.take()
    }

    /// Waits until there is something to take. Cancel-safe.
    pub(super) async fn made(&self) {
        self.made.notified().await;
    }
}
