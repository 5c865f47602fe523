//! Tasks: made, placed, told to end, forgotten.

use ballast_model::{
    Binding, Desired, EventKind, Health, NodeId, Observed, Sequence, Task, TaskId, TaskState,
    Timestamp, fits, limits,
};
use ballast_wire::log::{NewTask, Placement};

use super::{About, AssignmentEntry, Changes, Lane, State, TaskEntry, cut};

/// How a task came to its end.
pub(super) struct End<'a> {
    pub state: TaskState,
    pub message: &'a str,
    pub time: Timestamp,
}

impl State {
    pub(super) fn create_tasks(&mut self, tasks: &[NewTask], time: Timestamp, out: &mut Changes) {
        for new in tasks {
            let lane = Lane {
                service: new.service,
                slot: new.slot,
                pinned: new.pinned,
            };
            let wanted = self
                .services
                .get(&new.service)
                .is_some_and(|service| service.wants(lane) && service.template == new.generation);
            if !wanted || self.tasks.contains_key(&new.id) {
                self.ignored += 1;
                out.lanes.insert(lane);
                continue;
            }
            let observed = Observed {
                state: TaskState::Pending,
                health: Health::Unknown,
                sequence: Sequence(0),
                pid: None,
                exit: None,
                message: String::new(),
                since: time,
            };
            let task = Task {
                id: new.id,
                service: new.service,
                generation: new.generation,
                slot: new.slot,
                binding: None,
                desired: Desired::Running,
                observed,
                created: time,
            };
            self.insert_task(task, new.pinned, out);
            if let Some(service) = self.services.get_mut(&new.service) {
                service.live += 1;
                if new.pinned.is_none() {
                    let (task, placement) = (&service.spec.task, &service.spec.placement);
                    self.learnt.note(&task.resources, &placement.constraints);
                }
            }
        }
    }

    /// Stores a task at the end of its lane.
    pub(super) fn insert_task(&mut self, task: Task, pinned: Option<NodeId>, out: &mut Changes) {
        let entry = TaskEntry {
            task,
            pinned,
            was_healthy: false,
            finished: false,
            ended: None,
        };
        let lane = entry.lane();
        let id = entry.task.id;
        self.lanes.entry(lane).or_default().tasks.push(id);
        self.tasks.insert(id, Box::new(entry));
        out.lanes.insert(lane);
    }

    pub(super) fn place_tasks(
        &mut self,
        placements: &[Placement],
        time: Timestamp,
        out: &mut Changes,
    ) {
        for Placement { task, binding } in placements {
            if self.may_place(*task, binding) {
                self.bind(*task, binding, time, out);
                out.bound.push(binding.assignment);
            } else {
                self.ignored += 1;
                out.refused.push(binding.assignment);
                if let Some(entry) = self.tasks.get(task) {
                    out.lanes.insert(entry.lane());
                }
            }
        }
    }

    /// Returns whether what the scheduler found still holds: the same `fits` that it asked.
    fn may_place(&self, task: TaskId, binding: &Binding) -> bool {
        let (Some(entry), Some(node)) = (self.tasks.get(&task), self.nodes.get(&binding.node))
        else {
            return false;
        };
        let Some(service) = self.services.get(&entry.task.service) else {
            return false;
        };
        let waits = entry.task.binding.is_none()
            && entry.task.desired == Desired::Running
            && !entry.task.observed.state.is_terminal();
        // Two names may share a number: a fixed port that is served over TCP and UDP is claimed
        // once.
        let claimed = &binding.claim.ports;
        let named = binding.ports.iter().all(|p| claimed.contains(&p.port))
            && claimed
                .iter()
                .all(|c| binding.ports.iter().any(|p| p.port == *c));
        waits
            && named
            && entry.pinned.is_none_or(|pinned| pinned == binding.node)
            && entry.task.generation == service.template
            && !self.assignments.contains_key(&binding.assignment)
            && node.node.is_schedulable()
            && service
                .spec
                .placement
                .constraints
                .iter()
                .all(|c| node.node.meets(c))
            && crate::views::is_welcome(service, &node.node)
            && self.may_have_one_more(service, node)
            && fits(&node.node.offered, &node.allocation, &binding.claim).is_ok()
    }

