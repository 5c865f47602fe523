//! What one lane needs: a pure look at its tasks.
//!
//! | what lives in the lane | what is done |
//! | --- | --- |
//! | nothing, and nobody gave up | a task is made, after a backoff if nodes rejected the last ones |
//! | nothing, and the last one completed or its restarts are used up | nothing |
//! | good ones | the best stays; once it is running and healthy, all others stop |
//! | only ones on drained nodes, or on their way to another | a replacement is made first (or the old one stopped first, if the service asked for that) |
//! | only ones of an older template | the rolling update decides when |
//!
//! A task is *good* if it has the newest template, and its node is neither drained nor has a
//! `NoExecute` taint that it does not bear: such nodes count as drained for it.

use ballast_model::{
    Availability, Desired, NodeId, NodeStatus, TaskId, TaskState, Timestamp, UpdateOrder,
};

use crate::state::{Lane, NodeEntry, Service, State, TaskEntry, Update};
use crate::views::{expelling, is_welcome, wants_global};

use super::moves::is_ready;

/// Rejections in a row after which a rolling update counts the new task as failed: one can be a
/// port that a stranger holds.
const REJECTIONS_FAIL_UPDATE: u32 = 3;

/// Why a task leaves a node with a taint that expels it.
const TAINTED: &str = "its node has a NoExecute taint that it does not bear";

/// What a lane needs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Tasks to end, with the reason.
    pub stop: Vec<(TaskId, &'static str)>,
    /// Tasks to end before their successor runs, once there is a place for it.
    pub vacate: Vec<(TaskId, &'static str)>,
    /// A task that waits for a node.
    pub place: Option<TaskId>,
    /// Whether a task is to be made.
    pub fill: Fill,
    /// Where it stands in a rolling update.
    pub standing: Standing,
    /// A task of the newest template failed before it was healthy: why.
    pub failed: Option<String>,
}

/// Whether a task is to be made for a lane.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Fill {
    /// No.
    #[default]
    Not,
    /// At once; of a job as soon as its parallelism allows.
    Now,
    /// Not before this moment.
    At(Timestamp),
}

/// Where a lane stands in a rolling update.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Standing {
    /// Runs the newest template, or has nothing to do with the update.
    #[default]
    Done,
    /// Is being replaced.
    Active,
    /// Waits for its turn.
    Stale,
}

/// The tasks that are to run in a lane, by what they are worth.
struct Occupants<'a> {
    good: Vec<&'a TaskEntry>,
    leaving: Vec<&'a TaskEntry>,
    stale: Vec<&'a TaskEntry>,
    stopping: bool,
    /// Why those that leave do.
    why: Leave,
}

/// Why a task leaves its node, and what is said of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leave {
    Drained,
    Tainted,
    Moved,
}

impl Leave {
    const fn first(self) -> &'static str {
        match self {
            Self::Drained => "its node is drained",
            Self::Tainted => TAINTED,
            Self::Moved => "moves to another node",
        }
    }

    const fn replaced(self) -> &'static str {
        match self {
            Self::Drained => "replaced: its node is drained",
            Self::Tainted => "replaced: its node has a NoExecute taint that it does not bear",
            Self::Moved => "replaced: moved to another node",
        }
    }
}

/// Returns what a lane needs now; `moving` is a task of it that is on its way to another node.
pub(super) fn judge(
    state: &State,
    service: &Service,
    lane: Lane,
    moving: Option<TaskId>,
    now: Timestamp,
) -> Verdict {
    let mut verdict = Verdict::default();
    let occupants = sort(state, service, lane, moving, &mut verdict);
    if let Some(reason) = unwanted(state, service, lane) {
        let all = [&occupants.good, &occupants.leaving, &occupants.stale];
        for entry in all.into_iter().flatten() {
            verdict.stop.push((entry.task.id, reason));
        }
        return verdict;
    }
    verdict.failed = update_failure(state, service, lane);
    if !occupants.good.is_empty() {
        keep_best(state, service, lane, &occupants, &mut verdict);
    } else if !occupants.leaving.is_empty() {
        move_away(service, &occupants, &mut verdict);
    } else if !occupants.stale.is_empty() {
        let updating = matches!(service.update, Update::Running { .. });
        if updating && !has_finished(state, service, lane) {
            verdict.standing = Standing::Stale;
        }
    } else {
        refill(state, service, lane, &occupants, now, &mut verdict);
    }
    verdict
}

