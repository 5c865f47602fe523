//! Where tasks that want devices go, and that no device gives more than it has.

mod common;

use std::collections::BTreeMap;

use ballast_model::{
    AssignmentId, Bytes, Device, DeviceRequest, MilliCpu, Node, Placement, Policy, Resources,
    ServiceId,
};
use ballast_scheduler::{Peers, Placed, Refusal, Request, Scheduler};
use proptest::prelude::*;

const GPU: &str = "gpu";

fn node(number: u64, cpu: u32, gpus: usize, model: &str) -> Node {
    let mut node = common::node(number, cpu, 64 << 10);
    let has = &mut node.description.capacity;
    has.task_slots = 1000;
    has.devices = vec![Device::of(GPU, model); gpus];
    node.offered = has.clone();
    let attributes = &mut node.description.attributes;
    attributes.insert(format!("{GPU}.model"), model.to_owned());
    node
}

#[derive(Debug, Clone)]
struct Task {
    service: u64,
    resources: Resources,
    placement: Placement,
}

fn task(cpu: u32, count: u8, milli: u16) -> Task {
    let mut resources = Resources::of(MilliCpu(cpu), Bytes::from_mib(1024));
    resources.devices = DeviceRequest {
        kind: if count > 0 {
            GPU.to_owned()
        } else {
            String::new()
        },
        count,
        milli,
    };
    Task {
        service: u64::from(cpu) << 32 | u64::from(count) << 16 | u64::from(milli),
        resources,
        placement: Placement::default(),
    }
}

impl Task {
    fn of_model(mut self, model: &str) -> Self {
        let constraint = format!("node.attributes.{GPU}.model=={model}");
        self.placement.constraints = vec![constraint.parse().expect("a constraint")];
        self.service += 1 << 60;
        self
    }

    fn by(mut self, policy: Policy) -> Self {
        self.placement.policy = policy;
        self
    }

    fn place(&self, scheduler: &mut Scheduler) -> Result<Placed, Refusal> {
        scheduler.note(&self.resources, &self.placement.constraints);
        scheduler.place(&Request {
            service: ServiceId::from_bits(self.service),
            resources: &self.resources,
            ports: &[],
            placement: &self.placement,
            node: None,
            avoid: &[],
            kept: &[],
            peers: Peers::none(),
        })
    }
}

/// Places a task and commits it; returns the number of its node.
fn run(scheduler: &mut Scheduler, task: &Task, assignment: u64) -> Option<u64> {
    let placed = task.place(scheduler).ok()?;
    scheduler.commit(placed.reservation, AssignmentId::from_bits(assignment));
    Some(placed.node.to_bits())
}

#[test]
fn tasks_that_may_go_anywhere_leave_a_scarce_model_to_those_that_need_it() {
    let scarce = (0..4).map(|number| node(number, 64_000, 4, "T4"));
    let ample = (4..20).map(|number| node(number, 64_000, 4, "G2"));
    let nodes: Vec<Node> = scarce.chain(ample).collect();
    let mut scheduler = Scheduler::rebuild(&nodes, []);
    let (any, picky) = (task(1000, 1, 1000), task(1000, 1, 1000).of_model("T4"));
    // One in five needs a T4: as many as there are of them.
    let mut picky_lost = 0;
    for number in 0..80 {
        if number % 5 == 0 {
            picky_lost += u32::from(run(&mut scheduler, &picky, number).is_none());
        } else {
            assert!(run(&mut scheduler, &any, number).is_some(), "{number}");
        }
    }
    assert_eq!(picky_lost, 0);
}

#[test]
fn task_without_devices_goes_beside_devices_only_if_there_is_no_other_room() {
    let nodes = [node(0, 8000, 4, "T4"), node(1, 8000, 0, "")];
    let mut scheduler = Scheduler::rebuild(&nodes, []);
    let (gpu, plain) = (task(1000, 1, 500), task(4000, 0, 0));
    assert_eq!(run(&mut scheduler, &gpu, 0), Some(0));
    let went: Vec<_> = (1..5)
        .map(|number| run(&mut scheduler, &plain, number))
        .collect();
    assert_eq!(went, [Some(1), Some(1), Some(0), None]);
}

