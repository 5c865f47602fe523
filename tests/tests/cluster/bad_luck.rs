//! Bad luck and bad programs: folders, disks, ports, crash loops, forks, floods.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ballast_model::{NodeStatus, TaskState};
use ballast_tests::cluster::{Cluster, LoadPlan, Role, alive, kill_pid};

use crate::scenario::{
    DEADLINE, after_requests, create_hello, has_namespaces, healthy, no_get_failed, scenario, skip,
    victim,
};

/// Starts a manager that must give up; returns what it says.
fn manager_gives_up(cluster: &Cluster, data: &Path, port: u16) -> Result<String> {
    let host = cluster.client();
    let socket = cluster.dir().join(format!("second-{port}.sock"));
    let mut command = Command::new(cluster.bin("ballast")?);
    command.arg("manager").arg("--data-dir").arg(data);
    command.arg("--socket").arg(&socket);
    command.args([
        "--listen",
        &host.address(port).to_string(),
        "--admin",
        "off",
    ]);
    let mut process = host.spawn(&format!("second-{port}"), &mut command)?;
    let status = process
        .wait(DEADLINE)
        .with_context(|| format!("it runs: {}", process.log()))?;
    ensure!(
        status.code() == Some(1),
        "ended with {status}: {}",
        process.log()
    );
    Ok(process.log())
}

#[test]
fn cluster_second_manager_on_the_same_folder_gives_up() {
    scenario(Cluster::builder().agents(0).ingresses(0), |cluster| {
        let data = cluster.manager().data_dir();
        let log = manager_gives_up(cluster, data, 7500)?;
        let pid = cluster.manager().pid().context("the first one runs")?;
        ensure!(log.contains(&pid.to_string()), "names who holds it: {log}");
        ensure!(
            cluster.api("GET", "/readyz", None)?.status == 200,
            "the first one is fine"
        );
        Ok(())
    });
}

#[test]
fn cluster_manager_gives_up_on_a_folder_of_a_newer_version() {
    scenario(Cluster::builder().agents(0).ingresses(0), |cluster| {
        cluster.manager().terminate(DEADLINE)?;
        let data = cluster.manager().data_dir();
        std::fs::write(data.join("format-version"), "9999\n")?;
        let log = manager_gives_up(cluster, data, 7501)?;
        ensure!(log.contains("newer") && log.contains("9999"), "{log}");
        Ok(())
    });
}

#[test]
fn cluster_full_disk_refuses_changes_and_loses_none() {
    if !has_namespaces("cluster_full_disk_refuses_changes_and_loses_none") {
        return;
    }
    scenario(Cluster::builder().agents(0).ingresses(0), |cluster| {
        // The manager's folder moves to a small disk of its own; the sweep unmounts it.
        let data = cluster.manager().data_dir().to_owned();
        cluster.manager().terminate(DEADLINE)?;
        let aside = data.with_extension("aside");
        std::fs::rename(&data, &aside)?;
        std::fs::create_dir(&data)?;
        run(
            "mount",
            &[
                "-t",
                "tmpfs",
                "-o",
                "size=24m,mode=700",
                "tmpfs",
                path(&data)?,
            ],
        )?;
        run("cp", &["-a", &format!("{}/.", path(&aside)?), path(&data)?])?;
        cluster.manager().start()?;
        ready(cluster)?;
        create(cluster, "before")?;

        let filler = data.join("filler");
        fill(&filler)?;
        let (_, message) =
            cluster.cli_refused(&["service", "create", "full", "--detach", "--", "true"])?;
        ensure!(
            ["disk", "space", "full"]
                .iter()
                .any(|word| message.contains(word)),
            "says why: {message}"
        );
        cluster.service("before").context("reading goes on")?;

        std::fs::remove_file(&filler)?;
        create(cluster, "after")?;
        cluster.manager().kill()?;
        cluster.manager().start()?;
        ready(cluster)?;
        cluster.service("before")?;
        cluster.service("after")?;
        Ok(())
    });
}

fn ready(cluster: &Cluster) -> Result<()> {
    cluster.wait_until("the manager answers", DEADLINE, |c| {
        c.api("GET", "/readyz", None).is_ok_and(|r| r.status == 200)
    })?;
    Ok(())
}

