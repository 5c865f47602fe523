//! Who has which places in the maps.

use std::collections::{BTreeMap, BTreeSet};

/// Spans of an array, each somebody's.
#[derive(Debug)]
pub(super) struct Spans {
    length: u32,
    /// Where each begins, and how long it is.
    used: BTreeMap<u32, u32>,
}

impl Spans {
    pub(super) fn new(length: usize) -> Self {
        Self {
            length: u32::try_from(length).unwrap_or(u32::MAX),
            used: BTreeMap::new(),
        }
    }

    /// Notes a span that is somebody's already.
    pub(super) fn keep(&mut self, start: u32, length: u32) {
        self.used.insert(start, length);
    }

    /// Returns where `length` free places begin, and takes them.
    pub(super) fn take(&mut self, length: u32) -> Option<u32> {
        let mut start = 0;
        for (&begin, &taken) in &self.used {
            if begin.checked_sub(start)? >= length {
                break;
            }
            start = begin + taken;
        }
        if start.checked_add(length)? > self.length {
            return None;
        }
        self.used.insert(start, length);
        Some(start)
    }

    pub(super) fn give_back(&mut self, start: u32) {
        self.used.remove(&start);
    }
}

/// Single places of an array.
#[derive(Debug)]
pub(super) struct Places {
    next: u32,
    end: u32,
    free: BTreeSet<u32>,
}

impl Places {
    /// Makes one of the places from `first` up to `end`.
    pub(super) fn new(first: u32, end: u32) -> Self {
        Self {
            next: first,
            end,
            free: BTreeSet::new(),
        }
    }

    /// Notes a place that is somebody's already.
    pub(super) fn keep(&mut self, place: u32) {
        while self.next <= place {
            self.free.insert(self.next);
            self.next += 1;
        }
        self.free.remove(&place);
    }

    pub(super) fn take(&mut self) -> Option<u32> {
        if let Some(place) = self.free.pop_first() {
            return Some(place);
        }
        let place = self.next;
        (place < self.end).then(|| self.next += 1)?;
        Some(place)
    }

    pub(super) fn give_back(&mut self, place: u32) {
        self.free.insert(place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_fill_the_gaps_that_others_left() {
        let mut spans = Spans::new(10);
        assert_eq!(spans.take(4), Some(0));
        assert_eq!(spans.take(4), Some(4));
        assert_eq!(spans.take(4), None);
        spans.give_back(0);
        assert_eq!(spans.take(3), Some(0));
        assert_eq!(spans.take(2), Some(8));
        assert_eq!(spans.take(1), Some(3));
        assert_eq!(spans.take(1), None);
    }

    #[test]
    fn places_that_are_kept_are_not_given_away() {
        let mut places = Places::new(1, 6);
        places.keep(3);
        let all: Vec<u32> = std::iter::from_fn(|| places.take()).collect();
        assert_eq!(all, [1, 2, 4, 5]);
        places.give_back(4);
        assert_eq!(places.take(), Some(4));
    }
}
