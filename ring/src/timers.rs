//! Timers: a hierarchical wheel.
//!
//! Most timers are timeouts that are disarmed again, so both arming and disarming take constant
//! time and leave nothing behind; a heap with lazy deletion would hold every timeout of the last
//! seconds. Six bits a level, the lowest slot is [`TICK`] wide, and each slot knows a lower bound
//! of its earliest time, so that no turn ends only in order to move timers down a level.

use std::time::{Duration, Instant};

use crate::token::{Timer, Token};

/// Nanoseconds of a tick, as a power of two: 1.024 µs.
const TICK_BITS: u32 = 10;
/// Slots of a level, as a power of two.
const LEVEL_BITS: u32 = 6;
const SLOTS: usize = 1 << LEVEL_BITS;
/// 2^42 ticks are 52 days.
const LEVELS: usize = 7;
/// Later timers are placed so far ahead, half a turn of the highest level, and looked at then.
const HORIZON: u64 = 1 << (LEVEL_BITS as usize * LEVELS - 1);
/// No node.
const NONE: u32 = u32::MAX;

/// What a timer is for.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Alarm {
    /// The user's key.
    User(u64),
    /// A listener tries again.
    Accept(Token),
    /// A socket that closes once its queue is sent takes too long.
    Farewell(Token),
}

/// Where a node is.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Place {
    Free,
    /// In a list of the wheel.
    Slot {
        level: u8,
        slot: u8,
    },
    /// Expired, and not yet told.
    Due,
}

#[derive(Debug)]
struct Node {
    generation: u32,
    place: Place,
    /// Nanoseconds since the start.
    at: u64,
    /// Which of those for the same time was armed first.
    order: u64,
    alarm: Alarm,
    before: u32,
    /// The next in the list, or the next free one.
    after: u32,
}

impl Node {
    fn due(&mut self, index: u32) -> Due {
        self.place = Place::Due;
        let timer = Timer {
            index,
            generation: self.generation,
        };
        (self.at, self.order, timer)
    }
}

/// Time and order of a timer that has expired.
type Due = (u64, u64, Timer);

#[derive(Debug)]
struct Level {
    /// A bit for each slot that is not empty.
    occupied: u64,
    heads: [u32; SLOTS],
    /// No timer of the slot is earlier.
    earliest: [u64; SLOTS],
}

impl Level {
    /// Returns the first node of the slot, which has none now.
    fn empty(&mut self, slot: usize) -> u32 {
        self.occupied &= !(1 << slot);
        self.earliest[slot] = u64::MAX;
        std::mem::replace(&mut self.heads[slot], NONE)
    }
}

/// The timers of a ring.
#[derive(Debug)]
pub(crate) struct Timers {
    start: Instant,
    /// The tick up to which everything has expired.
    elapsed: u64,
    levels: Vec<Level>,
    nodes: Vec<Node>,
    free: u32,
    armed: usize,
    /// What has expired, the latest first.
    due: Vec<Due>,
    /// Armed for a time that had passed: expires in the next turn.
    late: Vec<Due>,
    /// Nodes that are taken out of one slot and wait for another.
    again: Vec<u32>,
    /// How many were ever armed.
    order: u64,
}

impl Timers {
    pub fn new(start: Instant) -> Timers {
        let level = || Level {
            occupied: 0,
            heads: [NONE; SLOTS],
            earliest: [u64::MAX; SLOTS],
        };
        Timers {
            start,
            elapsed: 0,
            levels: std::iter::repeat_with(level).take(LEVELS).collect(),
            nodes: Vec::new(),
            free: NONE,
            armed: 0,
            due: Vec::new(),
            late: Vec::new(),
            again: Vec::new(),
            order: 0,
        }
    }

