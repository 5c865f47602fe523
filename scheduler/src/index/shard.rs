//! A shard: every so-manieth block of nodes, filed where one worker at a time finds them.
//!
//! # Protocol
//!
//! Who wants to search enters with `try_lock` and goes elsewhere if that fails; nobody ever waits.
//! On entry the dirty stack is taken and its nodes are filed anew. The files are hints: whether a
//! node takes a task its words decide, which others change at any time without entering.

use super::block::{Block, Loads};
use super::cell::Cell;
use super::dirty::Dirty;
use super::view::View;
use super::words::Amounts;
use crate::sync::{Apart, Mutex};

/// A shard's files, their lock, and what was changed from outside.
#[derive(Debug, Default)]
pub(crate) struct Shard {
    pub files: Apart<Mutex<Files>>,
    pub dirty: Apart<Dirty>,
}

/// Which orders are kept: each costs a little with every change, so it is kept from the first
/// request on that needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Keeps {
    /// Nodes by cell.
    pub cells: bool,
    /// Nodes by their number of tasks.
    pub loads: bool,
    /// Both over all nodes, where there are several classes.
    pub all: bool,
}

/// Where each node of a shard is filed. View 0 has all of them; if there are several classes, view
/// `1 + class` those of one.
#[derive(Debug)]
pub(crate) struct Files {
    pub blocks: Vec<Block>,
    /// The same, node by node.
    filed: Vec<Filed>,
    /// The order by tasks, once somebody asked for it.
    pub loads: Option<Vec<Loads>>,
    pub views: Vec<View>,
    keeps: Keeps,
}

impl Default for Files {
    fn default() -> Self {
        Self::new(1, Keeps::default())
    }
}

/// Where a node is filed.
#[derive(Debug, Clone, Copy, Default)]
struct Filed {
    cell: Option<Cell>,
    /// 0 if it is filed nowhere, or nobody asked for the order by tasks.
    load: u16,
}

/// What a node is filed by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Standing {
    pub free: Amounts,
    /// Tasks on it.
    pub load: u16,
    pub class: u32,
    /// Whether anything may be placed there.
    pub open: bool,
}

impl Standing {
    /// Returns the cell, if the node can take anything at all.
    fn cell(self) -> Option<Cell> {
        let takes = self.open && self.free.is_settled() && self.free.slots() > 0;
        takes.then(|| Cell::of(self.free))
    }
}

impl Files {
    /// Returns files without nodes, that keep these orders of so many classes.
    pub(crate) fn new(classes: usize, keeps: Keeps) -> Self {
        let views = if classes > 1 { 1 + classes } else { 1 };
        Self {
            blocks: Vec::new(),
            filed: Vec::new(),
            loads: keeps.loads.then(Vec::new),
            views: (0..views).map(|_| View::default()).collect(),
            keeps,
        }
    }

    /// Makes room for a node that was not known here; it is filed nowhere yet.
    pub(crate) fn admit(&mut self, local: usize, class: u32) {
        let blocks = local / 64 + 1;
        if blocks > self.blocks.len() {
            self.blocks.resize_with(blocks, Block::default);
            self.filed.resize(blocks * 64, Filed::default());
            if let Some(loads) = &mut self.loads {
                loads.resize_with(blocks, Loads::default);
            }
        }
        self.set_member(local, class, true);
    }

    /// Takes a node out.
    pub(crate) fn dismiss(&mut self, local: usize, class: u32) {
        self.unfile(local, class);
        self.set_member(local, class, false);
    }

    fn set_member(&mut self, local: usize, class: u32, belongs: bool) {
        self.views[0].set_member(local, belongs);
        if self.views.len() > 1 {
            let view = 1 + class as usize;
            if view >= self.views.len() {
                self.views.resize_with(view + 1, View::default);
            }
            self.views[view].set_member(local, belongs);
        }
    }

    /// Files a node anew.
    pub(crate) fn file(&mut self, local: usize, standing: Standing) {
        let (block, bit) = (local / 64, bit(local));
        let Filed { cell: before, load } = self.filed[local];
        let after = standing.cell();
        if before != after {
            self.blocks[block].set(bit, before, after);
            self.filed[local].cell = after;
        }
        if self.keeps.cells {
            // In the same cell it may have more of something.
            if let (Some(before), true) = (before, before != after) {
                let here = self.blocks[block].at(before);
                self.each_view(standing.class, |view| view.leave(block, before, here));
            }
            if let Some(after) = after {
                let free = standing.free;
                self.each_view(standing.class, |view| view.enter(block, after, free));
            }
        }
        if self.loads.is_some() {
            let before = before.map(|_| load);
            let after = after.map(|_| standing.load);
            self.file_load(local, before, after, standing.class);
        }
    }

    fn file_load(&mut self, local: usize, before: Option<u16>, after: Option<u16>, class: u32) {
        let (block, bit) = (local / 64, bit(local));
        if before == after {
            return;
        }
        let filed = self.blocks[block].filed();
        let loads = self.loads.as_mut().expect("asked for");
        let load = after.unwrap_or(0);
        loads[block].set(bit, before.unwrap_or(0), load);
        self.filed[local].load = load;
        if let Some(before) = before {
            let here = loads[block].at(before) & filed;
            self.each_view(class, |view| view.leave_load(block, before, here));
        }
        if let Some(after) = after {
            self.each_view(class, |view| view.enter_load(block, after));
        }
    }

    fn unfile(&mut self, local: usize, class: u32) {
        let nothing = Standing {
            free: Amounts::default(),
            load: 0,
            class,
            open: false,
        };
        self.file(local, nothing);
    }

    fn each_view(&mut self, class: u32, mut change: impl FnMut(&mut View)) {
        if self.views.len() == 1 {
            change(&mut self.views[0]);
            return;
        }
        if self.keeps.all {
            change(&mut self.views[0]);
        }
        change(&mut self.views[1 + class as usize]);
    }
}

#[expect(clippy::cast_possible_truncation, reason = "below 64")]
const fn bit(local: usize) -> u32 {
    (local % 64) as u32
}
