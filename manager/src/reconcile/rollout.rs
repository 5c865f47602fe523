//! A rolling update's turn-taking: which lanes are replaced now, which wait.

use std::collections::BTreeSet;

use ballast_model::{Millis, Timestamp, UpdatePolicy};

use super::lane::Standing;
use crate::state::Lane;

/// The lanes of one service that still run an older template.
#[derive(Debug, Default)]
pub(super) struct Rollout {
    waiting: BTreeSet<Lane>,
    active: BTreeSet<Lane>,
    not_before: Option<Timestamp>,
}

impl Rollout {
    /// Takes over where a lane stands; `now` is when a batch ends that this was the last of.
    pub fn stands(
        &mut self,
        lane: Lane,
        standing: &Standing,
        policy: &UpdatePolicy,
        now: Timestamp,
    ) {
        let was_active = self.active.remove(&lane);
        self.waiting.remove(&lane);
        match standing {
            Standing::Done => {
                if was_active && self.active.is_empty() && policy.delay > Millis(0) {
                    self.not_before = Some(now.saturating_add(policy.delay));
                }
            }
            Standing::Active => {
                self.active.insert(lane);
            }
            Standing::Stale => {
                self.waiting.insert(lane);
            }
        }
    }

    /// Returns the lanes whose turn it is; they are active from now on.
    pub fn next(&mut self, policy: &UpdatePolicy, now: Timestamp) -> Vec<Lane> {
        // With a delay, whole batches follow each other; without one, lane follows lane.
        let mid_batch = policy.delay > Millis(0) && !self.active.is_empty();
        if mid_batch || self.wake().is_some_and(|due| now < due) {
            return Vec::new();
        }
        let most = match policy.parallelism {
            0 => usize::MAX,
            most => most as usize,
        };
        let mut turn = Vec::new();
        while self.active.len() < most {
            let Some(lane) = self.waiting.pop_first() else {
                break;
            };
            self.active.insert(lane);
            turn.push(lane);
        }
        turn
    }

    /// Returns when the delay between two batches is over, if lanes wait for it.
    pub fn wake(&self) -> Option<Timestamp> {
        self.not_before.filter(|_| !self.waiting.is_empty())
    }

    /// Returns whether every lane is done.
    pub fn is_done(&self) -> bool {
        self.waiting.is_empty() && self.active.is_empty()
    }
}
