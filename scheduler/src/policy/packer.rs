//! Packing by what else may want the room: the policies for devices.
//!
//! A task goes to the node where the least becomes useless to what is typically asked for
//! ([`Measure`]), plus, for our own policy, a price on devices that tasks with little choice
//! compete for ([`Workload::contention`]). Among equal nodes the first in the order of ids wins.
//!
//! What is typical is learnt from the requests themselves; see `learnt`. All else here is worked
//! out from that and from the nodes as they are, and only remembered: who knows the same chooses
//! alike, however it came to be known.

use ballast_model::{NodeId, Policy, Resources};

use super::board::{Board, ShapeId};
use super::fragments::Measure;
use super::groups::{Group, Groups};
use super::learnt::{KINDS, Learnt};
use super::shape::{DEVICES, Room, Shape, WHOLE, mib};
use super::workload::{Free, Workload};
use crate::fleet::{Changes, ClassTable};
use crate::index::{Allowed, Amounts, Ask, At, Classes, Index, Remains, remaining};

/// A class that is wanted by this much more than the least wanted one costs nothing yet.
const SLACK: f64 = 0.05;

/// What it costs to put a task on a node that has none, in devices. Without it, tasks that waste
/// nothing anywhere go to the first node by id, empty or not: replays with departures take a
/// quarter to a half more nodes than need be. At 0.1 the fleet is packed worse in the end, and at 1
/// by more than a percent.
const OPENING: f64 = 0.05;

/// One kind of device of the fleet, and what is worked out for it.
#[derive(Debug)]
struct Kind {
    name: String,
    workload: Workload,
    boards: [Board; 2],
    /// Which classes the masks and the reaches are of.
    version: Option<u64>,
    /// Which typical tasks and how many reaches the workload is of; none if it is out of date.
    learnt: Option<(u64, usize)>,
    /// Which devices of a node are of this kind, a bit each, by class.
    masks: Vec<u16>,
    /// What the open nodes of each class have free.
    free: Vec<Free>,
}

impl Kind {
    fn new(name: String) -> Self {
        Self {
            name,
            workload: Workload::default(),
            boards: [Measure::Usable, Measure::Published].map(Board::new),
            version: None,
            learnt: None,
            masks: Vec::new(),
            free: Vec::new(),
        }
    }

    /// Takes in which classes there are.
    fn know(&mut self, classes: &ClassTable) {
        let mask = |class| {
            let devices = classes.specimen(class).offered.devices.iter();
            let of_kind = devices.take(DEVICES).zip(0u32..);
            let of_kind = of_kind.filter(|(device, _)| device.kind == self.name);
            of_kind.fold(0u16, |mask, (_, place)| mask | 1 << place)
        };
        let count = u32::try_from(classes.len()).expect("few classes");
        self.masks = (0..count).map(mask).collect();
        self.boards.iter_mut().for_each(Board::forget);
    }

    /// Takes in what was learnt, if that is news; `anew`: the classes are others.
    fn learn(&mut self, learnt: &Learnt, classes: &ClassTable, anew: bool) {
        let notes = learnt.kind(&self.name);
        let now = notes.map_or((0, 0), |n| (n.refreshed(), n.reaches().len()));
        let before = self.learnt.replace(now);
        if before == Some(now) && !anew {
            return;
        }
        self.workload.know(notes, classes);
        if before.is_none_or(|before| before.0 != now.0) {
            match notes {
                Some(notes) => self.workload.take(notes),
                None => self.workload.forget(),
            }
            self.boards.iter_mut().for_each(Board::reweigh);
        }
    }
}

/// The packing policies, what they have learnt, and what is remembered of nodes.
#[derive(Debug, Default)]
pub(crate) struct Packer {
    learnt: Learnt,
    /// The kinds that nodes have.
    kinds: Vec<Kind>,
    /// Which of the fleet's lists of kinds these are.
    kinds_version: u64,
    groups: Groups,
    /// Groups that fit, for one decision: cost, the first node, the group.
    found: Vec<(i64, NodeId, usize)>,
}

/// One task that is to be weighed against nodes.
#[derive(Debug)]
pub(crate) struct Task {
    measure: Measure,
    /// For each kind the shape and its place on the board.
    shapes: Vec<(Shape, ShapeId)>,
    /// Which kind it wants devices of.
    wants: Option<usize>,
    /// What a device costs by class, of the kind that is wanted; empty if none is.
    prices: Vec<i64>,
}

impl Packer {
    /// Returns what was learnt.
    pub(crate) const fn learnt(&self) -> &Learnt {
        &self.learnt
    }

    /// Knows this from now on, and nothing else.
    pub(crate) fn teach(&mut self, learnt: &Learnt) {
        self.learnt = learnt.clone();
        for kind in &mut self.kinds {
            kind.learnt = None;
        }
    }

    /// Notes that a task was asked for; see [`Learnt::note`].
    pub(crate) fn note(&mut self, wanted: &Resources, constraints: &[ballast_model::Constraint]) {
        self.learnt.note(wanted, constraints);
    }

