//! How fast many replicas answer, and what idling with them costs.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::json;

use super::figures::{Figure, Stat};
use super::rig::ms;
use super::{Bench, Options, proc};
use crate::cluster::{Cluster, Host};
use crate::watch::ReadyWatch;

const SERVICE: &str = "many";
/// Runs of fifty.
const RUNS: usize = 5;
/// For a thousand to come or go, on a slow machine.
const DEADLINE: Duration = Duration::from_secs(90);
/// After which nothing of a change goes on any more.
const SETTLE: Duration = Duration::from_secs(5);
/// Over which idle CPU time is measured: several probe intervals of 5 s.
const IDLE: Duration = Duration::from_secs(20);

/// How much of everything.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    few: u32,
    runs: usize,
    many: u32,
    idle: u32,
    settle: Duration,
    watch: Duration,
}

impl Sizes {
    fn of(options: &Options) -> Self {
        let published = Self {
            few: 50,
            runs: options.runs.unwrap_or(RUNS),
            many: 1000,
            idle: 500,
            settle: SETTLE,
            watch: IDLE,
        };
        let tiny = Self {
            few: 3,
            runs: 1,
            many: 6,
            idle: 3,
            settle: Duration::from_millis(100),
            watch: Duration::from_millis(300),
        };
        options.size(published, tiny)
    }
}

/// Measures it.
///
/// # Errors
/// If the cluster does not come up or replicas do not answer.
pub fn run(bench: &mut Bench, options: &Options) -> Result<()> {
    let sizes = Sizes::of(options);
    let cluster = Cluster::builder().env("BALLAST_LOG", "warn").start()?;
    std::thread::sleep(sizes.settle);
    memory(&cluster, bench, "idle", None);
    eprintln!("    scale: nothing runs, for {:?}", sizes.watch);
    let without = idle_cpu(&cluster, sizes.watch)?;
    bench.push(agents_cpu("no task", without));
    let few = (0..sizes.runs)
        .map(|run| {
            let (few, runs) = (sizes.few, sizes.runs);
            eprintln!("    scale: {few} replicas, run {} of {runs}", run + 1);
            let took = from_nothing(&cluster, few)?;
            remove(&cluster)?;
            Ok(ms(took))
        })
        .collect::<Result<Vec<f64>>>()?;
    let answering = |replicas| {
        let case = format!("{} replicas from nothing", grouped(replicas));
        Figure::new((case, "ballast"), "all answering", "ms")
    };
    let figure = answering(sizes.few).values(few.clone());
    bench.push(figure.goal(Stat::P50, 400.0));
    eprintln!("    scale: {} replicas", sizes.many);
    let many = ms(from_nothing(&cluster, sizes.many)?);
    let figure = answering(sizes.many).values([many]);
    bench.push(figure.goal(Stat::Max, 10_000.0));
    std::thread::sleep(sizes.settle);
    let loaded = format!("{} tasks", grouped(sizes.many));
    memory(&cluster, bench, &loaded, Some(25.0 * 1024.0));
    idle_tasks(&cluster, bench, sizes, without)?;
    bench.raw = json!({"few_ms": few, "many_ms": many});
    cluster.finish();
    Ok(())
}

fn idle_tasks(cluster: &Cluster, bench: &mut Bench, sizes: Sizes, without: f64) -> Result<()> {
    let idle = sizes.idle;
    eprintln!("    scale: down to {idle}, then idle for {:?}", sizes.watch);
    let scale = format!("{SERVICE}={idle}");
    cluster.cli(&["service", "scale", &scale, "--timeout", "90s"])?;
    cluster.wait_healthy(SERVICE, idle, DEADLINE)?;
    std::thread::sleep(sizes.settle);
    let with = idle_cpu(cluster, sizes.watch)?;
    bench.push(agents_cpu(format!("{idle} idle tasks"), with));
    // What heartbeats cost is the same without a task; the rest is probes and a look at log sizes.
    let added = agents_cpu(format!("what {idle} idle tasks add"), with - without);
    bench.push(added.goal(Stat::Max, 1.0));
    Ok(())
}

fn grouped(count: u32) -> String {
    match (count / 1000, count % 1000) {
        (0, rest) => rest.to_string(),
        (thousands, rest) => format!("{thousands},{rest:03}"),
    }
}

/// Returns how long it took from before the command was run until the ingress held every replica
/// ready, each by an answer of its own.
fn from_nothing(cluster: &Cluster, replicas: u32) -> Result<Duration> {
    let hello = cluster.bin("ballast-hello")?.display().to_string();
    let watch = ReadyWatch::start(cluster, SERVICE, Duration::from_millis(2))?;
    let count = replicas.to_string();
    let mut args = vec![
        "service",
        "create",
        SERVICE,
        "--replicas",
        &count,
        "--detach",
    ];
    args.extend([
        "--publish",
        "8080:http",
        "--health-http",
        "/healthz",
        "--spread",
        "node",
    ]);
    args.extend(["--", &hello]);
    let began = Instant::now();
    cluster.cli(&args)?;
    let all = watch.wait(began, DEADLINE, |ready| ready >= replicas);
    let all = all.with_context(|| {
        format!(
            "{} of {replicas} take traffic after {DEADLINE:?}",
            watch.now()
        )
    })?;
    cluster.wait_healthy(SERVICE, replicas, DEADLINE)?;
    Ok(all.saturating_duration_since(began))
}

fn remove(cluster: &Cluster) -> Result<()> {
    cluster.cli(&["service", "rm", SERVICE])?;
    cluster.wait_until("its tasks have gone", DEADLINE, |cluster| {
        cluster.agents().all(|host| host.task_pids().is_empty())
    })?;
    Ok(())
}

fn roles(cluster: &Cluster) -> [(&'static str, &Host); 3] {
    [
        ("manager", cluster.manager()),
        ("agent", cluster.agent(0)),
        ("ingress", cluster.ingress(0)),
    ]
}

fn memory(cluster: &Cluster, bench: &mut Bench, when: &str, goal_kib: Option<f64>) {
    for (role, host) in roles(cluster) {
        let Some(bytes) = host.pid().and_then(proc::resident_bytes) else {
            bench.missing(format!("memory of the {role}: it has ended"));
            continue;
        };
        let name = match role {
            "manager" => "memory of the manager",
            "agent" => "memory of an agent (of 3)",
            _ => "memory of the ingress",
        };
        let figure = Figure::new((when, "ballast"), name, "KiB").values([bytes as f64 / 1024.0]);
        bench.push(match goal_kib {
            Some(goal) => figure.goal(Stat::Max, goal),
            None => figure,
        });
    }
}

/// Returns what all agents use while nothing happens, in percent of a core.
fn idle_cpu(cluster: &Cluster, span: Duration) -> Result<f64> {
    let agents: Vec<u32> = cluster.agents().filter_map(Host::pid).collect();
    let used = || {
        agents
            .iter()
            .filter_map(|pid| proc::cpu(*pid))
            .sum::<Duration>()
    };
    let (before, began) = (used(), Instant::now());
    std::thread::sleep(span);
    let share = used().saturating_sub(before).as_secs_f64() / began.elapsed().as_secs_f64();
    anyhow::ensure!(
        agents.len() == cluster.agents().count(),
        "an agent has ended"
    );
    Ok(share * 100.0)
}

fn agents_cpu(case: impl Into<String>, percent: f64) -> Figure {
    Figure::new((case, "ballast"), "CPU of all 3 agents", "% of a core").values([percent])
}
