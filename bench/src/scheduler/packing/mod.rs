//! How well tasks are packed: the table of policies by the FGD protocol.
//!
//! Every subject gets the same tasks in the same order: drawn from a list with replacement until
//! they ask for 1.3 times the GPUs of the fleet; nothing departs, and what no node takes is lost.
//! The figure is how much of the GPUs is allocated when 100 % and when 130 % have been asked for.
//!
//! Ballast's policies are run by the very scheduler that runs in production, and learn what is
//! typical from the tasks as they come. The others ([`Baseline`]) are what their projects do, on
//! nodes and tasks alone: FGD is given the whole list beforehand, as in the paper.

mod baseline;
mod machine;
mod published;

use anyhow::Context as _;
use ballast_model::Policy;
use ballast_simulate::trace::{SHIPPED, TraceNode, TraceTask, read_nodes, read_tasks};
use ballast_simulate::{Fleet, Protocol, Workload, simulate};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

pub use baseline::Baseline;

use crate::figures::{Figure, Stat};
use crate::options::Options;
use machine::Machine;

/// Lists of tasks that are shipped, and what FGD is published to allocate of each at 100 % and at
/// 130 % of demand.
pub const LISTS: [(&str, [f64; 2]); 5] = [
    ("default", [95.2, 95.4]),
    ("cpu250", [93.2, 93.4]),
    ("gpushare100", [86.6, 86.9]),
    ("multigpu50", [97.1, 97.2]),
    ("gpuspec33", [87.8, 94.6]),
];
/// Percent of the fleet's GPUs that are asked for where it is measured.
pub const POINTS: [u32; 2] = [100, 130];
/// Runs of each subject with each list.
pub const SEEDS: u64 = 10;
/// What is held to the goals.
const OURS: &str = "ballast auto";
/// By how much a list may be below what is published, for the draws differ.
const SLACK: f64 = 0.1;
/// Goal of `gpuspec33` at 100 % of demand, where tasks without a choice come too late by FGD.
const SCARCE_GOAL: f64 = 94.0;

/// What one subject made of one list.
#[derive(Debug, Clone, PartialEq)]
pub struct Packed {
    /// Who placed.
    pub subject: String,
    /// The list.
    pub list: &'static str,
    /// GPUs allocated, percent, at each of [`POINTS`]: one for each seed.
    pub allocated: [Vec<f64>; 2],
    /// Decisions per second of the subject's own time.
    pub decisions_per_second: f64,
}

impl Packed {
    /// Returns the means over the seeds at each of [`POINTS`].
    #[expect(clippy::cast_precision_loss, reason = "few seeds")]
    pub fn means(&self) -> [f64; 2] {
        let mean = |values: &Vec<f64>| values.iter().sum::<f64>() / values.len().max(1) as f64;
        [mean(&self.allocated[0]), mean(&self.allocated[1])]
    }
}

/// Measures; the table goes to standard error.
///
/// # Panics
/// If a shipped list is not as it was shipped.
pub fn run(options: &Options) -> Vec<Figure> {
    let seeds = options.runs.map_or(SEEDS, |runs| runs as u64);
    // `--only "packing default"`, `--only "ballast auto"`, or one of a list.
    let wants = |list: &str, subject: &str| options.wants(&format!("packing {list} {subject}"));
    let all = pack(seeds, wants).expect("the shipped lists are as they were shipped");
    if all.is_empty() {
        return Vec::new();
    }
    eprint!("{}", table(&all));
    let mut figures: Vec<Figure> = all.iter().flat_map(figures).collect();
    figures.extend(over_all(&all));
    figures
}

fn case(list: &str) -> String {
    format!("packing {list}")
}

