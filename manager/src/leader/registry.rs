//! The open links of agents and ingresses, and what each still has to be sent.
//!
//! Nothing is queued for a slow link: it is marked, and when it can send again it takes the newest.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ballast_model::{AssignmentId, IngressId, NodeId, ServiceId};
use ballast_wire::agent::{LogLines, ManagerToAgent};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::raft::Watcher;
use crate::state::Changes;

/// Requests (logs, certificates) that may wait for one agent's link; past it they are refused.
pub const AGENT_REQUESTS: usize = 256;
/// Messages of log lines that may wait for one client; a client that is further behind is cut off.
pub const LOG_MESSAGES: usize = 1024;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bindings that are noted one by one for a slow link; past it the whole set is due.
const NOTED_BINDINGS: usize = ballast_model::limits::DEFAULT_TASK_SLOTS as usize;

/// What of its assignment set an agent has to be sent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum DueSet {
    /// It has all.
    #[default]
    Nothing,
    /// These bindings are new, gone or different.
    Changed(BTreeSet<AssignmentId>),
    /// All of it.
    Whole,
}

impl DueSet {
    fn add(&mut self, more: &[AssignmentId]) {
        match self {
            Self::Nothing => *self = Self::Changed(more.iter().copied().collect()),
            Self::Changed(noted) => {
                noted.extend(more);
                if noted.len() > NOTED_BINDINGS {
                    *self = Self::Whole;
                }
            }
            Self::Whole => {}
        }
    }
}

/// What an agent has to be sent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AgentDue {
    /// Of its assignment set.
    pub assignments: DueSet,
    /// The list of ingresses is different.
    pub ingresses: bool,
    /// It is to be heard more or less often.
    pub pace: bool,
}

/// An agent's open link.
#[derive(Debug)]
pub struct AgentLink {
    due: Mutex<AgentDue>,
    marked: Notify,
    /// Takes requests to the agent.
    pub requests: mpsc::Sender<ManagerToAgent>,
    /// Ends the link: another of the same node has come.
    pub replaced: CancellationToken,
}

impl AgentLink {
    /// Makes a link to which everything is due, and the requests that it has to send.
    pub fn new() -> (Arc<Self>, mpsc::Receiver<ManagerToAgent>) {
        let (requests, receiver) = mpsc::channel(AGENT_REQUESTS);
        let link = Self {
            due: Mutex::new(AgentDue {
                assignments: DueSet::Whole,
                ingresses: true,
                pace: true,
            }),
            marked: Notify::new(),
            requests,
            replaced: CancellationToken::new(),
        };
        link.marked.notify_one();
        (Arc::new(link), receiver)
    }

    /// Notes what is due; without `wake` it is sent with what is due next.
    fn mark(&self, wake: bool, note: impl FnOnce(&mut AgentDue)) {
        note(&mut lock(&self.due));
        if wake {
            self.marked.notify_one();
        }
    }

    /// Waits until something is due, and takes it. Cancel-safe up to the moment it returns.
    pub async fn due(&self) -> AgentDue {
        loop {
            self.marked.notified().await;
            let due = std::mem::take(&mut *lock(&self.due));
            if due != AgentDue::default() {
                return due;
            }
        }
    }
}

/// An ingress's open link.
#[derive(Debug)]
pub struct IngressLink {
    due: Mutex<BTreeSet<ServiceId>>,
    marked: Notify,
    /// Ends the link: another of the same ingress has come.
    pub replaced: CancellationToken,
}

impl IngressLink {
    /// Makes a link to which nothing is due: it begins with a snapshot.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            due: Mutex::default(),
            marked: Notify::new(),
            replaced: CancellationToken::new(),
        })
    }

    fn mark(&self, services: &BTreeSet<ServiceId>) {
        lock(&self.due).extend(services);
        self.marked.notify_one();
    }

    /// Waits until services are due, and takes them. Cancel-safe up to the moment it returns.
    pub async fn due(&self) -> BTreeSet<ServiceId> {
        loop {
            self.marked.notified().await;
            let due = std::mem::take(&mut *lock(&self.due));
            if !due.is_empty() {
                return due;
            }
        }
    }
}

/// All open links of one leadership.
#[derive(Debug, Default)]
pub struct Registry {
    agents: Mutex<BTreeMap<NodeId, Arc<AgentLink>>>,
    ingresses: Mutex<BTreeMap<IngressId, Arc<IngressLink>>>,
    logs: Mutex<LogRequests>,
}

