//! Rules of placement at work: taints, affinities, preemption, gangs, pools.

use std::collections::BTreeSet;

use ballast_model::{
    Bytes, Capacity, MilliCpu, Mode, Pool, Resources, ServiceAffinity, ServiceSpec, TaskState,
};
use ballast_wire::log::Command;

use super::spec_global;
use crate::fixture::{Cluster, description, node_id, spec};
use crate::state::RejectionKind;

/// Puts a taint on a node, or takes all off.
fn taint(cluster: &mut Cluster, nth: u64, taint: Option<&str>) {
    let command = Command::UpdateNode {
        node: node_id(nth),
        availability: None,
        labels: std::collections::BTreeMap::new(),
        taints: taint
            .iter()
            .map(|text| text.parse().expect("reads"))
            .collect(),
        untaint: vec!["*".parse().expect("reads")],
        time: cluster.now,
    };
    cluster.apply(&command).expect("known");
}

/// Nodes of this many cores each.
fn cluster_of(nodes: u64, cores: u32) -> Cluster {
    let mut cluster = Cluster::new(0);
    for nth in 1..=nodes {
        let mut small = description(nth);
        small.capacity = Capacity::of(MilliCpu::from_cores(cores), Bytes::from_mib(1 << 20));
        cluster.join(nth, small);
    }
    cluster
}

fn sized(name: &str, replicas: u32, cores: u32, priority: i32) -> ServiceSpec {
    let mut spec = spec(name, replicas);
    spec.task.resources = Resources::of(MilliCpu::from_cores(cores), Bytes::from_mib(16));
    spec.placement.priority = priority;
    spec
}

fn message(cluster: &Cluster, service: ballast_model::ServiceId) -> String {
    let waiting = cluster.occupants(service);
    let mut waiting = waiting.iter().filter(|entry| entry.task.binding.is_none());
    let entry = waiting.next().expect("one waits");
    entry.task.observed.message.clone()
}

#[test]
fn no_execute_taint_moves_tasks_that_do_not_bear_it() {
    let mut cluster = Cluster::new(2);
    let web = cluster.create(spec("web", 4));
    let mut hardy = spec("hardy", 4);
    hardy.placement.tolerations = vec!["gpu".parse().expect("reads")];
    hardy.placement.spread = vec!["node".parse().expect("reads")];
    let hardy = cluster.create(hardy);
    cluster.run();
    taint(&mut cluster, 1, Some("gpu:NoExecute"));
    cluster.run();
    assert_eq!(cluster.healthy(web), 4);
    assert!(cluster.nodes_of(web).iter().all(|node| *node == node_id(2)));
    assert_eq!(
        cluster
            .nodes_of(hardy)
            .iter()
            .filter(|n| **n == node_id(1))
            .count(),
        2
    );
    let reasons: BTreeSet<&str> = cluster
        .state
        .tasks_of(web)
        .filter(|entry| entry.task.observed.state == TaskState::Shutdown)
        .map(|entry| entry.task.observed.message.as_str())
        .collect();
    assert!(
        reasons.iter().all(|reason| reason.contains("NoExecute")),
        "{reasons:?}"
    );
}

#[test]
fn no_schedule_taint_keeps_new_tasks_away_and_old_ones_in_place() {
    let mut cluster = Cluster::new(2);
    let everywhere = cluster.create(spec_global("everywhere"));
    let web = cluster.create(spec("web", 2));
    cluster.run();
    let before = cluster.nodes_of(web);
    taint(&mut cluster, 1, Some("spot:NoSchedule"));
    taint(&mut cluster, 2, Some("spot:NoSchedule"));
    cluster.run();
    assert_eq!(cluster.nodes_of(web), before);
    assert_eq!(cluster.healthy(everywhere), 2, "who runs stays");
    cluster.join(3, description(3));
    taint(&mut cluster, 3, Some("spot:NoSchedule"));
    cluster.run();
    assert_eq!(
        cluster.healthy(everywhere),
        2,
        "none is made for a node that takes none"
    );
    cluster.scale(web, 3);
    cluster.run();
    let words = message(&cluster, web);
    assert!(
        words.contains("3 have the taint spot:NoSchedule"),
        "{words}"
    );
    taint(&mut cluster, 3, None);
    cluster.run();
    assert_eq!((cluster.healthy(web), cluster.healthy(everywhere)), (3, 3));
}

