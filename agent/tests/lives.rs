//! One life of the agent after the other: tasks run on, state survives or is set aside.

mod common;

use ballast_agent::driver::process::procfs;
use ballast_model::{Exit, Health, Protocol, TaskState};
use common::{Harness, Service, WEB, eventually};

#[test]
fn next_life_adopts_running_tasks_and_restarts_dead_ones() {
    let mut node = Harness::new();
    let (_, ids) = node.assign(&[
        (Service::python(WEB).port(Protocol::Http), 1),
        (Service::shell("exec sleep 1000"), 1),
    ]);
    let first = node.until_healthy(ids[0]);
    let other = node.until_running(ids[1]);
    let process = node.process(&first);
    let doomed = node.process(&other);
    node.crash();
    assert!(procfs::is_alive(process), "tasks outlive the agent");
    ballast_agent::driver::process::kill_process(doomed);
    eventually("death", || !procfs::is_alive(doomed));
    let node = node.revive();
    let adopted = node.report(ids[0]).expect("is known without a manager");
    assert_eq!(adopted.task, first.task);
    assert_eq!(adopted.observed.pid, Some(process.pid));
    assert_eq!(
        adopted.observed.health,
        Health::Healthy,
        "keeps its traffic"
    );
    let again = node.until(ids[1], "next try", |report| {
        report.restarts == 1 && report.observed.state == TaskState::Running
    });
    assert_ne!(again.task, other.task);
    ballast_agent::driver::process::kill_process(process);
    let next = node.until(ids[0], "next try", |report| report.restarts == 1);
    assert!(next.observed.message.contains("last: "), "{next:?}");
}

#[test]
fn lost_state_is_made_good_by_what_processes_say_of_themselves() {
    let mut node = Harness::new();
    let (set, ids) = node.assign(&[(Service::shell("exec sleep 1000"), 2)]);
    let first = node.until_running(ids[0]);
    let second = node.process(&node.until_running(ids[1]));
    node.crash();
    for file in std::fs::read_dir(node.folder.path().join("state/tasks")).expect("is there") {
        std::fs::write(file.expect("reads").path(), b"garbage").expect("writes");
    }
    std::fs::write(node.folder.path().join("state/assignments"), b"garbage").expect("writes");
    let mut node = node.revive();
    assert!(node.report(ids[0]).is_none(), "nothing is known");
    // The manager's next set has only one of them.
    let mut set = set;
    set.assignments.truncate(1);
    node.send(set);
    let adopted = node.until_running(ids[0]);
    assert_eq!(
        (adopted.task, adopted.observed.pid),
        (first.task, first.observed.pid)
    );
    eventually("stray gone", || !procfs::is_alive(second));
}

#[test]
fn exit_of_an_adopted_task_that_is_no_child_is_unknown() {
    use ballast_agent::driver::process::adopt;
    use ballast_agent::driver::process::exit::ExitWatch;
    use ballast_agent::worker::Process;
    // A grandchild: its parent is gone, so its status goes to init.
    let output = std::process::Command::new("sh")
        .args(["-c", "sleep 1000 >/dev/null 2>&1 & echo $!"])
        .output()
        .expect("runs");
    let pid: u32 = String::from_utf8_lossy(&output.stdout)
        .trim()
        .parse()
        .expect("a pid");
    let stat = procfs::Stat::read(pid).expect("still sleeps");
    let process = Process {
        pid,
        start_time: stat.start_time,
    };
    let wrong = Process {
        pid,
        start_time: stat.start_time + 1,
    };
    assert!(adopt(wrong).is_err(), "a recycled pid is not adopted");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("starts");
    runtime.block_on(async {
        let watch = ExitWatch::new(adopt(process).expect("lives")).expect("watches");
        ballast_agent::driver::process::kill_process(process);
        tokio::time::timeout(common::DEADLINE, watch.ended())
            .await
            .expect("ends");
        assert_eq!(watch.reap(), Exit::Unknown);
    });
}
