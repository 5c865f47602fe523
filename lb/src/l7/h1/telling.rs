//! Tells of single requests: to the access log, and to the collector of spans.

use std::net::IpAddr;

use ballast_http1::{KnownField, Request};

use super::machine::{Ended, Story};
use crate::hub::{Hub, random_bits, wall_clock};
use crate::observe::{Entry, Named, Span};

/// Names a request, and keeps what will be told of it. None if nobody wants to know.
pub fn begin(hub: &Hub, request: &Request<'_>, client: IpAddr, tls: bool) -> Option<Box<Story>> {
    /// A status that is told of if any failure is.
    const FAILURE: u16 = 503;
    let named = hub.naming.is_on();
    let random = random_bits();
    if !named && !hub.log.wants_answered(random, FAILURE) {
        return None;
    }
    let named = if named {
        let fields = request.fields();
        let id = fields.known(KnownField::XRequestId);
        let parent = fields.known(KnownField::Traceparent);
        hub.naming.name(id, parent, random_bits)
    } else {
        Named::default()
    };
    let story = Story::new(request, (client, tls), random, named);
    Some(Box::new(story))
}

/// Tells of a request that has ended.
pub fn end(hub: &Hub, service: &str, ended: &Ended, story: &Story) {
    let logged = hub.log.wants_answered(story.random, ended.status);
    let traced = story.named.span().is_some_and(Span::is_sampled);
    if !logged && !traced {
        return;
    }
    let mut at = wall_clock();
    let took = u64::try_from(ended.took.as_micros()).unwrap_or(0);
    at.0 = at.0.saturating_sub(took);
    let entry = Entry {
        at,
        client: story.client,
        tls: story.tls,
        method: &story.method,
        host: &story.host,
        target: &story.target,
        version: story.version,
        status: ended.status,
        reason: ended.reason,
        service,
        route: "",
        endpoint: ended.endpoint,
        attempts: u32::try_from(ended.attempts).unwrap_or(u32::MAX),
        traffic: ended.traffic,
        took: ended.took,
        first_byte: ended.first_byte,
        user_agent: &story.user_agent,
        referer: &story.referer,
        named: &story.named,
    };
    if logged {
        hub.log.record(&entry);
    }
    if traced {
        hub.naming.ended(&entry);
    }
}
