//! What pingora asks on the way of a request.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use ballast_http1::proxy::Addresses;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::modules::http::grpc_web::{GrpcWeb, GrpcWebBridge};
use pingora::protocols::l4::socket::SocketAddr as PingoraAddr;
use pingora::proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorSource, ErrorType, OrErr as _, Result};

use super::answer::{Reason, answer, reply};
use super::compressor::{self, CompressorBuilder};
use super::forwarded::{OWN_FIELDS, Seen, Sink};
use super::front::{Entrance, Entrances};
use super::mirror::Mirror;
use super::peer::{Purpose, peer};
use super::tell::{self, Told};
use super::way::{HeaderFields, Way, view};
use crate::hub::{Active, Hub, random_bits};
use crate::metrics::Traffic;
use crate::observe::Named;
use crate::policy::{Attempt, Failure, Outcome, Refused};
use crate::route::{Answer, Decision};
use crate::table::{Backend, InFlight, Pool};

/// How long a probe may take that is asked for after a refused connection.
pub(super) const PROBE_TIMEOUT: Duration = Duration::from_millis(50);
/// How long an upgraded connection (WebSocket) may be silent.
pub(super) const UPGRADED_IDLE: Duration = Duration::from_hours(1);

/// What an endpoint is given at least to answer in, when the time of a request is over.
const LAST_MOMENT: Duration = Duration::from_millis(1);

/// How long things may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Until an endpoint has accepted a connection.
    pub connect: Duration,
    /// Between two reads from an endpoint: until the response's head, and between parts of it.
    pub read: Duration,
    /// Until an endpoint has taken what is written.
    pub write: Duration,
    /// From the request's head to the response's end; upgraded connections are exempt.
    pub whole: Duration,
    /// How long an idle connection to an endpoint is kept. Shorter than what common servers keep
    /// theirs (gunicorn 2 s, node 5 s): a POST must not meet a connection that is being closed.
    pub keep: Duration,
    /// How long a request waits for an endpoint while the service has members but none is ready,
    /// as when its only replica restarts.
    pub hold: Duration,
    /// Bytes a second that a client must send of a request's body, on the mean since its head, once
    /// [`DRIP_GRACE`] has passed; 0 sets no limit.
    pub slowest_body: u64,
}

/// So many times longer is a connection waited for that is being made, if nobody else could be
/// asked: what a full backlog drops is sent again after one second and after three.
pub const ALONE_FACTOR: u32 = 4;

/// For so long a request's body may come as slowly as it likes.
pub const DRIP_GRACE: Duration = Duration::from_secs(30);

impl Timeouts {
    /// Whether a body of which so much has come in this time comes too slowly.
    pub fn drips(&self, took: Duration, received: u64) -> bool {
        took > DRIP_GRACE && received < self.slowest_body.saturating_mul(took.as_secs())
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(1),
            read: Duration::from_mins(1),
            write: Duration::from_secs(30),
            whole: Duration::from_hours(1),
            keep: Duration::from_millis(1500),
            hold: Duration::from_secs(1),
            slowest_body: 240,
        }
    }
}

/// Chooses endpoints and judges failures.
pub struct Balancer {
    hub: Arc<Hub>,
    timeouts: Timeouts,
    entrances: Arc<Entrances>,
}

/// One request.
pub struct Request {
    begun: Instant,
    pool: Option<Arc<Pool>>,
    way: Way,
    timeouts: Timeouts,
    /// What the route answers instead of an endpoint.
    answer: Option<Answer>,
    mirror: Option<Mirror>,
    /// Bytes of the request's body so far.
    body: u64,
    tls: bool,
    /// Who asks, once that is known.
    client: Option<IpAddr>,
    current: Option<InFlight>,
    attempt_begun: Instant,
    tried: Vec<Arc<Backend>>,
    attempts: usize,
    /// Since the head was all written, in this attempt.
    head_written: bool,
    response_begun: bool,
    upgrade: bool,
    active: Option<Active>,
    named: Named,
    /// Until the head of the response came, in the attempt that had one.
    first_byte: Option<Duration>,
    /// Who was asked last.
    endpoint: Option<SocketAddr>,
}

impl Balancer {
    /// Makes one.
    pub fn new(hub: Arc<Hub>, timeouts: Timeouts, entrances: Arc<Entrances>) -> Self {
        Self {
            hub,
            timeouts,
            entrances,
        }
    }

