//! The rules of placement beside room: which nodes may take a task, and which would rather.
//!
//! | rule | told apart by | says |
//! | --- | --- | --- |
//! | taints, constraints | class | no, by the node's own properties |
//! | spread over a label, service affinity over a label | class, with the [`Census`] | no, by what runs where |
//! | most replicas per node, spread and service affinity over nodes | node, with the [`Census`] | no, by what runs there |
//! | `PreferNoSchedule`, affinities, wishes for services | both | better or worse: [`Liking`] |
//!
//! What tells classes apart is judged once for each class ([`Rules::judge_class`]), the rest node
//! by node ([`Rules::judge_node`]).
//!
//! # Definitions
//!
//! * A *place* is a node, or all nodes with one value of a label.
//! * A spread rule with a `max_skew` allows a place if it would then have at most `max_skew` tasks
//!   of the service more than the place with the fewest. Places count if one of their nodes may
//!   take the task by its status, constraints and taints, whether or not it has room: a full zone
//!   holds the others back. A node without the label is no place and takes none; without
//!   `max_skew` such nodes are a place of their own.
//! * A required affinity to the service itself allows every place while it has no task: somebody
//!   has to be the first, and goes to the place with the most room for such tasks.
//! * A required anti-affinity holds in both directions: who keeps away from a service is also
//!   kept away from.

mod census;
mod founding;
mod preempt;
mod scan;
mod tiers;

use ballast_model::{
    Availability, Constraint, Node, NodeId, NodeStatus, ServiceAffinity, ServiceId, SpreadRule,
    TaintEffect, TopologyKey,
};

pub(crate) use census::{ByValue, Census};
pub(crate) use preempt::{Occupant, Preemptor};
pub use preempt::{Preemption, Standing};
pub(crate) use scan::{Judged, scan};
pub(crate) use tiers::{Tiers, has_rules, keys, tiers};

use crate::refusal::Reason;
use crate::request::Request;

/// The nodes that rules are about.
pub(crate) trait Fleet<'n> {
    /// Yields each node with 1, or one of each class of nodes that [`Rules::judge_class`] cannot
    /// tell apart with their number.
    fn kinds(&self) -> impl Iterator<Item = (&'n Node, usize)>;

    /// Returns a node.
    fn node(&self, node: NodeId) -> Option<&'n Node>;
}

/// How much a node is liked, the more the greater: first the fewest taints that are not borne,
/// then the weights of the affinities that hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Liking {
    /// `PreferNoSchedule` taints that are not borne, negative.
    pub taints: i32,
    /// The sum of the weights of what holds.
    pub weight: i32,
}

/// The rules of one request, over what runs where now.
pub(crate) struct Rules<'a> {
    request: &'a Request<'a>,
    census: &'a Census,
    /// For each spread rule: the fewest tasks in a place that counts; none if no place counts, or
    /// the rule has no limit.
    floors: Vec<Option<u32>>,
    /// Tasks by the values of labels that the census has not learnt.
    counted: Vec<(ServiceId, &'a str, ByValue)>,
}

