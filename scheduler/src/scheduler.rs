//! The scheduler: the index, the open reservations and the committed claims.

mod learning;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use ballast_model::{
    Allocation, AssignmentId, Binding, Claim, Node, NodeId, Placement, PortSpec, Resources,
    ServiceId, TopologyKey,
};

use crate::explain::{explain, suggest};
use crate::fleet::{Entry, Fleet, Offer};
use crate::index::{Ask, At, Order};
use crate::map::{IdMap, IdSlab};
use crate::offer::{judge_room, take_words};
use crate::policy::{Packer, Plan, Query, Search, Who};
use crate::refusal::{Refusal, Suggestion};
use crate::request::{Peers, Placed, Request, Reservation};
use crate::rules::{self, Census, Judged, Occupant, Preemption, Preemptor, Rules, Standing, Tiers};

/// What is held on a node, and by whom.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Held {
    node: NodeId,
    service: ServiceId,
    claim: Claim,
}

/// What a reservation holds until it is closed.
#[derive(Debug)]
struct Reserved {
    held: Held,
    /// It holds nothing any more: its node was removed, or a port of it committed to another.
    lapsed: bool,
}

/// How many reservations were opened and closed since the scheduler was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Made by [`Scheduler::place`].
    pub opened: u64,
    /// Closed by [`Scheduler::commit`].
    pub committed: u64,
    /// Closed by [`Scheduler::release`].
    pub released: u64,
    /// Not closed yet: `opened − committed − released`.
    pub open: u64,
}

/// What a rule is about, classes do not tell apart: every node has to be looked at.
struct NeedsScan;

/// Why a gang was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a gang of {of} is placed whole or not at all, and {fit} fit; the next: {refusal}")]
pub struct GangRefusal {
    /// How many found a node.
    pub fit: usize,
    /// How many there are.
    pub of: usize,
    /// Why the next one found none.
    pub refusal: Refusal,
}

/// The last request that was refused: as long as nothing changes, the same one is refused again
/// without a scan, so that a thousand pending replicas cost one.
#[derive(Debug)]
struct LastRefusal {
    version: u64,
    holds: u64,
    service: ServiceId,
    resources: Resources,
    ports: Vec<PortSpec>,
    placement: Placement,
    node: Option<NodeId>,
    kept: Vec<NodeId>,
    peers: Peers,
    refusal: Refusal,
}

/// What the last request of a service came to.
#[derive(Debug)]
struct Known {
    resources: Resources,
    placement: Placement,
    query: Query,
}

/// Chooses nodes and keeps count of what is held on each.
///
/// One owner calls it: the same calls give the same answers.
#[derive(Debug, Default)]
pub struct Scheduler {
    fleet: Fleet,
    /// What runs where, since a request first had rules about that.
    census: Option<Census>,
    /// Nodes that have taints.
    tainted: BTreeSet<NodeId>,
    reserved: IdMap<u64, Reserved>,
    committed: IdSlab<AssignmentId, Held>,
    queries: IdMap<ServiceId, Known>,
    packer: Packer,
    tally: Tally,
    /// Grows with each change that could make a refused request fit.
    version: u64,
    /// Claims that were ever held: one more may bring a task near to what it needs, or even out
    /// what it is spread over.
    holds: u64,
    last_refusal: Option<Box<LastRefusal>>,
}

impl Scheduler {
    /// Returns a scheduler that knows no node.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns a scheduler that knows these nodes and what is held on them: the bindings of all
    /// tasks that hold their claim, one for each assignment.
    pub fn rebuild<'a>(
        nodes: impl IntoIterator<Item = &'a Node>,
        bindings: impl IntoIterator<Item = (ServiceId, &'a Binding)>,
    ) -> Self {
        let mut scheduler = Self::new();
        let mut nodes: Vec<&Node> = nodes.into_iter().collect();
        // In the order of ids nothing is sorted later.
        nodes.sort_unstable_by_key(|node| node.id);
        for node in nodes {
            scheduler.upsert_node(node);
        }
        let bindings = bindings.into_iter();
        scheduler.committed.reserve(bindings.size_hint().0);
        for (service, binding) in bindings {
            scheduler.restore(binding.assignment, service, binding.node, &binding.claim);
        }
        scheduler
    }

