//! Heads as they are written: requests to endpoints, answers to clients, and answers of our own.

use std::convert::Infallible;
use std::net::IpAddr;

use ballast_http1::{BodyLength, KnownField, Refusal, Request, Response, render};

use super::shell::Asked;
use super::way::Way;
use crate::l7::answer::{REASON_HEADER, Reason};
use crate::l7::forwarded::{Forwarding, Seen, Sink};
use crate::observe::{Named, REQUEST_ID, TRACEPARENT};
use crate::route::{Answer, Edits};

/// What an endpoint is told about the client.
#[derive(Debug, Clone, Copy)]
pub struct Client<'a> {
    /// Who is connected.
    pub peer: IpAddr,
    /// Whether it came over TLS.
    pub tls: bool,
    /// Who is believed about clients.
    pub forwarding: &'a Forwarding,
    /// What the request is called, if it is.
    pub named: Option<&'a Named>,
    /// The service that it asks: the host of a request that names none.
    pub service: &'a str,
}

/// What the client's connection asks of a head.
#[derive(Debug, Clone, Copy)]
pub struct Towards {
    /// It may serve another request.
    pub keep: bool,
    /// It speaks HTTP/1.0.
    pub old: bool,
    /// The body goes in chunks.
    pub chunked: bool,
    /// It speaks another protocol from here on.
    pub upgrade: bool,
}

impl Towards {
    /// After both sides agreed on another protocol.
    pub fn upgraded() -> Self {
        Self {
            keep: true,
            old: false,
            chunked: false,
            upgrade: true,
        }
    }
}

/// An answer of our own.
#[derive(Debug, Clone, Copy)]
pub struct Own {
    /// Why.
    pub reason: Reason,
    /// It answers a HEAD.
    pub bodiless: bool,
    /// The connection stays.
    pub keep: bool,
}

impl Own {
    /// The last answer on its connection.
    pub fn last(reason: Reason) -> Self {
        Self {
            reason,
            bodiless: false,
            keep: false,
        }
    }
}

/// Appends the head with which a request goes to an endpoint: as it came, but for what was meant
/// for this hop alone, and for what the endpoint must know of the client.
pub fn write_request(out: &mut Vec<u8>, asked: &Asked<'_>, client: Client<'_>, way: &Way) {
    let request = asked.request;
    write_request_line(out, request, way);
    let host = request.host();
    let new_id = client.named.and_then(Named::new_id);
    let span = client.named.and_then(Named::span);
    let mut has_host = false;
    let edits = way.route.as_ref().map(|route| &route.request);
    let kept = |name: &[u8]| edits.is_none_or(|edits| edits.keeps(name));
    request.fields().copy_kept(out, |field| match field.known {
        _ if !kept(field.name) => {
            has_host |= field.known == Some(KnownField::Host);
            false
        }
        Some(
            KnownField::Forwarded
            | KnownField::XForwardedFor
            | KnownField::XForwardedHost
            | KnownField::XForwardedPort
            | KnownField::XForwardedProto
            | KnownField::XRealIp,
        ) => false,
        // What the connection's own fields name is taken out, but never the host.
        Some(KnownField::Host) => {
            has_host = true;
            true
        }
        Some(KnownField::XRequestId) => new_id.is_none(),
        Some(KnownField::Traceparent) => span.is_none(),
        _ => !field.hop_by_hop,
    });
    if !has_host {
        // HTTP/1.1 wants one, and many take an empty one for none; an HTTP/1.0 client need not have
        // sent it.
        let host = if host.is_empty() {
            client.service
        } else {
            host
        };
        render::field(out, "host", host.as_bytes());
    }
    if request.body() == BodyLength::Chunked {
        render::chunked(out);
    }
    if let Some(protocol) = request.upgrade() {
        out.extend_from_slice(b"connection: upgrade\r\n");
        render::field(out, "upgrade", protocol.as_bytes());
    }
    if let Some(id) = new_id {
        render::field(out, REQUEST_ID, id);
    }
    if let Some(span) = span {
        render::field(out, TRACEPARENT, &span.traceparent()[..]);
    }
    let seen = Seen {
        peer: client.peer,
        tls: client.tls,
        host,
    };
    let told = client.forwarding.tell(&seen, asked, &mut Lines(out));
    match told {
        Ok(()) => {}
        Err(never) => match never {},
    }
    for (name, value) in edits.into_iter().flat_map(Edits::added) {
        render::field(out, name, value.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

/// A head as it goes over the wire.
struct Lines<'a>(&'a mut Vec<u8>);

impl Sink for Lines<'_> {
    type Error = Infallible;

    fn field(
        &mut self,
        name: &'static str,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), Infallible> {
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b": ");
        write(self.0);
        self.0.extend_from_slice(b"\r\n");
        Ok(())
    }
}

