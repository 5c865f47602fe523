//! Each rule of placement against its plainest statement, whatever was placed before.

mod common;

use std::collections::{BTreeMap, BTreeSet};

use ballast_model::{
    Affinity, AssignmentId, Node, NodeId, Placement, ServiceAffinity, ServiceId, SpreadRule,
    TaintEffect, TopologyKey,
};
use ballast_scheduler::{Peers, Repelling, Request, Scheduler, Standing};
use common::{id, node, wants};
use proptest::prelude::*;

const SERVICES: usize = 3;
const NODES: u64 = 6;

#[derive(Debug, Clone)]
enum Step {
    Place(usize),
    Free(usize),
    Zone(u64, u8),
    Taint(u64, u8),
    Slots(u64, u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..SERVICES).prop_map(Step::Place),
        3 => any::<usize>().prop_map(Step::Free),
        1 => (0..NODES, 0u8..4).prop_map(|(n, z)| Step::Zone(n, z)),
        1 => (0..NODES, 0u8..5).prop_map(|(n, t)| Step::Taint(n, t)),
        1 => (0..NODES, 0u32..5).prop_map(|(n, s)| Step::Slots(n, s)),
    ]
}

fn name(service: usize) -> String {
    format!("s{service}")
}

fn over() -> impl Strategy<Value = TopologyKey> {
    let zone = TopologyKey::Label("zone".to_owned());
    prop_oneof![Just(TopologyKey::Node), Just(zone)]
}

fn placement() -> impl Strategy<Value = Placement> {
    let near = (0..SERVICES + 1, over(), -3i8..4, any::<bool>());
    let near = near.prop_map(|(other, over, weight, required)| ServiceAffinity {
        service: if other == SERVICES {
            "self".to_owned()
        } else {
            name(other)
        },
        over,
        weight: if weight == 0 { 5 } else { weight },
        required,
    });
    let spread = (over(), 0u32..3).prop_map(|(over, max_skew)| SpreadRule { over, max_skew });
    let wish = (0u8..3, -2i8..3).prop_map(|(zone, weight)| Affinity {
        constraint: format!("node.labels.zone==z{zone}").parse().expect("reads"),
        weight: if weight == 0 { 3 } else { weight },
    });
    (
        prop::collection::vec(near, 0..3),
        prop::collection::vec(spread, 0..3),
        prop::collection::vec(wish, 0..2),
        0u32..3,
        prop_oneof![Just(None), Just(Some("gpu")), Just(Some("*"))],
    )
        .prop_map(|(services, spread, affinities, most, borne)| Placement {
            services,
            spread,
            affinities,
            max_replicas_per_node: most,
            tolerations: borne
                .map(|text| text.parse().expect("reads"))
                .into_iter()
                .collect(),
            ..Placement::default()
        })
}

/// The fleet as lists, and each rule as a sentence over them.
struct Plain {
    nodes: BTreeMap<NodeId, Node>,
    placements: Vec<Placement>,
    held: Vec<(AssignmentId, NodeId, usize)>,
}