fn figures(packed: &Packed) -> Vec<Figure> {
    let names = ["GPUs at 100 % of demand", "GPUs at 130 % of demand"];
    let names_of_means = [
        "GPUs at 100 %, mean of seeds",
        "GPUs at 130 %, mean of seeds",
    ];
    let of = || (case(packed.list), packed.subject.clone());
    let published = LISTS.iter().find(|(list, _)| *list == packed.list);
    let published = published.expect("one of the lists").1;
    let mut figures = Vec::new();
    for point in 0..POINTS.len() {
        figures.push(Figure::new(of(), names[point], "%").values(packed.allocated[point].clone()));
        let mut mean =
            Figure::new(of(), names_of_means[point], "%").values([packed.means()[point]]);
        if packed.subject == OURS {
            let scarce = packed.list == "gpuspec33" && point == 0;
            let goal = if scarce {
                SCARCE_GOAL
            } else {
                published[point] - SLACK
            };
            mean = mean.goal_at_least(Stat::P50, goal);
        }
        figures.push(mean);
    }
    let speed = [packed.decisions_per_second];
    figures.push(Figure::new(of(), "decisions", "/s").values(speed));
    figures
}

/// Returns the means over the lists, of those who were run with all of them.
fn over_all(all: &[Packed]) -> Vec<Figure> {
    let names = [
        "GPUs at 100 %, mean of lists",
        "GPUs at 130 %, mean of lists",
    ];
    let count = f64::from(u32::try_from(LISTS.len()).expect("five"));
    let mut figures = Vec::new();
    for subject in subjects(all) {
        let of = || all.iter().filter(|packed| packed.subject == subject);
        if of().count() < LISTS.len() {
            continue;
        }
        for point in 0..POINTS.len() {
            let mean = of().map(|packed| packed.means()[point]).sum::<f64>() / count;
            let published = LISTS.iter().map(|(_, published)| published[point]);
            let name = names[point];
            let mut figure = Figure::new(("packing", subject), name, "%").values([mean]);
            if subject == OURS {
                figure = figure.goal_at_least(Stat::P50, published.sum::<f64>() / count);
            }
            figures.push(figure);
        }
    }
    figures
}

/// Runs every subject that is wanted with every list.
fn pack(seeds: u64, wants: impl Fn(&str, &str) -> bool) -> anyhow::Result<Vec<Packed>> {
    let nodes = nodes()?;
    let mut all = Vec::new();
    for (list, _) in LISTS {
        let tasks = read(&format!("openb_pod_list_{list}.csv"))?;
        let tasks = read_tasks(&tasks).with_context(|| format!("list {list}"))?;
        for baseline in Baseline::ALL {
            if !wants(list, &baseline.to_string()) {
                continue;
            }
            eprintln!("    {list}: {baseline}");
            all.push(run_baseline(baseline, list, &nodes, &tasks.tasks, seeds));
        }
        for policy in [Policy::Spread, Policy::Binpack, Policy::Fgd, Policy::Auto] {
            let subject = format!("ballast {policy}");
            if !wants(list, &subject) {
                continue;
            }
            eprintln!("    {list}: {subject}");
            let workload = Workload::new(&tasks, policy)?;
            let options = ballast_simulate::Options {
                protocol: Protocol::Fgd,
                seeds,
                ..ballast_simulate::Options::default()
            };
            let report = simulate(&Fleet::new(&nodes), &workload, options, &|_| {})?.report;
            let at = |point: usize| {
                let runs = report.runs.iter().filter_map(|run| {
                    let gpus = run.gpu_allocated_percent?;
                    [gpus.at_100, gpus.at_130][point]
                });
                runs.collect::<Vec<f64>>()
            };
            all.push(Packed {
                subject,
                list,
                allocated: [at(0), at(1)],
                decisions_per_second: report.placements_per_second,
            });
        }
    }
    Ok(all)
}

fn subjects(all: &[Packed]) -> Vec<&str> {
    let mut subjects: Vec<&str> = Vec::new();
    for packed in all {
        if !subjects.contains(&packed.subject.as_str()) {
            subjects.push(&packed.subject);
        }
    }
    subjects
}

