//! What a user asks for: a [`ServiceSpec`] and its parts.
//!
//! The same types are the API's JSON, the body of a Raft command and what an agent is sent, so
//! they use no serde attribute that a positional format cannot carry (no `flatten`, `untagged`,
//! internal tags or `skip_serializing_if`).
//! `validate` proves a spec once, at the API; behind it every field holds.

mod access;
mod balance;
mod constraint;
mod placement;
mod port;
mod probe;
mod reservation;
mod restart;
mod route;
mod route_rules;
mod rule_text;
mod service;
mod template;
mod update;
mod upstream;
mod validate;

pub use access::{InvalidDigest, InvalidNetwork, Network, PasswordDigest};
pub use balance::{
    BalanceLimits, BalancePolicy, BalanceSpec, BoundPercent, EjectionSpec, HashKey, OutageSpec,
    RetrySpec, StickySpec, ZoneSpec,
};
pub use constraint::{
    CompareOp, Condition, Constraint, Contradiction, InvalidConstraint, NodeKey, Quantity, Version,
    VersionBound, contradiction,
};
pub use placement::{
    Affinity, InvalidPolicy, Placement, Policy, ServiceAffinity, SpreadRule, Toleration,
    TopologyKey,
};
pub use port::{InvalidPublish, PortSpec, Protocol, Target};
pub use probe::{HealthCheck, ProbeKind};
pub use restart::{RestartCondition, RestartPolicy};
pub use route::{
    Access, BasicAuth, Compression, CompressionAlgorithm, Cors, FieldMatch, FixedAnswer,
    HeaderEdits, Mirror, RateLimit, Redirect, RequestKey, Rewrite, RouteActions, RouteLimits,
    RouteMatch, RouteRule, RouteSpec, RouteTimeouts, Split, SplitTarget,
};
pub use route_rules::validate_route;
pub use rule_text::InvalidRule;
pub use service::{Mode, ServiceSpec, StopPolicy, TaskTemplate, Ulimit};
pub use template::{InvalidTemplate, PathTemplate, TEMPLATE_NAMES, fill};
pub use update::{UpdateFailureAction, UpdateOrder, UpdatePolicy};
pub use upstream::{ProxyVersion, UpstreamSpec, UpstreamTlsSpec};
pub use validate::{InvalidSpec, validate, validate_name};
