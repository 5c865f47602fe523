//! The endpoints behind one port of one service.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ballast_model::{BalancePolicy, HashKey, Protocol, ServiceId, StickySpec, UpstreamSpec};

use super::{Backend, Gate, InFlight, Moment};
use crate::metrics::ServiceStats;
use crate::policy::{
    self, Attempt, Chooser, Context, Overload, Pending, PoolState, Refused, Settings, Want,
};

/// Names a pool: stays across tables.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolKey {
    /// The service.
    pub service: ServiceId,
    /// The port's name.
    pub port: Arc<str>,
}

/// How a pool sees one of its members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MemberState {
    /// Takes requests.
    Ready,
    /// Looks dead, but so does most of the pool: it takes requests all the same.
    Suspect,
    /// Takes no new requests, and finishes what it has.
    Draining,
    /// Takes none: not healthy, or its node has fallen silent.
    Out,
    /// Takes none yet: nobody has called it healthy.
    Unknown,
}

impl MemberState {
    /// Every state.
    pub const ALL: [Self; 5] = [
        Self::Ready,
        Self::Suspect,
        Self::Draining,
        Self::Out,
        Self::Unknown,
    ];

    /// Returns its name in metrics and in the table's JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Suspect => "suspect",
            Self::Draining => "draining",
            Self::Out => "out",
            Self::Unknown => "unknown",
        }
    }

    /// Whether it takes requests.
    pub const fn takes_requests(self) -> bool {
        matches!(self, Self::Ready | Self::Suspect)
    }
}

/// One endpoint in a pool.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its live state.
    pub backend: Arc<Backend>,
    /// How the pool sees it.
    pub state: MemberState,
}

/// The endpoints behind one port of one service: immutable, replaced whole.
#[derive(Debug)]
pub struct Pool {
    /// Its name.
    pub key: PoolKey,
    /// The service's name, for metrics and logs.
    pub service_name: Arc<str>,
    /// What is spoken.
    pub protocol: Protocol,
    /// Everything that belongs to it.
    pub members: Vec<Member>,
    /// What is counted for its service: shared by all its pools, and by those that follow them.
    pub stats: Arc<ServiceStats>,
    /// How its endpoints are spoken to.
    pub upstream: Arc<UpstreamSpec>,
    settings: Arc<Settings>,
    state: Arc<PoolState>,
    chooser: Chooser,
    /// Whether requests in flight are counted for the pool.
    counts: bool,
}

impl Pool {
    /// Makes a pool of these members.
    pub fn new(
        key: PoolKey,
        service_name: Arc<str>,
        protocol: Protocol,
        members: Vec<Member>,
    ) -> Self {
        Self::of(Arc::default(), key, service_name, protocol, members)
    }

    /// Makes a pool that balances as the settings of a state say, which the pools before and after
    /// it share.
    pub fn of(
        state: Arc<PoolState>,
        key: PoolKey,
        service_name: Arc<str>,
        protocol: Protocol,
        members: Vec<Member>,
    ) -> Self {
        let settings = state.settings();
        let seen: Vec<policy::Member<'_>> = members
            .iter()
            .map(|member| policy::Member {
                backend: &member.backend,
                open: member.state.takes_requests(),
            })
            .collect();
        Self {
            chooser: Chooser::new(&seen, &settings, &state),
            counts: settings.limits.requests > 0 || settings.policy == BalancePolicy::BoundedHash,
            key,
            service_name,
            protocol,
            members,
            stats: Arc::default(),
            upstream: Arc::default(),
            settings,
            state,
        }
    }

    /// Speaks to its endpoints as is said.
    #[must_use]
    pub fn reached(mut self, upstream: Arc<UpstreamSpec>) -> Self {
        self.upstream = upstream;
        self
    }

    /// Returns what is shared with the pools before and after it.
    pub fn state(&self) -> &Arc<PoolState> {
        &self.state
    }

    /// Returns how it balances.
    pub fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// Returns how many endpoints are tried for one request.
    pub fn attempts(&self) -> usize {
        self.settings.retry.attempts
    }

    /// Returns how long a request waits for an endpoint.
    pub fn hold(&self, default: Duration) -> Duration {
        self.settings.hold.unwrap_or(default)
    }

