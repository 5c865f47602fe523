//! Names a request that goes through pingora, and tells of it when it has ended.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use http::Version;
use http::header::{REFERER, USER_AGENT};
use pingora::Result;
use pingora::http::RequestHeader;
use pingora::protocols::l4::socket::SocketAddr as PingoraAddr;
use pingora::proxy::Session;

use super::answer::REASON_HEADER;
use super::balancer::host_of;
use crate::hub::{Hub, random_bits, wall_clock};
use crate::metrics::Traffic;
use crate::observe::{Entry, Named, REQUEST_ID, TRACEPARENT};

/// What the endpoint's side of a request was.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Told<'a> {
    pub begun: Option<Instant>,
    pub tls: bool,
    pub client: Option<IpAddr>,
    pub status: u16,
    pub traffic: Traffic,
    pub service: &'a str,
    pub route: &'a str,
    pub endpoint: Option<SocketAddr>,
    pub attempts: usize,
    pub first_byte: Option<Duration>,
}

/// Returns what a request is called from now on.
pub(super) fn name(hub: &Hub, session: &Session) -> Named {
    if !hub.naming.is_on() {
        return Named::default();
    }
    let headers = &session.req_header().headers;
    let said = |name: &str| headers.get(name).map(http::HeaderValue::as_bytes);
    hub.naming
        .name(said(REQUEST_ID), said(TRACEPARENT), random_bits)
}

/// Tells the endpoint what the request is called, where that is not what the client said.
pub(super) fn name_headers(upstream: &mut RequestHeader, named: &Named) -> Result<()> {
    if let Some(id) = named.new_id() {
        upstream.insert_header(REQUEST_ID, id)?;
    }
    if let Some(span) = named.span() {
        upstream.insert_header(TRACEPARENT, &span.traceparent()[..])?;
    }
    Ok(())
}

/// Tells of a request that has ended: to the access log and to the trace's collector, if either
/// wants to know.
pub(super) fn ended(hub: &Hub, session: &Session, named: &Named, told: &Told<'_>) {
    let logged = hub.log.wants_answered(random_bits(), told.status);
    let traced = named.span().is_some_and(crate::observe::Span::is_sampled);
    if !logged && !traced {
        return;
    }
    let head = session.req_header();
    let header = |name| {
        head.headers
            .get(name)
            .map_or(&b""[..], |value| value.as_bytes())
    };
    let peer = session.client_addr().and_then(PingoraAddr::as_inet);
    let client = told.client.or(peer.map(SocketAddr::ip));
    let reason = session
        .response_written()
        .and_then(|response| response.headers.get(REASON_HEADER))
        .filter(|_| told.endpoint.is_none() || told.status >= 500);
    let target = head
        .uri
        .path_and_query()
        .map_or("", |target| target.as_str());
    let took = told.begun.map(|begun| begun.elapsed()).unwrap_or_default();
    let micros = u64::try_from(took.as_micros()).unwrap_or(0);
    let mut at = wall_clock();
    at.0 = at.0.saturating_sub(micros);
    let entry = Entry {
        at,
        client: client.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |client| {
            client.to_canonical()
        }),
        tls: told.tls,
        method: head.method.as_str(),
        host: host_of(head),
        target,
        version: version(head.version),
        status: told.status,
        reason: reason.and_then(|text| text.to_str().ok()).unwrap_or(""),
        service: told.service,
        route: told.route,
        endpoint: told.endpoint,
        attempts: u32::try_from(told.attempts).unwrap_or(u32::MAX),
        traffic: told.traffic,
        took,
        first_byte: told.first_byte,
        user_agent: header(USER_AGENT),
        referer: header(REFERER),
        named,
    };
    if logged {
        hub.log.record(&entry);
    }
    if traced {
        hub.naming.ended(&entry);
    }
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_11 => "HTTP/1.1",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP",
    }
}
