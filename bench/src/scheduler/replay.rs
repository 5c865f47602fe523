//! Arrivals and departures: nodes in use over time ÷ the volume bound, without moves and with at
//! most 1 % of the tasks moved per hour.
//!
//! The bound of a moment is the number of nodes that the tasks would fill if they could be poured,
//! in the dimension that needs most. openb's own times keep some 45 tasks running at once, on five
//! nodes or so: there a part of a node, which nobody can use, is a large part of the bound, and
//! even packing each moment anew misses the goal. So both are told: against the volume, and
//! against the volume rounded up to whole nodes at each moment; no packing goes below either.

use std::path::Path;

use ballast_model::Policy;
use ballast_simulate::trace::{Generated, SHIPPED, TraceTasks, Uniform, read_tasks};
use ballast_simulate::{Fleet, Options as Simulation, Protocol, Workload, simulate};

use crate::figures::{Figure, Stat};
use crate::options::Options;

/// openb's largest model of node: every pod of the lists fits on it.
const LARGE: &str = "uniform:64:128000:786432:8";
/// What the sizes of made-up traces are for.
const COMMON: &str = "uniform:600:32000:131072";
/// Of a made-up trace.
const TASKS: u64 = 40_000;
const SEEDS: u64 = 3;

/// What replays are run with. `binpack` is for few nodes; `auto` keeps devices usable for what may
/// come, and opens a node sooner where the others would waste more: it is shown beside, without a goal.
const SUBJECTS: [(&str, Policy, f64, Option<f64>); 4] = [
    ("binpack, no moves", Policy::Binpack, 0.0, Some(1.10)),
    ("binpack, 1 %/h moved", Policy::Binpack, 1.0, Some(1.05)),
    ("auto, no moves", Policy::Auto, 0.0, None),
    ("auto, 1 %/h moved", Policy::Auto, 1.0, None),
];

/// Measures.
pub fn run(options: &Options) -> Vec<Figure> {
    let mut figures = Vec::new();
    for list in ["default", "cpu250", "gpushare100"] {
        let case = format!("replay openb {list}");
        if options.wants(&case) {
            let path = Path::new(SHIPPED).join(format!("openb/openb_pod_list_{list}.csv"));
            let bytes = std::fs::read(&path).expect("a list that is kept");
            let tasks = read_tasks(&bytes).expect("a list that is kept");
            measure(&mut figures, &case, LARGE, &[tasks], false);
        }
    }
    let case = "replay made-up";
    if options.wants(case) {
        let made = |seed| Generated { count: TASKS, seed }.tasks();
        let traces: Vec<TraceTasks> = (1..=SEEDS).map(made).collect();
        measure(&mut figures, case, COMMON, &traces, true);
    }
    figures
}

fn measure(
    figures: &mut Vec<Figure>,
    case: &str,
    nodes: &str,
    traces: &[TraceTasks],
    by_volume: bool,
) {
    let fleet = Fleet::new(&nodes.parse::<Uniform>().expect("a fleet").nodes());
    for (subject, policy, percent, goal) in SUBJECTS {
        let (mut volume, mut whole, mut moved) = (Vec::new(), Vec::new(), Vec::new());
        for trace in traces {
            let workload = Workload::new(trace, policy).expect("no strange models");
            let options = Simulation {
                protocol: Protocol::Replay,
                migrate_percent_per_hour: percent,
                ..Simulation::default()
            };
            let simulated = simulate(&fleet, &workload, options, &|_| {}).expect("it has times");
            let mean = simulated.report.mean;
            assert!(mean.unplaced == 0.0, "the fleet is large enough");
            volume.push(mean.nodes_to_volume_bound.expect("equal nodes"));
            whole.push(mean.nodes_to_whole_bound.expect("equal nodes"));
            moved.push(mean.moved);
        }
        let figure = |name, unit| Figure::new((case, subject), name, unit);
        let of_volume = figure("nodes ÷ volume bound", "×").values(volume);
        let of_whole = figure("nodes ÷ whole-node bound", "×").values(whole);
        let (of_volume, of_whole) = match (goal, by_volume) {
            (Some(goal), true) => (of_volume.goal(Stat::Max, goal), of_whole),
            (Some(goal), false) => (of_volume, of_whole.goal(Stat::Max, goal)),
            (None, _) => (of_volume, of_whole),
        };
        figures.extend([of_volume, of_whole]);
        figures.push(figure("moved", "tasks").values(moved));
    }
}
