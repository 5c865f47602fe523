//! What a placement breaks, counted anew from the lists.

use std::collections::{BTreeMap, BTreeSet};

use super::lists::{Half, Host, Request, Strategy};

/// Where a request was placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spot {
    /// The host's number.
    pub host: usize,
    /// What it takes of each socket.
    pub takes: [Half; 2],
}

/// How often each rule is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Broken {
    /// Sockets that give more CPU or memory than they have.
    pub capacity: usize,
    /// Requests that are not within one socket, or not in even halves on two.
    pub sockets: usize,
    /// Groups of affinity in more than one rack.
    pub affinity: usize,
    /// Requests of an anti-affinity group that share a rack with an earlier one.
    pub anti_affinity: usize,
    /// Racks that hold more than one domain of a group.
    pub fault_domain: usize,
}

impl Broken {
    /// Returns how often any rule is broken.
    pub const fn total(&self) -> usize {
        self.capacity + self.sockets + self.affinity + self.anti_affinity + self.fault_domain
    }
}

/// Returns what is broken by these spots, one for each request; none for those not placed.
pub fn verify(hosts: &[Host], requests: &[Request], spots: &[Option<Spot>]) -> Broken {
    let mut broken = Broken::default();
    let mut taken: BTreeMap<(usize, usize), (u64, u64)> = BTreeMap::new();
    let mut racks: BTreeMap<(u32, &str), Vec<(&str, u32)>> = BTreeMap::new();
    for (request, spot) in requests.iter().zip(spots) {
        let Some(spot) = spot else {
            continue;
        };
        broken.sockets += usize::from(!is_even(request, spot.takes));
        for (socket, takes) in spot.takes.iter().enumerate() {
            let sum = taken.entry((spot.host, socket)).or_default();
            sum.0 += u64::from(takes.cpu.0);
            sum.1 += takes.memory.0;
        }
        if let Some((group, strategy)) = request.bound {
            let (kind, domain) = match strategy {
                Strategy::Affinity => ("affinity", 0),
                Strategy::AntiAffinity => ("anti-affinity", 0),
                Strategy::FaultDomain { domain } => ("fault_domain", domain),
            };
            let rack = hosts[spot.host].rack.as_str();
            racks.entry((group, kind)).or_default().push((rack, domain));
        }
    }
    for (&(host, socket), &(cpu, memory)) in &taken {
        let has = hosts[host].sockets[socket];
        broken.capacity += usize::from(cpu > u64::from(has.cpu.0) || memory > has.memory.0);
    }
    for ((_, kind), placed) in &racks {
        let distinct: BTreeSet<&str> = placed.iter().map(|(rack, _)| *rack).collect();
        let pairs: BTreeSet<&(&str, u32)> = placed.iter().collect();
        match *kind {
            "affinity" => broken.affinity += usize::from(distinct.len() > 1),
            "anti-affinity" => broken.anti_affinity += placed.len() - distinct.len(),
            _ => broken.fault_domain += pairs.len() - distinct.len(),
        }
    }
    broken
}

/// Returns whether a request has what it wants: all on one socket, or a half on each. What cannot
/// be halved is rounded up or down.
fn is_even(request: &Request, takes: [Half; 2]) -> bool {
    let cpu = takes.map(|half| u64::from(half.cpu.0));
    let memory = takes.map(|half| half.memory.0);
    let whole =
        cpu[0] + cpu[1] == u64::from(request.cpu.0) && memory[0] + memory[1] == request.memory.0;
    whole
        && match request.sockets {
            1 => takes.contains(&Half::default()),
            _ => cpu[0].abs_diff(cpu[1]) <= 1 && memory[0].abs_diff(memory[1]) <= 1,
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ballast_model::{Bytes, MilliCpu};

    fn half(cpu: u32, memory: u64) -> Half {
        Half {
            cpu: MilliCpu(cpu),
            memory: Bytes(memory),
        }
    }

    fn spot(host: usize, first: Half, second: Half) -> Spot {
        let takes = [first, second];
        Spot { host, takes }
    }

    fn request(sockets: u8, bound: Option<(u32, Strategy)>) -> Request {
        Request {
            cpu: MilliCpu(4),
            memory: Bytes(4),
            sockets,
            bound,
        }
    }

    #[test]
    fn each_rule_is_counted_when_it_is_broken_and_only_then() {
        let host = |rack: &str| Host {
            sockets: [half(8, 8); 2],
            rack: rack.to_owned(),
        };
        let hosts = [host("a"), host("a"), host("b")];
        let one = |h| Some(spot(h, half(4, 4), half(0, 0)));
        let two = Some(spot(0, half(2, 2), half(2, 2)));
        let ask = |requests: &[Request], spots: &[Option<Spot>]| verify(&hosts, requests, spots);
        let plain = request(1, None);
        assert_eq!(ask(&[plain; 3], &[one(0), one(0), None]), Broken::default());
        assert_eq!(ask(&[plain; 3], &[one(0), one(0), one(0)]).capacity, 1);
        assert_eq!(ask(&[plain], &[two]).sockets, 1);
        assert_eq!(ask(&[request(2, None)], &[two]), Broken::default());
        assert_eq!(ask(&[request(2, None)], &[one(0)]).sockets, 1);
        let together = request(1, Some((1, Strategy::Affinity)));
        assert_eq!(ask(&[together; 2], &[one(0), one(1)]), Broken::default());
        assert_eq!(ask(&[together; 2], &[one(0), one(2)]).affinity, 1);
        let apart = request(1, Some((1, Strategy::AntiAffinity)));
        assert_eq!(ask(&[apart; 2], &[one(0), one(2)]), Broken::default());
        assert_eq!(ask(&[apart; 2], &[one(0), one(1)]).anti_affinity, 1);
        let domain = |domain| request(1, Some((1, Strategy::FaultDomain { domain })));
        let domains = [domain(0), domain(0), domain(1)];
        assert_eq!(ask(&domains, &[one(0), one(1), one(2)]), Broken::default());
        assert_eq!(ask(&domains, &[one(0), one(2), one(2)]).fault_domain, 1);
    }
}
