//! Why a task fits nowhere: counted over all nodes, exactly.
//!
//! [`scan`] walks the nodes one by one; it is what the answer means. [`explain`] gives the same
//! counts from the digest: nodes that rules cannot tell apart are judged once, what they have free
//! is compared several nodes at a time, and only nodes that rules single out (those with a task of
//! a service in question) and those with room for what the digest does not hold (devices, disk,
//! sockets, named resources, fixed ports) are judged by themselves.
//!
//! Which node came nearest is judged by CPU, memory, slots and dynamic ports; by what else is
//! asked for only among those that are alike in these.
//!
//! # Complexity
//! A pass over five numbers of each node, plus one judgement for each node that is singled out.

mod count;
mod scan;
#[cfg(test)]
mod tests;
mod whatif;

use std::collections::BTreeSet;

use ballast_model::{Node, NodeId, ServiceId, Target, TopologyKey};

use crate::digest::{Digest, Facts, Group};
use crate::fleet::Fleet;
use crate::index::At;
use crate::refusal::{Reason, Refusal};
use crate::request::Request;
use crate::rules::{Census, Rules};
use count::{Need, Short};
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
struct Closed<'g> {
    group: &'g Group,
    reason: Reason,
    /// All of them, and not only those that are not singled out.
    whole: bool,
}

/// A request, put to the whole fleet.
struct Question<'a> {
    fleet: &'a Fleet,
    request: &'a Request<'a>,
    rules: Rules<'a>,
    need: Need,
    /// The digest holds all that the request needs.
    plain: bool,
    /// Nodes that rules single out.
    singled: BTreeSet<At>,
}

impl<'a> Question<'a> {
    fn new(
        fleet: &'a Fleet,
        census: &'a Census,
        request: &'a Request<'a>,
        digest: &Digest,
    ) -> Self {
        let plain = is_plain(request);
        Self {
            fleet,
            request,
            rules: Rules::new(request, census, &Kinds::new(fleet, digest)),
            need: Need::of(request, plain),
            plain,
            singled: singled(fleet, request),
        }
    }

    fn answer(&self, digest: &mut Digest) -> Refusal {
        let hidden = self.hide(digest);
        let refusal = self.count(digest);
        for (at, facts) in hidden {
            if let Some(place) = digest.place(at) {
                digest.groups[place.group].set(place.place, facts);
            }
        }
        refusal
    }

    /// Makes nodes that are singled out have room for everything, so that none of the comparisons
    /// excludes them; returns what they had.
    fn hide(&self, digest: &mut Digest) -> Vec<(At, Facts)> {
        let mut hidden = Vec::with_capacity(self.singled.len());
        for &at in &self.singled {
            if let Some(place) = digest.place(at) {
                let group = &mut digest.groups[place.group];
                hidden.push((at, group.facts(place.place)));
                group.set(place.place, Facts::ALL);
            }
        }
        hidden
    }

    fn count(&self, digest: &Digest) -> Refusal {
        let mut counted = Count::default();
        let mut closed = Vec::new();
        let open = self.open_groups(digest, &mut counted, &mut closed);
        self.count_room(&open, &mut counted);
        for closed in closed {
            self.approach_group(closed, &mut counted);
        }
        counted.finish(self.request)
    }

    /// Judges each group; returns those whose nodes the rules allow.
    fn open_groups<'n, 'g>(
        &'n self,
        digest: &'g Digest,
        counted: &mut Count<'n>,
        closed: &mut Vec<Closed<'g>>,
    ) -> Vec<&'g Group> {
        let mut open = Vec::new();
        for group in digest.groups.iter().filter(|group| !group.ats.is_empty()) {
            let node = &self.fleet.entry(group.ats[0]).node;
            let nodes = u32::try_from(group.ats.len()).unwrap_or(u32::MAX);
            if let Err(reason) = self.rules.judge_class(node) {
                counted.exclude_many(reason.clone(), nodes);
                closed.push(Closed {
                    group,
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
                    let singled = self.judge_singled(group, counted);
                    if nodes > singled {
                        counted.exclude_many(reason.clone(), nodes - singled);
                        closed.push(Closed {
                            group,
                            reason,
                            whole: singled == 0,
                        });
                    }
                }
                Ok(()) => open.push(group),
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
    fn approach_group<'n>(&'n self, closed: Closed<'_>, counted: &mut Count<'n>) {
        let Closed {
            group,
            reason,
            whole,
        } = closed;
        let distance = distance(&reason, self.fleet.entry(group.ats[0]), self.request);
        // The first by id is told; it is only looked for if it matters.
        if !counted.is_nearer(distance) {
            return;
        }
        let first = if whole {
            group.first()
        } else {
            let left = group.ids.iter().zip(&group.ats);
            let left = left.filter(|(_, at)| !self.singled.contains(at));
            left.min().map(|(_, at)| *at)
        };
        if let Some(at) = first {
            counted.approach(distance, self.fleet.entry(at), reason);
        }
    }

    /// Judges the nodes of a group that are singled out; returns how many they are.
    fn judge_singled<'n>(&'n self, group: &Group, counted: &mut Count<'n>) -> u32 {
        if self.singled.is_empty() {
            return 0;
        }
        let mut judged = 0;
        let own = group.ats.iter().filter(|at| self.singled.contains(at));
        for &at in own {
            counted.take(self.fleet.entry(at), &self.rules, self.request);
            judged += 1;
        }
        judged
    }

    /// Counts nodes that the rules allow.
    fn count_room<'n>(&'n self, open: &[&Group], counted: &mut Count<'n>) {
        let mut short = Short::default();
        for group in open {
            let before = short.nodes();
            short.add(group, &self.need);
            let all = u32::try_from(group.ats.len()).unwrap_or(u32::MAX);
            let left = all - (short.nodes() - before);
            if left == 0 {
                continue;
            }
            if self.plain && self.singled.is_empty() {
                counted.fit_many(left);
                continue;
            }
            for at in short_of_nothing(group, &self.need) {
                if self.plain && !self.singled.contains(&at) {
                    counted.fit_many(1);
                } else {
                    counted.take(self.fleet.entry(at), &self.rules, self.request);
                }
            }
        }
        for (reason, nodes) in short.reasons(&self.need) {
            counted.exclude_many(reason, nodes);
        }
        if short.nodes() > 0 {
            for (at, reason) in count::nearest(open, &self.need) {
                let entry = self.fleet.entry(at);
                let distance: Distance = distance(&reason, entry, self.request);
                counted.approach(distance, entry, reason);
            }
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

fn short_of_nothing<'g>(group: &'g Group, need: &'g Need) -> impl Iterator<Item = At> + 'g {
    let fits = |place: &usize| need.short(&group.facts(*place)).is_none();
    (0..group.ats.len())
        .filter(fits)
        .map(|place| group.ats[place])
}

/// Returns the nodes that a rule may tell from others like them: by tasks that run there.
fn singled(fleet: &Fleet, request: &Request<'_>) -> BTreeSet<At> {
    let placement = request.placement;
    let mut services: BTreeSet<ServiceId> = BTreeSet::new();
    let skews = placement
        .spread
        .iter()
        .any(|rule| rule.over == TopologyKey::Node && rule.max_skew > 0);
    if placement.max_replicas_per_node > 0 || skews {
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
    let kept = request.kept.iter();
    let kept = kept.filter_map(|node| fleet.index.at(*node));
    services
        .iter()
        .flat_map(|service| fleet.nodes_of(*service))
        .chain(kept)
        .collect()
}