fn write_request_line(out: &mut Vec<u8>, request: &Request<'_>, way: &Way) {
    out.extend_from_slice(request.method().as_str().as_bytes());
    out.push(b' ');
    let target = way.target.as_deref().unwrap_or(request.target());
    if target.starts_with('/') || target == "*" {
        out.extend_from_slice(target.as_bytes());
    } else {
        // The absolute form is for proxies; its authority is the host.
        out.extend_from_slice(request.path().as_bytes());
        if let Some(query) = request.query() {
            out.push(b'?');
            out.extend_from_slice(query.as_bytes());
        }
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
}

/// Whether the head of an answer has nothing that is meant for this hop alone. How its body is
/// framed stays as it is.
pub fn is_end_to_end(response: &Response<'_>) -> bool {
    let mut fields = response.fields().iter();
    fields.all(|field| !field.hop_by_hop || field.known == Some(KnownField::TransferEncoding))
}

/// Appends the head with which an answer goes to the client.
pub fn write_response(
    out: &mut Vec<u8>,
    response: &Response<'_>,
    towards: Towards,
    way: &Way,
    cookie: Option<&str>,
) {
    let route = way.route.as_deref().filter(|_| !way.leaves_response());
    render::status_line(out, response.status(), response.reason());
    response.fields().copy_kept(out, |field| {
        let passes =
            !field.hop_by_hop || towards.upgrade && field.known == Some(KnownField::Upgrade);
        passes && route.is_none_or(|route| route.keeps_response_field(field.name))
    });
    if let Some(route) = route {
        route.response_fields(way.origin.as_deref(), &mut |name, value| {
            render::field(out, name, value.as_bytes());
        });
    }
    if let Some(cookie) = cookie {
        render::field(out, "set-cookie", cookie.as_bytes());
    }
    if towards.chunked {
        render::chunked(out);
    }
    out.extend_from_slice(match towards {
        Towards { upgrade: true, .. } => b"connection: upgrade\r\n".as_slice(),
        Towards { keep: false, .. } => b"connection: close\r\n",
        Towards { old: true, .. } => b"connection: keep-alive\r\n",
        _ => b"",
    });
    out.extend_from_slice(b"\r\n");
}

/// Appends an answer of our own.
pub fn write_own(out: &mut Vec<u8>, own: Own) {
    let reason = own.reason;
    let body = reason.body();
    write_problem(out, reason.status(), reason.code(), own.keep, &body);
    if own.bodiless {
        out.truncate(out.len() - body.len());
    }
}

/// Appends an answer that a route gives.
pub fn write_answer(out: &mut Vec<u8>, answer: &Answer, keep: bool, bodiless: bool) {
    /// Such an answer has no length: it has no body.
    const NO_CONTENT: u16 = 204;
    let reason = render::reason(answer.status);
    render::status_line(out, answer.status, reason.as_bytes());
    for (name, value) in &answer.fields {
        render::field(out, name, value.as_bytes());
    }
    if answer.status != NO_CONTENT {
        render::content_length(out, answer.body.len() as u64);
    }
    if !keep {
        render::field(out, "connection", b"close");
    }
    out.extend_from_slice(b"\r\n");
    if !bodiless && answer.status != NO_CONTENT {
        out.extend_from_slice(&answer.body);
    }
}

/// Appends the answer to what cannot be read.
pub fn write_refusal(out: &mut Vec<u8>, refusal: Refusal) {
    let status = refusal.status();
    let body = format!(
        "{{\"type\":\"about:blank\",\"title\":\"the request is not valid HTTP\",\"status\":{status},\
         \"reason\":\"{}\",\"rule\":\"{}\"}}\n",
        Reason::BadRequest.code(),
        refusal.code(),
    );
    write_problem(out, status, Reason::BadRequest.code(), false, &body);
}

fn write_problem(out: &mut Vec<u8>, status: u16, code: &str, keep: bool, body: &str) {
    render::status_line(out, status, render::reason(status).as_bytes());
    render::field(out, "content-type", b"application/problem+json");
    render::content_length(out, body.len() as u64);
    render::field(out, "cache-control", b"no-store");
    render::field(out, REASON_HEADER, code.as_bytes());
    if status == Reason::NoEndpoint.status() {
        render::field(out, "retry-after", b"1");
    }
    if !keep {
        render::field(out, "connection", b"close");
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(body.as_bytes());
}
