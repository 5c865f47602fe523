//! A user who keeps changing what is wanted.

use std::collections::BTreeMap;

use ballast_manager::reconcile::Goal;
use ballast_manager::state::Service;
use ballast_model::{Availability, Mode, NodeId, NodeStatus, ServiceId, ServiceSpec};
use ballast_wire::log::Command;
use rand::RngExt as _;

use super::world::{Event, MILLI, SECOND, World};

/// Services at once: as many as surely fit.
const SERVICES: usize = 5;

/// How often a user asks for tasks to be moved.
const WISHES_PER_REBALANCE: u64 = 3;

/// Returns a service of one of a few kinds, small enough that all of them fit.
fn spec(number: u64, kind: u32, count: u32) -> ServiceSpec {
    let name = format!("s{number}");
    let action = ["rollback", "continue", "pause"][usize::try_from(number % 3).expect("below 3")];
    let order = if number.is_multiple_of(2) {
        "stop-first"
    } else {
        "start-first"
    };
    let mode = match kind {
        0..=4 => serde_json::json!({ "replicated": { "replicas": count } }),
        5 => serde_json::json!({ "global": {} }),
        _ => serde_json::json!({ "job": { "completions": count, "parallelism": 2 } }),
    };
    let ports = match kind {
        0 => serde_json::json!([]),
        // On each node once at most.
        1 => serde_json::json!([{ "name": "http", "target": { "fixed": 8000 + number } }]),
        _ => serde_json::json!([{ "name": "http" }, { "name": "admin", "protocol": "tcp" }]),
    };
    let spread = match kind {
        2 => serde_json::json!([{ "over": "node" }]),
        3 => serde_json::json!([{ "over": "node.labels.zone" }]),
        _ => serde_json::json!([]),
    };
    let constraints = match kind {
        4 => serde_json::json!(["node.labels.zone==a"]),
        _ => serde_json::json!([]),
    };
    let spec = serde_json::json!({
        "name": name,
        "mode": mode,
        "ports": ports,
        "placement": { "spread": spread, "constraints": constraints,
            "max_replicas_per_node": if kind == 2 { 3 } else { 0 } },
        "update": { "parallelism": 2, "order": order, "failure_action": action },
        "task": {
            "command": ["program"],
            "resources": { "cpu": "0.25", "memory": "64m" },
            "restart": { "delay": "20ms", "max_delay": "500ms" },
            "stop": { "drain": "100ms", "grace": "300ms" },
        },
    });
    serde_json::from_value(spec).expect("a spec")
}

impl World {
    pub(super) fn user_acts(&mut self) {
        if !self.faults.on {
            return;
        }
        let delay = self.draw(50 * MILLI, SECOND);
        self.after(delay, Event::User);
        // A user's request needs a leader.
        if self.manager.reconciler.is_none() {
            return;
        }
        self.wishes += 1;
        if self.wishes.is_multiple_of(WISHES_PER_REBALANCE)
            && let Some(reconciler) = &mut self.manager.reconciler
        {
            let all = self.wishes / WISHES_PER_REBALANCE;
            reconciler.rebalance(if all.is_multiple_of(2) {
                Goal::Even
            } else {
                Goal::Defragment
            });
        }
        if let Some(command) = self.wish() {
            self.propose(vec![command]);
        }
    }

    fn wish(&mut self) -> Option<Command> {
        let time = self.wall();
        let services: Vec<Service> = self.manager.state.services().cloned().collect();
        if services.len() < 2 || services.len() < SERVICES && self.rng.random_bool(0.2) {
            self.services += 1;
            let (kind, count) = (self.rng.random_range(0..7), self.rng.random_range(1..4));
            return Some(Command::CreateService {
                service: ServiceId::from_bits(1000 + self.services),
                spec: spec(self.services, kind, count),
                time,
            });
        }
        let service = &services[self.rng.random_range(0..services.len())];
        let mut wanted = service.spec.clone();
        match self.rng.random_range(0..8) {
            0..=2 => {
                let most = if wanted.ports.len() == 1 { 4 } else { 9 };
                match &mut wanted.mode {
                    Mode::Replicated { replicas } => *replicas = self.rng.random_range(0..most),
                    Mode::Global {} => return None,
                    Mode::Job { completions, .. } => *completions = self.rng.random_range(1..6),
                }
                Some(self.update(service, wanted))
            }
            3..=4 => {
                let version: u32 = self.rng.random_range(1..1000);
                wanted
                    .task
                    .env
                    .insert("VERSION".to_owned(), version.to_string());
                Some(self.update(service, wanted))
            }
            5 => Some(Command::RollbackService {
                service: service.id,
                expected: None,
                automatic: None,
                time,
            }),
            6 if self.rng.random_bool(0.3) => Some(Command::RemoveService {
                service: service.id,
                time,
            }),
            _ => {
                let nodes: Vec<NodeId> = self.hosts.keys().copied().collect();
                let node = nodes[self.rng.random_range(0..nodes.len())];
                let known = self.manager.state.node(node);
                if known.is_some_and(|entry| entry.node.status == NodeStatus::Down) {
                    // Too soon: its agent comes back.
                    return Some(Command::RemoveNode { node, time });
                }
                let availability = match self.rng.random_range(0..4) {
                    0 => Availability::Drain,
                    1 => Availability::Pause,
                    _ => Availability::Active,
                };
                Some(availability_of(node, availability, time))
            }
        }
    }

    fn update(&self, service: &Service, spec: ServiceSpec) -> Command {
        Command::UpdateService {
            service: service.id,
            expected: None,
            spec,
            time: self.wall(),
        }
    }

    /// Lets every node take tasks again, so that all that is wanted fits.
    pub(super) fn user_calms_down(&mut self) {
        let time = self.wall();
        let nodes: Vec<NodeId> = self.hosts.keys().copied().collect();
        let commands = nodes
            .into_iter()
            .map(|node| availability_of(node, Availability::Active, time))
            .collect();
        self.propose(commands);
    }
}

fn availability_of(
    node: NodeId,
    availability: Availability,
    time: ballast_model::Timestamp,
) -> Command {
    Command::UpdateNode {
        node,
        availability: Some(availability),
        labels: BTreeMap::new(),
        taints: Vec::new(),
        untaint: Vec::new(),
        time,
    }
}
