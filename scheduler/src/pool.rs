//! The index for several threads at once: each worker places and gives back on its own.

use std::collections::BTreeMap;

use ballast_model::{DeviceGrant, Node, NodeId, Placement, PortSpec, Resources, ServiceId, Target};

use crate::fleet::{Fleet, Ledger};
use crate::index::{At, DEVICES, Demand, Grant, Index, remaining};
use crate::map::IdMap;
use crate::policy::{Query, Search, Who};

/// A fleet that several threads place on, over the same index and by the same search as
/// [`crate::Scheduler`].
///
/// Nodes and kinds of requests come through `&mut`; then [`Self::worker`] hands out workers.
/// Nobody waits for anybody: a worker begins in its own part of the fleet, goes on to the others'
/// when nothing fits there, and reads every node's words before it says that nothing does. Among
/// several workers the choice is a good one, not the best of all: each packs its own part.
#[derive(Debug)]
pub struct Pool {
    fleet: Fleet,
    workers: usize,
    names: BTreeMap<String, u32>,
}

/// What a kind of tasks asks for, made once for many tasks.
#[derive(Debug, Clone)]
pub struct Wanted {
    query: Query,
    /// Tasks are counted by service: a rule asks how many are where.
    counted: bool,
}

/// What was taken of a node for one task.
#[derive(Debug)]
#[must_use = "what was taken is to be given back"]
pub struct Taken {
    at: At,
    node: NodeId,
    counted: bool,
    grant: Grant,
}

impl Taken {
    /// Returns the node.
    pub const fn node(&self) -> NodeId {
        self.node
    }

    /// Returns its devices, by their places on the node, and the thousandths of each.
    pub fn devices(&self) -> Vec<DeviceGrant> {
        let all = (0..DEVICES).map(|device| (device, remaining(&self.grant.devices, device)));
        let taken = all.filter(|(_, milli)| *milli > 0);
        taken
            .map(|(device, milli)| DeviceGrant {
                device: u8::try_from(device).expect("16 devices"),
                milli,
            })
            .collect()
    }

    /// Returns its ports: fixed ones first, then dynamic ones.
    pub fn ports(&self) -> &[u16] {
        &self.grant.ports
    }
}

impl Pool {
    /// Returns a pool of these nodes for so many workers.
    pub fn new<'a>(nodes: impl IntoIterator<Item = &'a Node>, workers: usize) -> Self {
        let workers = workers.max(1);
        let mut pool = Self {
            fleet: Fleet::new(workers),
            workers,
            names: BTreeMap::new(),
        };
        let mut nodes: Vec<&Node> = nodes.into_iter().collect();
        nodes.sort_unstable_by_key(|node| node.id);
        for node in nodes {
            pool.fleet.upsert(node);
            pool.fleet.stock_rest(node.id, &mut pool.names);
        }
        pool.fleet.index.prepare();
        pool
    }

    /// Returns what tasks with these needs ask for. It holds until another kind of request is
    /// taken in; [`Self::is_current`] tells.
    ///
    /// Of the placement the constraints, the first spread rule, the policies `binpack` and
    /// `spread` and the most replicas per node are judged.
    pub fn wanted(
        &mut self,
        resources: &Resources,
        ports: &[PortSpec],
        placement: &Placement,
    ) -> Wanted {
        let mut query = Query::new(&mut self.fleet, resources, placement);
        self.fleet.index.prepare();
        let next = |names: &mut BTreeMap<String, u32>, name: &str| {
            let number = u32::try_from(names.len()).expect("few names");
            *names.entry(name.to_owned()).or_insert(number)
        };
        let devices = &resources.devices;
        if devices.count > 0 {
            query.demand.devices = Some((
                next(&mut self.names, &devices.kind),
                crate::index::Wanted {
                    count: devices.count,
                    milli: devices.milli,
                },
            ));
        }
        for (name, &units) in resources.custom.iter().filter(|(_, units)| **units > 0) {
            let kind = next(&mut self.names, name);
            query.demand.custom.push((kind, units));
        }
        for port in ports {
            match port.target {
                Target::Dynamic => query.demand.dynamic_ports += 1,
                Target::Fixed(port) if query.demand.fixed_ports.contains(&port) => {}
                Target::Fixed(port) => query.demand.fixed_ports.push(port),
            }
        }
        Wanted {
            counted: query.counts(),
            query,
        }
    }

    /// Returns whether this may still be asked for.
    pub fn is_current(&self, wanted: &Wanted) -> bool {
        wanted.query.holds(&self.fleet)
    }

    /// Returns a worker; there are as many as [`Self::new`] was told, and each number is for one
    /// thread. Further numbers share a part with another worker.
    pub fn worker(&self, number: usize) -> Worker<'_> {
        Worker {
            fleet: &self.fleet,
            home: number % self.workers,
            ledgers: IdMap::default(),
            nobody: Ledger::default(),
        }
    }

    /// Keeps a port of a node out of new placements, or lets it in again: a stranger has it.
    pub fn quarantine_port(&self, node: NodeId, port: u16, out: bool) {
        if let Some(at) = self.fleet.index.at(node) {
            self.fleet.index.extra(at).ports.set_strange(port, out);
        }
    }

    /// Returns what every node has free, by id: CPU in thousandths of a core, bytes of memory, MiB
    /// of disk, and task slots.
    pub fn free(&self) -> Vec<(NodeId, [i64; 4])> {
        let index = &self.fleet.index;
        let all = index.by_id().into_iter();
        all.map(|at| {
            let free = index.line(at).free();
            let fields = [free.cpu(), free.memory(), free.disk(), free.slots()];
            (index.id(at), fields)
        })
        .collect()
    }
}