    /// Adds a node, or takes in what changed on it; what is held on it stays. A new life of its
    /// agent ends the quarantine of its ports.
    pub fn upsert_node(&mut self, node: &Node) {
        if let (Some(entry), Some(census)) = (self.fleet.get(node.id), &mut self.census) {
            census.relabel(&entry.node, node);
        }
        if node.taints.is_empty() {
            self.tainted.remove(&node.id);
        } else {
            self.tainted.insert(node.id);
        }
        self.fleet.upsert(node);
        self.version += 1;
    }

    /// Takes a node out, with all that is committed on it; returns whether it was known.
    ///
    /// Open reservations on it stay open until they are committed or released, and hold nothing.
    pub fn remove_node(&mut self, node: NodeId) -> bool {
        self.committed.retain(|held| held.node != node);
        self.reserved.each_mut(|_, reserved| {
            reserved.lapsed |= reserved.held.node == node;
        });
        self.version += 1;
        if let (Some(entry), Some(census)) = (self.fleet.get(node), &mut self.census) {
            census.forget(&entry.node);
        }
        self.tainted.remove(&node);
        self.fleet.remove(node)
    }

    /// Holds a claim that is committed already; returns whether it is held now. It is not if its
    /// node is not known, and nothing happens if the assignment is held already.
    ///
    /// What is committed wins over what is only reserved: an open reservation of one of its ports
    /// holds nothing any more, as its placement is bound to be refused.
    ///
    /// # Panics
    /// If one of its ports is committed to another: the state would be over-committed.
    pub fn restore(
        &mut self,
        assignment: AssignmentId,
        service: ServiceId,
        node: NodeId,
        claim: &Claim,
    ) -> bool {
        if self.committed.contains(assignment) {
            return true;
        }
        self.lapse(node, claim);
        if !self.hold(node, service, claim) {
            return false;
        }
        let held = Held {
            node,
            service,
            claim: claim.clone(),
        };
        self.committed.insert(assignment, held);
        true
    }

    /// Finds the best node for a task and reserves what it takes there.
    ///
    /// # Errors
    /// Why no node fits; nothing is reserved then.
    ///
    /// # Complexity
    /// A refusal costs one pass over the nodes, a placement looks at a few of them.
    pub fn place(&mut self, request: &Request<'_>) -> Result<Placed, Refusal> {
        if let Some(refusal) = self.refused_before(request) {
            return Err(refusal);
        }
        let found = if rules::has_rules(request, !self.tainted.is_empty()) {
            self.learn(request);
            self.search_by_rules(request)
        } else {
            self.search(request)
        };
        let Some((at, offer)) = found else {
            if asks_for_census(request) {
                self.learn(request);
            }
            let refusal = self.explain(request);
            assert_eq!(refusal.fit, 0, "a node that fits is found: {refusal}");
            self.remember(request, &refusal);
            return Err(refusal);
        };
        let node = self.fleet.entry(at).node.id;
        let held = Held {
            node,
            service: request.service,
            claim: offer.claim,
        };
        self.fleet.note(at, held.service, &held.claim);
        debug_assert_eq!(
            self.fleet.index.line(at).free(),
            self.fleet.entry(at).free(),
            "the words and the sum of the claims agree"
        );
        self.holds += 1;
        let entry = self.fleet.entry(at);
        if let Some(census) = &mut self.census {
            census.add(held.service, &entry.node);
        }
        let reservation = Reservation(self.tally.opened);
        self.tally.opened += 1;
        self.tally.open += 1;
        let claim = held.claim.clone();
        let lapsed = false;
        self.reserved
            .insert(reservation.0, Reserved { held, lapsed });
        Ok(Placed {
            reservation,
            node,
            claim,
            ports: offer.bindings,
        })
    }

    /// Closes a reservation whose placement was applied: the assignment holds it from now on.
    ///
    /// # Panics
    /// If the assignment is held already, or the reservation is not this scheduler's.
    pub fn commit(&mut self, reservation: Reservation, assignment: AssignmentId) {
        let Reserved { held, lapsed } = self.close(reservation);
        self.tally.committed += 1;
        // A node that was removed in between took the claim with it; if it is back, it holds the
        // claim again, as the state does.
        let holds = if lapsed {
            self.lapse(held.node, &held.claim);
            self.hold(held.node, held.service, &held.claim)
        } else {
            true
        };
        if holds {
            let fresh = self.committed.insert(assignment, held);
            assert!(fresh, "assignment {assignment} committed twice");
        }
    }

