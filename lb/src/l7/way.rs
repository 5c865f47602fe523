//! What a route does to a request on its way through pingora.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use http::header::{CONTENT_LENGTH, HeaderName, SET_COOKIE};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::l4::socket::SocketAddr as PingoraAddr;
use pingora::proxy::Session;
use pingora::{Error, ErrorType, Result};

use super::balancer::host_of;
use super::front::Entrance;
use crate::policy::{Affinity, sticky};
use crate::route::{Answer, FieldLookup, Forward, RequestView, Route};
use crate::table::{Backend, Pool};

/// Where a request goes; outlives the table that decided it.
#[derive(Debug, Default)]
pub(super) struct Way {
    pub route: Arc<Route>,
    pub target: Option<String>,
    pub origin: Option<String>,
    pub affinity: Affinity,
    pub mirror: Option<Arc<Pool>>,
}

impl From<Forward<'_>> for Way {
    fn from(forward: Forward<'_>) -> Self {
        Self {
            route: Arc::clone(forward.route),
            target: forward.target,
            origin: forward.origin,
            affinity: forward.affinity,
            mirror: forward.mirror.cloned(),
        }
    }
}

impl Way {
    /// Refuses what is larger than the route takes.
    ///
    /// # Errors
    /// The answer.
    pub fn admits(&self, head: &RequestHeader) -> Result<(), Answer> {
        if self.route.max_head.is_some() {
            let size = |(name, value): (&HeaderName, &http::HeaderValue)| {
                // As HTTP/1.1 writes them: `name: value` and the end of the line.
                name.as_str().len() + value.len() + 4
            };
            let bytes: usize = head.headers.iter().map(size).sum();
            self.route.admits_head(bytes as u64)?;
        }
        let declared = head.headers.get(CONTENT_LENGTH);
        let declared = declared.and_then(|value| value.to_str().ok()?.parse().ok());
        self.route.admits_body(declared.unwrap_or(0))
    }

    /// Changes the head that goes to the endpoint.
    pub fn change_request(&self, upstream: &mut RequestHeader) -> Result<()> {
        if let Some(target) = &self.target {
            let uri = target.parse().map_err(|_| {
                Error::explain(
                    ErrorType::HTTPStatus(400),
                    "the rewritten target is no target",
                )
            })?;
            upstream.set_uri(uri);
        }
        for name in self.route.request.dropped() {
            upstream.remove_header(name);
        }
        for (name, value) in self.route.request.added() {
            upstream.append_header(name.to_owned(), value)?;
        }
        Ok(())
    }

    /// Names the endpoint in the client's cookie, if the service wants that and it is another one
    /// than the client came with.
    pub fn stick(
        &self,
        response: &mut ResponseHeader,
        (pool, backend): (&Pool, &Backend),
        tls: bool,
    ) -> Result<()> {
        let endpoint = backend.cookie();
        if let Some(spec) = pool.sticky()
            && self.affinity.sticky != Some(endpoint)
        {
            response.append_header(SET_COOKIE, sticky::set_cookie(spec, endpoint, tls))?;
        }
        Ok(())
    }

    /// Changes the head that goes to the client.
    pub fn change_response(&self, response: &mut ResponseHeader) -> Result<()> {
        if self.route.leaves_response() {
            return Ok(());
        }
        let names = response.headers.keys();
        let dropped: Vec<HeaderName> = names
            .filter(|name| !self.route.keeps_response_field(name.as_str().as_bytes()))
            .cloned()
            .collect();
        for name in dropped {
            response.remove_header(&name);
        }
        let mut result = Ok(());
        let origin = self.origin.as_deref();
        self.route.response_fields(origin, &mut |name, value| {
            if let Err(error) = response.append_header(name.to_owned(), value) {
                result = Err(error);
            }
        });
        result
    }
}

/// Fields of a header of pingora's.
pub(super) struct HeaderFields<'a>(pub &'a RequestHeader);

impl FieldLookup for HeaderFields<'_> {
    fn get(&self, name: &str) -> Option<&[u8]> {
        self.0.headers.get(name).map(http::HeaderValue::as_bytes)
    }

    fn each<'a>(&'a self, name: &str, visit: &mut dyn FnMut(&'a [u8])) {
        for value in self.0.headers.get_all(name) {
            visit(value.as_bytes());
        }
    }
}

/// Returns the view of a request.
pub(super) fn view<'a>(
    session: &'a Session,
    fields: &'a HeaderFields<'a>,
    entrance: Entrance,
) -> RequestView<'a> {
    let head = session.req_header();
    let client = session.client_addr().and_then(PingoraAddr::as_inet);
    RequestView {
        entrance,
        method: head.method.as_str(),
        host: host_of(head),
        path: head.uri.path(),
        query: head.uri.query(),
        fields,
        client: client.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), SocketAddr::ip),
        tls: entrance == Entrance::SharedTls,
    }
}
