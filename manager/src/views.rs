//! What the API answers: views of the state.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use ballast_model::view::{
    ExcludedView, NearestView, NodeView, PendingView, Replicas, ResourcesView, ServiceView,
    StackView, TaskView, UpdateView,
};
use ballast_model::{Desired, Health, Mode, Node, Slot, Taint, TaintEffect, TaskState};
use ballast_scheduler::Refusal;

use crate::state::{Lane, NodeEntry, Service, State, TaskEntry, Update};

/// Problems shown of one service at most; the rest are alike in practice.
const PROBLEMS: usize = 10;

/// Returns every service, by name.
pub fn services(state: &State) -> Vec<ServiceView> {
    let mut views: Vec<ServiceView> = state
        .services()
        .map(|service| service_view(state, service))
        .collect();
    views.sort_by(|a, b| a.name.cmp(&b.name).then(a.created.cmp(&b.created)));
    views
}

/// Returns one service.
pub fn service_view(state: &State, service: &Service) -> ServiceView {
    ServiceView {
        id: service.id,
        name: service.spec.name.clone(),
        generation: service.generation,
        spec: service.spec.clone(),
        replicas: replicas(state, service),
        update: match service.update {
            Update::Completed => UpdateView::Completed,
            Update::Running { .. } => UpdateView::Updating,
            Update::Paused { .. } => UpdateView::Paused,
        },
        problems: problems(state, service),
        pending: None,
        created: service.created,
        updated: service.updated,
    }
}

/// Returns how many replicas a service wants and has. Of two that fill one slot while one replaces
/// the other, one counts.
pub fn replicas(state: &State, service: &Service) -> Replicas {
    let mut count = Replicas {
        desired: desired(state, service),
        ..Replicas::default()
    };
    for (lane, _) in state.lanes(service.id) {
        let mut best = (false, false, false);
        for entry in state.lane(lane) {
            let observed = &entry.task.observed;
            let running =
                observed.state == TaskState::Running && entry.task.desired == Desired::Running;
            best.0 |= running;
            best.1 |= running && observed.health == Health::Healthy;
            best.2 |= observed.state == TaskState::Complete && entry.finished;
        }
        count.running += u32::from(best.0);
        count.healthy += u32::from(best.1);
        count.complete += u32::from(best.2);
    }
    count
}

fn desired(state: &State, service: &Service) -> u32 {
    match service.spec.mode {
        _ if service.removing => 0,
        Mode::Replicated { replicas } => replicas,
        Mode::Job { completions, .. } => completions,
        Mode::Global {} => {
            let filled = |node: &NodeEntry| {
                let lane = Lane {
                    service: service.id,
                    slot: Slot(0),
                    pinned: Some(node.node.id),
                };
                state.lane(lane).any(|entry| state.occupies(entry))
            };
            let wanted = state.nodes().filter(|node| {
                let takes = node.node.is_schedulable() && is_welcome(service, &node.node);
                wants_global(service, node) && (takes || filled(node))
            });
            u32::try_from(wanted.count()).unwrap_or(u32::MAX)
        }
    }
}

/// Returns whether a global service wants a task on a node: it lives, is not drained, meets the
/// constraints and has no taint that expels its tasks. A paused node keeps what it has.
pub fn wants_global(service: &Service, node: &NodeEntry) -> bool {
    use ballast_model::{Availability, NodeStatus};
    !service.removing
        && node.node.status != NodeStatus::Down
        && node.node.availability != Availability::Drain
        && service
            .spec
            .placement
            .constraints
            .iter()
            .all(|constraint| node.node.meets(constraint))
        && expelling(service, &node.node).is_none()
}

/// Returns whether no taint of a node keeps new tasks of a service away.
pub fn is_welcome(service: &Service, node: &Node) -> bool {
    unborne(service, node).all(|taint| taint.effect == TaintEffect::PreferNoSchedule)
}

fn unborne<'a>(service: &'a Service, node: &'a Node) -> impl Iterator<Item = &'a Taint> {
    let borne = &service.spec.placement.tolerations;
    let taints = node.taints.iter();
    taints.filter(move |taint| !borne.iter().any(|toleration| toleration.bears(taint)))
}

/// Returns the first taint of a node by which a service's tasks have to leave it.
pub fn expelling<'a>(service: &'a Service, node: &'a Node) -> Option<&'a Taint> {
    unborne(service, node).find(|taint| taint.effect == TaintEffect::NoExecute)
}

/// Returns why a service is not what it should be, worst first, alike ones counted together.
fn problems(state: &State, service: &Service) -> Vec<String> {
    let mut found: BTreeMap<(u8, String), u32> = BTreeMap::new();
    if service.removing {
        let text = format!("is being removed; {} tasks still stop", service.live);
        found.insert((0, text), 1);
    }
    if let Update::Paused { reason } = &service.update {
        found.insert((0, format!("update paused: {reason}")), 1);
    }
    for (lane, _) in state.lanes(service.id) {
        // Only the newest try says how the slot is now.
        let Some(entry) = state.lane(lane).next_back() else {
            continue;
        };
        if let Some((rank, text)) = problem(entry) {
            *found.entry((rank, text)).or_default() += 1;
        }
    }
    let mut lines: Vec<((u8, String), u32)> = found.into_iter().collect();
    lines.sort_by_key(|((rank, _), count)| (*rank, std::cmp::Reverse(*count)));
    lines
        .into_iter()
        .take(PROBLEMS)
        .map(|((_, text), count)| match count {
            1 => text,
            _ => format!("{count} tasks: {text}"),
        })
        .collect()
}

