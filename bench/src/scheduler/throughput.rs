//! Decisions per second: a task is placed, and the oldest is given back.
//!
//! Every fleet holds four tasks for each node when the measurement begins; they are packed as the
//! scheduler packs, so that some nodes are full and a few take what comes. Tasks have four
//! dimensions (CPU, memory, disk, slots), 64 sizes and 500 services. Beside each case, between its
//! runs, a scan over all nodes makes the same decisions on the same machine.
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "places in lists and shares of them, all in range"
)]

use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use ballast_model::{Node, Placement, ServiceId, SpreadRule, TopologyKey};
use ballast_scheduler::{Pool, Taken, Wanted, Worker};

use super::fleet::{self, ZONES};
use super::naive::Naive;
use crate::figures::{Figure, Stat};
use crate::machine;
use crate::options::Options;

const FLEETS: [(u64, &str); 4] = [
    (1_000, "1k"),
    (10_000, "10k"),
    (100_000, "100k"),
    (1_000_000, "1M"),
];
const SIZES: usize = 64;
const TASKS_PER_NODE: u64 = 4;
const SERVICES: u64 = 500;
/// How long one run lasts.
const RUN: Duration = Duration::from_millis(400);
/// How long the scan may take for one run.
const SCAN: Duration = Duration::from_millis(100);
/// One decision in so many is timed, so that the clock does not weigh.
const SAMPLE: u64 = 32;

/// What tasks ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Room.
    Plain,
    /// Room in one of eight zones.
    Constraints,
    /// Room outside one zone, evenly over the others.
    ConstraintsSpread,
    /// Room on a node without a task of the same service.
    AntiAffinity,
}

const SHAPES: [(Shape, &str); 4] = [
    (Shape::Plain, "plain"),
    (Shape::Constraints, "constraints"),
    (Shape::ConstraintsSpread, "constraints+spread"),
    (Shape::AntiAffinity, "anti-affinity"),
];

impl Shape {
    fn placement(self, nth: usize) -> Placement {
        let zone = nth as u64 % ZONES;
        let constraints = |text: String| vec![text.parse().expect("a constraint")];
        match self {
            Self::Plain => Placement::default(),
            Self::Constraints => Placement {
                constraints: constraints(format!("node.labels.zone==z{zone}")),
                ..Placement::default()
            },
            Self::ConstraintsSpread => Placement {
                constraints: constraints(format!("node.labels.zone!=z{zone}")),
                spread: vec![SpreadRule {
                    over: TopologyKey::Label("zone".to_owned()),
                    max_skew: 0,
                }],
                ..Placement::default()
            },
            Self::AntiAffinity => Placement {
                max_replicas_per_node: 1,
                ..Placement::default()
            },
        }
    }

    /// Decisions per second that two threads are to make at 10,000 nodes.
    const fn goal(self) -> f64 {
        match self {
            Self::AntiAffinity => 2e6,
            _ => 5e6,
        }
    }
}

/// Measures.
pub fn run(options: &Options) -> Vec<Figure> {
    let mut figures = Vec::new();
    for (shape, shape_name) in SHAPES {
        let mut smallest = None;
        for (count, count_name) in FLEETS {
            let case = format!("place+release {shape_name} {count_name}");
            if !options.wants(&case) {
                continue;
            }
            eprintln!("    {case}");
            let result = measure(shape, count, options.runs.unwrap_or(5));
            let one = Figure::new((&*case, "1 thread"), "decisions", "1/s").values(result.one);
            let mut two = Figure::new((&*case, "2 threads"), "decisions", "1/s").values(result.two);
            if count == 10_000 {
                two = two.goal_at_least(Stat::P50, shape.goal());
            }
            let scan = Figure::new((&*case, "naive scan"), "decisions", "1/s").values(result.scan);
            let ratio = |name, a: &Figure, b: &Figure| {
                Figure::new((&*case, "ballast"), name, "×").values([a.median() / b.median()])
            };
            figures.push(ratio("2 threads ÷ 1", &two, &one).goal_at_least(Stat::P50, 1.8));
            figures.push(ratio("1 thread ÷ scan", &one, &scan));
            let first = smallest.get_or_insert(one.median());
            figures.push(
                Figure::new((&*case, "ballast"), "cost ÷ cost at fewest nodes", "×")
                    .values([*first / one.median()])
                    .goal(Stat::P50, 1.5),
            );
            for (name, values, limit) in [
                ("latency p99", result.p99, 2.0),
                ("latency p99.9", result.p999, 20.0),
            ] {
                let figure = Figure::new((&*case, "1 thread"), name, "µs").values(values);
                figures.push(figure.goal(Stat::P50, limit));
            }
            for (subject, values) in [("1 thread", result.cpu_one), ("2 threads", result.cpu_two)] {
                let figure = Figure::new((&*case, subject), "processor per decision", "ns");
                figures.push(figure.values(values));
            }
            figures.extend([one, two, scan]);
        }
    }
    figures
}

/// What one thread did.
struct Run {
    /// Decisions per second.
    rate: f64,
    /// Nanoseconds of the processor for each.
    cpu_ns: f64,
}

#[derive(Debug, Default)]
struct Measured {
    cpu_one: Vec<f64>,
    cpu_two: Vec<f64>,
    one: Vec<f64>,
    two: Vec<f64>,
    scan: Vec<f64>,
    p99: Vec<f64>,
    p999: Vec<f64>,
}

