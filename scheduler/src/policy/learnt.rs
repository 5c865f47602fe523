//! What has been asked for lately: the one thing that a packing policy knows of the future.
//!
//! Nothing is known beforehand. Every task that wants devices is noted when it is asked for, and
//! every so often what was noted becomes the typical tasks that policies weigh nodes by. What was
//! asked long ago fades.
//!
//! Notes in the same order make the same knowledge, to the last bit and on every machine: numbers
//! are whole, and where tasks may go is kept as they said it, not as classes of some fleet. So it
//! can be part of a replicated state, and whoever has that state packs alike.

use std::collections::BTreeMap;

use ballast_model::{Constraint, Resources};
use serde::{Deserialize, Serialize};

use super::shape::Shape;

/// Kinds of devices that are learnt; of more, the one asked for least makes room.
pub(crate) const KINDS: usize = 8;
/// Typical shapes. A decision weighs every state of a node that it has not seen before by each of
/// them; with 32 it packs a little worse, with all a little better.
pub(crate) const SHAPES: usize = 64;
/// Typical tasks, for the published measure, which tells tasks apart by where they may go, too.
pub(crate) const TYPICAL: usize = 256;
/// Different tasks that are remembered. Of more, those asked for least are forgotten at the next
/// refresh; until then, new ones are not taken in.
pub(crate) const REMEMBERED: usize = 1024;
/// Different places that tasks may go to. Tasks with further ones count as if every node would do.
pub(crate) const REACHES: usize = 64;
/// What is left of an old note's weight after one new one, of 2^32: 95 % after 500, a half after
/// about 6,700.
const FADE: u64 = 4_294_526_713;
/// The least and the most notes from one refresh to the next; in between, a quarter of all: a young
/// workload is learnt fast, and an old one costs little, as all is weighed anew after a refresh.
const REFRESH_LEAST: u64 = 16;
const REFRESH_MOST: u64 = 4000;
/// The weight of a new note.
const NOTE: u64 = 1 << 20;
/// A lighter note is forgotten: a twentieth of a task.
const FORGOTTEN: u64 = NOTE / 20;
/// The weight of a thousandth of a device that was asked for.
pub(crate) const MILLI: u64 = 1 << 10;

/// A task as it was noted: what it wants, and the place of where it may go.
pub(crate) type Noted = (Shape, u16);

/// Where tasks of some kind may go, and how much they want there.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Reach {
    pub constraints: Vec<Constraint>,
    /// Thousandths of devices asked for, in units of [`MILLI`].
    pub demand: u64,
}

/// Tasks that wanted devices of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Notes {
    noted: BTreeMap<Noted, u64>,
    /// The first is every node.
    reaches: Vec<Reach>,
    shapes: Vec<(Shape, u64)>,
    typical: Vec<(Noted, u64)>,
    notes: u64,
    refreshed: u64,
    next_refresh: u64,
}

/// What the packing policies have learnt from the tasks that were asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Learnt {
    kinds: BTreeMap<String, Notes>,
}

impl Learnt {
    /// Returns what is known before anything was asked for.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes that a task was asked for that may go to the nodes which meet these constraints; one
    /// that wants no devices teaches nothing.
    pub fn note(&mut self, wanted: &Resources, constraints: &[Constraint]) {
        if wanted.devices.count == 0 {
            return;
        }
        let kind = &wanted.devices.kind;
        if !self.kinds.contains_key(kind) {
            if self.kinds.len() >= KINDS {
                let least = self.kinds.iter().min_by_key(|(_, notes)| notes.notes);
                let least = least.map(|(name, _)| name.clone());
                self.kinds.remove(&least.expect("there are some"));
            }
            self.kinds.insert(kind.clone(), Notes::default());
        }
        let notes = self.kinds.get_mut(kind).expect("just there");
        notes.note(Shape::of(wanted, kind), constraints);
        if notes.is_due() {
            notes.refresh();
        }
    }

    /// Returns what is known of the tasks that want devices of a kind.
    pub(crate) fn kind(&self, name: &str) -> Option<&Notes> {
        self.kinds.get(name)
    }

    /// Returns all conditions by which tasks were choosy.
    pub(crate) fn constraints(&self) -> impl Iterator<Item = &Constraint> {
        let reaches = self.kinds.values().flat_map(|notes| &notes.reaches);
        reaches.flat_map(|reach| &reach.constraints)
    }
}

impl Default for Notes {
    fn default() -> Self {
        Self {
            noted: BTreeMap::new(),
            reaches: vec![Reach::default()],
            shapes: Vec::new(),
            typical: Vec::new(),
            notes: 0,
            refreshed: 0,
            next_refresh: REFRESH_LEAST,
        }
    }
}

