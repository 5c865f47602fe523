//! Runs the reconciler: shows it what changed, and proposes what it decides.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ballast_model::{Millis, Timestamp};
use ballast_wire::log::Batch;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::LeaderContext;
use crate::clock;
use crate::raft::{Inbox, ProposeError, Watcher};
use crate::reconcile::Reconciler;

/// How long nothing is decided after a decision could not be written.
const RETRY: Duration = Duration::from_millis(200);
/// The longest wait without a look at the timers, whatever they say.
const LONGEST_WAIT: Millis = Millis::from_secs(60);

/// Decides until the leadership ends.
pub(super) async fn run(leader: Arc<LeaderContext>) {
    let seed = getrandom::u64().unwrap_or_else(|_| clock::now().0);
    let inbox = Arc::new(Inbox::default());
    let watcher: Arc<dyn Watcher> = inbox.clone();
    leader.replica.watch(Arc::downgrade(&watcher));
    // After the inbox, so that nothing is missed; what is seen twice does no harm.
    let reconciler = Reconciler::with_policy(&leader.replica.read(), leader.moves);
    let mut planner = Planner {
        reconciler,
        rng: StdRng::seed_from_u64(seed),
        inbox,
        leader,
    };
    loop {
        let batch = planner.plan();
        if batch.is_empty() {
            planner.wait().await;
        } else if planner.propose(batch).await.is_err() {
            return;
        }
    }
}

struct Planner {
    reconciler: Reconciler,
    rng: StdRng,
    inbox: Arc<Inbox>,
    leader: Arc<LeaderContext>,
}

impl Planner {
    fn plan(&mut self) -> Batch {
        let state = self.leader.replica.read();
        match self.inbox.take() {
            None => self.reconciler.rebuild(&state),
            Some(changes) => {
                for changes in changes {
                    self.reconciler.observe(&state, &changes);
                }
            }
        }
        if let Some(goal) = self.leader.wishes.take() {
            self.reconciler.rebalance(goal);
        }
        let now = clock::now();
        if self.reconciler.next_wake().is_none_or(|due| due > now) {
            return Batch::new();
        }
        let started = Instant::now();
        let batch = self.reconciler.step(&state, now, &mut self.rng);
        self.leader.explain(self.reconciler.explanations());
        self.leader.metrics.reconciled(started.elapsed());
        batch
    }

    async fn wait(&self) {
        let now = clock::now();
        let due = self.reconciler.next_wake();
        let rest = due.map_or(LONGEST_WAIT, |due: Timestamp| {
            due.since(now).min(LONGEST_WAIT)
        });
        // Millis are cut: one more, or a wait could end before its time again and again.
        let rest = rest.to_duration() + Duration::from_millis(1);
        tokio::select! {
            () = self.inbox.filled() => {}
            () = self.leader.wishes.made() => {}
            () = tokio::time::sleep(rest) => {}
        }
    }

    /// Proposes a batch; an error means that the leadership is over.
    async fn propose(&mut self, batch: Batch) -> Result<(), ProposeError> {
        match self.leader.proposer.propose_all(batch).await {
            Ok(outcomes) => {
                for rejection in outcomes.into_iter().filter_map(Result::err) {
                    // Something changed between the plan and its being applied.
                    tracing::debug!(%rejection, "decision refused");
                }
                Ok(())
            }
            Err(error) if error.is_retryable() => {
                tracing::warn!(%error, "decisions wait");
                tokio::time::sleep(RETRY).await;
                // What was planned is not going to happen: plan again from what is.
                self.reconciler.rebuild(&self.leader.replica.read());
                Ok(())
            }
            Err(error) => {
                tracing::debug!(%error, "decision not taken");
                Err(error)
            }
        }
    }
}
