//! What must outlive a table: shared by the pools of one name that follow each other.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use arc_swap::ArcSwap;
use ballast_model::{BalancePolicy, EjectionSpec};

use super::maglev::{Maglev, Named};
use super::{Busy, RetryBudget, Settings};
use crate::table::{Backend, Gate, Moment, PoolKey};

/// The state of a pool across tables; see the module.
#[derive(Debug, Default)]
pub struct PoolState {
    /// Whose it is, and who is told when requests come; none in tests.
    watched: Option<(PoolKey, Arc<Busy>)>,
    listed: AtomicBool,
    settings: ArcSwap<Settings>,
    /// What is left of the retries.
    pub budget: RetryBudget,
    /// What happened, for metrics.
    pub events: PolicyEvents,
    peaks: AtomicBool,
    in_flight: AtomicU32,
    pending: AtomicU32,
    turn: AtomicU64,
    /// Endpoints that take requests, those that were taken out for errors among them.
    open: AtomicU32,
    out: Mutex<Vec<Weak<Backend>>>,
    ring: Mutex<Option<Arc<Maglev>>>,
}

/// Counts of what policies did to requests; none is touched while all is well.
#[derive(Debug, Default)]
pub struct PolicyEvents {
    /// Endpoints taken out for errors.
    pub ejections: AtomicU64,
    /// Endpoints that should have been, if not too many had been out already.
    pub ejections_refused: AtomicU64,
    /// Requests refused because a limit was reached.
    pub overloads: AtomicU64,
    /// Retries that the budget did not allow.
    pub retries_refused: AtomicU64,
}

/// A request that waits for an endpoint; ends when dropped.
#[derive(Debug)]
pub struct Pending(Arc<PoolState>);

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.pending.fetch_sub(1, Ordering::Relaxed);
    }
}

impl PoolState {
    /// Makes one that nothing has happened to.
    pub fn new(settings: Settings) -> Arc<Self> {
        Arc::new(Self {
            peaks: AtomicBool::new(settings.policy == BalancePolicy::PeakEwma),
            settings: ArcSwap::from_pointee(settings),
            ..Self::default()
        })
    }

    /// The same for a pool that is watched over while it has requests.
    pub fn watched(key: PoolKey, busy: Arc<Busy>, settings: Settings) -> Arc<Self> {
        Arc::new(Self {
            watched: Some((key, busy)),
            peaks: AtomicBool::new(settings.policy == BalancePolicy::PeakEwma),
            settings: ArcSwap::from_pointee(settings),
            ..Self::default()
        })
    }

    /// Returns whose it is.
    pub fn key(&self) -> Option<&PoolKey> {
        self.watched.as_ref().map(|(key, _)| key)
    }

    /// A request has begun.
    pub(crate) fn began(self: &Arc<Self>) {
        // SeqCst, with `idled`, and with the count of requests in flight: either this sees that
        // the pool is not listed any more, or whoever took it off the list sees the request.
        if !self.listed.load(Ordering::SeqCst) {
            self.list();
        }
    }

    #[cold]
    fn list(self: &Arc<Self>) {
        if let Some((_, busy)) = &self.watched
            && !self.listed.swap(true, Ordering::SeqCst)
        {
            busy.add(Arc::clone(self));
        }
    }

    /// Takes it off the list of the busy: the next request puts it there again. Whoever calls this
    /// looks once more, afterwards, whether anything is in flight.
    pub fn idled(&self) {
        // SeqCst: see `began`.
        self.listed.store(false, Ordering::SeqCst);
    }

    /// Puts it on the list again without adding it there: whoever called [`PoolState::idled`] still
    /// has it. `false` if another request has added it meanwhile.
    pub fn relist(&self) -> bool {
        !self.listed.swap(true, Ordering::SeqCst)
    }

    /// Returns the settings that count now.
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.load_full()
    }

    /// Takes other settings, if they are.
    pub fn set(&self, settings: &Settings) {
        if **self.settings.load() != *settings {
            let peaks = settings.policy == BalancePolicy::PeakEwma;
            self.peaks.store(peaks, Ordering::Relaxed);
            self.settings.store(Arc::new(settings.clone()));
        }
    }

    /// Whether latencies are followed with their peaks.
    pub(crate) fn wants_peaks(&self) -> bool {
        self.peaks.load(Ordering::Relaxed)
    }

    /// Begins to wait for an endpoint, if not too many do.
    pub fn wait(self: &Arc<Self>) -> Option<Pending> {
        let limit = self.settings.load().limits.pending;
        let before = self.pending.fetch_add(1, Ordering::Relaxed);
        let pending = Pending(Arc::clone(self));
        (limit == 0 || before < limit).then_some(pending)
    }

    /// Returns how many requests wait for an endpoint.
    pub fn pending(&self) -> u32 {
        self.pending.load(Ordering::Relaxed)
    }

    /// Counts a request, unless as many as `limit` (0: no limit) are in flight; for pools that
    /// count.
    pub(crate) fn enter(&self, limit: u32) -> bool {
        let before = self.in_flight.fetch_add(1, Ordering::Relaxed);
        if limit > 0 && before >= limit {
            self.leave();
            return false;
        }
        true
    }

    /// The request has ended.
    pub(crate) fn leave(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// Returns the requests in flight, of pools that count.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Takes the next turn.
    pub(crate) fn turn(&self) -> u64 {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }

    /// Notes how many endpoints take requests.
    pub(crate) fn opened(&self, count: usize) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.open.store(count, Ordering::Relaxed);
    }

    /// Returns the table of hashes for these members: the one before it, if they are the same.
    pub(crate) fn ring(&self, members: &[Named]) -> Arc<Maglev> {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        match &*ring {
            Some(known) if known.is_of(members) => Arc::clone(known),
            _ => Arc::clone(ring.insert(Arc::new(Maglev::new(members)))),
        }
    }

    /// Takes an endpoint out for errors, unless as many are out as may be; says until when.
    pub(crate) fn eject(
        &self,
        backend: &Arc<Backend>,
        rules: &EjectionSpec,
        now: Moment,
    ) -> Option<Moment> {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        out.retain(|one| {
            let one = one.upgrade();
            one.is_some_and(|one| one.gate() == Gate::Open && one.ejected_until(now).is_some())
        });
        let next = out.len() + 1;
        let open = self.open.load(Ordering::Relaxed) as usize;
        if next >= open || next * 100 > open * usize::from(rules.max_percent) {
            self.events
                .ejections_refused
                .fetch_add(1, Ordering::Relaxed);
            return None;
        }
        out.push(Arc::downgrade(backend));
        self.events.ejections.fetch_add(1, Ordering::Relaxed);
        // Under the lock: whoever counts next sees it out.
        Some(backend.outlier().eject(rules, now))
    }
}