impl Plain {
    /// Returns the nodes that are one place with this one; none if it is in no place.
    fn place<'s>(&'s self, node: &Node, over: &TopologyKey) -> Option<Vec<&'s Node>> {
        match over {
            TopologyKey::Node => Some(vec![&self.nodes[&node.id]]),
            TopologyKey::Label(label) => {
                let value = node.label(label)?;
                let all = self.nodes.values();
                Some(
                    all.filter(|other| other.label(label) == Some(value))
                        .collect(),
                )
            }
        }
    }

    fn tasks(&self, service: usize, nodes: &[&Node]) -> u32 {
        let there = |held: &&(AssignmentId, NodeId, usize)| {
            held.2 == service && nodes.iter().any(|node| node.id == held.1)
        };
        u32::try_from(self.held.iter().filter(there).count()).expect("few")
    }

    fn other(&self, service: usize, affinity: &ServiceAffinity) -> Option<usize> {
        if affinity.service == "self" {
            return Some(service);
        }
        (0..self.placements.len()).find(|&other| name(other) == affinity.service)
    }

    fn bears(&self, service: usize, node: &Node, hard: bool) -> usize {
        let borne = &self.placements[service].tolerations;
        let hard = |effect| (effect != TaintEffect::PreferNoSchedule) == hard;
        let taints = node.taints.iter().filter(|taint| hard(taint.effect));
        taints
            .filter(|taint| !borne.iter().any(|b| b.bears(taint)))
            .count()
    }

    fn near(&self, service: usize, node: &Node, affinity: &ServiceAffinity) -> bool {
        let other = self.other(service, affinity);
        let nodes = self.place(node, &affinity.over);
        match (other, nodes) {
            (Some(other), Some(nodes)) => self.tasks(other, &nodes) > 0,
            _ => false,
        }
    }

    fn allows_services(&self, service: usize, node: &Node) -> bool {
        let required = self.placements[service]
            .services
            .iter()
            .filter(|a| a.required);
        let own = |affinity: &ServiceAffinity| {
            let near = self.near(service, node, affinity);
            if affinity.weight < 0 {
                return !near;
            }
            let itself = self.other(service, affinity) == Some(service);
            let first = itself && self.held.iter().all(|held| held.2 != service);
            near || first && self.place(node, &affinity.over).is_some()
        };
        let mut others = (0..self.placements.len()).filter(|&other| other != service);
        required.clone().all(own)
            && others.all(|other| {
                let rules = self.placements[other].services.iter();
                let mut away = rules.filter(|a| a.required && a.weight < 0);
                away.all(|affinity| {
                    let here = self.other(other, affinity) == Some(service);
                    let place = self.place(node, &affinity.over);
                    !here || place.is_none_or(|nodes| self.tasks(other, &nodes) == 0)
                })
            })
    }

    fn allows_skew(&self, service: usize, node: &Node, rule: &SpreadRule) -> bool {
        if rule.max_skew == 0 {
            return true;
        }
        let taking = self
            .nodes
            .values()
            .filter(|n| self.bears(service, n, true) == 0);
        let places = taking.filter_map(|node| self.place(node, &rule.over));
        let least = places.map(|nodes| self.tasks(service, &nodes)).min();
        let here = self
            .place(node, &rule.over)
            .map(|nodes| self.tasks(service, &nodes));
        here.is_some_and(|here| here < least.unwrap_or(0) + rule.max_skew)
    }

    fn allows(&self, service: usize, node: &Node) -> bool {
        let placement = &self.placements[service];
        let most = placement.max_replicas_per_node;
        let all = self.held.iter().filter(|held| held.1 == node.id).count();
        self.bears(service, node, true) == 0
            && (most == 0 || self.tasks(service, &[node]) < most)
            && all < node.offered.task_slots as usize
            && self.allows_services(service, node)
            && placement
                .spread
                .iter()
                .all(|rule| self.allows_skew(service, node, rule))
    }

    /// The better, the more.
    fn liking(&self, service: usize, node: &Node) -> (i32, i32) {
        let placement = &self.placements[service];
        let wishes = placement.services.iter().filter(|wish| !wish.required);
        let near = wishes.filter(|wish| self.near(service, node, wish));
        let held = placement.affinities.iter();
        let held = held.filter(|affinity| node.meets(&affinity.constraint));
        let weight: i32 = near
            .map(|wish| i32::from(wish.weight))
            .chain(held.map(|affinity| i32::from(affinity.weight)))
            .sum();
        let taints = i32::try_from(self.bears(service, node, false)).expect("few");
        (-taints, weight)
    }

    fn peers(&self, service: usize) -> Peers {
        let resolve = |affinity: &ServiceAffinity| {
            self.other(service, affinity)
                .map(|other| ServiceId::from_bits(other as u64))
        };
        let mut repelling = Vec::new();
        for (other, placement) in self.placements.iter().enumerate() {
            for affinity in &placement.services {
                let away = affinity.required && affinity.weight < 0;
                if other != service && away && self.other(other, affinity) == Some(service) {
                    repelling.push(Repelling {
                        service: ServiceId::from_bits(other as u64),
                        name: name(other),
                        over: affinity.over.clone(),
                    });
                }
            }
        }
        Peers {
            services: self.placements[service]
                .services
                .iter()
                .map(resolve)
                .collect(),
            repelling,
        }
    }
}

