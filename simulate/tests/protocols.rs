//! The protocols on the traces that are kept with the crate.

use std::path::Path;

use ballast_model::Policy;
use ballast_simulate::trace::{
    Generated, SHIPPED, TraceNode, TraceTasks, Uniform, read_nodes, read_tasks,
};
use ballast_simulate::{Error, Fleet, Options, Protocol, Report, Simulated, Workload, simulate};

fn shipped(file: &str) -> Vec<u8> {
    std::fs::read(Path::new(SHIPPED).join(file)).expect("a trace that is kept here")
}

fn openb_nodes() -> Vec<TraceNode> {
    read_nodes(&shipped("openb/openb_node_list_gpu_node.csv")).expect("reads")
}

fn openb_tasks(list: &str) -> TraceTasks {
    read_tasks(&shipped(&format!("openb/openb_pod_list_{list}.csv"))).expect("reads")
}

fn run(nodes: &[TraceNode], tasks: &TraceTasks, options: Options) -> Result<Simulated, Error> {
    let workload = Workload::new(tasks, Policy::Auto).expect("models that a constraint can hold");
    simulate(&Fleet::new(nodes), &workload, options, &|_| {})
}

fn uniform(text: &str) -> Vec<TraceNode> {
    text.parse::<Uniform>().expect("a fleet").nodes()
}

fn tasks(csv: &str) -> TraceTasks {
    read_tasks(csv.as_bytes()).expect("reads")
}

fn of(protocol: Protocol) -> Options {
    Options {
        protocol,
        ..Options::default()
    }
}

#[test]
fn every_list_that_is_kept_reads_as_published() {
    let nodes = openb_nodes();
    assert_eq!(nodes.len(), 1213);
    assert_eq!(
        nodes.iter().map(|node| u64::from(node.gpus)).sum::<u64>(),
        6212
    );
    let all = read_nodes(&shipped("openb/openb_node_list_all_node.csv")).expect("reads");
    assert_eq!(all.len(), 1523);
    let list = openb_tasks("default");
    assert_eq!(list.tasks.len(), 8152);
    assert_eq!(list.jumps.rows, 0);
    let gpus: u64 = list.tasks.iter().map(|task| task.shape.gpu_total()).sum();
    assert_eq!((gpus + 500) / 1000, 6087);
    assert_eq!(
        openb_tasks("gpuspec33")
            .tasks
            .iter()
            .filter(|t| !t.shape.models.is_empty())
            .count(),
        2388
    );
    assert_eq!(openb_tasks("multigpu50").tasks.len(), 9061);
    assert_eq!(openb_tasks("cpu250").tasks.len(), 9420);
    assert_eq!(openb_tasks("gpushare100").tasks.len(), 8152);
}

#[test]
fn once_places_each_task_once_and_counts_what_it_takes() {
    let nodes = uniform("uniform:3:4000:4096");
    let list = tasks("cpu_milli,memory_mib\n4000,1024\n2000,1024\n2000,1024\n4000,1\n1,1\n");
    let report = run(&nodes, &list, of(Protocol::Once)).expect("runs").report;
    let run = &report.runs[0];
    assert_eq!((run.placed, run.unplaced), (4, 1));
    assert_eq!(run.nodes_used_peak, 3);
    assert!((run.nodes_used_mean - (1.0 + 2.0 + 2.0 + 3.0 + 3.0) / 5.0).abs() < 1e-9);
    assert!((run.cpu_allocated_percent - 100.0).abs() < 1e-9);
    assert_eq!(run.gpu_allocated_percent, None);
    assert!(report.placements_per_second > 0.0);
}

#[test]
fn fgd_ends_at_130_percent_and_gives_the_same_for_a_seed_on_any_number_of_threads() {
    let nodes = openb_nodes();
    let list = openb_tasks("default");
    let options = |threads| Options {
        protocol: Protocol::Fgd,
        seeds: 2,
        threads,
        ..Options::default()
    };
    let run = |threads| run(&nodes[..150], &list, options(threads)).expect("runs");
    let (one, two) = (run(1), run(2));
    let same = |report: &Report| Report {
        placements_per_second: 0.0,
        ..report.clone()
    };
    assert_eq!(same(&one.report), same(&two.report));
    assert_eq!(one.timeline, two.timeline);
    let runs = &one.report.runs;
    assert_ne!(runs[0].placed, runs[1].placed);
    for run in runs {
        let gpu = run.gpu_allocated_percent.expect("there are GPUs");
        let (at_100, at_130) = (gpu.at_100.expect("reached"), gpu.at_130.expect("reached"));
        assert!(
            at_100 > 60.0 && at_100 <= at_130 && at_130 <= 100.0,
            "{gpu:?}"
        );
    }
}

