//! The scheduler with its nodes, and books of what is allocated on each.

use std::time::{Duration, Instant};

use ballast_model::{AssignmentId, NodeId};
use ballast_scheduler::Scheduler;
use ballast_scheduler::rebalance::{Move, MoveBudget, defragment};

use crate::amounts::Amounts;
use crate::fleet::{Fleet, node_number};
use crate::timeline::Sample;
use crate::workload::Workload;

/// A fleet that a run places tasks on.
pub(crate) struct Cluster<'a> {
    workload: &'a Workload,
    pub scheduler: Scheduler,
    total: Amounts,
    taken: Amounts,
    /// What each node has and what is taken of it, by its number.
    nodes: Vec<(Amounts, Amounts)>,
    /// Tasks on each.
    tasks: Vec<u32>,
    used: usize,
    next: u64,
    /// Decisions of the scheduler, refusals included, and the time that they took.
    pub decisions: u64,
    pub spent: Duration,
}

/// A task that runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Running {
    pub assignment: AssignmentId,
    pub service: usize,
    pub node: usize,
}

impl<'a> Cluster<'a> {
    pub(crate) fn new(fleet: &Fleet, workload: &'a Workload) -> Self {
        Self {
            workload,
            scheduler: Scheduler::rebuild(&fleet.nodes, []),
            total: fleet.total,
            taken: Amounts::default(),
            nodes: fleet
                .has
                .iter()
                .map(|&has| (has, Amounts::default()))
                .collect(),
            tasks: vec![0; fleet.len()],
            used: 0,
            next: 0,
            decisions: 0,
            spent: Duration::ZERO,
        }
    }

    /// Starts a task of this service, if any node takes it.
    pub(crate) fn place(&mut self, service: usize) -> Option<Running> {
        let request = self.workload.request(service);
        let begun = Instant::now();
        self.scheduler
            .note(request.resources, &request.placement.constraints);
        let placed = self.scheduler.place(&request);
        let placed = placed.ok().map(|placed| {
            let assignment = AssignmentId::from_bits(self.next);
            self.scheduler.commit(placed.reservation, assignment);
            (assignment, node_number(placed.node))
        });
        self.spent += begun.elapsed();
        self.decisions += 1;
        let (assignment, node) = placed?;
        self.next += 1;
        self.count_in(service, node);
        Some(Running {
            assignment,
            service,
            node,
        })
    }

    /// Ends a task.
    pub(crate) fn end(&mut self, task: Running) {
        let held = self.scheduler.free(task.assignment);
        assert!(held, "what runs is held");
        self.count_out(task.service, task.node);
    }

    /// Returns moves that empty nodes or free devices, at most this many.
    pub(crate) fn defragment(&mut self, moves: usize) -> Vec<Move> {
        let budget = MoveBudget {
            moves,
            ..MoveBudget::default()
        };
        let workload = self.workload;
        defragment(&mut self.scheduler, &|id| workload.request_of(id), &budget)
    }

    /// Moves a task to a node that takes it; returns whether it did.
    pub(crate) fn shift(&mut self, task: &mut Running, to: NodeId) -> bool {
        let request = self.workload.request(task.service).on(to);
        let Ok(placed) = self.scheduler.place(&request) else {
            return false;
        };
        self.scheduler.free(task.assignment);
        self.scheduler.commit(placed.reservation, task.assignment);
        self.count_out(task.service, task.node);
        task.node = node_number(to);
        self.count_in(task.service, task.node);
        true
    }

    /// Returns how many nodes there are.
    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Returns how many nodes have a task.
    pub(crate) fn used(&self) -> usize {
        self.used
    }

    /// Returns what is allocated of the fleet, 0 to 1: CPU, memory, GPUs.
    pub(crate) fn shares(&self) -> [f64; 3] {
        self.taken.shares(self.total)
    }

    /// Returns what is allocated.
    pub(crate) fn taken(&self) -> Amounts {
        self.taken
    }

    /// Returns the cluster at this moment.
    pub(crate) fn sample(&self, at: f64) -> Sample {
        Sample::take(at, self.used, self.total, self.taken, &self.nodes)
    }

    fn count_in(&mut self, service: usize, node: usize) {
        let amounts = self.workload.services[service].amounts;
        self.taken.add(amounts);
        self.nodes[node].1.add(amounts);
        self.tasks[node] += 1;
        self.used += usize::from(self.tasks[node] == 1);
    }

    fn count_out(&mut self, service: usize, node: usize) {
        let amounts = self.workload.services[service].amounts;
        self.taken.sub(amounts);
        self.nodes[node].1.sub(amounts);
        self.tasks[node] -= 1;
        self.used -= usize::from(self.tasks[node] == 0);
    }
}