/// Returns the results as a table, a row for each subject.
fn table(all: &[Packed]) -> String {
    use std::fmt::Write as _;
    let mut text = format!("{:26}", "GPUs allocated, %");
    let lists = LISTS
        .iter()
        .filter(|(list, _)| all.iter().any(|packed| packed.list == *list));
    for (list, _) in lists.clone() {
        let _ = write!(text, " {list:>13}");
    }
    text.push_str("          mean   decisions/s\n");
    let row = |name: &str, cells: Vec<[f64; 2]>, speed: &str| {
        let mut line = format!("{name:26}");
        let mut mean = [0.0; 2];
        #[expect(clippy::cast_precision_loss, reason = "five lists")]
        let count = cells.len().max(1) as f64;
        for [early, late] in &cells {
            let _ = write!(line, "   {early:5.2}/{late:5.2}");
            mean = [mean[0] + early / count, mean[1] + late / count];
        }
        let _ = writeln!(line, "   {:5.2}/{:5.2} {speed:>13}", mean[0], mean[1]);
        line
    };
    let published = lists.map(|(_, published)| *published).collect();
    text.push_str(&row("FGD, the paper's figures", published, ""));
    for subject in subjects(all) {
        let of: Vec<&Packed> = all
            .iter()
            .filter(|packed| packed.subject == subject)
            .collect();
        let speed = of.iter().map(|packed| packed.decisions_per_second);
        let slowest = speed.fold(f64::INFINITY, f64::min);
        let cells = of.iter().map(|packed| packed.means()).collect();
        text.push_str(&row(subject, cells, &format!("{slowest:.0}")));
    }
    text
}

fn run_baseline(
    baseline: Baseline,
    list: &'static str,
    nodes: &[TraceNode],
    tasks: &[TraceTask],
    seeds: u64,
) -> Packed {
    let mut allocated = [Vec::new(), Vec::new()];
    let (mut decisions, mut spent) = (0u64, std::time::Duration::ZERO);
    for seed in 1..=seeds {
        // The draws of the protocol, as `ballast_simulate` makes them.
        let mut draws = StdRng::seed_from_u64(seed);
        let mut machines: Vec<Machine> = nodes.iter().map(Machine::new).collect();
        let mut placer = baseline.placer(tasks, seed);
        let all: u64 = machines
            .iter()
            .map(|machine| u64::from(machine.gpu_free()))
            .sum();
        let (mut asked, mut got) = (0u64, 0u64);
        let mut reached = [None; 2];
        while reached[1].is_none() {
            let task = &tasks[draws.random_range(0..tasks.len())].shape;
            let begun = std::time::Instant::now();
            if let Some((at, gpu)) = placer.place(&machines, task) {
                machines[at].take(task, gpu);
                got += task.gpu_total();
            }
            spent += begun.elapsed();
            decisions += 1;
            asked += task.gpu_total();
            for (reached, point) in reached.iter_mut().zip(POINTS) {
                if asked * 100 >= all * u64::from(point) {
                    #[expect(clippy::cast_precision_loss, reason = "thousandths of GPUs")]
                    reached.get_or_insert(got as f64 * 100.0 / all as f64);
                }
            }
        }
        for (values, reached) in allocated.iter_mut().zip(reached) {
            values.extend(reached);
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "decisions of a bench")]
    let decisions_per_second = decisions as f64 / spent.as_secs_f64().max(1e-9);
    Packed {
        subject: baseline.to_string(),
        list,
        allocated,
        decisions_per_second,
    }
}

fn nodes() -> anyhow::Result<Vec<TraceNode>> {
    let bytes = read("openb_node_list_gpu_node.csv")?;
    read_nodes(&bytes).context("list of nodes")
}

fn read(file: &str) -> anyhow::Result<Vec<u8>> {
    let path = format!("{SHIPPED}/openb/{file}");
    std::fs::read(&path).with_context(|| path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean(baseline: Baseline, list: &'static str) -> [f64; 2] {
        let nodes = nodes().expect("shipped");
        let bytes = read(&format!("openb_pod_list_{list}.csv")).expect("shipped");
        let tasks = read_tasks(&bytes).expect("as it was shipped").tasks;
        run_baseline(baseline, list, &nodes, &tasks, 1).means()
    }

    #[test]
    fn baselines_come_to_what_was_published_and_measured_elsewhere() {
        for (baseline, list, published) in [
            (Baseline::FirstFit, "default", [94.1, 94.3]),
            (Baseline::FirstFit, "gpuspec33", [93.4, 93.6]),
            (Baseline::Published, "multigpu50", [97.1, 97.2]),
        ] {
            let means = mean(baseline, list);
            for (mean, published) in means.iter().zip(published) {
                assert!(
                    (mean - published).abs() < 0.5,
                    "{baseline} {list}: {means:?}"
                );
            }
        }
    }
}
