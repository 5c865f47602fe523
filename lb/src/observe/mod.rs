//! What the ingress says of single requests: access log, request id, trace.
//!
//! Everything here is off unless the configuration asks for it, and then costs a request one load
//! of a flag. What is asked for is swapped in whole at a reload.

mod line;
mod log;
mod names;
mod trace;
mod writer;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ballast_model::Timestamp;

pub use log::{AccessLog, LogConfig, LogCounters, LogTarget};
pub use names::{Named, Naming, RequestId};
pub use trace::{Span, TRACEPARENT_LEN};

use crate::metrics::Traffic;

/// The header that carries a request's id.
pub const REQUEST_ID: &str = "x-request-id";
/// The header that carries a request's place in a trace (W3C Trace Context).
pub const TRACEPARENT: &str = "traceparent";

/// A request that has ended, as it is told of.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// When its head had come.
    pub at: Timestamp,
    /// Who asked.
    pub client: IpAddr,
    /// Whether it came over TLS.
    pub tls: bool,
    /// The request's method.
    pub method: &'a str,
    /// `Host` or HTTP/2's authority.
    pub host: &'a str,
    /// Path and query as they came.
    pub target: &'a str,
    /// Such as `HTTP/1.1`.
    pub version: &'a str,
    /// What it was answered with; 499 if the client left before.
    pub status: u16,
    /// Why the ingress answered by itself, such as `no-route`; empty if an endpoint did.
    pub reason: &'a str,
    /// Whose it was; empty if no route matched.
    pub service: &'a str,
    /// The route's name; empty if it has none.
    pub route: &'a str,
    /// Who answered it, or failed to at last.
    pub endpoint: Option<SocketAddr>,
    /// Endpoints that were tried.
    pub attempts: u32,
    /// Bytes of bodies.
    pub traffic: Traffic,
    /// From the head to the end of the response.
    pub took: Duration,
    /// Until the head of the response had come from the endpoint that answered.
    pub first_byte: Option<Duration>,
    /// The request's `User-Agent`.
    pub user_agent: &'a [u8],
    /// The request's `Referer`.
    pub referer: &'a [u8],
    /// What it is called.
    pub named: &'a Named,
}

/// What the configuration asks for.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ObserveConfig {
    /// A line for each request, or for some.
    pub access_log: Option<LogConfig>,
    /// Whether each request gets an id, unless it has one.
    pub request_id: bool,
    /// Whether each request becomes a part of a trace, and how many of those that are not yet.
    pub traces: Option<TraceConfig>,
}

/// Where spans go, and how many.
#[derive(Debug, Clone, PartialEq)]
pub struct TraceConfig {
    /// The collector's `host:port`.
    pub collector: String,
    /// The share of requests without a trace that begin one, 0 to 1.
    pub sample: f64,
}

/// Returns a share (0 to 1) as a bound for 64 random bits: `random <= bound` with that chance, and
/// never for 0.
fn bound_of(share: f64) -> u64 {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a float's conversion saturates"
    )]
    let bound = (share * u64::MAX as f64) as u64;
    bound
}
