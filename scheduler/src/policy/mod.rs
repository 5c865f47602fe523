//! Which of the nodes that fit is best.
//!
//! Each policy is the least node of a total order that ends with the node's id, so that the same
//! nodes give the same choice:
//!
//! | spread | order |
//! | --- | --- |
//! | none | least free CPU × memory (quantised), then fewest tasks |
//! | none, and nothing is reserved | fewest tasks: there is nothing to pack by |
//! | node | fewest tasks of the service; nodes that have none by fewest tasks |
//! | label | the label value with the fewest tasks of the service, then as for node |

mod pack;
mod spread;

use std::collections::BTreeMap;

use ballast_model::{Constraint, Node, NodeKey, Placement, Policy, TopologyKey};

use crate::index::{At, Class, Index, Offer};
use crate::request::Request;

/// What is spread over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spread<'a> {
    /// Nothing: nodes are filled up.
    None,
    /// Nodes.
    Node,
    /// Values of a label.
    Label(&'a str),
}

impl<'a> Spread<'a> {
    /// Returns what a placement spreads over first.
    pub(crate) fn of(placement: &'a Placement) -> Self {
        match placement.spread.first().map(|rule| &rule.over) {
            Some(TopologyKey::Label(label)) => Self::Label(label),
            Some(TopologyKey::Node) => Self::Node,
            None if placement.policy == Policy::Spread => Self::Node,
            None => Self::None,
        }
    }
}

/// A node that fits and what it would give.
#[derive(Debug)]
pub(crate) struct Choice {
    pub at: At,
    pub offer: Offer,
}

/// A request over the classes that may take it.
pub(crate) struct Search<'a> {
    index: &'a Index,
    request: &'a Request<'a>,
    /// Numbers of the classes that meet the constraints.
    classes: Vec<usize>,
    /// Constraints that classes do not decide.
    loose: Vec<&'a Constraint>,
    /// Whether `request.avoid` is left out.
    avoid: bool,
}

/// Returns the best node for the request, if any fits.
pub(crate) fn best(index: &Index, request: &Request<'_>) -> Option<Choice> {
    let mut search = Search::new(index, request);
    if let Some(id) = request.node {
        let offer = index.get(id)?.judge(request).ok()?;
        let at = index.at(id)?;
        return Some(Choice { at, offer });
    }
    if !request.avoid.is_empty() {
        search.avoid = true;
        if let Some(choice) = search.run() {
            return Some(choice);
        }
        search.avoid = false;
    }
    search.run()
}

impl<'a> Search<'a> {
    fn new(index: &'a Index, request: &'a Request<'a>) -> Self {
        let (shared, loose): (Vec<_>, Vec<_>) = request
            .placement
            .constraints
            .iter()
            .partition(|constraint| index.key_place(&constraint.key).is_some());
        let meets = |class: &Class| {
            // Any of its nodes stands for the class: these constraints cannot tell them apart.
            let stands_for = class.by_tasks.first();
            stands_for.is_some_and(|rank| {
                let node: &Node = &index.entry(rank.at).node;
                shared.iter().all(|constraint| node.meets(constraint))
            })
        };
        let classes = index.classes().iter().enumerate();
        Self {
            index,
            request,
            classes: classes
                .filter(|(_, class)| meets(class))
                .map(|(number, _)| number)
                .collect(),
            loose,
            avoid: false,
        }
    }

    fn run(&self) -> Option<Choice> {
        match Spread::of(self.request.placement) {
            Spread::None if self.request.resources.is_empty() => self.idlest(&self.classes),
            Spread::None => self.fullest(),
            Spread::Node => self.sparsest(&self.classes),
            Spread::Label(label) => self.sparsest_label(label),
        }
    }

    /// Returns what a node of a class that meets the constraints would give.
    fn judge(&self, at: At) -> Option<Offer> {
        let entry = self.index.entry(at);
        if self.avoid && self.request.avoid.contains(&entry.node.id) {
            return None;
        }
        if !self.loose.iter().all(|c| entry.node.meets(c)) {
            return None;
        }
        entry.judge_room(self.request).ok()
    }

    /// Returns the label value with the fewest tasks of the service that has a node that fits.
    fn sparsest_label(&self, label: &str) -> Option<Choice> {
        let key = NodeKey::Label(label.to_owned());
        let place = self.index.key_place(&key).expect("learnt before a search");
        let value = |class: usize| self.index.classes()[class].values[place].as_deref();
        let mut groups: BTreeMap<Option<&str>, (u32, Vec<usize>)> = BTreeMap::new();
        for &class in &self.classes {
            groups.entry(value(class)).or_default().1.push(class);
        }
        if let Some(service) = self.index.service(self.request.service) {
            for &(count, _, at) in &service.by_count {
                // Tasks on nodes that take no more count, too: they are there.
                if let Some(group) = groups.get_mut(&value(self.index.entry(at).class)) {
                    group.0 += count;
                }
            }
        }
        let mut groups: Vec<_> = groups.into_iter().collect();
        groups.sort_by_key(|&(value, (count, _))| (count, value));
        groups
            .iter()
            .find_map(|(_, (_, classes))| self.sparsest(classes))
    }
}
