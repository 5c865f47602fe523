//! The invariants after every step, and what it means to be at rest.

use std::collections::{BTreeMap, BTreeSet};

use ballast_manager::reconcile::Reconciler;
use ballast_manager::state::{Lane, Service, TaskEntry, Update};
use ballast_model::{
    AssignmentId, Desired, Health, Mode, NodeId, ServiceId, Slot, TaskId, TaskState,
};
use ballast_wire::log::{Batch, Command};

use super::world::World;

/// How often the two replicas are compared byte by byte; every answer is compared anyway.
const COMPARE_EVERY: u64 = 64;

impl World {
    /// What holds after every command.
    pub(super) fn check_applied(&mut self) -> Result<(), String> {
        let manager = &mut self.manager;
        manager.state.check_invariants()?;
        manager.state.check_capacity()?;
        for entry in manager.state.tasks() {
            let (id, state) = (entry.task.id, entry.task.observed.state);
            let before = manager.lifecycles.insert(id, state);
            let legal = before.is_none_or(|before| before.step(state).is_ok());
            if !legal {
                return Err(format!("task {id} went from {before:?} to {state}"));
            }
        }
        if self.summary.entries.is_multiple_of(COMPARE_EVERY) {
            self.check_replicas()?;
        }
        Ok(())
    }

    pub(super) fn check_replicas(&self) -> Result<(), String> {
        if self.manager.state == self.manager.replica {
            Ok(())
        } else {
            Err("the replicas differ".to_owned())
        }
    }

    /// What holds of every decision to stop a task only because it moves: another one answers in its
    /// place, or its service asked for the old one to stop first and its disruption budget allows
    /// it.
    pub(super) fn check_moves(&self, batch: &Batch) -> Result<(), String> {
        let state = &self.manager.state;
        let answers = |lane: Lane, but: Option<TaskId>| {
            state.lane(lane).any(|entry| {
                Some(entry.task.id) != but
                    && entry.task.desired == Desired::Running
                    && entry.task.observed.state == TaskState::Running
                    && entry.task.observed.health == Health::Healthy
            })
        };
        let mut vacated: BTreeMap<ServiceId, BTreeSet<Slot>> = BTreeMap::new();
        for command in batch {
            let Command::SetDesired { tasks, reason, .. } = command else {
                continue;
            };
            let moved = reason.contains("drained") || reason.contains("another node");
            let entries = tasks.iter().filter_map(|task| state.task(*task));
            for entry in entries.filter(|entry| moved && entry.pinned.is_none()) {
                let id = entry.task.id;
                if !reason.starts_with("replaced") {
                    let slots = vacated.entry(entry.task.service).or_default();
                    slots.insert(entry.task.slot);
                } else if !answers(entry.lane(), Some(id)) {
                    return Err(format!("task {id} moves and nothing answers in its place"));
                }
            }
        }
        for (id, slots) in vacated {
            let Some(service) = state.service(id) else {
                continue;
            };
            let silent = service.slots.iter().filter(|slot| {
                let lane = Lane {
                    service: id,
                    slot: **slot,
                    pinned: None,
                };
                slots.contains(slot) || !answers(lane, None)
            });
            let (silent, budget) = (silent.count(), service.spec.placement.max_disrupted);
            if silent > budget as usize {
                let name = &service.spec.name;
                return Err(format!(
                    "moves leave {silent} of {name} silent, {budget} may be"
                ));
            }
        }
        Ok(())
    }

    /// What holds whenever the leader waits for nothing: every reservation is closed, and the index
    /// that was kept is the one that would be built.
    pub(super) fn check_index(&self) -> Result<(), String> {
        let manager = &self.manager;
        let Some(kept) = &manager.reconciler else {
            return Ok(());
        };
        if manager.is_waiting() {
            return Ok(());
        }
        let tally = kept.scheduler().tally();
        if tally.open != 0 || tally.opened != tally.committed + tally.released {
            return Err(format!("reservations are not closed once: {tally:?}"));
        }
        let built = Reconciler::new(&manager.state);
        match kept.scheduler().difference(built.scheduler()) {
            Some(difference) => Err(format!("kept and rebuilt index differ: {difference}")),
            None => Ok(()),
        }
    }

