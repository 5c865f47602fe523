//! What the manager and the agents say, turned into route tables.
//!
//! The manager says which endpoints exist (ordered by generation), each node's agent says how its
//! own are (ordered by incarnation and sequence), and leases say whether the agent still lives.
//! The highest wins in each order, so late and repeated messages are harmless.
//!
//! | what is known of an endpoint | its state |
//! | --- | --- |
//! | its agent says `healthy`, and the lease is alive | ready |
//! | its agent says `unhealthy` | out; suspect if most of the pool's live members are unhealthy |
//! | its node's lease lapsed | out; suspect if most of the pool's nodes lapsed |
//! | its agent says `draining` | draining |
//! | its agent says `unknown`, or does not know it | unknown: takes nothing |
//! | its agent has said nothing since this ingress started | what the manager last heard |
//!
//! **The floor.** A suspect takes requests. When more than half of a pool's members fail their
//! probes at once, the probes are more likely wrong than the members, and an empty pool helps
//! nobody. Leases are counted by node, not by member: one silent node is an everyday failure even
//! if it held most of the replicas, many silent nodes are a failure of ours. `unknown` members do
//! not count and never become suspects: nothing has answered there yet. A port may do without the
//! floor (`outage.fail_open: false`). See docs/adr/0005.

mod build;
mod why;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ballast_model::limits::{INGRESS_LEASE, NODES};
use ballast_model::{
    AssignmentId, Endpoint, Generation, Health, Incarnation, NodeId, PortTable, Sequence,
    ServiceId, ServiceTable, Timestamp,
};
use ballast_wire::feed::EndpointHealth;

use build::{Before, of_service};

use super::{Backend, Gate, Member, MemberState, Moment, Pool, RouteTable};
use crate::policy::Busy;

/// How often [`Feed::tick`] is called.
pub const TICK: Duration = Duration::from_millis(25);
/// How late a tick may be before the leases are extended by its lateness: this process was starved
/// then, and has not read the heartbeats that arrived meanwhile.
const TICK_SLACK: Duration = Duration::from_millis(25);
/// Assignments of one node that are remembered without being in the table: an agent may be ahead
/// of the manager. Past it, they wait for the agent's next `Sync`.
const REPORTS_PER_NODE: usize = 16_384;

/// Why a message of an agent was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FeedError {
    /// A later life of the agent has spoken.
    #[error("node {node} has been seen in incarnation {seen}, later than {offered}")]
    OldIncarnation {
        /// Which node.
        node: NodeId,
        /// The latest.
        seen: Incarnation,
        /// This one.
        offered: Incarnation,
    },
    /// The agent has opened another connection since.
    #[error("node {0} has opened a newer connection")]
    Superseded(NodeId),
    /// More nodes than a cluster may have.
    #[error("{NODES} nodes have reported, no more fit")]
    TooManyNodes,
}

/// One connection of one agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    node: NodeId,
    incarnation: Incarnation,
    number: u64,
}

impl Session {
    /// Whose it is.
    pub const fn node(self) -> NodeId {
        self.node
    }
}

/// An endpoint that was taken out because its agent said so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Departure {
    /// Which.
    pub assignment: AssignmentId,
    /// When the agent saw the failure, by its clock.
    pub seen: Timestamp,
}

/// What the shell has to do: first swap the table, then sever.
#[derive(Debug, Default)]
pub struct Effects {
    /// The new table, if it changed.
    pub table: Option<Arc<RouteTable>>,
    /// Whether published ports or routes changed with it.
    pub routing_changed: bool,
    /// Endpoints that were taken out: cut their connections.
    pub sever: Vec<Arc<Backend>>,
    /// Endpoints that left on their agent's word.
    pub departed: Vec<Departure>,
}

#[derive(Debug, Clone, Copy)]
struct Report {
    incarnation: Incarnation,
    sequence: Sequence,
    health: Health,
}

#[derive(Debug)]
struct Node {
    incarnation: Incarnation,
    session: u64,
    heard: Moment,
    synced: bool,
    lapsed: bool,
    reports: BTreeMap<AssignmentId, Report>,
}

/// The core of an ingress: see the module.
#[derive(Debug, Default)]
pub struct Feed {
    generation: Generation,
    services: BTreeMap<ServiceId, ServiceTable>,
    /// Which services have an assignment: nearly always one.
    homes: BTreeSet<(AssignmentId, ServiceId)>,
    nodes: BTreeMap<NodeId, Node>,
    /// Gone from the table with requests in flight.
    leaving: BTreeMap<AssignmentId, Vec<Arc<Backend>>>,
    table: Arc<RouteTable>,
    sessions: u64,
    ticked: Option<Moment>,
    /// Pools with requests, for the watch over stalls.
    busy: Arc<Busy>,
    /// Where this ingress is, if it was told.
    zone: Option<String>,
}