/// Returns why a lane is not to be filled, if it is not.
fn unwanted(state: &State, service: &Service, lane: Lane) -> Option<&'static str> {
    if !service.wants(lane) {
        return Some("no longer wanted");
    }
    let node = state.node(lane.pinned?);
    match node {
        None => Some("its node was removed"),
        Some(node) if node.node.status == NodeStatus::Down => Some("its node is down"),
        Some(node) if node.node.availability == Availability::Drain => Some("its node is drained"),
        Some(node) if expelling(service, &node.node).is_some() => Some(TAINTED),
        Some(node) if !wants_global(service, node) => {
            Some("its node does not meet the constraints")
        }
        Some(_) => None,
    }
}

fn sort<'a>(
    state: &'a State,
    service: &Service,
    lane: Lane,
    moving: Option<TaskId>,
    verdict: &mut Verdict,
) -> Occupants<'a> {
    let mut occupants = Occupants {
        good: Vec::new(),
        leaving: Vec::new(),
        stale: Vec::new(),
        stopping: false,
        why: Leave::Drained,
    };
    for entry in state.lane(lane).filter(|entry| state.occupies(entry)) {
        let stale = entry.task.generation != service.template;
        if entry.task.desired == Desired::Shutdown {
            occupants.stopping = true;
        } else if stale && entry.task.binding.is_none() {
            // Nobody runs it: there is nothing to wait for.
            verdict
                .stop
                .push((entry.task.id, "replaced by a newer version"));
        } else if let Some(why) = leaving(state, service, entry) {
            occupants.why = why;
            occupants.leaving.push(entry);
        } else if moving == Some(entry.task.id) {
            occupants.why = Leave::Moved;
            occupants.leaving.push(entry);
        } else if stale {
            occupants.stale.push(entry);
        } else {
            occupants.good.push(entry);
        }
    }
    occupants
}

/// Returns why a task has to leave its node, if it has. Pinned tasks do not move: their lane is unwanted.
fn leaving(state: &State, service: &Service, entry: &TaskEntry) -> Option<Leave> {
    if entry.pinned.is_some() {
        return None;
    }
    let node = &state.node(entry.task.binding.as_ref()?.node)?.node;
    if node.availability == Availability::Drain {
        return Some(Leave::Drained);
    }
    expelling(service, node).map(|_| Leave::Tainted)
}

fn keep_best(
    state: &State,
    service: &Service,
    lane: Lane,
    occupants: &Occupants<'_>,
    verdict: &mut Verdict,
) {
    // The oldest of equals: after a drain that was taken back, the one that has served all along.
    let worth = |entry: &&&TaskEntry| (is_ready(entry), entry.task.observed.state);
    let best = occupants.good.iter().rev().max_by_key(worth);
    let Some(best) = best else {
        return;
    };
    for entry in &occupants.good {
        if entry.task.id != best.task.id {
            verdict.stop.push((entry.task.id, "its slot is filled"));
        }
    }
    if is_ready(best) {
        for entry in &occupants.leaving {
            verdict.stop.push((entry.task.id, occupants.why.replaced()));
        }
        for entry in &occupants.stale {
            verdict
                .stop
                .push((entry.task.id, "replaced by a newer version"));
        }
        return;
    }
    if best.task.binding.is_none() {
        verdict.place = Some(best.task.id);
    }
    // A lane that never ran an older template was added meanwhile, and the update does not wait
    // for it.
    let older = state
        .lane(lane)
        .any(|entry| entry.task.generation != service.template);
    if older && matches!(service.update, Update::Running { .. }) && verdict.failed.is_none() {
        verdict.standing = Standing::Active;
    }
}

/// Another node takes it over, where a fixed port is no obstacle: only who asked for stop-first
/// cannot run twice.
fn move_away(service: &Service, occupants: &Occupants<'_>, verdict: &mut Verdict) {
    match service.spec.update.order {
        UpdateOrder::StartFirst => verdict.fill = Fill::Now,
        UpdateOrder::StopFirst => {
            for entry in occupants.leaving.iter().chain(&occupants.stale) {
                verdict.vacate.push((entry.task.id, occupants.why.first()));
            }
        }
    }
}