    /// Closes a reservation whose placement was refused or given up.
    ///
    /// # Panics
    /// If the reservation is not this scheduler's.
    pub fn release(&mut self, reservation: Reservation) {
        let Reserved { held, lapsed } = self.close(reservation);
        self.tally.released += 1;
        if !lapsed {
            self.give_back(&held);
        }
        self.version += 1;
    }

    /// Takes back what an assignment holds, as its task has ended; returns whether it held
    /// anything.
    pub fn free(&mut self, assignment: AssignmentId) -> bool {
        let Some(held) = self.committed.remove(assignment) else {
            return false;
        };
        self.give_back(&held);
        self.version += 1;
        true
    }

    /// Keeps a port of a node out of new placements: its agent found a stranger on it.
    pub fn quarantine_port(&mut self, node: NodeId, port: u16) {
        if let Some(ports) = self.fleet.ports_mut(node) {
            ports.quarantine(port);
        }
    }

    /// Lets a quarantined port in again.
    pub fn lift_quarantine(&mut self, node: NodeId, port: u16) {
        if let Some(ports) = self.fleet.ports_mut(node) {
            ports.lift(port);
            self.version += 1;
        }
    }

    /// Returns how many nodes fit the request and why the others do not; reserves nothing.
    ///
    /// # Complexity
    /// One pass over the nodes.
    pub fn explain(&self, request: &Request<'_>) -> Refusal {
        explain(&self.fleet, &self.counted(request), request)
    }

    /// Returns the smallest changes that would make a refused request fit, each on its own.
    ///
    /// # Complexity
    /// A pass over the nodes for each part of the request that may be taken back.
    pub fn suggest(&self, request: &Request<'_>, refusal: &Refusal) -> Vec<Suggestion> {
        suggest(&self.fleet, &self.counted(request), request, refusal)
    }

    /// Finds the node on which the fewest and least important tasks would have to go so that the
    /// request fits; reserves and stops nothing. The caller tells the victims to end, keeps the
    /// node from lower requests ([`Request::keeping`]), and asks [`Self::place`] again as they go.
    ///
    /// `standing` holds what may be taken from whom (who is not in it keeps all), `leaving` the
    /// assignments that were told to end already. Nobody of the same or a higher priority has to
    /// go, nobody beyond its budget, and nobody the request has to be near to.
    ///
    /// # Complexity
    /// One pass over the nodes and the committed claims.
    pub fn preempt(
        &self,
        request: &Request<'_>,
        standing: &BTreeMap<ServiceId, Standing>,
        leaving: &BTreeSet<AssignmentId>,
    ) -> Option<Preemption> {
        if !request.placement.preempts {
            return None;
        }
        let census = match &self.census {
            Some(census) => Cow::Borrowed(census),
            None => Cow::Owned(census_of(&self.fleet)),
        };
        let mut occupants: BTreeMap<NodeId, Vec<Occupant<'_>>> = BTreeMap::new();
        for assignment in self.committed.sorted_keys() {
            let held = self.committed.get(assignment).expect("just listed");
            if request.node.is_none_or(|node| node == held.node) {
                let occupant = Occupant {
                    assignment,
                    service: held.service,
                    claim: &held.claim,
                };
                occupants.entry(held.node).or_default().push(occupant);
            }
        }
        let preemptor = Preemptor {
            request,
            rules: &Rules::new(request, &census, &Judged(&self.fleet)),
            standing,
            leaving,
        };
        let judge = |(node, occupants): (&NodeId, &Vec<_>)| {
            let entry = self.fleet.get(*node)?;
            let (cost, victims) = preemptor.judge(&entry.node, &entry.taken, occupants)?;
            let node = *node;
            Some((cost, Preemption { node, victims }))
        };
        let found = occupants.iter().filter_map(judge);
        // The first of equals, as nodes come in the order of their ids.
        let cheapest = found.min_by_key(|(cost, _)| *cost);
        cheapest.map(|(_, preemption)| preemption)
    }

