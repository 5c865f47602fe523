//! Connections to the same place, and the requests that wait for one of them.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::flights::Flight;
use crate::plan::{Pick, Picker, Plan};
use crate::record::ErrorClass;

/// Targets at the same addresses share their connections.
#[derive(Debug)]
pub struct Pool {
    addresses: Vec<SocketAddr>,
    turn: usize,
    /// Chooses among its targets, for connections that ask by themselves.
    picker: Picker,
    /// The plan's number of each target that the picker knows.
    members: Vec<u16>,
    /// Sum of its targets' weights.
    weight: u64,
    /// Connections that can take a request; the one that waited longest comes first, so that all
    /// take their turns as independent clients would. (The one used last would be warmest, but the
    /// target would see a handful of busy connections and many dead ones.)
    pub free: VecDeque<u32>,
    /// Requests that are due.
    pub backlog: VecDeque<Flight>,
    /// Open connections.
    pub open: usize,
    /// Connections that are being opened, or that wait only for their turn to be.
    pub opening: usize,
    /// Why none is open, if none is and none is being opened: what is due fails with it at once.
    pub down: Option<ErrorClass>,
}

impl Pool {
    /// Returns the pools of a plan, and the pool of each of its targets.
    pub fn all(plan: &Plan) -> (Vec<Self>, Vec<u16>) {
        let mut pools: Vec<Self> = Vec::new();
        let mut of_target = Vec::new();
        for (target, number) in plan.targets.iter().zip(0_u16..) {
            let known = pools.iter().position(|it| it.addresses == target.addresses);
            let at = known.unwrap_or(pools.len());
            if at == pools.len() {
                pools.push(Self {
                    addresses: target.addresses.clone(),
                    turn: 0,
                    picker: Picker::of_target(plan, number),
                    members: Vec::new(),
                    weight: 0,
                    free: VecDeque::new(),
                    backlog: VecDeque::new(),
                    open: 0,
                    opening: 0,
                    down: None,
                });
            }
            pools[at].members.push(number);
            pools[at].weight += u64::from(target.weight);
            of_target.push(u16::try_from(at).unwrap_or(u16::MAX));
        }
        for pool in &mut pools {
            let mut part = plan.clone();
            part.targets = pool
                .members
                .iter()
                .map(|number| plan.targets[usize::from(*number)].clone())
                .collect();
            pool.picker = Picker::new(&part);
        }
        (pools, of_target)
    }

    /// Returns the pool of each of so many connections: one for each pool first, the others by
    /// weight.
    pub fn shares(pools: &[Self], connections: usize) -> Vec<u16> {
        let mut given = vec![0_u64; pools.len()];
        (0..connections)
            .map(|nth| {
                // The one that has the least of what it is due.
                let at = (0..pools.len())
                    .min_by(|a, b| {
                        let (left, right) = (
                            u128::from(given[*a]) * u128::from(pools[*b].weight.max(1)),
                            u128::from(given[*b]) * u128::from(pools[*a].weight.max(1)),
                        );
                        left.cmp(&right)
                    })
                    .unwrap_or_default();
                let at = if nth < pools.len() { nth } else { at };
                given[at] += 1;
                u16::try_from(at).unwrap_or(u16::MAX)
            })
            .collect()
    }

    /// Returns which request number `number` is, if one of its connections asks by itself.
    pub fn pick(&self, number: u64) -> Pick {
        let pick = self.picker.pick(number);
        Pick {
            target: self.members[usize::from(pick.target)],
            ..pick
        }
    }

    /// Returns the address of the next connection.
    pub fn address(&mut self) -> SocketAddr {
        let address = self.addresses[self.turn % self.addresses.len()];
        self.turn += 1;
        address
    }

    /// Returns whether nothing is open, nor about to be.
    pub fn is_lost(&self) -> bool {
        self.open == 0 && self.opening == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Target;

    fn plan(weights: &[(u16, u32)]) -> Plan {
        let mut plan = Plan::http("http://127.0.0.1:1/").expect("a plan");
        let target = |(port, weight): &(u16, u32)| Target {
            addresses: vec![([127, 0, 0, 1], *port).into()],
            weight: *weight,
            ..plan.targets[0].clone()
        };
        plan.targets = weights.iter().map(target).collect();
        plan
    }

    #[test]
    fn targets_at_the_same_addresses_share_a_pool() {
        let (pools, of_target) = Pool::all(&plan(&[(1, 1), (2, 1), (1, 3)]));
        assert_eq!((pools.len(), of_target), (2, vec![0, 1, 0]));
        let mut counts = [0; 3];
        for number in 0..1000 {
            counts[usize::from(pools[0].pick(number).target)] += 1;
            assert_eq!(pools[1].pick(number).target, 1);
        }
        assert_eq!(counts[1], 0);
        assert!((700..800).contains(&counts[2]), "{counts:?}");
    }

    #[test]
    fn connections_are_shared_out_by_weight_and_nobody_goes_without() {
        let (pools, _) = Pool::all(&plan(&[(1, 1000), (2, 3000), (3, 1)]));
        let shares = Pool::shares(&pools, 64);
        let count = |pool| shares.iter().filter(|share| **share == pool).count();
        assert_eq!([count(0), count(1), count(2)], [16, 47, 1]);
        assert_eq!(Pool::shares(&pools, 3), [0, 1, 2]);
    }
}
