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
const EXPLAINS: u32 = 50;
const EXPLAIN: &str = "explain 100k nodes";

/// Measures.
pub fn run(options: &Options) -> Vec<Figure> {
    let mut figures = Vec::new();
    let rebuild = "rebuild 100k nodes 1M tasks";
    let explains = [
        "too large for all",
        "too large for most",
        "one on each already",
    ];
    let explains = explains.map(|case| options.wants(&format!("{EXPLAIN} {case}")));
    if !options.wants(rebuild) && explains == [false; 3] {
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
    figures.extend(explain_cases(&mut built, options));
    figures
}

/// Returns how long it takes to say why a task waits, for tasks that wait for different reasons.
fn explain_cases(scheduler: &mut Scheduler, options: &Options) -> Vec<Figure> {
    let mut figures = Vec::new();
    let case = format!("{EXPLAIN} too large for all");
    if options.wants(&case) {
        let cores = |nth: u32| Resources::of(MilliCpu::from_cores(1000 + nth), Bytes(0));
        figures.push(explain(scheduler, case, &Placement::default(), cores));
    }
    let case = format!("{EXPLAIN} too large for most");
    if options.wants(&case) {
        // Between what the nodes of the three sizes have, and what those that are in use have left.
        let amounts = |nth: u32| {
            Resources::of(
                MilliCpu(500 * nth),
                Bytes::from_mib(131_072 - 800 * u64::from(nth)),
            )
        };
        figures.push(explain(scheduler, case, &Placement::default(), amounts));
    }
    let case = format!("{EXPLAIN} one on each already");
    if options.wants(&case) {
        let placement = Placement {
            max_replicas_per_node: 1,
            ..Placement::default()
        };
        let nothing = Resources::default();
        for nth in 0..NODES {
            let request = asks(&nothing, &placement);
            let placed = scheduler.place(&request).expect("one has none");
            scheduler.commit(placed.reservation, AssignmentId::from_bits(nth << 1));
        }
        figures.push(explain(scheduler, case, &placement, |_| nothing.clone()));
    }
    figures
}

fn asks<'a>(resources: &'a Resources, placement: &'a Placement) -> Request<'a> {
    Request {
        service: ServiceId::from_bits(SERVICES + 1),
        resources,
        ports: &[],
        placement,
        node: None,
        avoid: &[],
        kept: &[],
        peers: Peers::none(),
    }
}

/// Returns how long the answer takes; the first, which reads what changed before, does not count.
fn explain(
    scheduler: &Scheduler,
    case: String,
    placement: &Placement,
    wanted: impl Fn(u32) -> Resources,
) -> Figure {
    let mut fit = 0;
    let mut time = |nth| {
        let resources = wanted(nth);
        let request = asks(&resources, placement);
        let begin = Instant::now();
        let refusal = scheduler.explain(&request);
        fit += u64::from(refusal.fit);
        begin.elapsed().as_secs_f64() * 1e6
    };
    time(0);
    let times = (0..EXPLAINS).map(&mut time).collect::<Vec<_>>();
    assert!(fit < NODES * u64::from(EXPLAINS) / 2, "most do not fit");
    Figure::new((case, "ballast"), "time", "µs")
        .values(times)
        .goal(Stat::P50, 100.0)
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
