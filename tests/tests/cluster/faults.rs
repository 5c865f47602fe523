//! Replicas and nodes that die, hang or vanish while requests come in.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ballast_model::{NodeStatus, TaskState};
use ballast_tests::cluster::{Cluster, LoadPlan, Signal, alive, kill_pid, signal_pid};

use crate::scenario::{
    DEADLINE, after_requests, create_hello, has_namespaces, healthy, no_get_failed, no_post_twice,
    no_slot_twice, nothing_failed, scenario, victim,
};

#[test]
fn cluster_killed_replica_is_replaced_and_no_request_is_lost_or_repeated() {
    scenario(Cluster::builder(), |cluster| {
        create_hello(cluster, "web", 5, 8080, &[])?;
        cluster.wait_healthy("web", 5, DEADLINE)?;
        let plan = LoadPlan::get(cluster.ingress(0).address(8080)).with_posts(3);
        let load = cluster.load(plan.at_rate(600))?;
        after_requests(cluster, &load, 50)?;
        for _ in 0..5 {
            let (task, pid) = victim(cluster, "web")?;
            kill_pid(pid)?;
            let took = cluster
                .wait_until("another process in its slot", DEADLINE, |c| {
                    healthy(c, "web")
                        .iter()
                        .any(|t| t.slot == task.slot && t.pid != Some(pid))
                })
                .with_context(|| cluster.describe("web"))?;
            eprintln!("killed slot {}, replaced after {took:?}", task.slot);
            cluster.wait_healthy("web", 5, DEADLINE)?;
            after_requests(cluster, &load, 50)?;
        }
        let report = load.stop()?;
        eprintln!(
            "{:?} {:?} slowest {:?}",
            report.gets, report.posts, report.slowest
        );
        no_get_failed(&report)?;
        no_post_twice(cluster, &report)?;
        // Those in flight at a kill cannot be saved: at most one on each connection.
        ensure!(report.posts.failed <= 5 * 8, "{:#?}", report.failures);
        no_slot_twice(cluster, "web")
    });
}

#[test]
fn cluster_hung_replica_is_taken_out_and_replaced() {
    scenario(Cluster::builder(), |cluster| {
        create_hello(cluster, "web", 5, 8080, &[])?;
        cluster.wait_healthy("web", 5, DEADLINE)?;
        let load = cluster.load(LoadPlan::get(cluster.ingress(0).address(8080)).at_rate(600))?;
        after_requests(cluster, &load, 100)?;
        let (task, pid) = victim(cluster, "web")?;
        signal_pid(pid, Signal::STOP)?;
        let out = cluster
            .wait_until("it is known to hang", DEADLINE, |c| {
                healthy(c, "web").iter().all(|t| t.pid != Some(pid))
            })
            .with_context(|| cluster.describe("web"))?;
        let replaced = cluster
            .wait_until("another process in its slot", DEADLINE, |c| {
                healthy(c, "web")
                    .iter()
                    .any(|t| t.slot == task.slot && t.pid != Some(pid))
            })
            .with_context(|| cluster.describe("web"))?;
        eprintln!(
            "hung slot {}: known after {out:?}, replaced {replaced:?} later",
            task.slot
        );
        after_requests(cluster, &load, 100)?;
        let report = load.stop()?;
        eprintln!("{:?} slowest {:?}", report.gets, report.slowest);
        no_get_failed(&report)?;
        cluster.wait_until("the hung process is gone", DEADLINE, |_| !alive(pid))?;
        no_slot_twice(cluster, "web")
    });
}

#[test]
fn cluster_dead_node_is_replaced_elsewhere() {
    let test = "cluster_dead_node_is_replaced_elsewhere";
    if !has_namespaces(test) {
        return;
    }
    scenario(Cluster::builder(), |cluster| {
        create_hello(cluster, "web", 6, 8080, &["--spread", "node"])?;
        cluster.wait_healthy("web", 6, DEADLINE)?;
        let load = cluster.load(LoadPlan::get(cluster.ingress(0).address(8080)))?;
        after_requests(cluster, &load, 50)?;
        let node = node_with_tasks(cluster)?;
        cluster.host_named(&node)?.kill_node()?;
        let took = replaced_elsewhere(cluster, &node, 6)?;
        eprintln!("{node} killed, 6 healthy elsewhere after {took:?}");
        after_requests(cluster, &load, 50)?;

        cluster.host_named(&node)?.revive()?;
        cluster.wait_until("the node is ready again", DEADLINE, |c| {
            status(c, &node) == Some(NodeStatus::Ready)
        })?;
        after_requests(cluster, &load, 100)?;
        let report = load.stop()?;
        eprintln!("{:?} slowest {:?}", report.gets, report.slowest);
        no_get_failed(&report)?;
        cluster.wait_healthy("web", 6, DEADLINE)?;
        no_slot_twice(cluster, "web")
    });
}