/// One thread's hand on the pool.
#[derive(Debug)]
pub struct Worker<'a> {
    fleet: &'a Fleet,
    home: usize,
    /// Services' tasks, those that this worker placed: rules hold among them.
    ledgers: IdMap<ServiceId, Ledger>,
    /// For requests without rules.
    nobody: Ledger,
}

impl Worker<'_> {
    /// Takes room for a task where it is best; nothing if no node had room for it throughout.
    ///
    /// Tasks of a service with rules are placed and given back by one worker: it alone counts
    /// them.
    ///
    /// # Panics
    /// If `wanted` is not current.
    pub fn place(&mut self, service: ServiceId, wanted: &Wanted) -> Option<Taken> {
        let fleet = self.fleet;
        let query = &wanted.query;
        assert!(
            query.is_of(fleet),
            "made anew when other kinds were taken in"
        );
        let index: &Index = &fleet.index;
        let ledger = if wanted.counted {
            self.ledgers.entry_or(service, Ledger::default)
        } else {
            &mut self.nobody
        };
        let demand: &Demand = &query.demand;
        let simple = demand.is_simple() && query.loose.is_empty();
        let judge = |at: At| {
            let fits = simple || {
                let node = &fleet.entry(at).node;
                query.loose.iter().all(|constraint| node.meets(constraint))
                    && index.line(at).seems_to_take(index.extra(at), demand)
            };
            fits.then_some(())
        };
        let mut search = Search {
            index,
            topologies: fleet.topologies(),
            ledger,
            query,
            who: Who {
                home: self.home,
                alone: false,
            },
            judge,
            take: |at: At, ()| index.take(at, demand),
        };
        let (at, grant) = search.run()?;
        if wanted.counted {
            search.ledger.add(at, index, fleet.topologies());
        }
        Some(Taken {
            at,
            node: index.id(at),
            counted: wanted.counted,
            grant,
        })
    }

    /// Gives back what a task of this service took.
    ///
    /// # Panics
    /// If another worker placed it and a rule counts it.
    pub fn release(&mut self, service: ServiceId, taken: Taken) {
        let index = &self.fleet.index;
        index.give(taken.at, &taken.grant);
        if taken.counted {
            let ledger = self.ledgers.get_mut(service);
            let ledger = ledger.expect("given back by the worker that placed it");
            ledger.sub(taken.at, index, self.fleet.topologies());
        }
    }
}