    /// Finds the pool, or the answer: from here on the request belongs to it, whatever table comes.
    fn route(&self, session: &Session, request: &mut Request) -> Option<Answer> {
        let local = session.server_addr().and_then(PingoraAddr::as_inet);
        let entrance = local.and_then(|local| self.entrances.get(local))?;
        request.tls = entrance == Entrance::SharedTls;
        let table = self.hub.table();
        let fields = HeaderFields(session.req_header());
        let mut view = view(session, &fields, entrance);
        view.client = self.hub.hops.load().forwarding.client(view.client, &fields);
        request.client = Some(view.client);
        match table.decide(&view, random_bits(), self.hub.now()) {
            Decision::NoRoute => None,
            Decision::Answer(answer) => Some(answer),
            Decision::Forward(forward) => {
                request.pool = Some(Arc::clone(forward.pool));
                request.way = Way::from(forward);
                request.timeouts = request.way.route.timeouts(&self.timeouts);
                request.way.admits(session.req_header()).err()
            }
        }
    }

    /// Begins at an endpoint; waits for one for a while if the service has any at all.
    async fn choose(&self, request: &mut Request) -> Result<InFlight, Refused> {
        let pool = request.pool.as_mut().ok_or(Refused::NoEndpoint)?;
        let deadline = request.begun + pool.hold(request.timeouts.hold);
        let affinity = request.way.affinity;
        let backoff = pool.backoff(request.attempts, random_bits());
        if !backoff.is_zero() {
            tokio::time::sleep(backoff).await;
        }
        let begun = self
            .hub
            .begin_for(affinity, pool, &mut request.tried, deadline);
        begun.await
    }

    /// Adds what an endpoint must know of the client.
    fn forward_headers(
        &self,
        session: &Session,
        upstream: &mut RequestHeader,
        tls: bool,
    ) -> Result<()> {
        for name in OWN_FIELDS {
            upstream.remove_header(name);
        }
        let Some(peer) = session.client_addr().and_then(PingoraAddr::as_inet) else {
            return Ok(());
        };
        let seen = Seen {
            peer: peer.ip(),
            tls,
            host: host_of(session.req_header()),
        };
        let fields = HeaderFields(session.req_header());
        let hops = self.hub.hops.load_full();
        hops.forwarding
            .tell(&seen, &fields, &mut Upstream(upstream))
    }

    /// Answers with a reason; with the route's own answer instead if no endpoint took the request.
    async fn no_endpoint(
        &self,
        session: &mut Session,
        request: &Request,
        reason: Reason,
    ) -> Result<()> {
        let unserved = matches!(reason, Reason::NoEndpoint | Reason::ConnectFailed);
        match request.way.route.fallback().filter(|_| unserved) {
            Some(fallback) => reply(session, fallback.clone()).await,
            None => answer(session, reason).await,
        }
    }

    /// Ends the current attempt at an endpoint that failed; says whether to try another.
    fn failed(
        &self,
        session: &Session,
        request: &mut Request,
        failure: Failure,
        timed_out: bool,
    ) -> bool {
        request.attempts += 1;
        if let Some(current) = request.current.take() {
            let backend = Arc::clone(current.backend());
            if failure != Failure::NotTheEndpoint {
                self.hub.ask_probe(&backend, PROBE_TIMEOUT);
            }
            let outcome = match (failure, timed_out) {
                (Failure::NotTheEndpoint, _) => Outcome::Cancelled,
                (Failure::Connecting, _) => Outcome::ConnectFailed,
                (_, true) => Outcome::Timeout,
                (_, false) => Outcome::Reset,
            };
            current.ended(outcome, None, self.hub.now());
            request.tried.push(backend);
        }
        let attempt = Attempt {
            failure,
            idempotent: session.req_header().method.is_idempotent(),
            response_begun: request.response_begun,
            body_kept: !session.as_ref().retry_buffer_truncated(),
            attempts: request.attempts,
        };
        let Some(pool) = &request.pool else {
            return false;
        };
        let retry = pool.may_retry(&attempt, self.hub.now());
        if retry {
            pool.stats.retried();
        }
        retry
    }
}

/// A head of pingora's.
struct Upstream<'a>(&'a mut RequestHeader);