/// The dispatcher: every change marks the links to which something is due.
impl Watcher for Registry {
    fn changed(&self, changes: &[Changes]) {
        let mut nodes: BTreeMap<NodeId, NodeDue> = BTreeMap::new();
        let mut services = BTreeSet::new();
        let mut ingresses = false;
        for changes in changes {
            let mut named = BTreeSet::new();
            for (node, binding) in &changes.bindings {
                nodes.entry(*node).or_default().bindings.push(*binding);
                named.insert(*node);
            }
            for node in &changes.nodes {
                let due = nodes.entry(*node).or_default();
                due.told = true;
                due.whole |= !named.contains(node);
            }
            services.extend(&changes.services);
            ingresses |= changes.ingresses;
        }
        self.mark_agents(&nodes, ingresses);
        if !services.is_empty() {
            for link in lock(&self.ingresses).values() {
                link.mark(&services);
            }
        }
    }
}

/// What one entry of the log changed on a node.
#[derive(Debug, Default)]
struct NodeDue {
    bindings: Vec<AssignmentId>,
    whole: bool,
    told: bool,
}

#[derive(Debug, Default)]
struct LogRequests {
    last: u64,
    waiting: HashMap<u64, (NodeId, mpsc::Sender<LogLines>)>,
}

impl Registry {
    /// Adds a node's link; one that it had before is ended.
    pub fn add_agent(&self, node: NodeId, link: &Arc<AgentLink>) {
        if let Some(before) = lock(&self.agents).insert(node, Arc::clone(link)) {
            before.replaced.cancel();
        }
    }

    /// Takes a node's link out, unless it was replaced already, and ends its log requests.
    pub fn remove_agent(&self, node: NodeId, link: &Arc<AgentLink>) {
        let mut agents = lock(&self.agents);
        if agents
            .get(&node)
            .is_some_and(|current| Arc::ptr_eq(current, link))
        {
            agents.remove(&node);
        }
        drop(agents);
        // Dropping the senders tells the readers.
        lock(&self.logs).waiting.retain(|_, (of, _)| *of != node);
    }

    /// Returns a node's link.
    pub fn agent(&self, node: NodeId) -> Option<Arc<AgentLink>> {
        lock(&self.agents).get(&node).cloned()
    }

    /// Adds an ingress's link; one that it had before is ended.
    pub fn add_ingress(&self, ingress: IngressId, link: &Arc<IngressLink>) {
        if let Some(before) = lock(&self.ingresses).insert(ingress, Arc::clone(link)) {
            before.replaced.cancel();
        }
    }

    /// Takes an ingress's link out, unless it was replaced already.
    pub fn remove_ingress(&self, ingress: IngressId, link: &Arc<IngressLink>) {
        let mut ingresses = lock(&self.ingresses);
        if ingresses
            .get(&ingress)
            .is_some_and(|current| Arc::ptr_eq(current, link))
        {
            ingresses.remove(&ingress);
        }
    }

    /// Returns whether an ingress has a link.
    pub fn has_ingress(&self, ingress: IngressId) -> bool {
        lock(&self.ingresses).contains_key(&ingress)
    }

    fn mark_agents(&self, nodes: &BTreeMap<NodeId, NodeDue>, ingresses: bool) {
        let agents = lock(&self.agents);
        for (node, changed) in nodes {
            if let Some(link) = agents.get(node) {
                link.mark(changed.told, |due| {
                    if changed.whole {
                        due.assignments = DueSet::Whole;
                    } else {
                        due.assignments.add(&changed.bindings);
                    }
                });
            }
        }
        if ingresses {
            for link in agents.values() {
                link.mark(true, |due| due.ingresses = true);
            }
        }
    }

    /// Tells every agent how often it is to be heard.
    pub fn mark_pace(&self) {
        for link in lock(&self.agents).values() {
            link.mark(true, |due| due.pace = true);
        }
    }

    /// Opens a request for log lines of a node; the lines arrive at `sender`.
    pub fn open_logs(&self, node: NodeId, sender: mpsc::Sender<LogLines>) -> u64 {
        let mut logs = lock(&self.logs);
        logs.last += 1;
        let request = logs.last;
        logs.waiting.insert(request, (node, sender));
        request
    }

    /// Closes a request.
    pub fn close_logs(&self, request: u64) {
        lock(&self.logs).waiting.remove(&request);
    }