    /// Returns what is still to be done, if anything: the desired replicas run and answer, nothing
    /// else does, and the manager knows it.
    pub(super) fn at_rest(&self) -> Result<(), String> {
        let state = &self.manager.state;
        if self.manager.reconciler.is_none() || state.nodes().len_is_not(self.hosts.len()) {
            return Err("not everybody is there".to_owned());
        }
        let mut expected: BTreeMap<AssignmentId, (NodeId, TaskId)> = BTreeMap::new();
        let mut occupied = 0;
        for service in state.services() {
            if service.removing {
                return Err(format!("{} is being removed", service.spec.name));
            }
            if matches!(service.update, Update::Running { .. }) {
                return Err(format!("{} is being updated", service.spec.name));
            }
            for lane in self.wanted(service) {
                let filled = self.lane_at_rest(service, lane)?;
                let binding = filled.and_then(|entry| entry.task.binding.as_ref());
                if let (Some(entry), Some(binding)) = (filled, binding) {
                    occupied += 1;
                    expected.insert(binding.assignment, (binding.node, entry.task.id));
                }
            }
        }
        let all = state.tasks().filter(|entry| state.occupies(entry)).count();
        if all != occupied {
            return Err(format!("{all} tasks occupy lanes, {occupied} are wanted"));
        }
        for host in self.hosts.values() {
            for running in host.processes.values() {
                if expected.remove(&running.assignment) != Some((host.id, running.task)) {
                    return Err(format!("orphan on {}: {running:?}", host.id));
                }
            }
        }
        match expected.first_key_value() {
            Some(missing) => Err(format!("does not run: {missing:?}")),
            None => Ok(()),
        }
    }

    fn wanted(&self, service: &Service) -> Vec<Lane> {
        let lane = |slot, pinned| Lane {
            service: service.id,
            slot,
            pinned,
        };
        match service.spec.mode {
            Mode::Global {} => {
                let nodes = self.hosts.keys();
                nodes.map(|node| lane(Slot(0), Some(*node))).collect()
            }
            _ => service.slots.iter().map(|slot| lane(*slot, None)).collect(),
        }
    }

    /// Returns the one task that fills a lane, or none if the lane has come to its end.
    fn lane_at_rest(&self, service: &Service, lane: Lane) -> Result<Option<&TaskEntry>, String> {
        let state = &self.manager.state;
        let occupants: Vec<&TaskEntry> = state
            .lane(lane)
            .filter(|entry| state.occupies(entry))
            .collect();
        let finished = state.lane(lane).next_back().filter(|entry| entry.finished);
        if service.is_job() {
            let complete = finished.is_some_and(|e| e.task.observed.state == TaskState::Complete);
            return match (occupants.is_empty(), complete) {
                (true, true) => Ok(None),
                _ => Err(format!(
                    "job {} slot {}: not complete",
                    service.spec.name, lane.slot
                )),
            };
        }
        let [one] = occupants[..] else {
            return Err(format!(
                "{} {lane:?} has {} occupants: {occupants:?}",
                service.spec.name,
                occupants.len()
            ));
        };
        let observed = &one.task.observed;
        let good = one.task.desired == Desired::Running
            && observed.state == TaskState::Running
            && observed.health == Health::Healthy;
        if good {
            Ok(Some(one))
        } else {
            Err(format!("{} {lane:?}: {one:?}", service.spec.name))
        }
    }
}

/// Counting an iterator against a number.
trait LenIsNot {
    fn len_is_not(self, len: usize) -> bool;
}

impl<I: Iterator> LenIsNot for I {
    fn len_is_not(self, len: usize) -> bool {
        self.count() != len
    }
}