    /// Returns whether a node has fewer tasks of a service than it may.
    fn may_have_one_more(&self, service: &super::Service, node: &super::NodeEntry) -> bool {
        let most = service.spec.placement.max_replicas_per_node;
        if most == 0 {
            return true;
        }
        let task = |id| self.tasks.get(&self.assignments.get(id)?.task);
        let here = node.assignments.iter().filter_map(task);
        let here = here
            .filter(|entry| entry.task.service == service.id)
            .count();
        here < most as usize
    }

    fn bind(&mut self, id: TaskId, binding: &Binding, time: Timestamp, out: &mut Changes) {
        let held = "may_place found it";
        let entry = self.tasks.get_mut(&id).expect(held);
        entry.task.binding = Some(Binding {
            restarts: 0,
            ..binding.clone()
        });
        entry.task.observed.state = TaskState::Assigned;
        entry.task.observed.message.clear();
        entry.task.observed.since = time;
        let (service, generation, lane) = (entry.task.service, entry.task.generation, entry.lane());
        self.assignments.insert(
            binding.assignment,
            AssignmentEntry {
                task: id,
                restarting: false,
            },
        );
        let node = self.nodes.get_mut(&binding.node).expect(held);
        node.allocation.add(&binding.claim);
        node.assignments.insert(binding.assignment);
        if let Some(template) = self.templates.get_mut(&(service, generation)) {
            template.live += 1;
        }
        out.lanes.insert(lane);
        out.rebound(binding);
        self.table_changed(service, out);
        let about = About {
            service: Some(service),
            task: Some(id),
            node: Some(binding.node),
        };
        self.note(EventKind::TaskAssigned, time, about, "");
    }

    pub(super) fn table_changed(&self, service: ballast_model::ServiceId, out: &mut Changes) {
        if self
            .services
            .get(&service)
            .is_some_and(super::Service::is_routed)
        {
            out.services.insert(service);
        }
    }

    pub(super) fn set_desired(
        &mut self,
        tasks: &[TaskId],
        desired: Desired,
        reason: &str,
        time: Timestamp,
        out: &mut Changes,
    ) {
        for &id in tasks {
            match desired {
                Desired::Shutdown => self.stop_task(id, reason, time, out),
                // Every task is made to run; one that was told to end is not called back, as its
                // agent may have ended it already.
                Desired::Running => {}
            }
        }
    }

    /// Tells a task to end. One that nobody runs ends at once.
    pub(super) fn stop_task(
        &mut self,
        id: TaskId,
        reason: &str,
        time: Timestamp,
        out: &mut Changes,
    ) {
        let Some(entry) = self.tasks.get_mut(&id) else {
            return;
        };
        if entry.task.desired == Desired::Shutdown {
            return;
        }
        entry.task.desired = Desired::Shutdown;
        let lane = entry.lane();
        let ended = entry.task.observed.state.is_terminal();
        let binding = entry.task.binding.clone();
        if !ended && !reason.is_empty() {
            entry.task.observed.message = cut(reason);
        }
        let entry = &self.tasks[&id];
        if !self.occupies(entry) {
            return;
        }
        out.lanes.insert(lane);
        match binding {
            None => {
                let end = End {
                    state: TaskState::Shutdown,
                    message: reason,
                    time,
                };
                self.end_task(id, &end);
                self.vacate(id, out);
            }
            // Between two tries nothing runs that could report its end.
            Some(_) if ended => self.vacate(id, out),
            Some(binding) => out.rebound(&binding),
        }
    }

    /// Moves a living task into an end, and says so. What it holds stays held.
    pub(super) fn end_task(&mut self, id: TaskId, end: &End<'_>) {
        let Some(entry) = self.tasks.get_mut(&id) else {
            return;
        };
        entry.task.observed.state = end.state;
        entry.task.observed.pid = None;
        entry.task.observed.health = Health::Unhealthy;
        entry.task.observed.since = end.time;
        if !end.message.is_empty() {
            entry.task.observed.message = cut(end.message);
        }
        entry.ended = Some(end.time);
        self.note_task(id, event_of(end.state), end.time);
    }

    /// Says what became of a task.
    pub(super) fn note_task(&mut self, id: TaskId, kind: Option<EventKind>, time: Timestamp) {
        let (Some(kind), Some(entry)) = (kind, self.tasks.get(&id)) else {
            return;
        };
        let about = About {
            service: Some(entry.task.service),
            task: Some(id),
            node: entry.task.binding.as_ref().map(|binding| binding.node),
        };
        let message = entry.task.observed.message.clone();
        self.note(kind, time, about, &message);
    }

