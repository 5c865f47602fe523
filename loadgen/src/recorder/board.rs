//! What those who look on while a run goes on can see of it.

use std::sync::{Arc, Mutex, PoisonError};

use super::Counts;
use super::cells::Cells;
use super::series::{Point, Series};

/// Seconds of a lane that nobody has looked at; older ones are put together.
const MAX_UNSEEN: usize = 128;

#[derive(Debug, Default)]
struct Slot {
    counts: Counts,
    unseen: Vec<(u64, Point)>,
}

/// Where lanes put what they have measured, about ten times a second.
///
/// A lane never waits here: if somebody looks at its place just then, it comes back at the next
/// tick. Several may look on: they share what was seen.
#[derive(Debug)]
pub struct Board {
    lanes: Vec<Mutex<Slot>>,
    seen: Mutex<Seen>,
}

/// Everything that was seen on a [`Board`] so far.
#[derive(Debug, Default)]
pub struct Seen {
    /// Of all lanes, as of their last ticks.
    pub counts: Counts,
    /// Of all lanes, whole seconds.
    pub series: Series,
    /// Their latencies, of the whole run.
    pub latency: Cells,
    /// Of all of these together.
    pub latency_sum_ns: u64,
}

impl Board {
    /// Returns a board with a place for each of `lanes`.
    pub fn new(lanes: usize) -> Arc<Self> {
        Arc::new(Self {
            lanes: (0..lanes).map(|_| Mutex::default()).collect(),
            seen: Mutex::default(),
        })
    }

    /// Shows `onlooker` everything that has come so far; returns what it says.
    pub fn look<T>(&self, onlooker: impl FnOnce(&Seen) -> T) -> T {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.counts = Counts::default();
        let mut fresh = Vec::new();
        for lane in &self.lanes {
            let mut slot = lane.lock().unwrap_or_else(PoisonError::into_inner);
            seen.counts.add(&slot.counts);
            fresh.append(&mut slot.unseen);
        }
        // Lanes put their seconds side by side, also where one is a second ahead.
        for (second, point) in &fresh {
            let mut alone = Series::new();
            alone.push(*second, point);
            seen.series.merge(&alone);
            seen.latency.merge(&point.cells);
            seen.latency_sum_ns = seen.latency_sum_ns.saturating_add(point.latency_sum_ns);
        }
        onlooker(&seen)
    }

    /// Takes out what has come since the last call, for whoever shows it elsewhere: all lanes'
    /// counts, and the seconds that are over.
    pub(crate) fn take(&self) -> (Counts, Vec<(u64, Point)>) {
        let mut counts = Counts::default();
        let mut fresh = Vec::new();
        for lane in &self.lanes {
            let mut slot = lane.lock().unwrap_or_else(PoisonError::into_inner);
            counts.add(&slot.counts);
            fresh.append(&mut slot.unseen);
        }
        (counts, fresh)
    }

    /// Takes a lane's news, unless somebody looks just now; `fresh` is empty afterwards, then.
    pub(crate) fn put(&self, lane: usize, counts: &Counts, fresh: &mut Vec<(u64, Point)>) {
        let Some(Ok(mut slot)) = self.lanes.get(lane).map(Mutex::try_lock) else {
            return;
        };
        slot.counts.clone_from(counts);
        slot.unseen.append(fresh);
        while slot.unseen.len() > MAX_UNSEEN {
            let (_, first) = slot.unseen.remove(0);
            slot.unseen[0].1.then(&first);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn onlooker_sees_all_lanes_and_each_second_once() {
        let board = Board::new(2);
        let point = Point {
            done: 5,
            ..Point::default()
        };
        let counts = Counts {
            done: 7,
            ..Counts::default()
        };
        for lane in 0..2 {
            board.put(
                lane,
                &counts,
                &mut vec![(0, point.clone()), (1, point.clone())],
            );
        }
        board.look(|_| {});
        let (all, done) = board.look(|seen| {
            let points = seen.series.points().iter();
            (
                seen.counts.done,
                points.map(|point| point.done).collect::<Vec<_>>(),
            )
        });
        assert_eq!(all, 14);
        assert_eq!(done, [10, 10]);
    }

    #[test]
    fn lane_does_not_wait_for_an_onlooker_and_brings_its_news_later() {
        let board = Board::new(1);
        let mut fresh = vec![(0, Point::default())];
        let looking = board.lanes[0].lock().expect("locks");
        board.put(0, &Counts::default(), &mut fresh);
        assert_eq!(fresh.len(), 1);
        drop(looking);
        board.put(0, &Counts::default(), &mut fresh);
        assert!(fresh.is_empty());
    }

    #[test]
    fn board_that_nobody_looks_at_stays_small() {
        let board = Board::new(1);
        for second in 0..1000 {
            let point = Point {
                done: 1,
                ..Point::default()
            };
            board.put(0, &Counts::default(), &mut vec![(second, point)]);
        }
        let slot = board.lanes[0].lock().expect("locks");
        assert_eq!(slot.unseen.len(), MAX_UNSEEN);
        assert_eq!(slot.unseen.iter().map(|(_, p)| p.done).sum::<u64>(), 1000);
    }
}
