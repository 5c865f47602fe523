//! One node's words and how they are reserved and given back.
//!
//! # Protocol
//!
//! A reservation takes the first word (CPU, memory, disk, slots) by compare-and-swap, then, if it
//! asks for them, each word of devices, each custom resource, each port. A later part that refuses
//! makes it give back the earlier ones: for that moment others see less than is there. So whoever
//! takes more than one word announces it in [`Unsettled`], and whoever finds nothing looks there
//! before it gives up: it looks again if a reservation was under way or was taken back meanwhile.
//! A reservation of the first word alone either happens or does not, and announces nothing.

use super::custom::Custom;
use super::lanes::{self, Lanes, Remains, Wanted};
use super::ports::PortMap;
use super::words::Amounts;
use crate::sync::{Apart, AtomicU32, AtomicU64, AtomicU128, Ordering};

/// One node: a cache line, so that nodes do not share one.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Line {
    free: AtomicU128,
    devices: [AtomicU128; lanes::WORDS],
    /// The next node on its shard's dirty stack; see [`super::dirty`].
    pub(super) next_dirty: AtomicU32,
    /// Its place in the order of ids: changed by owners only.
    pub(super) rank: u32,
    /// Its class: changed by owners only.
    pub(super) class: u32,
    /// Slots of its capacity: changed by owners only.
    pub(super) slots: u16,
    /// Whether tasks may be placed here at all: changed by owners only.
    pub(super) open: bool,
}

/// What a node has besides its words: most nodes have nothing of it.
#[derive(Debug, Default)]
pub(crate) struct Extra {
    /// Which devices are of which kind, a bit each; the kinds as the index interned them.
    pub kinds: Box<[(u32, u16)]>,
    /// What each device has when nothing runs.
    pub whole: Remains,
    /// Custom resources.
    pub custom: Custom,
    /// Ports.
    pub ports: PortMap,
}

/// What a task takes of a node, to be found there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Demand {
    /// CPU, memory, disk and a slot.
    pub amounts: Amounts,
    /// Devices of one kind, wherever they are.
    pub devices: Option<(u32, Wanted)>,
    /// Custom resources, by the kinds that the index interned.
    pub custom: Vec<(u32, u32)>,
    /// How many ports of the node's range.
    pub dynamic_ports: u16,
    /// Ports by number.
    pub fixed_ports: Vec<u16>,
}

/// What was taken of a node, exactly: what is to be given back.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[must_use = "what was taken is to be given back"]
pub(crate) struct Grant {
    pub amounts: Amounts,
    pub devices: Remains,
    pub custom: Vec<(u32, u32)>,
    /// Fixed ones first, then dynamic ones in the order of the request.
    pub ports: Vec<u16>,
}

impl Demand {
    /// Returns whether one compare-and-swap takes all of it.
    pub(crate) fn is_simple(&self) -> bool {
        self.devices.is_none()
            && self.custom.is_empty()
            && self.dynamic_ports == 0
            && self.fixed_ports.is_empty()
    }
}

/// Reservations of several words that are under way.
#[derive(Debug, Default)]
pub(crate) struct Unsettled {
    under_way: Apart<AtomicU32>,
    taken_back: Apart<AtomicU64>,
}

impl Unsettled {
    /// Returns a mark to be handed to [`Self::is_quiet_since`] after a search in vain.
    pub(crate) fn mark(&self) -> u64 {
        // Acquire: pairs with the release in `undo`; what was taken back before the mark is
        // visible to the search that follows.
        self.taken_back.0.load(Ordering::Acquire)
    }

    /// Returns whether no reservation hid capacity from a search that began at this mark.
    pub(crate) fn is_quiet_since(&self, mark: u64) -> bool {
        // The search's own reads come first, then the one under way, then the count: one that was
        // under way at any time since the mark is still counted here, or has been taken back and
        // is counted there, as it adds there before it leaves here.
        crate::sync::fence();
        self.under_way.0.load(Ordering::SeqCst) == 0
            && self.taken_back.0.load(Ordering::SeqCst) == mark
    }

