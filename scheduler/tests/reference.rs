//! The index against a naive scan over all nodes, and every unit counted in and out.

mod common;

use std::collections::BTreeMap;

use ballast_model::{
    Allocation, AssignmentId, Availability, Bytes, Claim, MilliCpu, Node, NodeId, NodeStatus,
    Placement, PortSpec, Resources, ServiceId, SpreadRule, Target, TopologyKey, fits,
};
use ballast_scheduler::{Request, Reservation, Scheduler};
use common::{id, node, port};
use proptest::prelude::*;

/// What the test does to the scheduler.
#[derive(Debug, Clone)]
enum Step {
    Place {
        service: u64,
        cpu: u32,
        mib: u64,
        shape: usize,
        pinned: Option<u64>,
        avoid: Option<u64>,
    },
    Commit(usize),
    Release(usize),
    Free(usize),
    Upsert(u64, u32, u8, u8),
    Remove(u64),
    Quarantine(u64, u16),
}

fn step() -> impl Strategy<Value = Step> {
    let maybe = |most: u64| prop_oneof![3 => Just(None), 1 => (0..most).prop_map(Some)];
    prop_oneof![
        8 => (0u64..3, 0u32..500, 0u64..500, 0usize..12, maybe(9), maybe(8)).prop_map(
            |(service, cpu, mib, shape, pinned, avoid)| {
                Step::Place { service, cpu, mib, shape, pinned, avoid }
            }
        ),
        3 => any::<usize>().prop_map(Step::Commit),
        2 => any::<usize>().prop_map(Step::Release),
        2 => any::<usize>().prop_map(Step::Free),
        2 => (0u64..8, 0u32..2000, 0u8..8, 0u8..3).prop_map(|(n, c, s, z)| Step::Upsert(n, c, s, z)),
        1 => (0u64..8).prop_map(Step::Remove),
        1 => (0u64..8, 1000u16..1004).prop_map(|(n, p)| Step::Quarantine(n, p)),
    ]
}

fn placement(shape: usize) -> Placement {
    let constraints: &[&str] = match shape % 6 {
        0..=2 => &[],
        3 => &["node.labels.zone==z1"],
        4 => &["node.labels.zone!=z0", "node.name!=n3"],
        _ => &["node.attributes.os==linux"],
    };
    Placement {
        constraints: constraints
            .iter()
            .map(|text| text.parse().expect("a constraint"))
            .collect(),
        spread: match shape % 4 {
            0 | 1 => vec![],
            2 => vec![SpreadRule::default()],
            _ => vec![SpreadRule {
                over: TopologyKey::Label("zone".to_owned()),
                max_skew: 0,
            }],
        },
        max_replicas_per_node: u32::from(shape.is_multiple_of(5)) * 2,
        ..Placement::default()
    }
}

fn ports(shape: usize) -> Vec<PortSpec> {
    match shape % 3 {
        0 => vec![],
        1 => vec![port("a", Target::Dynamic)],
        _ => vec![port("a", Target::Dynamic), port("b", Target::Fixed(80))],
    }
}

fn changed(number: u64, cpu: u32, status: u8, zone: u8) -> Node {
    let mut node = node(number, cpu, 1000);
    node.status = match status {
        0 => NodeStatus::Down,
        1 => NodeStatus::Suspect,
        _ => NodeStatus::Ready,
    };
    if status == 2 {
        node.availability = Availability::Drain;
    }
    if zone < 2 {
        node.labels.insert("zone".to_owned(), format!("z{zone}"));
    }
    node.description
        .attributes
        .insert("os".to_owned(), "linux".to_owned());
    node
}

/// What is held, as a list: the simplest thing that cannot be wrong.
#[derive(Default)]
struct Naive {
    nodes: BTreeMap<NodeId, Node>,
    held: Vec<(NodeId, ServiceId, Claim)>,
    quarantined: BTreeMap<NodeId, Vec<u16>>,
}

impl Naive {
    fn taken(&self, node: NodeId) -> Allocation {
        let mut taken = Allocation::default();
        for (_, _, claim) in self.held.iter().filter(|held| held.0 == node) {
            taken.add(claim);
        }
        taken
    }

    fn count(&self, node: NodeId, service: ServiceId) -> u32 {
        let of = |held: &&(NodeId, ServiceId, Claim)| held.0 == node && held.1 == service;
        u32::try_from(self.held.iter().filter(of).count()).expect("few")
    }

    fn is_free(&self, node: NodeId, port: u16, taken: &Allocation) -> bool {
        let strangers = self.quarantined.get(&node);
        !taken.ports.contains(&port) && !strangers.is_some_and(|ports| ports.contains(&port))
    }

