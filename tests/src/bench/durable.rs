//! How many placements a second a manager makes that survive it: reconciled, placed, committed to
//! the log with fsync, and heard by the agents they are for.
//!
//! All of it is real but the agents: a manager process, its file, and a TLS link for each agent.
//! The agents say that they took a set over and start nothing, so that what is measured ends where
//! the manager's part ends.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ballast_model::{TaskId, Timestamp};
use serde_json::{Value, json};

use super::figures::Stat;
use super::{Bench, Figure, Options};
use crate::cluster::bin_dir;
use crate::fleet::{Fleet, FleetManager, Manner, room_for};

const NODES: usize = 1000;
const TASKS: usize = 100_000;
const RUNS: usize = 5;
/// Before the runs, so that memory and connections are warm: this part of a run.
const WARM_UP: usize = 10;
/// For all of a run's tasks to come or go.
const DEADLINE: Duration = Duration::from_mins(1);
const SUBJECT: &str = "ballast";

/// Measures.
///
/// # Errors
/// The manager or an agent fails.
pub(super) fn run(bench: &mut Bench, options: &Options) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new().context("a runtime")?;
    runtime.block_on(measure(bench, options))
}

async fn measure(bench: &mut Bench, options: &Options) -> Result<()> {
    let (nodes, tasks) = (options.size(NODES, 20), options.size(TASKS, 200));
    let runs = options.runs.unwrap_or(options.size(RUNS, 1));
    // Beside the programs: a temporary folder may lie in memory, where fsync costs nothing.
    let dir = tempfile::tempdir_in(bin_dir()?).context("a folder")?;
    let manager = FleetManager::start(dir.path())?;
    let room = room_for(u32::try_from(2 * tasks / nodes)?);
    let mut fleet = Fleet::join(manager.links, &manager.token()?, nodes, room).await?;
    fleet.connect(|_| Manner::Acknowledges);
    fleet
        .wait("connected", DEADLINE, |fleet| fleet.connected() == nodes)
        .await?;
    place(&manager, &fleet, tasks / WARM_UP, "warm-up").await?;
    let (mut seconds, mut batches, mut sizes) = (Vec::new(), Vec::new(), Vec::new());
    for nth in 0..runs {
        let run = place(&manager, &fleet, tasks, &format!("run-{nth}")).await?;
        seconds.push(run.took.as_secs_f64());
        for (ms, size) in run.batches {
            batches.push(ms);
            sizes.push(size);
        }
    }
    let rate = seconds.iter().map(|seconds| tasks as f64 / seconds);
    bench.raw = json!({"seconds": seconds, "batch_ms": batches, "batch_tasks": sizes});
    let case = format!("durable, {} nodes", options.size("1,000", "20"));
    let of = (case.as_str(), SUBJECT);
    let figures = &mut bench.figures;
    let rate = Figure::new(of, "placements durable and heard", "1/s").values(rate);
    figures.push(rate.goal_at_least(Stat::P50, 100_000.0));
    let batch = Figure::new(of, "a batch, decided to heard", "ms").values(batches);
    figures.push(batch.goal(Stat::P99, 50.0));
    figures.push(Figure::new(of, "tasks in a batch", "1").values(sizes));
    fleet.end().await;
    Ok(())
}

struct Run {
    took: Duration,
    /// Milliseconds from the decision until the last agent heard of it, and tasks.
    batches: Vec<(f64, f64)>,
}

/// Returns the service that a bench creates.
pub(super) fn service(name: &str, tasks: usize) -> Value {
    json!({
        "name": name,
        "mode": {"replicated": {"replicas": tasks}},
        "task": {
            "command": ["sleep", "1000"],
            "resources": {"cpu": "0.01", "memory": 1 << 20},
        },
        "ports": [{"name": "http"}],
    })
}

async fn place(manager: &FleetManager, fleet: &Fleet, tasks: usize, name: &str) -> Result<Run> {
    let spec = service(name, tasks);
    let began = Instant::now();
    manager.call("POST", "/v1/services", Some(&spec))?;
    let heard = |fleet: &Fleet| fleet.living() == tasks;
    fleet.wait("placed", DEADLINE, heard).await?;
    let took = began.elapsed();
    let batches = batches(manager, name, &fleet.take_heard())?;
    remove(manager, fleet, name).await?;
    Ok(Run { took, batches })
}

/// Removes a service and waits until it is forgotten.
pub(super) async fn remove(manager: &FleetManager, fleet: &Fleet, name: &str) -> Result<Duration> {
    let path = format!("/v1/services/{name}");
    let began = Instant::now();
    manager.call("DELETE", &path, None)?;
    fleet
        .wait("removed", DEADLINE, |fleet| fleet.living() == 0)
        .await?;
    while manager.call("GET", &path, None).is_ok() {
        ensure!(began.elapsed() < DEADLINE, "{name} is not forgotten");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(began.elapsed())
}

/// Returns each batch's time from its decision, which its tasks bear, to its last arrival.
fn batches(
    manager: &FleetManager,
    name: &str,
    heard: &HashMap<TaskId, u64>,
) -> Result<Vec<(f64, f64)>> {
    let tasks = manager.call("GET", &format!("/v1/services/{name}/tasks"), None)?;
    let mut batches: BTreeMap<u64, (u64, f64)> = BTreeMap::new();
    for task in tasks.as_array().context("tasks")? {
        let id: TaskId = task["id"].as_str().context("an id")?.parse()?;
        let since: Timestamp = task["since"].as_str().context("a time")?.parse()?;
        let at = *heard.get(&id).context("a task that no agent heard of")?;
        let (last, count) = batches.entry(since.0).or_default();
        *last = at.max(*last);
        *count += 1.0;
    }
    let span = |(began, (last, count)): (u64, (u64, f64))| {
        (last.saturating_sub(began) as f64 / 1000.0, count)
    };
    Ok(batches.into_iter().map(span).collect())
}
