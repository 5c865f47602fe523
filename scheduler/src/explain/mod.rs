//! Why a task fits nowhere: counted over all nodes, exactly.
//!
//! [`scan`] walks the nodes one by one; it is what the answer means. [`explain`] gives the same
//! counts from the digest: nodes that rules cannot tell apart are judged once, what they have free
//! is compared a block of nodes at a time, nodes that have as many replicas as they may are counted
//! by bits, and only nodes that rules single out otherwise (those with a task of a service in
//! question) and those with room for what the digest does not hold (devices, disk, sockets, named
//! resources, fixed ports) are judged by themselves.
//!
//! Which node came nearest is judged by CPU, memory, slots and dynamic ports; by what else is
//! asked for only among those that are alike in these.
//!
//! # Complexity
//! A pass over the blocks, of 128 nodes each; over the nodes of those where the border lies between
//! what fits and what does not; and one judgement for each node that is singled out.

mod count;
mod scan;
#[cfg(test)]
mod tests;
mod whatif;

use std::collections::BTreeSet;

use ballast_model::{Node, NodeId, ServiceId, Target, TopologyKey};

use crate::digest::{Block, Digest, Group, Mask};
use crate::fleet::Fleet;
use crate::index::At;
use crate::refusal::{Reason, Refusal};
use crate::request::Request;
use crate::rules::{Census, Rules};
use count::{Need, Part, Short};
use scan::{Count, Distance, distance};

pub(crate) use whatif::suggest;

/// Judges every node (or the one that was asked for) and counts why it does not fit.
pub(crate) fn explain(fleet: &Fleet, census: &Census, request: &Request<'_>) -> Refusal {
    if request.node.is_some() || !told_by_classes(fleet, request) {
        return scan::scan(fleet, census, request);
    }
    fleet.ask(|digest| Question::new(fleet, census, request, digest).answer(digest))
}

/// Returns whether nodes of one class are alike to every rule that is not about what runs there.
fn told_by_classes(fleet: &Fleet, request: &Request<'_>) -> bool {
    let placement = request.placement;
    let classes = fleet.classes();
    let over = |over: &TopologyKey| match over {
        TopologyKey::Node => true,
        TopologyKey::Label(label) => classes.tells(&ballast_model::NodeKey::Label(label.clone())),
    };
    classes.loose(&placement.constraints).is_empty()
        && placement.spread.iter().all(|rule| over(&rule.over))
        && placement.services.iter().all(|rule| over(&rule.over))
        && request.peers.repelling.iter().all(|rule| over(&rule.over))
}

/// The fleet as groups of nodes that are alike, for rules that survey it.
struct Kinds<'n> {
    fleet: &'n Fleet,
    groups: Vec<(&'n Node, usize)>,
}

impl<'n> Kinds<'n> {
    fn new(fleet: &'n Fleet, digest: &Digest) -> Self {
        let filled = digest.groups.iter().filter(|group| !group.ats.is_empty());
        let groups = filled.map(|group| (&fleet.entry(group.ats[0]).node, group.ats.len()));
        Self {
            fleet,
            groups: groups.collect(),
        }
    }
}

impl<'n> crate::rules::Fleet<'n> for Kinds<'n> {
    fn kinds(&self) -> impl Iterator<Item = (&'n Node, usize)> {
        self.groups.iter().copied()
    }

    fn node(&self, node: NodeId) -> Option<&'n Node> {
        self.fleet.get(node).map(|entry| &entry.node)
    }
}

/// A group whose nodes a rule excludes together.
struct Closed {
    group: usize,
    reason: Reason,
    /// All of them, and not only those that are not singled out.
    whole: bool,
}

/// Nodes of a group that are not counted with the others.
#[derive(Debug, Default)]
struct Apart {
    /// Rules may tell them from others like them: by tasks that run there.
    singled: Vec<At>,
    /// They have as many replicas as they may.
    full: Mask,
    /// All of these.
    hidden: Mask,
}

/// A request, put to the whole fleet.
struct Question<'a> {
    fleet: &'a Fleet,
    request: &'a Request<'a>,
    rules: Rules<'a>,
    need: Need,
    /// The digest holds all that the request needs.
    plain: bool,
    /// By group.
    apart: Vec<Apart>,
}