    /// Returns whether a request is packed here: a policy says so, and it wants devices, or devices
    /// that others want may be near what it takes.
    pub(crate) fn concerns(&self, policy: Policy, wanted: &Resources) -> bool {
        let packs = match policy {
            Policy::Binpack | Policy::Spread => false,
            Policy::Auto | Policy::Fgd => !wanted.is_empty() && !self.kinds.is_empty(),
        };
        let mut kinds = self.kinds.iter();
        packs && (wanted.devices.count == 0 || kinds.any(|kind| kind.name == wanted.devices.kind))
    }

    /// Takes in which kinds of devices the fleet has, and the number of that list. Tasks that want
    /// others than the first [`KINDS`] are packed by fullness.
    pub(crate) fn meet<'a>(&mut self, kinds: impl Iterator<Item = &'a str>, version: u64) {
        if self.kinds_version != version {
            self.kinds_version = version;
            let kinds = kinds.take(KINDS).map(str::to_owned);
            self.kinds = kinds.map(Kind::new).collect();
            self.groups.clear();
        }
    }

    /// Takes in which classes there are, and what was learnt lately.
    pub(crate) fn know(&mut self, classes: &ClassTable) {
        for kind in &mut self.kinds {
            let anew = kind.version != Some(classes.version());
            if anew {
                kind.version = Some(classes.version());
                kind.know(classes);
                self.groups.clear();
            }
            kind.learn(&self.learnt, classes, anew);
        }
    }

    /// Takes in what changed on nodes.
    ///
    /// # Complexity
    /// The nodes that changed; all of them after classes changed or nodes went.
    pub(crate) fn look(&mut self, index: &Index, changes: &mut Changes) {
        let changed = changes.take();
        let is_full = |kind: &Kind| kind.boards.iter().any(Board::is_full);
        if self.groups.is_full() || self.kinds.iter().any(is_full) {
            for board in self.kinds.iter_mut().flat_map(|kind| &mut kind.boards) {
                board.forget();
            }
            self.groups.clear();
        }
        if let Some(changed) = changed.filter(|_| !self.groups.is_empty()) {
            for at in changed {
                self.file(index, at);
            }
        } else {
            self.groups.clear();
            for kind in &mut self.kinds {
                kind.free.clear();
                kind.free.resize(kind.masks.len(), Free::default());
            }
            for at in index.iter() {
                self.file(index, at);
            }
        }
    }

    fn file(&mut self, index: &Index, at: At) {
        let line = index.line(at);
        let (class, free, remains) = (line.class(), line.free(), line.remains());
        let kinds = self.kinds.iter().enumerate();
        let masks = kinds.map(|(place, kind)| (place, kind.masks[class as usize]));
        let masks = masks.filter(|(_, mask)| *mask != 0);
        let rooms: Vec<_> = masks
            .map(|(place, mask)| (place, room(free, &remains, mask)))
            .collect();
        // Nodes without devices are the business of the index.
        let rooms = (line.is_open() && !rooms.is_empty()).then_some((class, rooms));
        let kinds = &mut self.kinds;
        let (before, now) = self.groups.file((index.id(at), at), rooms, |class, rooms| {
            let state = |&(place, room): &(usize, Room)| {
                let boards = &mut kinds[place].boards;
                let states = boards.each_mut().map(|board| board.state(room, class));
                (place, states)
            };
            rooms.iter().map(state).collect()
        });
        if before != now {
            self.count(before, false);
            self.count(now, true);
        }
    }

    /// Counts a node of a group in or out.
    fn count(&mut self, group: Option<usize>, comes: bool) {
        let Some(group) = group.map(|group| self.groups.get(group)) else {
            return;
        };
        for &(kind, [state, _]) in &group.states {
            let kind = &mut self.kinds[kind];
            let milli = u64::from(kind.boards[0].room(state).free());
            let free = &mut kind.free[group.class as usize];
            if comes {
                free.nodes += 1;
                free.milli += milli;
            } else {
                free.nodes -= 1;
                free.milli -= milli;
            }
        }
    }

    /// Returns the task that is to be weighed.
    pub(crate) fn task(&mut self, policy: Policy, wanted: &Resources, allowed: &Allowed) -> Task {
        let measure = match policy {
            Policy::Fgd => Measure::Published,
            _ => Measure::Usable,
        };
        let mut prices = Vec::new();
        let mut shapes = Vec::with_capacity(self.kinds.len());
        for kind in &mut self.kinds {
            let shape = Shape::of(wanted, &kind.name);
            if shape.count > 0 && measure == Measure::Usable {
                prices = prices_of(kind, &self.learnt, &shape, allowed);
            }
            shapes.push((shape, kind.boards[measure as usize].shape(shape)));
        }
        let wants = shapes.iter().position(|(shape, _)| shape.count > 0);
        Task {
            measure,
            shapes,
            wants,
            prices,
        }
    }

    /// Returns whether a class among those allowed has a device of a kind that is known.
    pub(crate) fn is_near_devices(&self, allowed: &Allowed) -> bool {
        self.kinds.iter().any(|kind| {
            let mut classes = (0u32..).zip(&kind.masks);
            classes.any(|(class, mask)| *mask != 0 && allowed.contains(class))
        })
    }

    /// Returns the classes, among those allowed, that have no device of a kind that is known.
    pub(crate) fn without_devices(&self, allowed: &Allowed) -> Classes {
        let classes = self.kinds.iter().map(|kind| kind.masks.len()).min();
        let classes = 0..u32::try_from(classes.unwrap_or(0)).expect("few classes");
        classes
            .filter(|&class| allowed.contains(class))
            .filter(|&class| {
                self.kinds
                    .iter()
                    .all(|kind| kind.masks[class as usize] == 0)
            })
            .collect()
    }

    /// Finds the node where a task costs least, the first of equals in the order of ids, that
    /// `judge` accepts and `take` reserves; among nodes that have devices.
    ///
    /// # Complexity
    /// The groups of nodes that are alike.
    pub(crate) fn find<T, G>(
        &mut self,
        index: &Index,
        ask: &Ask<'_>,
        task: &Task,
        mut judge: impl FnMut(At) -> Option<T>,
        mut take: impl FnMut(At, T) -> Option<G>,
    ) -> Option<(At, G)> {
        let mut found = std::mem::take(&mut self.found);
        found.clear();
        let opening = super::board::weight(Measure::Usable, OPENING);
        for (number, group) in self.groups.live() {
            if ask.allowed.contains(group.class)
                && let Some(cost) = weigh(&mut self.kinds, task, group)
                && let Some(&(first, at)) = group.nodes.first()
            {
                // Nodes of a class with as much room are empty together, but for odd capacities.
                let opens = task.measure == Measure::Usable && index.load(at) == 0;
                let opening = if opens { opening } else { 0 };
                found.push((cost + opening, first, number));
            }
        }
        let mut taken = None;
        while let Some(&best) = found.iter().min() {
            let nodes = self.groups.get(best.2).nodes.iter().map(|&(_, at)| at);
            let mut nodes = nodes.filter(|&at| {
                let skipped = ask.skip.is_some_and(|skip| skip.contains(index.rank(at)));
                !skipped && index.line(at).free().takes(ask.demand.amounts)
            });
            taken = nodes.find_map(|at| Some((at, take(at, judge(at)?)?)));
            if let Some((at, _)) = taken {
                index.touch(at);
                break;
            }
            found.retain(|other| *other != best);
        }
        self.found = found;
        taken
    }
}

