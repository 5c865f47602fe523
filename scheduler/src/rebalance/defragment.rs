//! Frees whole nodes, then whole devices, by few moves.

use std::collections::BTreeMap;

use ballast_model::{NodeId, Policy, device};

use super::{Left, Move, MoveBudget, Requests, Running, Why, is_movable, release_all, running};
use crate::{Placed, Scheduler};

/// Nodes that one call tries to empty: each failed try costs a search for each of its tasks.
pub const NODES_TRIED: usize = 16;
/// Tasks of a node that is tried: more would not be few moves.
pub const TASKS_PER_NODE: usize = 64;
/// Devices that one call tries to free.
pub const DEVICES_TRIED: usize = 16;

/// How full a node is, in 1/65,536 of its dominant dimension.
type Fullness = u64;

/// Returns moves that empty nodes and, with what is left of the budget, free devices that
/// fractions hold. The nodes with the fewest tasks come first.
///
/// A node is tried only if all its tasks may move, and emptied only into nodes that are in use and
/// become at least as full as it was: so the number of nodes in use falls, and never rises. Where the budget
/// does not reach for the whole node, the first of its tasks move now and the rest with a later
/// call, which finds the same node emptier still.
///
/// # Complexity
/// A pass over what is held, and at most [`NODES_TRIED`] × [`TASKS_PER_NODE`] searches.
pub fn defragment(
    scheduler: &mut Scheduler,
    requests: &Requests<'_>,
    budget: &MoveBudget,
) -> Vec<Move> {
    let mut left = Left::new(budget);
    let mut moves = Vec::new();
    if left.moves == 0 {
        return moves;
    }
    let nodes = running(scheduler);
    let mut held = Vec::new();
    // What was chosen as a target is not emptied in the same breath, nor is an emptied one filled.
    let mut targets: Vec<NodeId> = Vec::new();
    let mut emptied: Vec<NodeId> = Vec::new();
    for (_, _, from) in emptiest_first(scheduler, &nodes)
        .into_iter()
        .take(NODES_TRIED)
    {
        if left.moves == 0 {
            break;
        }
        if targets.contains(&from) {
            continue;
        }
        emptied.push(from);
        let Some(placed) = evacuate(scheduler, requests, budget, &emptied, &nodes[&from]) else {
            emptied.pop();
            continue;
        };
        for (task, placed) in placed {
            let request = requests(task.service).expect("it was asked for before");
            targets.push(placed.node);
            if left.take(&request) {
                moves.push(Move {
                    assignment: task.assignment,
                    service: task.service,
                    from,
                    to: placed.node,
                    why: Why::EmptiesNode,
                });
            }
            held.push(placed);
        }
    }
    if left.moves > 0 {
        targets.extend(&emptied);
        free_devices(scheduler, requests, &nodes, &targets, &mut left, &mut moves);
    }
    release_all(scheduler, held);
    moves
}

/// Returns the nodes that have few enough tasks, those with the fewest first, then the emptiest.
fn emptiest_first(
    scheduler: &Scheduler,
    nodes: &BTreeMap<NodeId, Vec<Running>>,
) -> Vec<(usize, Fullness, NodeId)> {
    let mut order: Vec<_> = nodes
        .iter()
        .filter(|(_, tasks)| tasks.len() <= TASKS_PER_NODE)
        .filter_map(|(&node, tasks)| Some((tasks.len(), fullness(scheduler, node)?, node)))
        .collect();
    order.sort_unstable();
    order
}