fn problem(entry: &TaskEntry) -> Option<(u8, String)> {
    let observed = &entry.task.observed;
    if entry.task.desired == Desired::Shutdown {
        return None;
    }
    let with = |word: &str| {
        if observed.message.is_empty() {
            word.to_owned()
        } else {
            format!("{word}: {}", observed.message)
        }
    };
    match observed.state {
        TaskState::Failed => Some((1, with("failed"))),
        TaskState::Rejected => Some((1, with("rejected"))),
        TaskState::New | TaskState::Pending if !observed.message.is_empty() => {
            Some((2, with("pending")))
        }
        TaskState::Lost => Some((3, with("lost"))),
        TaskState::Running if observed.health == Health::Unhealthy => Some((4, with("unhealthy"))),
        _ => None,
    }
}

/// Returns why no node takes a task, or which would.
pub fn pending_view(refusal: &Refusal) -> PendingView {
    PendingView {
        nodes: refusal.nodes,
        fit: refusal.fit,
        excluded: refusal
            .excluded
            .iter()
            .map(|excluded| ExcludedView {
                reason: excluded.reason.to_string(),
                nodes: excluded.nodes,
            })
            .collect(),
        nearest: refusal.nearest.as_ref().map(|miss| NearestView {
            node: miss.node.clone(),
            lacks: miss.lacks.iter().map(ToString::to_string).collect(),
        }),
        suggestions: Vec::new(),
    }
}

/// Returns a service's tasks: by slot, the newest first; of a global service by node.
pub fn tasks(state: &State, service: &Service) -> Vec<TaskView> {
    state
        .lanes(service.id)
        .flat_map(|(lane, _)| state.lane(lane).rev())
        .map(|entry| task_view(state, entry))
        .collect()
}

/// Returns one task.
pub fn task_view(state: &State, entry: &TaskEntry) -> TaskView {
    let task = &entry.task;
    let binding = task.binding.as_ref();
    let node_id = binding.map(|binding| binding.node).or(entry.pinned);
    let node = node_id.and_then(|id| state.node(id));
    let first = binding.and_then(|binding| binding.ports.first());
    let service = state.service(task.service);
    TaskView {
        id: task.id,
        service: service.map_or_else(String::new, |service| service.spec.name.clone()),
        slot: task.slot,
        node: node_id.map(|id| match node {
            Some(node) => node.node.description.name.clone(),
            None => id.to_string(),
        }),
        pid: task.observed.pid,
        state: task.observed.state,
        desired: task.desired,
        health: task.observed.health,
        address: first.and_then(|bound| {
            let address = node?.node.description.address;
            Some(SocketAddr::new(address, bound.port).to_string())
        }),
        ports: binding.map_or_else(Vec::new, |binding| binding.ports.clone()),
        generation: task.generation,
        message: task.observed.message.clone(),
        exit: task.observed.exit,
        restarts: binding.map_or(0, |binding| binding.restarts),
        assignment: binding.map(|binding| binding.assignment),
        since: task.observed.since,
    }
}

/// Returns every node, by name.
pub fn nodes(state: &State) -> Vec<NodeView> {
    let mut views: Vec<NodeView> = state.nodes().map(node_view).collect();
    views.sort_by(|a, b| a.name.cmp(&b.name).then(a.id.cmp(&b.id)));
    views
}

/// Returns one node.
pub fn node_view(entry: &NodeEntry) -> NodeView {
    let node = &entry.node;
    let mut labels = node.description.labels.clone();
    labels.extend(node.labels.clone());
    let capacity = &node.description.capacity;
    NodeView {
        id: node.id,
        name: node.description.name.clone(),
        status: node.status,
        availability: node.availability,
        address: node.description.address.to_string(),
        capacity: ResourcesView {
            cpu_millis: u64::from(capacity.cpu.0),
            memory_bytes: capacity.memory.0,
            tasks: capacity.task_slots,
        },
        allocated: ResourcesView {
            cpu_millis: entry.allocation.cpu,
            memory_bytes: entry.allocation.memory,
            tasks: entry.allocation.tasks,
        },
        labels,
        attributes: node.description.attributes.clone(),
        taints: node.taints.clone(),
        pool: node.description.pool.clone(),
        offered: ResourcesView {
            cpu_millis: u64::from(node.offered.cpu.0),
            memory_bytes: node.offered.memory.0,
            tasks: node.offered.task_slots,
        },
        since: node.since,
    }
}

/// Returns every stack with its services' names.
pub fn stacks(state: &State) -> Vec<StackView> {
    let mut stacks: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for service in state.services().filter(|service| !service.removing) {
        if let Some(stack) = &service.spec.stack {
            stacks
                .entry(stack)
                .or_default()
                .push(service.spec.name.clone());
        }
    }
    stacks
        .into_iter()
        .map(|(name, mut services)| {
            services.sort();
            StackView {
                name: name.to_owned(),
                services,
            }
        })
        .collect()
}