    /// Places all requests or none.
    ///
    /// # Errors
    /// How many found a node before one did not, and why that one did not; nothing is reserved.
    pub fn place_gang(&mut self, requests: &[Request<'_>]) -> Result<Vec<Placed>, GangRefusal> {
        let mut placed = Vec::with_capacity(requests.len());
        for request in requests {
            match self.place(request) {
                Ok(one) => placed.push(one),
                Err(refusal) => {
                    let fit = placed.len();
                    for one in placed.into_iter().rev() {
                        self.release(one.reservation);
                    }
                    return Err(GangRefusal {
                        fit,
                        of: requests.len(),
                        refusal,
                    });
                }
            }
        }
        Ok(placed)
    }

    /// Returns a node as the scheduler knows it.
    pub fn node(&self, node: NodeId) -> Option<&Node> {
        self.fleet.get(node).map(|entry| &entry.node)
    }

    /// Returns what is taken on a node, reserved and committed.
    pub fn allocation(&self, node: NodeId) -> Option<&Allocation> {
        self.fleet.get(node).map(|entry| &entry.taken)
    }

    /// Returns what questions about all nodes are put to.
    #[cfg(test)]
    pub(crate) fn parts(&self, request: &Request<'_>) -> (&Fleet, Cow<'_, Census>) {
        (&self.fleet, self.counted(request))
    }

    /// Returns every node and what is taken on it, in the order of ids.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = (&Node, &Allocation)> {
        self.fleet.iter().map(|entry| (&entry.node, &entry.taken))
    }

    /// Returns whether this assignment holds a claim here.
    pub fn holds(&self, assignment: AssignmentId) -> bool {
        self.committed.contains(assignment)
    }

    /// Returns what is committed: which assignment, where, whose and what it takes, in the order
    /// of assignments.
    pub fn held(&self) -> impl Iterator<Item = (AssignmentId, NodeId, ServiceId, &Claim)> {
        let assignments = self.committed.sorted_keys().into_iter();
        assignments.filter_map(|assignment| {
            let held = self.committed.get(assignment)?;
            Some((assignment, held.node, held.service, &held.claim))
        })
    }

    /// Returns how many reservations were opened and closed.
    pub const fn tally(&self) -> Tally {
        self.tally
    }

    /// Returns the first difference between what is committed here and there, in words: a
    /// scheduler that was kept up to date must equal one that was just rebuilt. Reservations,
    /// cursors and quarantines are not part of the replicated state and do not count.
    pub fn difference(&self, other: &Self) -> Option<String> {
        let ids = |scheduler: &Self| -> Vec<NodeId> {
            scheduler.fleet.iter().map(|entry| entry.node.id).collect()
        };
        if ids(self) != ids(other) {
            return Some(format!("nodes {:?} and {:?}", ids(self), ids(other)));
        }
        for (here, there) in self.fleet.iter().zip(other.fleet.iter()) {
            if here.node != there.node {
                return Some(format!("node {:?} and {:?}", here.node, there.node));
            }
        }
        let mut all = self.committed.sorted_keys();
        all.extend(other.committed.sorted_keys());
        for assignment in all {
            let held = (
                self.committed.get(assignment),
                other.committed.get(assignment),
            );
            if held.0 != held.1 {
                return Some(format!("assignment {assignment}: {held:?}"));
            }
        }
        None
    }

    /// Finds the best node by a look at every one, and takes what the task takes there.
    fn scan(&mut self, request: &Request<'_>) -> Option<(At, Offer)> {
        let (at, offer) = rules::scan(&self.fleet, &self.counted(request), request)?;
        let offer = take_words(&self.fleet.index, at, offer)?;
        self.fleet.index.touch(at);
        Some((at, offer))
    }

    /// Finds the best node by the index, and takes what the task takes there.
    fn search(&mut self, request: &Request<'_>) -> Option<(At, Offer)> {
        if request.node.is_some() {
            return self.scan(request);
        }
        let known = self.known(request);
        self.fleet.index.prepare();
        let query = &known.query;
        let packs = self.prepare_packing(request, query);
        let mut found = None;
        if !request.avoid.is_empty() {
            found = self.find(request, query, packs, request.avoid);
        }
        if found.is_none() {
            found = self.find(request, query, packs, &[]);
        }
        self.queries.insert(request.service, known);
        found
    }

    /// Takes out what is known of a request, found out anew if it holds no more.
    fn known(&mut self, request: &Request<'_>) -> Known {
        let known = self.queries.remove(request.service).filter(|known| {
            known.query.holds(&self.fleet)
                && known.resources == *request.resources
                && known.placement == *request.placement
        });
        known.unwrap_or_else(|| Known {
            resources: request.resources.clone(),
            placement: request.placement.clone(),
            query: Query::new(&mut self.fleet, request.resources, request.placement),
        })
    }

