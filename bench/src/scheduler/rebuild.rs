//! How long a new leader takes to build the scheduler from its state, and to say why a task waits.
#![allow(
    clippy::cast_possible_truncation,
    reason = "places in lists, all in range"
)]

use std::time::Instant;

use ballast_model::{
    AssignmentId, Binding, Bytes, MilliCpu, Node, Placement, Resources, ServiceId,
};
use ballast_scheduler::{Peers, Request, Scheduler};

use super::fleet;
use crate::figures::{Figure, Stat};
use crate::machine;
use crate::options::Options;

const NODES: u64 = 100_000;
const TASKS: u64 = 1_000_000;
/// Services that the tasks belong to.
const SERVICES: u64 = 5_000;
const EXPLAINS: usize = 50;

/// Measures.
pub fn run(options: &Options) -> Vec<Figure> {
    let mut figures = Vec::new();
    let (rebuild, explain) = ("rebuild 100k nodes 1M tasks", "explain 100k nodes");
    if !options.wants(rebuild) && !options.wants(explain) {
        return figures;
    }
    let nodes = fleet::nodes(NODES);
    let bindings = bindings(&nodes);
    let (mut times, mut processor) = (Vec::new(), Vec::new());
    let mut built = Scheduler::new();
    for _ in 0..options.runs.unwrap_or(5) {
        drop(std::mem::take(&mut built));
        let (cpu, begin) = (machine::thread_cpu(), Instant::now());
        built = Scheduler::rebuild(&nodes, bindings.iter().map(|(s, binding)| (*s, binding)));
        times.push(begin.elapsed().as_secs_f64() * 1e3);
        let cpu = machine::thread_cpu().saturating_sub(cpu);
        processor.push(cpu.as_secs_f64() * 1e3);
    }
    figures.push(
        Figure::new((rebuild, "ballast"), "time", "ms")
            .values(times)
            .goal(Stat::P50, 1000.0),
    );
    figures.push(Figure::new((rebuild, "ballast"), "processor", "ms").values(processor));
    let placement = Placement::default();
    let times = (0..EXPLAINS).map(|nth| {
        let cores = 1000 + u32::try_from(nth).expect("few");
        let resources = Resources::of(MilliCpu::from_cores(cores), Bytes(0));
        let request = Request {
            service: ServiceId::from_bits(0),
            resources: &resources,
            ports: &[],
            placement: &placement,
            node: None,
            avoid: &[],
            kept: &[],
            peers: Peers::none(),
        };
        let begin = Instant::now();
        let refusal = built.explain(&request);
        let time = begin.elapsed().as_secs_f64() * 1e6;
        assert_eq!(refusal.fit, 0, "no node is so large");
        time
    });
    figures.push(
        Figure::new((explain, "ballast"), "time", "µs")
            .values(times)
            .goal(Stat::P50, 100.0),
    );
    figures
}

/// Returns a million tasks, ten on each node: what a state holds.
fn bindings(nodes: &[Node]) -> Vec<(ServiceId, Binding)> {
    let sizes = fleet::sizes(64);
    let mut scheduler = Scheduler::rebuild(nodes, []);
    let placement = Placement::default();
    let mut bindings = Vec::new();
    for task in 0..TASKS {
        let request = Request {
            service: ServiceId::from_bits(task % SERVICES),
            resources: &sizes[task as usize % sizes.len()],
            ports: &[],
            placement: &placement,
            node: None,
            avoid: &[],
            kept: &[],
            peers: Peers::none(),
        };
        let placed = scheduler.place(&request).expect("the fleet has room");
        // Ids are drawn at random in a cluster.
        let assignment = AssignmentId::from_bits((task + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        scheduler.commit(placed.reservation, assignment);
        let binding = Binding {
            assignment,
            node: placed.node,
            ports: placed.ports,
            claim: placed.claim,
            restarts: 0,
        };
        bindings.push((request.service, binding));
    }
    bindings
}
