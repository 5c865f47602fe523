//! What one route does.

use std::sync::Arc;
use std::time::Duration;

use ballast_model::{Compression, FixedAnswer, Millis, PathTemplate, RouteRule, RouteTimeouts};
use bytes::Bytes;

use super::access::Gate;
use super::cors::CorsRules;
use super::rate::Limiter;
use super::target::{Elsewhere, NewPath};
use super::{Answer, Edits};
use crate::l7::Timeouts;

/// What one route does, ready for use. Lives as long as its rule is in the tables: rate limits
/// remember.
#[derive(Debug)]
pub struct Route {
    /// Its host and path, for logs.
    pub name: Arc<str>,
    /// Changes of the request's header.
    pub request: Edits,
    /// Changes of the response's header; [`Route::response_fields`] gives what is added.
    pub response: Edits,
    /// Bytes of a body at most.
    pub max_body: Option<u64>,
    /// Bytes of a header at most.
    pub max_head: Option<u64>,
    /// How responses are compressed.
    pub compression: Option<Compression>,
    /// Whether gRPC-web is translated.
    pub grpc_web: bool,
    /// Until the response's head, in each attempt.
    pub attempt: Option<Duration>,
    /// Until a second endpoint is asked as well.
    pub hedge: Option<Duration>,
    pub(super) maintenance: Option<Answer>,
    pub(super) gate: Option<Gate>,
    pub(super) cors: Option<CorsRules>,
    pub(super) rate: Option<Limiter>,
    pub(super) redirect: Option<Elsewhere>,
    pub(super) rewrite: Option<NewPath>,
    /// Of a hundred requests, how many are copied.
    pub(super) mirrored: u8,
    /// Whether nothing is asked before a request is forwarded.
    pub(super) open: bool,
    fallback: Option<Answer>,
    rule: RouteRule,
}

impl PartialEq for Route {
    fn eq(&self, other: &Self) -> bool {
        self.rule == other.rule
    }
}

impl Default for Route {
    fn default() -> Self {
        Self::new(RouteRule::new(None, "/"))
    }
}

impl Route {
    /// Makes it of a rule that was proven.
    pub fn new(rule: RouteRule) -> Self {
        let then = &rule.then;
        let parsed = |text: &String| text.parse::<PathTemplate>().ok();
        let template = rule.when.path.as_ref().and_then(parsed);
        let matched = &rule.path_prefix;
        let rewritten = then.rewrite.as_ref();
        let mut route = Self {
            name: name_of(&rule),
            request: Edits::new(&then.request_headers),
            response: Edits::new(&then.response_headers),
            max_body: then.limits.body.map(|bytes| bytes.0),
            max_head: then.limits.head.map(|bytes| bytes.0),
            compression: then.compression.clone(),
            grpc_web: then.grpc_web,
            attempt: then.timeouts.attempt.map(Millis::to_duration),
            hedge: then.timeouts.hedge.map(Millis::to_duration),
            maintenance: then.maintenance.as_ref().map(fixed),
            gate: Gate::new(&then.access),
            cors: then.cors.as_ref().map(CorsRules::new),
            rate: then.rate_limit.as_ref().map(Limiter::new),
            redirect: then
                .redirect
                .as_ref()
                .map(|spec| Elsewhere::new(spec, matched, template.as_ref())),
            rewrite: rewritten.and_then(|new| {
                let (prefix, path) = (new.prefix.as_ref(), new.path.as_ref());
                NewPath::new(matched, template.as_ref(), prefix, path)
            }),
            mirrored: then.mirror.as_ref().map_or(0, |mirror| mirror.percent),
            open: false,
            fallback: then.fallback.as_ref().map(fixed),
            rule: rule.clone(),
        };
        if let Some(host) = rewritten.and_then(|new| new.host.as_ref()) {
            route.request.set("host", host);
        }
        if route.gate.as_ref().is_some_and(Gate::asks_password) {
            // Endpoints have no use for the password, and may log it.
            route.request.drop("authorization");
        }
        route.open = route.maintenance.is_none()
            && route.gate.is_none()
            && route.cors.is_none()
            && route.rate.is_none()
            && route.redirect.is_none();
        route
    }

