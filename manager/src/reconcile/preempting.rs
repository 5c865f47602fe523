//! Tasks that wait for others, of lower priority, to end.
//!
//! A task for which there is no room, and whose priority is above that of others, has them told to
//! end. Until they have, it is *nominated*: its node is kept from tasks of no higher priority, so
//! that nobody slips into the room that is made for it.

use std::collections::{BTreeMap, BTreeSet};

use ballast_model::{AssignmentId, Desired, NodeId, ServiceId, TaskId};
use ballast_scheduler::{Preemption, Request, Scheduler, Standing};

use super::plan::Plan;
use crate::state::{Service, State};

/// Tasks for which victims are looked for in one step; the rest follow when something changes.
/// Each look is a pass over what is committed.
const LOOKS_PER_STEP: usize = 32;

/// A task that waits for its victims to end.
#[derive(Debug, Clone)]
struct Nominee {
    node: NodeId,
    priority: i32,
    victims: Vec<AssignmentId>,
}

/// Tasks that wait for their victims, across steps.
#[derive(Debug, Default)]
pub(super) struct Nominees {
    tasks: BTreeMap<TaskId, Nominee>,
}

/// Who may be told to end, as of one step.
#[derive(Debug)]
pub(super) struct Victims {
    standing: BTreeMap<ServiceId, Standing>,
    leaving: BTreeSet<AssignmentId>,
    looks: usize,
    /// Services whose tasks would find no victims in this step.
    hopeless: BTreeSet<ServiceId>,
}

impl Nominees {
    /// Forgets nominees that wait no more, and those whose node is gone.
    pub(super) fn tidy(&mut self, state: &State) {
        self.tasks.retain(|task, nominee| {
            let waits = state.task(*task).is_some_and(|entry| {
                entry.task.binding.is_none()
                    && entry.task.desired == Desired::Running
                    && !entry.task.observed.state.is_terminal()
            });
            waits && state.node(nominee.node).is_some()
        });
    }

    /// Returns the nodes that are kept from a task.
    pub(super) fn kept_from(&self, task: TaskId, priority: i32) -> Vec<NodeId> {
        let others = self.tasks.iter();
        let others = others.filter(|(id, other)| **id != task && other.priority >= priority);
        let nodes: BTreeSet<NodeId> = others.map(|(_, other)| other.node).collect();
        nodes.into_iter().collect()
    }

    /// Returns what a task waits for, if its victims have not all ended.
    pub(super) fn waits_for(&mut self, state: &State, task: TaskId) -> Option<String> {
        let nominee = self.tasks.get(&task)?;
        let victims = nominee.victims.iter();
        let living = victims.filter(|victim| state.assignment(**victim).is_some());
        let living = living.count();
        if living == 0 {
            self.tasks.remove(&task);
            return None;
        }
        Some(words(state, nominee.node, living))
    }

    /// Forgets a task that found a node.
    pub(super) fn placed(&mut self, task: TaskId) {
        self.tasks.remove(&task);
    }
}

fn words(state: &State, node: NodeId, victims: usize) -> String {
    let entry = state.node(node);
    let name = entry.map_or("", |entry| entry.node.description.name.as_str());
    let tasks = if victims == 1 { "task" } else { "tasks" };
    format!("waits for {victims} {tasks} of lower priority to end on {name}")
}

impl Victims {
    /// Returns who may be told to end now: of each service as many as its disruption budget
    /// allows, less those that are ending already.
    ///
    /// # Complexity
    /// One pass over the tasks.
    pub(super) fn of(state: &State) -> Self {
        let mut ending: BTreeMap<ServiceId, u32> = BTreeMap::new();
        let mut leaving = BTreeSet::new();
        for entry in state.tasks() {
            let Some(binding) = &entry.task.binding else {
                continue;
            };
            let held = state.assignment(binding.assignment);
            let holds = held.is_some_and(|held| held.task == entry.task.id);
            if holds && entry.task.desired == Desired::Shutdown {
                *ending.entry(entry.task.service).or_default() += 1;
                leaving.insert(binding.assignment);
            }
        }
        let standing = state.services().map(|service| {
            let placement = &service.spec.placement;
            let ending = ending.get(&service.id).copied().unwrap_or(0);
            let standing = Standing {
                priority: placement.priority,
                spare: placement.max_disrupted.saturating_sub(ending),
            };
            (service.id, standing)
        });
        Self {
            standing: standing.collect(),
            leaving,
            looks: 0,
            hopeless: BTreeSet::new(),
        }
    }

    /// Looks for tasks whose end would make room for one that waits; returns what it waits for
    /// now, if there are any.
    pub(super) fn look(
        &mut self,
        state: &State,
        scheduler: &Scheduler,
        nominees: &mut Nominees,
        (task, service): (TaskId, &Service),
        request: &Request<'_>,
        plan: &mut Plan,
    ) -> Option<String> {
        let placement = &service.spec.placement;
        let lower = |standing: &Standing| standing.priority < placement.priority;
        let pinned = request.node.is_some();
        if !placement.preempts
            || self.looks >= LOOKS_PER_STEP
            || self.hopeless.contains(&service.id)
            || !self.standing.values().any(lower)
        {
            return None;
        }
        self.looks += 1;
        let Some(found) = scheduler.preempt(request, &self.standing, &self.leaving) else {
            if !pinned {
                self.hopeless.insert(service.id);
            }
            return None;
        };
        Some(self.take(state, nominees, (task, service), found, plan))
    }

    fn take(
        &mut self,
        state: &State,
        nominees: &mut Nominees,
        (task, service): (TaskId, &Service),
        found: Preemption,
        plan: &mut Plan,
    ) -> String {
        let Preemption { node, victims } = found;
        let priority = service.spec.placement.priority;
        let reason = format!("preempted by {} of priority {priority}", service.spec.name);
        for victim in &victims {
            let assignment = state.assignment(*victim);
            let entry = assignment.and_then(|assignment| state.task(assignment.task));
            if let Some(entry) = entry {
                let told = plan.stop.entry(reason.clone().into()).or_default();
                told.push(entry.task.id);
                if let Some(standing) = self.standing.get_mut(&entry.task.service) {
                    standing.spare = standing.spare.saturating_sub(1);
                }
            }
            self.leaving.insert(*victim);
        }
        // Those that were leaving anyway are waited for, too: their room is part of what was found.
        let leaving = self.leaving.iter().filter(|assignment| {
            let task = state.assignment(**assignment).map(|held| held.task);
            let binding = task.and_then(|task| state.task(task)?.task.binding.as_ref());
            binding.is_some_and(|binding| binding.node == node)
        });
        let waits: Vec<AssignmentId> = leaving.copied().collect();
        let words = words(state, node, waits.len());
        let nominee = Nominee {
            node,
            priority,
            victims: waits,
        };
        nominees.tasks.insert(task, nominee);
        words
    }
}
