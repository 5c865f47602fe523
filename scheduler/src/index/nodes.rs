//! The index itself: nodes, shards, and the search over them.

use ballast_model::NodeId;

use super::block::BitSet;
use super::lanes::Remains;
use super::line::{Demand, Extra, Grant, Line, Unsettled};
use super::shard::{Files, Keeps, Shard, Standing};
use super::view::Probe;
use super::words::Amounts;
use crate::map::IdMap;

/// Where a node is in the index, as long as it is there.
pub(crate) type At = u32;

/// No node.
const NOBODY: At = At::MAX;
/// Up to so many classes each is looked at on its own; with more, all nodes are looked at and
/// those of other classes left out.
const CLASSES_APART: usize = 8;

/// Which classes may take a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Allowed {
    /// Every class.
    All,
    /// These, as a set.
    Some(Classes),
}

/// Some classes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Classes {
    list: Vec<u32>,
    bits: Vec<u64>,
}

impl FromIterator<u32> for Classes {
    fn from_iter<I: IntoIterator<Item = u32>>(classes: I) -> Self {
        let mut list: Vec<u32> = classes.into_iter().collect();
        list.sort_unstable();
        list.dedup();
        let words = list.last().map_or(0, |last| *last as usize / 64 + 1);
        let mut bits = vec![0u64; words];
        for &class in &list {
            bits[class as usize / 64] |= 1 << (class % 64);
        }
        Self { list, bits }
    }
}

impl Classes {
    pub(crate) fn contains(&self, class: u32) -> bool {
        let word = self.bits.get(class as usize / 64).copied().unwrap_or(0);
        word >> (class % 64) & 1 == 1
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

impl Allowed {
    pub(crate) fn contains(&self, class: u32) -> bool {
        match self {
            Self::All => true,
            Self::Some(classes) => classes.contains(class),
        }
    }
}

/// In which order nodes are tried; the node's id comes last in each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// The least free CPU × memory (quantised) first.
    Fullest,
    /// The fewest tasks first.
    Emptiest,
}

/// What is looked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask<'a> {
    pub demand: &'a Demand,
    pub allowed: &'a Allowed,
    /// Nodes left out, by [`Index::rank`].
    pub skip: Option<&'a BitSet>,
    pub order: Order,
}

/// What the index is told about a node.
#[derive(Debug)]
pub(crate) struct Stock {
    pub free: Amounts,
    /// Slots of its capacity: what is not free of them is its number of tasks.
    pub slots: u16,
    pub devices: Remains,
    pub class: u32,
    /// Whether anything may be placed there.
    pub open: bool,
}

/// The nodes and what each has free.
#[derive(Debug)]
pub(crate) struct Index {
    lines: Vec<Line>,
    extras: Vec<Extra>,
    ids: Vec<Option<NodeId>>,
    by_id: IdMap<NodeId, At>,
    vacant: Vec<At>,
    /// By id; places of nodes that are gone hold [`NOBODY`].
    order: Vec<At>,
    shards: Box<[Shard]>,
    unsettled: Unsettled,
    /// Number of classes; with one there are no views of classes.
    classes: usize,
    keeps: Keeps,
    /// The order or the files are to be made anew before the next search.
    stale: bool,
    /// Grows with each new order: ranks of before mean nothing.
    numbering: u64,
}

impl Index {
    /// Returns an index without nodes that so many workers search apart.
    pub(crate) fn new(shards: usize) -> Self {
        Self {
            lines: Vec::new(),
            extras: Vec::new(),
            ids: Vec::new(),
            by_id: IdMap::default(),
            vacant: Vec::new(),
            order: Vec::new(),
            shards: (0..shards.max(1)).map(|_| Shard::default()).collect(),
            unsettled: Unsettled::default(),
            classes: 1,
            keeps: Keeps::default(),
            stale: false,
            numbering: 1,
        }
    }

    pub(crate) fn at(&self, node: NodeId) -> Option<At> {
        self.by_id.get(node).copied()
    }

    pub(crate) fn id(&self, at: At) -> NodeId {
        self.ids[at as usize].expect("a known node")
    }

    pub(crate) fn line(&self, at: At) -> &Line {
        &self.lines[at as usize]
    }

    pub(crate) fn extra(&self, at: At) -> &Extra {
        &self.extras[at as usize]
    }

    pub(crate) fn extra_mut(&mut self, at: At) -> &mut Extra {
        &mut self.extras[at as usize]
    }

    /// Returns a node's place in the order of ids, as skip sets name it. [`Self::prepare`] comes
    /// first.
    pub(crate) fn rank(&self, at: At) -> usize {
        self.lines[at as usize].rank as usize
    }

