//! Real programs under an agent without links: started, watched, restarted, stopped.

mod common;

use std::time::{Duration, Instant};

use ballast_agent::driver::process::procfs;
use ballast_agent::worker::Event;
use ballast_model::{Desired, Exit, Health, Protocol, RestartCondition, Target, TaskState, Ulimit};
use common::{Harness, Service, WEB, env_of, eventually, millis, read};

#[test]
fn killed_task_is_restarted_at_once_in_its_slot() {
    let mut node = Harness::new();
    let (_, ids) = node.assign(&[(Service::shell("exec sleep 1000"), 1)]);
    let first = node.until_running(ids[0]);
    let process = node.process(&first);
    let begun = Instant::now();
    ballast_agent::driver::process::kill_process(process);
    let second = node.until(ids[0], "next try", |report| {
        report.restarts == 1 && report.observed.state == TaskState::Running
    });
    println!("killed to running again: {:?}", begun.elapsed());
    assert_ne!(second.task, first.task);
    assert_eq!(
        second.observed.message,
        "restarted; last: killed by signal 9"
    );
    assert!(second.observed.sequence > first.observed.sequence);
    let env = env_of(second.observed.pid.expect("runs"));
    assert_eq!(env["BALLAST_TASK_ID"], second.task.to_string());
}

#[test]
fn task_finds_its_environment_and_nothing_else() {
    let mut node = Harness::new();
    let mut service =
        Service::shell("printf '%s\\n' \"$0\" \"$1\"; pwd; exec sleep 1000").port(Protocol::Udp);
    service
        .template
        .command
        .extend(["--port=$PORT", "$$HOME"].map(ToOwned::to_owned));
    service
        .template
        .env
        .insert("COLOUR".to_owned(), "blue".to_owned());
    let (set, ids) = node.assign(&[(service, 1)]);
    let report = node.until_running(ids[0]);
    let port = set.assignments[0].ports[0].port.to_string();
    let mut env = env_of(report.observed.pid.expect("runs"));
    for (name, value) in [
        ("PORT", port.as_str()),
        ("BALLAST_PORT_HTTP", port.as_str()),
        ("BALLAST_SERVICE", "service-0"),
        ("BALLAST_SLOT", "1"),
        ("BALLAST_NODE", "here"),
        ("COLOUR", "blue"),
        ("BALLAST_TASK_ID", &report.task.to_string()),
        ("BALLAST_ASSIGNMENT_ID", &ids[0].to_string()),
        ("BALLAST_NODE_ID", &node.agent().node().to_string()),
    ] {
        assert_eq!(env.remove(name).as_deref(), Some(value), "{name}");
    }
    for known in [
        "PATH", "HOME", "LANG", "USER", "LOGNAME", "PWD", "OLDPWD", "SHLVL", "_",
    ] {
        env.remove(known);
    }
    assert!(env.is_empty(), "{env:?}");
    let files = node.task_files(ids[0]);
    let expected = format!("--port={port}\n$HOME\n{}\n", files.work.display());
    eventually("output", || read(&files.stdout) == expected);
}

#[test]
fn deaf_task_is_killed_after_its_grace() {
    let mut node = Harness::new();
    let mut service = Service::shell("trap '' TERM; echo ready; while :; do sleep 0.05; done");
    service.template.stop.grace = millis(200);
    let (mut set, ids) = node.assign(&[(service, 1)]);
    let process = node.process(&node.until_running(ids[0]));
    eventually("trap", || {
        read(&node.task_files(ids[0]).stdout) == "ready\n"
    });
    set.assignments[0].desired = Desired::Shutdown;
    let begun = Instant::now();
    node.send(set);
    let end = node.until(ids[0], "end", |report| report.observed.state.is_terminal());
    assert_eq!(end.observed.state, TaskState::Shutdown);
    assert_eq!(end.observed.exit, Some(Exit::Signal(9)));
    assert!(begun.elapsed() >= Duration::from_millis(200));
    assert!(
        end.observed.message.contains("200ms after SIGTERM"),
        "{}",
        end.observed.message
    );
    assert!(!procfs::is_alive(process));
}

