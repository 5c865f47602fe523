//! A client's connection.

use std::fmt::Debug;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ballast_http1::{
    BodyLength, BodyReader, Method, Refusal, Request, Version, is_http2_preface, may_end,
    parse_request,
};

use super::exchange::{Exchange, Progress};
use super::head::{self, Own};
use super::shell::{Asked, Closing, Desk, Ended, Input, Routed, Shell, Side, Spare};
use super::way::Way;
use crate::l7::Entrance;
use crate::l7::answer::Reason;
use crate::route::Answer;
use crate::table::Pool;

/// From the first byte of a head to its last: a client that sends it drop by drop is not waited for.
pub const HEAD_TIME: Duration = Duration::from_secs(30);
/// Until the first byte of a new connection.
pub const FIRST_TIME: Duration = Duration::from_mins(1);
/// Between two requests.
pub const KEEP_TIME: Duration = Duration::from_secs(75);
/// Bytes that may be queued on one side before the other is paused.
pub const UNSENT_MAX: usize = 256 << 10;
/// Bytes of a request that are kept so that it can be sent again; more of its body is not read until
/// an endpoint is connected.
pub const REPLAY_MAX: usize = 64 << 10;

/// Where a client's connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Between two requests.
    Idle,
    /// In a request's head.
    Head,
    /// In an exchange.
    Exchange,
    /// Being given away.
    Leaving,
    /// Gone.
    Closed,
}

/// The machine of one client's connection: what was read of it and not consumed, and the exchange
/// it is in.
///
/// Idle, all its memory is this.
#[derive(Debug)]
pub struct Connection<L> {
    pub(super) client: IpAddr,
    pub(super) entrance: Entrance,
    pub(super) phase: Phase,
    /// The client has sent its end.
    pub(super) ended: bool,
    /// Nothing was asked yet: it may be HTTP/2.
    fresh: bool,
    pub(super) deadline: Instant,
    held: Vec<u8>,
    pub(super) exchange: Option<Box<Exchange<L>>>,
}

/// What becomes of a request whose head was read.
enum Started {
    Exchange,
    /// Answered at once, with a body unless it was a HEAD.
    Answer(Reason),
    /// The same by what its route says.
    Told(Answer),
    /// Not for this machine: the connection is given away with it.
    Over,
}

impl<L: Copy + PartialEq + Debug> Connection<L> {
    /// Begins with a connection that was just accepted.
    pub fn new(client: IpAddr, entrance: Entrance, now: Instant) -> Self {
        Self {
            client,
            entrance,
            phase: Phase::Idle,
            ended: false,
            fresh: true,
            deadline: now + FIRST_TIME,
            held: Vec::new(),
            exchange: None,
        }
    }

    /// Returns when [`Connection::expired`] is to be called.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Returns whether it is in an exchange.
    pub fn is_busy(&self) -> bool {
        self.exchange.is_some()
    }

    /// Returns whether a new table is of interest.
    pub fn is_waiting(&self) -> bool {
        let exchange = self.exchange.as_ref();
        exchange.is_some_and(|exchange| exchange.progress == Progress::Waiting)
    }

    /// Returns what was read and not consumed, for whom the connection is given to.
    pub fn into_held(self) -> Vec<u8> {
        self.held
    }

    /// The client sent bytes.
    pub fn client_received<S: Shell<Link = L>>(
        &mut self,
        bytes: &[u8],
        desk: &mut Desk<L>,
        shell: &mut S,
    ) {
        match self.phase {
            Phase::Idle | Phase::Head if self.held.is_empty() => {
                let input = Input { bytes, lent: true };
                let taken = self.consume(input, desk, shell);
                self.keep(&bytes[taken..], shell);
            }
            Phase::Idle | Phase::Head => {
                let seen = self.held.len();
                self.held.extend_from_slice(bytes);
                // A head that comes byte by byte is not read from its start for each of them.
                if self.fresh || may_end(&self.held, seen, shell.limits()) {
                    self.consume_held(desk, shell);
                }
            }
            Phase::Exchange => {
                let input = Input { bytes, lent: true };
                let taken = self.request_bytes(input, 0, desk, shell);
                self.keep(&bytes[taken..], shell);
            }
            Phase::Leaving => self.held.extend_from_slice(bytes),
            Phase::Closed => {}
        }
    }

