//! What agents report: the one way by which observed state changes.

use ballast_model::{
    Binding, Desired, EventKind, Health, NodeId, Observed, Task, TaskId, TaskState, Timestamp,
};
use ballast_wire::agent::TaskReport;

use super::tasks::{End, event_of};
use super::{AssignmentEntry, Changes, State, cut};

impl State {
    pub(super) fn apply_report(
        &mut self,
        node: NodeId,
        reports: &[TaskReport],
        time: Timestamp,
        out: &mut Changes,
    ) {
        for report in reports {
            if !self.apply_one(node, report, time, out) {
                self.ignored += 1;
            }
        }
    }

    /// Takes one report over; returns whether it could be.
    fn apply_one(
        &mut self,
        node: NodeId,
        report: &TaskReport,
        time: Timestamp,
        out: &mut Changes,
    ) -> bool {
        // A binding that is not there was taken away: its node is fenced, whatever it says.
        let Some(assignment) = self.assignments.get(&report.assignment) else {
            return false;
        };
        let current = &self.tasks[&assignment.task];
        let Some(binding) = &current.task.binding else {
            return false;
        };
        if binding.node != node {
            return false;
        }
        let known = current.task.id;
        let newer = report.observed.sequence > current.task.observed.sequence;
        let revived = report.task == known && !report.observed.state.is_terminal();
        if assignment.restarting && revived && newer {
            // An agent that lost its memory runs an ended try once more. An end is never left, so
            // nothing can be made of this binding: another one takes its place.
            self.vacate(known, out);
            return true;
        }
        if report.task != known {
            let later = report.restarts > binding.restarts;
            if !later || self.tasks.contains_key(&report.task) {
                return false;
            }
            self.succeed(known, report, time, out);
        } else if !self.observe(known, report, time, out) {
            return false;
        }
        self.settle(report, time, out);
        true
    }

    /// Makes the next try under a binding, and ends the one before if its end was not reported.
    fn succeed(&mut self, before: TaskId, report: &TaskReport, time: Timestamp, out: &mut Changes) {
        let entry = &self.tasks[&before];
        if !entry.task.observed.state.is_terminal() {
            let end = End {
                state: TaskState::Failed,
                message: "restarted by its agent",
                time,
            };
            self.end_task(before, &end);
        }
        let entry = &self.tasks[&before];
        let pinned = entry.pinned;
        let state = report.observed.state.max(TaskState::Assigned);
        let observed = Observed {
            state,
            message: cut(&report.observed.message),
            ..report.observed.clone()
        };
        let task = Task {
            id: report.task,
            binding: entry.task.binding.clone().map(|binding| Binding {
                restarts: report.restarts,
                ..binding
            }),
            observed,
            created: time,
            ..entry.task.clone()
        };
        let assignment = report.assignment;
        // The node's set names the newest try, but an agent that made it need not be told.
        let node = task.binding.as_ref().map(|binding| binding.node);
        out.bindings.extend(node.map(|node| (node, assignment)));
        self.assignments.insert(
            assignment,
            AssignmentEntry {
                task: report.task,
                restarting: false,
            },
        );
        let lane = entry.lane();
        self.insert_task(task, pinned, out);
        self.note_task(report.task, Some(EventKind::TaskRestarted), time);
        self.note_task(report.task, event_of(state), time);
        self.mark_healthy(report.task, time, Health::Unknown);
        self.trim_lane(lane);
    }

    /// Takes over what an agent says of a try that is known; returns whether it was legal.
    fn observe(
        &mut self,
        id: TaskId,
        report: &TaskReport,
        time: Timestamp,
        out: &mut Changes,
    ) -> bool {
        let entry = self.tasks.get_mut(&id).expect("the caller found it");
        let lane = entry.lane();
        let (before, seen) = (&mut entry.task.observed, &report.observed);
        let Ok(state) = before.state.step(seen.state) else {
            return false;
        };
        let moved = state != before.state;
        let late = seen.sequence < before.sequence;
        if late && !moved {
            return false;
        }
        let health = before.health;
        if !late {
            before.health = seen.health;
            before.sequence = seen.sequence;
        }
        before.state = state;
        before.pid = seen.pid;
        before.exit = seen.exit;
        // Why it was told to end is still why it ends.
        let told = entry.task.desired == Desired::Shutdown && !before.message.is_empty();
        if !told {
            before.message = cut(&seen.message);
        } else if seen.state == TaskState::Shutdown && !before.message.contains(&seen.message) {
            before.message = cut(&format!("{}; {}", before.message, seen.message));
        }
        if moved {
            before.since = seen.since;
            self.note_task(id, event_of(state), time);
        }
        self.mark_healthy(id, time, health);
        out.lanes.insert(lane);
        true
    }

    /// Says that a task's health flipped, and remembers that it was healthy once.
    fn mark_healthy(&mut self, id: TaskId, time: Timestamp, before: Health) {
        let entry = self.tasks.get_mut(&id).expect("the caller found it");
        let observed = &entry.task.observed;
        if observed.state != TaskState::Running || observed.health == before {
            return;
        }
        let kind = match observed.health {
            Health::Healthy => {
                entry.was_healthy = true;
                EventKind::TaskHealthy
            }
            Health::Unhealthy => EventKind::TaskUnhealthy,
            Health::Unknown | Health::Draining => return,
        };
        self.note_task(id, Some(kind), time);
    }

    /// Draws what follows from the newest try's state: the next try, or the end of the binding.
    fn settle(&mut self, report: &TaskReport, time: Timestamp, out: &mut Changes) {
        let entry = self.tasks.get_mut(&report.task).expect("just reported");
        let lane = entry.lane();
        let state = entry.task.observed.state;
        if !state.is_terminal() {
            if state == TaskState::Running
                && let Some(entry) = self.lanes.get_mut(&lane)
            {
                entry.rejections = 0;
            }
            return;
        }
        entry.ended.get_or_insert(time);
        entry.task.observed.pid = None;
        if entry.task.observed.health != Health::Unhealthy {
            entry.task.observed.health = Health::Unhealthy;
        }
        let wanted = entry.task.desired == Desired::Running;
        let by_itself = matches!(state, TaskState::Failed | TaskState::Complete);
        // A node that could not start it is not asked again: another may be able to.
        if report.will_restart && wanted && by_itself {
            if let Some(assignment) = self.assignments.get_mut(&report.assignment) {
                assignment.restarting = true;
            }
            return;
        }
        entry.finished = wanted && by_itself;
        if state == TaskState::Rejected
            && wanted
            && let Some(lane) = self.lanes.get_mut(&lane)
        {
            lane.rejections = lane.rejections.saturating_add(1);
        }
        self.vacate(report.task, out);
    }
}