#[test]
fn willing_task_ends_by_its_signal_and_is_forgotten_when_withdrawn() {
    let mut node = Harness::new();
    let mut service = Service::shell("trap 'exit 7' INT; echo ready; while :; do sleep 0.01; done");
    service.template.stop.signal = "SIGINT".to_owned();
    let (mut set, ids) = node.assign(&[(service, 1)]);
    node.until_running(ids[0]);
    eventually("trap", || {
        read(&node.task_files(ids[0]).stdout) == "ready\n"
    });
    set.assignments[0].desired = Desired::Shutdown;
    node.send(set.clone());
    let end = node.until(ids[0], "end", |report| report.observed.state.is_terminal());
    assert_eq!(
        (end.observed.state, end.observed.exit),
        (TaskState::Shutdown, Some(Exit::Code(7)))
    );
    set.assignments.clear();
    node.send(set);
    eventually("forgotten", || node.report(ids[0]).is_none());
}

#[test]
fn task_that_is_missing_from_a_newer_set_is_stopped_and_an_older_set_changes_nothing() {
    let mut node = Harness::new();
    let (mut set, ids) = node.assign(&[(Service::shell("exec sleep 1000"), 2)]);
    let first = node.process(&node.until_running(ids[0]));
    let second = node.process(&node.until_running(ids[1]));
    let old = set.clone();
    set.assignments.remove(0);
    node.send(set);
    eventually("fenced", || {
        node.report(ids[0]).is_none() && !procfs::is_alive(first)
    });
    node.dispatch(Event::Assignments(old));
    assert!(node.report(ids[0]).is_none() && procfs::is_alive(second));
}

/// Leaves two children behind: one in its session, one in a session of its own.
const FORKS: &str = "
import os, sys, time
for daemon in (False, True):
    if os.fork() == 0:
        if daemon: os.setsid()
        open(f'child-{daemon}', 'w').write(str(os.getpid()))
        time.sleep(1000)
while len([f for f in os.listdir('.') if open(f).read()]) < 2: time.sleep(0.001)
print('ready')
time.sleep(1000)
";

fn children_are_gone(cgroups: bool) {
    let mut node = Harness::with(cgroups, ballast_agent::logs::Bounds::default());
    let (_, ids) = node.assign(&[(Service::python(FORKS), 1)]);
    let first = node.until_running(ids[0]);
    let files = node.task_files(ids[0]);
    eventually("children", || read(&files.stdout).contains("ready"));
    let children: Vec<u32> = ["child-False", "child-True"]
        .map(|name| read(&files.work.join(name)).parse().expect("a pid"))
        .to_vec();
    for &child in &children {
        assert!(procfs::Stat::read(child).is_some_and(|stat| !stat.is_zombie()));
    }
    let dead = node.process(&first);
    ballast_agent::driver::process::kill_process(dead);
    node.until(ids[0], "next try", |report| report.restarts == 1);
    for child in children {
        let stat = procfs::Stat::read(child);
        let later =
            |stat: procfs::Stat| stat.is_zombie() || stat.start_time > dead.start_time + 500;
        assert!(stat.is_none_or(later), "{child} was left behind");
    }
}

#[test]
fn children_of_a_dead_task_are_found_by_its_cgroup() {
    if !ballast_agent::driver::process::Cgroups::detect(ballast_model::NodeId::from_bits(1))
        .can_list()
    {
        println!("SKIP: cgroups cannot be written here");
        return;
    }
    children_are_gone(true);
}

#[test]
fn children_of_a_dead_task_are_found_without_cgroups() {
    children_are_gone(false);
}

#[test]
fn what_cannot_be_started_is_rejected_with_the_reason() {
    let mut node = Harness::new();
    let holder = std::net::TcpListener::bind("0.0.0.0:0").expect("binds");
    let port = holder.local_addr().expect("has an address").port();
    let mut taken = Service::shell("exec sleep 1000").port(Protocol::Tcp);
    taken.ports[0].target = Target::Fixed(port);
    let mut missing = Service::shell("");
    missing.template.command = vec!["no-such-program-here".to_owned()];
    let mut path = Service::shell("");
    path.template.command = vec!["/nowhere/program".to_owned()];
    let mut text = Service::shell("");
    text.template.command = vec!["/etc/passwd".to_owned()];
    let mut dir = Service::shell("exec sleep 1000");
    dir.template.working_dir = Some("/nowhere".to_owned());
    let mut user = Service::shell("exec sleep 1000");
    user.template.user = Some("nobody-like-that".to_owned());
    let cases = [
        (taken, format!("port {port} is in use by ")),
        (
            missing,
            "no such program `no-such-program-here` in PATH".to_owned(),
        ),
        (path, "no such program `/nowhere/program`".to_owned()),
        (text, "`/etc/passwd` is not executable".to_owned()),
        (dir, "no such working directory `/nowhere`".to_owned()),
        (user, "no such user `nobody-like-that`".to_owned()),
    ];
    let (services, reasons): (Vec<_>, Vec<_>) = cases
        .into_iter()
        .map(|(service, reason)| ((service, 1), reason))
        .unzip();
    let (_, ids) = node.assign(&services);
    for (id, reason) in ids.into_iter().zip(reasons) {
        let report = node.until(id, "end", |report| report.observed.state.is_terminal());
        assert_eq!(report.observed.state, TaskState::Rejected, "{report:?}");
        assert!(
            report.observed.message.starts_with(&reason),
            "{}",
            report.observed.message
        );
        assert!(!report.will_restart);
    }
}

