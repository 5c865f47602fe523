//! Bin packing: the node that is fullest.

use super::{Choice, Search};
use crate::index::{Cell, Class, Rank};

impl Search<'_> {
    /// Returns the node with the least free CPU × memory, then the fewest tasks, then the least id.
    pub(super) fn fullest(&self) -> Option<Choice> {
        let mut best: Option<((Cell, Rank), Choice)> = None;
        for &class in &self.classes {
            let bound = best.as_ref().map(|(order, _)| *order);
            let class = &self.index.classes()[class];
            if let Some(found) = self.fullest_of(class, bound) {
                best = Some(found);
            }
        }
        best.map(|(_, choice)| choice)
    }

    /// Returns the same among the nodes of one class that come before `bound`.
    fn fullest_of(
        &self,
        class: &Class,
        bound: Option<(Cell, Rank)>,
    ) -> Option<((Cell, Rank), Choice)> {
        let wanted = self.request.resources;
        let least = Cell::of(wanted.cpu, wanted.memory);
        let mut last = None;
        while let Some(cell) = class.grid.next(least, last) {
            for rank in class.grid.nodes(cell) {
                if bound.is_some_and(|bound| bound < (cell, rank)) {
                    return None;
                }
                if let Some(offer) = self.judge(rank.at) {
                    return Some(((cell, rank), Choice { at: rank.at, offer }));
                }
            }
            last = Some(cell);
        }
        None
    }
}
