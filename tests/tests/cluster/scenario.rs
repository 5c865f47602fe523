//! What the tests share: running a scenario, a service of ours, and reading what it did.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use ballast_model::view::TaskView;
use ballast_model::{Desired, Health, TaskState};
use ballast_tests::cluster::{Builder, Cluster, Isolation, LoadReport, isolation};

/// The longest wait for anything that should take a fraction of a second: the machine may be busy.
pub const DEADLINE: Duration = Duration::from_secs(15);

/// One at a time within this process, as nextest's group does between processes.
static ONE: Mutex<()> = Mutex::new(());

/// Starts a cluster, runs `test` on it, and ends it; logs are shown if it fails.
pub fn scenario(builder: Builder, test: impl FnOnce(&Cluster) -> Result<()>) {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let cluster = builder
        .start()
        .unwrap_or_else(|error| panic!("the cluster does not start: {error:#}"));
    match test(&cluster) {
        Ok(()) => cluster.finish(),
        Err(error) => {
            drop(cluster);
            panic!("{error:#}");
        }
    }
}

/// Returns whether hosts can be cut off here; says SKIP if not.
pub fn has_namespaces(test: &str) -> bool {
    match isolation() {
        Isolation::Namespaces => true,
        Isolation::Loopback(reason) => {
            skip(test, &reason);
            false
        }
    }
}

/// Says that a test was not run, and why.
pub fn skip(test: &str, reason: &str) {
    eprintln!("SKIP {test}: {reason}");
}

/// Creates a service of `ballast-hello` whose replicas share one ledger, and returns at once.
pub fn create_hello(
    cluster: &Cluster,
    name: &str,
    replicas: u32,
    port: u16,
    more: &[&str],
) -> Result<()> {
    let hello = cluster.bin("ballast-hello")?.display().to_string();
    let ledger = format!("HELLO_LEDGER={}", ledger_path(cluster).display());
    let replicas = replicas.to_string();
    let publish = format!("{port}:http");
    let mut args = vec!["service", "create", name, "--detach"];
    args.extend(["--replicas", &replicas, "--publish", &publish]);
    args.extend(["--env", &ledger]);
    args.extend(more);
    args.extend(["--", &hello]);
    cluster.cli(&args)?;
    Ok(())
}

fn ledger_path(cluster: &Cluster) -> PathBuf {
    cluster.dir().join("ledger")
}

/// Returns how often each POST was executed, by request id.
pub fn executions(cluster: &Cluster) -> Result<BTreeMap<String, u32>> {
    let text = std::fs::read_to_string(ledger_path(cluster)).context("the ledger")?;
    let mut counts = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.split(' ');
        if let (Some("POST"), Some(id)) = (words.next(), words.next()) {
            *counts.entry(id.to_owned()).or_insert(0) += 1;
        }
    }
    Ok(counts)
}

/// Proves that every answered POST was executed once, and none more often.
pub fn no_post_twice(cluster: &Cluster, report: &LoadReport) -> Result<()> {
    let executions = executions(cluster)?;
    let twice: Vec<_> = executions.iter().filter(|(_, count)| **count > 1).collect();
    ensure!(twice.is_empty(), "POSTs executed more than once: {twice:?}");
    for id in &report.posts_done {
        ensure!(
            executions.contains_key(id),
            "{id} was answered, not executed"
        );
    }
    Ok(())
}

/// Proves that load was there and that no GET failed.
pub fn no_get_failed(report: &LoadReport) -> Result<()> {
    ensure!(report.gets.ok > 50, "too little load: {:?}", report.gets);
    if report.gets.failed > 0 {
        bail!(
            "{} of {} GETs failed: {:#?}",
            report.gets.failed,
            report.gets.ok + report.gets.failed,
            report.failures
        );
    }
    Ok(())
}

/// Proves that nothing failed.
pub fn nothing_failed(report: &LoadReport) -> Result<()> {
    no_get_failed(report)?;
    ensure!(
        report.posts.failed == 0,
        "POSTs failed: {:#?}",
        report.failures
    );
    Ok(())
}

/// Returns the tasks of a service that run, shall run and take traffic.
pub fn healthy(cluster: &Cluster, service: &str) -> Vec<TaskView> {
    let mut tasks = cluster.tasks(service).unwrap_or_default();
    tasks.retain(|task| {
        task.state == TaskState::Running
            && task.desired == Desired::Running
            && task.health == Health::Healthy
    });
    tasks
}

/// Returns one healthy task of a service, for the worse.
pub fn victim(cluster: &Cluster, service: &str) -> Result<(TaskView, u32)> {
    let task = healthy(cluster, service)
        .into_iter()
        .next()
        .with_context(|| format!("no healthy task: {}", cluster.describe(service)))?;
    let pid = task.pid.context("a running task has a pid")?;
    Ok((task, pid))
}

/// Proves that no two living tasks fill one slot.
pub fn no_slot_twice(cluster: &Cluster, service: &str) -> Result<()> {
    let mut slots: Vec<_> = healthy(cluster, service)
        .iter()
        .map(|task| task.slot)
        .collect();
    slots.sort_unstable();
    let all = slots.len();
    slots.dedup();
    ensure!(
        slots.len() == all,
        "a slot twice: {}",
        cluster.describe(service)
    );
    Ok(())
}

/// Waits until load has done `more` requests.
pub fn after_requests(
    cluster: &Cluster,
    load: &ballast_tests::cluster::Load,
    more: u64,
) -> Result<()> {
    let goal = load.done() + more;
    cluster.wait_until("load goes on", DEADLINE, |_| load.done() >= goal)?;
    Ok(())
}