    fn nanos(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.start).as_nanos();
        u64::try_from(since).unwrap_or(u64::MAX)
    }

    pub fn arm(&mut self, at: Instant, alarm: Alarm) -> Timer {
        let at = self.nanos(at);
        let timer = self.node(at, alarm);
        self.armed += 1;
        self.place(timer.index);
        timer
    }

    /// Returns whether the timer was armed; it is not any more.
    pub fn disarm(&mut self, timer: Timer) -> bool {
        let Some(node) = self.nodes.get(timer.index as usize) else {
            return false;
        };
        if node.generation != timer.generation || node.place == Place::Free {
            return false;
        }
        if let Place::Slot { level, slot } = node.place {
            self.unlink(timer.index, level, slot);
        }
        self.release(timer.index);
        true
    }

    /// Returns when the next timer expires.
    pub fn next(&self) -> Option<Instant> {
        if self.armed == 0 {
            return None;
        }
        if !self.due.is_empty() || !self.late.is_empty() {
            return Some(self.start);
        }
        let (level, slot) = self.first()?;
        let earliest = self.levels[level].earliest[slot];
        self.start.checked_add(Duration::from_nanos(earliest))
    }

    /// Collects what has expired by `now`.
    pub fn expire(&mut self, now: Instant) {
        let now = self.nanos(now);
        if self.armed > 0 {
            self.due.append(&mut self.late);
            while let Some((level, slot)) = self.first() {
                if self.levels[level].earliest[slot] > now {
                    break;
                }
                self.open(level, slot, now);
            }
        }
        self.advance(now >> TICK_BITS);
        // The earliest is taken first, from the back.
        self.due
            .sort_unstable_by_key(|&(at, order, _)| std::cmp::Reverse((at, order)));
    }

    /// Moves on to `tick`, before which nothing is left, and brings down what has come near.
    fn advance(&mut self, tick: u64) {
        self.elapsed = self.elapsed.max(tick);
        if self.armed == 0 {
            return;
        }
        for level in 1..LEVELS {
            let slot = slot_of(self.elapsed, index_bits(level)) as usize;
            if self.levels[level].occupied & 1 << slot != 0 {
                self.open(level, slot, 0);
            }
        }
        let mut again = std::mem::take(&mut self.again);
        for index in again.drain(..) {
            self.place(index);
        }
        self.again = again;
    }

    /// Returns what expired and was not told nor disarmed, the earliest first.
    pub fn pop(&mut self) -> Option<Alarm> {
        while let Some((_, _, timer)) = self.due.pop() {
            let node = &self.nodes[timer.index as usize];
            if node.generation == timer.generation && node.place == Place::Due {
                let alarm = node.alarm;
                self.release(timer.index);
                return Some(alarm);
            }
        }
        None
    }

    /// Returns the slot of the wheel that holds the next timer.
    ///
    /// Lower levels come first, for a timer is only in a higher one if it is beyond all of these.
    fn first(&self) -> Option<(usize, usize)> {
        self.levels.iter().enumerate().find_map(|(index, level)| {
            if level.occupied == 0 {
                return None;
            }
            let shift = index_bits(index);
            let current = slot_of(self.elapsed, shift);
            let ahead = level.occupied.rotate_right(current);
            let slot = (ahead.trailing_zeros() + current) as usize % SLOTS;
            Some((index, slot))
        })
    }

    /// Empties a slot: what has expired by `now` is due, the rest is placed again.
    fn open(&mut self, level: usize, slot: usize, now: u64) {
        let mut index = self.levels[level].empty(slot);
        while index != NONE {
            let node = &mut self.nodes[index as usize];
            let after = node.after;
            if node.at <= now {
                self.due.push(node.due(index));
            } else {
                self.again.push(index);
            }
            index = after;
        }
    }

    /// Puts a node into the wheel, or among the late ones.
    fn place(&mut self, index: u32) {
        let node = &mut self.nodes[index as usize];
        let tick = node.at >> TICK_BITS;
        if tick < self.elapsed {
            self.late.push(node.due(index));
            return;
        }
        let when = tick.min(self.elapsed + HORIZON);
        let level = level_of(self.elapsed, when);
        let slot = slot_of(when, index_bits(level)) as usize;
        node.place = Place::Slot {
            level: u8::try_from(level).expect("seven levels"),
            slot: u8::try_from(slot).expect("64 slots"),
        };
        let wheel = &mut self.levels[level];
        let head = std::mem::replace(&mut wheel.heads[slot], index);
        wheel.occupied |= 1 << slot;
        // One that is placed short of its time is looked at then, not later.
        let bound = node.at.min((when + 1) << TICK_BITS);
        wheel.earliest[slot] = wheel.earliest[slot].min(bound);
        node.before = NONE;
        node.after = head;
        if head != NONE {
            self.nodes[head as usize].before = index;
        }
    }

    fn unlink(&mut self, index: u32, level: u8, slot: u8) {
        let (level, slot) = (usize::from(level), usize::from(slot));
        let Node { before, after, .. } = self.nodes[index as usize];
        if after != NONE {
            self.nodes[after as usize].before = before;
        }
        if before != NONE {
            self.nodes[before as usize].after = after;
            return;
        }
        let wheel = &mut self.levels[level];
        wheel.heads[slot] = after;
        if after == NONE {
            wheel.empty(slot);
        }
    }

    fn node(&mut self, at: u64, alarm: Alarm) -> Timer {
        self.order += 1;
        let order = self.order;
        if self.free == NONE {
            let index = u32::try_from(self.nodes.len()).expect("fewer than 2^32 timers");
            self.nodes.push(Node {
                generation: 0,
                place: Place::Due,
                at,
                order,
                alarm,
                before: NONE,
                after: NONE,
            });
            return Timer {
                index,
                generation: 0,
            };
        }
        let index = self.free;
        let node = &mut self.nodes[index as usize];
        self.free = node.after;
        node.at = at;
        node.order = order;
        node.alarm = alarm;
        Timer {
            index,
            generation: node.generation,
        }
    }

    fn release(&mut self, index: u32) {
        let node = &mut self.nodes[index as usize];
        node.generation = node.generation.wrapping_add(1);
        node.place = Place::Free;
        node.after = self.free;
        self.free = index;
        self.armed -= 1;
    }
}

