//! Evens out services that are spread: after a node joined or came back, or when a pool is
//! lopsided.

use std::collections::BTreeMap;

use ballast_model::{NodeId, Policy, ServiceId, TopologyKey};

use super::{Left, Move, MoveBudget, Requests, Running, Why, is_movable, release_all, running};
use crate::{Request, Scheduler};

/// Returns moves that even out the services which are spread: by policy, by a rule, or because
/// they reserve nothing, so that there is nothing to pack them by.
///
/// For each such service a task goes from the place (a node, or a value of the label that it is
/// spread over) with the most tasks of it to where the scheduler would place a new one, as long as
/// that place has at least two fewer: so the difference falls with each move, and the moves come
/// to an end. Services that are packed are left alone: a new node is room for what comes, and what
/// fits where it is need not move.
///
/// # Complexity
/// A pass over what is held, and a search for each move and each service.
pub fn rebalance(
    scheduler: &mut Scheduler,
    requests: &Requests<'_>,
    budget: &MoveBudget,
) -> Vec<Move> {
    let mut left = Left::new(budget);
    let mut moves = Vec::new();
    let mut held = Vec::new();
    if left.moves == 0 {
        return moves;
    }
    for (service, mut tasks) in by_service(scheduler) {
        let Some(request) = requests(service).filter(is_movable) else {
            continue;
        };
        let Some(over) = spread_over(&request) else {
            continue;
        };
        while let Some((step, placed)) = next_move(scheduler, &request, budget, &over, &mut tasks) {
            held.push(placed);
            if !left.take(&request) {
                break;
            }
            moves.push(step);
        }
    }
    release_all(scheduler, held);
    moves
}

/// Tasks of one service on each node.
type Tasks = BTreeMap<NodeId, Vec<Running>>;

fn by_service(scheduler: &Scheduler) -> BTreeMap<ServiceId, Tasks> {
    let mut services: BTreeMap<ServiceId, Tasks> = BTreeMap::new();
    for (node, tasks) in running(scheduler) {
        for task in tasks {
            let nodes = services.entry(task.service).or_default();
            nodes.entry(node).or_default().push(task);
        }
    }
    services
}

/// Returns what a service is spread over, if it is.
fn spread_over(request: &Request<'_>) -> Option<TopologyKey> {
    let placement = request.placement;
    match placement.spread.first() {
        Some(rule) => Some(rule.over.clone()),
        None if placement.policy == Policy::Spread => Some(TopologyKey::Node),
        None if request.resources.is_empty() => Some(TopologyKey::Node),
        None => None,
    }
}

/// Finds the next move of a service and reserves its target; changes `tasks` as if it were done.
fn next_move(
    scheduler: &mut Scheduler,
    request: &Request<'_>,
    budget: &MoveBudget,
    over: &TopologyKey,
    tasks: &mut Tasks,
) -> Option<(Move, crate::Placed)> {
    let counts = count(scheduler, over, tasks);
    let from = fullest(scheduler, budget, over, tasks, &counts)?;
    let kept = [from];
    let placed = scheduler.place(&request.keeping(&kept)).ok()?;
    let to = placed.node;
    let of = |node| {
        counts
            .get(&place_of(scheduler, over, node))
            .copied()
            .unwrap_or(0)
    };
    let on = |node| tasks.get(&node).map_or(0, Vec::len);
    let better = of(from) >= of(to) + 2
        || place_of(scheduler, over, from) == place_of(scheduler, over, to)
            && on(from) >= on(to) + 2;
    if !better {
        scheduler.release(placed.reservation);
        return None;
    }
    let here = tasks.get_mut(&from).expect("a node with tasks");
    // The youngest by id: ids tell nothing of age, but the choice is always the same.
    let last = here.iter().rposition(|task| budget.lets(task));
    let task = here.remove(last.expect("the node was chosen for having one"));
    if here.is_empty() {
        tasks.remove(&from);
    }
    let step = Move {
        assignment: task.assignment,
        service: task.service,
        from,
        to,
        why: Why::EvensOut,
    };
    tasks.entry(to).or_default().insert(0, task);
    Some((step, placed))
}

/// What makes two nodes one place: the node itself, or its value of a label.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Node(NodeId),
    Value(Option<String>),
}

fn place_of(scheduler: &Scheduler, over: &TopologyKey, node: NodeId) -> Place {
    match over {
        TopologyKey::Node => Place::Node(node),
        TopologyKey::Label(key) => {
            let value = scheduler.node(node).and_then(|node| node.label(key));
            Place::Value(value.map(str::to_owned))
        }
    }
}

fn count(scheduler: &Scheduler, over: &TopologyKey, tasks: &Tasks) -> BTreeMap<Place, usize> {
    let mut counts = BTreeMap::new();
    for (&node, here) in tasks {
        *counts.entry(place_of(scheduler, over, node)).or_default() += here.len();
    }
    counts
}

/// Returns the node with the most tasks of the service in the place that has the most, among those
/// with one that may move.
fn fullest(
    scheduler: &Scheduler,
    budget: &MoveBudget,
    over: &TopologyKey,
    tasks: &Tasks,
    counts: &BTreeMap<Place, usize>,
) -> Option<NodeId> {
    let rank = |(&node, here): (&NodeId, &Vec<Running>)| {
        let place = counts[&place_of(scheduler, over, node)];
        (place, here.len(), std::cmp::Reverse(node))
    };
    let nodes = tasks.iter();
    let nodes = nodes.filter(|(_, here)| here.iter().any(|task| budget.lets(task)));
    nodes
        .max_by_key(|&(node, here)| rank((node, here)))
        .map(|(&node, _)| node)
}
