//! One request and its answer, over however many attempts.

use std::fmt::Debug;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ballast_http1::{BodyLength, BodyReader, RequestKind};

use super::hedge::Hedge;
use super::shell::Ended;
use super::story::Story;
use super::way::Way;
use crate::hub::Place;
use crate::l7::Timeouts;
use crate::l7::balancer::ALONE_FACTOR;
use crate::metrics::Traffic;
use crate::policy::Pending;
use crate::table::{Backend, InFlight, Pool};

/// Room of an exchange's own buffers that is kept for the next one.
const KEPT_BYTES: usize = 8 << 10;

/// How far the request of an exchange has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// No endpoint takes it at the moment.
    Waiting,
    /// It will be sent again in a while.
    Pausing,
    /// A connection is being made.
    Connecting,
    /// It is being sent, and nothing of the answer has come.
    Asking,
    /// The answer's head has gone to the client.
    Answering,
    /// Both sides agreed on another protocol.
    Tunnel,
}

/// One request and its answer.
#[derive(Debug)]
pub struct Exchange<L> {
    pub begun: Instant,
    pub traffic: Traffic,
    pub story: Option<Box<Story>>,
    /// Who was asked last.
    pub endpoint: Option<SocketAddr>,
    pub first_byte: Option<Duration>,
    pub progress: Progress,
    pub pool: Option<Arc<Pool>>,
    /// A place among those that wait.
    pub place: Option<Place>,
    /// The same in its pool.
    pub pending: Option<Pending>,
    pub way: Way,

    // The current attempt.
    pub flight: Option<InFlight>,
    pub link: Option<L>,
    pub attempt_begun: Instant,
    /// When it is given up, if nothing more happens.
    pub due: Instant,
    pub attempts: usize,
    pub tried: Vec<Arc<Backend>>,
    /// A second attempt beside it.
    pub hedge: Option<Hedge<L>>,
    /// A second attempt was made, or could not be.
    pub hedged: bool,

    // The request.
    pub idempotent: bool,
    pub kind: RequestKind,
    /// The client speaks HTTP/1.0.
    pub old: bool,
    pub upgrade: bool,
    /// It came over TLS.
    pub tls: bool,
    /// The client's connection may serve another request.
    pub keep: bool,
    /// What was sent, so that it can be sent again: the head, and as much of the body as was kept.
    pub replay: Vec<u8>,
    /// Whether `replay` is all that was sent.
    pub replayable: bool,
    pub request: BodyReader,
    pub client_paused: bool,
    /// It was at some time: how slow the request comes is not the client's doing alone.
    pub was_paused: bool,

    // The answer.
    pub status: u16,
    pub answer: BodyReader,
    /// A head that has not all come.
    pub partial: Vec<u8>,
    /// The client cannot read chunks: they are taken out of them.
    pub unchunk: bool,
    /// The answer ends with its connection.
    pub until_close: bool,
    /// The endpoint's connection may serve another request.
    pub link_keep: bool,
    pub link_paused: bool,
}

impl<L> Exchange<L> {
    pub fn new(now: Instant) -> Self {
        Self {
            begun: now,
            traffic: Traffic::default(),
            story: None,
            endpoint: None,
            first_byte: None,
            progress: Progress::Waiting,
            pool: None,
            place: None,
            pending: None,
            way: Way::default(),
            flight: None,
            link: None,
            attempt_begun: now,
            due: now,
            attempts: 0,
            tried: Vec::new(),
            hedge: None,
            hedged: false,
            idempotent: false,
            kind: RequestKind::Other,
            old: false,
            upgrade: false,
            tls: false,
            keep: false,
            replay: Vec::new(),
            replayable: true,
            request: BodyReader::new(BodyLength::None),
            client_paused: false,
            was_paused: false,
            status: 0,
            answer: BodyReader::new(BodyLength::None),
            partial: Vec::new(),
            unchunk: false,
            until_close: false,
            link_keep: false,
            link_paused: false,
        }
    }

    /// Returns how long things may take on its way.
    pub fn timeouts(&self, default: &Timeouts) -> Timeouts {
        match &self.way.route {
            Some(route) => route.timeouts(default),
            None => *default,
        }
    }

    /// Returns until when the endpoint may be silent before its answer.
    pub fn answer_due(&self, now: Instant, default: &Timeouts) -> Instant {
        let Some(route) = &self.way.route else {
            return self.silent_until(now, default);
        };
        let mut timeouts = route.timeouts(default);
        timeouts.read = route
            .attempt
            .map_or(timeouts.read, |one| one.min(timeouts.read));
        self.silent_until(now, &timeouts)
    }

    fn silent_until(&self, now: Instant, timeouts: &Timeouts) -> Instant {
        let patience = if self.client_paused {
            timeouts.write
        } else {
            timeouts.read
        };
        (now + patience).min(self.begun + timeouts.whole)
    }

    /// Returns until when a connection is waited for that was not made in its time: longer if
    /// there is nobody else to ask.
    pub fn patient_until(&self, now: Instant, default: &Timeouts) -> Option<Instant> {
        let backend = self.flight.as_ref()?.backend();
        if self.pool.as_ref()?.has_other(backend, &self.tried) {
            return None;
        }
        let timeouts = self.timeouts(default);
        let until = self.attempt_begun + timeouts.connect * ALONE_FACTOR;
        (until > now).then(|| until.min(self.begun + timeouts.whole))
    }

    /// Returns when all of it must have ended.
    pub fn end(&self, default: &Timeouts) -> Instant {
        self.begun + self.timeouts(default).whole
    }

    /// Returns after which time a second endpoint is asked, if one may be.
    pub fn hedge_after(&self) -> Option<Duration> {
        let after = self.way.route.as_ref()?.hedge?;
        (self.idempotent && !self.hedged).then_some(after)
    }

    /// Whether the client sends its request so slowly that it may as well not come.
    pub fn drips(&self, now: Instant, default: &Timeouts) -> bool {
        !self.was_paused
            && !self.request.is_done()
            && default.drips(
                now.saturating_duration_since(self.begun),
                self.traffic.received,
            )
    }

    /// Whether the rest of the request has to come from the client before anything else happens.
    pub fn waits_for_client(&self) -> bool {
        !self.request.is_done() && !self.client_paused
    }

    /// Returns how it ended, with this status and reason unless the client was told another.
    pub fn ended(&self, status: u16, reason: &'static str, now: Instant) -> Ended {
        let answered = self.status != 0;
        Ended {
            status: if answered { self.status } else { status },
            reason: if answered { "" } else { reason },
            took: now.saturating_duration_since(self.begun),
            traffic: self.traffic,
            first_byte: self.first_byte,
            endpoint: self.endpoint,
            attempts: self.attempts + usize::from(self.flight.is_some()),
        }
    }

    /// Makes it as new, but for the memory of its buffers.
    pub fn clear(&mut self) {
        let mut replay = std::mem::take(&mut self.replay);
        replay.clear();
        replay.shrink_to(KEPT_BYTES);
        let mut tried = std::mem::take(&mut self.tried);
        tried.clear();
        *self = Self {
            tried,
            replay,
            ..Self::new(self.begun)
        };
    }
}
