//! Custom resources of a node: a counter for each kind.

use crate::sync::{AtomicI64, Ordering};

/// What is free of each custom resource. Kinds are numbers that the index gives to names; a node
/// has few.
#[derive(Debug, Default)]
pub(crate) struct Custom(Box<[(u32, AtomicI64)]>);

impl Custom {
    /// Returns counters with these amounts free.
    pub(crate) fn of(amounts: impl IntoIterator<Item = (u32, i64)>) -> Self {
        let counters = amounts.into_iter();
        Self(
            counters
                .map(|(kind, free)| (kind, AtomicI64::new(free)))
                .collect(),
        )
    }

    /// Returns what is free; below zero if capacity shrank under running tasks.
    pub(crate) fn free(&self, kind: u32) -> i64 {
        // Acquire: pairs with the release of whoever changed it.
        self.counter(kind)
            .map_or(0, |counter| counter.load(Ordering::Acquire))
    }

    pub(crate) fn has(&self, kind: u32, amount: u32) -> bool {
        amount == 0 || self.free(kind) >= i64::from(amount)
    }

    /// Takes an amount; returns whether it was there.
    pub(crate) fn take(&self, kind: u32, amount: u32) -> bool {
        if amount == 0 {
            return true;
        }
        let Some(counter) = self.counter(kind) else {
            return false;
        };
        let less = |free: i64| (free >= i64::from(amount)).then(|| free - i64::from(amount));
        counter
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, less)
            .is_ok()
    }

    /// Gives an amount back; of a kind that is gone, nothing.
    pub(crate) fn give(&self, kind: u32, amount: u32) {
        if let Some(counter) = self.counter(kind) {
            counter.fetch_add(i64::from(amount), Ordering::AcqRel);
        }
    }

    fn counter(&self, kind: u32) -> Option<&AtomicI64> {
        let known = self.0.iter().find(|(known, _)| *known == kind);
        known.map(|(_, counter)| counter)
    }
}
