//! Which route a request takes, and what that route does with it.
//!
//! A core without clock, sockets or randomness of its own: both data paths hand in a
//! [`RequestView`] and get a [`Decision`]. The usual route (host and path prefix, nothing else)
//! allocates nothing.
//!
//! * `routing`, `paths`, `conditions`: which route it is
//! * `path`: the readings of a path that endpoints may have
//! * [`Route`]: what it does; `decide`: in which order
//! * `edits`, `target`, `cors`, `access`, `rate`, `key`: the parts of that
//! * [`compress`]: whether a response is compressed, and how
//!
//! Compression, mirroring and gRPC-web need a body that passes through pingora
//! ([`Route::needs_pingora`]).

mod access;
pub mod compress;
mod conditions;
mod cors;
mod decide;
mod edits;
mod key;
mod path;
mod paths;
mod rate;
mod routing;
mod rule;
mod target;

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;

pub use edits::Edits;
pub(crate) use key::client_bytes;
pub use routing::Routing;
pub use rule::Route;

use crate::l7::Entrance;
use crate::policy::Affinity;
use crate::table::Pool;

/// The fields of a request's header.
pub trait FieldLookup {
    /// Returns the value of the first field of this name, which is given in lower case.
    fn get(&self, name: &str) -> Option<&[u8]>;

    /// Calls `visit` with the value of each field of this name; the first only, unless the
    /// implementation knows better.
    fn each<'a>(&'a self, name: &str, visit: &mut dyn FnMut(&'a [u8])) {
        if let Some(value) = self.get(name) {
            visit(value);
        }
    }
}

/// What of a request decides where it goes.
#[derive(Clone, Copy)]
pub struct RequestView<'a> {
    /// How its connection came in.
    pub entrance: Entrance,
    /// Its method.
    pub method: &'a str,
    /// `Host` or HTTP/2's authority, with a port if it has one.
    pub host: &'a str,
    /// The path as it came.
    pub path: &'a str,
    /// What follows the question mark.
    pub query: Option<&'a str>,
    /// Its header.
    pub fields: &'a dyn FieldLookup,
    /// Who asks.
    pub client: IpAddr,
    /// Whether the client's side is encrypted.
    pub tls: bool,
}

/// The header of a request that has none.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoFields;

impl FieldLookup for NoFields {
    fn get(&self, _name: &str) -> Option<&[u8]> {
        None
    }
}

impl<'a> RequestView<'a> {
    /// Returns the view of a request of which only this is known.
    pub const fn bare(host: &'a str, path: &'a str) -> Self {
        Self {
            entrance: Entrance::Shared,
            method: "GET",
            host,
            path,
            query: None,
            fields: &NoFields,
            client: IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
            tls: false,
        }
    }
}

impl std::fmt::Debug for RequestView<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RequestView")
            .field("entrance", &self.entrance)
            .field("method", &self.method)
            .field("host", &self.host)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// What becomes of a request.
#[derive(Debug)]
pub enum Decision<'t> {
    /// It goes to an endpoint.
    Forward(Forward<'t>),
    /// The ingress answers itself.
    Answer(Answer),
    /// No route matches.
    NoRoute,
}

/// Where a request goes.
#[derive(Debug)]
pub struct Forward<'t> {
    /// Whose endpoints.
    pub pool: &'t Arc<Pool>,
    /// What is done on the way.
    pub route: &'t Arc<Route>,
    /// Path and query towards the endpoint, if they differ from what came.
    pub target: Option<String>,
    /// What binds it to an endpoint of the pool.
    pub affinity: Affinity,
    /// Who gets a copy.
    pub mirror: Option<&'t Arc<Pool>>,
    /// The origin that may read the response; handed to [`Route::response_fields`].
    pub origin: Option<String>,
}

/// An answer of the ingress's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its header, without `content-length`.
    pub fields: Vec<(String, String)>,
    /// Its body.
    pub body: Bytes,
}

impl Answer {
    /// Returns a small problem document (RFC 9457) with a code that tells why.
    pub fn problem(status: u16, code: &str, title: &str) -> Self {
        let body = format!(
            "{{\"type\":\"about:blank\",\"title\":\"{title}\",\"status\":{status},\"reason\":\"{code}\"}}\n"
        );
        let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        Self {
            status,
            fields: vec![
                field("content-type", "application/problem+json"),
                field("cache-control", "no-store"),
                field(crate::l7::REASON_HEADER, code),
            ],
            body: body.into(),
        }
    }

    /// The same with one more field.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.fields.push((name.to_owned(), value.into()));
        self
    }
}

#[cfg(test)]
mod tests;