impl Sink for Upstream<'_> {
    type Error = Box<Error>;

    fn field(&mut self, name: &'static str, write: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        let mut value = Vec::new();
        write(&mut value);
        self.0.insert_header(name, value)
    }
}

/// What the connection to an endpoint is for.
fn purpose(session: &Session, upgrade: bool) -> Purpose {
    let client = session.client_addr().and_then(PingoraAddr::as_inet);
    let listener = session.server_addr().and_then(PingoraAddr::as_inet);
    let client = client.zip(listener).map(|(source, destination)| Addresses {
        source: *source,
        destination: *destination,
    });
    Purpose { upgrade, client }
}

/// Returns the host of a request: HTTP/2's authority or HTTP/1.1's `Host`.
pub(super) fn host_of(head: &RequestHeader) -> &str {
    let authority = head.uri.authority().map(http::uri::Authority::as_str);
    authority.unwrap_or_else(|| {
        let host = head.headers.get(HOST);
        host.and_then(|value| value.to_str().ok()).unwrap_or("")
    })
}

fn is_grpc(head: &RequestHeader) -> bool {
    let media = head.headers.get(CONTENT_TYPE);
    media.is_some_and(|media| media.as_bytes().starts_with(b"application/grpc"))
}

#[allow(
    clippy::unnecessary_box_returns,
    reason = "pingora's errors are boxed everywhere"
)]
fn status_error(reason: Reason) -> Box<Error> {
    Error::explain(
        ErrorType::HTTPStatus(reason.status()),
        "answered by the ingress",
    )
}

fn reason_of(error: &Error, request: &Request) -> Option<Reason> {
    use ErrorType::{
        ConnectError, ConnectNoRoute, ConnectRefused, ConnectTimedout, ConnectionClosed,
        HTTPStatus, ReadError, ReadTimedout, WriteError, WriteTimedout,
    };
    let gone = matches!(
        error.etype,
        WriteError | ReadError | ConnectionClosed | ReadTimedout
    );
    Some(match (&error.etype, error.esource()) {
        (HTTPStatus(503), _) => Reason::NoEndpoint,
        (HTTPStatus(502), _) => Reason::ConnectFailed,
        (HTTPStatus(404), _) => Reason::NoRoute,
        (HTTPStatus(408), _) => Reason::RequestTimeout,
        (HTTPStatus(413), _) => Reason::BodyTooLarge,
        (HTTPStatus(400), _) => Reason::BadRequest,
        (_, ErrorSource::Downstream) if gone => return None,
        (_, ErrorSource::Downstream) => Reason::BadRequest,
        (ReadTimedout | WriteTimedout | ConnectTimedout, ErrorSource::Upstream) => Reason::Timeout,
        (ConnectRefused | ConnectError | ConnectNoRoute, _) if !request.head_written => {
            Reason::ConnectFailed
        }
        (_, ErrorSource::Upstream) => Reason::EndpointFailed,
        _ => Reason::Internal,
    })
}

#[async_trait]
impl ProxyHttp for Balancer {
    type CTX = Request;

    fn new_ctx(&self) -> Request {
        let now = Instant::now();
        Request {
            begun: now,
            pool: None,
            way: Way::default(),
            timeouts: self.timeouts,
            answer: None,
            mirror: None,
            body: 0,
            tls: false,
            client: None,
            current: None,
            attempt_begun: now,
            tried: Vec::new(),
            attempts: 0,
            head_written: false,
            response_begun: false,
            upgrade: false,
            active: None,
            named: Named::default(),
            first_byte: None,
            endpoint: None,
        }
    }

    fn init_downstream_modules(&self, modules: &mut HttpModules) {
        modules.add_module(Box::new(CompressorBuilder));
        modules.add_module(Box::new(GrpcWeb));
    }

    async fn early_request_filter(
        &self,
        session: &mut Session,
        request: &mut Request,
    ) -> Result<()> {
        request.named = tell::name(&self.hub, session);
        request.answer = self.route(session, request);
        // Before the modules look at the request.
        if request.way.route.grpc_web
            && let Some(bridge) = session.downstream_modules_ctx.get_mut::<GrpcWebBridge>()
        {
            bridge.init();
        }
        Ok(())
    }