    fn fits(&self, node: &Node, request: &Request<'_>) -> bool {
        let placement = request.placement;
        let most = placement.max_replicas_per_node;
        let taken = self.taken(node.id);
        let mut claim = Claim {
            resources: request.resources.clone(),
            ..Claim::default()
        };
        let fixed = |p: &PortSpec| match p.target {
            Target::Fixed(port) => Some(port),
            Target::Dynamic => None,
        };
        claim.ports.extend(request.ports.iter().filter_map(fixed));
        let dynamic = request
            .ports
            .iter()
            .filter(|p| p.target == Target::Dynamic)
            .count();
        let range = node.offered.ports;
        let free = (range.first..=range.last).filter(|&port| self.is_free(node.id, port, &taken));
        request.node.is_none_or(|pinned| pinned == node.id)
            && node.is_schedulable()
            && placement.constraints.iter().all(|c| node.meets(c))
            && (most == 0 || self.count(node.id, request.service) < most)
            && claim
                .ports
                .iter()
                .all(|&port| self.is_free(node.id, port, &taken))
            && free.count() >= dynamic
            && fits(&node.offered, &taken, &claim).is_ok()
    }

    /// The nodes that fit, those to avoid only if there is no other.
    fn candidates(&self, request: &Request<'_>) -> Vec<&Node> {
        let all: Vec<&Node> = self
            .nodes
            .values()
            .filter(|n| self.fits(n, request))
            .collect();
        let liked: Vec<&Node> = all
            .iter()
            .copied()
            .filter(|n| !request.avoid.contains(&n.id))
            .collect();
        if liked.is_empty() { all } else { liked }
    }

    /// Whether `chosen` is a best one by the order of the policies; packing is checked up to the
    /// width of a quantised step.
    fn is_best(&self, request: &Request<'_>, chosen: &Node, candidates: &[&Node]) -> bool {
        let tasks = |n: &Node| self.taken(n.id).tasks;
        let count = |n: &Node| self.count(n.id, request.service);
        let spread = |n: &Node| (count(n), if count(n) == 0 { tasks(n) } else { 0 }, n.id);
        match request.placement.spread.first().map(|rule| &rule.over) {
            _ if request.node.is_some() => true,
            None if request.resources.is_empty() => candidates
                .iter()
                .all(|n| (tasks(chosen), chosen.id) <= (tasks(n), n.id)),
            None => {
                // One step is at most 1/8 of a value, or 1/16 MiB-wise the floor of the axis.
                let free = |n: &Node| {
                    let taken = self.taken(n.id);
                    let cpu = f64::from(n.offered.cpu.0) - taken.cpu as f64;
                    let memory = (n.offered.memory.0 - taken.memory) as f64;
                    cpu.max(32.0) * memory.max(f64::from(16 << 20))
                };
                candidates
                    .iter()
                    .all(|n| free(chosen) <= free(n) * 1.125 * 1.125 * 1.001)
            }
            Some(TopologyKey::Node) => candidates.iter().all(|n| spread(chosen) <= spread(n)),
            Some(TopologyKey::Label(label)) => {
                let sum = |value: Option<&str>| -> u32 {
                    self.nodes
                        .values()
                        .filter(|n| n.label(label) == value)
                        .map(count)
                        .sum()
                };
                let key = |n: &Node| {
                    let value = n.label(label).map(ToOwned::to_owned);
                    (sum(value.as_deref()), value, spread(n))
                };
                candidates.iter().all(|n| key(chosen) <= key(n))
            }
        }
    }
}

/// Both, and what is open.
#[derive(Default)]
struct Pair {
    naive: Naive,
    scheduler: Scheduler,
    open: Vec<(Reservation, NodeId, ServiceId, Claim)>,
    committed: Vec<(AssignmentId, NodeId, ServiceId, Claim)>,
    next: u64,
}

impl Pair {
    fn unhold(&mut self, held: &(NodeId, ServiceId, Claim)) {
        if let Some(place) = self.naive.held.iter().position(|other| other == held) {
            self.naive.held.swap_remove(place);
        }
    }

    fn place(&mut self, request: &Request<'_>) -> Result<(), TestCaseError> {
        let candidates = self.naive.candidates(request);
        match self.scheduler.place(request) {
            Err(refusal) => {
                prop_assert!(candidates.is_empty(), "{refusal} but {candidates:?}");
                let counted: u32 = refusal.excluded.iter().map(|e| e.nodes).sum();
                prop_assert_eq!(counted, refusal.nodes);
            }
            Ok(placed) => {
                let chosen = candidates.iter().find(|n| n.id == placed.node);
                prop_assert!(chosen.is_some(), "{:?} of {candidates:?}", placed.node);
                let chosen = chosen.expect("just checked");
                prop_assert!(
                    self.naive.is_best(request, chosen, &candidates),
                    "{} of {:?}",
                    chosen.description.name,
                    candidates
                        .iter()
                        .map(|n| &n.description.name)
                        .collect::<Vec<_>>()
                );
                let held = (placed.node, request.service, placed.claim);
                self.naive.held.push(held.clone());
                self.open.push((placed.reservation, held.0, held.1, held.2));
            }
        }
        Ok(())
    }