#[test]
fn program_that_always_exits_backs_off_and_says_so() {
    let mut node = Harness::new();
    let mut service = Service::shell("exit 3");
    service.template.restart.delay = millis(20);
    service.template.restart.max_delay = millis(60_000);
    let (_, ids) = node.assign(&[(service, 1)]);
    let report = node.until(ids[0], "backoff", |report| {
        report.restarts >= 5 && report.will_restart
    });
    let message = &report.observed.message;
    assert_eq!(report.observed.state, TaskState::Failed);
    let nth = report.restarts + 1;
    assert!(
        message.starts_with(&format!("restart {nth} in ")),
        "{message}"
    );
    let delay = millis(20 << (nth - 2));
    assert!(
        message.contains(&format!(", next try in {delay};")),
        "{message}"
    );
    assert!(message.ends_with("; last: exit status 3"), "{message}");
}

#[test]
fn policies_decide_what_follows_an_exit() {
    let mut node = Harness::new();
    let with = |script: &str, condition, job| {
        let mut service = Service::shell(script);
        service.template.restart.condition = condition;
        service.job = job;
        (service, 1)
    };
    let (_, ids) = node.assign(&[
        with("exit 0", RestartCondition::OnFailure, false),
        with("exit 4", RestartCondition::None, false),
        with("exit 0", RestartCondition::Any, true),
    ]);
    for (id, state) in ids
        .iter()
        .zip([TaskState::Complete, TaskState::Failed, TaskState::Complete])
    {
        let end = node.until(*id, "end", |report| report.observed.state.is_terminal());
        assert_eq!(
            (end.observed.state, end.restarts, end.will_restart),
            (state, 0, false)
        );
    }
    let mut service = Service::shell("exit 5");
    service.template.restart.max_attempts = 2;
    service.template.restart.delay = millis(1);
    let (_, ids) = node.assign(&[(service, 1)]);
    let end = node.until(ids[0], "end", |report| {
        report.observed.state.is_terminal() && report.restarts == 2 && !report.will_restart
    });
    assert!(
        end.observed
            .message
            .starts_with("gave up after 2 restarts in"),
        "{end:?}"
    );
}

#[test]
fn stopped_process_is_found_by_a_demanded_probe_and_comes_back() {
    let mut node = Harness::new();
    let (_, ids) = node.assign(&[(Service::python(WEB).port(Protocol::Http), 1)]);
    let healthy = node.until_healthy(ids[0]);
    let process = node.process(&healthy);
    let signal = |signal| ballast_agent::driver::process::signal_process(process, signal);
    signal("SIGSTOP");
    eventually("stop", || {
        procfs::Stat::read(process.pid).is_some_and(procfs::Stat::is_stopped)
    });
    let begun = Instant::now();
    node.dispatch(Event::ProbeRequested(ids[0], millis(20)));
    let hung = node.until(ids[0], "unhealthy task", |report| {
        report.observed.health == Health::Unhealthy
    });
    println!("demand to unhealthy: {:?}", begun.elapsed());
    assert!(
        hung.observed.message.contains("stopped"),
        "{}",
        hung.observed.message
    );
    signal("SIGCONT");
    let back = node.until_healthy(ids[0]);
    assert_eq!(back.restarts, 0, "it was not killed");
    assert!(back.observed.sequence > hung.observed.sequence);
}

#[test]
fn hung_task_is_killed_and_replaced_when_it_stays_unhealthy() {
    let mut node = Harness::new();
    let mut service = Service::python(WEB).port(Protocol::Http);
    let mut check = ballast_model::HealthCheck::with_defaults(ballast_model::ProbeKind::Http {
        port: "http".to_owned(),
        path: "/".to_owned(),
        status: (200, 299),
    });
    check.timeout = millis(50);
    check.interval = millis(50);
    service.template.health = Some(check);
    let (_, ids) = node.assign(&[(service, 1)]);
    let process = node.process(&node.until_healthy(ids[0]));
    ballast_agent::driver::process::signal_process(process, "SIGSTOP");
    let next = node.until(ids[0], "healthy next try", |report| {
        report.restarts >= 1 && report.observed.health == Health::Healthy
    });
    assert!(
        next.observed.message.contains("unhealthy for"),
        "{}",
        next.observed.message
    );
    assert!(!procfs::is_alive(process));
}

