//! The plainest scheduler: a look at every node for each decision.
#![allow(
    clippy::cast_possible_truncation,
    reason = "places in lists, all in range"
)]

use std::collections::{BTreeMap, VecDeque};
use std::hint::black_box;
use std::time::{Duration, Instant};

use ballast_model::{Node, Resources, ServiceId};

use super::fleet::{self, ZONES};
use super::throughput::Shape;

#[derive(Debug, Clone, Copy)]
struct Free {
    cpu: u64,
    memory: u64,
    disk: u64,
    slots: u64,
    zone: u64,
}

/// Nodes in one list.
pub(super) struct Naive {
    nodes: Vec<Free>,
    /// Tasks of each service by node, for rules.
    services: BTreeMap<ServiceId, BTreeMap<usize, u32>>,
    held: VecDeque<(usize, ServiceId, usize)>,
    sizes: Vec<Resources>,
    shape: Shape,
    next: u64,
}

impl Naive {
    pub(super) fn new(nodes: &[Node], shape: Shape, sizes: Vec<Resources>) -> Self {
        let free = |node: &Node| Free {
            cpu: node.offered.cpu.0.into(),
            memory: node.offered.memory.0,
            disk: node.offered.disk.0,
            slots: node.offered.task_slots.into(),
            zone: node
                .label("zone")
                .map_or(0, |zone| zone[1..].parse().unwrap_or(0)),
        };
        Self {
            nodes: nodes.iter().map(free).collect(),
            services: BTreeMap::new(),
            held: VecDeque::new(),
            sizes,
            shape,
            next: fleet::SEED,
        }
    }

    /// Takes over what another scheduler placed.
    pub(super) fn fill(&mut self, held: &[(usize, ServiceId, usize)]) {
        for &(node, service, size) in held {
            self.take(node, service, size);
        }
    }

    /// Places and gives back until the time is over; returns how often, and how long it took.
    pub(super) fn run(&mut self, least: Duration) -> (u64, Duration) {
        let begin = Instant::now();
        let mut decisions = 0;
        while begin.elapsed() < least {
            self.next = self
                .next
                .wrapping_mul(0x5851_f42d_4c95_7f2d)
                .wrapping_add(1);
            let draw = self.next >> 24;
            let size = draw as usize % self.sizes.len();
            let service = ServiceId::from_bits((draw >> 16) % 500);
            let node = self.best(service, size).expect("the fleet has room");
            self.take(black_box(node), service, size);
            self.give();
            decisions += 1;
        }
        (decisions, begin.elapsed())
    }

    fn best(&self, service: ServiceId, nth: usize) -> Option<usize> {
        let size = &self.sizes[nth];
        let own = nth as u64 % ZONES;
        let counts = self.services.get(&service);
        let mut zones = [0u32; ZONES as usize];
        for (&node, count) in counts.into_iter().flatten() {
            zones[self.nodes[node].zone as usize] += count;
        }
        let mut best: Option<((u32, u128), usize)> = None;
        for (place, node) in self.nodes.iter().enumerate() {
            let fits = node.cpu >= size.cpu.0.into()
                && node.memory >= size.memory.0
                && node.disk >= size.disk.0
                && node.slots > 0
                && match self.shape {
                    Shape::Plain => true,
                    Shape::Constraints => node.zone == own,
                    Shape::ConstraintsSpread => node.zone != own,
                    Shape::AntiAffinity => counts.is_none_or(|counts| !counts.contains_key(&place)),
                };
            if !fits {
                continue;
            }
            let zone = match self.shape {
                Shape::ConstraintsSpread => zones[node.zone as usize],
                _ => 0,
            };
            let key = (zone, u128::from(node.cpu) * u128::from(node.memory));
            if best.is_none_or(|(least, _)| key < least) {
                best = Some((key, place));
            }
        }
        best.map(|(_, place)| place)
    }

    fn take(&mut self, node: usize, service: ServiceId, nth: usize) {
        let (free, size) = (&mut self.nodes[node], &self.sizes[nth]);
        free.cpu -= u64::from(size.cpu.0);
        free.memory -= size.memory.0;
        free.disk -= size.disk.0;
        free.slots -= 1;
        *self
            .services
            .entry(service)
            .or_default()
            .entry(node)
            .or_default() += 1;
        self.held.push_back((node, service, nth));
    }

    fn give(&mut self) {
        let (node, service, nth) = self.held.pop_front().expect("never empty");
        let (free, size) = (&mut self.nodes[node], &self.sizes[nth]);
        free.cpu += u64::from(size.cpu.0);
        free.memory += size.memory.0;
        free.disk += size.disk.0;
        free.slots += 1;
        let counts = self.services.get_mut(&service).expect("counted");
        let count = counts.get_mut(&node).expect("counted");
        *count -= 1;
        if *count == 0 {
            counts.remove(&node);
        }
    }
}