impl Feed {
    /// Makes an empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the list of pools that have requests.
    pub fn busy(&self) -> &Arc<Busy> {
        &self.busy
    }

    /// Says where this ingress is: for tables made from now on.
    pub fn set_zone(&mut self, zone: Option<String>) {
        self.zone = zone;
    }

    /// Returns the current table.
    pub fn table(&self) -> &Arc<RouteTable> {
        &self.table
    }

    /// Returns what the manager said last, for a later start without it.
    pub fn snapshot_of(&self) -> (Generation, Vec<ServiceTable>) {
        (self.generation, self.services.values().cloned().collect())
    }

    /// Takes everything anew. An older generation changes nothing.
    pub fn snapshot(&mut self, generation: Generation, services: Vec<ServiceTable>) -> Effects {
        if generation < self.generation {
            return Effects::default();
        }
        self.generation = generation;
        let services: BTreeMap<ServiceId, ServiceTable> = services
            .into_iter()
            .map(|table| (table.service, table))
            .collect();
        let mut old = std::mem::replace(&mut self.services, services);
        let mut before = Before::new();
        for (&service, table) in &self.services {
            let known = old.remove(&service);
            if known.as_ref() != Some(table) {
                before.insert(service, known);
            }
        }
        before.extend(old.into_iter().map(|(service, gone)| (service, Some(gone))));
        self.rebuild(&before)
    }

    /// Takes services that changed or went. An older generation changes nothing; one that is
    /// repeated may bring other services of the same state.
    pub fn update(
        &mut self,
        generation: Generation,
        changed: Vec<ServiceTable>,
        removed: &[ServiceId],
    ) -> Effects {
        if generation < self.generation {
            return Effects::default();
        }
        self.generation = generation;
        let mut before = Before::new();
        for table in changed {
            let service = table.service;
            let known = self.services.get(&service);
            if known.is_some_and(|known| known.generation > table.generation || *known == table) {
                continue;
            }
            let known = self.services.insert(service, table);
            before.entry(service).or_insert(known);
        }
        for &service in removed {
            if let Some(known) = self.services.remove(&service) {
                before.entry(service).or_insert(Some(known));
            }
        }
        self.rebuild(&before)
    }

    /// Opens a session for an agent; the one before it ends.
    ///
    /// # Errors
    /// [`FeedError::OldIncarnation`], [`FeedError::TooManyNodes`].
    pub fn hello(
        &mut self,
        node: NodeId,
        incarnation: Incarnation,
        now: Moment,
    ) -> Result<Session, FeedError> {
        let full = self.nodes.len() >= NODES;
        let entry = match self.nodes.entry(node) {
            std::collections::btree_map::Entry::Vacant(_) if full => {
                return Err(FeedError::TooManyNodes);
            }
            std::collections::btree_map::Entry::Vacant(vacant) => vacant.insert(Node {
                incarnation,
                session: 0,
                heard: now,
                synced: false,
                lapsed: false,
                reports: BTreeMap::new(),
            }),
            std::collections::btree_map::Entry::Occupied(occupied) => occupied.into_mut(),
        };
        if entry.incarnation > incarnation {
            return Err(FeedError::OldIncarnation {
                node,
                seen: entry.incarnation,
                offered: incarnation,
            });
        }
        self.sessions += 1;
        entry.incarnation = incarnation;
        entry.session = self.sessions;
        entry.heard = now;
        Ok(Session {
            node,
            incarnation,
            number: self.sessions,
        })
    }

    /// Takes all that an agent knows: what was known of others of its node is forgotten.
    ///
    /// # Errors
    /// [`FeedError::Superseded`].
    pub fn sync(
        &mut self,
        session: Session,
        all: &[EndpointHealth],
        now: Moment,
    ) -> Result<Effects, FeedError> {
        let node = self.alive(session, now)?;
        node.synced = true;
        let mut reports: BTreeMap<AssignmentId, Report> = BTreeMap::new();
        for said in all {
            let new = Report {
                incarnation: session.incarnation,
                sequence: said.sequence,
                health: said.health,
            };
            let old = node.reports.get(&said.assignment).copied();
            reports.insert(said.assignment, newer(old, new));
        }
        node.reports = reports;
        Ok(self.judge_node(session.node, all))
    }

    /// Takes one change.
    ///
    /// # Errors
    /// [`FeedError::Superseded`].
    pub fn change(
        &mut self,
        session: Session,
        said: &EndpointHealth,
        now: Moment,
    ) -> Result<Effects, FeedError> {
        let known = self.places(said.assignment).next().is_some();
        let revived = self.nodes.get(&session.node).is_some_and(|n| n.lapsed);
        let node = self.alive(session, now)?;
        let old = node.reports.get(&said.assignment).copied();
        if old.is_none() && !known && node.reports.len() >= REPORTS_PER_NODE {
            return Ok(Effects::default());
        }
        let new = Report {
            incarnation: session.incarnation,
            sequence: said.sequence,
            health: said.health,
        };
        node.reports.insert(said.assignment, newer(old, new));
        if revived {
            return Ok(self.judge_node(session.node, std::slice::from_ref(said)));
        }
        let places = self.places(said.assignment).collect();
        Ok(self.judge(places, std::slice::from_ref(said)))
    }