    /// Returns whether the request is packed by what else may want the room.
    fn prepare_packing(&mut self, request: &Request<'_>, query: &Query) -> bool {
        let wanted = request.resources;
        if query.plan != Plan::Plain(Order::Fullest) {
            return false;
        }
        let (kinds, version) = self.fleet.kinds();
        self.packer.meet(kinds, version);
        if !self.packer.concerns(request.placement.policy, wanted) {
            return false;
        }
        self.packer.know(self.fleet.classes());
        self.packer.look(&self.fleet.index, &mut self.fleet.changes);
        wanted.devices.count > 0 || self.packer.is_near_devices(&query.allowed)
    }

    fn find(
        &mut self,
        request: &Request<'_>,
        query: &Query,
        packs: bool,
        avoid: &[NodeId],
    ) -> Option<(At, Offer)> {
        if !packs {
            return self.search_all(request, query, avoid);
        }
        if request.resources.devices.count == 0 {
            let plain = self.packer.without_devices(&query.allowed);
            if !plain.is_empty() {
                let found = self.search_all(request, &query.within(plain), avoid);
                if found.is_some() {
                    return found;
                }
            }
        }
        // The packer sees nodes with devices only.
        match self.pack(request, query, avoid) {
            None => self.search_all(request, query, avoid),
            found => found,
        }
    }

    fn pack(
        &mut self,
        request: &Request<'_>,
        query: &Query,
        avoid: &[NodeId],
    ) -> Option<(At, Offer)> {
        let policy = request.placement.policy;
        let task = self.packer.task(policy, request.resources, &query.allowed);
        let (ledger, index, _, _, entries) = self.fleet.ledger_mut(request.service);
        let skip = (query.most > 0).then(|| ledger.full(index, query.most));
        let ask = Ask {
            demand: &query.demand,
            allowed: &query.allowed,
            skip,
            order: Order::Fullest,
        };
        let judge = |at: At| {
            let entry: &Entry = entries[at as usize].as_ref().expect("a known node");
            judge_room(entry, request, query, avoid)
        };
        let take = |at: At, offer: Offer| take_words(index, at, offer);
        self.packer.find(index, &ask, &task, judge, take)
    }

    fn search_all(
        &mut self,
        request: &Request<'_>,
        query: &Query,
        avoid: &[NodeId],
    ) -> Option<(At, Offer)> {
        let (ledger, index, _, topologies, entries) = self.fleet.ledger_mut(request.service);
        let judge = |at: At| {
            let entry: &Entry = entries[at as usize].as_ref().expect("a known node");
            judge_room(entry, request, query, avoid)
        };
        let mut search = Search {
            index,
            topologies,
            ledger,
            query,
            who: Who {
                home: 0,
                alone: true,
            },
            judge,
            take: |at: At, offer: Offer| take_words(index, at, offer),
        };
        search.run()
    }

    /// Finds the best node by the index, class by class as the rules like them; by a look at every
    /// node if classes cannot tell what a rule is about.
    fn search_by_rules(&mut self, request: &Request<'_>) -> Option<(At, Offer)> {
        for key in rules::keys(request) {
            self.fleet.learn(&key);
        }
        let known = self.known(request);
        let found = self.search_tiers(request, &known.query);
        self.queries.insert(request.service, known);
        found.unwrap_or_else(|NeedsScan| self.scan(request))
    }

    /// Returns what the index finds.
    ///
    /// # Errors
    /// If it cannot search for this.
    fn search_tiers(
        &mut self,
        request: &Request<'_>,
        query: &Query,
    ) -> Result<Option<(At, Offer)>, NeedsScan> {
        let census = self
            .census
            .as_ref()
            .expect("begun for a request with rules");
        let table = self.fleet.classes();
        let Tiers {
            classes,
            left_out,
            alone,
        } = rules::tiers(request, census, table, &query.allowed).ok_or(NeedsScan)?;
        let most = if alone { 1 } else { query.most };
        let tiers = classes.into_iter();
        let tiers: Vec<Query> = tiers.map(|c| query.among(&self.fleet, c, most)).collect();
        for tier in &tiers {
            self.fleet.index.keep(tier.order(), &tier.allowed);
        }
        self.fleet.index.prepare();
        let packs = self.prepare_packing(request, query);
        let mut all = left_out.clone();
        all.extend(request.avoid);
        for avoid in [&all, &left_out] {
            for tier in &tiers {
                let found = self.find(request, tier, packs, avoid);
                if found.is_some() {
                    return Ok(found);
                }
            }
            if request.avoid.is_empty() {
                break;
            }
        }
        Ok(None)
    }