impl Notes {
    /// Notes a task; the caller refreshes when it is due.
    pub(crate) fn note(&mut self, shape: Shape, constraints: &[Constraint]) {
        self.notes += 1;
        let reach = self.reach(constraints);
        let demand = &mut self.reaches[usize::from(reach)].demand;
        *demand = demand.saturating_add(u64::from(shape.total()) * MILLI);
        let full = self.noted.len() >= REMEMBERED;
        match self.noted.get_mut(&(shape, reach)) {
            Some(weight) => *weight += NOTE,
            None if full => {}
            None => {
                self.noted.insert((shape, reach), NOTE);
            }
        }
    }

    fn reach(&mut self, constraints: &[Constraint]) -> u16 {
        let mut reaches = self.reaches.iter();
        let place = match reaches.position(|reach| reach.constraints == constraints) {
            Some(known) => known,
            None if self.reaches.len() < REACHES => {
                self.reaches.push(Reach {
                    constraints: constraints.to_vec(),
                    demand: 0,
                });
                self.reaches.len() - 1
            }
            None => 0,
        };
        u16::try_from(place).expect("few reaches")
    }

    /// Returns whether it is time for [`Self::refresh`].
    pub(crate) const fn is_due(&self) -> bool {
        self.notes >= self.next_refresh
    }

    /// Makes the typical tasks anew.
    pub(crate) fn refresh(&mut self) {
        let fade = fade(self.notes - self.refreshed);
        let faded = |weight: u64| scale(weight, fade);
        self.refreshed = self.notes;
        self.next_refresh = self.notes + (self.notes / 4).clamp(REFRESH_LEAST, REFRESH_MOST);
        self.noted.retain(|_, weight| {
            *weight = faded(*weight);
            *weight >= FORGOTTEN
        });
        for reach in &mut self.reaches {
            reach.demand = faded(reach.demand);
        }
        if self.noted.len() >= REMEMBERED {
            for (key, _) in heaviest(&self.noted).drain(REMEMBERED / 2..) {
                self.noted.remove(&key);
            }
        }
        self.forget_reaches();
        let mut shapes: BTreeMap<Shape, u64> = BTreeMap::new();
        for (&(shape, _), weight) in &self.noted {
            *shapes.entry(shape).or_default() += weight;
        }
        self.shapes = heaviest(&shapes);
        self.shapes.truncate(SHAPES);
        self.typical = heaviest(&self.noted);
        self.typical.truncate(TYPICAL);
    }

    /// Forgets where tasks could go that are all forgotten: there is room for new ones.
    fn forget_reaches(&mut self) {
        let mut used = vec![false; self.reaches.len()];
        for (_, reach) in self.noted.keys() {
            used[usize::from(*reach)] = true;
        }
        used[0] = true;
        if !used.contains(&false) {
            return;
        }
        let mut place = 0..;
        let mut renamed = |used: &bool| if *used { place.next() } else { None };
        let names: Vec<Option<u16>> = used.iter().map(&mut renamed).collect();
        let mut used = used.into_iter();
        self.reaches.retain(|_| used.next() == Some(true));
        let noted = std::mem::take(&mut self.noted).into_iter();
        let rename = |((shape, reach), weight): (Noted, u64)| {
            let reach = names[usize::from(reach)].expect("what is noted is kept");
            ((shape, reach), weight)
        };
        self.noted = noted.map(rename).collect();
    }

    /// Returns where tasks may go; the first is every node.
    pub(crate) fn reaches(&self) -> &[Reach] {
        &self.reaches
    }

    /// Returns the most frequent shapes of tasks, wherever they may go, with their weights.
    pub(crate) fn shapes(&self) -> &[(Shape, u64)] {
        &self.shapes
    }

    /// Returns the most frequent tasks, told apart by where they may go, too.
    pub(crate) fn typical(&self) -> &[(Noted, u64)] {
        &self.typical
    }

    /// Returns a number that is another one whenever the typical tasks are.
    pub(crate) const fn refreshed(&self) -> u64 {
        self.refreshed
    }
}

/// Returns what so many new notes leave of an old one, of 2^32.
fn fade(notes: u64) -> u64 {
    let (mut left, mut power, mut bits) = (1 << 32, FADE, notes);
    while bits > 0 {
        if bits & 1 == 1 {
            left = scale(left, power);
        }
        power = scale(power, power);
        bits >>= 1;
    }
    left
}

/// Returns a part of a number; the part of 2^32.
fn scale(number: u64, part: u64) -> u64 {
    let scaled = (u128::from(number) * u128::from(part)) >> 32;
    u64::try_from(scaled).expect("no more than before")
}