    async fn request_filter(&self, session: &mut Session, request: &mut Request) -> Result<bool> {
        if let Some(answer) = request.answer.take() {
            // Its body may be long: nobody reads it.
            session.set_keepalive(None);
            reply(session, answer).await?;
            return Ok(true);
        }
        let Some(pool) = &request.pool else {
            answer(session, Reason::NoRoute).await?;
            return Ok(true);
        };
        if pool.members.is_empty() {
            self.no_endpoint(session, request, Reason::NoEndpoint)
                .await?;
            return Ok(true);
        }
        request.upgrade = session.is_upgrade_req();
        request.active = Some(self.hub.activate());
        if let Some(copies) = &request.way.mirror {
            let mut head = session.req_header().clone();
            self.forward_headers(session, &mut head, request.tls)?;
            request.way.change_request(&mut head)?;
            request.mirror = Mirror::begin(&self.hub, copies, &head);
        }
        Ok(false)
    }

    async fn upstream_peer(
        &self,
        session: &mut Session,
        request: &mut Request,
    ) -> Result<Box<HttpPeer>> {
        let Ok(begun) = self.choose(request).await else {
            let reason = if request.attempts == 0 {
                Reason::NoEndpoint
            } else {
                Reason::ConnectFailed
            };
            return Err(status_error(reason));
        };
        let pool = request.pool.as_ref();
        let upstream = pool.map(|pool| Arc::clone(&pool.upstream));
        let mut timeouts = request.timeouts;
        if !pool.is_some_and(|pool| pool.has_other(begun.backend(), &request.tried)) {
            timeouts.connect *= ALONE_FACTOR;
        }
        let mut peer = peer(
            begun.backend(),
            &upstream.unwrap_or_default(),
            &self.hub.upstreams,
            &timeouts,
            purpose(session, request.upgrade),
        )
        .or_err(ErrorType::InternalError, "speaking to an endpoint")?;
        if request.way.route.grpc_web && is_grpc(session.req_header()) {
            // The bridge has made it a gRPC request: that is HTTP/2, whatever the client speaks.
            peer.options.set_http_version(2, 2);
        }
        if let Some(attempt) = request.way.route.attempt.filter(|_| !request.upgrade) {
            // pingora has one limit for all reads: it holds between parts of the body, too.
            let read = peer.options.read_timeout.unwrap_or(attempt);
            peer.options.read_timeout = Some(read.min(attempt));
        }
        if !request.upgrade {
            // Before its answer an endpoint may take what is left of the whole; after that the
            // filter of the body looks at the time.
            let left = request
                .timeouts
                .whole
                .saturating_sub(request.begun.elapsed());
            let read = peer.options.read_timeout.unwrap_or(left);
            peer.options.read_timeout = Some(read.min(left.max(LAST_MOMENT)));
        }
        request.endpoint = Some(begun.backend().address);
        request.current = Some(begun);
        request.head_written = false;
        request.attempt_begun = Instant::now();
        Ok(peer)
    }

    fn fail_to_connect(
        &self,
        session: &mut Session,
        _peer: &HttpPeer,
        request: &mut Request,
        mut error: Box<Error>,
    ) -> Box<Error> {
        let retry = self.failed(session, request, Failure::Connecting, false);
        error.set_retry(retry);
        error
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        upstream: &mut RequestHeader,
        request: &mut Request,
    ) -> Result<()> {
        tell::name_headers(upstream, &request.named)?;
        self.forward_headers(session, upstream, request.tls)?;
        request.way.change_request(upstream)
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        request: &mut Request,
    ) -> Result<()> {
        // What a second attempt sends again, the copy has had.
        let copied = request.mirror.take().filter(|_| request.attempts == 0);
        request.mirror = copied.and_then(|mirror| mirror.part(body.as_ref(), end));
        request.body += body.as_ref().map_or(0, |body| body.len() as u64);
        if request.way.route.admits_body(request.body).is_err() {
            return Err(status_error(Reason::BodyTooLarge));
        }
        // The messages of a call come when there is something to say.
        let flows = request.upgrade || is_grpc(session.req_header());
        let took = request.begun.elapsed();
        if !end && !flows && request.timeouts.drips(took, request.body) {
            return Err(status_error(Reason::RequestTimeout));
        }
        // pingora hands over the body, an empty one too, only after the head was written. The
        // other way round: as long as this was not called, a failed write was the head's.
        request.head_written = true;
        Ok(())
    }

