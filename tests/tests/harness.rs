//! The cluster harness itself, with programs that are not ours: hosts are apart, faults are real,
//! and nothing stays behind.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;
use ballast_tests::cluster::{Cluster, Isolation, alive, http, isolation};

const DEADLINE: Duration = Duration::from_secs(10);

/// Returns whether hosts are namespaces here; says SKIP if not.
fn has_namespaces(test: &str) -> bool {
    match isolation() {
        Isolation::Namespaces => true,
        Isolation::Loopback(reason) => {
            eprintln!("SKIP {test}: {reason}");
            false
        }
    }
}

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn serve(port: u16) -> Command {
    let mut command = Command::new("python3");
    command.args(["-m", "http.server", &port.to_string()]);
    command
}

#[test]
fn hosts_reach_each_other_until_one_is_cut_off() -> Result<()> {
    if !has_namespaces("hosts_reach_each_other_until_one_is_cut_off") {
        return Ok(());
    }
    let cluster = Cluster::builder().agents(1).build()?;
    let node = cluster.agent(0);
    let _server = node.spawn("server", serve(9000).current_dir(cluster.dir()))?;
    let answers = || {
        let request = || -> Result<u16> {
            let timeout = Duration::from_millis(300);
            let mut connection = http::Connection::tcp_within(node.address(9000), timeout)?;
            Ok(connection.request("GET", "/", &[], None)?.status)
        };
        cluster
            .client()
            .inside(request)
            .and_then(|status| status)
            .is_ok()
    };
    eventually("the server answers", answers);
    node.cut_off()?;
    assert!(!answers(), "a host that is cut off does not answer");
    node.reconnect()?;
    eventually("the server answers again", answers);
    cluster.finish();
    Ok(())
}

#[test]
fn a_dropped_cluster_leaves_no_process_namespace_or_folder() -> Result<()> {
    if !has_namespaces("a_dropped_cluster_leaves_no_process_namespace_or_folder") {
        return Ok(());
    }
    let cluster = Cluster::builder().agents(1).build()?;
    let dir = cluster.dir().to_owned();
    let namespace = cluster.agent(0).namespace().expect("has one").to_owned();
    // A task outlives its parent, in a session of its own.
    let mut parent = cluster.agent(0).spawn(
        "parent",
        Command::new("sh").args(["-c", "setsid sleep 1000 & echo $!"]),
    )?;
    parent.wait(DEADLINE)?;
    let orphan: u32 = parent.log().trim().parse()?;
    assert!(alive(orphan));
    assert!(cluster.agent(0).task_pids().contains(&orphan));
    cluster.finish();
    eventually("the orphan ends", || !alive(orphan));
    assert!(!dir.exists());
    assert!(!std::path::Path::new("/run/netns").join(namespace).exists());
    Ok(())
}

#[test]
fn a_cluster_whose_owner_is_killed_goes_away() -> Result<()> {
    // This test is its own victim: the same program, started again to build a cluster and wait.
    if std::env::var_os("BALLAST_TEST_VICTIM").is_some() {
        let cluster = Cluster::builder().agents(1).build()?;
        cluster
            .agent(0)
            .spawn("orphan", Command::new("sleep").arg("1000"))?
            .wait(Duration::from_secs(1000))?;
        return Ok(());
    }
    if !has_namespaces("a_cluster_whose_owner_is_killed_goes_away") {
        return Ok(());
    }
    let mut victim = Command::new(std::env::current_exe()?)
        .args(["a_cluster_whose_owner_is_killed_goes_away", "--exact"])
        .env("BALLAST_TEST_VICTIM", "1")
        .stdout(std::process::Stdio::null())
        .spawn()?;
    let namespace = format!("ballast-t{}-0-node-1", victim.id());
    // The orphan by its name: what sets the namespace up runs in it for a moment, too.
    let orphan = || {
        let output = Command::new("ip")
            .args(["netns", "pids", &namespace])
            .output()
            .ok()?;
        let pids = String::from_utf8_lossy(&output.stdout).into_owned();
        let is_orphan = |pid: &u32| {
            std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|c| c.trim() == "sleep")
        };
        let mut pids = pids.lines().filter_map(|line| line.trim().parse().ok());
        pids.find(is_orphan)
    };
    eventually("the victim's cluster runs", || orphan().is_some());
    let orphan: u32 = orphan().expect("it runs until it is killed");
    victim.kill()?;
    victim.wait()?;
    eventually("its process ends", || !alive(orphan));
    let path = std::path::Path::new("/run/netns").join(&namespace);
    eventually("its namespace goes", || !path.exists());
    Ok(())
}
