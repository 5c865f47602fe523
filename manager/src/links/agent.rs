//! One agent's link: its hello, its reports up, its assignments down.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ballast_link::{Link, LinkReceiver, LinkSender, Role};
use ballast_model::{AssignmentId, Generation, NodeId, TaskId};
use ballast_wire::agent::{AgentHello, AgentToManager, LogLines, ManagerToAgent, TaskReport};
use ballast_wire::log::Command;
use tokio::sync::{Notify, mpsc};

use super::{HELLO_TIMEOUT, SessionEnd};
use crate::ca::Ca;
use crate::leader::{AgentDue, AgentLink, DueSet, LeaderContext};
use crate::raft::{ProposeError, Replica};
use crate::state::State;
use crate::{clock, project};

/// The least time between two assignment sets on one link, so that a burst of changes is sent as
/// one set and not as one each.
const SET_INTERVAL: Duration = Duration::from_millis(2);
/// How long reports wait before they are proposed again when the log takes none.
const REPORT_RETRY: Duration = Duration::from_millis(100);
/// Reports that may wait for the log from one node: twice the tasks a node may run. A node that has
/// more is out of its mind, and its link is closed.
const WAITING_REPORTS: usize = 2 * ballast_model::limits::DEFAULT_TASK_SLOTS as usize;

type Sender = LinkSender<ManagerToAgent>;
type Receiver = LinkReceiver<AgentToManager>;

/// Serves a link until it ends.
pub(super) async fn serve(
    mut link: Link<ManagerToAgent, AgentToManager>,
    leader: &Arc<LeaderContext>,
    ca: &Ca,
) -> Result<(), SessionEnd> {
    let node = NodeId::from_bits(link.peer.id);
    let hello = match greet(&mut link.receiver, node, &leader.replica).await {
        Ok(hello) => hello,
        Err(end) => return Err(refuse(&mut link.sender, end).await),
    };
    let name = hello.description.name.clone();
    leader.heard(node, Instant::now());
    if let Err(end) = register(hello, leader).await {
        return Err(refuse(&mut link.sender, end).await);
    }
    let welcome = ManagerToAgent::Welcome {
        cluster: ca.cluster(),
    };
    link.sender.send(&welcome).await?;
    tracing::info!(node_id = %node, node = name, "agent connected");
    let session = Session {
        node,
        leader,
        ca,
        reports: Reports::default(),
    };
    let (entry, requests) = AgentLink::new();
    leader.registry.add_agent(node, &entry);
    let end = session.run(link, &entry, requests).await;
    leader.registry.remove_agent(node, &entry);
    tracing::info!(node_id = %node, node = name, "agent disconnected");
    end
}

/// Tells the agent why, if the reason is the agent's fault.
async fn refuse(sender: &mut Sender, end: SessionEnd) -> SessionEnd {
    if let SessionEnd::Refused(reason) = &end {
        // The link is closed in any case.
        let _ = sender.send(&ManagerToAgent::Refused(reason.clone())).await;
        sender.close().await;
    }
    end
}

async fn greet(
    receiver: &mut Receiver,
    node: NodeId,
    replica: &Replica,
) -> Result<AgentHello, SessionEnd> {
    let first = tokio::time::timeout(HELLO_TIMEOUT, receiver.recv()).await;
    let Ok(Some(AgentToManager::Hello(hello))) = first.map_err(|_| SessionEnd::Silent)? else {
        let reason = "the first message on a link is a hello";
        return Err(SessionEnd::Refused(reason.to_owned()));
    };
    if hello.node != node {
        return Err(SessionEnd::Refused(format!(
            "the certificate is that of node {node}, the hello says node {}",
            hello.node
        )));
    }
    let state = replica.read();
    if let Some(known) = state.node(node)
        && known.node.incarnation > hello.incarnation
    {
        return Err(SessionEnd::Refused(format!(
            "a newer agent of node {node} has connected already (life {}, this is {})",
            known.node.incarnation, hello.incarnation
        )));
    }
    drop(state);
    check_reports(node, &hello.tasks, replica)?;
    Ok(hello)
}

