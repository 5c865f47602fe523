//! The live state of one endpoint: shared by every table that names it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use ballast_model::{AssignmentId, NodeId, Weight};
use tokio::sync::Notify;

use super::{Links, Moment};
use crate::policy::{Outcome, Outlier, PeakLatency, PoolState, sticky};

/// How much a new latency counts for the average: an eighth, as in TCP's round trip estimate.
const LATENCY_SHIFT: u32 = 3;

/// Whether an endpoint takes new requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// It does.
    Open,
    /// It does not; those in flight run on.
    Draining,
    /// It does not; those in flight are cut off.
    Closed,
}

/// One address of one assignment.
#[derive(Debug)]
pub struct Backend {
    /// Its name: stays across local restarts.
    pub assignment: AssignmentId,
    /// Whose agent speaks for it.
    pub node: NodeId,
    /// Where it answers.
    pub address: SocketAddr,
    /// The connections to it.
    pub links: Arc<Links>,
    /// What it shares with the others of its pool.
    pool: Arc<PoolState>,
    weight: AtomicU16,
    near: AtomicBool,
    /// When its first request came after it had been opened; 0: none yet.
    fresh_from: AtomicU64,
    outlier: Outlier,
    peak: PeakLatency,
    gate: AtomicU8,
    suspect: AtomicBool,
    in_flight: AtomicU32,
    latency_micros: AtomicU32,
    progress: AtomicU64,
    avoid_until: AtomicU64,
    probe_after: AtomicU64,
    probe_gap_micros: AtomicU64,
    idle: Notify,
}

/// One request or connection in flight; ends when dropped, or by [`InFlight::ended`], which says
/// how.
#[derive(Debug)]
pub struct InFlight {
    backend: Arc<Backend>,
    /// Whether its pool counts it, too.
    counted: bool,
}

impl InFlight {
    /// Where it goes.
    pub fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }

    /// Its pool has counted it: the count ends with it.
    pub(super) fn counted(mut self) -> Self {
        self.counted = true;
        self
    }

    /// Notes that the endpoint does what it is asked, long before the end: a connection was made.
    pub fn is_well(&self) {
        self.backend.outlier.succeeded();
    }

    /// Ends it and lets the endpoint be judged by how it went. `latency` is that of the response's
    /// head, unless [`Backend::responded`] was told it when it came.
    pub fn ended(self, outcome: Outcome, latency: Option<Duration>, now: Moment) {
        if let Some(latency) = latency {
            self.backend.responded(latency, now);
        }
        self.backend.judge(outcome, now);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.backend.leave();
        if self.counted {
            self.backend.pool.leave();
        }
    }
}

impl Backend {
    /// Makes a closed one: it takes nothing until the table says so.
    pub fn new(assignment: AssignmentId, node: NodeId, address: SocketAddr) -> Self {
        Self::of_pool(Arc::default(), assignment, node, address)
    }

    /// The same for a pool whose state is known.
    pub fn of_pool(
        pool: Arc<PoolState>,
        assignment: AssignmentId,
        node: NodeId,
        address: SocketAddr,
    ) -> Self {
        Self {
            assignment,
            node,
            address,
            links: Arc::new(Links::default()),
            pool,
            weight: AtomicU16::new(Weight::DEFAULT.0),
            near: AtomicBool::new(false),
            fresh_from: AtomicU64::new(0),
            outlier: Outlier::default(),
            peak: PeakLatency::default(),
            gate: AtomicU8::new(Gate::Closed as u8),
            suspect: AtomicBool::new(false),
            in_flight: AtomicU32::new(0),
            latency_micros: AtomicU32::new(0),
            progress: AtomicU64::new(0),
            avoid_until: AtomicU64::new(0),
            probe_after: AtomicU64::new(0),
            probe_gap_micros: AtomicU64::new(0),
            idle: Notify::new(),
        }
    }

