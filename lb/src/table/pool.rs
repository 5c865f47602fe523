//! The endpoints behind one port of one service.

use std::sync::Arc;
use std::time::Duration;

use ballast_model::{Protocol, ServiceId};

use super::{Backend, InFlight, Moment};
use crate::metrics::ServiceStats;
use crate::policy::{Attempt, PoolState, Refused, Settings, Want};

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
    settings: Arc<Settings>,
    state: Arc<PoolState>,
    open: Vec<Arc<Backend>>,
}

impl Pool {
    /// Makes a pool of these members.
    pub fn new(
        key: PoolKey,
        service_name: Arc<str>,
        protocol: Protocol,
        members: Vec<Member>,
    ) -> Self {
        let open = members
            .iter()
            .filter(|member| member.state.takes_requests())
            .map(|member| Arc::clone(&member.backend))
            .collect();
        Self {
            key,
            service_name,
            protocol,
            members,
            stats: Arc::default(),
            settings: Arc::default(),
            state: Arc::default(),
            open,
        }
    }

    /// Balances as the settings of a state say, which the pools that follow share.
    #[must_use]
    pub fn governed(mut self, state: Arc<PoolState>) -> Self {
        self.settings = state.settings();
        self.state = state;
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
        attempt.may_retry(rules.attempts) && self.state.budget.retry(rules, now)
    }

    /// Counts on where another pool of the service has begun.
    #[must_use]
    pub fn counting(mut self, stats: Arc<ServiceStats>) -> Self {
        self.stats = stats;
        self
    }

    /// Returns those that take requests.
    pub fn open(&self) -> &[Arc<Backend>] {
        &self.open
    }

    /// Begins a request at one of the endpoints that take requests and that it has not tried: of
    /// two drawn by chance, the one with less in flight. Those that are to be avoided are taken
    /// only if nothing else is left.
    ///
    /// # Errors
    /// [`Refused`]: none takes it.
    ///
    /// # Complexity
    /// Constant; linear in the pool when both draws cannot be used.
    pub fn begin(&self, want: &Want<'_>) -> Result<InFlight, Refused> {
        let Want { random, now, .. } = *want;
        let count = self.open.len() as u64;
        if count == 0 {
            return Err(Refused::NoEndpoint);
        }
        if want.tried.is_empty() {
            self.state.budget.request(random, now);
        }
        let usable = |backend: &Arc<Backend>| !was_tried(want, backend) && !backend.avoided(now);
        // 32 random bits each; the bias of a modulus of a few thousand does not matter here.
        let first = (random >> 32) % count;
        let step = 1 + (random & 0xffff_ffff) % count.saturating_sub(1).max(1);
        let second = (first + step) % count;
        let at = |index: u64| &self.open[usize::try_from(index).unwrap_or(0)];
        let chosen = match (usable(at(first)), usable(at(second))) {
            (true, true) if at(second).in_flight() < at(first).in_flight() => Some(at(second)),
            (true, _) => Some(at(first)),
            (false, true) => Some(at(second)),
            (false, false) => None,
        };
        if let Some(request) = chosen.and_then(|backend| backend.try_begin(now)) {
            return Ok(request);
        }
        self.begin_at_any(want).ok_or(Refused::NoEndpoint)
    }

    /// The same, after a look at every one.
    fn begin_at_any(&self, want: &Want<'_>) -> Option<InFlight> {
        let mut left: Vec<&Arc<Backend>> = self
            .open
            .iter()
            .filter(|backend| !was_tried(want, backend))
            .collect();
        left.sort_by_key(|backend| (backend.avoided(want.now), backend.in_flight()));
        left.into_iter()
            .find_map(|backend| backend.try_begin(want.now))
    }
}

fn was_tried(want: &Want<'_>, backend: &Arc<Backend>) -> bool {
    want.tried.iter().any(|other| Arc::ptr_eq(other, backend))
}

#[cfg(test)]
mod tests {
    use ballast_model::{AssignmentId, NodeId};

    use super::*;
    use crate::table::Gate;

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