#[test]
fn replay_counts_over_time_and_against_the_volume_bound() {
    let nodes = uniform("uniform:4:1000:1000");
    let list = tasks(
        "cpu_milli,memory_mib,creation_time,deletion_time\n\
         600,0,0,10\n600,0,0,10\n400,0,0,20\n500,500,30,30\n",
    );
    let simulated = run(&nodes, &list, of(Protocol::Replay)).expect("runs");
    let run = &simulated.report.runs[0];
    assert_eq!((run.placed, run.unplaced), (4, 0));
    assert_eq!(run.nodes_used_peak, 2);
    // 2 nodes for 10 s, 1 for 10 s, none for 10 s.
    assert!((run.nodes_used_mean - 1.0).abs() < 1e-9);
    assert!((run.nodes_to_volume_bound.expect("equal nodes") - 30.0 / 20.0).abs() < 1e-9);
    assert!((run.nodes_to_whole_bound.expect("equal nodes") - 30.0 / 30.0).abs() < 1e-9);
    assert!((run.cpu_allocated_percent - 20.0 / 120.0 * 100.0).abs() < 1e-9);
    assert_eq!(simulated.timeline.samples.len(), 241);
}

#[test]
fn what_cannot_be_run_says_why() {
    let (plain, gpus) = (uniform("uniform:1:1:1"), uniform("uniform:1:1:1:8"));
    let list = tasks("cpu_milli,memory_mib\n1,1\n");
    let ask = |nodes: &[TraceNode], options| run(nodes, &list, options).err();
    assert_eq!(ask(&plain, of(Protocol::Fgd)), Some(Error::NoGpuNodes));
    assert_eq!(ask(&gpus, of(Protocol::Fgd)), Some(Error::NoGpuTasks));
    assert_eq!(
        ask(&plain, of(Protocol::Replay)),
        Some(Error::NoTime { line: 2 })
    );
    assert_eq!(ask(&[], of(Protocol::Once)), Some(Error::NoNodes));
    let none = Options {
        seeds: 0,
        ..Options::default()
    };
    assert_eq!(ask(&plain, none), Some(Error::Seeds(0)));
    let nan = Options {
        migrate_percent_per_hour: f64::NAN,
        ..Options::default()
    };
    assert_eq!(ask(&plain, nan), Some(Error::Budget("NaN".to_owned())));
}

#[test]
fn generated_trace_is_the_same_for_a_seed_and_its_load_is_steady() {
    let made = |text: &str| text.parse::<Generated>().expect("a trace").tasks();
    let list = made("generated:2000:7");
    assert_eq!(list, made("generated:2000:7"));
    assert_ne!(list, made("generated:2000:8"));
    assert_eq!(list.jumps.rows, 0);
    assert!(
        list.tasks
            .iter()
            .all(|task| task.deleted.is_none() || task.deleted > task.created)
    );
}

#[test]
fn few_moves_bring_a_replay_nearer_to_its_bound() {
    let nodes = uniform("uniform:400:32000:131072");
    let list = "generated:4000:1"
        .parse::<Generated>()
        .expect("a trace")
        .tasks();
    let ask = |percent| {
        let options = Options {
            migrate_percent_per_hour: percent,
            ..of(Protocol::Replay)
        };
        run(&nodes, &list, options).expect("runs").report.mean
    };
    let (still, moved) = (ask(0.0), ask(1.0));
    let ratio = |mean: &ballast_simulate::Mean| mean.nodes_to_volume_bound.expect("equal nodes");
    println!("{still:?}\n{moved:?}");
    assert!((still.unplaced, still.moved) == (0.0, 0.0) && moved.unplaced == 0.0);
    assert!(moved.moved > 0.0 && ratio(&moved) < ratio(&still));
}