impl<'a> Rules<'a> {
    /// Returns the rules of a request over a fleet.
    pub(crate) fn new<'n>(
        request: &'a Request<'a>,
        census: &'a Census,
        fleet: &impl Fleet<'n>,
    ) -> Self {
        let spread = &request.placement.spread;
        let mut rules = Self {
            request,
            census,
            floors: vec![None; spread.len()],
            counted: Vec::new(),
        };
        rules.count(fleet);
        if spread.iter().any(|rule| rule.max_skew > 0) {
            rules.survey(fleet);
        }
        rules
    }

    /// Counts by labels that the census has not learnt.
    fn count<'n>(&mut self, fleet: &impl Fleet<'n>) {
        let Request {
            placement, peers, ..
        } = *self.request;
        let own = placement.spread.iter();
        let own = own.map(|rule| (Some(self.request.service), &rule.over));
        let near = placement.services.iter().enumerate();
        let near = near.map(|(place, rule)| (self.request.peer(place), &rule.over));
        let away = peers.repelling.iter();
        let away = away.map(|other| (Some(other.service), &other.over));
        for (service, over) in own.chain(near).chain(away) {
            if let (Some(service), TopologyKey::Label(label)) = (service, over)
                && !self.census.knows(label)
            {
                let counts = self.census.count(service, label, |node| fleet.node(node));
                self.counted.push((service, label, counts));
            }
        }
    }

    /// Finds the floor of each spread rule that has a limit.
    fn survey<'n>(&mut self, fleet: &impl Fleet<'n>) {
        let own = self.request.service;
        let spread = &self.request.placement.spread;
        let mut nodes: usize = 0;
        for (node, alike) in fleet.kinds() {
            if self.judge_own(node).is_err() {
                continue;
            }
            nodes += alike;
            for (place, rule) in spread.iter().enumerate() {
                if rule.over == TopologyKey::Node || rule.max_skew == 0 {
                    continue;
                }
                if let Some(count) = self.tasks_in(own, &rule.over, node) {
                    let floor = &mut self.floors[place];
                    *floor = Some(floor.map_or(count, |floor| floor.min(count)));
                }
            }
        }
        for (place, rule) in spread.iter().enumerate() {
            if rule.over == TopologyKey::Node && rule.max_skew > 0 {
                self.floors[place] = Some(self.floor_of_nodes(nodes, fleet));
            }
        }
    }

    /// Returns the fewest tasks of the service on one of this many nodes that may take one.
    fn floor_of_nodes<'n>(&self, nodes: usize, fleet: &impl Fleet<'n>) -> u32 {
        let own = self.request.service;
        // If there are more nodes than have a task, one of them has none.
        if self.census.nodes(own).len() < nodes {
            return 0;
        }
        let counts = |node| fleet.node(node).is_some_and(|n| self.judge_own(n).is_ok());
        let mut taking = self.census.nodes(own).filter(|&(_, node)| counts(node));
        let least = taking.next();
        let with_tasks = taking.count() + usize::from(least.is_some());
        match least {
            Some((least, _)) if with_tasks >= nodes => least,
            _ => 0,
        }
    }

    /// Returns how many tasks of a service are in the place of this node; none if it is in no
    /// place, as it lacks the label.
    fn tasks_in(&self, service: ServiceId, over: &TopologyKey, node: &Node) -> Option<u32> {
        match over {
            TopologyKey::Node => Some(self.census.on_node(service, node.id)),
            TopologyKey::Label(label) => {
                let value = node.label(label)?;
                Some(self.in_value(service, label, Some(value)))
            }
        }
    }

    /// Returns how many tasks of a service are on nodes with this value of a label.
    fn in_value(&self, service: ServiceId, label: &str, value: Option<&str>) -> u32 {
        if self.census.knows(label) {
            return self.census.in_value(service, label, value);
        }
        let mut counted = self.counted.iter();
        let found = counted.find(|(known, key, _)| *known == service && *key == label);
        let (_, _, counts) = found.expect("counted when the rules were made");
        census::in_value(counts, value)
    }

    /// Returns whether the node may take the task by all rules.
    ///
    /// # Errors
    /// The first that says no, in the order of [`Reason`].
    pub(crate) fn judge(&self, node: &Node) -> Result<(), Reason> {
        self.judge_class(node)?;
        self.judge_node(node)
    }

    /// Returns whether nodes of this one's class may take the task by the rules that tell classes
    /// apart.
    ///
    /// # Errors
    /// The first that says no.
    pub(crate) fn judge_class(&self, node: &Node) -> Result<(), Reason> {
        self.judge_own(node)?;
        self.judge_services(node, false)?;
        self.judge_spread(node, false)
    }

    /// Returns whether the node may take the task by the rules that tell nodes apart.
    ///
    /// # Errors
    /// The first that says no.
    pub(crate) fn judge_node(&self, node: &Node) -> Result<(), Reason> {
        if self.request.kept.contains(&node.id) {
            return Err(Reason::Kept);
        }
        self.judge_services(node, true)?;
        let most = self.request.placement.max_replicas_per_node;
        if most > 0 && self.census.on_node(self.request.service, node.id) >= most {
            return Err(Reason::MaxReplicas(most));
        }
        self.judge_spread(node, true)
    }

    /// Judges what a node that stands for its class has in common with the others: all but its
    /// status, and but for constraints, which a query has judged.
    pub(crate) fn judge_specimen(&self, node: &Node) -> Result<(), Reason> {
        self.judge_taints(node)?;
        self.judge_services(node, false)
    }

    /// Judges what the node is by itself.
    fn judge_own(&self, node: &Node) -> Result<(), Reason> {
        match (node.status, node.availability) {
            (NodeStatus::Down, _) => return Err(Reason::Down),
            (NodeStatus::Suspect, _) => return Err(Reason::Suspect),
            (NodeStatus::Ready, Availability::Drain) => return Err(Reason::Drained),
            (NodeStatus::Ready, Availability::Pause) => return Err(Reason::Paused),
            (NodeStatus::Ready, Availability::Active) => {}
        }
        self.judge_taints(node)?;
        let broken = |constraint: &&Constraint| !node.meets(constraint);
        match self.request.placement.constraints.iter().find(broken) {
            Some(broken) => Err(Reason::Constraint(broken.to_string())),
            None => Ok(()),
        }
    }

    fn judge_taints(&self, node: &Node) -> Result<(), Reason> {
        let hard = |taint: &&ballast_model::Taint| taint.effect != TaintEffect::PreferNoSchedule;
        match unborne(self.request.placement, node).find(hard) {
            Some(taint) => Err(Reason::Taint(taint.to_string())),
            None => Ok(()),
        }
    }

    fn judge_services(&self, node: &Node, over_nodes: bool) -> Result<(), Reason> {
        for (place, affinity) in self.request.placement.services.iter().enumerate() {
            let is_over_nodes = affinity.over == TopologyKey::Node;
            if affinity.required && is_over_nodes == over_nodes {
                self.judge_service(place, affinity, node)?;
            }
        }
        for other in &self.request.peers.repelling {
            let is_over_nodes = other.over == TopologyKey::Node;
            let there = self.tasks_in(other.service, &other.over, node);
            if is_over_nodes == over_nodes && there.unwrap_or(0) > 0 {
                return Err(Reason::Repelled {
                    service: other.name.clone(),
                    over: other.over.clone(),
                });
            }
        }
        Ok(())
    }

    fn judge_service(
        &self,
        place: usize,
        affinity: &ServiceAffinity,
        node: &Node,
    ) -> Result<(), Reason> {
        let own = self.request.service;
        let peer = self.request.peer(place);
        let there = peer.and_then(|peer| self.tasks_in(peer, &affinity.over, node));
        let (service, over) = (affinity.service.clone(), affinity.over.clone());
        if affinity.weight < 0 {
            // A node without the label is in nobody's place.
            return match there {
                Some(1..) => Err(Reason::Apart { service, over }),
                _ => Ok(()),
            };
        }
        let Some(peer) = peer else {
            return Err(Reason::NoService(service));
        };
        let first = peer == own && self.census.total(own) == 0;
        match (there, over) {
            (None, over) => Err(no_label(&over)),
            (Some(0), over) if !first => Err(Reason::Near { service, over }),
            _ => Ok(()),
        }
    }

    fn judge_spread(&self, node: &Node, over_nodes: bool) -> Result<(), Reason> {
        for (place, rule) in self.request.placement.spread.iter().enumerate() {
            if rule.max_skew == 0 || (rule.over == TopologyKey::Node) != over_nodes {
                continue;
            }
            self.judge_skew(place, rule, node)?;
        }
        Ok(())
    }

    fn judge_skew(&self, place: usize, rule: &SpreadRule, node: &Node) -> Result<(), Reason> {
        let Some(there) = self.tasks_in(self.request.service, &rule.over, node) else {
            return Err(no_label(&rule.over));
        };
        let floor = self.floors[place].unwrap_or(there);
        // The task itself is one more.
        if there.saturating_sub(floor) >= rule.max_skew {
            return Err(Reason::Skew {
                over: rule.over.clone(),
                most: rule.max_skew,
            });
        }
        Ok(())
    }

    /// Returns how much nodes of this one's class are liked, whatever runs on the node itself.
    pub(crate) fn liking_of_class(&self, node: &Node) -> Liking {
        let placement = self.request.placement;
        let taints = unborne(placement, node).count();
        let held = placement.affinities.iter();
        let held = held.filter(|affinity| node.meets(&affinity.constraint));
        let weights = held.map(|affinity| i32::from(affinity.weight)).sum::<i32>();
        Liking {
            taints: -i32::try_from(taints).unwrap_or(i32::MAX),
            weight: weights + self.wishes(node, false),
        }
    }

    /// Returns what wishes over nodes add to the liking of this one.
    pub(crate) fn liking_of_node(&self, node: &Node) -> i32 {
        self.wishes(node, true)
    }

    fn wishes(&self, node: &Node, over_nodes: bool) -> i32 {
        let wishes = self.request.placement.services.iter().enumerate();
        wishes
            .filter(|(_, wish)| !wish.required && (wish.over == TopologyKey::Node) == over_nodes)
            .filter(|(place, wish)| {
                let peer = self.request.peer(*place);
                let there = peer.and_then(|peer| self.tasks_in(peer, &wish.over, node));
                there.unwrap_or(0) > 0
            })
            .map(|(_, wish)| i32::from(wish.weight))
            .sum()
    }
}

fn no_label(over: &TopologyKey) -> Reason {
    Reason::NoLabel(match over {
        TopologyKey::Label(label) => label.clone(),
        TopologyKey::Node => over.to_string(),
    })
}

/// Returns the taints of a node that a placement does not bear.
fn unborne<'n>(
    placement: &ballast_model::Placement,
    node: &'n Node,
) -> impl Iterator<Item = &'n ballast_model::Taint> {
    let borne = |taint: &ballast_model::Taint| placement.tolerations.iter().any(|t| t.bears(taint));
    node.taints.iter().filter(move |taint| !borne(taint))
}
