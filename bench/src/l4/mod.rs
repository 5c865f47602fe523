//! The L4 balancer: ns for each packet, a flood, a change of a ring, memory.
//!
//! The kernel runs the program on one packet again and again (`BPF_PROG_TEST_RUN`); a prologue
//! restores it in between, and is in every figure. Floors take turns with what is measured: a
//! program that drops, one that sends back, one that only encapsulates.

mod cases;
mod ring;

use anyhow::{Context, Result};
use ballast_ebpf_packets::{Course, Floor, Kernel, Program, Sizes, absent};

use self::cases::{Case, Scene};
use crate::figures::{Figure, Stat};
use crate::{Bench, Options};

/// Repetitions of every case.
const RUNS: usize = 7;
/// Packets of one repetition.
const PACKETS: u32 = 1_000_000;
/// Names the object with prologue and floors; `cargo xtask bench` sets it.
const OBJECT: &str = "BALLAST_XDP_BENCH";
/// SYNs of the flood, and who is there before.
const FLOOD: u32 = 4_000_000;
const ESTABLISHED: u32 = 65_536;

/// The tables at their default sizes, and a ring of 65,537.
const SIZES: Sizes = Sizes {
    flow_lines: 262_144,
    nat: 131_072,
    ring: 1_048_592,
    members: 131_072,
    backends: 131_072,
    vips: 4_096,
};

/// Measures.
pub fn run(options: &Options) -> Bench {
    Bench::measure("l4", options, |bench| {
        if let Some(why) = absent() {
            bench.missing(format!("L4: {why}"));
            return Ok(());
        }
        let Some(path) = std::env::var_os(OBJECT) else {
            bench.missing(format!(
                "L4: {OBJECT} does not name the programs to measure with"
            ));
            return Ok(());
        };
        let object = std::fs::read(&path).context("the programs to measure with")?;
        let course = Course::load(&object)?;
        bench.case("packets", options, |bench| packets(&course, options, bench));
        bench.case("flood", options, |bench| flood(&course, options, bench));
        bench.case("ring", options, |bench| ring::run(options, bench));
        Ok(())
    })
}

fn kernel(scene: &Scene) -> Result<Kernel> {
    let mut kernel = Kernel::load(ballast_ebpf_loader::object(), SIZES)?;
    kernel.fill(&scene.tables)?;
    Ok(kernel)
}

/// Every kind of packet, interleaved with the floors.
fn packets(course: &Course, options: &Options, bench: &mut Bench) -> Result<()> {
    let scene = Scene::new()?;
    let kernel = kernel(&scene)?;
    let count = options.size(PACKETS, 10_000);
    let mut all: Vec<(Case, Vec<f64>, [Vec<f64>; 3])> = Case::all()
        .into_iter()
        .map(|case| (case, Vec::new(), Default::default()))
        .collect();
    for round in 0..options.runs.unwrap_or(RUNS) {
        for (case, values, floors) in &mut all {
            cases::prepare(&kernel, course, case)?;
            for ((floor, _), values) in Floor::ALL.iter().zip(floors.iter_mut()) {
                let (ns, _) = course.run(course.floor(*floor), case.packets(), 0, count)?;
                values.push(f64::from(ns));
            }
            let first = if case.always_new {
                u32::try_from(round)?.wrapping_mul(count)
            } else {
                0
            };
            let program = kernel.program(case.program);
            let (ns, action) = course.run(program, case.packets(), first, count)?;
            anyhow::ensure!(
                action == case.action,
                "{}: the program returned {action}, not {}",
                case.name,
                case.action
            );
            values.push(f64::from(ns));
        }
    }
    let median = |values: &[f64]| {
        Figure::new(("", ""), "", "ns")
            .values(values.to_vec())
            .median()
    };
    let of = |name: &str| {
        let found = all.iter().find(|(case, ..)| case.name == name);
        found.map_or(f64::NAN, |(_, values, _)| median(values))
    };
    let hit = of("hit, 1 flow");
    for (case, values, floors) in &all {
        for ((_, name), values) in Floor::ALL.iter().zip(floors) {
            let figure = Figure::new((case.name, *name), "time for a packet", "ns");
            bench.push(figure.values(values.clone()));
        }
        let figure = Figure::new((case.name, "ballast"), "time for a packet", "ns");
        bench.push(figure.values(values.clone()));
        let (drop, encapsulate) = (median(&floors[0]), median(&floors[2]));
        let ours = median(values);
        bench.extend(case.goals(ours, drop, encapsulate, hit));
    }
    Ok(())
}

/// Established flows under a flood of SYNs.
fn flood(course: &Course, options: &Options, bench: &mut Bench) -> Result<()> {
    let scene = Scene::new()?;
    let kernel = kernel(&scene)?;
    let flows = options.size(ESTABLISHED, 1_024);
    let syns = options.size(FLOOD, 10_000);
    let mut case = Case::established(flows);
    cases::prepare(&kernel, course, &mut case)?;
    let before = cases::established(&kernel);
    let flood = Case::flood();
    let (ns, _) = course.run(kernel.program(Program::Balance), flood.packets(), 0, syns)?;
    let after = cases::established(&kernel);
    let lost = before
        .iter()
        .filter(|tag| after.binary_search(tag).is_err());
    let of = ("SYN flood", "ballast");
    bench.push(
        Figure::new(of, "established flows lost", "flows")
            .values([lost.count() as f64])
            .goal(Stat::Max, 0.0),
    );
    bench.push(Figure::new(of, "flows before", "flows").values([before.len() as f64]));
    bench.push(Figure::new(of, "SYNs", "packets").values([f64::from(syns)]));
    bench.push(Figure::new(of, "time for a SYN", "ns").values([f64::from(ns)]));
    Ok(())
}