/// Finds a place for every task of a node, the last of `emptied`, among nodes that are in use and
/// become at least as full; none if there is not one for each, and nothing is reserved then.
fn evacuate<'t>(
    scheduler: &mut Scheduler,
    requests: &Requests<'_>,
    budget: &MoveBudget,
    emptied: &[NodeId],
    tasks: &'t [Running],
) -> Option<Vec<(&'t Running, Placed)>> {
    let least = fullness(scheduler, *emptied.last()?)?;
    let movable = |task: &Running| {
        let request = requests(task.service);
        // Those that are spread would go to the emptiest node again.
        let may = request.is_some_and(|r| is_movable(&r) && r.placement.policy != Policy::Spread);
        may && budget.lets(task)
    };
    if !tasks.iter().all(movable) {
        return None;
    }
    // The largest first, as it is the hardest to place.
    let mut order: Vec<&Running> = tasks.iter().collect();
    order.sort_by_key(|task| (std::cmp::Reverse(task.size), task.assignment));
    let mut found = Vec::with_capacity(tasks.len());
    for task in order {
        let request = requests(task.service)?;
        let placed = scheduler.place(&request.keeping(emptied));
        let fits = match placed {
            Ok(placed) => {
                let good = is_good(scheduler, &placed, least);
                found.push((task, placed));
                good
            }
            Err(_) => false,
        };
        if !fits {
            let placed = found.into_iter().map(|(_, placed)| placed).collect();
            release_all(scheduler, placed);
            return None;
        }
    }
    Some(found)
}

/// Returns whether the node that a task was placed on was in use before, and as full as this.
fn is_good(scheduler: &Scheduler, placed: &Placed, least: Fullness) -> bool {
    let Some(taken) = scheduler.allocation(placed.node) else {
        return false;
    };
    taken.tasks > 1 && fullness(scheduler, placed.node).is_some_and(|now| now >= least)
}

/// Returns how full a node is; none if it is not known.
fn fullness(scheduler: &Scheduler, node: NodeId) -> Option<Fullness> {
    let taken = scheduler.allocation(node)?;
    let has = &scheduler.node(node)?.offered;
    let share = |taken: u64, has: u64| -> u64 {
        let share = (u128::from(taken) << 16) / u128::from(has.max(1));
        u64::try_from(share).unwrap_or(u64::MAX)
    };
    let devices: u64 = taken.devices.iter().map(|&milli| u64::from(milli)).sum();
    Some(
        share(taken.cpu, has.cpu.0.into())
            .max(share(taken.memory, has.memory.0))
            .max(share(
                devices,
                has.devices.len() as u64 * u64::from(device::WHOLE),
            )),
    )
}

/// Moves fractions that are alone on a device to devices that are in use already.
fn free_devices(
    scheduler: &mut Scheduler,
    requests: &Requests<'_>,
    nodes: &BTreeMap<NodeId, Vec<Running>>,
    settled: &[NodeId],
    left: &mut Left<'_>,
    moves: &mut Vec<Move>,
) {
    let mut held = Vec::new();
    for (_, from, task) in lone_fractions(scheduler, nodes)
        .into_iter()
        .take(DEVICES_TRIED)
    {
        if settled.contains(&from) || held.iter().any(|placed: &Placed| placed.node == from) {
            continue;
        }
        if !left.budget.lets(task) {
            continue;
        }
        let Some(request) = requests(task.service).filter(is_movable) else {
            continue;
        };
        let kept = [from];
        let Ok(placed) = scheduler.place(&request.keeping(&kept)) else {
            continue;
        };
        let grant = placed.claim.devices.first();
        let shared = grant.is_some_and(|grant| {
            let taken = scheduler.allocation(placed.node);
            taken.is_some_and(|t| t.device(grant.device.into()) > u32::from(grant.milli))
        });
        if !shared || !left.take(&request) {
            scheduler.release(placed.reservation);
            continue;
        }
        moves.push(Move {
            assignment: task.assignment,
            service: task.service,
            from,
            to: placed.node,
            why: Why::FreesDevice,
        });
        held.push(placed);
    }
    release_all(scheduler, held);
}

/// Returns the tasks that hold a part of a device which nobody else holds, the smallest part
/// first.
fn lone_fractions<'t>(
    scheduler: &Scheduler,
    nodes: &'t BTreeMap<NodeId, Vec<Running>>,
) -> Vec<(u16, NodeId, &'t Running)> {
    let mut lone = Vec::new();
    for (&node, tasks) in nodes {
        let Some(taken) = scheduler.allocation(node) else {
            continue;
        };
        for task in tasks {
            let Some(grant) = task.device else {
                continue;
            };
            let alone = taken.device(grant.device.into()) == u32::from(grant.milli);
            if alone && u32::from(grant.milli) < device::WHOLE {
                lone.push((grant.milli, node, task));
            }
        }
    }
    lone.sort_by_key(|&(milli, node, task)| (milli, node, task.assignment));
    lone
}