    /// The client sent its end, or its connection broke.
    pub fn client_ended<S: Shell<Link = L>>(
        &mut self,
        broken: bool,
        desk: &mut Desk<L>,
        shell: &mut S,
    ) {
        self.ended = true;
        match self.phase {
            Phase::Closed => {}
            Phase::Exchange if !broken => self.client_half_closed(desk, shell),
            Phase::Exchange => self.client_left(desk, shell),
            // Whoever gets it sees the end as well.
            Phase::Leaving if !broken => {}
            // It may read on: what is queued goes out first.
            Phase::Idle | Phase::Head if !broken => self.close(Closing::Sent, shell),
            Phase::Idle | Phase::Head | Phase::Leaving => self.close(Closing::Reset, shell),
        }
    }

    fn client_half_closed<S: Shell<Link = L>>(&mut self, desk: &mut Desk<L>, shell: &mut S) {
        let Some(exchange) = &mut self.exchange else {
            return;
        };
        if exchange.progress == Progress::Tunnel {
            if exchange.until_close {
                return self.end_tunnel(desk, shell);
            }
            if let Some(link) = exchange.link {
                shell.shutdown(Side::Link(link));
            }
        } else if !exchange.request.is_done() {
            // A request that ends in its middle is none.
            self.client_left(desk, shell);
        } else {
            // Some clients half-close after their last request, and read on.
            exchange.keep = false;
        }
    }

    /// The client is gone in the middle of an exchange.
    fn client_left<S: Shell<Link = L>>(&mut self, desk: &mut Desk<L>, shell: &mut S) {
        /// nginx's number for it.
        const CLIENT_LEFT: u16 = 499;
        self.drop_exchange(CLIENT_LEFT, "", desk, shell);
        self.close(Closing::Reset, shell);
    }

    /// All that was queued for the client is taken.
    pub fn client_sent<S: Shell<Link = L>>(&mut self, shell: &mut S) {
        if let Some(exchange) = &mut self.exchange
            && exchange.link_paused
            && let Some(link) = exchange.link
        {
            exchange.link_paused = false;
            shell.resume(Side::Link(link));
        }
    }

    /// Connections are to end: an idle one does at once.
    pub fn drain<S: Shell<Link = L>>(&mut self, shell: &mut S) {
        if self.phase == Phase::Idle {
            self.close(Closing::Sent, shell);
        }
    }

    /// The time of [`Connection::deadline`] has come.
    pub fn expired<S: Shell<Link = L>>(&mut self, desk: &mut Desk<L>, shell: &mut S) {
        match self.phase {
            Phase::Idle => self.close(Closing::Sent, shell),
            Phase::Leaving => self.close(Closing::Reset, shell),
            Phase::Head => {
                let own = Own::last(Reason::RequestTimeout);
                self.answer_alone(own, desk, shell);
            }
            Phase::Exchange => self.exchange_expired(desk, shell),
            Phase::Closed => {}
        }
    }

    pub(super) fn close<S: Shell<Link = L>>(&mut self, how: Closing, shell: &mut S) {
        self.phase = Phase::Closed;
        self.held = Vec::new();
        shell.close(how);
    }

    /// Keeps what was not consumed. During an exchange that is the next request: it waits, and the
    /// client with it.
    fn keep<S: Shell<Link = L>>(&mut self, rest: &[u8], shell: &mut S) {
        if rest.is_empty() {
            return;
        }
        match self.phase {
            Phase::Idle | Phase::Head | Phase::Leaving => self.held.extend_from_slice(rest),
            Phase::Exchange => {
                self.held.extend_from_slice(rest);
                shell.pause(Side::Client);
            }
            Phase::Closed => {}
        }
    }

    fn consume_held<S: Shell<Link = L>>(&mut self, desk: &mut Desk<L>, shell: &mut S) {
        let bytes = std::mem::take(&mut self.held);
        let input = Input {
            bytes: &bytes,
            lent: false,
        };
        let taken = self.consume(input, desk, shell);
        if taken == 0 && self.phase != Phase::Closed {
            // The buffer goes on growing.
            self.held = bytes;
        } else {
            self.keep(&bytes[taken..], shell);
        }
    }

