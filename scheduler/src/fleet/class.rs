//! Equivalence classes: nodes that no rule in use tells apart.
//!
//! Classes are told apart by taints, devices and sockets, and by the properties that some request
//! has referred to, so that a cluster without constraints has one. They make a decision fast and
//! never change it: policies choose the least node of a total order that knows nothing of classes.

use std::collections::{BTreeMap, BTreeSet};

use ballast_model::{Constraint, Node, NodeKey, Taint};

use crate::index::{Allowed, Classes};

/// Properties by which nodes are told apart at once. Requests that refer to more have the rest
/// judged node by node.
pub(crate) const CLASS_KEYS: usize = 32;
/// A property that would make more classes than this (each node has its own value) is judged node
/// by node: every class is judged for every new request.
pub(crate) const CLASSES: usize = 256;

/// What the nodes of a class have in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Traits {
    /// The values of the properties in use, one for each key.
    values: Vec<Option<String>>,
    taints: Vec<Taint>,
    /// Kind and model of each device, in their places.
    devices: Vec<(String, String)>,
    has_sockets: bool,
}

/// The classes there are.
#[derive(Debug, Default)]
pub(crate) struct ClassTable {
    keys: Vec<NodeKey>,
    /// Properties that would make too many classes.
    loose: Vec<NodeKey>,
    by_traits: BTreeMap<Traits, u32>,
    /// A node of each class, as it was when the class was made: it stands for all of them in
    /// every question about the traits.
    specimens: Vec<Node>,
    version: u64,
}

impl ClassTable {
    /// Returns which class a node is of, a new one if there is none.
    pub(crate) fn class_of(&mut self, node: &Node) -> u32 {
        let traits = Traits {
            values: self.values(node),
            taints: node.taints.clone(),
            devices: node
                .offered
                .devices
                .iter()
                .map(|device| (device.kind.clone(), device.model.clone()))
                .collect(),
            has_sockets: !node.offered.sockets.is_empty(),
        };
        let (specimens, version) = (&mut self.specimens, &mut self.version);
        *self.by_traits.entry(traits).or_insert_with(|| {
            specimens.push(node.clone());
            *version += 1;
            u32::try_from(specimens.len() - 1).expect("fewer classes than nodes")
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.specimens.len()
    }

    /// Returns a number that changes whenever what was said of classes may not hold any more.
    pub(crate) const fn version(&self) -> u64 {
        self.version
    }

    /// Returns a node that stands for a class in what classes are told apart by.
    pub(crate) fn specimen(&self, class: u32) -> &Node {
        &self.specimens[class as usize]
    }

    /// Returns a node of each class.
    pub(crate) fn specimens(&self) -> impl Iterator<Item = &Node> {
        self.specimens.iter()
    }

    /// Returns whether this property tells classes apart.
    pub(crate) fn tells(&self, key: &NodeKey) -> bool {
        self.keys.contains(key)
    }

    /// Returns the classes whose specimen passes.
    pub(crate) fn allowed(&self, passes: impl Fn(&Node) -> bool) -> Allowed {
        let all = (0..).zip(&self.specimens);
        let classes: Vec<u32> = all
            .filter(|(_, node)| passes(node))
            .map(|(class, _)| class)
            .collect();
        if classes.len() == self.specimens.len() {
            Allowed::All
        } else {
            Allowed::Some(classes.into_iter().collect::<Classes>())
        }
    }

    /// Returns the classes that meet those of these constraints which classes decide.
    pub(crate) fn allowed_by(&self, constraints: &[Constraint]) -> Allowed {
        self.allowed(|specimen| {
            let mut shared = constraints.iter().filter(|c| self.tells(&c.key));
            shared.all(|constraint| specimen.meets(constraint))
        })
    }

    /// Returns the constraints that classes do not decide.
    pub(crate) fn loose<'a>(&self, constraints: &'a [Constraint]) -> Vec<&'a Constraint> {
        let loose = |constraint: &&Constraint| !self.tells(&constraint.key);
        constraints.iter().filter(loose).collect()
    }

    /// Takes in a property that requests refer to; returns whether all nodes are to be classed
    /// anew.
    pub(crate) fn learn<'a>(
        &mut self,
        key: &NodeKey,
        nodes: impl Iterator<Item = &'a Node>,
    ) -> bool {
        if !is_shared(key) || self.tells(key) || self.loose.contains(key) {
            return false;
        }
        if self.keys.len() >= CLASS_KEYS {
            // Judged node by node; not remembered, so that `loose` has a bound.
            return false;
        }
        let mut values: BTreeSet<(u32, Option<String>)> = BTreeSet::new();
        for node in nodes {
            let class = self.class_of(node);
            values.insert((class, value(node, key).map(ToOwned::to_owned)));
            if values.len() > CLASSES {
                if self.loose.len() < CLASS_KEYS {
                    self.loose.push(key.clone());
                }
                return false;
            }
        }
        self.keys.push(key.clone());
        self.by_traits.clear();
        self.specimens.clear();
        self.version += 1;
        true
    }

    fn values(&self, node: &Node) -> Vec<Option<String>> {
        let values = self.keys.iter();
        values
            .map(|key| value(node, key).map(ToOwned::to_owned))
            .collect()
    }
}

/// Returns whether nodes can be told apart by this property at once.
const fn is_shared(key: &NodeKey) -> bool {
    matches!(key, NodeKey::Label(_) | NodeKey::Attribute(_))
}

/// Returns a node's value of a property that [`is_shared`].
fn value<'a>(node: &'a Node, key: &NodeKey) -> Option<&'a str> {
    match key {
        NodeKey::Label(key) => node.label(key),
        NodeKey::Attribute(key) => node.description.attributes.get(key).map(String::as_str),
        NodeKey::Id | NodeKey::Name => None,
    }
}
