//! Routes: which requests they match and what is done with them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Bytes, Millis};

/// A route on the ingresses' shared HTTP listeners. The most exact host wins, then the most exact
/// path (whole path, template, longest prefix), then the one with more conditions in `when`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteSpec {
    /// Exact host name, `*.example.test`, or none for any.
    #[serde(default)]
    pub host: Option<String>,
    /// Matches whole path segments.
    #[serde(default = "root")]
    #[schema(example = "/")]
    pub path_prefix: String,
    /// The port's name; the service's first HTTP port if not given.
    #[serde(default)]
    pub port: Option<String>,
    /// What else a request must be like.
    #[serde(default)]
    pub when: RouteMatch,
    /// What is done with it besides forwarding.
    #[serde(default)]
    pub then: RouteActions,
}

fn root() -> String {
    "/".to_owned()
}

impl RouteSpec {
    /// Returns a route of a host and a path prefix, without anything else.
    pub fn new(host: Option<String>, path_prefix: impl Into<String>) -> Self {
        Self {
            host,
            path_prefix: path_prefix.into(),
            port: None,
            when: RouteMatch::default(),
            then: RouteActions::default(),
        }
    }
}

/// A route as an ingress is told of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RouteRule {
    /// Exact host, `*.suffix`, or none for any.
    pub host: Option<String>,
    /// Matches whole path segments.
    pub path_prefix: String,
    /// What else a request must be like.
    pub when: RouteMatch,
    /// What is done with it besides forwarding.
    pub then: RouteActions,
}

impl RouteRule {
    /// Returns a rule of a host and a path prefix, without anything else.
    pub fn new(host: Option<String>, path_prefix: impl Into<String>) -> Self {
        Self {
            host,
            path_prefix: path_prefix.into(),
            when: RouteMatch::default(),
            then: RouteActions::default(),
        }
    }
}

/// What a request must be like besides its host and path prefix: all of it.
#[derive(
    Debug,
    Clone,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
#[serde(default, deny_unknown_fields)]
pub struct RouteMatch {
    /// The whole path instead of a prefix: `/login`, or a template, in which `{name}` stands for
    /// one segment and `{name*}`, at the end, for all that is left.
    #[schema(example = "/users/{id}/posts")]
    pub path: Option<String>,
    /// One of these methods; any if empty.
    pub methods: Vec<String>,
    /// Header fields.
    pub headers: Vec<FieldMatch>,
    /// Parameters of the query.
    pub query: Vec<FieldMatch>,
    /// Cookies.
    pub cookies: Vec<FieldMatch>,
}

/// What a header field, query parameter or cookie must be like. With a name alone, it must be
/// there.
#[derive(
    Debug,
    Clone,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
#[serde(default, deny_unknown_fields)]
pub struct FieldMatch {
    /// Its name; that of a header field in any case.
    pub name: String,
    /// It has this value.
    pub exact: Option<String>,
    /// It begins like this.
    pub prefix: Option<String>,
    /// It must not be there.
    pub absent: bool,
}

/// What is done with a request, and with its response. In this order: maintenance, IP lists,
/// CORS preflight, authentication, rate limit, redirect, limits, split, rewrite, header changes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RouteActions {
    /// Another path or host towards the endpoint.
    pub rewrite: Option<Rewrite>,
    /// Answers with a redirect.
    pub redirect: Option<Redirect>,
    /// Changes of the request's header.
    pub request_headers: HeaderEdits,
    /// Changes of the response's header.
    pub response_headers: HeaderEdits,
    /// Shares of the requests that go to other services.
    pub split: Split,
    /// Copies requests to another service, whose answers are thrown away.
    pub mirror: Option<Mirror>,
    /// How many requests a client may send.
    pub rate_limit: Option<RateLimit>,
    /// How large requests may be.
    pub limits: RouteLimits,
    /// Who may ask.
    pub access: Access,
    /// Compresses responses for clients that take it.
    pub compression: Option<Compression>,
    /// Lets scripts of other origins ask.
    pub cors: Option<Cors>,
    /// Answers everything with this, such as a notice of maintenance.
    pub maintenance: Option<FixedAnswer>,
    /// Answers with this if no endpoint takes requests.
    pub fallback: Option<FixedAnswer>,
    /// How long things may take; the ingress's own where not given.
    pub timeouts: RouteTimeouts,
    /// Translates gRPC-web to gRPC.
    pub grpc_web: bool,
}

/// Another path or host towards the endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Rewrite {
    /// Takes the place of the matched prefix.
    #[schema(example = "/v2")]
    pub prefix: Option<String>,
    /// Takes the place of the whole path; may name what a template matched.
    #[schema(example = "/accounts/{id}")]
    pub path: Option<String>,
    /// The `Host` that the endpoint sees.
    pub host: Option<String>,
}

/// An answer that sends the client elsewhere. What is not given stays as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    /// `http` or `https`.
    pub scheme: Option<String>,
    /// Another host.
    pub host: Option<String>,
    /// Another port.
    pub port: Option<u16>,
    /// Takes the place of the matched prefix.
    pub prefix: Option<String>,
    /// Takes the place of the whole path; may name what a template matched.
    pub path: Option<String>,
}

impl Default for Redirect {
    fn default() -> Self {
        Self {
            status: 308,
            scheme: None,
            host: None,
            port: None,
            prefix: None,
            path: None,
        }
    }
}

/// Changes of a header: what is removed, then what is set, then what is added.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HeaderEdits {
    /// Fields that take the place of those that came.
    pub set: BTreeMap<String, String>,
    /// Fields beside those that came.
    pub add: BTreeMap<String, String>,
    /// Fields that are dropped.
    pub remove: Vec<String>,
}