    /// Returns whether it takes new requests.
    pub fn gate(&self) -> Gate {
        // Pairs with `set_gate`.
        match self.gate.load(Ordering::SeqCst) {
            0 => Gate::Open,
            1 => Gate::Draining,
            _ => Gate::Closed,
        }
    }

    /// Opens or closes it; returns what it was.
    pub fn set_gate(&self, gate: Gate) -> Gate {
        // SeqCst, with `try_begin`: either the request sees the closed gate, or whoever closed it
        // sees the request in `in_flight`. Weaker orders would allow both to miss each other, and
        // a drain would be acknowledged with a request still to come.
        let before = match self.gate.swap(gate as u8, Ordering::SeqCst) {
            0 => Gate::Open,
            1 => Gate::Draining,
            _ => Gate::Closed,
        };
        if before == Gate::Closed && gate == Gate::Open {
            self.fresh_from.store(0, Ordering::Relaxed);
        }
        before
    }

    /// Says how much of the requests it gets, and whether it is in the ingress's own zone. Tables
    /// made from now on heed it.
    pub fn place(&self, weight: Weight, near: bool) {
        self.weight.store(weight.0, Ordering::Relaxed);
        self.near.store(near, Ordering::Relaxed);
    }

    /// Returns how much of the requests it gets.
    pub fn weight(&self) -> Weight {
        Weight(self.weight.load(Ordering::Relaxed))
    }

    /// Whether it is in the ingress's own zone.
    pub fn is_near(&self) -> bool {
        self.near.load(Ordering::Relaxed)
    }

    /// Returns what it is called in tables of hashes: the same in every ingress.
    pub fn name(&self) -> u64 {
        let mut key = [0; 26];
        key[..8].copy_from_slice(&self.assignment.to_bits().to_le_bytes());
        match self.address.ip() {
            IpAddr::V4(ip) => key[8..12].copy_from_slice(&ip.octets()),
            IpAddr::V6(ip) => key[8..24].copy_from_slice(&ip.octets()),
        }
        key[24..].copy_from_slice(&self.address.port().to_le_bytes());
        sticky::hash_of(&key)
    }

    /// Returns what it is called in cookies: the same in every ingress.
    pub fn cookie(&self) -> u64 {
        self.name().rotate_left(32)
    }

    /// Returns how long it has been taking requests: since the first one after it was opened, or
    /// since it came back after errors.
    pub(crate) fn age(&self, now: Moment) -> Duration {
        match self.fresh_from.load(Ordering::Relaxed) {
            0 => {
                // A clock may begin at 0.
                self.fresh_from.store(now.0.max(1), Ordering::Relaxed);
                Duration::ZERO
            }
            from => now.since(Moment(from)),
        }
    }

    /// Marks it as kept only because the floor holds: it looks dead.
    pub fn set_suspect(&self, suspect: bool) {
        self.suspect.store(suspect, Ordering::Relaxed);
    }

    /// Begins a request, if the gate is open.
    pub fn try_begin(self: &Arc<Self>, now: Moment) -> Option<InFlight> {
        self.try_begin_within(0, now)
    }

    /// The same, if fewer than `limit` (0: no limit) are in flight.
    pub(super) fn try_begin_within(self: &Arc<Self>, limit: u32, now: Moment) -> Option<InFlight> {
        // SeqCst: see `set_gate`.
        let before = self.in_flight.fetch_add(1, Ordering::SeqCst);
        if self.gate() != Gate::Open || limit > 0 && before >= limit {
            self.leave();
            return None;
        }
        if before == 0 {
            self.progress.store(now.0, Ordering::Relaxed);
        }
        Some(InFlight {
            backend: Arc::clone(self),
            counted: false,
        })
    }

    fn leave(&self) {
        // SeqCst: see `set_gate`.
        let before = self.in_flight.fetch_sub(1, Ordering::SeqCst);
        if before == 1 && self.gate() != Gate::Open {
            self.idle.notify_waiters();
        }
    }

