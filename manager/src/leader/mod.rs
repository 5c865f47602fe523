//! What only the leader does, in one scope that ends with the leadership.
//!
//! [`supervise`] begins a [`Scope`] when this manager comes to lead and ends it, tasks awaited,
//! before it looks at who leads next: no leader-only loop outlives its leadership.

mod ingresses;
mod leases;
mod reconcile;
mod registry;
mod replacements;
mod wishes;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use ballast_model::view::PendingView;
use ballast_model::{Event, EventKind, Millis, NodeId, ServiceId};
use ballast_wire::log::Command;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::leases::{Leases, TICK};
pub use self::registry::{AgentDue, AgentLink, DueSet, IngressLink, LOG_MESSAGES, Registry};
use self::wishes::Wishes;
use crate::clock;
use crate::metrics::Metrics;
use crate::raft::{Leadership, Proposer, Replica, Watcher};
use crate::reconcile::MovePolicy;

/// What links and the API need of the leader's scope.
#[derive(Debug)]
pub struct LeaderContext {
    /// Takes changes to the log.
    pub proposer: Proposer,
    /// The applied state.
    pub replica: Arc<Replica>,
    /// The open links.
    pub registry: Arc<Registry>,
    /// Cancelled when the leadership ends.
    pub ended: CancellationToken,
    /// Counts.
    pub metrics: Metrics,
    /// What users ask of the leader's decisions.
    pub wishes: Wishes,
    /// Why tasks of services wait, and what would help.
    explanations: Mutex<BTreeMap<ServiceId, PendingView>>,
    moves: MovePolicy,
    leases: Mutex<Leases>,
}

impl LeaderContext {
    /// Notes a message from a node.
    pub fn heard(&self, node: NodeId, now: Instant) {
        self.leases().heard(node, now);
    }

    /// Returns how often each agent is to be heard.
    pub fn pace(&self) -> Millis {
        self.leases().pace()
    }

    /// Returns why tasks of a service wait, if some do.
    pub fn explanation(&self, service: ServiceId) -> Option<PendingView> {
        let known = self.explanations.lock();
        let known = known.unwrap_or_else(PoisonError::into_inner);
        known.get(&service).cloned()
    }

    fn explain(&self, explanations: &BTreeMap<ServiceId, PendingView>) {
        let known = self.explanations.lock();
        let mut known = known.unwrap_or_else(PoisonError::into_inner);
        if *known != *explanations {
            known.clone_from(explanations);
        }
    }

    fn leases(&self) -> std::sync::MutexGuard<'_, Leases> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The tasks of one leadership.
#[derive(Debug)]
pub struct Scope {
    context: Arc<LeaderContext>,
    tasks: JoinSet<()>,
}

impl Scope {
    /// Begins a leadership.
    pub fn begin(
        proposer: Proposer,
        replica: Arc<Replica>,
        metrics: Metrics,
        moves: MovePolicy,
    ) -> Self {
        let registry = Arc::new(Registry::default());
        let watcher: Weak<Registry> = Arc::downgrade(&registry);
        replica.watch(watcher as Weak<dyn Watcher>);
        let context = Arc::new(LeaderContext {
            proposer,
            replica,
            registry,
            ended: CancellationToken::new(),
            metrics,
            wishes: Wishes::default(),
            explanations: Mutex::default(),
            moves,
            leases: Mutex::new(Leases::new(Instant::now())),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(announce(Arc::clone(&context)));
        tasks.spawn(reconcile::run(Arc::clone(&context)));
        tasks.spawn(keep_leases(Arc::clone(&context)));
        tasks.spawn(ingresses::forget_gone(Arc::clone(&context)));
        tasks.spawn(replacements::measure(Arc::clone(&context)));
        Self { context, tasks }
    }

    /// Returns what links and the API need.
    pub fn context(&self) -> Arc<LeaderContext> {
        Arc::clone(&self.context)
    }

    /// Ends the leadership: links are told, tasks are aborted and awaited.
    pub async fn end(mut self) {
        self.context.ended.cancel();
        self.tasks.shutdown().await;
    }
}

/// Begins and ends scopes as the leadership comes and goes, until `shutdown` or until Raft stops.
pub async fn supervise(
    mut leadership: watch::Receiver<Leadership>,
    leader: watch::Sender<Option<Arc<LeaderContext>>>,
    begin: impl Fn() -> Scope,
    shutdown: CancellationToken,
) {
    let mut scope: Option<(u64, Scope)> = None;
    loop {
        let now = leadership.borrow_and_update().clone();
        let term = match now {
            Leadership::Leading { term } => Some(term),
            Leadership::Following { .. } | Leadership::Stopped(_) => None,
        };
        if scope.as_ref().map(|(term, _)| *term) != term {
            leader.send_replace(None);
            if let Some((term, ended)) = scope.take() {
                ended.end().await;
                tracing::info!(term, "leadership ended");
            }
            if let Some(term) = term {
                let begun = begin();
                leader.send_replace(Some(begun.context()));
                scope = Some((term, begun));
                tracing::info!(term, "this manager leads");
            }
        }
        let ended = matches!(now, Leadership::Stopped(_));
        tokio::select! {
            changed = leadership.changed(), if !ended => {
                if changed.is_err() {
                    break;
                }
            }
            () = shutdown.cancelled() => break,
            else => break,
        }
    }
    leader.send_replace(None);
    if let Some((_, scope)) = scope {
        scope.end().await;
    }
}

async fn announce(leader: Arc<LeaderContext>) {
    let event = Event {
        index: 0,
        time: clock::now(),
        kind: EventKind::LeaderElected,
        service: None,
        service_name: None,
        task: None,
        node: None,
        node_name: None,
        message: String::new(),
    };
    if let Err(error) = leader.proposer.propose(Command::Note(event)).await {
        tracing::debug!(%error, "the election was not noted");
    }
}

/// Judges every node's silence, and proposes what it makes of it.
async fn keep_leases(leader: Arc<LeaderContext>) {
    loop {
        let due = Instant::now() + TICK;
        tokio::time::sleep_until(due.into()).await;
        let commands = judge_nodes(&leader, due, Instant::now());
        if commands.is_empty() {
            continue;
        }
        // Not awaited to the end: the next tick must not be late for a slow disk. What was not
        // committed is found again then.
        let proposal = leader.proposer.propose_all(commands);
        if let Ok(Err(error)) = tokio::time::timeout(TICK, proposal).await {
            tracing::warn!(%error, "a node's status could not be changed");
        }
    }
}

fn judge_nodes(leader: &LeaderContext, due: Instant, now: Instant) -> Vec<Command> {
    let time = clock::now();
    let state = leader.replica.read();
    let mut leases = leader.leases();
    let late = leases.tick(due, now);
    leader.metrics.timer_late(late);
    leases.retain(|node| state.node(node).is_some());
    let nodes = state.nodes();
    if leases.set_nodes(nodes.len(), now) {
        leader.registry.mark_pace();
    }
    nodes
        .filter_map(|entry| {
            let node = entry.node.id;
            let status = leases.judge(node, entry.node.status, now);
            (status != entry.node.status).then_some(Command::SetNodeStatus { node, status, time })
        })
        .collect()
}
