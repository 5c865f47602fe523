//! First fit and best fit: what the scheduler is compared with. They honour every rule, by a scan
//! over all hosts for each request.

use std::collections::{BTreeMap, BTreeSet};

use super::lists::{Half, Host, Request, Strategy};
use super::verify::Spot;

/// Places each request on the first host that takes it, on its first socket that does.
pub fn first_fit(hosts: &[Host], requests: &[Request]) -> Vec<Option<Spot>> {
    place_all(hosts, requests, |_, _| 0)
}

/// Places each request where the least is left: the sum of CPU and memory left on the sockets
/// that it takes, each as a share of the largest socket.
pub fn best_fit(hosts: &[Host], requests: &[Request]) -> Vec<Option<Spot>> {
    let halves = || hosts.iter().flat_map(|host| host.sockets);
    let cpu = halves()
        .map(|half| u64::from(half.cpu.0))
        .max()
        .unwrap_or(1)
        .max(1);
    let memory = halves().map(|half| half.memory.0).max().unwrap_or(1).max(1);
    place_all(hosts, requests, |free, takes| {
        let left = |(free, takes): (&Half, &Half)| {
            if *takes == Half::default() {
                return 0;
            }
            let cpu_left = u64::from(free.cpu.0 - takes.cpu.0);
            let memory_left = free.memory.0 - takes.memory.0;
            cpu_left * 1_000_000 / cpu + per_million(memory_left, memory)
        };
        free.iter().zip(takes).map(left).sum()
    })
}

fn per_million(part: u64, whole: u64) -> u64 {
    u64::try_from(u128::from(part) * 1_000_000 / u128::from(whole)).unwrap_or(u64::MAX)
}

/// Places each request where `cost` of what is free and what it takes is least; the first of them.
fn place_all(
    hosts: &[Host],
    requests: &[Request],
    cost: impl Fn(&[Half; 2], &[Half; 2]) -> u64,
) -> Vec<Option<Spot>> {
    let mut free: Vec<[Half; 2]> = hosts.iter().map(|host| host.sockets).collect();
    let mut groups = Groups::default();
    let mut spots = Vec::with_capacity(requests.len());
    for request in requests {
        let mut best: Option<(u64, Spot)> = None;
        for (host, free) in free.iter().enumerate() {
            if !groups.allow(request, &hosts[host].rack) {
                continue;
            }
            for takes in ways(request) {
                let spot = Spot { host, takes };
                if !fits(free, &takes) {
                    continue;
                }
                let cost = cost(free, &takes);
                if best.is_none_or(|(least, _)| cost < least) {
                    best = Some((cost, spot));
                }
            }
        }
        let spot = best.map(|(_, spot)| spot);
        if let Some(spot) = spot {
            for (free, takes) in free[spot.host].iter_mut().zip(spot.takes) {
                free.cpu.0 -= takes.cpu.0;
                free.memory.0 -= takes.memory.0;
            }
            groups.note(request, &hosts[spot.host].rack);
        }
        spots.push(spot);
    }
    spots
}

/// Returns what a request may take of the sockets.
fn ways(request: &Request) -> Vec<[Half; 2]> {
    let nothing = Half::default();
    let all = Half {
        cpu: request.cpu,
        memory: request.memory,
    };
    if request.sockets == 1 {
        return vec![[all, nothing], [nothing, all]];
    }
    let mut less = all;
    less.cpu.0 /= 2;
    less.memory.0 /= 2;
    let mut more = all;
    more.cpu.0 -= less.cpu.0;
    more.memory.0 -= less.memory.0;
    vec![[more, less]]
}

fn fits(free: &[Half; 2], takes: &[Half; 2]) -> bool {
    let mut sockets = free.iter().zip(takes);
    sockets.all(|(free, takes)| takes.cpu <= free.cpu && takes.memory <= free.memory)
}

/// Racks that the groups are in.
#[derive(Default)]
struct Groups<'a> {
    affinity: BTreeMap<u32, &'a str>,
    anti_affinity: BTreeMap<u32, BTreeSet<&'a str>>,
    domains: BTreeMap<(u32, &'a str), u32>,
}

impl<'a> Groups<'a> {
    fn allow(&self, request: &Request, rack: &'a str) -> bool {
        match request.bound {
            None => true,
            Some((group, Strategy::Affinity)) => {
                self.affinity.get(&group).is_none_or(|its| *its == rack)
            }
            Some((group, Strategy::AntiAffinity)) => {
                let theirs = self.anti_affinity.get(&group);
                theirs.is_none_or(|racks| !racks.contains(rack))
            }
            Some((group, Strategy::FaultDomain { domain })) => {
                let its = self.domains.get(&(group, rack));
                its.is_none_or(|its| *its == domain)
            }
        }
    }

    fn note(&mut self, request: &Request, rack: &'a str) {
        match request.bound {
            None => {}
            Some((group, Strategy::Affinity)) => {
                self.affinity.insert(group, rack);
            }
            Some((group, Strategy::AntiAffinity)) => {
                self.anti_affinity.entry(group).or_default().insert(rack);
            }
            Some((group, Strategy::FaultDomain { domain })) => {
                self.domains.insert((group, rack), domain);
            }
        }
    }
}
