//! The scheduler on hosts of two sockets.

use std::collections::{BTreeMap, BTreeSet};

use ballast_model::{
    AssignmentId, Bytes, Capacity, MilliCpu, Node, Placement, Resources, ServiceAffinity,
    ServiceId, Socket, TopologyKey,
};
use ballast_scheduler::{Peers, Scheduler};

use super::lists::{Half, Host, Request, Strategy};
use super::verify::Spot;
use crate::fleet::{blank_node, node_number};

/// The label that says which rack a host stands in.
const RACK: &str = "rack";

/// Places each request in the order of the list; returns where, or nothing for those that no host
/// takes.
pub fn schedule(hosts: &[Host], requests: &[Request]) -> Vec<Option<Spot>> {
    let nodes: Vec<Node> = hosts
        .iter()
        .enumerate()
        .map(|(n, host)| node(n, host))
        .collect();
    let mut scheduler = Scheduler::rebuild(&nodes, []);
    let services = Services::of(requests);
    let mut spots = Vec::with_capacity(requests.len());
    for (number, request) in requests.iter().enumerate() {
        let service = &services.list[services.place(request)];
        let resources = Resources {
            cpu: request.cpu,
            memory: request.memory,
            ..Resources::default()
        };
        let asked = ballast_scheduler::Request {
            service: service.id,
            resources: &resources,
            ports: &[],
            placement: &service.placements[usize::from(request.sockets) - 1],
            node: None,
            avoid: &[],
            kept: &[],
            peers: &service.peers,
        };
        let placed = scheduler.place(&asked).ok().map(|placed| {
            let mut takes = [Half::default(); 2];
            for grant in &placed.claim.sockets {
                takes[usize::from(grant.socket)] = Half {
                    cpu: grant.cpu,
                    memory: grant.memory,
                };
            }
            let host = node_number(placed.node);
            scheduler.commit(placed.reservation, AssignmentId::from_bits(number as u64));
            Spot { host, takes }
        });
        spots.push(placed);
    }
    spots
}

fn node(number: usize, host: &Host) -> Node {
    let sockets = host.sockets.map(|half| Socket {
        cpu: half.cpu,
        memory: half.memory,
    });
    let cpu = sockets.iter().map(|socket| socket.cpu.0).sum();
    let memory = sockets.iter().map(|socket| socket.memory.0).sum();
    let capacity = Capacity {
        sockets: sockets.to_vec(),
        ..Capacity::of(MilliCpu(cpu), Bytes(memory))
    };
    let mut node = blank_node(number, format!("host-{number}"), capacity);
    node.labels.insert(RACK.to_owned(), host.rack.clone());
    node
}

/// The services that requests belong to: a group's requests of one strategy, and for fault domains
/// of one domain, are one; those without a strategy are one, too.
struct Services {
    places: BTreeMap<Option<(u32, Strategy)>, usize>,
    list: Vec<Service>,
}

struct Service {
    id: ServiceId,
    /// For one socket and for two.
    placements: [Placement; 2],
    peers: Peers,
}

impl Services {
    fn of(requests: &[Request]) -> Self {
        let bounds: BTreeSet<_> = requests.iter().map(|request| request.bound).collect();
        let places: BTreeMap<_, _> = bounds.into_iter().zip(0..).collect();
        let list = places
            .iter()
            .map(|(&bound, &place)| service(bound, place, &places))
            .collect();
        Self { places, list }
    }

    fn place(&self, request: &Request) -> usize {
        self.places[&request.bound]
    }
}

fn id(place: usize) -> ServiceId {
    ServiceId::from_bits(place as u64)
}

fn service(
    bound: Option<(u32, Strategy)>,
    place: usize,
    places: &BTreeMap<Option<(u32, Strategy)>, usize>,
) -> Service {
    let rule = |name: String, weight: i8| ServiceAffinity {
        service: name,
        over: TopologyKey::Label(RACK.to_owned()),
        weight,
        required: true,
    };
    let mut affinities = Vec::new();
    let mut peers = Peers::default();
    match bound {
        None => {}
        Some((_, Strategy::Affinity)) => affinities.push(rule(String::new(), 100)),
        Some((_, Strategy::AntiAffinity)) => affinities.push(rule(String::new(), -100)),
        Some((group, Strategy::FaultDomain { domain: own })) => {
            for (&other, &at) in places {
                if let Some((its, Strategy::FaultDomain { domain })) = other
                    && its == group
                    && domain != own
                {
                    affinities.push(rule(format!("group-{group}-domain-{domain}"), -100));
                    peers.services.push(Some(id(at)));
                }
            }
        }
    }
    if peers.services.is_empty() {
        peers.services = vec![None; affinities.len()];
    }
    let placement = |sockets| Placement {
        services: affinities.clone(),
        sockets,
        ..Placement::default()
    };
    Service {
        id: id(place),
        placements: [placement(1), placement(2)],
        peers,
    }
}