struct Pair {
    plain: Plain,
    scheduler: Scheduler,
    next: u64,
}

impl Pair {
    fn new(placements: Vec<Placement>) -> Self {
        let mut pair = Self {
            plain: Plain {
                nodes: BTreeMap::new(),
                placements,
                held: Vec::new(),
            },
            scheduler: Scheduler::new(),
            next: 0,
        };
        for number in 0..NODES {
            let mut node = node(number, 10_000, 10_000);
            node.labels
                .insert("zone".to_owned(), format!("z{}", number % 3));
            pair.upsert(node);
        }
        pair
    }

    fn upsert(&mut self, node: Node) {
        self.scheduler.upsert_node(&node);
        self.plain.nodes.insert(node.id, node);
    }

    fn place(&mut self, service: usize) -> Result<(), TestCaseError> {
        let placement = self.plain.placements[service].clone();
        let peers = self.plain.peers(service);
        let request = Request {
            service: ServiceId::from_bits(service as u64),
            placement: &placement,
            ..wants(10, 10).among(&peers)
        };
        let nodes = self.plain.nodes.values();
        let allowed: Vec<&Node> = nodes.filter(|n| self.plain.allows(service, n)).collect();
        let explained = self.scheduler.explain(&request);
        match self.scheduler.place(&request) {
            Err(refusal) => {
                prop_assert!(allowed.is_empty(), "{refusal}, but {allowed:?}");
                let counted: u32 = refusal.excluded.iter().map(|e| e.nodes).sum();
                prop_assert_eq!(u64::from(counted), NODES);
            }
            Ok(placed) => {
                prop_assert_eq!(explained.fit as usize, allowed.len(), "{}", explained);
                let chosen = allowed.iter().find(|n| n.id == placed.node);
                prop_assert!(chosen.is_some(), "{} of {:?}", placed.node, allowed);
                let liking = |n: &&Node| self.plain.liking(service, n);
                let best = allowed.iter().map(liking).max();
                prop_assert_eq!(chosen.map(liking), best);
                let assignment = AssignmentId::from_bits(self.next);
                self.next += 1;
                self.scheduler.commit(placed.reservation, assignment);
                self.plain.held.push((assignment, placed.node, service));
            }
        }
        Ok(())
    }