    /// Begins to count what runs where, by all that this request tells apart.
    fn learn(&mut self, request: &Request<'_>) {
        let fleet = &self.fleet;
        let census = self.census.get_or_insert_with(|| census_of(fleet));
        let placement = request.placement;
        let spread = placement.spread.iter().map(|rule| &rule.over);
        let near = placement.services.iter().map(|affinity| &affinity.over);
        let away = request.peers.repelling.iter().map(|other| &other.over);
        for over in spread.chain(near).chain(away) {
            if let TopologyKey::Label(label) = over {
                let node = |id| fleet.get(id).map(|entry| &entry.node);
                census.learn(label, node);
            }
        }
    }

    /// Returns what runs where; nothing if no rule of the request asks for it.
    fn counted(&self, request: &Request<'_>) -> Cow<'_, Census> {
        match &self.census {
            Some(census) => Cow::Borrowed(census),
            None if asks_for_census(request) => Cow::Owned(census_of(&self.fleet)),
            None => Cow::Owned(Census::default()),
        }
    }

    fn hold(&mut self, node: NodeId, service: ServiceId, claim: &Claim) -> bool {
        let known = self.fleet.hold(node, service, claim);
        if known {
            self.holds += 1;
            let entry = self.fleet.get(node).expect("just held on it");
            if let Some(census) = &mut self.census {
                census.add(service, &entry.node);
            }
        }
        known
    }

    fn give_back(&mut self, held: &Held) {
        self.fleet.give_back(held.node, held.service, &held.claim);
        let entry = self.fleet.get(held.node).expect("just given back on it");
        if let Some(census) = &mut self.census {
            census.remove(held.service, &entry.node);
        }
    }

    /// Takes away what reservations hold on a node if they share a port with this claim.
    fn lapse(&mut self, node: NodeId, claim: &Claim) {
        let mut lapsed = Vec::new();
        self.reserved.each_mut(|_, reserved| {
            let held = &reserved.held;
            let mut ports = held.claim.ports.iter();
            let shares = ports.any(|port| claim.ports.contains(port));
            if !reserved.lapsed && held.node == node && shares {
                lapsed.push(held.clone());
                reserved.lapsed = true;
            }
        });
        for held in lapsed {
            self.give_back(&held);
        }
    }

    fn close(&mut self, reservation: Reservation) -> Reserved {
        let reserved = self.reserved.remove(reservation.0);
        self.tally.open -= 1;
        reserved.expect("a reservation is closed once, by the scheduler that opened it")
    }

    fn refused_before(&self, request: &Request<'_>) -> Option<Refusal> {
        let last = self.last_refusal.as_deref()?;
        let placement = request.placement;
        let by_others = !placement.services.is_empty() || !placement.spread.is_empty();
        let same = last.version == self.version
            && (last.holds == self.holds || !by_others)
            && last.service == request.service
            && last.resources == *request.resources
            && last.node == request.node
            && last.kept == request.kept
            && last.peers == *request.peers
            && last.ports == request.ports
            && last.placement == *request.placement;
        same.then(|| last.refusal.clone())
    }

    fn remember(&mut self, request: &Request<'_>, refusal: &Refusal) {
        self.last_refusal = Some(Box::new(LastRefusal {
            version: self.version,
            holds: self.holds,
            service: request.service,
            resources: request.resources.clone(),
            ports: request.ports.to_vec(),
            placement: request.placement.clone(),
            node: request.node,
            kept: request.kept.to_vec(),
            peers: request.peers.clone(),
            refusal: refusal.clone(),
        }));
    }
}

/// Returns whether a rule of the request is about what runs where.
fn asks_for_census(request: &Request<'_>) -> bool {
    let placement = request.placement;
    rules::has_rules(request, false) || !placement.spread.is_empty()
}

/// Counts what runs where.
fn census_of(fleet: &Fleet) -> Census {
    let mut census = Census::default();
    for entry in fleet.iter() {
        for &(service, count) in entry.services() {
            census.add_many(service, &entry.node, count);
        }
    }
    census
}