fn index_bits(level: usize) -> u32 {
    LEVEL_BITS * u32::try_from(level).expect("seven levels")
}

fn slot_of(tick: u64, shift: u32) -> u32 {
    u32::try_from(tick >> shift & (SLOTS as u64 - 1)).expect("six bits")
}

/// Returns the lowest level on which `when` is within one turn.
fn level_of(elapsed: u64, when: u64) -> usize {
    let differs = (elapsed ^ when) | (SLOTS as u64 - 1);
    ((differs.ilog2() / LEVEL_BITS) as usize).min(LEVELS - 1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn user(alarm: Alarm) -> u64 {
        match alarm {
            Alarm::User(key) => key,
            Alarm::Accept(_) | Alarm::Farewell(_) => {
                unreachable!("only users' timers are armed here")
            }
        }
    }

    fn all(timers: &mut Timers) -> Vec<u64> {
        std::iter::from_fn(|| timers.pop()).map(user).collect()
    }

    #[test]
    fn disarmed_timer_leaves_nothing_behind() {
        let start = Instant::now();
        let mut timers = Timers::new(start);
        for round in 0..10_000 {
            let timer = timers.arm(start + Duration::from_secs(30), Alarm::User(round));
            assert!(timers.disarm(timer));
            assert!(!timers.disarm(timer));
        }
        assert_eq!(timers.nodes.len(), 1);
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn disarmed_by_an_earlier_one_of_the_same_batch_is_not_told() {
        let start = Instant::now();
        let mut timers = Timers::new(start);
        timers.arm(start + Duration::from_nanos(10), Alarm::User(1));
        let second = timers.arm(start + Duration::from_nanos(20), Alarm::User(2));
        timers.expire(start + Duration::from_millis(1));
        assert_eq!(timers.pop(), Some(Alarm::User(1)));
        assert!(timers.disarm(second));
        assert_eq!(timers.pop(), None);
    }

    #[test]
    fn timer_beyond_the_horizon_expires_in_its_time() {
        let start = Instant::now();
        let day = Duration::from_hours(24);
        let mut timers = Timers::new(start);
        timers.arm(start + 400 * day, Alarm::User(1));
        for days in 1..400 {
            timers.expire(start + days * day);
            assert_eq!(timers.pop(), None, "day {days}");
        }
        timers.expire(start + 400 * day);
        assert_eq!(timers.pop(), Some(Alarm::User(1)));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Arm { ahead: u64 },
        Disarm { which: usize },
        Pass { nanos: u64 },
        PassToNext,
    }

    fn nanos() -> impl Strategy<Value = u64> {
        prop_oneof![
            0..5_000_u64,
            0..1_000_000_u64,
            0..100_000_000_000_u64,
            0..(1_u64 << 58)
        ]
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => nanos().prop_map(|ahead| Step::Arm { ahead }),
            2 => any::<usize>().prop_map(|which| Step::Disarm { which }),
            2 => nanos().prop_map(|nanos| Step::Pass { nanos }),
            2 => Just(Step::PassToNext),
        ]
    }

    proptest! {
        #[test]
        fn prop_wheel_expires_as_a_sorted_map_does(steps in prop::collection::vec(step(), 1..200)) {
            let start = Instant::now();
            let mut timers = Timers::new(start);
            let mut model: BTreeMap<(u64, u64), Timer> = BTreeMap::new();
            let mut now = 0_u64;
            for (key, step) in (1_u64..).zip(steps) {
                match step {
                    Step::Arm { ahead } => {
                        let at = now.saturating_add(ahead).min(1 << 62);
                        let timer = timers.arm(start + Duration::from_nanos(at), Alarm::User(key));
                        model.insert((at, key), timer);
                    }
                    Step::Disarm { which } if !model.is_empty() => {
                        let place = *model.keys().nth(which % model.len()).expect("within");
                        let timer = model.remove(&place).expect("present");
                        prop_assert!(timers.disarm(timer));
                    }
                    Step::Disarm { .. } => {}
                    Step::Pass { nanos } => now = now.saturating_add(nanos).min(1 << 62),
                    Step::PassToNext => {
                        if let Some(next) = timers.next() {
                            let next = timers.nanos(next);
                            let first = model.keys().next().expect("a timer is armed").0;
                            // Disarmed ones may end a wait early, nothing may end it late.
                            prop_assert!(next <= first.max(now));
                            now = now.max(next);
                        } else {
                            prop_assert!(model.is_empty());
                        }
                    }
                }
                timers.expire(start + Duration::from_nanos(now));
                let rest = model.split_off(&(now + 1, 0));
                let expected: Vec<u64> = model.keys().map(|&(_, key)| key).collect();
                model = rest;
                prop_assert_eq!(all(&mut timers), expected);
            }
        }
    }
}