/// How requests are shared out between services.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Split {
    /// The services and their shares; the route's own service counts only if it is among them.
    /// All to the route's own if empty.
    pub to: Vec<SplitTarget>,
    /// What keeps a client with one service; each request is drawn anew if not given.
    pub by: Option<RequestKey>,
}

/// One share.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SplitTarget {
    /// The service's name; its first HTTP port is meant.
    pub service: String,
    /// Its share of the sum of all weights.
    pub weight: u32,
}

/// What of a request tells clients apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RequestKey {
    /// The client's address.
    Client,
    /// A header field.
    Header(String),
    /// A cookie.
    Cookie(String),
    /// A parameter of the query.
    Query(String),
    /// The path.
    Path,
    /// The host.
    Host,
}

/// Copies of requests without those who wait for the answers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Mirror {
    /// The service that gets them; its first HTTP port is meant.
    pub service: String,
    /// How many of a hundred requests.
    #[serde(default = "all")]
    pub percent: u8,
}

fn all() -> u8 {
    100
}

/// A token bucket for each client.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// Requests in each `per`.
    pub requests: u32,
    /// The span; a second if not given.
    #[serde(default = "second")]
    #[schema(value_type = String, example = "1s")]
    pub per: Millis,
    /// Requests at once after a pause; `requests` if not given.
    #[serde(default)]
    pub burst: Option<u32>,
    /// What tells clients apart; their address if not given.
    #[serde(default = "client")]
    pub by: RequestKey,
}

fn second() -> Millis {
    Millis::from_secs(1)
}

fn client() -> RequestKey {
    RequestKey::Client
}

/// How large a request may be.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RouteLimits {
    /// Bytes of the body; past it 413.
    #[schema(value_type = Option<String>, example = "10m")]
    pub body: Option<Bytes>,
    /// Bytes of all header fields; past it 431.
    #[schema(value_type = Option<String>, example = "16k")]
    pub head: Option<Bytes>,
}

/// Who may ask.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Access {
    /// Networks such as `10.0.0.0/8`; if not empty, only clients in one of them may ask.
    pub allow: Vec<String>,
    /// Networks whose clients may not ask, even if `allow` has them.
    pub deny: Vec<String>,
    /// A user name and a password are asked for.
    pub basic: Option<BasicAuth>,
}

/// User names and passwords (RFC 7617).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BasicAuth {
    /// What the client's browser shows.
    pub realm: String,
    /// User names, each with `sha256:SALT:HEX`, the hex digest of the salt followed by the
    /// password.
    pub users: BTreeMap<String, String>,
}

/// Which responses are compressed, and how.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Compression {
    /// What is offered, the preferred first.
    pub algorithms: Vec<CompressionAlgorithm>,
    /// Shorter bodies are left as they are.
    #[schema(value_type = String, example = "1k")]
    pub min_bytes: Bytes,
    /// Media types, such as `text/*`; the usual text formats if empty.
    pub types: Vec<String>,
}

impl Default for Compression {
    fn default() -> Self {
        Self {
            algorithms: vec![
                CompressionAlgorithm::Zstd,
                CompressionAlgorithm::Brotli,
                CompressionAlgorithm::Gzip,
            ],
            min_bytes: Bytes(1024),
            types: Vec::new(),
        }
    }
}

/// A content coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CompressionAlgorithm {
    /// `gzip`.
    Gzip,
    /// `br`.
    Brotli,
    /// `zstd`.
    Zstd,
}

/// Cross-origin requests (the Fetch standard).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Cors {
    /// `https://app.example.test`, `https://*.example.test`, or `*`.
    pub origins: Vec<String>,
    /// Methods besides GET, HEAD and POST.
    pub methods: Vec<String>,
    /// Header fields that a script may send; those it asks for if empty.
    pub headers: Vec<String>,
    /// Header fields that a script may read.
    pub expose: Vec<String>,
    /// Whether cookies and the like are sent.
    pub credentials: bool,
    /// How long a browser may remember; its own default if not given.
    #[schema(value_type = Option<String>, example = "10m")]
    pub max_age: Option<Millis>,
}

/// An answer of the ingress's own.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FixedAnswer {
    /// Its status.
    pub status: u16,
    /// Its media type.
    pub content_type: String,
    /// Its body.
    pub body: String,
    /// Further header fields, such as `retry-after`.
    pub headers: BTreeMap<String, String>,
}

impl Default for FixedAnswer {
    fn default() -> Self {
        Self {
            status: 503,
            content_type: "text/plain; charset=utf-8".to_owned(),
            body: String::new(),
            headers: BTreeMap::new(),
        }
    }
}

/// How long things of one route may take; the ingress's own limit where not given.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(default, deny_unknown_fields)]
pub struct RouteTimeouts {
    /// Until an endpoint has accepted a connection.
    #[schema(value_type = Option<String>, example = "1s")]
    pub connect: Option<Millis>,
    /// Between two reads from an endpoint.
    #[schema(value_type = Option<String>, example = "1m")]
    pub read: Option<Millis>,
    /// Until an endpoint has taken what is written.
    #[schema(value_type = Option<String>, example = "30s")]
    pub write: Option<Millis>,
    /// From the start of one attempt to its response's head.
    #[schema(value_type = Option<String>, example = "5s")]
    pub attempt: Option<Millis>,
    /// From the request's head to the response's end.
    #[schema(value_type = Option<String>, example = "1h")]
    pub whole: Option<Millis>,
    /// After so long without a response, an idempotent request is sent to a second endpoint as
    /// well, and the first to answer wins. Each takes one from the budget of the retries.
    #[schema(value_type = Option<String>, example = "50ms")]
    pub hedge: Option<Millis>,
}
