//! The manager dies: nothing that was promised is lost, and nobody waits for it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ballast_model::NodeStatus;
use ballast_model::view::TaskView;
use ballast_tests::cluster::{Cluster, Host, LoadPlan, kill_pid};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::scenario::{
    DEADLINE, after_requests, create_hello, healthy, no_get_failed, no_slot_twice, nothing_failed,
    scenario, victim,
};

/// How long the manager is away; the issue's figure.
const AWAY: Duration = Duration::from_secs(10);

#[test]
fn cluster_killed_manager_keeps_every_acknowledged_change() {
    scenario(Cluster::builder().agents(0).ingresses(0), |cluster| {
        let seed = 7;
        let mut rng = StdRng::seed_from_u64(seed);
        let mut acknowledged = Vec::new();
        for round in 0..6 {
            let end = Instant::now() + Duration::from_millis(rng.random_range(20..400));
            std::thread::scope(|scope| -> Result<()> {
                let writer = scope.spawn(|| creates(cluster, round));
                std::thread::sleep(end.saturating_duration_since(Instant::now()));
                cluster.manager().kill()?;
                let names = writer
                    .join()
                    .map_err(|_| anyhow::anyhow!("the writer panicked"))?;
                acknowledged.extend(names);
                Ok(())
            })?;
            cluster.manager().start()?;
            cluster.wait_until("the manager is back", DEADLINE, |c| {
                c.api("GET", "/readyz", None).is_ok_and(|r| r.status == 200)
            })?;
            for name in &acknowledged {
                cluster
                    .service(name)
                    .with_context(|| format!("{name} was acknowledged, seed {seed}"))?;
            }
        }
        eprintln!("{} changes acknowledged over 6 kills", acknowledged.len());
        ensure!(acknowledged.len() > 20, "too few to prove anything");
        Ok(())
    });
}

/// Creates services until the manager stops answering; returns those it said yes to.
fn creates(cluster: &Cluster, round: u32) -> Vec<String> {
    let mut names = Vec::new();
    for count in 0.. {
        let name = format!("s-{round}-{count}");
        let body = format!(
            r#"{{"name":"{name}","mode":{{"replicated":{{"replicas":0}}}},"task":{{"command":["true"]}}}}"#
        );
        match cluster.api("POST", "/v1/services", Some(&body)) {
            Ok(response) if (200..300).contains(&response.status) => names.push(name),
            // Neither promised nor refused: both are right.
            _ => return names,
        }
    }
    names
}

#[test]
fn cluster_without_manager_serves_and_restarts() {
    scenario(Cluster::builder(), |cluster| {
        create_hello(cluster, "web", 5, 8080, &[])?;
        cluster.wait_healthy("web", 5, DEADLINE)?;
        let before = healthy(cluster, "web");
        let (_, victim_pid) = victim(cluster, "web")?;
        let load = cluster.load(LoadPlan::get(cluster.ingress(0).address(8080)))?;
        after_requests(cluster, &load, 50)?;

        cluster.manager().kill()?;
        let away = Instant::now();
        let pids = || -> Vec<u32> { cluster.agents().flat_map(Host::task_pids).collect() };
        let running = pids().len();
        kill_pid(victim_pid)?;
        let took = cluster.wait_until("its agent starts another", DEADLINE, |_| {
            let now = pids();
            now.len() == running && !now.contains(&victim_pid)
        })?;
        eprintln!("without a manager a killed replica is started again after {took:?}");
        cluster.wait_until("the manager was away long", DEADLINE, |_| {
            away.elapsed() >= AWAY
        })?;
        cluster.manager().start()?;
        let took = cluster.wait_healthy("web", 5, DEADLINE)?;
        eprintln!("manager back and all healthy after {took:?}");
        after_requests(cluster, &load, 100)?;
        let report = load.stop()?;
        nothing_failed(&report)?;
        no_slot_twice(cluster, "web")?;
        cluster.wait_until("nodes are ready", DEADLINE, |c| {
            c.nodes()
                .is_ok_and(|all| all.iter().all(|node| node.status == NodeStatus::Ready))
        })?;
        // What it shows at first is what it stored; the agents correct it.
        cluster
            .wait_until("only the killed one is new", DEADLINE, |c| {
                let after = healthy(c, "web");
                let is_kept = |old: &&TaskView| after.iter().any(|new| new.pid == old.pid);
                after.len() == 5 && before.iter().filter(is_kept).count() == 4
            })
            .with_context(|| cluster.describe("web"))?;
        Ok(())
    });
}

#[test]
fn cluster_ingress_restarted_without_manager_serves_from_its_stored_table() {
    scenario(Cluster::builder(), |cluster| {
        create_hello(cluster, "web", 3, 8080, &[])?;
        cluster.wait_healthy("web", 3, DEADLINE)?;
        let address = cluster.ingress(0).address(8080);
        let answers = |c: &Cluster| {
            c.request(address, "GET", "/", None)
                .is_ok_and(|response| response.status == 200)
        };
        cluster.wait_until("the ingress answers", DEADLINE, answers)?;
        // A table is kept within half a second.
        let load = cluster.load(LoadPlan::get(address))?;
        after_requests(cluster, &load, 250)?;
        no_get_failed(&load.stop()?)?;
        cluster.manager().kill()?;
        cluster.ingress(0).restart()?;
        let took = cluster.wait_until("the new ingress answers", DEADLINE, answers)?;
        eprintln!("ingress answers again after {took:?}");
        let load = cluster.load(LoadPlan::get(address))?;
        after_requests(cluster, &load, 200)?;
        no_get_failed(&load.stop()?)
    });
}
