//! The shell around the table's core: swaps tables, cuts connections, passes questions to agents.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::{ArcSwap, ArcSwapOption, Guard};
use ballast_model::{Millis, NodeId, Timestamp};
use ballast_ring::Waker;
use ballast_wire::feed::IngressToAgent;
use dashmap::DashMap;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::timeout_at;

use crate::acme::Challenges;
use crate::l4::Layer4;
use crate::l7::Hops;
use crate::metrics::Metrics;
use crate::observe::{AccessLog, Naming, ObserveConfig};
use crate::policy::{Affinity, Overload, Refused, Want};
use crate::table::{Backend, Effects, Feed, InFlight, Moment, Pool, RouteTable};
use crate::tls::Upstreams;
use crate::upgrade::Sockets;

/// Messages that wait for one agent's link. When full, probes are dropped: they are asked for
/// again as long as there is a reason.
pub const AGENT_QUEUE: usize = 256;
/// Requests and connections that may wait at once for an endpoint; past it they are refused.
const HELD_MAX: usize = 4096;

/// What every part of an ingress shares.
#[derive(Debug)]
pub struct Hub {
    table: ArcSwap<RouteTable>,
    feed: Mutex<Feed>,
    start: Instant,
    version: watch::Sender<u64>,
    routing: watch::Sender<u64>,
    agents: DashMap<NodeId, mpsc::Sender<IngressToAgent>>,
    active: AtomicUsize,
    held: AtomicUsize,
    /// Rings that are woken for each new table.
    rings: Mutex<Vec<Waker>>,
    /// Wakes the watch over stalls when the first request comes.
    pub busy: Notify,
    /// What new TLS connections of clients are served with; none before there are certificates.
    pub tls: Arc<ArcSwapOption<rustls::ServerConfig>>,
    /// Who is believed about clients.
    pub hops: ArcSwap<Hops>,
    /// What proves to an ACME server that a host is ours.
    pub challenges: Arc<Challenges>,
    /// How endpoints are spoken to by TLS.
    pub upstreams: Arc<Upstreams>,
    /// Layer 4: told of each new table before whoever made it goes on.
    pub l4: Layer4,
    /// What is counted.
    pub metrics: Metrics,
    /// What listens, for the process that takes over.
    pub sockets: Sockets,
    /// A line for each request, if asked for.
    pub log: AccessLog,
    /// What requests are called, and their traces, if asked for.
    pub naming: Naming,
}