    /// Returns which numbering ranks are of: what was noted by rank under another is to be noted
    /// anew.
    pub(crate) const fn numbering(&self) -> u64 {
        self.numbering
    }

    /// Returns every node in the order of ids. [`Self::prepare`] comes first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = At> + '_ {
        self.order.iter().copied().filter(|&at| at != NOBODY)
    }

    /// Adds a node, or sets what it has free and where it belongs.
    pub(crate) fn upsert(&mut self, node: NodeId, stock: Stock) -> At {
        if let Some(at) = self.at(node) {
            self.change(at, stock);
            return at;
        }
        let mut line = Line::new(stock.free, stock.devices);
        (line.class, line.open, line.slots) = (stock.class, stock.open, stock.slots);
        self.stale |= self.last_id().is_some_and(|last| last > node);
        line.rank = u32::try_from(self.order.len()).expect("fewer nodes than 2^32");
        let at = if let Some(at) = self.vacant.pop() {
            self.lines[at as usize] = line;
            self.extras[at as usize] = Extra::default();
            self.ids[at as usize] = Some(node);
            at
        } else {
            self.lines.push(line);
            self.extras.push(Extra::default());
            self.ids.push(Some(node));
            At::try_from(self.lines.len() - 1).expect("fewer nodes than 2^32")
        };
        self.by_id.insert(node, at);
        self.order.push(at);
        if !self.stale {
            self.admit(at);
        }
        at
    }

    fn last_id(&self) -> Option<NodeId> {
        let last = self.order.iter().rev().find(|&&at| at != NOBODY);
        last.map(|&at| self.id(at))
    }

    fn change(&mut self, at: At, stock: Stock) {
        let line = &mut self.lines[at as usize];
        let class = line.class;
        line.set(stock.free, stock.devices);
        (line.open, line.slots) = (stock.open, stock.slots);
        if class != stock.class && !self.stale {
            let (shard, local) = self.place(at);
            self.files(shard).dismiss(local, class);
            self.lines[at as usize].class = stock.class;
            self.admit(at);
        } else {
            self.lines[at as usize].class = stock.class;
            self.touch(at);
        }
    }

    fn admit(&mut self, at: At) {
        let (shard, local) = self.place(at);
        let class = self.lines[at as usize].class;
        self.files(shard).admit(local, class);
        self.touch(at);
    }

    /// Takes a node out.
    pub(crate) fn remove(&mut self, node: NodeId) -> Option<At> {
        let at = self.by_id.remove(node)?;
        // Nothing of it may stay on a dirty stack: its place is given to another.
        self.tidy_all();
        if !self.stale {
            let (shard, local) = self.place(at);
            let class = self.lines[at as usize].class;
            self.files(shard).dismiss(local, class);
        }
        let rank = self.rank(at);
        self.order[rank] = NOBODY;
        self.ids[at as usize] = None;
        self.vacant.push(at);
        Some(at)
    }

    /// Returns every node in the order of ids, whether [`Self::prepare`] came before or not.
    pub(crate) fn by_id(&self) -> Vec<At> {
        let mut order: Vec<At> = self.iter().collect();
        if self.stale {
            order.sort_unstable_by_key(|&at| self.ids[at as usize]);
        }
        order
    }

    /// Sets what a node has free.
    pub(crate) fn set(&mut self, at: At, free: Amounts, devices: Remains) {
        self.lines[at as usize].set(free, devices);
        self.touch(at);
    }

    /// Tells how many classes there are now.
    pub(crate) fn set_classes(&mut self, classes: usize) {
        // From one class to several: views of classes begin to be kept.
        self.stale |= self.classes == 1 && classes > 1;
        self.classes = classes;
    }

    /// Sets how many classes there are and which each node is of.
    pub(crate) fn reclassify(&mut self, classes: usize, class_of: impl Fn(At) -> u32) {
        self.classes = classes;
        for at in self.order.iter().copied().filter(|&at| at != NOBODY) {
            self.lines[at as usize].class = class_of(at);
        }
        self.stale = true;
    }

    /// Begins to keep what a search in this order over these classes needs; before
    /// [`Self::prepare`].
    pub(crate) fn keep(&mut self, order: Order, allowed: &Allowed) {
        let before = self.keeps;
        match order {
            Order::Fullest => self.keeps.cells = true,
            Order::Emptiest => self.keeps.loads = true,
        }
        self.keeps.all |= match allowed {
            Allowed::All => true,
            Allowed::Some(classes) => classes.list.len() > CLASSES_APART,
        };
        self.stale |= before != self.keeps;
    }

    /// Makes the order and the files anew if something calls for it; before a search.
    ///
    /// # Complexity
    /// A pass over the nodes after a node came whose id is not the highest, and after classes
    /// changed; nothing otherwise.
    pub(crate) fn prepare(&mut self) {
        if !self.stale {
            return;
        }
        self.stale = false;
        self.tidy_links();
        self.numbering += 1;
        let ids = &self.ids;
        self.order.retain(|&at| at != NOBODY);
        self.order.sort_unstable_by_key(|&at| ids[at as usize]);
        for (rank, &at) in (0..).zip(&self.order) {
            self.lines[at as usize].rank = rank;
        }
        let (classes, keeps) = (self.classes, self.keeps);
        for shard in &mut self.shards {
            shard.files.0 = crate::sync::Mutex::new(Files::new(classes, keeps));
        }
        for rank in 0..self.order.len() {
            let at = self.order[rank];
            let (shard, local) = self.place(at);
            let class = self.lines[at as usize].class;
            let standing = self.standing(at);
            let files = self.files(shard);
            files.admit(local, class);
            files.file(local, standing);
        }
    }

    /// Notes that a node's words changed: it is filed anew before the next search of its shard.
    pub(crate) fn touch(&self, at: At) {
        let (shard, _) = self.place(at);
        let links = |at: At| &self.lines[at as usize].next_dirty;
        self.shards[shard].dirty.0.push(at, links);
    }

    /// Returns which shard a node is of, and its place there.
    fn place(&self, at: At) -> (usize, usize) {
        let rank = self.rank(at);
        let (block, shards) = (rank / 64, self.shards.len());
        (block % shards, block / shards * 64 + rank % 64)
    }

    fn at_place(&self, shard: usize, local: usize) -> At {
        self.order[(local / 64 * self.shards.len() + shard) * 64 + local % 64]
    }

    /// Returns how many tasks a node has.
    pub(crate) fn load(&self, at: At) -> u16 {
        let line = &self.lines[at as usize];
        load(line, line.free())
    }

    fn standing(&self, at: At) -> Standing {
        let line = &self.lines[at as usize];
        let free = line.free();
        Standing {
            free,
            load: load(line, free),
            class: line.class,
            open: line.open,
        }
    }

    fn files(&mut self, shard: usize) -> &mut Files {
        let files = self.shards[shard].files.0.get_mut();
        files.expect("nothing panics in a shard")
    }

    fn tidy_links(&self) {
        for shard in &self.shards {
            let links = |at: At| &self.lines[at as usize].next_dirty;
            shard.dirty.0.take(links, |_| {});
        }
    }

    fn tidy_all(&mut self) {
        if self.stale {
            self.tidy_links();
            return;
        }
        for shard in &self.shards {
            let mut files = shard.files.0.try_lock().expect("owned alone");
            self.tidy(shard, &mut files);
        }
    }

    /// Files anew what was changed from outside.
    fn tidy(&self, shard: &Shard, files: &mut Files) {
        let links = |at: At| &self.lines[at as usize].next_dirty;
        shard.dirty.0.take(links, |at| {
            let (_, local) = self.place(at);
            files.file(local, self.standing(at));
        });
    }

    /// Finds the first node in the order asked for that `judge` accepts and `take` reserves, by the
    /// files, beginning with those of shard `home`.
    ///
    /// `judge` is asked about nodes whose amounts suffice; it may hold the node for fit and be
    /// wrong, as `take` decides. Neither may search the index. The files are exact if nobody else
    /// is at work; otherwise nothing found means little: [`Self::find_anywhere`] knows.
    pub(crate) fn find<T, G>(
        &self,
        home: usize,
        ask: &Ask<'_>,
        judge: &mut impl FnMut(At) -> Option<T>,
        take: &mut impl FnMut(At, T) -> Option<G>,
    ) -> Option<(At, G)> {
        debug_assert!(!self.stale, "prepared before a search");
        for step in 0..self.shards.len() {
            let number = (home + step) % self.shards.len();
            let shard = &self.shards[number];
            // Never waited for: who is in there is looking for itself.
            let Ok(mut files) = shard.files.0.try_lock() else {
                continue;
            };
            self.tidy(shard, &mut files);
            while let Some((local, found)) = self.best(number, &mut files, ask, judge) {
                let at = self.at_place(number, local);
                let grant = take(at, found);
                files.file(local, self.standing(at));
                if let Some(grant) = grant {
                    return Some((at, grant));
                }
            }
        }
        None
    }

    /// Finds a node by the words of all of them, whoever is in which shard: it finds none only if
    /// no node had room throughout the call.
    ///
    /// # Complexity
    /// A pass over the nodes, and another for each reservation of several words that was under way
    /// meanwhile.
    pub(crate) fn find_anywhere<T, G>(
        &self,
        ask: &Ask<'_>,
        judge: &mut impl FnMut(At) -> Option<T>,
        take: &mut impl FnMut(At, T) -> Option<G>,
    ) -> Option<(At, G)> {
        loop {
            let mark = self.unsettled.mark();
            if let Some(found) = self.find_by_words(ask, judge, take) {
                return Some(found);
            }
            if self.unsettled.is_quiet_since(mark) {
                return None;
            }
            crate::sync::pause();
        }
    }

    /// Looks at the words of every node, in the order of ids, without entering a shard.
    fn find_by_words<T, G>(
        &self,
        ask: &Ask<'_>,
        judge: &mut impl FnMut(At) -> Option<T>,
        take: &mut impl FnMut(At, T) -> Option<G>,
    ) -> Option<(At, G)> {
        for (rank, &at) in self.order.iter().enumerate() {
            if at == NOBODY {
                continue;
            }
            let line = &self.lines[at as usize];
            let skipped = ask.skip.is_some_and(|skip| skip.contains(rank));
            if skipped || !line.open || !ask.allowed.contains(line.class) {
                continue;
            }
            while line.free().takes(ask.demand.amounts) {
                let Some(found) = judge(at) else { break };
                if let Some(grant) = take(at, found) {
                    self.touch(at);
                    return Some((at, grant));
                }
            }
        }
        None
    }

    /// Returns the best node of a shard.
    fn best<T>(
        &self,
        number: usize,
        files: &mut Files,
        ask: &Ask<'_>,
        judge: &mut impl FnMut(At) -> Option<T>,
    ) -> Option<(usize, T)> {
        let probe = Probe {
            amounts: ask.demand.amounts,
            skip: ask.skip,
            shard: number,
            shards: self.shards.len(),
        };
        assert!(self.keeps_order(ask.order), "kept before a search");
        let of_all = [0];
        let every: Vec<u32>;
        // The view of all nodes where it serves best and is kept, else those of the classes.
        let (views, base, filter) = match ask.allowed {
            _ if files.views.len() == 1 => {
                if !ask.allowed.contains(0) {
                    return None;
                }
                (&of_all[..], 0, None)
            }
            Allowed::Some(classes) if classes.list.len() <= CLASSES_APART || !self.keeps.all => {
                (classes.list.as_slice(), 1, None)
            }
            Allowed::Some(classes) => (&of_all[..], 0, Some(classes)),
            Allowed::All if self.keeps.all => (&of_all[..], 0, None),
            Allowed::All => {
                every = (0..u32::try_from(files.views.len() - 1).expect("few classes")).collect();
                (every.as_slice(), 1, None)
            }
        };
        let views = views.iter().map(|&class| base + class as usize);
        let mut test = |local: usize| {
            let at = self.at_place(number, local);
            let line = &self.lines[at as usize];
            let free = line.free();
            let fits = free.takes(probe.amounts)
                && filter.is_none_or(|classes| classes.contains(line.class));
            (free, if fits { judge(at) } else { None })
        };
        match ask.order {
            Order::Fullest => {
                let mut best = None;
                for view in views {
                    let bound = best.as_ref().map(|(cell, local, _)| (*cell, *local));
                    let Some(view) = files.views.get_mut(view) else {
                        continue;
                    };
                    let found = view.fullest(&files.blocks, &probe, bound, &mut test);
                    best = found.or(best);
                }
                best.map(|(_, local, found)| (local, found))
            }
            Order::Emptiest => {
                let loads = files.loads.as_deref().unwrap_or(&[]);
                let mut best = None;
                for view in views {
                    let bound = best.as_ref().map(|(load, local, _)| (*load, *local));
                    let Some(view) = files.views.get(view) else {
                        continue;
                    };
                    let found = view.emptiest(&files.blocks, loads, &probe, bound, &mut test);
                    best = found.or(best);
                }
                best.map(|(_, local, found)| (local, found))
            }
        }
    }

    fn keeps_order(&self, order: Order) -> bool {
        match order {
            Order::Fullest => self.keeps.cells,
            Order::Emptiest => self.keeps.loads,
        }
    }

    /// Takes what is demanded of one node; the node is filed anew later.
    pub(crate) fn take(&self, at: At, demand: &Demand) -> Option<Grant> {
        self.line(at).take(self.extra(at), demand, &self.unsettled)
    }

    /// Gives back what was taken of a node and files it anew: at once if nobody is in its shard.
    pub(crate) fn give(&self, at: At, grant: &Grant) {
        self.line(at).give(self.extra(at), grant);
        let (number, local) = self.place(at);
        if let Ok(mut files) = self.shards[number].files.0.try_lock() {
            files.file(local, self.standing(at));
        } else {
            self.touch(at);
        }
    }
}

fn load(line: &Line, free: Amounts) -> u16 {
    let tasks = i64::from(line.slots) - free.slots();
    u16::try_from(tasks.clamp(0, (1 << 15) - 1)).expect("15 bits")
}
