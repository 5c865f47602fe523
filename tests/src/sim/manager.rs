//! The leader's shell: proposals, leases, links, and the loss of its memory.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ballast_manager::project::assignment_set;
use ballast_manager::reconcile::Reconciler;
use ballast_manager::state::State;
use ballast_model::{ClusterId, NodeId, NodeStatus, TaskId, TaskState, limits};
use ballast_wire::agent::{AgentToManager, ManagerToAgent};
use ballast_wire::log::{Batch, Command};
use rand::RngExt as _;

use super::world::{Event, MILLI, Micros, SECOND, World};

/// How often the leader looks at leases and lets the reconciler step.
const TICK: Micros = 10 * MILLI;

/// A batch on its way into the log.
#[derive(Debug)]
struct Proposal {
    batch: Batch,
    /// It is the reconciler's, which waits for it.
    planned: bool,
}

/// The managers: one state that leads and one that follows, and what only the leader has.
#[derive(Debug, Default)]
pub(super) struct Manager {
    pub state: State,
    pub replica: State,
    pub reconciler: Option<Reconciler>,
    proposals: VecDeque<Proposal>,
    last_commit: Micros,
    heard: BTreeMap<NodeId, Micros>,
    linked: BTreeSet<NodeId>,
    /// The newest life of each agent that said hello: the links of earlier ones are closed then.
    lives: BTreeMap<NodeId, u64>,
    /// Statuses that are proposed and not applied yet.
    proposed: BTreeMap<NodeId, NodeStatus>,
    pub lifecycles: BTreeMap<TaskId, TaskState>,
}

impl Manager {
    /// Returns whether a batch of the reconciler has not been applied yet.
    pub fn is_waiting(&self) -> bool {
        self.proposals.iter().any(|proposal| proposal.planned)
    }

    /// Returns a hash of the state's bytes.
    pub fn digest(&self) -> u64 {
        let bytes = self.state.to_snapshot().expect("a state encodes");
        bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
    }
}

impl World {
    pub(super) fn start_leader(&mut self) {
        if self.manager.reconciler.is_some() {
            return;
        }
        self.say(|| "a leader is elected".to_owned());
        let manager = &mut self.manager;
        // What a leader knows it read from disk.
        let bytes = manager.state.to_snapshot().expect("a state encodes");
        manager.state = State::from_snapshot(&bytes).expect("what was written is read");
        manager.reconciler = Some(Reconciler::new(&manager.state));
        manager.proposed.clear();
        manager.linked.clear();
        let now = self.now;
        let nodes = manager.state.nodes();
        manager.heard = nodes.map(|entry| (entry.node.id, now)).collect();
        self.after(TICK, Event::LeaderTick);
    }

    /// The leader forgets everything that is not in the log. Of what it had proposed, a part is
    /// applied all the same.
    pub(super) fn crash_leader(&mut self) {
        if self.manager.reconciler.take().is_none() {
            return;
        }
        self.summary.crashes += 1;
        let keep = self.rng.random_range(0..=self.manager.proposals.len());
        self.say(|| format!("the leader crashes, {keep} proposals survive"));
        self.manager.proposals.truncate(keep);
        for proposal in &mut self.manager.proposals {
            proposal.planned = false;
        }
        for host in self.hosts.values_mut() {
            host.connected = false;
        }
        let delay = self.draw(10 * MILLI, 3 * SECOND);
        self.after(delay, Event::LeaderStart);
    }

    pub(super) fn propose(&mut self, batch: Batch) {
        self.enter(Proposal {
            batch,
            planned: false,
        });
    }

    fn enter(&mut self, proposal: Proposal) {
        let delay = self.draw(MILLI / 10, 8 * MILLI);
        let at = (self.now + delay).max(self.manager.last_commit + 1);
        self.manager.last_commit = at;
        self.manager.proposals.push_back(proposal);
        self.at(at, Event::Commit);
    }

    pub(super) fn commit(&mut self) -> Result<(), String> {
        let Some(proposal) = self.manager.proposals.pop_front() else {
            return Ok(());
        };
        self.summary.entries += 1;
        for command in &proposal.batch {
            self.say(|| format!("applies {command:?}"));
            let manager = &mut self.manager;
            let applied = manager.state.apply(command);
            let other = manager.replica.apply(command);
            if applied != other {
                return Err(format!("{command:?} gave {applied:?} and {other:?}"));
            }
            self.summary.refused += applied.changes.refused.len() as u64;
            if let Command::SetNodeStatus { node, .. } = command {
                self.manager.proposed.remove(node);
            }
            if let Some(reconciler) = &mut self.manager.reconciler {
                reconciler.observe(&self.manager.state, &applied.changes);
            }
            if let Command::RegisterNode { node, .. } = command {
                if applied.result.is_ok() {
                    self.manager.linked.insert(*node);
                } else {
                    let why = ManagerToAgent::Refused("stale".to_owned());
                    self.send(*node, Event::ToAgent(*node, why));
                }
            }
            for node in &applied.changes.nodes {
                self.dispatch(*node);
            }
            self.check_applied()?;
        }
        self.check_index()
    }

