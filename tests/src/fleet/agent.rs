//! One agent that runs nothing.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use ballast_link::{Link, LinkError, Peer, Role, Trust, alpn};
use ballast_model::{
    AssignmentId, Capacity, Desired, Health, Incarnation, NodeDescription, NodeId, Observed,
    Sequence, TaskId, TaskState, Timestamp, limits,
};
use ballast_wire::agent::{AgentHello, AgentToManager, AssignmentSet, ManagerToAgent, TaskReport};
use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::{Counts, Manner, wall_us};

/// The wait before a link that was lost is tried again.
const AGAIN: Duration = Duration::from_millis(100);

type AgentLink = Link<AgentToManager, ManagerToAgent>;

/// Returns the name of the n-th.
pub(super) fn name(nth: usize) -> String {
    format!("fake-{nth}")
}

/// Who it is and how it behaves.
pub(super) struct Agent {
    pub nth: usize,
    pub trust: Arc<Trust>,
    pub manager: SocketAddr,
    pub capacity: Capacity,
    pub manner: Manner,
    pub counts: Arc<Counts>,
    pub stop: CancellationToken,
}

/// What it knows; outlives its links.
#[derive(Default)]
struct Known {
    set: AssignmentSet,
    tasks: HashMap<AssignmentId, (TaskId, TaskState)>,
    sets: usize,
}

impl Agent {
    /// Lives until it is stopped.
    pub async fn run(self) {
        let mut known = Known::default();
        loop {
            let session = self.session(&mut known);
            tokio::select! {
                () = self.stop.cancelled() => return,
                // Whatever ended it, an agent calls again.
                _ = session => {}
            }
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(AGAIN) => {}
            }
        }
    }

    async fn session(&self, known: &mut Known) -> Result<(), LinkError> {
        let peer = Peer {
            address: self.manager,
            role: Role::Manager,
            id: None,
        };
        let (stream, peer) = self.trust.connect(peer, alpn::LINK).await?;
        let mut link = AgentLink::new(stream, peer);
        link.sender.send(&self.hello(known)).await?;
        match link.receiver.recv().await? {
            Some(ManagerToAgent::Welcome { .. }) => {}
            _ => return Ok(()),
        }
        self.counts.connected.fetch_add(1, Relaxed);
        let ended = self.serve(&mut link, known).await;
        self.counts.connected.fetch_sub(1, Relaxed);
        ended
    }

    async fn serve(&self, link: &mut AgentLink, known: &mut Known) -> Result<(), LinkError> {
        let mut beat = self.beat(limits::HEARTBEAT_INTERVAL.to_duration());
        loop {
            tokio::select! {
                _ = beat.tick() => link.sender.send(&AgentToManager::Heartbeat).await?,
                message = link.receiver.recv(), if self.manner != Manner::Deaf => match message? {
                    None => return Ok(()),
                    Some(ManagerToAgent::Assignments(set)) => {
                        if set.generation >= known.set.generation {
                            known.set = set;
                            if !self.take(link, known).await? {
                                return Ok(());
                            }
                        }
                    }
                    Some(ManagerToAgent::Changes(changes)) => {
                        if !known.set.patch(changes) || !self.take(link, known).await? {
                            return Ok(());
                        }
                    }
                    Some(ManagerToAgent::Beat(pace)) => beat = self.beat(pace.to_duration()),
                    Some(_) => {}
                },
            }
        }
    }

    /// Returns a clock whose ticks are not those of the other agents, as agents that were not
    /// started at one moment have it.
    fn beat(&self, interval: Duration) -> Interval {
        let first = interval.mul_f64((self.nth % 997) as f64 / 997.0);
        let mut beat = tokio::time::interval_at(tokio::time::Instant::now() + first, interval);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        beat
    }

    fn hello(&self, known: &Known) -> AgentToManager {
        let told = known
            .tasks
            .iter()
            .map(|(id, (task, state))| report(*id, *task, *state));
        AgentToManager::Hello(AgentHello {
            node: NodeId::from_bits(self.trust.identity().id),
            incarnation: Incarnation(1),
            description: NodeDescription {
                name: name(self.nth),
                address: IpAddr::V4(Ipv4Addr::LOCALHOST),
                capacity: self.capacity.clone(),
                attributes: [("os".to_owned(), "linux".to_owned())].into(),
                labels: [("zone".to_owned(), format!("z{}", self.nth % 3))].into(),
                pool: ballast_model::node::DEFAULT_POOL.to_owned(),
            },
            generation: known.set.generation,
            tasks: match self.manner {
                Manner::Acknowledges => Vec::new(),
                _ => told.collect(),
            },
        })
    }

    /// Takes a set over; returns whether the link goes on.
    async fn take(&self, link: &mut AgentLink, known: &mut Known) -> Result<bool, LinkError> {
        known.sets += 1;
        self.counts.sets.fetch_add(1, Relaxed);
        if let Manner::Resets(every) = self.manner
            && known.sets.is_multiple_of(every)
        {
            self.counts.resets.fetch_add(1, Relaxed);
            return Ok(false);
        }
        if let Manner::Slow(wait) = self.manner {
            tokio::time::sleep(wait).await;
        }
        let reports = self.compare(known);
        let applied = AgentToManager::Applied(known.set.generation);
        link.sender.queue(&applied)?;
        if !reports.is_empty() {
            link.sender.queue(&AgentToManager::Report(reports))?;
        }
        link.sender.flush().await?;
        Ok(true)
    }

    /// Returns what is to be said of what is new in a set.
    fn compare(&self, known: &mut Known) -> Vec<TaskReport> {
        let set = &known.set;
        let mut reports = Vec::new();
        let mut heard = Vec::new();
        let mut ended = 0;
        let named: HashSet<AssignmentId> = set.assignments.iter().map(|a| a.assignment).collect();
        known.tasks.retain(|id, (_, state)| {
            let stays = named.contains(id);
            ended += usize::from(!stays && !state.is_terminal());
            stays
        });
        for assignment in &set.assignments {
            let id = assignment.assignment;
            let state = match (assignment.desired, known.tasks.get(&id)) {
                (Desired::Running, None) => {
                    heard.push(assignment.task);
                    TaskState::Running
                }
                (Desired::Shutdown, Some((_, state))) if !state.is_terminal() => {
                    ended += 1;
                    TaskState::Shutdown
                }
                (Desired::Shutdown, None) => TaskState::Shutdown,
                _ => continue,
            };
            known.tasks.insert(id, (assignment.task, state));
            if state.is_terminal() || self.manner != Manner::Acknowledges {
                reports.push(report(id, assignment.task, state));
            }
        }
        self.counts.hear(&heard);
        self.counts.living.fetch_add(heard.len(), Relaxed);
        self.counts.living.fetch_sub(ended, Relaxed);
        reports
    }
}

fn report(assignment: AssignmentId, task: TaskId, state: TaskState) -> TaskReport {
    let runs = state == TaskState::Running;
    TaskReport {
        task,
        assignment,
        restarts: 0,
        will_restart: false,
        observed: Observed {
            state,
            health: if runs {
                Health::Healthy
            } else {
                Health::Unhealthy
            },
            sequence: Sequence(if runs { 1 } else { 2 }),
            pid: runs.then_some(4711),
            exit: None,
            message: String::new(),
            since: Timestamp(wall_us()),
        },
    }
}
