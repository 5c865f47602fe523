//! What a manager of 5,000 agents costs: idle, and while 100,000 tasks come and go.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::durable::{remove, service};
use super::{Bench, Figure, Options, proc};
use crate::cluster::bin_dir;
use crate::fleet::{Fleet, FleetManager, Manner, room_for};

const NODES: usize = 5000;
const TASKS: usize = 100_000;
/// For the agents to connect, and for the tasks to come or go.
const DEADLINE: Duration = Duration::from_mins(3);
/// Over which idle CPU time is measured.
const IDLE: Duration = Duration::from_secs(20);
/// How often the service is looked at.
const LOOK: Duration = Duration::from_millis(100);
const CASE: (&str, &str) = ("5,000 nodes", "ballast");
const SERVICE: &str = "fleet";

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
    let span = options.size(IDLE, Duration::from_millis(200));
    let dir = tempfile::tempdir_in(bin_dir()?).context("a folder")?;
    let manager = FleetManager::start(dir.path())?;
    let began = Instant::now();
    let room = room_for(u32::try_from(2 * tasks / nodes)?);
    let mut fleet = Fleet::join(manager.links, &manager.token()?, nodes, room).await?;
    seconds(bench, "all joined", began.elapsed());
    let began = Instant::now();
    fleet.connect(|_| Manner::Runs);
    fleet
        .wait("connected", DEADLINE, |fleet| fleet.connected() == nodes)
        .await?;
    seconds(bench, "all connected", began.elapsed());
    memory(bench, &manager, "memory without tasks")?;
    idle(bench, &manager, "CPU without tasks", span).await?;

    let cpu = used(&manager)?;
    let began = Instant::now();
    manager.call("POST", "/v1/services", Some(&service(SERVICE, tasks)))?;
    let told = |fleet: &Fleet| fleet.living() == tasks;
    let heard = fleet.wait("placed", DEADLINE, told).await;
    let heard = heard.with_context(|| manager.log())?;
    seconds(bench, "100,000 tasks heard by their agents", heard);
    let path = format!("/v1/services/{SERVICE}");
    while manager.call("GET", &path, None)?["replicas"]["healthy"] != json!(tasks) {
        ensure!(began.elapsed() < DEADLINE, "not all tasks run");
        tokio::time::sleep(LOOK).await;
    }
    let took = began.elapsed();
    seconds(bench, "100,000 tasks acknowledged running", took);
    let rate = Figure::new(CASE, "service create to running", "tasks/s");
    bench
        .figures
        .push(rate.values([tasks as f64 / took.as_secs_f64()]));
    seconds(bench, "CPU for it", used(&manager)?.saturating_sub(cpu));
    memory(bench, &manager, "memory with 100,000 tasks")?;
    idle(bench, &manager, "CPU with 100,000 tasks", span).await?;
    let sets = fleet.sets() as f64;
    bench
        .figures
        .push(Figure::new(CASE, "assignment sets sent", "1").values([sets]));

    let cpu = used(&manager)?;
    let took = remove(&manager, &fleet, SERVICE).await?;
    seconds(bench, "100,000 tasks removed", took);
    seconds(bench, "CPU for it", used(&manager)?.saturating_sub(cpu));
    let whole = fleet.connected() == nodes;
    ensure!(whole, "agents lost their links:\n{}", manager.log());
    published(bench);
    fleet.end().await;
    Ok(())
}

fn seconds(bench: &mut Bench, name: &'static str, span: Duration) {
    bench
        .figures
        .push(Figure::new(CASE, name, "s").values([span.as_secs_f64()]));
}

fn used(manager: &FleetManager) -> Result<Duration> {
    proc::cpu(manager.pid()).context("the manager has ended")
}

fn memory(bench: &mut Bench, manager: &FleetManager, name: &'static str) -> Result<()> {
    let bytes = proc::resident_bytes(manager.pid()).context("the manager has ended")?;
    let mib = bytes as f64 / f64::from(1 << 20);
    bench
        .figures
        .push(Figure::new(CASE, name, "MiB").values([mib]));
    Ok(())
}

async fn idle(
    bench: &mut Bench,
    manager: &FleetManager,
    name: &'static str,
    span: Duration,
) -> Result<()> {
    let (before, began) = (used(manager)?, Instant::now());
    tokio::time::sleep(span).await;
    let share = used(manager)?.saturating_sub(before).as_secs_f64() / began.elapsed().as_secs_f64();
    bench
        .figures
        .push(Figure::new(CASE, name, "% of a core").values([share * 100.0]));
    Ok(())
}

/// Adds what others say of themselves, on machines of their own: to compare the order of
/// magnitude, not the digits.
fn published(bench: &mut Bench) {
    let name = "published, not measured here";
    for (subject, rate) in [
        // The floors of its own scalability tests at 5,000 nodes.
        ("k8s", [680.0, 810.0].as_slice()),
        // C1M: 1,000,000 tasks on 5,000 hosts.
        ("nomad", &[3750.0]),
    ] {
        let figure = Figure::new((CASE.0, subject), name, "tasks/s");
        bench.figures.push(figure.values(rate.iter().copied()));
    }
}