fn create(cluster: &Cluster, name: &str) -> Result<()> {
    cluster.cli(&[
        "service",
        "create",
        name,
        "--detach",
        "--replicas",
        "0",
        "--",
        "true",
    ])?;
    Ok(())
}

/// Writes until nothing fits any more.
fn fill(path: &Path) -> Result<()> {
    use std::io::Write as _;
    let mut file = std::fs::File::create(path)?;
    let chunk = vec![1_u8; 64 * 1024];
    // Whatever ends it: that is when the disk is full.
    while file.write_all(&chunk).is_ok() {}
    Ok(())
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().context("a path of text")
}

fn run(program: &str, args: &[&str]) -> Result<()> {
    let output = Command::new(program).args(args).output()?;
    if !output.status.success() {
        bail!("{program}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

#[test]
fn cluster_without_a_free_port_says_so() {
    let builder = Cluster::builder()
        .agents(1)
        .ingresses(0)
        .role_args(Role::Agent, &["--ports", "25000-25001"]);
    scenario(builder, |cluster| {
        create_hello(cluster, "web", 3, 8080, &[])?;
        cluster
            .wait_until("two run, one says why not", DEADLINE, |c| {
                let pending = c.tasks("web").is_ok_and(|tasks| {
                    tasks.iter().any(|task| {
                        task.state == TaskState::Pending && task.message.contains("port")
                    })
                });
                pending && healthy(c, "web").len() == 2
            })
            .with_context(|| cluster.describe("web"))?;
        cluster.cli(&["service", "scale", "web=2"])?;
        cluster.wait_healthy("web", 2, DEADLINE)?;
        Ok(())
    });
}

#[test]
fn cluster_port_that_a_stranger_holds_is_given_up_for_another() {
    let builder = Cluster::builder()
        .agents(1)
        .ingresses(0)
        .role_args(Role::Agent, &["--ports", "25000-25005"]);
    scenario(builder, |cluster| {
        let strangers = cluster
            .agent(0)
            .inside(|| [25000, 25001, 25002].map(|port| TcpListener::bind(("0.0.0.0", port))))?;
        ensure!(strangers.iter().all(Result::is_ok), "the ports were free");
        create_hello(cluster, "web", 2, 8080, &[])?;
        cluster.wait_healthy("web", 2, DEADLINE)?;
        for task in healthy(cluster, "web") {
            ensure!(task.ports[0].port > 25002, "{task:?}");
        }
        Ok(())
    });
}

#[test]
fn cluster_crash_loop_backs_off_and_says_so() {
    scenario(Cluster::builder().agents(1).ingresses(0), |cluster| {
        create_hello(cluster, "loop", 1, 8080, &["--env", "HELLO_EXIT_AFTER=1ms"])?;
        let start = Instant::now();
        cluster
            .wait_until("it says that it backs off", DEADLINE, |c| {
                c.tasks("loop").is_ok_and(|tasks| {
                    tasks.iter().any(|task| {
                        task.restarts >= 3
                            && ["restart", "again", "back"]
                                .iter()
                                .any(|w| task.message.contains(w))
                    })
                })
            })
            .with_context(|| cluster.describe("loop"))?;
        cluster.wait_until("a while", DEADLINE, |_| {
            start.elapsed() > Duration::from_secs(4)
        })?;
        let restarts = cluster
            .tasks("loop")?
            .iter()
            .map(|task| task.restarts)
            .max()
            .unwrap_or_default();
        // 0, 100, 200, 400, 800, 1600 ms: six in three seconds, seven in six.
        ensure!((3..=9).contains(&restarts), "{restarts} restarts in 4 s");
        let view = cluster.service("loop")?;
        ensure!(!view.problems.is_empty(), "inspect names the problem");
        Ok(())
    });
}

#[test]
fn cluster_stopped_task_leaves_nothing_behind() {
    scenario(Cluster::builder().agents(1).ingresses(0), |cluster| {
        let bad = [
            "--env",
            "HELLO_FORK=3",
            "--env",
            "HELLO_IGNORE_TERM=1",
            "--stop-grace",
            "500ms",
        ];
        create_hello(cluster, "bad", 1, 8080, &bad)?;
        cluster.wait_healthy("bad", 1, DEADLINE)?;
        let (_, pid) = victim(cluster, "bad")?;
        cluster.wait_until("its children run", DEADLINE, |c| {
            c.agent(0).task_pids().len() >= 4
        })?;
        let start = Instant::now();
        cluster.cli(&["service", "rm", "bad"])?;
        cluster.wait_until("it and its children are gone", DEADLINE, |c| {
            !alive(pid) && c.agent(0).task_pids().is_empty()
        })?;
        ensure!(
            start.elapsed() >= Duration::from_millis(400),
            "it had its grace"
        );
        Ok(())
    });
}

#[test]
fn cluster_flood_of_log_lines_is_kept_in_bounds() {
    scenario(Cluster::builder().agents(1), |cluster| {
        create_hello(
            cluster,
            "loud",
            1,
            8080,
            &["--env", "HELLO_LOG_RATE=100000"],
        )?;
        cluster.wait_healthy("loud", 1, DEADLINE)?;
        let load = cluster.load(LoadPlan::get(cluster.ingress(0).address(8080)))?;
        after_requests(cluster, &load, 2000)?;
        let report = load.stop()?;
        no_get_failed(&report)?;
        let bytes = folder_bytes(cluster.agent(0).data_dir());
        ensure!(bytes < 200 << 20, "{bytes} bytes of logs");
        let text = cluster.cli(&["service", "logs", "loud", "--tail", "5", "--raw"])?;
        ensure!(text.lines().count() == 5, "{text}");
        Ok(())
    });
}

/// Returns the library that lies about the time to a program, if it is installed.
fn faketime() -> Option<std::path::PathBuf> {
    let mut folders = vec![
        Path::new("/usr/lib").to_owned(),
        Path::new("/usr/lib64").to_owned(),
    ];
    for entry in std::fs::read_dir("/usr/lib").ok()?.flatten() {
        folders.push(entry.path());
    }
    folders
        .iter()
        .map(|folder| folder.join("faketime/libfaketime.so.1"))
        .find(|path| path.is_file())
}

#[test]
fn cluster_clock_that_jumps_takes_nobody_down() {
    let test = "cluster_clock_that_jumps_takes_nobody_down";
    let Some(library) = faketime() else {
        skip(
            test,
            "faketime is not installed; `cargo xtask setup` does that",
        );
        return;
    };
    let offset = std::env::temp_dir().join(format!("ballast-clock-{}", std::process::id()));
    std::fs::write(&offset, "+0").expect("the clock's offset");
    // Only the time of day jumps: the kernel never lets the monotonic clock do so.
    let builder = Cluster::builder()
        .env("LD_PRELOAD", &library.display().to_string())
        .env("FAKETIME_TIMESTAMP_FILE", &offset.display().to_string())
        .env("FAKETIME_NO_CACHE", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    scenario(builder, |cluster| {
        create_hello(cluster, "web", 3, 8080, &[])?;
        cluster.wait_healthy("web", 3, DEADLINE)?;
        let pids = |c: &Cluster| -> BTreeSet<Option<u32>> {
            healthy(c, "web").iter().map(|task| task.pid).collect()
        };
        let before = pids(cluster);
        let load = cluster.load(LoadPlan::get(cluster.ingress(0).address(8080)))?;
        after_requests(cluster, &load, 50)?;
        for jump in ["+3600", "-7200", "+0"] {
            std::fs::write(&offset, jump)?;
            // Longer than every lease.
            after_requests(cluster, &load, 800)?;
            cluster
                .wait_healthy("web", 3, DEADLINE)
                .with_context(|| format!("after {jump} s"))?;
            ensure!(pids(cluster) == before, "restarted after {jump} s");
            let nodes = cluster.nodes()?;
            ensure!(
                nodes.iter().all(|node| node.status == NodeStatus::Ready),
                "after {jump} s: {nodes:?}"
            );
        }
        no_get_failed(&load.stop()?)?;
        // A replica that dies at a wrong time of day is replaced as always.
        std::fs::write(&offset, "-86400")?;
        let (_, pid) = victim(cluster, "web")?;
        kill_pid(pid)?;
        cluster.wait_until("the killed one is replaced", DEADLINE, |c| {
            let now = pids(c);
            now.len() == 3 && !now.contains(&Some(pid))
        })?;
        Ok(())
    });
    let _ = std::fs::remove_file(offset);
}

fn folder_bytes(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(data) if data.is_dir() => folder_bytes(&entry.path()),
            Ok(data) => data.len(),
            Err(_) => 0,
        })
        .sum()
}