    async fn upstream_response_filter(
        &self,
        _session: &mut Session,
        _response: &mut ResponseHeader,
        request: &mut Request,
    ) -> Result<()> {
        if let Some(current) = &request.current {
            let latency = request.attempt_begun.elapsed();
            request.first_byte = Some(request.begun.elapsed());
            current.backend().responded(latency, self.hub.now());
        }
        Ok(())
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        request: &mut Request,
    ) -> Result<()> {
        request.response_begun = true;
        compressor::begin(session, response, &request.way.route)?;
        request.way.change_response(response)?;
        if let (Some(pool), Some(current)) = (&request.pool, &request.current) {
            let endpoint = (&**pool, &**current.backend());
            request.way.stick(response, endpoint, request.tls)?;
        }
        Ok(())
    }

    fn upstream_response_body_filter(
        &self,
        _session: &mut Session,
        _body: &mut Option<Bytes>,
        _end: bool,
        request: &mut Request,
    ) -> Result<Option<Duration>> {
        if let Some(current) = &request.current {
            current.backend().progressed(self.hub.now());
        }
        if !request.upgrade && request.begun.elapsed() > request.timeouts.whole {
            let error = Error::explain(ErrorType::ReadTimedout, "the whole response took too long");
            return Err(error.into_up());
        }
        Ok(None)
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        request: &mut Request,
        _reused: bool,
    ) -> Box<Error> {
        let failure = match (error.esource(), &error.etype) {
            (ErrorSource::Upstream, ErrorType::WriteError | ErrorType::WriteTimedout)
                if !request.head_written =>
            {
                Failure::WritingHead
            }
            (ErrorSource::Upstream, _) => Failure::Later,
            _ => Failure::NotTheEndpoint,
        };
        let timed_out = matches!(
            error.etype,
            ErrorType::ReadTimedout | ErrorType::WriteTimedout
        );
        let retry = self.failed(session, request, failure, timed_out);
        error.set_retry(retry);
        error
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        request: &mut Request,
    ) -> FailToProxy {
        let Some(reason) = reason_of(error, request) else {
            return FailToProxy {
                error_code: 0,
                can_reuse_downstream: false,
            };
        };
        // After a failure the rest of the request may still be on its way: not reused.
        session.set_keepalive(None);
        let told = self.no_endpoint(session, request, reason).await;
        if let Err(error) = told {
            tracing::debug!(%error, "client left before it was answered");
        }
        FailToProxy {
            error_code: reason.status(),
            can_reuse_downstream: false,
        }
    }

    async fn logging(&self, session: &mut Session, _error: Option<&Error>, request: &mut Request) {
        /// A client that left before it was answered; nginx's number.
        const CLIENT_LEFT: u16 = 499;
        let written = session.response_written();
        let code = written.map_or(CLIENT_LEFT, |head| head.status.as_u16());
        let took = request.begun.elapsed();
        let stats = match &request.pool {
            Some(pool) => &pool.stats,
            None => &self.hub.metrics.unrouted,
        };
        let traffic = Traffic {
            received: session.body_bytes_read() as u64,
            sent: session.body_bytes_sent() as u64,
        };
        stats.finished(code, took, traffic);
        let told = Told {
            begun: Some(request.begun),
            tls: request.tls,
            client: request.client,
            status: code,
            traffic,
            service: request.pool.as_ref().map_or("", |pool| &pool.service_name),
            route: &request.way.route.name,
            endpoint: request.endpoint,
            attempts: request.attempts + usize::from(request.current.is_some()),
            first_byte: request.first_byte,
        };
        tell::ended(&self.hub, session, &request.named, &told);
        if let Some(current) = request.current.take() {
            // Its latency was noted when the head came.
            let outcome = written.map_or(Outcome::Cancelled, |_| Outcome::Status(code));
            current.ended(outcome, None, self.hub.now());
        }
        request.active = None;
    }

    fn suppress_error_log(&self, _session: &Session, _request: &Request, _error: &Error) -> bool {
        // Counted by code; a line per failed request would drown everything at the worst moment.
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _session: &Session,
        _request: &Request,
        _error: &Error,
        _context: ProxyWarnLogContext,
    ) -> bool {
        true
    }
}
