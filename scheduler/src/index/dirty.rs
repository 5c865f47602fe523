//! The nodes of a shard that somebody changed from outside.
//!
//! # Protocol
//!
//! A stack that is linked through the nodes themselves: a node's link is [`CLEAN`] while it is not
//! on the stack, so that it is pushed once however often it changes. Who changed a node's words
//! pushes it; who has entered the shard takes the whole stack, marks each node clean *before* it
//! reads its words, and files it by what it reads. A change after that reading finds the node
//! clean and pushes it again: none is lost. The stack is only ever taken whole, so that no link can
//! change under who walks it.

use crate::sync::{AtomicU32, Ordering};

/// Not on the stack.
pub(crate) const CLEAN: u32 = u32::MAX;
/// The end of the stack.
const END: u32 = u32::MAX - 1;

/// The top of a shard's stack.
#[derive(Debug)]
pub(crate) struct Dirty(AtomicU32);

impl Default for Dirty {
    fn default() -> Self {
        Self(AtomicU32::new(END))
    }
}

impl Dirty {
    /// Puts a node on the stack unless it is there; `links` gives each node's link.
    pub(crate) fn push<'a>(&self, node: u32, links: impl Fn(u32) -> &'a AtomicU32) {
        let link = links(node);
        // Taking the link from CLEAN makes this thread the one that pushes. Release: if it is on
        // the stack already, who takes it sees the words that this thread wrote before, as it
        // marks the node clean by a swap that reads this or a later value.
        let claimed = link.compare_exchange(CLEAN, END, Ordering::AcqRel, Ordering::Acquire);
        if claimed.is_err() {
            // On the stack already, or being taken off. A swap of the link with itself orders our
            // words before its being marked clean.
            if !touch(link) {
                self.push(node, links);
            }
            return;
        }
        let mut top = self.0.load(Ordering::Relaxed);
        loop {
            // A swap, not a store: a store would end the release sequence of who touched the link.
            link.swap(top, Ordering::AcqRel);
            // Release: pairs with the acquire of `take`.
            match self
                .0
                .compare_exchange_weak(top, node, Ordering::Release, Ordering::Relaxed)
            {
                Ok(_) => return,
                Err(now) => top = now,
            }
        }
    }

    /// Returns whether nothing is on the stack, without taking it.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.load(Ordering::Acquire) == END
    }

    /// Takes the whole stack and visits its nodes, each marked clean before.
    pub(crate) fn take<'a>(
        &self,
        links: impl Fn(u32) -> &'a AtomicU32,
        mut visit: impl FnMut(u32),
    ) {
        if self.is_empty() {
            return;
        }
        // Acquire: pairs with the release of `push`.
        let mut node = self.0.swap(END, Ordering::AcqRel);
        while node != END {
            // AcqRel: reads after it see what was written before any push that this swap ends.
            let next = links(node).swap(CLEAN, Ordering::AcqRel);
            visit(node);
            node = next;
        }
    }
}

/// Writes a link's own value over it, for the order of memory alone; returns false if the node
/// turned clean.
fn touch(link: &AtomicU32) -> bool {
    let same = |next: u32| (next != CLEAN).then_some(next);
    link.fetch_update(Ordering::AcqRel, Ordering::Acquire, same)
        .is_ok()
}
