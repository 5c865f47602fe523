//! A service from its creation to its removal.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use ballast_model::view::{TaskView, UpdateView};
use ballast_tests::cluster::{Cluster, LoadPlan};

use crate::scenario::{
    DEADLINE, after_requests, create_hello, healthy, no_post_twice, no_slot_twice, nothing_failed,
    scenario,
};

#[test]
fn cluster_service_of_five_answers_scales_and_goes() {
    scenario(Cluster::builder(), |cluster| {
        create_hello(cluster, "web", 5, 8080, &[])?;
        let took = cluster.wait_healthy("web", 5, DEADLINE)?;
        eprintln!("5 replicas healthy after {took:?}");
        every_replica_answers(cluster, 5)?;
        ps_keeps_its_contract(cluster)?;

        cluster.cli(&["service", "scale", "web=8"])?;
        cluster.wait_healthy("web", 8, DEADLINE)?;
        every_replica_answers(cluster, 8)?;

        cluster.cli(&["service", "scale", "web=2"])?;
        cluster.wait_healthy("web", 2, DEADLINE)?;
        let slots: BTreeSet<u32> = healthy(cluster, "web").iter().map(|t| t.slot.0).collect();
        ensure!(
            slots == BTreeSet::from([1, 2]),
            "the newest go first: {slots:?}"
        );

        cluster.cli(&["service", "rm", "web"])?;
        cluster.wait_until("no task is left", DEADLINE, |c| {
            c.agents().all(|host| host.task_pids().is_empty())
        })?;
        cluster.wait_until("the port is closed", DEADLINE, |c| {
            c.request(c.ingress(0).address(8080), "GET", "/", None)
                .is_err()
        })?;
        let (_, message) = cluster.cli_refused(&["service", "inspect", "web"])?;
        ensure!(message.contains("web"), "names what is gone: {message}");
        Ok(())
    });
}

/// Asks until every slot has answered.
fn every_replica_answers(cluster: &Cluster, count: usize) -> Result<()> {
    let address = cluster.ingress(0).address(8080);
    let mut seen = BTreeSet::new();
    cluster
        .wait_until("every replica answers", DEADLINE, |c| {
            if let Ok(response) = c.request(address, "GET", "/", None)
                && response.status == 200
            {
                seen.insert(response.text());
            }
            seen.len() >= count
        })
        .with_context(|| format!("{seen:?} {}", cluster.describe("web")))?;
    Ok(())
}

/// The names that tools read.
fn ps_keeps_its_contract(cluster: &Cluster) -> Result<()> {
    let text = cluster.cli(&["--output", "json", "service", "ps", "web"])?;
    let rows: Vec<serde_json::Value> = serde_json::from_str(&text)?;
    ensure!(rows.len() == 5, "{text}");
    for row in &rows {
        for key in [
            "id",
            "service",
            "slot",
            "node",
            "pid",
            "state",
            "health",
            "address",
            "generation",
            "message",
            "since",
        ] {
            ensure!(row.get(key).is_some(), "no {key} in {row}");
        }
    }
    let text = cluster.cli(&["--output", "json", "service", "inspect", "web"])?;
    let view: serde_json::Value = serde_json::from_str(&text)?;
    ensure!(view["replicas"]["healthy"] == 5, "{text}");
    let text = cluster.cli(&["--output", "json", "node", "ls"])?;
    let nodes: Vec<serde_json::Value> = serde_json::from_str(&text)?;
    ensure!(nodes.len() == 3, "{text}");
    ensure!(nodes[0]["capacity"]["cpu_millis"].is_u64(), "{text}");
    ensure!(nodes[0]["allocated"]["memory_bytes"].is_u64(), "{text}");
    let text = cluster.cli(&["--output", "json", "events"])?;
    for line in text.lines() {
        let event: serde_json::Value = serde_json::from_str(line)?;
        ensure!(
            event["time"].is_string() && event["kind"].is_string(),
            "{line}"
        );
    }
    ensure!(text.contains("service.created"), "{text}");
    Ok(())
}

#[test]
fn cluster_update_and_rollback_fail_no_request() {
    scenario(Cluster::builder(), |cluster| {
        create_hello(cluster, "web", 4, 8080, &["--env", "VERSION=1"])?;
        cluster.wait_healthy("web", 4, DEADLINE)?;
        let first = generations(cluster);
        let load = cluster.load(LoadPlan::get(cluster.ingress(0).address(8080)).with_posts(3))?;
        after_requests(cluster, &load, 50)?;

        cluster.cli(&["service", "update", "web", "--env", "VERSION=2", "--detach"])?;
        updated(cluster)?;
        let second = generations(cluster);
        ensure!(second > first, "the generation rises: {first:?} {second:?}");

        cluster.cli(&["service", "rollback", "web", "--detach"])?;
        updated(cluster)?;
        let spec = cluster.service("web")?.spec;
        ensure!(
            spec.task.env["VERSION"] == "1",
            "rolled back: {:?}",
            spec.task.env
        );

        after_requests(cluster, &load, 50)?;
        let report = load.stop()?;
        nothing_failed(&report)?;
        no_post_twice(cluster, &report)?;
        no_slot_twice(cluster, "web")
    });
}

/// Returns the oldest and the newest generation that runs.
fn generations(cluster: &Cluster) -> BTreeSet<u64> {
    healthy(cluster, "web")
        .iter()
        .map(|task: &TaskView| task.generation.0)
        .collect()
}

fn updated(cluster: &Cluster) -> Result<()> {
    cluster
        .wait_until("the update is done", DEADLINE, |c| {
            let Ok(view) = c.service("web") else {
                return false;
            };
            let all = healthy(c, "web");
            view.update == UpdateView::Completed
                && all.len() == 4
                && all.iter().all(|task| task.generation == view.generation)
        })
        .with_context(|| cluster.describe("web"))?;
    Ok(())
}