#[test]
fn who_has_to_be_near_waits_until_the_other_is_there() {
    let mut cluster = Cluster::new(3);
    let mut near = spec("web", 2);
    near.placement.services = vec![ServiceAffinity::near("cache").expect("reads")];
    let web = cluster.create(near);
    cluster.run();
    let words = message(&cluster, web);
    assert!(
        words.contains("lack service cache, which does not exist"),
        "{words}"
    );
    let cache = cluster.create(spec("cache", 1));
    cluster.run();
    assert_eq!(cluster.healthy(web), 2);
    let home = cluster.nodes_of(cache)[0];
    assert!(cluster.nodes_of(web).iter().all(|node| *node == home));
}

#[test]
fn who_keeps_away_is_kept_away_from_too() {
    let mut cluster = Cluster::new(2);
    let mut shy = spec("db", 1);
    shy.placement.services = vec![ServiceAffinity::apart("web").expect("reads")];
    let db = cluster.create(shy);
    cluster.run();
    let web = cluster.create(spec("web", 8));
    cluster.run();
    let home = cluster.nodes_of(db)[0];
    assert_eq!(cluster.healthy(web), 8);
    assert!(!cluster.nodes_of(web).contains(&home));
}

#[test]
fn circle_of_required_affinities_is_refused_with_its_names() {
    let mut cluster = Cluster::new(1);
    let near = |name: &str, other: &str| {
        let mut spec = spec(name, 1);
        spec.placement.services = vec![ServiceAffinity::near(other).expect("reads")];
        spec
    };
    cluster.create(near("a", "b"));
    cluster.create(near("b", "c"));
    cluster.create(near("own", "self"));
    let mut refused = |spec| {
        let command = Command::CreateService {
            service: ballast_model::ServiceId::from_bits(77),
            spec,
            time: cluster.now,
        };
        cluster.apply(&command).expect_err("refused")
    };
    let rejection = refused(near("c", "a"));
    assert_eq!(rejection.kind, RejectionKind::Invalid);
    assert_eq!(rejection.field.as_deref(), Some("placement.services"));
    assert!(rejection.reason.ends_with("c → a → b → c"), "{rejection}");
    let mut shy = spec("b2", 1);
    shy.name = "c".to_owned();
    shy.placement.services = vec![ServiceAffinity::apart("b@zone").expect("reads")];
    let rejection = refused(shy);
    assert!(
        rejection.reason.contains("`b` has to be near to `c`"),
        "{rejection}"
    );
}

#[test]
fn higher_priority_takes_the_place_of_the_lowest_and_says_so() {
    let mut cluster = cluster_of(2, 4);
    let low = cluster.create(sized("low", 2, 4, -5));
    cluster.run();
    let urgent = cluster.create(sized("urgent", 1, 3, 10));
    cluster.settle();
    let words = message(&cluster, urgent);
    assert!(
        words.contains("waits for 1 task of lower priority to end on n"),
        "{words}"
    );
    cluster.run();
    assert_eq!(cluster.healthy(urgent), 1);
    assert_eq!(cluster.healthy(low), 1);
    let ended = cluster.state.tasks_of(low);
    let mut ended = ended.filter(|entry| entry.task.observed.state == TaskState::Shutdown);
    let victim = ended.next().expect("one was stopped");
    assert_eq!(
        victim.task.observed.message,
        "preempted by urgent of priority 10"
    );
    let words = message(&cluster, low);
    assert!(
        words.contains("lack"),
        "the victim's replacement waits: {words}"
    );
}

#[test]
fn nobody_of_the_same_priority_is_preempted_nor_beyond_the_budget() {
    let mut cluster = cluster_of(3, 4);
    let low = cluster.create(sized("low", 3, 4, 1));
    cluster.run();
    let equal = cluster.create(sized("equal", 1, 4, 1));
    cluster.run();
    assert_eq!((cluster.healthy(low), cluster.healthy(equal)), (3, 0));
    cluster.deaf = (1..=3).map(node_id).collect();
    let urgent = cluster.create(sized("urgent", 3, 4, 2));
    cluster.settle();
    let told = |cluster: &Cluster| {
        let tasks = cluster.occupants(low);
        let told = tasks.iter().filter(|entry| {
            entry.task.binding.is_some() && entry.task.desired == ballast_model::Desired::Shutdown
        });
        told.count()
    };
    assert_eq!(told(&cluster), 1, "one at a time, as its budget says");
    cluster.deaf.clear();
    for _ in 0..20 {
        cluster.settle();
        assert!(told(&cluster) <= 1);
        cluster.agents();
    }
    cluster.run();
    assert_eq!(cluster.healthy(urgent), 3);
}