    fn apply(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match *step {
            Step::Place(service) => self.place(service)?,
            Step::Free(nth) if !self.plain.held.is_empty() => {
                let nth = nth % self.plain.held.len();
                let (assignment, ..) = self.plain.held.swap_remove(nth);
                prop_assert!(self.scheduler.free(assignment));
            }
            Step::Free(_) => {}
            Step::Zone(number, zone) => {
                let mut node = self.plain.nodes[&id(number)].clone();
                node.labels.remove("zone");
                if zone < 3 {
                    node.labels.insert("zone".to_owned(), format!("z{zone}"));
                }
                self.upsert(node);
            }
            Step::Taint(number, kind) => {
                let mut node = self.plain.nodes[&id(number)].clone();
                let taints = [
                    "gpu:NoSchedule",
                    "gpu:PreferNoSchedule",
                    "x=1:PreferNoSchedule",
                    "x:NoExecute",
                ];
                let taint = taints.get(usize::from(kind));
                node.taints = taint
                    .iter()
                    .map(|text| text.parse().expect("reads"))
                    .collect();
                self.upsert(node);
            }
            Step::Slots(number, slots) => {
                let mut node = self.plain.nodes[&id(number)].clone();
                node.offered.task_slots = slots;
                self.upsert(node);
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn prop_no_rule_is_broken_and_none_refuses_more_than_it_says(
        placements in prop::collection::vec(placement(), SERVICES),
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let mut pair = Pair::new(placements);
        for step in &steps {
            pair.apply(step)?;
        }
    }

    #[test]
    fn prop_a_gang_is_whole_or_not_there(
        placements in prop::collection::vec(placement(), SERVICES),
        steps in prop::collection::vec(step(), 0..20),
        size in 1usize..8,
    ) {
        let mut pair = Pair::new(placements);
        for step in &steps {
            pair.apply(step)?;
        }
        let placement = pair.plain.placements[0].clone();
        let peers = pair.plain.peers(0);
        let request = Request {
            service: ServiceId::from_bits(0),
            placement: &placement,
            ..wants(10, 10).among(&peers)
        };
        let before: Vec<u32> = pair.scheduler.nodes().map(|(_, taken)| taken.tasks).collect();
        let requests = vec![request; size];
        match pair.scheduler.place_gang(&requests) {
            Ok(placed) => {
                prop_assert_eq!(placed.len(), size);
                for one in placed {
                    pair.scheduler.release(one.reservation);
                }
            }
            Err(refusal) => {
                prop_assert!(refusal.fit < size);
                prop_assert_eq!(pair.scheduler.tally().open, 0);
            }
        }
        let after: Vec<u32> = pair.scheduler.nodes().map(|(_, taken)| taken.tasks).collect();
        prop_assert_eq!(before, after);
    }

    #[test]
    fn prop_preemption_takes_no_equal_breaks_no_budget_and_makes_room(
        tasks in prop::collection::vec((0usize..4, 0u64..3, 1u32..600), 1..14),
        priorities in prop::collection::vec(-2i32..3, 4),
        spare in prop::collection::vec(0u32..3, 4),
        want in 100u32..1000,
        leaving in any::<u16>(),
    ) {
        let mut scheduler = Scheduler::new();
        for number in 0..3 {
            scheduler.upsert_node(&node(number, 1000, 1000));
        }
        let mut held: BTreeMap<AssignmentId, (NodeId, usize)> = BTreeMap::new();
        for (number, &(service, on, cpu)) in tasks.iter().enumerate() {
            let request = Request { service: ServiceId::from_bits(service as u64), ..wants(cpu, 1).on(id(on)) };
            if let Ok(placed) = scheduler.place(&request) {
                let assignment = AssignmentId::from_bits(number as u64);
                scheduler.commit(placed.reservation, assignment);
                held.insert(assignment, (id(on), service));
            }
        }
        let standing: BTreeMap<ServiceId, Standing> = (0..4)
            .map(|s| (ServiceId::from_bits(s as u64), Standing { priority: priorities[s], spare: spare[s] }))
            .collect();
        let leaving: BTreeSet<AssignmentId> =
            held.keys().copied().filter(|a| leaving >> a.to_bits() & 1 == 1).collect();
        let placement = Placement { priority: 1, ..Placement::default() };
        let request = Request {
            service: ServiceId::from_bits(9),
            placement: &placement,
            ..wants(want, 1)
        };
        let found = scheduler.preempt(&request, &standing, &leaving);
        if let Some(found) = &found {
            let mut given: BTreeMap<usize, u32> = BTreeMap::new();
            for victim in &found.victims {
                let (node, service) = held[victim];
                prop_assert_eq!(node, found.node);
                prop_assert!(priorities[service] < 1, "equal or higher");
                prop_assert!(!leaving.contains(victim), "leaves by itself");
                *given.entry(service).or_default() += 1;
            }
            for (service, given) in given {
                prop_assert!(given <= spare[service], "over the budget");
            }
            let gone = found.victims.iter().chain(&leaving);
            let gone: Vec<AssignmentId> = gone.copied().filter(|a| held[a].0 == found.node).collect();
            for &assignment in &gone {
                scheduler.free(assignment);
            }
            prop_assert!(scheduler.place(&request.on(found.node)).is_ok(), "room was made");
        } else if scheduler.place(&request).is_err() {
            // Nobody could have made room alone, on any node, within the rules.
            for (&victim, &(node, service)) in &held {
                if priorities[service] < 1 && spare[service] > 0 && !leaving.contains(&victim) {
                    let mut without = Scheduler::new();
                    for (known, _) in scheduler.nodes() {
                        without.upsert_node(known);
                    }
                    for (number, &(service, on, cpu)) in tasks.iter().enumerate() {
                        let assignment = AssignmentId::from_bits(number as u64);
                        if held.contains_key(&assignment) && assignment != victim {
                            let service = ServiceId::from_bits(service as u64);
                            let back = Request { service, ..wants(cpu, 1).on(id(on)) };
                            let placed = without.place(&back).expect("it was there");
                            without.commit(placed.reservation, assignment);
                        }
                    }
                    prop_assert!(without.place(&request.on(node)).is_err(), "{victim} would do");
                }
            }
        }
    }
}

fn standing(rows: &[(u64, i32, u32)]) -> BTreeMap<ServiceId, Standing> {
    let row = |&(service, priority, spare): &(u64, i32, u32)| {
        (ServiceId::from_bits(service), Standing { priority, spare })
    };
    rows.iter().map(row).collect()
}

/// Puts a task of this service on a node; its assignment has the given number.
fn put(scheduler: &mut Scheduler, assignment: u64, service: u64, on: u64, cpu: u32) {
    let service = ServiceId::from_bits(service);
    let request = Request {
        service,
        ..wants(cpu, 1).on(id(on))
    };
    let placed = scheduler.place(&request).expect("there is room");
    scheduler.commit(placed.reservation, AssignmentId::from_bits(assignment));
}

fn urgent() -> Placement {
    Placement {
        priority: 100,
        ..Placement::default()
    }
}

fn victims(found: Option<ballast_scheduler::Preemption>) -> Option<(u64, Vec<u64>)> {
    found.map(|found| {
        let victims = found
            .victims
            .iter()
            .map(|victim| victim.to_bits())
            .collect();
        (found.node.to_bits(), victims)
    })
}

#[test]
fn cheapest_victims_are_the_lowest_then_the_fewest_then_the_smallest() {
    let mut scheduler = Scheduler::rebuild(
        &[
            node(1, 1000, 1000),
            node(2, 1000, 1000),
            node(3, 1000, 1000),
        ],
        [],
    );
    put(&mut scheduler, 10, 1, 1, 900);
    put(&mut scheduler, 20, 2, 2, 400);
    put(&mut scheduler, 21, 2, 2, 500);
    put(&mut scheduler, 30, 3, 3, 950);
    let placement = urgent();
    let request = Request {
        service: ServiceId::from_bits(9),
        placement: &placement,
        ..wants(800, 1)
    };
    let none = BTreeSet::new();
    let ask =
        |rows: &[(u64, i32, u32)]| victims(scheduler.preempt(&request, &standing(rows), &none));
    assert_eq!(
        ask(&[(1, 5, 9), (2, 1, 9), (3, 5, 9)]),
        Some((2, vec![20, 21])),
        "the lowest"
    );
    assert_eq!(
        ask(&[(1, 5, 9), (2, 5, 9), (3, 5, 9)]),
        Some((1, vec![10])),
        "the fewest, the smallest"
    );
    assert_eq!(
        ask(&[(1, 5, 0), (2, 5, 1), (3, 5, 9)]),
        Some((3, vec![30])),
        "budgets are kept"
    );
    assert_eq!(
        ask(&[(1, 100, 9), (2, 100, 9), (3, 101, 9)]),
        None,
        "never an equal"
    );
    let patient = Placement {
        preempts: false,
        ..urgent()
    };
    let request = Request {
        placement: &patient,
        ..request
    };
    assert_eq!(
        scheduler.preempt(&request, &standing(&[(1, 0, 9)]), &none),
        None
    );
}

#[test]
fn who_is_leaving_already_makes_room_without_a_victim() {
    let mut scheduler = Scheduler::rebuild(&[node(1, 1000, 1000)], []);
    put(&mut scheduler, 10, 1, 1, 500);
    put(&mut scheduler, 11, 1, 1, 500);
    let placement = urgent();
    let request = Request {
        service: ServiceId::from_bits(9),
        placement: &placement,
        ..wants(400, 1)
    };
    let leaving = BTreeSet::from([AssignmentId::from_bits(11)]);
    let found = scheduler.preempt(&request, &standing(&[(1, 0, 9)]), &leaving);
    assert_eq!(victims(found), Some((1, vec![])));
}

#[test]
fn each_rule_has_words_of_its_own() {
    let mut near = node(1, 1000, 1000);
    near.labels.insert("zone".to_owned(), "a".to_owned());
    let mut tainted = node(2, 1000, 1000);
    tainted.taints = vec!["gpu=yes:NoSchedule".parse().expect("reads")];
    let mut scheduler = Scheduler::rebuild(&[near, tainted, node(3, 1000, 1000)], []);
    put(&mut scheduler, 1, 7, 1, 10);
    let peers = Peers {
        services: vec![Some(ServiceId::from_bits(7))],
        repelling: vec![],
    };
    let mut refused = |placement: Placement, peers: &Peers| {
        let request = Request {
            placement: &placement,
            ..wants(1, 1).among(peers)
        };
        scheduler.place(&request).expect_err("refused").to_string()
    };
    let with = |affinity| Placement {
        services: vec![affinity],
        ..Placement::default()
    };
    let apart = with(ServiceAffinity::apart("db@node").expect("reads"));
    let mut only = apart.clone();
    only.constraints = vec!["node.name in (n1,n2)".parse().expect("reads")];
    assert_eq!(
        refused(only, &peers),
        "none of 3 nodes fits: 1 has the taint gpu=yes:NoSchedule; \
         1 does not meet node.name in (n1,n2); 1 has a task of db on it; \
         nearest: n1 has a task of db on it"
    );
    let mut far = with(ServiceAffinity::near("db@zone").expect("reads"));
    far.constraints = vec!["node.name!=n1".parse().expect("reads")];
    let words = refused(far, &peers);
    assert!(words.contains("1 lacks the label zone"), "{words}");
    let nobody = with(ServiceAffinity::near("ghost").expect("reads"));
    let words = refused(nobody, Peers::none());
    assert!(
        words.contains("2 lack service ghost, which does not exist"),
        "{words}"
    );
    let rack = Placement {
        spread: vec!["node.labels.rack:1".parse().expect("reads")],
        ..Placement::default()
    };
    let words = refused(rack, Peers::none());
    assert!(words.contains("2 lack the label rack"), "{words}");
}

#[test]
fn skew_holds_the_others_back_until_the_emptiest_place_has_room() {
    let mut nodes = vec![];
    for (number, zone, slots) in [(1, "a", 4), (2, "b", 1)] {
        let mut node = node(number, 1000, 1000);
        node.labels.insert("zone".to_owned(), zone.to_owned());
        node.offered.task_slots = slots;
        nodes.push(node);
    }
    let mut scheduler = Scheduler::rebuild(&nodes, []);
    let placement = Placement {
        spread: vec!["node.labels.zone:1".parse().expect("reads")],
        ..Placement::default()
    };
    let request = Request {
        placement: &placement,
        ..wants(1, 1)
    };
    let mut last = String::new();
    let mut on = vec![];
    for number in 0..4 {
        match scheduler.place(&request) {
            Ok(placed) => {
                on.push(placed.node.to_bits());
                scheduler.commit(placed.reservation, AssignmentId::from_bits(number));
            }
            Err(refusal) => last = refusal.to_string(),
        }
    }
    assert_eq!(on, [1, 2, 1], "a full zone holds the other back");
    assert_eq!(
        last,
        "none of 2 nodes fits: 1 has 1 more of this service in its node.labels.zone than another; \
         1 has no free task slot; nearest: n2 has no free task slot"
    );
}
