//! How fast many replicas answer, and what idling with them costs.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::json;

use super::Bench;
use super::figures::{Figure, Stat};
use super::proc;
use super::rig::ms;
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

/// Measures it.
///
/// # Errors
/// If the cluster does not come up or replicas do not answer.
pub fn run() -> Result<Bench> {
    let mut bench = Bench::new("scale");
    let cluster = Cluster::builder().env("BALLAST_LOG", "warn").start()?;
    std::thread::sleep(SETTLE);
    memory(&cluster, &mut bench, "idle", None);
    eprintln!("    scale: nothing runs, for {IDLE:?}");
    let without = idle_cpu(&cluster)?;
    bench.figures.push(agents_cpu("no task", without));
    let fifty = (0..RUNS)
        .map(|run| {
            eprintln!("    scale: 50 replicas, run {} of {RUNS}", run + 1);
            let took = from_nothing(&cluster, 50)?;
            remove(&cluster)?;
            Ok(ms(took))
        })
        .collect::<Result<Vec<f64>>>()?;
    bench.figures.push(
        Figure::new(
            ("50 replicas from nothing", "ballast"),
            "all answering",
            "ms",
        )
        .values(fifty.clone())
        .goal(Stat::P50, 400.0),
    );
    eprintln!("    scale: 1,000 replicas");
    let thousand = from_nothing(&cluster, 1000)?;
    bench.figures.push(
        Figure::new(
            ("1,000 replicas from nothing", "ballast"),
            "all answering",
            "ms",
        )
        .values([ms(thousand)])
        .goal(Stat::Max, 10_000.0),
    );
    std::thread::sleep(SETTLE);
    memory(&cluster, &mut bench, "1,000 tasks", Some(25.0 * 1024.0));
    eprintln!("    scale: down to 500, then idle for {IDLE:?}");
    cluster.cli(&[
        "service",
        "scale",
        &format!("{SERVICE}=500"),
        "--timeout",
        "90s",
    ])?;
    cluster.wait_healthy(SERVICE, 500, DEADLINE)?;
    std::thread::sleep(SETTLE);
    let with = idle_cpu(&cluster)?;
    bench.figures.push(agents_cpu("500 idle tasks", with));
    // What heartbeats cost is the same without a task; the rest is probes and a look at log sizes.
    let added = agents_cpu("what 500 idle tasks add", with - without);
    bench.figures.push(added.goal(Stat::Max, 1.0));
    bench.raw = json!({"fifty_ms": fifty, "thousand_ms": ms(thousand)});
    cluster.finish();
    Ok(bench)
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

fn memory(cluster: &Cluster, bench: &mut Bench, when: &'static str, goal_kib: Option<f64>) {
    for (role, host) in roles(cluster) {
        let Some(bytes) = host.pid().and_then(proc::resident_bytes) else {
            bench
                .missing
                .push(format!("memory of the {role}: it has ended"));
            continue;
        };
        let name = match role {
            "manager" => "memory of the manager",
            "agent" => "memory of an agent (of 3)",
            _ => "memory of the ingress",
        };
        let figure = Figure::new((when, "ballast"), name, "KiB").values([bytes as f64 / 1024.0]);
        bench.figures.push(match goal_kib {
            Some(goal) => figure.goal(Stat::Max, goal),
            None => figure,
        });
    }
}

/// Returns what all agents use while nothing happens, in percent of a core.
fn idle_cpu(cluster: &Cluster) -> Result<f64> {
    let agents: Vec<u32> = cluster.agents().filter_map(Host::pid).collect();
    let used = || {
        agents
            .iter()
            .filter_map(|pid| proc::cpu(*pid))
            .sum::<Duration>()
    };
    let (before, began) = (used(), Instant::now());
    std::thread::sleep(IDLE);
    let share = used().saturating_sub(before).as_secs_f64() / began.elapsed().as_secs_f64();
    anyhow::ensure!(
        agents.len() == cluster.agents().count(),
        "an agent has ended"
    );
    Ok(share * 100.0)
}

fn agents_cpu(case: &'static str, percent: f64) -> Figure {
    Figure::new((case, "ballast"), "CPU of all 3 agents", "% of a core").values([percent])
}