    /// Begins with the requests in `input`, one after the other as far as they are answered at
    /// once. Returns how much of it is consumed.
    fn consume<S: Shell<Link = L>>(
        &mut self,
        input: Input<'_>,
        desk: &mut Desk<L>,
        shell: &mut S,
    ) -> usize {
        let mut taken = 0;
        while taken < input.bytes.len() && matches!(self.phase, Phase::Idle | Phase::Head) {
            let bytes = &input.bytes[taken..];
            if self.fresh {
                match is_http2_preface(bytes) {
                    Some(true) => {
                        self.leave(shell);
                        return taken;
                    }
                    Some(false) => self.fresh = false,
                    None => {
                        self.begin_head(shell);
                        return taken;
                    }
                }
            }
            let request = match parse_request(bytes, &mut desk.scratch, shell.limits()) {
                Ok(Some(request)) => request,
                Ok(None) => {
                    self.begin_head(shell);
                    return taken;
                }
                Err(refusal) => {
                    self.refuse(refusal, desk, shell);
                    return input.bytes.len();
                }
            };
            let length = request.head_len();
            let bodiless = request.method() == Method::Head;
            // What follows a CONNECT is what it would have sent into the tunnel.
            let bare = request.body() == BodyLength::None && request.method() != Method::Connect;
            let keep = request.keep_alive() && bare;
            let started = self.start(&request, &mut desk.spare, shell);
            if matches!(started, Started::Over) {
                self.leave(shell);
                return taken;
            }
            taken += length;
            match started {
                Started::Over => {}
                Started::Told(answer) => {
                    desk.out.clear();
                    let keep = keep && self.may_keep(shell);
                    head::write_answer(&mut desk.out, &answer, keep, bodiless);
                    self.answered(keep, desk, shell);
                }
                Started::Exchange => {
                    self.phase = Phase::Exchange;
                    taken = self.request_bytes(input, taken, desk, shell);
                    self.attempt(desk, shell);
                }
                Started::Answer(reason) => {
                    let own = Own {
                        reason,
                        bodiless,
                        keep,
                    };
                    self.answer_alone(own, desk, shell);
                }
            }
        }
        taken
    }

    fn begin_head<S: Shell<Link = L>>(&mut self, shell: &mut S) {
        if self.phase == Phase::Idle {
            self.phase = Phase::Head;
            self.deadline = shell.now() + HEAD_TIME;
        }
    }

    fn leave<S: Shell<Link = L>>(&mut self, shell: &mut S) {
        self.phase = Phase::Leaving;
        self.deadline = shell.now() + HEAD_TIME;
        shell.hand_over();
    }