/// Returns what was noted, the heaviest first.
fn heaviest<K: Ord + Copy>(noted: &BTreeMap<K, u64>) -> Vec<(K, u64)> {
    let mut list: Vec<_> = noted.iter().map(|(&key, &weight)| (key, weight)).collect();
    list.sort_by_key(|&(key, weight)| (std::cmp::Reverse(weight), key));
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use ballast_model::{Bytes, DeviceRequest, MilliCpu};

    fn gpus(count: u8, milli: u16) -> Resources {
        let mut wanted = Resources::of(MilliCpu(4000), Bytes::from_mib(1024));
        wanted.devices = DeviceRequest {
            kind: "gpu".to_owned(),
            count,
            milli,
        };
        wanted
    }

    fn of_model(model: u32) -> Vec<Constraint> {
        let text = format!("node.attributes.gpu.model==m{model}");
        vec![text.parse().expect("a constraint")]
    }

    #[test]
    fn what_is_asked_for_most_is_most_typical_and_the_old_fades() {
        let mut learnt = Learnt::new();
        for _ in 0..300 {
            learnt.note(&gpus(1, 500), &[]);
        }
        learnt.note(&gpus(8, 1000), &[]);
        let typical = learnt.kind("gpu").expect("noted").typical();
        assert_eq!(typical[0].0.0, Shape::of(&gpus(1, 500), "gpu"));
        for _ in 0..100_000 {
            learnt.note(&gpus(8, 1000), &[]);
        }
        let typical = learnt.kind("gpu").expect("noted").typical();
        assert_eq!(typical.len(), 1, "{typical:?}");
    }

    #[test]
    fn notes_lose_half_their_weight_in_6_700() {
        assert_eq!(fade(0), 1 << 32);
        for (notes, left) in [(500, 0.95), (6757, 0.5)] {
            #[expect(clippy::cast_precision_loss, reason = "a part of 1")]
            let part = fade(notes) as f64 / (1u64 << 32) as f64;
            assert!((part - left).abs() < 1e-4, "{notes}: {part}");
        }
        assert_eq!(fade(1 << 40), 0);
    }

    #[test]
    fn more_different_tasks_places_and_kinds_than_are_remembered_are_bounded() {
        let mut learnt = Learnt::new();
        for cpu in 0..3 * u32::try_from(REMEMBERED).expect("small") {
            let mut wanted = gpus(1, 1000);
            wanted.cpu = MilliCpu(cpu);
            learnt.note(&wanted, &of_model(cpu));
            let notes = learnt.kind("gpu").expect("noted");
            assert!(notes.noted.len() <= REMEMBERED && notes.reaches.len() <= REACHES);
        }
        let notes = learnt.kind("gpu").expect("noted");
        assert_eq!(
            (notes.typical().len(), notes.shapes().len()),
            (TYPICAL, SHAPES)
        );
        for kind in 0..3 * KINDS {
            let mut wanted = gpus(1, 1000);
            wanted.devices.kind = format!("kind{kind}");
            learnt.note(&wanted, &[]);
            assert!(learnt.kinds.len() <= KINDS);
        }
        assert!(learnt.kind("gpu").is_some(), "asked for most");
    }

    #[test]
    fn place_that_nobody_asks_for_any_more_makes_room_for_another() {
        let mut learnt = Learnt::new();
        for model in 0..u32::try_from(REACHES).expect("small") {
            learnt.note(&gpus(1, 500), &of_model(model));
        }
        for _ in 0..200_000 {
            learnt.note(&gpus(2, 1000), &of_model(7));
        }
        let notes = learnt.kind("gpu").expect("noted");
        let reaches: Vec<_> = notes.reaches().iter().map(|r| &r.constraints).collect();
        assert_eq!(reaches, [&Vec::new(), &of_model(7)]);
        assert_eq!(notes.typical().len(), 1);
        assert_eq!(notes.typical()[0].0.1, 1, "the place it has now");
    }

    #[test]
    fn what_was_learnt_is_the_same_after_a_journey_as_text() {
        let mut learnt = Learnt::new();
        for number in 0..100u32 {
            learnt.note(&gpus(1, 500), &of_model(number % 3));
        }
        let list: Vec<_> = learnt.kinds["gpu"].noted.iter().collect();
        let text = serde_json::to_string(&list).expect("can be written");
        let back: Vec<(Noted, u64)> = serde_json::from_str(&text).expect("can be read");
        assert_eq!(
            back.into_iter().collect::<BTreeMap<_, _>>(),
            learnt.kinds["gpu"].noted
        );
    }
}