impl<'a> Question<'a> {
    fn new(
        fleet: &'a Fleet,
        census: &'a Census,
        request: &'a Request<'a>,
        digest: &mut Digest,
    ) -> Self {
        let plain = is_plain(request);
        Self {
            fleet,
            request,
            rules: Rules::new(request, census, &Kinds::new(fleet, digest)),
            need: Need::of(request, plain),
            plain,
            apart: apart(fleet, request, digest),
        }
    }

    fn answer(&self, digest: &Digest) -> Refusal {
        let mut counted = Count::default();
        let mut closed = Vec::new();
        let open = self.open_groups(digest, &mut counted, &mut closed);
        self.count_room(digest, &open, &mut counted);
        for closed in closed {
            self.approach_group(&digest.groups[closed.group], closed, &mut counted);
        }
        counted.finish(self.request)
    }

    /// Judges each group; returns those whose nodes the rules allow.
    fn open_groups<'n>(
        &'n self,
        digest: &Digest,
        counted: &mut Count<'n>,
        closed: &mut Vec<Closed>,
    ) -> Vec<usize> {
        let mut open = Vec::new();
        for (number, group) in digest.groups.iter().enumerate() {
            if group.ats.is_empty() {
                continue;
            }
            let node = &self.fleet.entry(group.ats[0]).node;
            let nodes = u32::try_from(group.ats.len()).unwrap_or(u32::MAX);
            if let Err(reason) = self.rules.judge_class(node) {
                counted.exclude_many(reason.clone(), nodes);
                closed.push(Closed {
                    group: number,
                    reason,
                    whole: true,
                });
                continue;
            }
            let near = if self.needs_company() {
                self.rules.judge_node(&stranger(node))
            } else {
                Ok(())
            };
            match near {
                // Nobody whose tasks are sought is there.
                Err(reason) => {
                    let singled = self.judge_singled(number, counted);
                    if nodes > singled {
                        counted.exclude_many(reason.clone(), nodes - singled);
                        closed.push(Closed {
                            group: number,
                            reason,
                            whole: singled == 0,
                        });
                    }
                }
                Ok(()) => open.push(number),
            }
        }
        open
    }

    /// Returns whether a node must have tasks of some service: all other rules about what runs on
    /// a node allow one on which nothing does.
    fn needs_company(&self) -> bool {
        let services = &self.request.placement.services;
        services
            .iter()
            .any(|rule| rule.required && rule.weight >= 0 && rule.over == TopologyKey::Node)
    }

    /// Takes note of how near nodes are that a rule excludes together.
    fn approach_group<'n>(&'n self, group: &Group, closed: Closed, counted: &mut Count<'n>) {
        let Closed {
            reason,
            whole,
            group: number,
        } = closed;
        let distance = distance(&reason, self.fleet.entry(group.ats[0]), self.request);
        // The first by id is told; it is only looked for if it matters.
        if !counted.is_nearer(distance) {
            return;
        }
        let hidden = &self.apart[number].hidden;
        let first = if whole {
            group.first()
        } else {
            let left = |block: &Block| hidden.count_in(block) < block.places.len();
            group.first_of(left, |place| !hidden.has(place))
        };
        if let Some(at) = first {
            counted.approach(distance, self.fleet.entry(at), reason);
        }
    }

    /// Judges the nodes of a group that are singled out; returns how many they are.
    fn judge_singled<'n>(&'n self, group: usize, counted: &mut Count<'n>) -> u32 {
        let singled = &self.apart[group].singled;
        for &at in singled {
            counted.take(self.fleet.entry(at), &self.rules, self.request);
        }
        u32::try_from(singled.len()).unwrap_or(u32::MAX)
    }

    /// Counts the nodes of a group that have as many replicas as they may.
    fn count_full<'n>(&'n self, group: &Group, full: &Mask, counted: &mut Count<'n>) {
        let nodes = full.count();
        if nodes == 0 {
            return;
        }
        let reason = Reason::MaxReplicas(self.request.placement.max_replicas_per_node);
        counted.exclude_many(reason.clone(), nodes);
        let distance = distance(&reason, self.fleet.entry(group.ats[0]), self.request);
        if counted.is_nearer(distance) {
            let may = |block: &Block| full.count_in(block) > 0;
            if let Some(first) = group.first_of(may, |place| full.has(place)) {
                counted.approach(distance, self.fleet.entry(first), reason);
            }
        }
    }

    /// Counts nodes that the rules allow.
    fn count_room<'n>(&'n self, digest: &Digest, open: &[usize], counted: &mut Count<'n>) {
        let mut short = Short::default();
        let mut parts = Vec::with_capacity(open.len());
        for &number in open {
            let (group, apart) = (&digest.groups[number], &self.apart[number]);
            let hidden = &apart.hidden;
            let part = Part { group, hidden };
            parts.push(part);
            self.judge_singled(number, counted);
            let before = short.nodes();
            short.add(part, &self.need);
            let all = u32::try_from(group.ats.len()).unwrap_or(u32::MAX);
            let left = all - hidden.count() - (short.nodes() - before);
            if self.plain {
                counted.fit_many(left);
            } else if left > 0 {
                for place in part.fitting(&self.need) {
                    let entry = self.fleet.entry(group.ats[place]);
                    counted.take(entry, &self.rules, self.request);
                }
            }
        }
        for (reason, nodes) in short.reasons(&self.need) {
            counted.exclude_many(reason, nodes);
        }
        if short.nodes() > 0 {
            for (at, reason) in count::nearest(&parts, &self.need) {
                let entry = self.fleet.entry(at);
                let distance: Distance = distance(&reason, entry, self.request);
                counted.approach(distance, entry, reason);
            }
        }
        for &number in open {
            let full = &self.apart[number].full;
            self.count_full(&digest.groups[number], full, counted);
        }
    }
}

