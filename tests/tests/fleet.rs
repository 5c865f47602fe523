//! A real manager process and hundreds of agents that run nothing: bursts, and faults within them.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use ballast_tests::fleet::{Fleet, FleetManager, Manner, room_for};
use serde_json::{Value, json};

/// For a burst on a busy machine with programs that are not optimised.
const DEADLINE: Duration = Duration::from_secs(90);

async fn start(
    nodes: usize,
    room: u32,
    manner: impl Fn(usize) -> Manner,
) -> (tempfile::TempDir, FleetManager, Fleet) {
    let dir = tempfile::tempdir().expect("a folder");
    let manager = FleetManager::start(dir.path()).expect("serves");
    let token = manager.token().expect("is written");
    let fleet = Fleet::join(manager.links, &token, nodes, room_for(room)).await;
    let mut fleet = fleet.expect("all join");
    fleet.connect(manner);
    let all = |fleet: &Fleet| fleet.connected() == nodes;
    fleet
        .wait("connected", DEADLINE, all)
        .await
        .expect("connect");
    (dir, manager, fleet)
}

fn service(tasks: usize, spread: bool) -> Value {
    let spread = if spread {
        json!([{"over": "node"}])
    } else {
        json!([])
    };
    json!({
        "name": "burst",
        "mode": {"replicated": {"replicas": tasks}},
        "task": {
            "command": ["sleep", "1000"],
            "resources": {"cpu": "0.01", "memory": 1 << 20},
        },
        "ports": [{"name": "http"}],
        "placement": {"spread": spread},
    })
}

fn create(manager: &FleetManager, service: &Value) {
    manager
        .call("POST", "/v1/services", Some(service))
        .expect("is created");
}

/// Waits until at least so many replicas are healthy, and returns the living tasks.
async fn healthy(manager: &FleetManager, tasks: usize) -> Vec<Value> {
    let began = tokio::time::Instant::now();
    loop {
        let service = manager
            .call("GET", "/v1/services/burst", None)
            .expect("is there");
        let now = service["replicas"]["healthy"].as_u64().expect("a number");
        if now >= tasks as u64 {
            break;
        }
        assert!(
            began.elapsed() < DEADLINE,
            "{now} of {tasks} are healthy:\n{}",
            manager.log()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let all = manager
        .call("GET", "/v1/services/burst/tasks", None)
        .expect("tasks");
    let all = all.as_array().expect("a list").clone();
    let ended = ["complete", "failed", "shutdown", "rejected", "lost"];
    let lives = |task: &Value| task["state"].as_str().is_some_and(|s| !ended.contains(&s));
    all.into_iter().filter(lives).collect()
}

/// Asserts that every slot has one living task, and no two of them one address.
fn assert_whole(tasks: &[Value], count: usize) {
    let slots: HashSet<_> = tasks.iter().map(|task| task["slot"].as_u64()).collect();
    assert_eq!((tasks.len(), slots.len()), (count, count));
    let bound: Vec<_> = tasks
        .iter()
        .map(|task| (task["node"].as_str(), task["ports"][0]["port"].as_u64()))
        .collect();
    let distinct: HashSet<_> = bound.iter().collect();
    assert_eq!(distinct.len(), count, "a port was given twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn fleet_of_200_agents_takes_5000_tasks_and_gives_them_back() {
    let (_dir, manager, fleet) = start(200, 30, |_| Manner::Runs).await;
    create(&manager, &service(5000, false));
    let tasks = healthy(&manager, 5000).await;
    assert_whole(&tasks, 5000);
    let mut per_node: HashMap<_, u32> = HashMap::new();
    for task in &tasks {
        *per_node.entry(task["node"].as_str()).or_default() += 1;
    }
    assert!(per_node.values().all(|count| *count <= 30), "{per_node:?}");
    assert_eq!(fleet.living(), 5000);
    manager
        .call("DELETE", "/v1/services/burst", None)
        .expect("is removed");
    let none = |fleet: &Fleet| fleet.living() == 0;
    fleet
        .wait("removed", DEADLINE, none)
        .await
        .expect("all end");
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_deaf_and_resetting_agents_hold_nobody_up() {
    let manner = |nth| match nth {
        0 | 1 => Manner::Deaf,
        2 | 3 => Manner::Slow(Duration::from_millis(500)),
        4..=9 => Manner::Resets(2),
        _ => Manner::Runs,
    };
    let (_dir, manager, fleet) = start(60, 100, manner).await;
    // Spread: each of the 60 nodes gets 20, and those of the two deaf ones never run.
    create(&manager, &service(1200, true));
    let tasks = healthy(&manager, 1160).await;
    assert_whole(&tasks, 1200);
    let unheard: HashSet<_> = tasks
        .iter()
        .filter(|task| task["state"] == "assigned")
        .filter_map(|task| task["node"].as_str())
        .collect();
    assert_eq!(unheard, HashSet::from(["fake-0", "fake-1"]));
    assert!(fleet.resets() > 0, "links were reset within the burst");
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn manager_killed_within_a_burst_places_every_task_once() {
    let (_dir, mut manager, fleet) = start(100, 100, |_| Manner::Runs).await;
    create(&manager, &service(6000, false));
    let some = |fleet: &Fleet| fleet.living() > 500;
    fleet
        .wait("under way", DEADLINE, some)
        .await
        .expect("is under way");
    tokio::task::block_in_place(|| manager.kill_and_restart()).expect("serves again");
    let tasks = healthy(&manager, 6000).await;
    assert_whole(&tasks, 6000);
    let same = |fleet: &Fleet| fleet.living() == 6000;
    fleet
        .wait("agreed", DEADLINE, same)
        .await
        .expect("agents hold what the manager says");
    fleet.end().await;
}