    /// Returns the requests and connections in flight.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::SeqCst)
    }

    /// Waits until nothing is in flight; for gates that are not open.
    pub async fn idle(&self) {
        loop {
            let notified = self.idle.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if self.in_flight() == 0 {
                return;
            }
            notified.await;
        }
    }

    /// Notes that bytes came from it.
    pub fn progressed(&self, now: Moment) {
        self.progress.store(now.0, Ordering::Relaxed);
    }

    /// Returns when bytes last came from it, or when the first of the requests in flight began.
    pub fn last_progress(&self) -> Moment {
        Moment(self.progress.load(Ordering::Relaxed))
    }

    /// Notes how long the head of a response took, and that it came.
    pub fn responded(&self, latency: Duration, now: Moment) {
        self.progressed(now);
        self.probe_gap_micros.store(0, Ordering::Relaxed);
        let new = u32::try_from(latency.as_micros())
            .unwrap_or(u32::MAX)
            .max(1);
        let old = self.latency_micros.load(Ordering::Relaxed);
        // Two threads may overwrite each other's sample: an average bears that.
        let average = if old == 0 {
            new
        } else {
            old - (old >> LATENCY_SHIFT) + (new >> LATENCY_SHIFT)
        };
        self.latency_micros.store(average.max(1), Ordering::Relaxed);
        if self.pool.wants_peaks() {
            self.peak.sample(latency, now);
        }
    }

    /// Returns the moving average of the latency, if a response has come yet.
    pub fn latency(&self) -> Option<Duration> {
        match self.latency_micros.load(Ordering::Relaxed) {
            0 => None,
            micros => Some(Duration::from_micros(micros.into())),
        }
    }

    /// Draws the consequences of how a request went.
    fn judge(self: &Arc<Self>, outcome: Outcome, now: Moment) {
        match outcome {
            Outcome::Status(status) if status < 500 => return self.outlier.succeeded(),
            Outcome::Status(_) => {}
            Outcome::ConnectFailed | Outcome::Reset | Outcome::Timeout => {
                self.avoid(now.after(AVOID));
            }
            Outcome::Cancelled => return,
        }
        let settings = self.pool.settings();
        if let Outcome::Status(status) = outcome
            && !settings.is_failure(status)
        {
            return self.outlier.succeeded();
        }
        // What its agent has taken out needs no second judge.
        if self.gate() == Gate::Open
            && self.outlier.failed(&settings.ejection, now).is_some()
            && let Some(until) = self.pool.eject(self, &settings.ejection, now)
        {
            self.avoid(until);
            self.fresh_from.store(until.0, Ordering::Relaxed);
            tracing::info!(address = %self.address, "endpoint out for its errors");
        }
    }

    /// Returns how it has answered.
    pub(crate) fn outlier(&self) -> &Outlier {
        &self.outlier
    }

    /// Returns until when it is out for its errors, if it is.
    pub fn ejected_until(&self, now: Moment) -> Option<Moment> {
        self.outlier.out_until(now)
    }

    /// Returns the latency that rises at once and falls slowly, in microseconds; 0 if no response
    /// has come yet.
    pub(crate) fn peak_latency(&self, now: Moment) -> f32 {
        self.peak.micros(now)
    }

    /// Prefers its peers until then: it refused or reset a connection.
    pub fn avoid(&self, until: Moment) {
        self.avoid_until.fetch_max(until.0, Ordering::Relaxed);
    }

    /// Forgets that it was to be avoided: its agent has spoken.
    pub fn forgive(&self) {
        self.avoid_until.store(0, Ordering::Relaxed);
        self.outlier.forgive();
        self.probe_gap_micros.store(0, Ordering::Relaxed);
    }

    /// Whether its peers are to be preferred now.
    pub fn avoided(&self, now: Moment) -> bool {
        self.avoid_until.load(Ordering::Relaxed) > now.0
            || self.suspect.load(Ordering::Relaxed) && self.quiet_for(now) > SUSPECT_QUIET
    }

    /// Returns how long nothing has come while something was in flight.
    pub fn quiet_for(&self, now: Moment) -> Duration {
        if self.in_flight.load(Ordering::Relaxed) == 0 {
            Duration::ZERO
        } else {
            now.since(self.last_progress())
        }
    }

    /// Whether a probe may be asked for now; if so, the next one may be asked for only after a gap
    /// that doubles, up to [`PROBE_GAP_MAX`], for as long as the endpoint stays as it is.
    pub fn may_ask_probe(&self, now: Moment) -> bool {
        let after = self.probe_after.load(Ordering::Relaxed);
        if now.0 < after {
            return false;
        }
        let gap = self.probe_gap_micros.load(Ordering::Relaxed);
        let gap = Duration::from_micros(gap * 2).clamp(PROBE_GAP_MIN, PROBE_GAP_MAX);
        let claimed = self.probe_after.compare_exchange(
            after,
            now.after(gap).0,
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
        if claimed.is_ok() {
            let micros = u64::try_from(gap.as_micros()).unwrap_or(u64::MAX);
            self.probe_gap_micros.store(micros, Ordering::Relaxed);
        }
        claimed.is_ok()
    }
}