    /// Returns the rule that it was made of.
    pub const fn rule(&self) -> &RouteRule {
        &self.rule
    }

    /// Whether its requests must go through pingora.
    pub const fn needs_pingora(&self) -> bool {
        self.compression.is_some() || self.grpc_web || self.mirrored > 0
    }

    /// Whether it only forwards: heads and bodies pass as on any route.
    pub fn is_plain(&self) -> bool {
        self.open
            && !self.needs_pingora()
            && self.rewrite.is_none()
            && self.request.is_empty()
            && self.leaves_response()
            && self.max_body.is_none()
            && self.max_head.is_none()
            && self.fallback.is_none()
            && self.rule.then.timeouts == RouteTimeouts::default()
    }

    /// Returns how long things may take: this route's limits where it has some.
    pub fn timeouts(&self, default: &Timeouts) -> Timeouts {
        let own = &self.rule.then.timeouts;
        let mut timeouts = *default;
        for (field, value) in [
            (&mut timeouts.connect, own.connect),
            (&mut timeouts.read, own.read),
            (&mut timeouts.write, own.write),
            (&mut timeouts.whole, own.whole),
        ] {
            if let Some(value) = value {
                *field = value.to_duration();
            }
        }
        timeouts
    }

    /// Returns what is answered if no endpoint takes the request.
    pub fn fallback(&self) -> Option<&Answer> {
        self.fallback.as_ref()
    }

    /// Refuses a body of a declared length, or of the length that has come so far.
    ///
    /// # Errors
    /// The answer; the rest of the body must not be read as a request.
    pub fn admits_body(&self, bytes: u64) -> Result<(), Answer> {
        match self.max_body {
            Some(most) if bytes > most => {
                let title = "the body is longer than this route takes";
                Err(Answer::problem(413, "body-too-large", title))
            }
            _ => Ok(()),
        }
    }

    /// Refuses a head of so many bytes.
    ///
    /// # Errors
    /// The answer.
    pub fn admits_head(&self, bytes: u64) -> Result<(), Answer> {
        match self.max_head {
            Some(most) if bytes > most => {
                let title = "the header is longer than this route takes";
                Err(Answer::problem(431, "head-too-large", title))
            }
            _ => Ok(()),
        }
    }

    /// Whether responses pass with the header that they came with.
    pub fn leaves_response(&self) -> bool {
        self.response.is_empty() && self.cors.is_none()
    }

    /// Whether a field of the endpoint's response is passed on.
    pub fn keeps_response_field(&self, name: &[u8]) -> bool {
        (self.cors.is_none() || CorsRules::keeps(name)) && self.response.keeps(name)
    }

    /// Gives the fields that are added to a response; `origin` is
    /// [`Forward::origin`](super::Forward::origin).
    pub fn response_fields(&self, origin: Option<&str>, add: &mut dyn FnMut(&str, &str)) {
        if let Some(cors) = &self.cors {
            cors.fields(origin, add);
        }
        for (name, value) in self.response.added() {
            add(name, value);
        }
    }
}

fn fixed(spec: &FixedAnswer) -> Answer {
    let mut fields = vec![("content-type".to_owned(), spec.content_type.clone())];
    fields.extend(spec.headers.clone());
    Answer {
        status: spec.status,
        fields,
        body: Bytes::from(spec.body.clone()),
    }
}

fn name_of(rule: &RouteRule) -> Arc<str> {
    let host = rule.host.as_deref().unwrap_or("*");
    let path = rule.when.path.as_ref().unwrap_or(&rule.path_prefix);
    format!("{host}{path}").into()
}
