//! How an ingress spreads the requests of one port over its endpoints, and when it gives up on one.
//!
//! All counts are those of one ingress: it asks no other before it decides.

use serde::{Deserialize, Serialize};

use super::InvalidSpec;
use crate::{Millis, limits};

/// How requests are spread over the endpoints of one port. Every field has a default that serves
/// most services.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BalanceSpec {
    /// How an endpoint is chosen.
    pub policy: BalancePolicy,
    /// What keeps a client at its endpoint; for the policies that hash.
    pub hash: HashKey,
    /// `bounded_hash`: how many requests one endpoint may have in flight, in percent of the
    /// endpoints' mean; more go to the next one.
    pub bound_percent: BoundPercent,
    /// A cookie keeps each client at the endpoint that served it first.
    pub sticky: Option<StickySpec>,
    /// How long a new endpoint takes to get its full share of the requests, beginning with a
    /// tenth; 0: it gets it at once. The policies that hash ignore it.
    #[schema(value_type = String, example = "30s")]
    pub slow_start: Millis,
    /// Prefers endpoints of the ingress's own zone.
    pub zones: ZoneSpec,
    /// Takes out endpoints that answer with errors.
    pub ejection: EjectionSpec,
    /// What may be under way at once.
    pub limits: BalanceLimits,
    /// When a failed request is sent to another endpoint.
    pub retry: RetrySpec,
    /// What happens while no endpoint is well.
    pub outage: OutageSpec,
}

/// How an endpoint is chosen.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum BalancePolicy {
    /// Of two drawn by chance, the one with less in flight.
    #[default]
    P2c,
    /// Of two drawn by chance, the one with less in flight times its latency, where a rise of the
    /// latency counts at once and a fall slowly.
    PeakEwma,
    /// Each in its turn.
    RoundRobin,
    /// By chance.
    Random,
    /// By the key's hash (Maglev): the same key leads to the same endpoint for as long as that
    /// is well, and a change of the endpoints moves few other keys.
    Maglev,
    /// The same, but an endpoint with more than its share in flight passes requests on.
    BoundedHash,
}

impl BalancePolicy {
    /// Every policy.
    pub const ALL: [Self; 6] = [
        Self::P2c,
        Self::PeakEwma,
        Self::RoundRobin,
        Self::Random,
        Self::Maglev,
        Self::BoundedHash,
    ];

    /// Returns its name, as specs have it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::P2c => "p2c",
            Self::PeakEwma => "peak_ewma",
            Self::RoundRobin => "round_robin",
            Self::Random => "random",
            Self::Maglev => "maglev",
            Self::BoundedHash => "bounded_hash",
        }
    }

    /// Whether it looks at the request's key.
    pub const fn hashes(self) -> bool {
        matches!(self, Self::Maglev | Self::BoundedHash)
    }
}

impl std::fmt::Display for BalancePolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// What keeps a client at its endpoint. A request without it is balanced by chance.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HashKey {
    /// The client's address.
    #[default]
    Client,
    /// The value of this header.
    Header(String),
    /// The value of this cookie.
    Cookie(String),
    /// The path, without the query.
    Path,
}

/// Percent of the endpoints' mean of requests in flight.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
#[serde(transparent)]
#[schema(value_type = u16, example = 125)]
pub struct BoundPercent(pub u16);

impl Default for BoundPercent {
    fn default() -> Self {
        Self(125)
    }
}

/// A cookie that keeps each client at its endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StickySpec {
    /// The cookie's name.
    pub cookie: String,
    /// How long a browser keeps it; 0: until it is closed.
    #[schema(value_type = String, example = "1h")]
    pub lifetime: Millis,
}

impl Default for StickySpec {
    fn default() -> Self {
        Self {
            cookie: "ballast_endpoint".to_owned(),
            lifetime: Millis(0),
        }
    }
}

/// Whether the ingress's own zone is preferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ZoneSpec {
    /// Endpoints of the ingress's zone are taken first.
    pub prefer: bool,
    /// As long as this percentage of the zone's endpoints takes requests, all of them stay in the
    /// zone; below it, as large a part as are left of these goes to other zones.
    pub spill_below_percent: u8,
}

impl Default for ZoneSpec {
    fn default() -> Self {
        Self {
            prefer: false,
            spill_below_percent: 70,
        }
    }
}