/// Returns whether the digest holds all that a request needs of a node.
fn is_plain(request: &Request<'_>) -> bool {
    let wanted = request.resources;
    let fixed = |port: &ballast_model::PortSpec| matches!(port.target, Target::Fixed(_));
    wanted.disk.0 == 0
        && wanted.devices.count == 0
        && wanted.custom.is_empty()
        && request.placement.sockets == 0
        && !request.ports.iter().any(fixed)
}

/// Returns a node like this one on which nobody's tasks run.
fn stranger(node: &Node) -> Node {
    Node {
        // Ids are drawn: nobody has this one.
        id: NodeId::from_bits(u64::MAX),
        ..node.clone()
    }
}

/// Returns, for each group, the nodes that rules may tell from others like them: by tasks that run
/// there.
fn apart(fleet: &Fleet, request: &Request<'_>, digest: &mut Digest) -> Vec<Apart> {
    let placement = request.placement;
    let mut services: BTreeSet<ServiceId> = BTreeSet::new();
    let over_nodes = |rule: &ballast_model::SpreadRule| rule.over == TopologyKey::Node;
    let mut spread = placement.spread.iter();
    if spread.any(|rule| over_nodes(rule) && rule.max_skew > 0) {
        services.insert(request.service);
    }
    for (place, rule) in placement.services.iter().enumerate() {
        if rule.required && rule.over == TopologyKey::Node {
            services.extend(request.peer(place));
        }
    }
    let repelling = request.peers.repelling.iter();
    let repelling = repelling.filter(|rule| rule.over == TopologyKey::Node);
    services.extend(repelling.map(|rule| rule.service));
    let most = placement.max_replicas_per_node;
    // Where other rules ask about single nodes, too, it matters which says no first.
    let by_bits = most > 0 && services.is_empty() && placement.services.is_empty();
    if most > 0 && !by_bits {
        services.insert(request.service);
    }
    let full = by_bits.then(|| {
        let nodes = || fleet.nodes_with(request.service, most);
        digest.full(request.service, most, nodes)
    });
    let mut apart: Vec<Apart> = digest.groups.iter().map(|_| Apart::default()).collect();
    let kept = request.kept.iter();
    let kept = kept.filter_map(|node| fleet.index.at(*node));
    let singled: BTreeSet<At> = services
        .iter()
        .flat_map(|service| fleet.nodes_with(*service, 1))
        .chain(kept)
        .collect();
    for at in singled {
        if let Some(place) = digest.place(at) {
            let apart = &mut apart[place.group];
            apart.singled.push(at);
            apart.hidden.put(place.place, true);
        }
    }
    if let Some(full) = full {
        for (apart, group) in apart.iter_mut().zip(&digest.groups) {
            apart.full = group.full[full].clone();
            apart.full.leave(&apart.hidden);
            apart.hidden.join(&apart.full);
        }
    }
    apart
}
