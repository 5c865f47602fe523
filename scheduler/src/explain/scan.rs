//! The plain walk over all nodes: what the counts mean.

use ballast_model::Shortage;

use crate::fleet::{Entry, Fleet};
use crate::refusal::{Excluded, NearestMiss, Reason, Refusal};
use crate::request::Request;
use crate::rules::{Census, Judged, Rules};

/// How far from fitting a node is: the class of the rule, then how much of the request it lacks.
pub(super) type Distance = (u8, u64);

/// Judges every node (or the one that was asked for) and counts why it does not fit.
///
/// # Complexity
/// One pass over the nodes.
pub(super) fn scan(fleet: &Fleet, census: &Census, request: &Request<'_>) -> Refusal {
    let rules = Rules::new(request, census, &Judged(fleet));
    let mut counted = Count::default();
    match request.node {
        None => {
            for entry in fleet.iter() {
                counted.take(entry, &rules, request);
            }
        }
        Some(id) => match fleet.get(id) {
            Some(entry) => counted.take(entry, &rules, request),
            None => counted.exclude(Reason::Unknown),
        },
    }
    counted.finish(request)
}

/// What was counted so far.
#[derive(Default)]
pub(super) struct Count<'a> {
    nodes: u32,
    fit: u32,
    excluded: Vec<Excluded>,
    nearest: Option<(Distance, &'a Entry, Reason)>,
}

impl<'a> Count<'a> {
    /// Judges a node and counts it.
    pub(super) fn take(&mut self, entry: &'a Entry, rules: &Rules<'_>, request: &Request<'_>) {
        let judged = rules.judge(&entry.node);
        match judged.and_then(|()| entry.judge_room(request)) {
            Ok(_) => {
                self.nodes += 1;
                self.fit += 1;
            }
            Err(reason) => {
                let distance = distance(&reason, entry, request);
                self.approach(distance, entry, reason.clone());
                self.exclude(reason);
            }
        }
    }

    /// Returns whether a node at this distance would be the nearest, or as near as it.
    pub(super) fn is_nearer(&self, distance: Distance) -> bool {
        self.nearest.as_ref().is_none_or(|best| distance <= best.0)
    }

    /// Takes note of a node's distance; of nodes that are as near the one with the least id is
    /// told.
    pub(super) fn approach(&mut self, distance: Distance, entry: &'a Entry, reason: Reason) {
        let rank = |distance, entry: &Entry| (distance, entry.node.id);
        let known = self.nearest.as_ref();
        if known.is_none_or(|best| rank(distance, entry) < rank(best.0, best.1)) {
            self.nearest = Some((distance, entry, reason));
        }
    }

    /// Counts nodes that fit.
    pub(super) fn fit_many(&mut self, nodes: u32) {
        self.nodes += nodes;
        self.fit += nodes;
    }

    fn exclude(&mut self, reason: Reason) {
        self.exclude_many(reason, 1);
    }

    /// Counts nodes that are excluded alike.
    pub(super) fn exclude_many(&mut self, reason: Reason, nodes: u32) {
        self.nodes += nodes;
        let Some(known) = self
            .excluded
            .iter_mut()
            .find(|e| e.reason.is_alike(&reason))
        else {
            self.excluded.push(Excluded { reason, nodes });
            return;
        };
        known.nodes += nodes;
        // Alike but for the amount: the least lack is the one worth telling.
        if reason < known.reason {
            known.reason = reason;
        }
    }

    pub(super) fn finish(mut self, request: &Request<'_>) -> Refusal {
        self.excluded
            .sort_by(|a, b| (b.nodes, &a.reason).cmp(&(a.nodes, &b.reason)));
        let nearest = self.nearest.map(|(_, entry, reason)| {
            let lacks = match reason {
                Reason::Cpu(_)
                | Reason::Memory(_)
                | Reason::Slots
                | Reason::Port(_)
                | Reason::DynamicPorts
                | Reason::Disk(_)
                | Reason::Devices { .. }
                | Reason::Custom { .. }
                | Reason::Socket => {
                    let lacks = entry.shortages(request);
                    lacks.into_iter().map(Reason::from).collect()
                }
                other => vec![other],
            };
            NearestMiss {
                node: entry.node.description.name.clone(),
                lacks,
            }
        });
        Refusal {
            nodes: self.nodes,
            fit: self.fit,
            excluded: self.excluded,
            nearest,
        }
    }
}

/// Returns how far a node is from fitting. A shortage is nearer than a rule, and a rule nearer
/// than a node that takes nothing at all: the nearer, the smaller the change that would help.
pub(super) fn distance(reason: &Reason, entry: &Entry, request: &Request<'_>) -> Distance {
    match reason {
        Reason::Cpu(_)
        | Reason::Memory(_)
        | Reason::Disk(_)
        | Reason::Slots
        | Reason::Port(_)
        | Reason::DynamicPorts
        | Reason::Devices { .. }
        | Reason::Custom { .. }
        | Reason::Socket => {
            let wanted = request.resources;
            let lack = |shortage: &Shortage| match shortage {
                Shortage::Cpu(lack) => per_mille(lack.0.into(), wanted.cpu.0.into()),
                Shortage::Memory(lack) => per_mille(lack.0, wanted.memory.0),
                Shortage::Disk(lack) => per_mille(lack.0, wanted.disk.0),
                Shortage::Slots
                | Shortage::Port(_)
                | Shortage::NoFreePort
                | Shortage::Devices { .. }
                | Shortage::Custom { .. }
                | Shortage::Socket => 1000,
            };
            (0, entry.shortages(request).iter().map(lack).sum())
        }
        Reason::Kept => (1, 0),
        Reason::MaxReplicas(_) | Reason::Skew { .. } => (1, 1),
        Reason::Near { .. } | Reason::Apart { .. } | Reason::Repelled { .. } => (1, 2),
        Reason::NoLabel(_) => (1, 3),
        Reason::NoService(_) => (1, 4),
        Reason::Constraint(_) => {
            let constraints = request.placement.constraints.iter();
            let broken = constraints.filter(|c| !entry.node.meets(c)).count();
            (2, broken as u64)
        }
        Reason::Taint(_) => (2, 1000),
        Reason::Suspect => (3, 0),
        Reason::Paused => (4, 0),
        Reason::Drained => (5, 0),
        Reason::Down | Reason::Unknown => (6, 0),
    }
}

fn per_mille(part: u64, whole: u64) -> u64 {
    part.saturating_mul(1000) / whole.max(1)
}