/// When an endpoint that answers with errors is taken out for a while, whatever its probes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EjectionSpec {
    /// Failures in a row; 0: they do not count. A failure is a refused, reset or timed-out
    /// connection, or a status of `statuses`.
    pub consecutive: u32,
    /// Lowest and highest status that is a failure, both included.
    pub statuses: (u16, u16),
    /// The share of answers that must be good; 0: it does not count.
    pub success_percent: u8,
    /// Answers within `window` from which on the share counts.
    pub min_requests: u32,
    /// Over which the share is taken.
    #[schema(value_type = String, example = "10s")]
    pub window: Millis,
    /// How long the first time; doubles with each one that follows soon after.
    #[schema(value_type = String, example = "5s")]
    pub time: Millis,
    /// The longest that becomes.
    #[schema(value_type = String, example = "5m")]
    pub max_time: Millis,
    /// The most of a port's endpoints that may be out for this reason. The last one never is.
    pub max_percent: u8,
}

impl Default for EjectionSpec {
    fn default() -> Self {
        Self {
            consecutive: 5,
            statuses: (502, 504),
            success_percent: 0,
            min_requests: 20,
            window: Millis::from_secs(10),
            time: Millis::from_secs(5),
            max_time: Millis::from_secs(300),
            max_percent: 50,
        }
    }
}

/// What may be under way at once, at each ingress; more is refused with 503. 0 sets no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BalanceLimits {
    /// Requests in flight, to all endpoints together.
    pub requests: u32,
    /// Requests in flight to one endpoint; more go to others.
    pub endpoint_requests: u32,
    /// Connections to one endpoint.
    pub endpoint_connections: u32,
    /// Requests that wait until there is an endpoint.
    pub pending: u32,
}

impl Default for BalanceLimits {
    fn default() -> Self {
        Self {
            requests: 0,
            endpoint_requests: 0,
            endpoint_connections: 0,
            pending: 1024,
        }
    }
}

/// When a failed request is sent to another endpoint. One that an endpoint may have executed
/// already is sent again only if its method is idempotent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RetrySpec {
    /// Endpoints tried for one request, the first included.
    pub attempts: u8,
    /// Retries within ten seconds, in percent of the requests in them, …
    pub budget_percent: u16,
    /// … and these a second besides, so that a service with little traffic has some, too.
    pub budget_per_second: u32,
    /// Before the second retry; the first is immediate. Doubles with each further one, of which a
    /// part drawn by chance is waited.
    #[schema(value_type = String, example = "5ms")]
    pub backoff: Millis,
    /// The longest that becomes.
    #[schema(value_type = String, example = "250ms")]
    pub max_backoff: Millis,
}

impl Default for RetrySpec {
    fn default() -> Self {
        Self {
            attempts: 4,
            budget_percent: 20,
            budget_per_second: 50,
            backoff: Millis(5),
            max_backoff: Millis(250),
        }
    }
}

/// What happens while no endpoint is well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OutageSpec {
    /// When most endpoints fail their probes at once, or all that are left were taken out for
    /// errors, they get requests all the same: the judgement is more likely wrong than they are.
    pub fail_open: bool,
    /// How long a request waits for an endpoint; the ingress's `timeouts.hold` if not given.
    #[schema(value_type = Option<String>, example = "1s")]
    pub hold: Option<Millis>,
}

impl Default for OutageSpec {
    fn default() -> Self {
        Self {
            fail_open: true,
            hold: None,
        }
    }
}