    fn dispatch(&mut self, node: NodeId) {
        let leads = self.manager.reconciler.is_some();
        if leads && self.manager.linked.contains(&node) {
            let set = assignment_set(&self.manager.state, node);
            self.send(node, Event::ToAgent(node, ManagerToAgent::Assignments(set)));
        }
    }

    pub(super) fn manager_hears(&mut self, node: NodeId, life: u64, message: AgentToManager) {
        if self.manager.reconciler.is_none() {
            return;
        }
        let newest = self.manager.lives.entry(node).or_default();
        if life < *newest {
            return;
        }
        *newest = life;
        let time = self.wall();
        let linked = self.manager.linked.contains(&node);
        match message {
            AgentToManager::Hello(hello) => {
                self.manager.heard.insert(node, self.now);
                let welcome = ManagerToAgent::Welcome {
                    cluster: ClusterId::from_bits(1),
                };
                self.send(node, Event::ToAgent(node, welcome));
                self.propose(vec![
                    Command::RegisterNode {
                        node,
                        incarnation: hello.incarnation,
                        description: hello.description,
                        time,
                    },
                    Command::Report {
                        node,
                        tasks: hello.tasks,
                        time,
                    },
                ]);
            }
            // A link begins with a hello; without one the leader knows nobody there.
            _ if !linked => {}
            AgentToManager::Heartbeat => self.heard(node),
            AgentToManager::Report(tasks) => {
                self.heard(node);
                self.propose(vec![Command::Report { node, tasks, time }]);
            }
            _ => {}
        }
    }

    fn heard(&mut self, node: NodeId) {
        self.manager.heard.insert(node, self.now);
        self.propose_status(node, NodeStatus::Ready);
    }

    fn propose_status(&mut self, node: NodeId, status: NodeStatus) {
        let known = self.manager.state.node(node).map(|entry| entry.node.status);
        let last = self.manager.proposed.get(&node).copied().or(known);
        if known.is_none() || last == Some(status) {
            return;
        }
        self.manager.proposed.insert(node, status);
        let time = self.wall();
        self.propose(vec![Command::SetNodeStatus { node, status, time }]);
    }

    pub(super) fn leader_tick(&mut self) -> Result<(), String> {
        if self.manager.reconciler.is_none() {
            return Ok(());
        }
        self.after(TICK, Event::LeaderTick);
        let nodes: Vec<(NodeId, NodeStatus)> = self
            .manager
            .state
            .nodes()
            .map(|entry| (entry.node.id, entry.node.status))
            .collect();
        for (node, status) in nodes {
            let heard = self.manager.heard.get(&node).copied().unwrap_or(0);
            let silent = (self.now - heard) / MILLI;
            if silent > limits::NODE_DOWN_AFTER.0 {
                self.propose_status(node, NodeStatus::Down);
            } else if silent > limits::NODE_SUSPECT_AFTER.0 && status == NodeStatus::Ready {
                self.propose_status(node, NodeStatus::Suspect);
            }
        }
        self.reconcile()
    }

    fn reconcile(&mut self) -> Result<(), String> {
        let now = self.wall();
        if self.manager.is_waiting() {
            return Ok(());
        }
        let manager = &mut self.manager;
        let reconciler = manager.reconciler.as_mut().expect("only a leader ticks");
        if reconciler.next_wake().is_none_or(|due| due > now) {
            return Ok(());
        }
        let batch = reconciler.step(&manager.state, now, &mut self.rng);
        if batch.is_empty() {
            return Ok(());
        }
        self.check_moves(&batch)?;
        let chance = self.faults.unknown;
        if self.unlucky(chance) {
            // The outcome is not known: it never comes, or it comes when nobody waits for it.
            let lost = self.rng.random_bool(0.5);
            self.say(|| format!("a batch has no known outcome, lost: {lost}"));
            let manager = &mut self.manager;
            let reconciler = manager.reconciler.as_mut().expect("still leads");
            reconciler.rebuild(&manager.state);
            if !lost {
                self.propose(batch);
            }
            return Ok(());
        }
        self.enter(Proposal {
            batch,
            planned: true,
        });
        Ok(())
    }
}