    /// Hands lines to who asked. Returns whether more are wanted: not if nobody waits for them, if
    /// they come from another node than was asked, or if the reader is [`LOG_MESSAGES`] behind.
    pub fn deliver_logs(&self, node: NodeId, lines: LogLines) -> bool {
        let request = lines.request;
        let last = lines.end.is_some();
        let mut logs = lock(&self.logs);
        let delivered = match logs.waiting.get(&request) {
            Some((of, sender)) if *of == node => sender.try_send(lines).is_ok(),
            _ => return last,
        };
        if last || !delivered {
            logs.waiting.remove(&request);
        }
        last || delivered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn slow_link_has_at_most_one_of_each_due() {
        let registry = Registry::default();
        let node = NodeId::from_bits(1);
        let (link, _requests) = AgentLink::new();
        registry.add_agent(node, &link);
        assert_eq!(link.due().await.assignments, DueSet::Whole);
        let bindings = [AssignmentId::from_bits(1), AssignmentId::from_bits(2)];
        for n in 0..1000 {
            registry.changed(&[Changes {
                nodes: BTreeSet::from([node]),
                bindings: vec![(node, bindings[n % 2])],
                ..Changes::default()
            }]);
        }
        let due = link.due().await;
        assert_eq!(due.assignments, DueSet::Changed(bindings.into()));
        assert!(!due.ingresses);
        let again = tokio::time::timeout(std::time::Duration::from_millis(20), link.due());
        assert!(again.await.is_err(), "nothing is left");
    }

    #[tokio::test]
    async fn what_an_agent_did_itself_waits_for_what_it_has_to_be_told() {
        let registry = Registry::default();
        let node = NodeId::from_bits(1);
        let (link, _requests) = AgentLink::new();
        registry.add_agent(node, &link);
        link.due().await;
        let change = |bits, told: bool| Changes {
            nodes: told.then_some(node).into_iter().collect(),
            bindings: vec![(node, AssignmentId::from_bits(bits))],
            ..Changes::default()
        };
        registry.changed(&[change(1, false)]);
        let due = tokio::time::timeout(std::time::Duration::from_millis(20), link.due());
        assert!(due.await.is_err(), "it knows already");
        registry.changed(&[change(2, true)]);
        let both = [1, 2].map(AssignmentId::from_bits);
        assert_eq!(link.due().await.assignments, DueSet::Changed(both.into()));
        registry.changed(&[Changes {
            nodes: BTreeSet::from([node]),
            ..Changes::default()
        }]);
        assert_eq!(link.due().await.assignments, DueSet::Whole);
    }

    #[tokio::test]
    async fn link_that_takes_nothing_is_owed_one_whole_set_and_not_a_list_without_end() {
        let registry = Registry::default();
        let node = NodeId::from_bits(1);
        let (link, _requests) = AgentLink::new();
        registry.add_agent(node, &link);
        link.due().await;
        for bits in 0..=NOTED_BINDINGS as u64 {
            registry.changed(&[Changes {
                nodes: BTreeSet::from([node]),
                bindings: vec![(node, AssignmentId::from_bits(bits))],
                ..Changes::default()
            }]);
        }
        assert_eq!(link.due().await.assignments, DueSet::Whole);
    }

    #[test]
    fn second_link_of_a_node_ends_the_first() {
        let registry = Registry::default();
        let node = NodeId::from_bits(1);
        let (first, _) = AgentLink::new();
        let (second, _) = AgentLink::new();
        registry.add_agent(node, &first);
        registry.add_agent(node, &second);
        assert!(first.replaced.is_cancelled() && !second.replaced.is_cancelled());
        registry.remove_agent(node, &first);
        assert!(registry.agent(node).is_some(), "the second stays");
    }

    #[test]
    fn log_lines_reach_only_who_asked_that_node_and_a_slow_reader_is_cut_off() {
        let registry = Registry::default();
        let (asked, other) = (NodeId::from_bits(1), NodeId::from_bits(2));
        let (sender, mut lines) = mpsc::channel(1);
        let request = registry.open_logs(asked, sender);
        let message = || LogLines {
            request,
            lines: Vec::new(),
            end: None,
        };
        assert!(!registry.deliver_logs(other, message()));
        assert!(registry.deliver_logs(asked, message()));
        assert!(
            !registry.deliver_logs(asked, message()),
            "one waits already"
        );
        assert!(lines.try_recv().is_ok());
        assert!(matches!(
            lines.try_recv(),
            Err(mpsc::error::TryRecvError::Disconnected)
        ));
    }
}