/// How long an endpoint that refused or reset a connection is avoided, unless its agent speaks.
const AVOID: Duration = Duration::from_millis(100);
/// After which a suspect that has something in flight is avoided: the real traffic says, too, that
/// it is dead.
const SUSPECT_QUIET: Duration = Duration::from_millis(50);
/// Between two probes that are asked for one endpoint, at least.
pub const PROBE_GAP_MIN: Duration = Duration::from_millis(50);
/// The longest that gap becomes: a long poll must not have its program probed all the time.
pub const PROBE_GAP_MAX: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    fn backend() -> Arc<Backend> {
        Arc::new(Backend::new(
            AssignmentId::from_bits(1),
            NodeId::from_bits(2),
            "127.0.0.1:1".parse().expect("an address"),
        ))
    }

    #[test]
    fn closed_gate_lets_nothing_begin() {
        let backend = backend();
        assert!(backend.try_begin(Moment(1)).is_none());
        backend.set_gate(Gate::Open);
        let request = backend.try_begin(Moment(1)).expect("begins");
        assert_eq!(backend.set_gate(Gate::Draining), Gate::Open);
        assert!(backend.try_begin(Moment(2)).is_none());
        assert_eq!(backend.in_flight(), 1);
        drop(request);
        assert_eq!(backend.in_flight(), 0);
    }

    #[tokio::test]
    async fn idle_ends_with_the_last_request() {
        let backend = backend();
        backend.set_gate(Gate::Open);
        let request = backend.try_begin(Moment(1)).expect("begins");
        backend.set_gate(Gate::Draining);
        let waiting = tokio::spawn({
            let backend = backend.clone();
            async move { backend.idle().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(request);
        tokio::time::timeout(Duration::from_secs(5), waiting)
            .await
            .expect("wakes")
            .expect("no panic");
    }

    #[test]
    fn probes_are_asked_for_ever_more_rarely() {
        let backend = backend();
        let mut now = Moment(1_000_000);
        let mut asked = 0;
        for _ in 0..10_000 {
            asked += u32::from(backend.may_ask_probe(now));
            now = now.after(Duration::from_millis(1));
        }
        assert!((5..=12).contains(&asked), "{asked}");
    }

    #[test]
    fn latency_follows_the_samples() {
        let backend = backend();
        assert_eq!(backend.latency(), None);
        for _ in 0..100 {
            backend.responded(Duration::from_millis(8), Moment(5));
        }
        let latency = backend.latency().expect("has samples");
        assert!((7000..=8000).contains(&latency.as_micros()), "{latency:?}");
        assert_eq!(backend.last_progress(), Moment(5));
    }
}
