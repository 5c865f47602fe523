//! The best node by a look at every one: for requests whose rules the index does not know.

use ballast_model::{Node, NodeId, TopologyKey};

use super::founding::Founding;
use super::{Census, Liking, Rules};
use crate::fleet::{Entry, Fleet, Offer};
use crate::index::At;
use crate::policy::Spread;
use crate::request::Request;

/// A fleet, as rules look at it: every node is of its own kind.
pub(crate) struct Judged<'n>(pub &'n Fleet);

impl<'n> super::Fleet<'n> for Judged<'n> {
    fn kinds(&self) -> impl Iterator<Item = (&'n Node, usize)> {
        self.0.iter().map(|entry| (&entry.node, 1))
    }

    fn node(&self, node: NodeId) -> Option<&'n Node> {
        self.0.get(node).map(|entry| &entry.node)
    }
}

/// The better, the less.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank<'n> {
    avoided: bool,
    liking: std::cmp::Reverse<Liking>,
    /// Of the place that the service settles in with this task.
    room: std::cmp::Reverse<u64>,
    /// Tasks of the service in the place of each spread rule, and the place.
    spread: Vec<(u32, Option<&'n str>)>,
    /// Tasks of the service here, if they are to be spread.
    here: u32,
    /// Free CPU × memory, if nodes are to be filled.
    free: u128,
    tasks: u32,
    id: NodeId,
}

/// Returns the best node for the request, if any fits.
///
/// # Complexity
/// One pass over the nodes.
pub(crate) fn scan(fleet: &Fleet, census: &Census, request: &Request<'_>) -> Option<(At, Offer)> {
    let rules = Rules::new(request, census, &Judged(fleet));
    let founding = Founding::of(fleet, census, request);
    let judge = |entry: &Entry| {
        rules.judge(&entry.node).ok()?;
        entry.judge_room(request).ok()
    };
    let mut best: Option<(Rank<'_>, At, _)> = None;
    let asked = request.node.map(|id| fleet.get(id));
    let entries = match asked {
        Some(entry) => entry.into_iter().collect::<Vec<_>>(),
        None => fleet.iter().collect(),
    };
    for entry in entries {
        let Some(offer) = judge(entry) else {
            continue;
        };
        let rank = rank(entry, &rules, &founding, request);
        if best.as_ref().is_none_or(|(least, ..)| rank < *least) {
            let at = fleet.index.at(entry.node.id).expect("it is in the index");
            best = Some((rank, at, offer));
        }
    }
    best.map(|(_, at, offer)| (at, offer))
}

fn rank<'n>(
    entry: &'n Entry,
    rules: &Rules<'_>,
    founding: &Founding<'n>,
    request: &Request<'_>,
) -> Rank<'n> {
    let node = &entry.node;
    let mut liking = rules.liking_of_class(node);
    liking.weight += rules.liking_of_node(node);
    let spread = request.placement.spread.iter().filter_map(|rule| {
        let TopologyKey::Label(label) = &rule.over else {
            return None;
        };
        let value = node.label(label);
        Some((rules.in_value(request.service, label, value), value))
    });
    let evenly = Spread::of(request.placement) != Spread::None;
    let here = rules.census.on_node(request.service, node.id);
    let (has, gave) = (&node.offered, &entry.taken);
    let cpu = u64::from(has.cpu.0).saturating_sub(gave.cpu);
    let memory = has.memory.0.saturating_sub(gave.memory);
    let fill = !evenly && !request.resources.is_empty();
    Rank {
        avoided: request.avoid.contains(&node.id),
        liking: std::cmp::Reverse(liking),
        room: std::cmp::Reverse(founding.room(entry, request)),
        spread: spread.collect(),
        here: if evenly { here } else { 0 },
        free: if fill {
            u128::from(cpu) * u128::from(memory)
        } else {
            0
        },
        tasks: if evenly && here > 0 { 0 } else { gave.tasks },
        id: node.id,
    }
}