/// Refuses reports of tasks that are bound to another node.
fn check_reports(
    node: NodeId,
    reports: &[TaskReport],
    replica: &Replica,
) -> Result<(), SessionEnd> {
    let state = replica.read();
    let foreign = reports.iter().find_map(|report| {
        let task = state.assignment(report.assignment)?.task;
        let owner = state.task(task)?.task.binding.as_ref()?.node;
        (owner != node).then_some((report.task, owner))
    });
    match foreign {
        None => Ok(()),
        Some((task, owner)) => Err(SessionEnd::Refused(format!(
            "node {node} reports on task {task}, which runs on node {owner}"
        ))),
    }
}

async fn register(hello: AgentHello, leader: &LeaderContext) -> Result<(), SessionEnd> {
    let time = clock::now();
    let mut commands = vec![Command::RegisterNode {
        node: hello.node,
        incarnation: hello.incarnation,
        description: hello.description,
        time,
    }];
    if !hello.tasks.is_empty() {
        commands.push(Command::Report {
            node: hello.node,
            tasks: hello.tasks,
            time,
        });
    }
    let outcomes = leader
        .proposer
        .propose_all(commands)
        .await
        .map_err(SessionEnd::NotCommitted)?;
    match outcomes.into_iter().next() {
        Some(Err(rejection)) => Err(SessionEnd::Refused(rejection.to_string())),
        _ => Ok(()),
    }
}

/// A link past its hello.
struct Session<'a> {
    node: NodeId,
    leader: &'a LeaderContext,
    ca: &'a Ca,
    reports: Reports,
}

impl Session<'_> {
    async fn run(
        &self,
        link: Link<ManagerToAgent, AgentToManager>,
        entry: &AgentLink,
        requests: mpsc::Receiver<ManagerToAgent>,
    ) -> Result<(), SessionEnd> {
        let Link {
            mut sender,
            receiver,
            ..
        } = link;
        let end = tokio::select! {
            end = self.read(receiver, entry) => end,
            end = self.write(&mut sender, entry, requests) => end,
            end = self.report() => end,
            () = entry.replaced.cancelled() => Err(SessionEnd::Replaced),
            () = self.leader.ended.cancelled() => Err(SessionEnd::LeadershipLost),
        };
        match end {
            Err(SessionEnd::LeadershipLost) => {
                let redirect = ManagerToAgent::Redirect { leader: None };
                let _ = sender.send(&redirect).await;
                end
            }
            Err(end) => Err(refuse(&mut sender, end).await),
            Ok(()) => Ok(()),
        }
    }

    async fn read(&self, mut receiver: Receiver, entry: &AgentLink) -> Result<(), SessionEnd> {
        while let Some(message) = receiver.recv().await? {
            self.leader.heard(self.node, Instant::now());
            match message {
                AgentToManager::Heartbeat | AgentToManager::Applied(_) => {}
                AgentToManager::Report(reports) => {
                    check_reports(self.node, &reports, &self.leader.replica)?;
                    self.reports.add(reports)?;
                }
                AgentToManager::LogLines(lines) => self.deliver(lines, entry),
                AgentToManager::Renew { csr } => {
                    let chain = self
                        .ca
                        .issue(&csr, Role::Agent, self.node.to_bits())
                        .map_err(|error| SessionEnd::Refused(format!("renewal: {error}")))?;
                    request(entry, ManagerToAgent::Certificate(chain));
                }
                AgentToManager::Hello(_) => {
                    let reason = "a link has one hello".to_owned();
                    return Err(SessionEnd::Refused(reason));
                }
            }
        }
        Ok(())
    }

    fn deliver(&self, lines: LogLines, entry: &AgentLink) {
        let id = lines.request;
        if !self.leader.registry.deliver_logs(self.node, lines) {
            request(entry, ManagerToAgent::CancelLogs { request: id });
        }
    }

    async fn write(
        &self,
        sender: &mut Sender,
        entry: &AgentLink,
        mut requests: mpsc::Receiver<ManagerToAgent>,
    ) -> Result<(), SessionEnd> {
        // What the agent holds by what was sent on this link; a link begins with the whole set.
        let mut held = None;
        loop {
            tokio::select! {
                due = entry.due() => {
                    self.send_due(sender, due, &mut held).await?;
                    tokio::time::sleep(SET_INTERVAL).await;
                }
                Some(message) = requests.recv() => sender.send(&message).await?,
            }
        }
    }

    async fn send_due(
        &self,
        sender: &mut Sender,
        due: AgentDue,
        held: &mut Option<Generation>,
    ) -> Result<(), SessionEnd> {
        let (set, ingresses) = {
            let state = self.leader.replica.read();
            (
                project_due(&state, self.node, &due.assignments, *held),
                due.ingresses.then(|| project::ingress_addresses(&state)),
            )
        };
        if due.pace {
            sender.queue(&ManagerToAgent::Beat(self.leader.pace()))?;
        }
        if let Some(ingresses) = ingresses {
            sender.queue(&ManagerToAgent::Ingresses(ingresses))?;
        }
        if let Some((generation, message)) = set {
            sender.queue(&message)?;
            *held = Some(generation);
        }
        Ok(sender.flush().await?)
    }

    /// Takes reports to the log, all that came meanwhile in one command.
    async fn report(&self) -> Result<(), SessionEnd> {
        loop {
            let tasks = self.reports.take().await;
            let command = Command::Report {
                node: self.node,
                tasks: tasks.clone(),
                time: clock::now(),
            };
            match self.leader.proposer.propose(command).await {
                Ok(_) => {}
                Err(error) if error.is_retryable() => {
                    tracing::warn!(node_id = %self.node, %error, "reports wait");
                    self.reports.put_back(tasks);
                    tokio::time::sleep(REPORT_RETRY).await;
                }
                Err(error @ ProposeError::NotLeader { .. }) => {
                    tracing::debug!(%error, "report not taken");
                    return Err(SessionEnd::LeadershipLost);
                }
                Err(error) => return Err(SessionEnd::NotCommitted(error)),
            }
        }
    }
}