    /// Finds where a request goes, and writes the head that it goes with.
    fn start<S: Shell<Link = L>>(
        &mut self,
        request: &Request<'_>,
        spare: &mut Spare<L>,
        shell: &mut S,
    ) -> Started {
        let tls = self.entrance == Entrance::SharedTls;
        let hops = shell.hops();
        let mut asked = Asked {
            entrance: self.entrance,
            client: self.client,
            request,
        };
        asked.client = hops.forwarding.client(self.client, &asked);
        let routed = shell.route(&asked);
        let spoken_to_otherwise =
            matches!(&routed, Routed::To(pool, _) if !pool.upstream.is_plain());
        if matches!(routed, Routed::Over) || spoken_to_otherwise {
            return Started::Over;
        }
        let story = shell.story(request, asked.client, tls);
        let (pool, way) = match routed {
            Routed::Over => return Started::Over,
            Routed::Answer(answer) => {
                let ended = Ended::at_once(answer.status, "route");
                shell.finished(None, ended, story.as_deref());
                return Started::Told(answer);
            }
            Routed::To(pool, way) => (pool, way),
            Routed::Nowhere => {
                let reason = Reason::NoRoute;
                let ended = Ended::at_once(reason.status(), reason.code());
                shell.finished(None, ended, story.as_deref());
                return Started::Answer(reason);
            }
        };
        if let Some(refused) = refuses(&pool, &way, request) {
            let (status, reason) = match &refused {
                Started::Answer(reason) => (reason.status(), reason.code()),
                Started::Told(answer) => (answer.status, "route"),
                Started::Exchange | Started::Over => (0, ""),
            };
            let ended = Ended::at_once(status, reason);
            shell.finished(Some(&pool), ended, story.as_deref());
            return refused;
        }
        let mut exchange = spare.take(shell.now());
        exchange.pool = Some(pool);
        exchange.way = way;
        exchange.tls = tls;
        exchange.story = story;
        exchange.idempotent = request.method().is_idempotent();
        exchange.kind = request.method().into();
        exchange.old = request.version() == Version::Http10;
        exchange.upgrade = request.upgrade().is_some();
        exchange.keep = request.keep_alive();
        exchange.request = BodyReader::new(request.body());
        let client = head::Client {
            peer: self.client,
            tls,
            forwarding: &hops.forwarding,
            named: exchange.story.as_ref().map(|story| &story.named),
            service: exchange.pool.as_ref().map_or("", |pool| &pool.service_name),
        };
        head::write_request(&mut exchange.replay, &asked, client, &exchange.way);
        self.exchange = Some(exchange);
        Started::Exchange
    }

    /// Refuses what cannot be read: where the next request begins is not known.
    pub(super) fn refuse<S: Shell<Link = L>>(
        &mut self,
        refusal: Refusal,
        desk: &mut Desk<L>,
        shell: &mut S,
    ) {
        let ended = Ended::at_once(refusal.status(), Reason::BadRequest.code());
        shell.finished(None, ended, None);
        desk.out.clear();
        head::write_refusal(&mut desk.out, refusal);
        shell.send(Side::Client, &desk.out);
        self.close(Closing::Sent, shell);
    }

    /// Answers a request that is in no exchange.
    pub(super) fn answer_alone<S: Shell<Link = L>>(
        &mut self,
        mut own: Own,
        desk: &mut Desk<L>,
        shell: &mut S,
    ) {
        own.keep &= self.may_keep(shell);
        desk.out.clear();
        head::write_own(&mut desk.out, own);
        self.answered(own.keep, desk, shell);
    }

    fn may_keep<S: Shell<Link = L>>(&self, shell: &S) -> bool {
        !shell.draining() && !self.ended
    }

    /// Sends an answer that is written, after which the connection stays or not.
    fn answered<S: Shell<Link = L>>(&mut self, keep: bool, desk: &Desk<L>, shell: &mut S) {
        shell.send(Side::Client, &desk.out);
        if keep {
            self.phase = Phase::Idle;
            self.deadline = shell.now() + KEEP_TIME;
        } else {
            self.close(Closing::Sent, shell);
        }
    }

    /// The exchange has ended well: on to the next request.
    pub(super) fn next<S: Shell<Link = L>>(
        &mut self,
        keep: bool,
        desk: &mut Desk<L>,
        shell: &mut S,
    ) {
        if !keep || shell.draining() {
            return self.close(Closing::Sent, shell);
        }
        self.phase = Phase::Idle;
        self.deadline = shell.now() + KEEP_TIME;
        if self.held.is_empty() {
            return;
        }
        shell.resume(Side::Client);
        self.consume_held(desk, shell);
    }
}

/// Answers a request that its pool or route does not take at all.
fn refuses(pool: &Pool, way: &Way, request: &Request<'_>) -> Option<Started> {
    if request.method() == Method::Connect {
        // An ingress is no way into the network behind it.
        return Some(Started::Answer(Reason::BadRequest));
    }
    let declared = match request.body() {
        BodyLength::Length(bytes) => bytes,
        BodyLength::None | BodyLength::Chunked | BodyLength::UntilClose => 0,
    };
    if let Err(answer) = way.admits(request.head_len(), declared) {
        return Some(Started::Told(answer));
    }
    pool.members.is_empty().then(|| match way.fallback() {
        Some(fallback) => Started::Told(fallback.clone()),
        None => Started::Answer(Reason::NoEndpoint),
    })
}
