//! A request's rules as the index can use them: classes in tiers, and nodes to leave out.
//!
//! | rule | becomes |
//! | --- | --- |
//! | taints, service affinity over a label | classes that are left out |
//! | `PreferNoSchedule`, affinities, wishes for services over a label | tiers of classes, the best liked first |
//! | required anti-affinity of a service to itself over nodes | one task of it on a node |
//! | required anti-affinity to others over nodes, nodes that are kept | nodes that are left out |
//!
//! The rest is for the [`super::scan()`]: a skew, several spread rules, wishes over nodes, having to
//! be near on one node, conditions on what classes do not tell apart, and whatever is for one node.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use ballast_model::{NodeId, NodeKey, ServiceAffinity, TopologyKey};

use super::{Census, Fleet, Liking, Rules};
use crate::fleet::ClassTable;
use crate::index::{Allowed, Classes};
use crate::request::Request;

/// Nodes left out one by one at most: each candidate is compared with all of them.
const LEFT_OUT: usize = 256;

/// What a request's rules leave of the fleet.
#[derive(Debug)]
pub(crate) struct Tiers {
    /// Classes that may take the task, the best liked first.
    pub classes: Vec<Classes>,
    /// Nodes that may not.
    pub left_out: Vec<NodeId>,
    /// Whether the service may have one task on a node only.
    pub alone: bool,
}

/// No fleet: for rules whose labels the census has learnt and that have no skew.
struct Nowhere;

impl<'n> Fleet<'n> for Nowhere {
    fn kinds(&self) -> impl Iterator<Item = (&'n ballast_model::Node, usize)> {
        std::iter::empty()
    }

    fn node(&self, _: NodeId) -> Option<&'n ballast_model::Node> {
        None
    }
}

/// Returns whether a request has rules beyond what a query knows.
pub(crate) fn has_rules(request: &Request<'_>, tainted: bool) -> bool {
    let placement = request.placement;
    tainted
        || !placement.affinities.is_empty()
        || !placement.services.is_empty()
        || placement.spread.len() > 1
        || placement.spread.iter().any(|rule| rule.max_skew > 0)
        || !request.peers.repelling.is_empty()
        || !request.kept.is_empty()
}

/// Returns the properties that classes have to tell apart for the rules of a request.
pub(crate) fn keys(request: &Request<'_>) -> Vec<NodeKey> {
    let affinities = request.placement.affinities.iter();
    let near = request.placement.services.iter().map(|rule| &rule.over);
    let away = request.peers.repelling.iter().map(|other| &other.over);
    let labels = near.chain(away).filter_map(|over| match over {
        TopologyKey::Label(label) => Some(NodeKey::Label(label.clone())),
        TopologyKey::Node => None,
    });
    let keys = affinities.map(|affinity| affinity.constraint.key.clone());
    keys.chain(labels).collect()
}

/// Returns what a request's rules leave of classes that tell its [`keys`] apart; none if every node
/// has to be looked at.
pub(crate) fn tiers(
    request: &Request<'_>,
    census: &Census,
    table: &ClassTable,
    allowed: &Allowed,
) -> Option<Tiers> {
    let placement = request.placement;
    let skewed = placement.spread.iter().any(|rule| rule.max_skew > 0);
    if request.node.is_some() || skewed || placement.spread.len() > 1 {
        return None;
    }
    if !keys(request).iter().all(|key| table.tells(key)) {
        return None;
    }
    let mut tiers = Tiers {
        classes: Vec::new(),
        left_out: request.kept.to_vec(),
        alone: false,
    };
    for (place, rule) in placement.services.iter().enumerate() {
        tiers.take(request, census, place, rule)?;
    }
    for other in &request.peers.repelling {
        if other.over == TopologyKey::Node {
            tiers.leave_out(census.nodes(other.service).map(|(_, node)| node))?;
        }
    }
    let rules = Rules::new(request, census, &Nowhere);
    let mut by_liking: BTreeMap<Reverse<Liking>, Vec<u32>> = BTreeMap::new();
    for class in 0..u32::try_from(table.len()).expect("few classes") {
        let specimen = table.specimen(class);
        if allowed.contains(class) && rules.judge_specimen(specimen).is_ok() {
            let liking = rules.liking_of_class(specimen);
            by_liking.entry(Reverse(liking)).or_default().push(class);
        }
    }
    let classes = by_liking.into_values();
    tiers.classes = classes.map(|c| c.into_iter().collect()).collect();
    Some(tiers)
}

impl Tiers {
    /// Takes in a rule for a service; none if classes cannot hold it.
    fn take(
        &mut self,
        request: &Request<'_>,
        census: &Census,
        place: usize,
        rule: &ServiceAffinity,
    ) -> Option<()> {
        let peer = request.peer(place);
        let own = peer == Some(request.service);
        if rule.over != TopologyKey::Node {
            // Where the first one settles is chosen by a look at every place.
            let founds = rule.weight > 0 && own && census.total(request.service) == 0;
            return (!founds).then_some(());
        }
        if !rule.required || rule.weight > 0 {
            return None;
        }
        if own {
            self.alone = true;
            return Some(());
        }
        match peer {
            Some(peer) => self.leave_out(census.nodes(peer).map(|(_, node)| node)),
            None => Some(()),
        }
    }

    fn leave_out(&mut self, nodes: impl ExactSizeIterator<Item = NodeId>) -> Option<()> {
        if self.left_out.len() + nodes.len() > LEFT_OUT {
            return None;
        }
        self.left_out.extend(nodes);
        Some(())
    }
}