/// Counts a request or connection as active for as long as it lives.
#[derive(Debug)]
pub struct Active(Arc<Hub>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A place among those that wait for an endpoint, for as long as it lives.
#[derive(Debug)]
pub struct Place(Arc<Hub>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Hub {
    /// Makes one with an empty table.
    pub fn new() -> Arc<Self> {
        let metrics = Metrics::new();
        Arc::new(Self {
            log: AccessLog::new(metrics.log.clone()),
            naming: Naming::default(),
            sockets: Sockets::default(),
            table: ArcSwap::from_pointee(RouteTable::default()),
            feed: Mutex::new(Feed::new()),
            start: Instant::now(),
            version: watch::Sender::new(0),
            routing: watch::Sender::new(0),
            agents: DashMap::new(),
            active: AtomicUsize::new(0),
            held: AtomicUsize::new(0),
            rings: Mutex::default(),
            busy: Notify::new(),
            tls: Arc::default(),
            hops: ArcSwap::default(),
            challenges: Arc::default(),
            upstreams: Arc::default(),
            l4: Layer4::default(),
            metrics,
        })
    }

    /// Takes what is to be told of single requests.
    ///
    /// # Errors
    /// If the access log's file cannot be opened; all stays as it was.
    pub fn observe(&self, config: &ObserveConfig) -> std::io::Result<()> {
        self.log.take(config.access_log.as_ref())?;
        self.naming.take(config);
        Ok(())
    }

    /// Returns the current moment.
    pub fn now(&self) -> Moment {
        Moment(u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// Returns the moment of an instant, zero for one before the start.
    pub fn moment(&self, at: Instant) -> Moment {
        let since = at.saturating_duration_since(self.start);
        Moment(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }

    /// Returns the current table for a short look: cheaper than [`Hub::table`], and not to be kept.
    pub fn current(&self) -> Guard<Arc<RouteTable>> {
        self.table.load()
    }

    /// Wakes a ring for each new table from now on.
    pub fn watch_tables(&self, ring: Waker) {
        let mut rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
        rings.push(ring);
    }

    /// Takes a place among those that wait for an endpoint, if there is one.
    pub fn hold(self: &Arc<Self>) -> Option<Place> {
        if self.held.fetch_add(1, Ordering::Relaxed) >= HELD_MAX {
            self.held.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        self.metrics.held.inc();
        Some(Place(Arc::clone(self)))
    }

    /// Returns the current table.
    pub fn table(&self) -> Arc<RouteTable> {
        self.table.load_full()
    }

    /// Returns a receiver that is told of each new table.
    pub fn versions(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Returns a receiver that is told when published ports or routes change.
    pub fn routings(&self) -> watch::Receiver<u64> {
        self.routing.subscribe()
    }

    /// Has it looked at again what is listened on.
    pub fn listen_anew(&self) {
        self.routing.send_modify(|version| *version += 1);
    }

    /// Lets the core take something, and does what follows from it before it returns.
    pub fn apply(&self, step: impl FnOnce(&mut Feed, Moment) -> Effects) {
        let result: Result<(), std::convert::Infallible> =
            self.try_apply(|feed, now| Ok(step(feed, now)));
        match result {
            Ok(()) => {}
            Err(never) => match never {},
        }
    }

    /// The same for what the core may refuse.
    pub fn try_apply<E>(
        &self,
        step: impl FnOnce(&mut Feed, Moment) -> Result<Effects, E>,
    ) -> Result<(), E> {
        let begun = Instant::now();
        let mut feed = self.feed();
        let effects = step(&mut feed, self.now())?;
        // Swapped under the lock, so that tables follow each other as the core made them.
        let changed = effects.table.is_some();
        if let Some(table) = effects.table {
            self.table.store(table);
        }
        drop(feed);
        if changed {
            // The newest, whoever made it: two that come here in another order leave the same maps.
            self.l4.follow(&self.table());
            self.metrics.swapped(begun.elapsed());
        }
        if !effects.departed.is_empty() {
            let now = wall_clock();
            for departure in &effects.departed {
                let after = now.0.saturating_sub(departure.seen.0);
                self.metrics.deregistered(Duration::from_micros(after));
                tracing::debug!(
                    assignment_id = %departure.assignment,
                    seen = %departure.seen,
                    elapsed_us = after,
                    "endpoint out of the table",
                );
            }
        }
        for backend in &effects.sever {
            let cut = backend.links.sever_all();
            self.metrics.severed.inc_by(cut as u64);
        }
        if changed {
            self.version.send_modify(|version| *version += 1);
            let rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
            rings.iter().for_each(Waker::wake);
        }
        if effects.routing_changed {
            self.routing.send_modify(|version| *version += 1);
        }
        Ok(())
    }

    /// Reads the core.
    pub fn feed(&self) -> MutexGuard<'_, Feed> {
        // The core's steps leave it whole even if a later line panicked.
        self.feed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a request as active, and wakes the watch over stalls if it is the first.
    pub fn activate(self: &Arc<Self>) -> Active {
        if self.active.fetch_add(1, Ordering::Relaxed) == 0 {
            self.busy.notify_one();
        }
        Active(Arc::clone(self))
    }

    /// Whether anything is active.
    pub fn is_active(&self) -> bool {
        self.active.load(Ordering::Relaxed) > 0
    }

    /// Registers the way to an agent; the one before it is forgotten.
    pub fn connect_agent(&self, node: NodeId, link: mpsc::Sender<IngressToAgent>) {
        self.agents.insert(node, link);
    }

    /// Forgets the way to an agent, unless a newer one was registered since.
    pub fn disconnect_agent(&self, node: NodeId, link: &mpsc::Sender<IngressToAgent>) {
        self.agents
            .remove_if(&node, |_, current| current.same_channel(link));
    }

    /// Returns how many agents are connected; the checks of a stand-alone ingress are none.
    pub fn agents(&self) -> usize {
        let own = NodeId::from_bits(0);
        let agents = self.agents.iter();
        agents.filter(|agent| *agent.key() != own).count()
    }

    /// Asks the endpoint's agent for a probe at once, if not asked too recently.
    pub fn ask_probe(&self, backend: &Backend, timeout: Duration) {
        let Some(agent) = self.agents.get(&backend.node) else {
            return;
        };
        if !backend.may_ask_probe(self.now()) {
            return;
        }
        let millis = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        let probe = IngressToAgent::Probe {
            assignment: backend.assignment,
            timeout: Millis(millis.max(1)),
        };
        if agent.try_send(probe).is_ok() {
            self.metrics.probes_asked.inc();
        }
    }

    /// Begins a request at one of the pool's endpoints that are not in `tried`. If none takes it,
    /// but the pool has members, waits for one until `deadline`: as when the only replica of a
    /// service restarts. `pool` then becomes the newest of its name, and `tried` starts anew: what
    /// refused before may be another program by now.
    pub async fn begin(
        &self,
        pool: &mut Arc<Pool>,
        tried: &mut Vec<Arc<Backend>>,
        deadline: Instant,
    ) -> Result<InFlight, Refused> {
        self.begin_for(Affinity::default(), pool, tried, deadline)
            .await
    }

    /// The same for a request that has a key or a cookie.
    pub async fn begin_for(
        &self,
        affinity: Affinity,
        pool: &mut Arc<Pool>,
        tried: &mut Vec<Arc<Backend>>,
        deadline: Instant,
    ) -> Result<InFlight, Refused> {
        let begin = |pool: &Pool, tried: &[Arc<Backend>]| {
            let any = Want::any(random_bits(), self.now(), tried);
            pool.begin(&any.with(affinity))
        };
        match begin(pool, tried) {
            Err(Refused::NoEndpoint) => {}
            other => return other,
        }
        let mut versions = self.version.subscribe();
        let _held = Held::enter(&self.held).ok_or(Refused::Overloaded(Overload::Pending))?;
        let _pending = pool.wait()?;
        self.metrics.held.inc();
        loop {
            let newest = self.table().pool(&pool.key).cloned();
            let newest = newest.ok_or(Refused::NoEndpoint)?;
            if !Arc::ptr_eq(&newest, pool) {
                tried.clear();
                *pool = newest;
            }
            match begin(pool, tried) {
                Err(Refused::NoEndpoint) => {}
                other => return other,
            }
            if pool.members.is_empty() || Instant::now() >= deadline {
                return Err(Refused::NoEndpoint);
            }
            let changed = timeout_at(deadline.into(), versions.changed());
            if !matches!(changed.await, Ok(Ok(()))) {
                return Err(Refused::NoEndpoint);
            }
        }
    }
}

/// A place among those that wait.
struct Held<'a>(&'a AtomicUsize);

impl<'a> Held<'a> {
    fn enter(count: &'a AtomicUsize) -> Option<Self> {
        let before = count.fetch_add(1, Ordering::Relaxed);
        let held = Self(count);
        (before < HELD_MAX).then_some(held)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Returns the wall clock's time.
pub fn wall_clock() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let micros = since.unwrap_or_default().as_micros();
    Timestamp(u64::try_from(micros).unwrap_or(u64::MAX))
}

/// Returns 64 random bits, good enough to balance with: xorshift64*, seeded per thread.
pub fn random_bits() -> u64 {
    thread_local! {
        static STATE: Cell<u64> = Cell::new(RandomState::new().hash_one(0u8) | 1);
    }
    STATE.with(|state| {
        let mut bits = state.get();
        bits ^= bits >> 12;
        bits ^= bits << 25;
        bits ^= bits >> 27;
        state.set(bits);
        bits.wrapping_mul(0x2545_f491_4f6c_dd1d)
    })
}
