//! What every node and every placement is worth, remembered.
//!
//! Many nodes are alike: the same class and the same room. Each pair of such a state and a shape is
//! weighed once until the workload changes.

use std::collections::BTreeMap;

use super::fragments::Measure;
use super::shape::{Room, Shape};
use super::workload::Workload;

/// Different states that are remembered; with more, all are forgotten and weighed anew.
pub(crate) const STATES: usize = 1 << 16;
/// Different shapes of requests whose weights are remembered; with more, all are forgotten.
pub(crate) const SHAPES: usize = 512;
/// Fixed point of weights: sums of floats differ in their last bits where nodes are equal.
const POINT: f64 = (1 << 20) as f64;
/// Steps of the published score, which takes its ties from them: 0 to 100, half of them for a node
/// whose fragments do not grow.
const PUBLISHED_STEPS: f64 = 100.0;

/// A state's place.
pub(crate) type State = u32;
/// A shape's place.
pub(crate) type ShapeId = usize;

const NOWHERE: State = State::MAX;
const UNKNOWN: State = State::MAX - 1;
const UNWEIGHED: i64 = i64::MIN;

/// What is remembered of one shape, by state.
#[derive(Debug, Default)]
struct Row {
    /// The state after such a task, [`NOWHERE`] if it does not fit.
    after: Vec<State>,
    /// By how much the node's measure grows; of one generation.
    rise: Vec<i64>,
}

/// Weights for one kind of device and one measure.
#[derive(Debug)]
pub(crate) struct Board {
    measure: Measure,
    states: Vec<(Room, u32)>,
    by_room: BTreeMap<(Room, u32), State>,
    /// Of one generation; NaN is not computed.
    useless: Vec<f64>,
    shapes: BTreeMap<Shape, ShapeId>,
    rows: Vec<Row>,
}

impl Board {
    pub(crate) fn new(measure: Measure) -> Self {
        Self {
            measure,
            states: Vec::new(),
            by_room: BTreeMap::new(),
            useless: Vec::new(),
            shapes: BTreeMap::new(),
            rows: Vec::new(),
        }
    }

    /// Forgets weights, as the workload is another; states stay.
    pub(crate) fn reweigh(&mut self) {
        self.useless.fill(f64::NAN);
        for row in &mut self.rows {
            row.rise.fill(UNWEIGHED);
        }
    }

    /// Forgets all, as classes are no longer what they were.
    pub(crate) fn forget(&mut self) {
        *self = Self::new(self.measure);
    }

    /// Returns whether it remembers so much that it is to forget.
    pub(crate) fn is_full(&self) -> bool {
        self.rows.len() >= SHAPES || self.states.len() >= STATES
    }

    /// Returns the place of a shape.
    pub(crate) fn shape(&mut self, shape: Shape) -> ShapeId {
        let next = self.rows.len();
        let id = *self.shapes.entry(shape).or_insert(next);
        if id == next {
            self.rows.push(Row::default());
        }
        id
    }

    /// Returns the place of a node's state.
    pub(crate) fn state(&mut self, room: Room, class: u32) -> State {
        let next = State::try_from(self.states.len()).expect("fewer states than 2^32");
        let state = *self.by_room.entry((room, class)).or_insert(next);
        if state == next {
            self.states.push((room, class));
            self.useless.push(f64::NAN);
        }
        state
    }

    /// Returns the room of a state.
    pub(crate) fn room(&self, state: State) -> &Room {
        &self.states[state as usize].0
    }

    /// Returns by how much the measure grows on a node in this state that takes such a task;
    /// nothing if it does not fit.
    pub(crate) fn rise(
        &mut self,
        workload: &Workload,
        shape: &Shape,
        id: ShapeId,
        state: State,
    ) -> Option<i64> {
        let place = state as usize;
        let row = &mut self.rows[id];
        if place >= row.after.len() {
            row.after.resize(place + 1, UNKNOWN);
            row.rise.resize(place + 1, UNWEIGHED);
        }
        if row.rise[place] != UNWEIGHED {
            return Some(row.rise[place]);
        }
        if row.after[place] == UNKNOWN {
            let (room, class) = self.states[place];
            let after = room.after(shape);
            self.rows[id].after[place] = after.map_or(NOWHERE, |after| self.state(after, class));
        }
        let after = self.rows[id].after[place];
        if after == NOWHERE {
            return None;
        }
        let rise = self.useless(workload, after) - self.useless(workload, state);
        let rise = weight(self.measure, rise);
        self.rows[id].rise[place] = rise;
        Some(rise)
    }

    fn useless(&mut self, workload: &Workload, state: State) -> f64 {
        let known = self.useless[state as usize];
        if !known.is_nan() {
            return known;
        }
        let (room, class) = self.states[state as usize];
        let useless = self.measure.of(&room, class, workload);
        self.useless[state as usize] = useless;
        useless
    }
}

/// Returns a rise as weights are compared; that of no rise is 0.
#[expect(clippy::cast_possible_truncation, reason = "at most 16 devices")]
pub(crate) fn weight(measure: Measure, rise: f64) -> i64 {
    match measure {
        Measure::Usable => (rise * POINT).round() as i64,
        Measure::Published => {
            let score = PUBLISHED_STEPS / (1.0 + rise.exp());
            (PUBLISHED_STEPS / 2.0 - score.floor()) as i64
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::learnt::Notes;
    use proptest::prelude::*;

    fn shapes() -> impl Strategy<Value = Shape> {
        let devices = prop_oneof![
            Just((0u8, 0u16)),
            (Just(1u8), 1u16..=1000),
            (1u8..5, Just(1000u16))
        ];
        (0u32..9, 0u32..9, devices).prop_map(|(cpu, memory, (count, milli))| Shape {
            cpu: cpu * 1000,
            memory,
            count,
            milli,
        })
    }

    proptest! {
        /// Nodes take tasks by what the board says; whatever it remembers, it says what a look at
        /// the node alone says.
        #[test]
        fn prop_board_weighs_as_if_it_remembered_nothing(
            tasks in prop::collection::vec((shapes(), 0u32..6), 1..120),
            published: bool,
        ) {
            let measure = if published { Measure::Published } else { Measure::Usable };
            let mut board = Board::new(measure);
            let mut notes = Notes::default();
            let mut workload = Workload::default();
            let mut nodes = [Room::new(32_000, 64, [1000; 4]); 6];
            for (task, node) in tasks {
                notes.note(task, &[]);
                if notes.is_due() {
                    notes.refresh();
                    workload.take(&notes);
                    board.reweigh();
                }
                let id = board.shape(task);
                for room in &nodes {
                    let state = board.state(*room, 0);
                    let said = board.rise(&workload, &task, id, state);
                    let afresh = room.after(&task).map(|after| {
                        let of = |room| measure.of(room, 0, &workload);
                        weight(measure, of(&after) - of(room))
                    });
                    prop_assert_eq!(said, afresh);
                }
                let room = &mut nodes[node as usize];
                *room = room.after(&task).unwrap_or(*room);
            }
        }
    }
}
