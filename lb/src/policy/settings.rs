//! What a port's `balance` says, ready for use.

use std::time::Duration;

use ballast_model::{
    BalanceLimits, BalancePolicy, BalanceSpec, EjectionSpec, HashKey, StickySpec, ZoneSpec,
};

/// What a port's `balance` says, with every default filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How an endpoint is chosen.
    pub policy: BalancePolicy,
    /// What is hashed, for policies that do.
    pub key: HashKey,
    /// How much one endpoint may have in flight, in percent of the mean.
    pub bound_percent: u16,
    /// The cookie that keeps clients at their endpoint.
    pub sticky: Option<StickySpec>,
    /// How long a new endpoint takes to its full share.
    pub slow_start: Duration,
    /// Whether the own zone is preferred.
    pub zones: ZoneSpec,
    /// When an endpoint is taken out for errors.
    pub ejection: EjectionSpec,
    /// What may be under way at once.
    pub limits: BalanceLimits,
    /// When a failed request is sent again.
    pub retry: Retries,
    /// Whether requests go to endpoints that look unwell rather than nowhere.
    pub fail_open: bool,
    /// How long a request waits for an endpoint; the ingress's default if not given.
    pub hold: Option<Duration>,
}

/// When a failed request is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retries {
    /// Endpoints tried for one request.
    pub attempts: usize,
    /// In percent of the requests of the budget's window.
    pub budget_percent: u16,
    /// Besides, a second.
    pub budget_per_second: u32,
    /// Before the second retry.
    pub backoff: Duration,
    /// The longest that becomes.
    pub max_backoff: Duration,
}

impl Settings {
    /// Returns whether such a status counts against an endpoint.
    pub const fn is_failure(&self, status: u16) -> bool {
        let (low, high) = self.ejection.statuses;
        low <= status && status <= high
    }
}

impl From<&BalanceSpec> for Settings {
    fn from(spec: &BalanceSpec) -> Self {
        Self {
            policy: spec.policy,
            key: spec.hash.clone(),
            bound_percent: spec.bound_percent.0,
            sticky: spec.sticky.clone(),
            slow_start: spec.slow_start.to_duration(),
            zones: spec.zones,
            ejection: spec.ejection,
            limits: spec.limits,
            retry: Retries {
                attempts: usize::from(spec.retry.attempts),
                budget_percent: spec.retry.budget_percent,
                budget_per_second: spec.retry.budget_per_second,
                backoff: spec.retry.backoff.to_duration(),
                max_backoff: spec.retry.max_backoff.to_duration(),
            },
            fail_open: spec.outage.fail_open,
            hold: spec.outage.hold.map(ballast_model::Millis::to_duration),
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self::from(&BalanceSpec::default())
    }
}