/// Returns what a task costs on a node of a group: the less, the better. Nothing if it does not
/// fit.
fn weigh(kinds: &mut [Kind], task: &Task, group: &Group) -> Option<i64> {
    let place = group.class as usize;
    let mut cost = task.prices.get(place).copied().unwrap_or(0);
    if task
        .wants
        .is_some_and(|wanted| group.states.iter().all(|(kind, _)| *kind != wanted))
    {
        return None;
    }
    for (kind, states) in &group.states {
        let (shape, id) = &task.shapes[*kind];
        let kind = &mut kinds[*kind];
        let board = &mut kind.boards[task.measure as usize];
        cost += board.rise(&kind.workload, shape, *id, states[task.measure as usize])?;
    }
    Some(cost)
}

/// Returns what a node has left, with its devices of a mask.
fn room(free: Amounts, remains: &Remains, mask: u16) -> Room {
    let cpu = u32::try_from(free.cpu().max(0)).unwrap_or(u32::MAX);
    let memory = mib(u64::try_from(free.memory().max(0)).unwrap_or(0), false);
    let places = (0..DEVICES).filter(|place| mask >> place & 1 == 1);
    Room::new(cpu, memory, places.map(|place| remaining(remains, place)))
}

/// Returns what the devices of a task cost by class: as much as they are more contended than in the
/// class that it can have with the least contention.
fn prices_of(kind: &Kind, learnt: &Learnt, shape: &Shape, allowed: &Allowed) -> Vec<i64> {
    let contention = kind
        .workload
        .contention(learnt.kind(&kind.name), &kind.free);
    let classes = || {
        let classes = (0u32..).zip(contention.iter().copied()).zip(&kind.masks);
        let of_kind = classes.filter(|(_, mask)| **mask != 0);
        of_kind.filter_map(|((class, wanted), _)| Some((class, wanted?)))
    };
    let least = classes()
        .filter(|(class, _)| allowed.contains(*class))
        .map(|(_, contention)| contention)
        .min_by(f64::total_cmp);
    let Some(least) = least else {
        return Vec::new();
    };
    let mut prices = vec![0; kind.masks.len()];
    for (class, contention) in classes() {
        let more = (contention / least - 1.0 - SLACK).max(0.0);
        let price = more * f64::from(shape.total()) / f64::from(WHOLE);
        prices[class as usize] = super::board::weight(Measure::Usable, price);
    }
    prices
}
