//! Requests that were sent and not yet answered.

use crate::plan::Pick;

/// No slot.
const NONE: u32 = u32::MAX;

/// One request in flight. Times are nanoseconds of the engine's clock.
#[derive(Debug, Clone, Copy)]
pub struct Flight {
    /// Unique in the run.
    pub number: u64,
    /// Which target and request.
    pub pick: Pick,
    /// Whether its answer has no body whatever it says.
    pub bodiless: bool,
    /// Whether it was taken back from a connection that was closed before it was sent.
    pub resent: bool,
    /// When it was due.
    pub due_ns: u64,
    /// When it was handed over to be sent.
    pub sent_ns: u64,
    /// Its bytes.
    pub sent_bytes: u64,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    flight: Flight,
    connection: u32,
    /// Sent before and after this one, over all connections.
    older: u32,
    newer: u32,
    /// Sent after this one on the same connection; of a free slot, the next free one.
    behind: u32,
}

#[derive(Debug, Clone, Copy)]
struct Line {
    first: u32,
    last: u32,
    count: u32,
}

/// All requests in flight: for each connection in the order in which they must be answered, and
/// over all of them in the order in which they were sent.
///
/// As every request may take equally long, the second order is that of their deadlines, too: the
/// one that is overdue first is always at its head, and no wheel or heap is needed. Memory is that
/// of the most that were ever in flight at a time.
#[derive(Debug)]
pub struct Flights {
    slots: Vec<Slot>,
    free: u32,
    oldest: u32,
    newest: u32,
    lines: Vec<Line>,
}

impl Flights {
    /// Returns the flights of this many connections: none.
    pub fn new(connections: usize) -> Self {
        let empty = Line {
            first: NONE,
            last: NONE,
            count: 0,
        };
        Self {
            slots: Vec::new(),
            free: NONE,
            oldest: NONE,
            newest: NONE,
            lines: vec![empty; connections],
        }
    }

    /// Returns whether nothing is in flight.
    pub fn is_empty(&self) -> bool {
        self.oldest == NONE
    }

    /// Returns how many are in flight on a connection.
    pub fn count(&self, connection: u32) -> u32 {
        self.lines[connection as usize].count
    }

    /// Adds one that was sent on `connection` now: no earlier than all others.
    pub fn push(&mut self, connection: u32, flight: Flight) {
        let slot = Slot {
            flight,
            connection,
            older: self.newest,
            newer: NONE,
            behind: NONE,
        };
        let at = match self.free {
            NONE => {
                self.slots.push(slot);
                u32::try_from(self.slots.len() - 1)
                    .expect("connections and their depths are limited far below 2^32")
            }
            free => {
                self.free = self.slots[free as usize].behind;
                self.slots[free as usize] = slot;
                free
            }
        };
        match self.newest {
            NONE => self.oldest = at,
            newest => self.slots[newest as usize].newer = at,
        }
        self.newest = at;
        let line = &mut self.lines[connection as usize];
        match line.last {
            NONE => line.first = at,
            last => self.slots[last as usize].behind = at,
        }
        line.last = at;
        line.count += 1;
    }

    /// Returns the one that is to be answered next on `connection`.
    pub fn front(&self, connection: u32) -> Option<&Flight> {
        let first = self.lines[connection as usize].first;
        Some(&self.slots.get(first as usize)?.flight)
    }

    /// Takes it.
    pub fn pop(&mut self, connection: u32) -> Option<Flight> {
        let line = &mut self.lines[connection as usize];
        let at = line.first;
        let slot = *self.slots.get(at as usize)?;
        line.first = slot.behind;
        line.count -= 1;
        if line.first == NONE {
            line.last = NONE;
        }
        match slot.older {
            NONE => self.oldest = slot.newer,
            older => self.slots[older as usize].newer = slot.newer,
        }
        match slot.newer {
            NONE => self.newest = slot.older,
            newer => self.slots[newer as usize].older = slot.older,
        }
        self.slots[at as usize].behind = self.free;
        self.free = at;
        Some(slot.flight)
    }

    /// Returns the connection of the one that was sent first of all, and when that was.
    pub fn oldest(&self) -> Option<(u32, u64)> {
        let slot = self.slots.get(self.oldest as usize)?;
        Some((slot.connection, slot.flight.sent_ns))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    fn flight(number: u64) -> Flight {
        Flight {
            number,
            pick: Pick {
                target: 0,
                request: 0,
            },
            bodiless: false,
            resent: false,
            due_ns: 0,
            sent_ns: number,
            sent_bytes: 0,
        }
    }

    proptest! {
        #[test]
        fn prop_both_orders_are_those_of_plain_queues(
            steps in prop::collection::vec((0_u32..4, any::<bool>()), 0..200),
        ) {
            let mut flights = Flights::new(4);
            let mut model: VecDeque<(u32, u64)> = VecDeque::new();
            for (number, (connection, push)) in (0..).zip(steps) {
                if push {
                    flights.push(connection, flight(number));
                    model.push_back((connection, number));
                } else {
                    let at = model.iter().position(|(of, _)| *of == connection);
                    let expected = at.and_then(|at| model.remove(at)).map(|(_, number)| number);
                    let front = flights.front(connection).map(|flight| flight.number);
                    prop_assert_eq!(front, expected);
                    prop_assert_eq!(flights.pop(connection).map(|it| it.number), expected);
                }
                prop_assert_eq!(flights.oldest(), model.front().copied());
                prop_assert_eq!(flights.is_empty(), model.is_empty());
                let count = model.iter().filter(|(of, _)| *of == connection).count();
                prop_assert_eq!(flights.count(connection) as usize, count);
            }
        }
    }
}