    fn apply(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Place {
                service,
                cpu,
                mib,
                shape,
                pinned,
                avoid,
            } => {
                let (placement, ports) = (placement(shape), ports(shape / 2));
                let avoid: Vec<NodeId> = avoid.map(id).into_iter().collect();
                // Often nothing, which has its own policy.
                let resources = Resources::of(
                    MilliCpu(cpu.saturating_sub(100)),
                    Bytes::from_mib(mib.saturating_sub(100)),
                );
                let request = Request {
                    service: ServiceId::from_bits(service),
                    resources: &resources,
                    ports: &ports,
                    placement: &placement,
                    node: pinned.map(id),
                    avoid: &avoid,
                    ..common::wants(0, 0)
                };
                self.place(&request)?;
            }
            Step::Commit(nth) if !self.open.is_empty() => {
                let (reservation, node, service, claim) =
                    self.open.swap_remove(nth % self.open.len());
                let assignment = AssignmentId::from_bits(self.next);
                self.next += 1;
                self.scheduler.commit(reservation, assignment);
                self.committed.push((assignment, node, service, claim));
            }
            Step::Release(nth) if !self.open.is_empty() => {
                let (reservation, node, service, claim) =
                    self.open.swap_remove(nth % self.open.len());
                self.scheduler.release(reservation);
                self.unhold(&(node, service, claim));
            }
            Step::Free(nth) if !self.committed.is_empty() => {
                let (assignment, node, service, claim) =
                    self.committed.swap_remove(nth % self.committed.len());
                prop_assert!(self.scheduler.free(assignment));
                self.unhold(&(node, service, claim));
            }
            Step::Upsert(number, cpu, status, zone) => {
                let node = changed(number, cpu, status, zone);
                self.scheduler.upsert_node(&node);
                self.naive.nodes.insert(node.id, node);
            }
            // A node is removed when nothing is reserved on it; `rules.rs` has the other case.
            Step::Remove(number) if !self.open.iter().any(|open| open.1 == id(number)) => {
                let removed = self.scheduler.remove_node(id(number));
                prop_assert_eq!(removed, self.naive.nodes.remove(&id(number)).is_some());
                self.naive.held.retain(|held| held.0 != id(number));
                self.naive.quarantined.remove(&id(number));
                self.committed.retain(|held| held.1 != id(number));
            }
            Step::Quarantine(number, port) => {
                self.scheduler.quarantine_port(id(number), port);
                if self.naive.nodes.contains_key(&id(number)) {
                    let ports = self.naive.quarantined.entry(id(number));
                    ports.or_default().push(port);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn check(&self) -> Result<(), TestCaseError> {
        for (node, taken) in self.scheduler.nodes() {
            prop_assert_eq!(taken, &self.naive.taken(node.id));
        }
        let tally = self.scheduler.tally();
        prop_assert_eq!(tally.open, self.open.len() as u64);
        prop_assert_eq!(tally.opened, tally.open + tally.committed + tally.released);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn prop_index_chooses_as_a_scan_does_and_counts_every_unit(
        steps in prop::collection::vec(step(), 1..80)
    ) {
        let mut pair = Pair::default();
        for number in 0..6 {
            pair.apply(Step::Upsert(number, 1000 + 300 * u32::try_from(number % 3).unwrap(), 5,
                u8::try_from(number % 3).unwrap()))?;
        }
        for step in steps {
            pair.apply(step)?;
            pair.check()?;
        }
        for (reservation, node, service, claim) in std::mem::take(&mut pair.open) {
            pair.scheduler.release(reservation);
            pair.unhold(&(node, service, claim));
        }
        let rebuilt = rebuild(&pair);
        prop_assert_eq!(pair.scheduler.difference(&rebuilt), None);
        for (assignment, ..) in std::mem::take(&mut pair.committed) {
            prop_assert!(pair.scheduler.free(assignment));
        }
        for (_, taken) in pair.scheduler.nodes() {
            prop_assert_eq!(taken, &Allocation::default());
        }
    }

    #[test]
    fn prop_same_calls_give_same_placements(
        steps in prop::collection::vec(step(), 1..60)
    ) {
        let run = |steps: Vec<Step>| {
            let mut pair = Pair::default();
            for number in 0..6 {
                pair.apply(Step::Upsert(number, 1000, 5, 0)).unwrap();
            }
            for step in steps {
                pair.apply(step).unwrap();
            }
            pair.naive.held
        };
        prop_assert_eq!(run(steps.clone()), run(steps));
    }
}

fn rebuild(pair: &Pair) -> Scheduler {
    let binding = |(assignment, node, _, claim): &(AssignmentId, NodeId, ServiceId, Claim)| {
        ballast_model::Binding {
            assignment: *assignment,
            node: *node,
            ports: vec![],
            claim: claim.clone(),
            restarts: 0,
        }
    };
    let bindings: Vec<_> = pair
        .committed
        .iter()
        .map(|held| (held.2, binding(held)))
        .collect();
    let bindings = bindings
        .iter()
        .map(|(service, binding)| (*service, binding));
    Scheduler::rebuild(pair.naive.nodes.values(), bindings)
}
