//! What a request asks of a pool, and how it went.

use std::sync::Arc;

use crate::table::{Backend, Moment};

/// What a request asks of a pool.
#[derive(Debug, Clone, Copy)]
pub struct Want<'a> {
    /// 64 random bits: fresh ones for each try.
    pub random: u64,
    /// The moment.
    pub now: Moment,
    /// The hash of the key that the pool's policy looks at, if the request has one.
    pub hash: Option<u64>,
    /// The endpoint that the client's cookie names.
    pub sticky: Option<u64>,
    /// Endpoints that have failed this request.
    pub tried: &'a [Arc<Backend>],
}

impl<'a> Want<'a> {
    /// Returns the want of a request without key or cookie.
    pub const fn any(random: u64, now: Moment, tried: &'a [Arc<Backend>]) -> Self {
        Self {
            random,
            now,
            hash: None,
            sticky: None,
            tried,
        }
    }

    /// Returns the same for a request that has a key or a cookie.
    #[must_use]
    pub const fn with(self, affinity: Affinity) -> Self {
        let Affinity { hash, sticky } = affinity;
        Self {
            hash,
            sticky,
            ..self
        }
    }

    /// Whether it has failed at this endpoint.
    pub fn has_tried(&self, backend: &Arc<Backend>) -> bool {
        self.tried.iter().any(|other| Arc::ptr_eq(other, backend))
    }
}

/// What binds a request to an endpoint: see [`Want`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Affinity {
    /// The hash of its key ([`super::sticky::hash_of`]), if the pool's policy asks for one.
    pub hash: Option<u64>,
    /// What its cookie says ([`super::sticky::endpoint_in`]), if the pool sets one.
    pub sticky: Option<u64>,
}

/// Why no endpoint takes a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refused {
    /// None that it has not tried takes requests.
    #[error("no endpoint takes requests")]
    NoEndpoint,
    /// As much is under way as may be: waiting would only make it worse.
    #[error("{0}")]
    Overloaded(Overload),
}

/// Which limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Overload {
    /// `limits.requests`.
    #[error("too many requests in flight to the service")]
    Requests,
    /// `limits.endpoint_requests` or `limits.endpoint_connections`, at every endpoint.
    #[error("too many requests in flight to each endpoint")]
    Endpoints,
    /// `limits.pending`.
    #[error("too many requests wait for an endpoint")]
    Pending,
}

/// How a request ended, as far as it says something about its endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The endpoint answered.
    Status(u16),
    /// No connection was made.
    ConnectFailed,
    /// The connection broke before the response had ended.
    Reset,
    /// The endpoint took too long.
    Timeout,
    /// The client left, or something else ended it that is not the endpoint's doing.
    Cancelled,
}