    /// Returns whether a failed request may be sent again, and takes it from the budget if so.
    pub fn may_retry(&self, attempt: &Attempt, now: Moment) -> bool {
        let rules = &self.settings.retry;
        if !attempt.may_retry(rules.attempts) {
            return false;
        }
        let granted = self.state.budget.retry(rules, now);
        if !granted {
            let refused = &self.state.events.retries_refused;
            refused.fetch_add(1, Ordering::Relaxed);
        }
        granted
    }

    /// Counts on where another pool of the service has begun.
    #[must_use]
    pub fn counting(mut self, stats: Arc<ServiceStats>) -> Self {
        self.stats = stats;
        self
    }

    /// Returns those that take requests.
    pub fn open(&self) -> &[Arc<Backend>] {
        self.chooser.open()
    }

    /// Returns whether an endpoint takes requests that is not this one and was not tried.
    pub fn has_other(&self, than: &Arc<Backend>, tried: &[Arc<Backend>]) -> bool {
        self.open().iter().any(|backend| {
            backend.gate() == Gate::Open
                && !Arc::ptr_eq(backend, than)
                && !tried.iter().any(|other| Arc::ptr_eq(backend, other))
        })
    }

    /// Begins to wait for an endpoint.
    ///
    /// # Errors
    /// [`Refused::Overloaded`] if as many wait as may.
    pub fn wait(&self) -> Result<Pending, Refused> {
        let pending = self.state.wait();
        pending.ok_or_else(|| self.overloaded(Overload::Pending))
    }

    /// Returns the key that its policy hashes, if it does.
    pub fn hash_key(&self) -> Option<&HashKey> {
        let hashes = self.settings.policy.hashes();
        hashes.then_some(&self.settings.key)
    }

    /// Returns the cookie that keeps clients at their endpoint, if there is one.
    pub fn sticky(&self) -> Option<&StickySpec> {
        self.settings.sticky.as_ref()
    }

    /// Returns how long to wait before a further try, `tries` having failed: the first retry is
    /// immediate; then a part, drawn by `random`, of a time that doubles.
    pub fn backoff(&self, tries: usize, random: u64) -> Duration {
        let rules = &self.settings.retry;
        let Some(doublings) = tries.checked_sub(2) else {
            return Duration::ZERO;
        };
        let factor = 1u32 << doublings.min(20);
        let longest = rules.backoff.saturating_mul(factor).min(rules.max_backoff);
        longest.mul_f64((random >> 32) as f64 / f64::from(u32::MAX))
    }

    /// Begins a request at the endpoint that the pool's policy chooses among those that take
    /// requests and that it has not tried. Those that are to be avoided are taken only if nothing
    /// else is left.
    ///
    /// # Errors
    /// [`Refused`]: none takes it.
    ///
    /// # Complexity
    /// Constant; linear in the pool when the policy's choice cannot be used.
    pub fn begin(&self, want: &Want<'_>) -> Result<InFlight, Refused> {
        if self.open().is_empty() {
            return Err(Refused::NoEndpoint);
        }
        if want.tried.is_empty() {
            self.state.budget.request(want.random, want.now);
        }
        let limits = &self.settings.limits;
        if self.counts && !self.state.enter(limits.requests) {
            return Err(self.overloaded(Overload::Requests));
        }
        let context = Context {
            want,
            settings: &self.settings,
            state: &self.state,
        };
        let chosen = self.chooser.choose(&context);
        let begun = chosen
            .and_then(|backend| backend.try_begin_within(limits.endpoint_requests, want.now))
            .map_or_else(|| self.begin_at_any(&context), Ok);
        if begun.is_ok() {
            self.state.began();
        }
        match begun {
            Ok(flight) if self.counts => Ok(flight.counted()),
            Err(refused) if self.counts => {
                self.state.leave();
                Err(refused)
            }
            begun => begun,
        }
    }