/// Returns what an agent that holds a generation of its set is sent, and the generation it then
/// holds; none if nothing of the set is due.
fn project_due(
    state: &State,
    node: NodeId,
    due: &DueSet,
    held: Option<Generation>,
) -> Option<(Generation, ManagerToAgent)> {
    match (due, held) {
        (DueSet::Nothing, _) => None,
        (DueSet::Changed(bindings), Some(base)) => {
            let changes = project::assignment_changes(state, node, base, bindings);
            Some((changes.generation, ManagerToAgent::Changes(changes)))
        }
        _ => {
            let set = project::assignment_set(state, node);
            Some((set.generation, ManagerToAgent::Assignments(set)))
        }
    }
}

/// Queues a message to the agent; one that is this far behind will not miss it.
fn request(entry: &AgentLink, message: ManagerToAgent) {
    if entry.requests.try_send(message).is_err() {
        tracing::debug!("an agent's requests are full");
    }
}

/// Reports that wait for the log: the newest of each try, tries of one binding in order.
#[derive(Debug, Default)]
struct Reports {
    waiting: Mutex<BTreeMap<(AssignmentId, u32, TaskId), TaskReport>>,
    filled: Notify,
}

impl Reports {
    fn add(&self, reports: Vec<TaskReport>) -> Result<(), SessionEnd> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        for report in reports {
            waiting.insert((report.assignment, report.restarts, report.task), report);
        }
        if waiting.len() > WAITING_REPORTS {
            let reason = format!("more than {WAITING_REPORTS} reports wait for the log");
            return Err(SessionEnd::Refused(reason));
        }
        drop(waiting);
        self.filled.notify_one();
        Ok(())
    }

    /// Puts reports back that were not taken, unless newer ones of the same tries came.
    fn put_back(&self, reports: Vec<TaskReport>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        for report in reports {
            waiting
                .entry((report.assignment, report.restarts, report.task))
                .or_insert(report);
        }
        drop(waiting);
        self.filled.notify_one();
    }

    async fn take(&self) -> Vec<TaskReport> {
        loop {
            self.filled.notified().await;
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            let taken = std::mem::take(&mut *waiting);
            drop(waiting);
            if !taken.is_empty() {
                return taken.into_values().collect();
            }
        }
    }
}