impl BalanceSpec {
    /// Proves that every field is within its bounds. `field` is the path of this spec.
    ///
    /// # Errors
    /// The first field that is not, and the nearest valid value.
    pub fn validate(&self, field: &str) -> Result<(), InvalidSpec> {
        let wrong = |part: &str, reason: &str, nearest: Option<&str>| {
            Err(InvalidSpec::new(format!("{field}.{part}"), reason, nearest))
        };
        match &self.hash {
            HashKey::Header(name) if !is_token(name) => {
                return wrong("hash.header", "is not the name of a header", None);
            }
            HashKey::Cookie(name) if !is_token(name) => {
                return wrong("hash.cookie", "is not the name of a cookie", None);
            }
            _ => {}
        }
        if let Some(sticky) = &self.sticky
            && !is_token(&sticky.cookie)
        {
            return wrong("sticky.cookie", "is not the name of a cookie", None);
        }
        if !(101..=1000).contains(&self.bound_percent.0) {
            let nearest = if self.bound_percent.0 > 1000 {
                "1000"
            } else {
                "125"
            };
            return wrong("bound_percent", "is 101 to 1000", Some(nearest));
        }
        for (part, percent) in [
            ("zones.spill_below_percent", self.zones.spill_below_percent),
            ("ejection.success_percent", self.ejection.success_percent),
            ("ejection.max_percent", self.ejection.max_percent),
        ] {
            if percent > 100 {
                return wrong(part, "is 0 to 100", Some("100"));
            }
        }
        let (low, high) = self.ejection.statuses;
        if low > high || low < 400 || high > 599 {
            let reason = "is a lowest and a highest status from 400 to 599";
            return wrong("ejection.statuses", reason, Some("[502, 504]"));
        }
        if self.ejection.time > self.ejection.max_time {
            return wrong("ejection.time", "is longer than `max_time`", None);
        }
        if !(1..=16).contains(&self.retry.attempts) {
            let nearest = if self.retry.attempts == 0 { "1" } else { "16" };
            return wrong("retry.attempts", "is 1 to 16", Some(nearest));
        }
        if self.retry.budget_percent > 1000 {
            return wrong("retry.budget_percent", "is 0 to 1000", Some("1000"));
        }
        self.validate_spans(field)
    }

    fn validate_spans(&self, field: &str) -> Result<(), InvalidSpec> {
        for (part, span) in [
            ("slow_start", self.slow_start),
            ("ejection.window", self.ejection.window),
            ("ejection.max_time", self.ejection.max_time),
            ("retry.backoff", self.retry.backoff),
            ("retry.max_backoff", self.retry.max_backoff),
            ("outage.hold", self.outage.hold.unwrap_or_default()),
            (
                "sticky.lifetime",
                self.sticky.as_ref().map_or(Millis(0), |s| s.lifetime),
            ),
        ] {
            if span > limits::LONGEST_SPAN {
                let longest = limits::LONGEST_SPAN.to_string();
                let reason = format!("is longer than {longest}");
                return Err(InvalidSpec::new(
                    format!("{field}.{part}"),
                    reason,
                    Some(&longest),
                ));
            }
        }
        Ok(())
    }
}

/// RFC 9110, 5.6.2: what names of headers and cookies are made of.
fn is_token(name: &str) -> bool {
    let ok = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    !name.is_empty() && name.len() <= limits::NAME_CHARS && name.chars().all(ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_an_empty_document_means_them() {
        let spec: BalanceSpec = serde_json::from_str("{}").expect("reads");
        assert_eq!(spec, BalanceSpec::default());
        assert_eq!(spec.validate("balance"), Ok(()));
    }

    #[test]
    fn policies_are_read_by_their_names() {
        for policy in BalancePolicy::ALL {
            let text = format!("{{\"policy\": \"{policy}\"}}");
            let spec: BalanceSpec = serde_json::from_str(&text).expect("reads");
            assert_eq!(spec.policy, policy);
        }
        let text = r#"{"policy": "maglev", "hash": {"header": "x-user"}, "sticky": {}}"#;
        let spec: BalanceSpec = serde_json::from_str(text).expect("reads");
        assert_eq!(spec.hash, HashKey::Header("x-user".to_owned()));
        assert_eq!(spec.sticky, Some(StickySpec::default()));
    }

    #[test]
    fn what_is_out_of_bounds_is_named() {
        for (text, field) in [
            (r#"{"hash": {"header": "x y"}}"#, "b.hash.header"),
            (r#"{"hash": {"cookie": ""}}"#, "b.hash.cookie"),
            (r#"{"sticky": {"cookie": "a;b"}}"#, "b.sticky.cookie"),
            (r#"{"bound_percent": 100}"#, "b.bound_percent"),
            (
                r#"{"ejection": {"max_percent": 101}}"#,
                "b.ejection.max_percent",
            ),
            (
                r#"{"ejection": {"statuses": [200, 599]}}"#,
                "b.ejection.statuses",
            ),
            (
                r#"{"ejection": {"time": "2m", "max_time": "1m"}}"#,
                "b.ejection.time",
            ),
            (r#"{"retry": {"attempts": 0}}"#, "b.retry.attempts"),
            (r#"{"slow_start": "900h"}"#, "b.slow_start"),
        ] {
            let spec: BalanceSpec = serde_json::from_str(text).expect(text);
            let error = spec.validate("b").expect_err(text);
            assert_eq!(error.field, field);
        }
    }
}