    /// Renews a lease.
    ///
    /// # Errors
    /// [`FeedError::Superseded`].
    pub fn heartbeat(&mut self, session: Session, now: Moment) -> Result<Effects, FeedError> {
        let revived = self.nodes.get(&session.node).is_some_and(|n| n.lapsed);
        self.alive(session, now)?;
        if revived {
            return Ok(self.judge_node(session.node, &[]));
        }
        Ok(Effects::default())
    }

    /// Lets leases lapse; every [`TICK`].
    pub fn tick(&mut self, now: Moment) -> Effects {
        let late = self
            .ticked
            .map_or(Duration::ZERO, |before| now.since(before))
            .saturating_sub(TICK);
        self.ticked = Some(now);
        let mut lapsed = BTreeSet::new();
        for (&id, node) in &mut self.nodes {
            if late > TICK_SLACK {
                node.heard = node.heard.after(late).min(now);
            }
            if !node.lapsed && now.since(node.heard) > INGRESS_LEASE.to_duration() {
                node.lapsed = true;
                lapsed.insert(id);
            }
        }
        self.leaving.retain(|_, backends| {
            backends.retain(|backend| {
                let busy = backend.in_flight() > 0;
                if !busy {
                    // What is left are idle kept connections, of no use any more.
                    backend.links.sever_all();
                }
                busy
            });
            !backends.is_empty()
        });
        if lapsed.is_empty() {
            return Effects::default();
        }
        self.judge(self.places_of(&lapsed), &[])
    }

    /// Returns the live state of every address of an assignment, those that have left the table
    /// with requests in flight among them.
    pub fn backends(&self, assignment: AssignmentId) -> Vec<Arc<Backend>> {
        let listed = self
            .places(assignment)
            .flat_map(|place| &self.table.pools[place].members)
            .filter(|member| member.backend.assignment == assignment)
            .map(|member| Arc::clone(&member.backend));
        let leaving = self.leaving.get(&assignment).into_iter().flatten().cloned();
        listed.chain(leaving).collect()
    }

    /// Renews the lease of a session's node and returns the node.
    fn alive(&mut self, session: Session, now: Moment) -> Result<&mut Node, FeedError> {
        match self.nodes.get_mut(&session.node) {
            Some(node) if node.session == session.number => {
                node.heard = now;
                node.lapsed = false;
                Ok(node)
            }
            _ => Err(FeedError::Superseded(session.node)),
        }
    }

    /// Returns the places of the pools that may hold an assignment.
    fn places(&self, assignment: AssignmentId) -> impl Iterator<Item = usize> {
        let least = (assignment, ServiceId::from_bits(0));
        let most = (assignment, ServiceId::from_bits(u64::MAX));
        let homes = self.homes.range(least..=most);
        homes.flat_map(|&(_, service)| {
            let pools = &self.table.pools;
            let from = pools.partition_point(|pool| pool.key.service < service);
            from..from + of_service(pools, service).len()
        })
    }

    fn places_of(&self, nodes: &BTreeSet<NodeId>) -> BTreeSet<usize> {
        let ports = self.services.values().flat_map(|table| &table.ports);
        let is_there = |port: &PortTable| port.endpoints.iter().any(|e| nodes.contains(&e.node));
        let places = ports.enumerate().filter(|(_, port)| is_there(port));
        places.map(|(place, _)| place).collect()
    }

    fn judge_node(&mut self, node: NodeId, said: &[EndpointHealth]) -> Effects {
        let places = self.places_of(&BTreeSet::from([node]));
        self.judge(places, said)
    }