fn measure(shape: Shape, count: u64, runs: usize) -> Measured {
    let nodes = fleet::nodes(count);
    let tasks = count * TASKS_PER_NODE;
    let (one, one_wanted) = pool(&nodes, shape, 1);
    let (two, two_wanted) = pool(&nodes, shape, 2);
    let mut alone = Load::new(one.worker(0), &one_wanted, 0);
    alone.fill(tasks);
    let mut pair = [0, 1].map(|number| {
        let mut load = Load::new(two.worker(number), &two_wanted, number as u64);
        load.fill(tasks / 2);
        load
    });
    let mut naive = Naive::new(&nodes, shape, fleet::sizes(SIZES));
    naive.fill(&alone.held_by_node(&nodes));
    let mut measured = Measured::default();
    for _ in 0..runs {
        let mut times = Vec::new();
        let run = alone.run(RUN, Some(&mut times));
        measured.one.push(run.rate);
        measured.cpu_one.push(run.cpu_ns);
        times.sort_unstable();
        let at = |share: f64| times[(times.len() as f64 * share) as usize] as f64 / 1e3;
        measured.p99.push(at(0.99));
        measured.p999.push(at(0.999));
        let both = together(&mut pair);
        measured.two.push(both.iter().map(|run| run.rate).sum());
        measured.cpu_two.extend(both.iter().map(|run| run.cpu_ns));
        let (decisions, time) = naive.run(SCAN);
        measured.scan.push(decisions as f64 / time.as_secs_f64());
    }
    measured
}

/// Returns what both threads did at the same time.
fn together(pair: &mut [Load<'_>; 2]) -> [Run; 2] {
    let barrier = Barrier::new(2);
    std::thread::scope(|scope| {
        let running = pair.each_mut().map(|load| {
            let barrier = &barrier;
            scope.spawn(move || {
                barrier.wait();
                load.run(RUN, None)
            })
        });
        running.map(|thread| thread.join().expect("a load"))
    })
}

fn pool(nodes: &[Node], shape: Shape, workers: usize) -> (Pool, Vec<Wanted>) {
    let mut pool = Pool::new(nodes, workers);
    let wanted = |pool: &mut Pool| -> Vec<Wanted> {
        let sizes = fleet::sizes(SIZES);
        let all = sizes.iter().enumerate();
        all.map(|(nth, size)| pool.wanted(size, &[], &shape.placement(nth)))
            .collect()
    };
    // Once to teach the pool what the constraints tell apart, once for good.
    wanted(&mut pool);
    let wanted = wanted(&mut pool);
    (pool, wanted)
}

/// One thread's tasks, on cache lines of their own.
#[repr(align(128))]
struct Load<'a> {
    worker: Worker<'a>,
    wanted: &'a [Wanted],
    held: VecDeque<(ServiceId, usize, Taken)>,
    random: u64,
}

impl<'a> Load<'a> {
    fn new(worker: Worker<'a>, wanted: &'a [Wanted], seed: u64) -> Self {
        Self {
            worker,
            wanted,
            held: VecDeque::new(),
            random: fleet::SEED ^ (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15),
        }
    }

    fn fill(&mut self, tasks: u64) {
        for _ in 0..tasks {
            self.place();
        }
    }

    fn draw(&mut self) -> u64 {
        // xorshift64*: a few instructions, so that the load does not weigh.
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn place(&mut self) {
        let draw = self.draw();
        let size = draw as usize % self.wanted.len();
        let service = ServiceId::from_bits((draw >> 16) % SERVICES);
        let taken = self.worker.place(service, &self.wanted[size]);
        let taken = taken.expect("the fleet has room");
        self.held.push_back((service, size, taken));
    }

    fn release(&mut self) {
        let (service, _, taken) = self.held.pop_front().expect("never empty");
        self.worker.release(service, taken);
    }

    /// Places and gives back until the time is over; returns how often, and how long it took, by
    /// the clock and of the processor.
    fn run(&mut self, least: Duration, times: Option<&mut Vec<u64>>) -> Run {
        let cpu = machine::thread_cpu();
        let begin = Instant::now();
        let mut decisions = 0;
        let mut taken = Vec::new();
        while begin.elapsed() < least {
            for _ in 0..SAMPLE - 1 {
                self.place();
                self.release();
            }
            let before = Instant::now();
            self.place();
            taken.push(u64::try_from(before.elapsed().as_nanos()).unwrap_or(u64::MAX));
            self.release();
            decisions += SAMPLE;
        }
        let time = begin.elapsed().as_secs_f64();
        let cpu = machine::thread_cpu().saturating_sub(cpu).as_secs_f64();
        if let Some(times) = times {
            times.append(&mut taken);
        }
        black_box(&self.held);
        Run {
            rate: decisions as f64 / time,
            cpu_ns: cpu * 1e9 / decisions as f64,
        }
    }

    /// Returns which sizes are held on each node, by the nodes' places in the list.
    fn held_by_node(&self, nodes: &[Node]) -> Vec<(usize, ServiceId, usize)> {
        let by_id: std::collections::BTreeMap<_, _> = nodes
            .iter()
            .enumerate()
            .map(|(place, node)| (node.id, place))
            .collect();
        let held = self.held.iter();
        held.map(|(service, size, taken)| (by_id[&taken.node()], *service, *size))
            .collect()
    }
}
