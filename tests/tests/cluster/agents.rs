//! Agents that stop and come back, nodes that are drained, and tasks that fit nowhere.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use ballast_model::TaskState;
use ballast_tests::cluster::{Cluster, LoadPlan, alive};

use crate::scenario::{
    DEADLINE, after_requests, create_hello, healthy, no_slot_twice, nothing_failed, scenario,
    victim,
};

fn pids(cluster: &Cluster) -> BTreeSet<Option<u32>> {
    healthy(cluster, "web")
        .iter()
        .map(|task| task.pid)
        .collect()
}

#[test]
fn cluster_restarted_agent_adopts_its_tasks() {
    scenario(Cluster::builder().agents(2), |cluster| {
        create_hello(cluster, "web", 4, 8080, &["--spread", "node"])?;
        cluster.wait_healthy("web", 4, DEADLINE)?;
        let before = pids(cluster);
        let load = cluster.load(LoadPlan::get(cluster.ingress(0).address(8080)).with_posts(3))?;
        after_requests(cluster, &load, 50)?;

        cluster.agent(0).restart()?;
        adopted(cluster, &before).context("after SIGKILL")?;

        cluster.agent(1).terminate(DEADLINE)?;
        for pid in before.iter().flatten() {
            ensure!(alive(*pid), "tasks go on when their agent is told to stop");
        }
        cluster.agent(1).start()?;
        adopted(cluster, &before).context("after SIGTERM")?;

        after_requests(cluster, &load, 50)?;
        let report = load.stop()?;
        nothing_failed(&report)?;
        no_slot_twice(cluster, "web")
    });
}

/// The agent is back, and nothing was started anew.
fn adopted(cluster: &Cluster, before: &BTreeSet<Option<u32>>) -> Result<()> {
    cluster.wait_healthy("web", 4, DEADLINE)?;
    // Its agent reports once it has registered: from then on a replacement would show.
    cluster.wait_until("the agents are ready", DEADLINE, |c| {
        c.agents().all(|host| {
            c.request(host.address(7420), "GET", "/readyz", None)
                .is_ok_and(|response| response.status == 200)
        })
    })?;
    cluster.wait_healthy("web", 4, DEADLINE)?;
    ensure!(
        pids(cluster) == *before,
        "the same processes: {before:?} {}",
        cluster.describe("web")
    );
    Ok(())
}

#[test]
fn cluster_drained_node_loses_its_tasks_and_no_request() {
    scenario(Cluster::builder(), |cluster| {
        create_hello(cluster, "web", 6, 8080, &["--spread", "node"])?;
        cluster.wait_healthy("web", 6, DEADLINE)?;
        let load = cluster.load(LoadPlan::get(cluster.ingress(0).address(8080)).with_posts(3))?;
        after_requests(cluster, &load, 50)?;
        let (task, _) = victim(cluster, "web")?;
        let node = task.node.context("a running task has a node")?;
        cluster.cli(&["node", "drain", &node])?;
        cluster
            .wait_until("the node is empty", DEADLINE, |c| {
                let all = healthy(c, "web");
                all.len() == 6
                    && all.iter().all(|task| task.node.as_deref() != Some(&node))
                    && c.host_named(&node)
                        .is_ok_and(|host| host.task_pids().is_empty())
            })
            .with_context(|| cluster.describe("web"))?;
        after_requests(cluster, &load, 50)?;
        nothing_failed(&load.stop()?)?;
        no_slot_twice(cluster, "web")?;

        cluster.cli(&["node", "activate", &node])?;
        cluster.cli(&["service", "scale", "web=9"])?;
        cluster.wait_healthy("web", 9, DEADLINE)?;
        ensure!(
            healthy(cluster, "web")
                .iter()
                .any(|task| task.node.as_deref() == Some(&node)),
            "an activated node takes tasks: {}",
            cluster.describe("web")
        );
        Ok(())
    });
}

#[test]
fn cluster_pending_task_says_why() {
    scenario(Cluster::builder().agents(2).ingresses(0), |cluster| {
        let constraint = ["--constraint", "node.labels.zone==nowhere"];
        create_hello(cluster, "nowhere", 1, 8080, &constraint)?;
        pending(cluster, "nowhere", &["zone"])?;
        create_hello(cluster, "huge", 1, 8081, &["--memory", "900g"])?;
        pending(cluster, "huge", &["memory"])?;
        create_hello(cluster, "busy", 1, 8082, &["--cpu", "500"])?;
        pending(cluster, "busy", &["cpu"])?;

        // And goes on by itself once a node meets it.
        cluster.cli(&["node", "update", "node-1", "--label", "zone=nowhere"])?;
        cluster.wait_healthy("nowhere", 1, DEADLINE)?;
        let (task, _) = victim(cluster, "nowhere")?;
        ensure!(task.node.as_deref() == Some("node-1"));
        Ok(())
    });
}

fn pending(cluster: &Cluster, service: &str, words: &[&str]) -> Result<()> {
    cluster
        .wait_until("it is pending and says why", DEADLINE, |c| {
            c.tasks(service).is_ok_and(|tasks| {
                tasks.iter().any(|task| {
                    let message = task.message.to_lowercase();
                    task.state == TaskState::Pending
                        && words.iter().all(|word| message.contains(word))
                })
            })
        })
        .with_context(|| cluster.describe(service))?;
    Ok(())
}