    /// Judges the members of some pools anew, and makes a new table if any state changed.
    fn judge(&mut self, places: BTreeSet<usize>, said: &[EndpointHealth]) -> Effects {
        let mut effects = Effects::default();
        let mut pools: Option<Vec<Arc<Pool>>> = None;
        for place in places {
            let old = &self.table.pools[place];
            let Some(port) = self.port(&old.key) else {
                continue;
            };
            let states = self.states(&port.endpoints, fails_open(port));
            if old
                .members
                .iter()
                .map(|m| m.state)
                .eq(states.iter().copied())
            {
                continue;
            }
            let members = old
                .members
                .iter()
                .zip(&states)
                .map(|(member, &state)| Member {
                    backend: Arc::clone(&member.backend),
                    state,
                });
            let pool = Pool::of(
                Arc::clone(old.state()),
                old.key.clone(),
                Arc::clone(&old.service_name),
                old.protocol,
                members.collect(),
            )
            .counting(Arc::clone(&old.stats))
            .reached(Arc::clone(&old.upstream));
            set_gates(&pool, said, &mut effects);
            pools.get_or_insert_with(|| self.table.pools.clone())[place] = Arc::new(pool);
        }
        self.judge_leaving(said, &mut effects);
        if let Some(pools) = pools {
            self.table = Arc::new(RouteTable {
                generation: self.table.generation,
                pools,
                routing: Arc::clone(&self.table.routing),
            });
            effects.table = Some(Arc::clone(&self.table));
        }
        for one in said {
            for place in self.places(one.assignment) {
                for member in &self.table.pools[place].members {
                    if member.backend.assignment == one.assignment {
                        member.backend.forgive();
                    }
                }
            }
        }
        effects
    }

    /// An endpoint that has left the table and then died: its requests are cut off, too.
    fn judge_leaving(&self, said: &[EndpointHealth], effects: &mut Effects) {
        for one in said {
            if matches!(one.health, Health::Unhealthy | Health::Unknown) {
                let leaving = self.leaving.get(&one.assignment).into_iter().flatten();
                effects.sever.extend(leaving.cloned());
            }
        }
    }

    /// The table in the module's documentation.
    fn states(&self, endpoints: &[Endpoint], fail_open: bool) -> Vec<MemberState> {
        let known: Vec<(Health, bool)> = endpoints.iter().map(|end| self.known(end)).collect();
        let counts = |health: Health| matches!(health, Health::Healthy | Health::Unhealthy);
        let mut nodes: BTreeMap<NodeId, bool> = BTreeMap::new();
        for (end, &(health, lapsed)) in endpoints.iter().zip(&known) {
            if counts(health) {
                nodes.insert(end.node, lapsed);
            }
        }
        let silent = nodes.values().filter(|&&lapsed| lapsed).count();
        let keep_silent = fail_open && silent * 2 > nodes.len();
        let judged = known
            .iter()
            .filter(|&&(health, lapsed)| counts(health) && (!lapsed || keep_silent));
        let failing = judged.clone().filter(|(h, _)| *h == Health::Unhealthy);
        let keep_failing = fail_open && failing.count() * 2 > judged.count();
        known
            .into_iter()
            .map(|(health, lapsed)| match (health, lapsed) {
                (Health::Unknown, _) => MemberState::Unknown,
                (Health::Draining, false) => MemberState::Draining,
                (Health::Healthy, false) => MemberState::Ready,
                (Health::Healthy, true) if keep_silent => MemberState::Suspect,
                (Health::Unhealthy, lapsed) if keep_failing && (!lapsed || keep_silent) => {
                    MemberState::Suspect
                }
                _ => MemberState::Out,
            })
            .collect()
    }

    /// Returns the health that counts for an endpoint, and whether its node has fallen silent.
    fn known(&self, endpoint: &Endpoint) -> (Health, bool) {
        let Some(node) = self.nodes.get(&endpoint.node) else {
            return (endpoint.health, false);
        };
        let health = match node.reports.get(&endpoint.assignment) {
            Some(report) => report.health,
            None if node.synced => Health::Unknown,
            None => endpoint.health,
        };
        (health, node.lapsed)
    }
}

/// Whether the floor holds for a port.
fn fails_open(port: &PortTable) -> bool {
    let balance = port.balance.as_ref();
    balance.is_none_or(|balance| balance.outage.fail_open)
}

fn newer(old: Option<Report>, new: Report) -> Report {
    match old {
        Some(old) if (old.incarnation, old.sequence) >= (new.incarnation, new.sequence) => old,
        _ => new,
    }
}

/// Opens and closes the gates as a pool's states say.
fn set_gates(pool: &Pool, said: &[EndpointHealth], effects: &mut Effects) {
    for Member { backend, state } in &pool.members {
        backend.set_suspect(*state == MemberState::Suspect);
        let gate = match state {
            MemberState::Ready | MemberState::Suspect => Gate::Open,
            MemberState::Draining => Gate::Draining,
            MemberState::Out | MemberState::Unknown => Gate::Closed,
        };
        let before = backend.set_gate(gate);
        if gate != Gate::Closed || before == Gate::Closed {
            continue;
        }
        effects.sever.push(Arc::clone(backend));
        let reason = said.iter().find(|one| one.assignment == backend.assignment);
        if let Some(reason) = reason.filter(|_| before == Gate::Open) {
            effects.departed.push(Departure {
                assignment: backend.assignment,
                seen: reason.seen,
            });
        }
    }
}

#[cfg(test)]
#[path = "feed_tests.rs"]
mod tests;