#[test]
fn node_is_opened_only_where_the_others_would_waste_more() {
    let nodes: Vec<Node> = (0..4).map(|number| node(number, 64_000, 4, "T4")).collect();
    let mut scheduler = Scheduler::rebuild(&nodes, []);
    let mut went = Vec::new();
    for number in 0..3 {
        went.extend(run(&mut scheduler, &task(1000, 1, 1000), number));
    }
    // Three on the first; the second is opened by one that does not fit there, and is preferred
    // from then on to the first that is empty again.
    went.extend(run(&mut scheduler, &task(1000, 2, 1000), 3));
    for number in 0..3 {
        assert!(scheduler.free(AssignmentId::from_bits(number)));
    }
    went.extend(run(&mut scheduler, &task(1000, 1, 1000), 4));
    assert_eq!(went, [0, 0, 0, 1, 1]);
}

#[test]
fn fractions_share_a_device_that_they_fill() {
    for policy in [Policy::Auto, Policy::Fgd] {
        let nodes: Vec<Node> = (0..8).map(|number| node(number, 64_000, 4, "T4")).collect();
        let mut scheduler = Scheduler::rebuild(&nodes, []);
        // 700 and 300 fill a device; two of 300 and one of 700 do not.
        for number in 0..64 {
            let task = task(1000, 1, if number % 2 == 0 { 700 } else { 300 }).by(policy);
            assert!(
                run(&mut scheduler, &task, number).is_some(),
                "{policy} {number}"
            );
        }
        assert!(task(1000, 1, 1).by(policy).place(&mut scheduler).is_err());
    }
}

#[test]
fn memory_that_fits_to_the_byte_is_found() {
    let mut node = node(0, 64_000, 1, "T4");
    node.offered.memory = Bytes(1_500_001);
    let mut scheduler = Scheduler::rebuild([&node], []);
    let mut tight = task(1000, 1, 500);
    tight.resources.memory = Bytes(1_500_001);
    assert_eq!(run(&mut scheduler, &tight, 0), Some(0));
}

fn tasks() -> impl Strategy<Value = Task> {
    let devices = prop_oneof![
        Just((0u8, 0u16)),
        (Just(1u8), 1u16..=1000),
        (1u8..5, Just(1000u16))
    ];
    let policy = prop_oneof![Just(Policy::Auto), Just(Policy::Fgd), Just(Policy::Binpack)];
    let model = prop_oneof![2 => Just(None), 1 => Just(Some("T4")), 1 => Just(Some("G2"))];
    (0u32..9, devices, policy, model).prop_map(|(cpu, (count, milli), policy, model)| {
        let task = task(cpu * 1000, count, milli).by(policy);
        match model {
            Some(model) => task.of_model(model),
            None => task,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever comes and goes, no device and no node gives more than it has, no task is refused
    /// that a node has room for (`place` asserts that), and the same calls give the same placements.
    #[test]
    fn prop_no_device_gives_more_than_it_has_and_the_same_calls_choose_alike(
        steps in prop::collection::vec((tasks(), any::<prop::sample::Index>(), 0u8..10), 1..150),
    ) {
        let nodes: Vec<Node> = (0..6)
            .map(|number| {
                let (gpus, model) = match number % 3 {
                    0 => (4, "T4"),
                    1 => (4, "G2"),
                    _ => (0, ""),
                };
                node(number, 16_000, gpus, model)
            })
            .collect();
        let mut schedulers = [Scheduler::rebuild(&nodes, []), Scheduler::rebuild(&nodes, [])];
        let mut running: Vec<u64> = Vec::new();
        for ((task, which, step), number) in steps.into_iter().zip(0u64..) {
            if step < 3 && !running.is_empty() {
                let ended = running.swap_remove(which.index(running.len()));
                for scheduler in &mut schedulers {
                    prop_assert!(scheduler.free(AssignmentId::from_bits(ended)));
                }
                continue;
            }
            let went = schedulers.each_mut().map(|scheduler| run(scheduler, &task, number));
            prop_assert_eq!(went[0], went[1]);
            running.extend(went[0].map(|_| number));
            for (node, taken) in schedulers[0].nodes() {
                let has = &node.offered;
                prop_assert!(taken.cpu <= u64::from(has.cpu.0) && taken.memory <= has.memory.0);
                for (place, _) in has.devices.iter().enumerate() {
                    prop_assert!(taken.device(place) <= 1000);
                }
            }
        }
        let counts: BTreeMap<u64, u32> = schedulers[0]
            .nodes()
            .map(|(node, taken)| (node.id.to_bits(), taken.tasks))
            .collect();
        prop_assert_eq!(counts.values().sum::<u32>() as usize, running.len());
    }
}