    fn enter(&self) {
        self.under_way.0.fetch_add(1, Ordering::SeqCst);
        crate::sync::fence();
    }

    fn leave(&self) {
        self.under_way.0.fetch_sub(1, Ordering::SeqCst);
    }

    fn undo(&self) {
        self.taken_back.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Line {
    pub(crate) fn new(free: Amounts, devices: Remains) -> Self {
        Self {
            free: AtomicU128::new(free.0),
            devices: devices.map(|lanes| AtomicU128::new(lanes.0)),
            next_dirty: AtomicU32::new(super::dirty::CLEAN),
            rank: 0,
            class: 0,
            slots: 0,
            open: true,
        }
    }

    /// Returns whether tasks may be placed here at all.
    pub(crate) const fn is_open(&self) -> bool {
        self.open
    }

    /// Returns the node's class.
    pub(crate) const fn class(&self) -> u32 {
        self.class
    }

    /// Returns what is free.
    pub(crate) fn free(&self) -> Amounts {
        // Acquire: pairs with the release of whoever changed the word.
        Amounts(self.free.load(Ordering::Acquire))
    }

    /// Returns what is left of each device.
    pub(crate) fn remains(&self) -> Remains {
        [0, 1].map(|word| Lanes(self.devices[word].load(Ordering::Acquire)))
    }

    /// Sets what is free: for an owner that nobody races with.
    pub(crate) fn set(&mut self, free: Amounts, devices: Remains) {
        self.free.store(free.0, Ordering::Release);
        for (word, lanes) in self.devices.iter().zip(devices) {
            word.store(lanes.0, Ordering::Release);
        }
    }

    /// Takes the amounts; returns what is free afterwards, or nothing if they do not fit.
    pub(crate) fn take_amounts(&self, claim: Amounts) -> Option<Amounts> {
        let mut free = self.free();
        while free.takes(claim) {
            match change(&self.free, free.0, free.less(claim).0) {
                Ok(()) => return Some(free.less(claim)),
                Err(now) => free = Amounts(now),
            }
        }
        None
    }

    /// Gives amounts back.
    pub(crate) fn give_amounts(&self, claim: Amounts) {
        let mut free = self.free();
        while let Err(now) = change(&self.free, free.0, free.more(claim).0) {
            free = Amounts(now);
        }
    }

    /// Takes exactly these parts of devices; returns whether they were there. Nothing is taken if
    /// not; in between, others may see the first word changed.
    pub(crate) fn take_devices(&self, claim: &Remains) -> bool {
        for (place, lanes) in claim.iter().enumerate() {
            if !lanes.is_empty() && !self.take_lanes(place, *lanes) {
                for (place, lanes) in claim[..place].iter().enumerate() {
                    self.give_lanes(place, *lanes, Lanes::of([lanes::WHOLE; lanes::PER_WORD]));
                }
                return false;
            }
        }
        true
    }

    /// Gives parts of devices back; none becomes more than `whole`.
    pub(crate) fn give_devices(&self, claim: &Remains, whole: &Remains) {
        for (place, lanes) in claim.iter().enumerate() {
            if !lanes.is_empty() {
                self.give_lanes(place, *lanes, whole[place]);
            }
        }
    }

    fn take_lanes(&self, place: usize, claim: Lanes) -> bool {
        let word = &self.devices[place];
        let mut free = Lanes(word.load(Ordering::Acquire));
        while free.takes(claim) {
            match change(word, free.0, free.less(claim).0) {
                Ok(()) => return true,
                Err(now) => free = Lanes(now),
            }
        }
        false
    }

    fn give_lanes(&self, place: usize, claim: Lanes, whole: Lanes) {
        let word = &self.devices[place];
        let mut free = Lanes(word.load(Ordering::Acquire));
        while let Err(now) = change(word, free.0, free.more(claim, whole).0) {
            free = Lanes(now);
        }
    }

    /// Chooses devices and takes them; looks again as long as others are faster.
    fn take_wanted(&self, wanted: Wanted, mask: u16) -> Option<Remains> {
        loop {
            let claim = wanted.choose(&self.remains(), mask)?;
            if self.take_devices(&claim) {
                return Some(claim);
            }
        }
    }

    /// Takes all that is demanded, or nothing.
    pub(crate) fn take(
        &self,
        extra: &Extra,
        demand: &Demand,
        unsettled: &Unsettled,
    ) -> Option<Grant> {
        if demand.is_simple() {
            self.take_amounts(demand.amounts)?;
            return Some(Grant {
                amounts: demand.amounts,
                ..Grant::default()
            });
        }
        unsettled.enter();
        let mut grant = Grant::default();
        let whole = self.take_all(extra, demand, &mut grant);
        if whole.is_none() {
            self.give(extra, &grant);
            unsettled.undo();
        }
        unsettled.leave();
        whole.map(|()| grant)
    }

    /// Takes part after part and notes in `grant` what it has; stops at the first that refuses.
    fn take_all(&self, extra: &Extra, demand: &Demand, grant: &mut Grant) -> Option<()> {
        self.take_amounts(demand.amounts)?;
        grant.amounts = demand.amounts;
        if let Some((kind, wanted)) = demand.devices {
            grant.devices = self.take_wanted(wanted, extra.mask(kind))?;
        }
        for &(kind, amount) in &demand.custom {
            if !extra.custom.take(kind, amount) {
                return None;
            }
            grant.custom.push((kind, amount));
        }
        for &port in &demand.fixed_ports {
            if !extra.ports.take(port) {
                return None;
            }
            grant.ports.push(port);
        }
        for _ in 0..demand.dynamic_ports {
            grant.ports.push(extra.ports.take_next()?);
        }
        Some(())
    }

    /// Gives back what was taken.
    pub(crate) fn give(&self, extra: &Extra, grant: &Grant) {
        for &port in &grant.ports {
            extra.ports.give(port);
        }
        for &(kind, amount) in &grant.custom {
            extra.custom.give(kind, amount);
        }
        self.give_devices(&grant.devices, &extra.whole);
        if grant.amounts != Amounts::default() {
            self.give_amounts(grant.amounts);
        }
    }

    /// Returns whether all that is demanded seems to be there now.
    pub(crate) fn seems_to_take(&self, extra: &Extra, demand: &Demand) -> bool {
        self.free().takes(demand.amounts) && (demand.is_simple() || self.has_rest(extra, demand))
    }

    fn has_rest(&self, extra: &Extra, demand: &Demand) -> bool {
        demand
            .devices
            .is_none_or(|(kind, wanted)| wanted.choose(&self.remains(), extra.mask(kind)).is_some())
            && demand
                .custom
                .iter()
                .all(|&(kind, amount)| extra.custom.has(kind, amount))
            && extra
                .ports
                .has(&demand.fixed_ports, demand.dynamic_ports.into())
    }
}

impl Extra {
    /// Returns which devices are of this kind, a bit each.
    pub(crate) fn mask(&self, kind: u32) -> u16 {
        let of_kind = self.kinds.iter().find(|(known, _)| *known == kind);
        of_kind.map_or(0, |(_, mask)| *mask)
    }
}

/// Changes a word from `from` to `to`, or returns what is there.
fn change(word: &AtomicU128, from: u128, to: u128) -> Result<(), u128> {
    // Release: whoever reads this word sees what its writer did before. Acquire for the reader's
    // side of it, in failure, too, as the value is used for the next try.
    word.compare_exchange_weak(from, to, Ordering::AcqRel, Ordering::Acquire)
        .map(|_| ())
}
