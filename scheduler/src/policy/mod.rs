//! Which of the nodes that fit is best.
//!
//! Each policy is the least node of a total order that ends with the node's id, so that the same
//! nodes give the same choice:
//!
//! | spread | order |
//! | --- | --- |
//! | none | least free CPU × memory (quantised) |
//! | none, and devices are wanted or near | where it leaves the least that is useless to others |
//! | none, and nothing is reserved | fewest tasks: there is nothing to pack by |
//! | node | fewest tasks of the service; nodes that have none by fewest tasks |
//! | label | the label value with the fewest tasks of the service, then as for node |
//!
//! A [`Query`] is what a request comes to on this fleet; it is made once and used until classes
//! change. [`Search`] runs it: with `judge`, which says whether a node will do and with what, and
//! `take`, which reserves there.

mod board;
mod fragments;
mod groups;
mod learnt;
mod packer;
mod search;
mod shape;
mod workload;

use ballast_model::{Constraint, Placement, Policy, Resources, TopologyKey};

pub use learnt::Learnt;
pub(crate) use packer::Packer;
pub(crate) use search::{Search, Who};

use crate::fleet::Fleet;
use crate::index::{Allowed, Amounts, Classes, Demand, Order};

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

/// In which order nodes are tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Plan {
    /// One order over all of them.
    Plain(Order),
    /// Fewest tasks of the service first.
    Nodes,
    /// The values of a topology with the fewest tasks of the service first; for each value the
    /// classes allowed, if classes tell them apart.
    Places {
        topology: usize,
        label: String,
        classes: Option<Vec<Allowed>>,
    },
}

/// What a request comes to on a fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Query {
    pub demand: Demand,
    pub allowed: Allowed,
    /// Constraints that classes do not decide.
    pub loose: Vec<Constraint>,
    pub plan: Plan,
    /// The most tasks of the service on one node; 0: any number.
    pub most: u32,
    version: u64,
}

impl Query {
    /// Returns what a request comes to; teaches the fleet what the request refers to.
    pub(crate) fn new(fleet: &mut Fleet, resources: &Resources, placement: &Placement) -> Self {
        for constraint in &placement.constraints {
            fleet.learn(&constraint.key);
        }
        let spread = Spread::of(placement);
        let topology = match spread {
            Spread::Label(label) => Some((fleet.topology(label), label)),
            _ => None,
        };
        let allowed = fleet.classes().allowed_by(&placement.constraints);
        let order = if spread == Spread::None && !resources.is_empty() {
            Order::Fullest
        } else {
            Order::Emptiest
        };
        fleet.index.keep(order, &allowed);
        let classes = fleet.classes();
        let plan = match (spread, topology) {
            (Spread::None, _) => Plan::Plain(order),
            (_, Some((topology, label))) => Plan::Places {
                topology,
                label: label.to_owned(),
                classes: fleet.topologies()[topology].classes(classes, &allowed),
            },
            _ => Plan::Nodes,
        };
        let loose = classes.loose(&placement.constraints);
        let loose = loose.into_iter().cloned().collect();
        let version = classes.version();
        if let Plan::Places {
            classes: Some(values),
            ..
        } = &plan
        {
            for allowed in values {
                fleet.index.keep(order, allowed);
            }
        }
        Self {
            demand: Demand {
                amounts: Amounts::claimed(
                    resources.cpu.0.into(),
                    resources.memory.0,
                    resources.disk.0,
                ),
                ..Demand::default()
            },
            allowed,
            loose,
            plan,
            most: placement.max_replicas_per_node,
            version,
        }
    }

    /// Returns the same query for these classes only.
    pub(crate) fn within(&self, classes: Classes) -> Self {
        Self {
            allowed: Allowed::Some(classes),
            ..self.clone()
        }
    }

    /// Returns the same query for these classes only, and for at most so many tasks on a node.
    pub(crate) fn among(&self, fleet: &Fleet, classes: Classes, most: u32) -> Self {
        let mut query = self.within(classes);
        query.most = most;
        if let Plan::Places {
            topology,
            classes: Some(classes),
            ..
        } = &mut query.plan
        {
            let topology = &fleet.topologies()[*topology];
            let told = topology.classes(fleet.classes(), &query.allowed);
            *classes = told.expect("classes still tell this label apart");
        }
        query
    }

    /// Returns in which order its nodes are tried.
    pub(crate) const fn order(&self) -> Order {
        match self.plan {
            Plan::Plain(order) => order,
            Plan::Nodes | Plan::Places { .. } => Order::Emptiest,
        }
    }

    /// Returns whether it asks how many tasks of the service are where.
    pub(crate) const fn counts(&self) -> bool {
        self.most > 0 || !matches!(self.plan, Plan::Plain(_))
    }

    /// Returns whether it was made for the classes that the fleet has now.
    pub(crate) const fn is_of(&self, fleet: &Fleet) -> bool {
        self.version == fleet.classes().version()
    }

    /// Returns whether it still says what the request comes to.
    pub(crate) fn holds(&self, fleet: &Fleet) -> bool {
        let same_place = match &self.plan {
            Plan::Places {
                topology,
                label,
                classes,
            } => fleet.topologies().get(*topology).is_some_and(|known| {
                let values = classes.as_ref().map_or(0, Vec::len);
                known.label == *label && (classes.is_none() || known.len() == values)
            }),
            _ => true,
        };
        self.version == fleet.classes().version() && same_place
    }
}
