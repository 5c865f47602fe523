//! The log of what happened, bounded.

use std::collections::VecDeque;

use ballast_model::{Event, limits};
use serde::{Deserialize, Serialize};

/// The newest [`limits::EVENTS`] events; older ones are dropped.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EventLog {
    events: VecDeque<Event>,
    last: u64,
}

impl EventLog {
    /// Returns the index of the newest event; 0 if there was none yet.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Returns the events after an index, oldest first.
    pub fn after(&self, index: u64) -> impl Iterator<Item = &Event> {
        // Indices are consecutive, so that the place follows from the index.
        let first = self.last - self.events.len() as u64;
        let skip = usize::try_from(index.saturating_sub(first)).unwrap_or(usize::MAX);
        self.events.iter().skip(skip)
    }

    /// Appends an event and gives it its index.
    pub(super) fn push(&mut self, mut event: Event) {
        self.last += 1;
        event.index = self.last;
        if self.events.len() >= limits::EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }
}