#[test]
fn cluster_node_that_was_cut_off_stops_what_was_replaced() {
    let test = "cluster_node_that_was_cut_off_stops_what_was_replaced";
    if !has_namespaces(test) {
        return;
    }
    scenario(Cluster::builder(), |cluster| {
        create_hello(cluster, "web", 6, 8080, &["--spread", "node"])?;
        cluster.wait_healthy("web", 6, DEADLINE)?;
        let load = cluster.load(LoadPlan::get(cluster.ingress(0).address(8080)))?;
        after_requests(cluster, &load, 50)?;
        let node = node_with_tasks(cluster)?;
        let host = cluster.host_named(&node)?;
        let old = host.task_pids();
        ensure!(!old.is_empty(), "tasks run on {node}");
        host.cut_off()?;
        let took = replaced_elsewhere(cluster, &node, 6)?;
        eprintln!("{node} cut off, 6 healthy elsewhere after {took:?}");
        host.reconnect()?;
        cluster.wait_until("its old tasks are stopped", DEADLINE, |_| {
            old.iter().all(|pid| !alive(*pid))
        })?;
        cluster.wait_until("the node is ready again", DEADLINE, |c| {
            status(c, &node) == Some(NodeStatus::Ready)
        })?;
        after_requests(cluster, &load, 50)?;
        let report = load.stop()?;
        eprintln!("{:?} slowest {:?}", report.gets, report.slowest);
        no_get_failed(&report)?;
        cluster.wait_healthy("web", 6, DEADLINE)?;
        no_slot_twice(cluster, "web")?;
        let lost = cluster.tasks("web")?;
        ensure!(
            lost.iter().any(|task| task.state == TaskState::Lost),
            "what was replaced is called lost: {}",
            cluster.describe("web")
        );
        Ok(())
    });
}

#[test]
fn cluster_every_ingress_drops_a_dead_replica_and_none_needs_the_other() {
    scenario(Cluster::builder().agents(2).ingresses(2), |cluster| {
        create_hello(cluster, "web", 4, 8080, &[])?;
        cluster.wait_healthy("web", 4, DEADLINE)?;
        let loads = [0, 1].map(|index| {
            cluster.load(LoadPlan::get(cluster.ingress(index).address(8080)).with_posts(3))
        });
        let [first, second] = loads;
        let (first, second) = (first?, second?);
        after_requests(cluster, &first, 50)?;
        after_requests(cluster, &second, 50)?;
        let (_, pid) = victim(cluster, "web")?;
        kill_pid(pid)?;
        cluster.wait_until("another process", DEADLINE, |c| {
            let now = healthy(c, "web");
            now.len() == 4 && now.iter().all(|task| task.pid != Some(pid))
        })?;
        after_requests(cluster, &first, 50)?;
        let report = first.stop()?;
        no_get_failed(&report)?;
        no_post_twice(cluster, &report)?;
        cluster.ingress(0).kill()?;
        after_requests(cluster, &second, 200)?;
        let report = second.stop()?;
        no_get_failed(&report)?;
        no_post_twice(cluster, &report)
    });
}

/// Keeps every CPU busy until it is dropped.
struct Burn(Arc<AtomicBool>);

impl Burn {
    fn start(threads: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        for _ in 0..threads {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        Self(stop)
    }
}

impl Drop for Burn {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn cluster_on_a_starved_cpu_raises_no_false_alarm() {
    scenario(Cluster::builder(), |cluster| {
        create_hello(cluster, "web", 5, 8080, &[])?;
        cluster.wait_healthy("web", 5, DEADLINE)?;
        let pids = |c: &Cluster| -> BTreeSet<Option<u32>> {
            healthy(c, "web").iter().map(|task| task.pid).collect()
        };
        let before = pids(cluster);
        let plan = LoadPlan::get(cluster.ingress(0).address(8080)).with_posts(3);
        let load = cluster.load(plan.at_rate(200))?;
        let cpus = std::thread::available_parallelism().map_or(2, usize::from);
        let burn = Burn::start(cpus * 4);
        let start = Instant::now();
        cluster.wait_until("a while", DEADLINE, |_| {
            start.elapsed() > Duration::from_secs(4)
        })?;
        drop(burn);
        let report = load.stop()?;
        eprintln!(
            "{:?} {:?} slowest {:?}",
            report.gets, report.posts, report.slowest
        );
        nothing_failed(&report)?;
        cluster.wait_healthy("web", 5, DEADLINE)?;
        ensure!(
            pids(cluster) == before,
            "restarted: {}",
            cluster.describe("web")
        );
        let nodes = cluster.nodes()?;
        ensure!(
            nodes.iter().all(|node| node.status == NodeStatus::Ready),
            "{nodes:?}"
        );
        Ok(())
    });
}

fn node_with_tasks(cluster: &Cluster) -> Result<String> {
    let (task, _) = victim(cluster, "web")?;
    task.node.context("a running task has a node")
}

fn status(cluster: &Cluster, node: &str) -> Option<NodeStatus> {
    let nodes = cluster.nodes().ok()?;
    nodes.iter().find(|n| n.name == node).map(|n| n.status)
}

fn replaced_elsewhere(cluster: &Cluster, node: &str, count: usize) -> Result<Duration> {
    cluster
        .wait_until("all replicas run elsewhere", DEADLINE, |c| {
            let tasks = healthy(c, "web");
            tasks.len() == count && tasks.iter().all(|task| task.node.as_deref() != Some(node))
        })
        .with_context(|| cluster.describe("web"))
}
