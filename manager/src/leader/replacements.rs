//! Measures how long a task that ended leaves its place empty, from what happened.

use std::collections::HashMap;
use std::sync::Arc;

use ballast_model::{Event, EventKind, TaskId, Timestamp};

use super::LeaderContext;
use crate::state::{Lane, State};

/// Places that are empty at a time; past it further ones are not measured.
const EMPTY_LANES: usize = 65_536;
/// Tasks whose place is remembered for one pass.
const EVENTS: usize = 1024;

/// Follows the events of this leadership and observes the metric.
pub(super) async fn measure(leader: Arc<LeaderContext>) {
    let mut applied = leader.replica.applied();
    let mut after = leader.replica.read().events().last();
    let mut empty: HashMap<Lane, Timestamp> = HashMap::new();
    loop {
        applied.borrow_and_update();
        {
            let state = leader.replica.read();
            let events = state.events().after(after).take(EVENTS);
            for event in events {
                after = event.index;
                if let Some(span) = take_note(&state, &mut empty, event) {
                    leader.metrics.replaced(span.to_duration());
                }
            }
            if after < state.events().last() {
                continue;
            }
        }
        if applied.changed().await.is_err() {
            return;
        }
    }
}

/// Returns how long a place was empty, if this event fills it.
fn take_note(
    state: &State,
    empty: &mut HashMap<Lane, Timestamp>,
    event: &Event,
) -> Option<ballast_model::Millis> {
    let lane = |task: TaskId| Some(state.task(task)?.lane());
    match event.kind {
        EventKind::TaskFailed | EventKind::TaskLost | EventKind::TaskRejected => {
            if empty.len() < EMPTY_LANES {
                empty.entry(lane(event.task?)?).or_insert(event.time);
            }
            None
        }
        EventKind::TaskRunning => {
            let since = empty.remove(&lane(event.task?)?)?;
            Some(event.time.since(since))
        }
        EventKind::ServiceRemoved => {
            empty.retain(|lane, _| Some(lane.service) != event.service);
            None
        }
        _ => None,
    }
}