    /// Takes an ended task out of its lane and gives back what it held; then forgets what is no
    /// longer needed, the service included if this was the last of a removed one.
    pub(super) fn vacate(&mut self, id: TaskId, out: &mut Changes) {
        let Some(entry) = self.tasks.get(&id) else {
            return;
        };
        let lane = entry.lane();
        let generation = entry.task.generation;
        let binding = entry.task.binding.clone();
        let (service, held) = (
            lane.service,
            "a binding's node, service and template are kept",
        );
        if let Some(binding) = binding
            && self.assignments.remove(&binding.assignment).is_some()
        {
            let node = self.nodes.get_mut(&binding.node).expect(held);
            node.allocation.remove(&binding.claim);
            node.assignments.remove(&binding.assignment);
            out.rebound(&binding);
            self.table_changed(service, out);
            self.release_template(service, generation);
            out.freed.push(binding.assignment);
        }
        out.lanes.insert(lane);
        let entry = self.services.get_mut(&service).expect(held);
        entry.live -= 1;
        let gone = entry.removing && entry.live == 0;
        self.trim_lane(lane);
        if gone {
            self.forget_service(service, out);
        }
    }

    fn release_template(
        &mut self,
        service: ballast_model::ServiceId,
        generation: ballast_model::Generation,
    ) {
        let key = (service, generation);
        let current = self.services.get(&service).map(|entry| entry.template);
        if let Some(template) = self.templates.get_mut(&key) {
            template.live -= 1;
            if template.live == 0 && current != Some(generation) {
                self.templates.remove(&key);
            }
        }
    }

    /// Forgets the oldest ended tasks of a lane past the limit; all of them once nobody wants the
    /// lane and nothing is left in it.
    pub(super) fn trim_lane(&mut self, lane: Lane) {
        let Some(entry) = self.lanes.get(&lane) else {
            return;
        };
        let ended: Vec<TaskId> = entry
            .tasks
            .iter()
            .filter(|id| !self.occupies(&self.tasks[id]))
            .copied()
            .collect();
        let wanted = self
            .services
            .get(&lane.service)
            .is_some_and(|s| s.wants(lane))
            && lane
                .pinned
                .is_none_or(|node| self.nodes.contains_key(&node));
        let keep = if wanted || ended.len() < entry.tasks.len() {
            limits::TASK_HISTORY_PER_SLOT
        } else {
            0
        };
        let surplus = ended.len().saturating_sub(keep);
        self.forget(lane, &ended[..surplus]);
    }

    fn forget(&mut self, lane: Lane, ids: &[TaskId]) {
        for id in ids {
            self.tasks.remove(id);
        }
        if let Some(entry) = self.lanes.get_mut(&lane) {
            entry.tasks.retain(|id| !ids.contains(id));
            if entry.tasks.is_empty() {
                self.lanes.remove(&lane);
            }
        }
    }

    pub(super) fn forget_tasks(&mut self, tasks: &[TaskId]) {
        for id in tasks {
            match self.tasks.get(id) {
                Some(entry) if !self.occupies(entry) => self.forget(entry.lane(), &[*id]),
                _ => self.ignored += 1,
            }
        }
    }

    pub(super) fn set_pending(&mut self, tasks: &[(TaskId, String)], time: Timestamp) {
        for (id, reason) in tasks {
            let Some(entry) = self.tasks.get_mut(id) else {
                continue;
            };
            let observed = &mut entry.task.observed;
            if observed.state > TaskState::Pending || observed.message == *reason {
                continue;
            }
            observed.message = cut(reason);
            self.note_task(*id, Some(EventKind::TaskPending), time);
        }
    }
}

/// Returns what is said of a task that comes into a state, if anything is.
pub(super) fn event_of(state: TaskState) -> Option<EventKind> {
    Some(match state {
        TaskState::Running => EventKind::TaskRunning,
        TaskState::Complete => EventKind::TaskComplete,
        TaskState::Failed => EventKind::TaskFailed,
        TaskState::Shutdown => EventKind::TaskShutdown,
        TaskState::Rejected => EventKind::TaskRejected,
        TaskState::Lost => EventKind::TaskLost,
        _ => return None,
    })
}