#[test]
fn command_probe_decides_and_never_outlives_its_timeout() {
    let mut node = Harness::new();
    let mut service = Service::shell("sleep 0.1; touch ready; exec sleep 1000");
    let argv = ["/bin/sh", "-c", "test -e ready"]
        .map(ToOwned::to_owned)
        .to_vec();
    let command = ballast_model::ProbeKind::Command { argv };
    service.template.health = Some(ballast_model::HealthCheck::with_defaults(command));
    let mut slow = Service::shell("exec sleep 1000");
    let argv = ["/bin/sh", "-c", "echo $$ > probe; sleep 1000"]
        .map(ToOwned::to_owned)
        .to_vec();
    let command = ballast_model::ProbeKind::Command { argv };
    let mut check = ballast_model::HealthCheck::with_defaults(command);
    check.timeout = millis(100);
    check.start_period = millis(0);
    check.failure_threshold = 1;
    slow.template.health = Some(check);
    let (_, ids) = node.assign(&[(service, 1), (slow, 1)]);
    node.until_healthy(ids[0]);
    let report = node.until(ids[1], "unhealthy task", |report| {
        report.observed.health == Health::Unhealthy
    });
    assert!(
        report.observed.message.contains("took longer than 100ms"),
        "{report:?}"
    );
}

#[test]
fn user_and_limits_are_applied() {
    if !rustix::process::geteuid().is_root() {
        println!("SKIP: only root can start tasks as other users");
        return;
    }
    let mut node = Harness::new();
    // The folder of the test is root's own.
    std::fs::set_permissions(
        node.folder.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .expect("we own it");
    let mut service = Service::shell(
        "id -u; id -g; ulimit -n; ulimit -Hn; touch mine; echo $HOME; exec sleep 1000",
    );
    service.template.user = Some("daemon:nogroup".to_owned());
    service.template.ulimits.insert(
        "nofile".to_owned(),
        Ulimit {
            soft: 321,
            hard: 654,
        },
    );
    let (_, ids) = node.assign(&[(service, 1)]);
    let report = node.until_running(ids[0]);
    let files = node.task_files(ids[0]);
    eventually("output", || read(&files.stdout).lines().count() == 5);
    assert_eq!(
        read(&files.stdout),
        "1\n65534\n321\n654\n/usr/sbin\n",
        "{}",
        read(&files.stderr)
    );
    assert!(files.work.join("mine").exists());
    let status = read(format!("/proc/{}/status", report.observed.pid.expect("runs")).as_ref());
    assert!(status.contains("Uid:\t1\t1\t1\t1"), "{status}");
}

#[test]
fn cgroup_limits_are_applied() {
    use ballast_agent::driver::process::Cgroups;
    let mut node = Harness::new();
    let mut service = Service::shell("exec sleep 1000");
    service.template.resources.cpu = ballast_model::MilliCpu(250);
    service.template.resources.memory = ballast_model::Bytes::from_mib(64);
    let (_, ids) = node.assign(&[(service, 1)]);
    let pid = node
        .until_running(ids[0])
        .observed
        .pid
        .expect("runs")
        .to_string();
    let id = ids[0].to_string();
    let (quota, limit, lists) = match &node.agent().driver.cgroups {
        Cgroups::Unavailable(reason) => {
            println!("SKIP: {reason}");
            return;
        }
        Cgroups::V1 { memory: None, .. } => {
            println!("SKIP: the memory cgroup cannot be written");
            return;
        }
        Cgroups::V1 {
            cpu,
            memory: Some(memory),
        } => (
            read(&cpu.join(&id).join("cpu.cfs_quota_us")),
            read(&memory.join(&id).join("memory.limit_in_bytes")),
            vec![
                cpu.join(&id).join("cgroup.procs"),
                memory.join(&id).join("cgroup.procs"),
            ],
        ),
        Cgroups::V2(folder) => (
            read(&folder.join(&id).join("cpu.max")),
            read(&folder.join(&id).join("memory.max")),
            vec![folder.join(&id).join("cgroup.procs")],
        ),
    };
    assert!(quota.starts_with("25000"), "{quota}");
    assert_eq!(limit.trim(), (64 << 20).to_string());
    for list in lists {
        assert_eq!(read(&list).trim(), pid, "{}", list.display());
    }
}