fn refill(
    state: &State,
    service: &Service,
    lane: Lane,
    occupants: &Occupants<'_>,
    now: Timestamp,
    verdict: &mut Verdict,
) {
    let updating = matches!(service.update, Update::Running { .. });
    let closed = |id| {
        let takes =
            |node: &NodeEntry| node.node.is_schedulable() && is_welcome(service, &node.node);
        !state.node(id).is_some_and(takes)
    };
    if lane.pinned.is_some_and(closed) {
        // Paused or silent: what would be made could only wait. A change of the node comes here.
        return;
    }
    // Two that cannot run at once: the next one waits for the end of the last.
    if occupants.stopping && service.order() == UpdateOrder::StopFirst {
        if updating {
            verdict.standing = Standing::Active;
        }
        return;
    }
    let newest = state.lane(lane).next_back();
    if let Some(newest) = newest
        && newest.finished
    {
        let current = newest.task.generation == service.template;
        let completed = newest.task.observed.state == TaskState::Complete;
        if current || completed && service.is_job() {
            return;
        }
        // A newer template is a new chance, in its turn if there are turns.
        match service.update {
            Update::Running { .. } => {
                verdict.standing = Standing::Stale;
                return;
            }
            Update::Paused { .. } => return,
            Update::Completed => {}
        }
    }
    if updating && newest.is_some_and(|entry| entry.task.generation != service.template) {
        verdict.standing = Standing::Active;
    }
    verdict.fill = match newest.and_then(|newest| retry_at(state, service, lane, newest)) {
        // A clock that was set back does not make a wait longer than it was meant to be.
        Some((ended, due)) if now >= ended && now < due => Fill::At(due),
        _ => Fill::Now,
    };
}

/// Returns when a lane whose last task was rejected was left, and when it may be tried again.
fn retry_at(
    state: &State,
    service: &Service,
    lane: Lane,
    newest: &TaskEntry,
) -> Option<(Timestamp, Timestamp)> {
    let ended = newest.ended?;
    let rejections = state.lane_entry(lane)?.rejections;
    if newest.task.observed.state != TaskState::Rejected {
        return None;
    }
    let wait = service.spec.task.restart.delay_before(rejections);
    Some((ended, ended.saturating_add(wait)))
}

/// Returns whether a task of the newest template has ended for good in this lane.
fn has_finished(state: &State, service: &Service, lane: Lane) -> bool {
    state
        .lane(lane)
        .any(|entry| entry.finished && entry.task.generation == service.template)
}

/// Returns why the newest template failed in this lane, if it did before it was ever healthy.
fn update_failure(state: &State, service: &Service, lane: Lane) -> Option<String> {
    if !matches!(service.update, Update::Running { .. }) {
        return None;
    }
    let rejections = state.lane_entry(lane).map_or(0, |entry| entry.rejections);
    let failed = state.lane(lane).find(|entry| {
        let bad = match entry.task.observed.state {
            TaskState::Failed => true,
            TaskState::Rejected => rejections >= REJECTIONS_FAIL_UPDATE,
            _ => false,
        };
        bad && entry.task.generation == service.template
            && entry.task.desired == Desired::Running
            && !entry.was_healthy
    })?;
    let observed = &failed.task.observed;
    Some(format!(
        "task {} in slot {} {}: {}",
        failed.task.id, lane.slot, observed.state, observed.message
    ))
}

/// Returns the nodes on which the last tries in a lane were rejected, or ended by an agent that
/// stops: it would be asked to start what it has just stopped.
pub(super) fn refused_on(state: &State, lane: Lane) -> Vec<NodeId> {
    let refused = |entry: &&TaskEntry| match entry.task.observed.state {
        TaskState::Rejected => true,
        TaskState::Shutdown => entry.task.desired == Desired::Running,
        _ => false,
    };
    state
        .lane(lane)
        .rev()
        .skip_while(|entry| entry.task.binding.is_none())
        .take_while(refused)
        .filter_map(|entry| entry.task.binding.as_ref().map(|binding| binding.node))
        .collect()
}