#[test]
fn gang_is_placed_whole_or_not_at_all() {
    let mut cluster = cluster_of(2, 4);
    let mut gang = sized("gang", 5, 2, 0);
    gang.placement.gang = true;
    let gang = cluster.create(gang);
    cluster.run();
    assert_eq!(cluster.healthy(gang), 0);
    let words = message(&cluster, gang);
    assert!(
        words.starts_with("a gang of 5 is placed whole or not at all, and 4 fit"),
        "{words}"
    );
    let mut third = description(3);
    third.capacity = Capacity::of(MilliCpu::from_cores(4), Bytes::from_mib(1 << 20));
    cluster.join(3, third);
    cluster.run();
    assert_eq!(cluster.healthy(gang), 5);
    let mut more = cluster.state.service(gang).expect("known").spec.clone();
    more.mode = Mode::Replicated { replicas: 8 };
    cluster.update(gang, more);
    cluster.run();
    assert_eq!(
        cluster.healthy(gang),
        5,
        "those that run stay, the missing ones wait together"
    );
}

#[test]
fn pool_lets_more_be_placed_than_there_is_and_takes_it_back_gently() {
    let mut cluster = cluster_of(1, 4);
    let web = cluster.create(sized("web", 6, 1, 0));
    cluster.run();
    assert_eq!(cluster.healthy(web), 4);
    let pool = |cpu: u32, reserved: u32| Command::SetPool {
        pool: Pool {
            overcommit_cpu_percent: cpu,
            reserved_cpu: MilliCpu::from_cores(reserved),
            ..Pool::default()
        },
        time: ballast_model::Timestamp(1),
    };
    cluster.apply(&pool(200, 1)).expect("a pool");
    cluster.run();
    assert_eq!(cluster.healthy(web), 6);
    let less = Command::RemovePool {
        name: "default".to_owned(),
        time: cluster.now,
    };
    cluster.apply(&less).expect("known");
    let batch = cluster
        .reconciler
        .step(&cluster.state, cluster.now, &mut cluster.rng);
    assert!(batch.is_empty(), "who runs stays: {batch:?}");
    assert!(
        cluster.state.check_capacity().is_err(),
        "more is given than offered"
    );
    cluster.scale(web, 3);
    cluster.apply(&pool(100, 0)).expect("a pool");
    let web_tasks = |cluster: &Cluster| cluster.healthy(web);
    for _ in 0..10 {
        let batch = cluster
            .reconciler
            .step(&cluster.state, cluster.now, &mut cluster.rng);
        for command in &batch {
            let _ = cluster.apply(command);
        }
        cluster.agents();
    }
    assert_eq!(web_tasks(&cluster), 3);
    cluster.run();
}

#[test]
fn node_with_more_devices_than_any_is_refused_and_absurd_tasks_wait_with_a_reason() {
    let mut cluster = cluster_of(1, 4);
    let mut absurd = description(2);
    absurd.capacity.devices = vec![ballast_model::Device::of("gpu", "T4"); 300];
    let command = Command::RegisterNode {
        node: node_id(2),
        incarnation: ballast_model::Incarnation(1),
        description: absurd,
        time: cluster.now,
    };
    let rejection = cluster.apply(&command).expect_err("refused");
    assert_eq!(rejection.kind, RejectionKind::Limit);
    assert_eq!(rejection.field.as_deref(), Some("devices"));
    let mut greedy = spec("greedy", 1);
    greedy.task.resources.devices = "gpu=16".parse().expect("reads");
    let greedy = cluster.create(greedy);
    let mut pinned = spec("pinned", 1);
    pinned.placement.sockets = 8;
    let pinned = cluster.create(pinned);
    cluster.run();
    let words = message(&cluster, greedy);
    assert!(words.contains("lacks 16 free gpu"), "{words}");
    let words = message(&cluster, pinned);
    assert!(words.contains("no socket with enough left"), "{words}");
}

#[test]
fn agent_that_comes_back_with_less_keeps_what_runs_and_takes_no_more() {
    let mut cluster = cluster_of(1, 4);
    let web = cluster.create(sized("web", 4, 1, 0));
    cluster.run();
    cluster.now.0 += 1_000_000;
    let mut less = description(1);
    less.capacity = Capacity::of(MilliCpu::from_cores(2), Bytes::from_mib(8));
    cluster.join(1, less);
    cluster.scale(web, 5);
    for _ in 0..5 {
        let batch = cluster
            .reconciler
            .step(&cluster.state, cluster.now, &mut cluster.rng);
        for command in &batch {
            let _ = cluster.apply(command);
        }
        cluster.agents();
    }
    assert_eq!(cluster.healthy(web), 4);
    let words = message(&cluster, web);
    assert!(words.contains("lacks 3 CPU"), "{words}");
}