    /// The same, after a look at every one.
    fn begin_at_any(&self, context: &Context<'_>) -> Result<InFlight, Refused> {
        let (want, open) = (context.want, self.open());
        let limit = self.settings.limits.endpoint_requests;
        // Not always the first of those that are alike.
        let from = usize::try_from(want.random % open.len() as u64).unwrap_or(0);
        for _ in 0..open.len() {
            let (before, after) = open.split_at(from);
            let all = after.iter().chain(before);
            let mut left = all
                .filter(|backend| backend.gate() == Gate::Open && !want.has_tried(backend))
                .filter(|backend| {
                    self.settings.fail_open || backend.ejected_until(want.now).is_none()
                })
                .peekable();
            if left.peek().is_none() {
                return Err(Refused::NoEndpoint);
            }
            let best = left
                .filter(|backend| !context.is_full(backend))
                .min_by_key(|backend| (backend.avoided(want.now), backend.in_flight()));
            let Some(best) = best else {
                return Err(self.overloaded(Overload::Endpoints));
            };
            if let Some(flight) = best.try_begin_within(limit, want.now) {
                return Ok(flight);
            }
        }
        Err(Refused::NoEndpoint)
    }

    fn overloaded(&self, which: Overload) -> Refused {
        let overloads = &self.state.events.overloads;
        overloads.fetch_add(1, Ordering::Relaxed);
        Refused::Overloaded(which)
    }
}

#[cfg(test)]
mod tests {
    use ballast_model::{AssignmentId, NodeId};

    use super::*;

    fn pool(states: &[MemberState]) -> Pool {
        let members = states
            .iter()
            .zip(1u16..)
            .map(|(&state, number)| {
                let backend = Backend::new(
                    AssignmentId::from_bits(number.into()),
                    NodeId::from_bits(1),
                    ([127, 0, 0, 1], number).into(),
                );
                backend.set_gate(if state.takes_requests() {
                    Gate::Open
                } else {
                    Gate::Closed
                });
                Member {
                    backend: Arc::new(backend),
                    state,
                }
            })
            .collect();
        let key = PoolKey {
            service: ServiceId::from_bits(1),
            port: "http".into(),
        };
        Pool::new(key, "web".into(), Protocol::Http, members)
    }

    fn random(seed: u64) -> u64 {
        seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23) ^ seed << 40
    }

    #[test]
    fn load_spreads_over_what_is_ready_and_nothing_else() {
        let pool = pool(&[
            MemberState::Ready,
            MemberState::Out,
            MemberState::Ready,
            MemberState::Draining,
            MemberState::Ready,
        ]);
        let held: Vec<InFlight> = (0..300)
            .map(|seed| {
                pool.begin(&Want::any(random(seed), Moment(1), &[]))
                    .expect("three are ready")
            })
            .collect();
        assert_eq!(held.len(), 300);
        for member in &pool.members {
            let in_flight = member.backend.in_flight();
            if member.state == MemberState::Ready {
                assert!((90..=110).contains(&in_flight), "{in_flight}");
            } else {
                assert_eq!(in_flight, 0);
            }
        }
    }

    #[test]
    fn each_is_tried_once_and_the_avoided_last() {
        let pool = pool(&[MemberState::Ready, MemberState::Ready, MemberState::Ready]);
        pool.members[0]
            .backend
            .avoid(Moment(1).after(Duration::from_secs(1)));
        let mut tried: Vec<Arc<Backend>> = Vec::new();
        while let Ok(request) =
            pool.begin(&Want::any(random(tried.len() as u64), Moment(1), &tried))
        {
            tried.push(Arc::clone(request.backend()));
        }
        assert_eq!(tried.len(), 3);
        assert!(Arc::ptr_eq(&tried[2], &pool.members[0].backend));
    }

    #[test]
    fn gate_that_closed_after_the_table_was_made_is_seen() {
        let pool = pool(&[MemberState::Ready, MemberState::Ready]);
        pool.members[0].backend.set_gate(Gate::Draining);
        for seed in 0..50 {
            let request = pool
                .begin(&Want::any(random(seed), Moment(1), &[]))
                .expect("one is open");
            assert!(Arc::ptr_eq(request.backend(), &pool.members[1].backend));
        }
        pool.members[1].backend.set_gate(Gate::Closed);
        assert_eq!(
            pool.begin(&Want::any(7, Moment(1), &[])).err(),
            Some(Refused::NoEndpoint)
        );
    }
}
