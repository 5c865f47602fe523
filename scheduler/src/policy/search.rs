//! The search for the best node, by the plan of a query.

use super::{Plan, Query};
use crate::fleet::{Ledger, Topology};
use crate::index::{Allowed, Ask, At, BitSet, Index, Order};

/// Who searches.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Who {
    /// The shard to begin with.
    pub home: usize,
    /// Nobody else changes the index meanwhile.
    pub alone: bool,
}

/// One search.
pub(crate) struct Search<'a, J, K> {
    pub index: &'a Index,
    pub topologies: &'a [Topology],
    pub ledger: &'a mut Ledger,
    pub query: &'a Query,
    pub who: Who,
    /// Whether a node will do, and with what; may be wrong for the better.
    pub judge: J,
    /// Reserves there, if it still can.
    pub take: K,
}

impl<T, G, J, K> Search<'_, J, K>
where
    J: FnMut(At) -> Option<T>,
    K: FnMut(At, T) -> Option<G>,
{
    /// Returns the best node, reserved. Nothing is returned only if no node had room throughout.
    pub(crate) fn run(&mut self) -> Option<(At, G)> {
        let query = self.query;
        let found = match &query.plan {
            Plan::Plain(order) => self.plain(*order),
            Plan::Nodes => self.sparsest(&query.allowed),
            Plan::Places {
                topology, classes, ..
            } => self.sparsest_place(*topology, classes.as_deref()),
        };
        if found.is_some() || self.who.alone {
            return found;
        }
        let skip = (query.most > 0).then(|| self.ledger.full(self.index, query.most));
        let ask = ask(query, &query.allowed, skip, Order::Fullest);
        self.index
            .find_anywhere(&ask, &mut self.judge, &mut self.take)
    }

    fn plain(&mut self, order: Order) -> Option<(At, G)> {
        let query = self.query;
        let skip = (query.most > 0).then(|| self.ledger.full(self.index, query.most));
        let ask = ask(query, &query.allowed, skip, order);
        self.index
            .find(self.who.home, &ask, &mut self.judge, &mut self.take)
    }

    /// Returns the node with the fewest tasks of the service. Among nodes that have none the one
    /// with the fewest tasks at all, among the others the least id.
    fn sparsest(&mut self, allowed: &Allowed) -> Option<(At, G)> {
        let present = Some(self.ledger.present(self.index));
        let ask = ask(self.query, allowed, present, Order::Emptiest);
        let without = self
            .index
            .find(self.who.home, &ask, &mut self.judge, &mut self.take);
        if without.is_some() {
            return without;
        }
        for &(count, _, at) in self.ledger.by_count(self.index) {
            if self.query.most > 0 && count >= self.query.most {
                return None;
            }
            let line = self.index.line(at);
            if !line.is_open() || !allowed.contains(line.class()) {
                continue;
            }
            let found = take_there(self.index, self.query, at, &mut self.judge, &mut self.take);
            if let Some(grant) = found {
                return Some((at, grant));
            }
        }
        None
    }

    /// Returns a node of the value with the fewest tasks of the service that has one that fits.
    fn sparsest_place(&mut self, number: usize, classes: Option<&[Allowed]>) -> Option<(At, G)> {
        // A place is found full and the next is tried while the order stays as it is.
        let mut last = None;
        loop {
            let place = self.ledger.places(number, self.topologies).after(last)?;
            let value = self.topologies[number].number_at(place.1);
            let found = match classes {
                Some(classes) => match &classes[value as usize] {
                    Allowed::Some(none) if none.is_empty() => None,
                    allowed => self.sparsest(allowed),
                },
                None => self.sparsest_member(&self.topologies[number], value),
            };
            if found.is_some() {
                return found;
            }
            last = Some(place);
        }
    }

    /// Returns the same as [`Self::sparsest`] among the few nodes of one value.
    fn sparsest_member(&mut self, topology: &Topology, value: u32) -> Option<(At, G)> {
        let mut tried = None;
        loop {
            let mut best: Option<(u32, u16, usize, At)> = None;
            for &at in topology.members(value) {
                let line = self.index.line(at);
                let count = self.ledger.count(at);
                let many = self.query.most > 0 && count >= self.query.most;
                if many || !line.is_open() || !self.query.allowed.contains(line.class()) {
                    continue;
                }
                let load = if count == 0 { self.index.load(at) } else { 0 };
                let key = (count, load, self.index.rank(at), at);
                if Some(key) > tried
                    && best.is_none_or(|best| key < best)
                    && line.free().takes(self.query.demand.amounts)
                {
                    best = Some(key);
                }
            }
            let (_, _, _, at) = best?;
            let found = take_there(self.index, self.query, at, &mut self.judge, &mut self.take);
            if let Some(grant) = found {
                return Some((at, grant));
            }
            tried = best;
        }
    }
}

fn ask<'a>(
    query: &'a Query,
    allowed: &'a Allowed,
    skip: Option<&'a BitSet>,
    order: Order,
) -> Ask<'a> {
    Ask {
        demand: &query.demand,
        allowed,
        skip: skip.filter(|skip| !skip.is_empty()),
        order,
    }
}

/// Takes a node that was chosen otherwise than by the files.
fn take_there<T, G>(
    index: &Index,
    query: &Query,
    at: At,
    judge: &mut impl FnMut(At) -> Option<T>,
    take: &mut impl FnMut(At, T) -> Option<G>,
) -> Option<G> {
    while index.line(at).free().takes(query.demand.amounts) {
        let grant = take(at, judge(at)?);
        if grant.is_some() {
            index.touch(at);
            return grant;
        }
    }
    None
}
