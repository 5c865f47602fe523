//! What a machine asks for, and what it is given with each event.

use std::fmt::Debug;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::Guard;
use ballast_http1::{Limits, Request, Scratch};

use super::exchange::Exchange;
use super::story::Story;
use super::way::Way;
use crate::hub::Place;
use crate::l7::{Entrance, Hops, Timeouts};
use crate::metrics::Traffic;
use crate::policy::{Affinity, Attempt, Outcome, Refused};
use crate::route::{Answer, FieldLookup, RequestView};
use crate::table::{Backend, InFlight, Pool};

/// Exchanges that are kept for the next ones: a burst of more allocates.
const SPARE_MAX: usize = 256;

/// One end of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side<L> {
    /// The client.
    Client,
    /// A connection to an endpoint.
    Link(L),
}

/// Bytes that came with an event, or that were kept from earlier ones.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// All of them.
    pub bytes: &'a [u8],
    /// Whether they are lent by the event itself, so that the shell may pass parts of them on without a copy.
    pub lent: bool,
}

/// What is asked about a request's head in order to route it.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// How its connection came in.
    pub entrance: Entrance,
    /// Who asks.
    pub client: IpAddr,
    /// Its head.
    pub request: &'a Request<'a>,
}

impl FieldLookup for Asked<'_> {
    fn get(&self, name: &str) -> Option<&[u8]> {
        self.request.fields().get(name)
    }

    fn each<'a>(&'a self, name: &str, visit: &mut dyn FnMut(&'a [u8])) {
        for field in self.request.fields().iter() {
            if field.name.eq_ignore_ascii_case(name.as_bytes()) {
                visit(field.value);
            }
        }
    }
}

impl Asked<'_> {
    /// Returns what routes look at.
    pub fn view(&self) -> RequestView<'_> {
        RequestView {
            entrance: self.entrance,
            method: self.request.method().as_str(),
            host: self.request.host(),
            path: self.request.path(),
            query: self.request.query(),
            fields: self,
            client: self.client,
            tls: self.entrance == Entrance::SharedTls,
        }
    }
}

/// What becomes of a request.
#[derive(Debug)]
pub enum Routed {
    /// It goes to an endpoint of this pool.
    To(Arc<Pool>, Way),
    /// The ingress answers.
    Answer(Answer),
    /// Its route does what only pingora's path can.
    Over,
    /// No route matches.
    Nowhere,
}

/// The world around a machine: all that it wants done goes through here, at once and in order, so
/// that no list of effects is built for a request. Nothing here waits.
pub trait Shell {
    /// Names a connection to an endpoint.
    type Link: Copy + PartialEq + Debug;

    /// Returns the time of this event.
    fn now(&self) -> Instant;
    /// Returns how long things may take.
    fn timeouts(&self) -> &Timeouts;
    /// Returns how large things may be.
    fn limits(&self) -> &Limits;

    /// Returns who is believed about clients.
    fn hops(&self) -> Guard<Arc<Hops>>;
    /// Says where a request goes.
    fn route(&mut self, asked: &Asked<'_>) -> Routed;
    /// Begins at an endpoint of the pool that was not tried.
    fn begin(
        &mut self,
        pool: &Arc<Pool>,
        affinity: Affinity,
        tried: &[Arc<Backend>],
    ) -> Result<InFlight, Refused>;
    /// Begins at a second endpoint, beside those that are asked, if the budget allows it.
    fn begin_hedge(
        &mut self,
        pool: &Arc<Pool>,
        affinity: Affinity,
        asked: &[Arc<Backend>],
        attempt: &Attempt,
    ) -> Option<InFlight>;
    /// Returns how long to wait before a request is sent again, so many attempts having failed.
    fn backoff(&mut self, pool: &Pool, attempts: usize) -> Duration;
    /// Returns the pool of this name in the newest table.
    fn newest(&mut self, pool: &Pool) -> Option<Arc<Pool>>;
    /// Takes a place among those that wait for an endpoint; the machine is told of new tables until it has given it back.
    fn hold(&mut self) -> Option<Place>;
    /// Notes that the head of an answer came.
    fn responded(&mut self, backend: &Backend, latency: Duration);
    /// Notes that bytes of an answer came.
    fn progressed(&mut self, backend: &Backend);
    /// Ends an attempt, by which its endpoint is judged.
    fn judge(&mut self, flight: InFlight, outcome: Outcome);
    /// Says whether a request may be sent again, and counts it if so.
    fn may_retry(&mut self, pool: &Pool, attempt: &Attempt) -> bool;
    /// Names a request, and keeps what is to be told of it, if anybody wants to know.
    fn story(&mut self, request: &Request<'_>, client: IpAddr, tls: bool) -> Option<Box<Story>>;
    /// Counts and tells of a request that has ended.
    fn finished(&mut self, pool: Option<&Arc<Pool>>, ended: Ended, story: Option<&Story>);
    /// Returns whether connections are to end after the request they are at.
    fn draining(&self) -> bool;

    /// Returns a connection to an endpoint, idle or new, and whether it is connected already.
    fn dial(&mut self, backend: &Arc<Backend>) -> Option<(Self::Link, bool)>;
    /// Gives back a connection that can serve another request.
    fn release(&mut self, link: Self::Link);
    /// Ends a connection.
    fn discard(&mut self, link: Self::Link);

    /// Queues bytes.
    fn send(&mut self, to: Side<Self::Link>, bytes: &[u8]);
    /// Queues a part of what came.
    fn pass(&mut self, to: Side<Self::Link>, input: Input<'_>, part: Range<usize>);
    /// Returns the bytes that are queued and not taken.
    fn unsent(&self, to: Side<Self::Link>) -> usize;
    /// Stops receiving.
    fn pause(&mut self, from: Side<Self::Link>);
    /// Receives again.
    fn resume(&mut self, from: Side<Self::Link>);

    /// Sends the end once all is sent.
    fn shutdown(&mut self, to: Side<Self::Link>);
    /// Closes the client's connection; nothing more is told of it.
    fn close(&mut self, how: Closing);
    /// Gives the client's connection away, with all that was read of it and not consumed.
    fn hand_over(&mut self);
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// The status that the client was told, or 499 if it left before.
    pub status: u16,
    /// Why the ingress answered by itself; empty if it did not.
    pub reason: &'static str,
    /// From the request's head to the end of its answer.
    pub took: Duration,
    /// Bytes of bodies.
    pub traffic: Traffic,
    /// Until the head of the answer had come.
    pub first_byte: Option<Duration>,
    /// Who was asked last.
    pub endpoint: Option<SocketAddr>,
    /// How many were asked.
    pub attempts: usize,
}

impl Ended {
    /// A request that was answered at once.
    pub fn at_once(status: u16, reason: &'static str) -> Self {
        Self {
            status,
            reason,
            took: Duration::ZERO,
            traffic: Traffic::default(),
            first_byte: None,
            endpoint: None,
            attempts: 0,
        }
    }
}

/// How a client's connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closing {
    /// Once all that is queued is sent; what the client still sends is read and forgotten for a
    /// while, for to close with unread bytes could take the answer back.
    Sent,
    /// At once, so that it cannot take what it got for all of it.
    Reset,
}

/// What all machines of a thread share: memory that is used again.
#[derive(Debug)]
pub struct Desk<L> {
    /// For the parsers.
    pub scratch: Scratch,
    /// For a head that is written.
    pub out: Vec<u8>,
    /// Exchanges to be used again.
    pub spare: Spare<L>,
}

impl<L> Default for Desk<L> {
    fn default() -> Self {
        Self {
            scratch: Scratch::default(),
            out: Vec::new(),
            spare: Spare(Vec::new()),
        }
    }
}

/// Exchanges that have ended, kept so that the next ones need no allocation.
#[derive(Debug)]
pub struct Spare<L>(Vec<Box<Exchange<L>>>);

impl<L> Spare<L> {
    /// Returns an exchange, used or new.
    pub(super) fn take(&mut self, now: Instant) -> Box<Exchange<L>> {
        let spare = self.0.pop();
        let mut exchange = spare.unwrap_or_else(|| Box::new(Exchange::new(now)));
        exchange.begun = now;
        exchange
    }

    /// Takes one back, and with it all that it held.
    pub(super) fn give(&mut self, mut exchange: Box<Exchange<L>>) {
        if self.0.len() < SPARE_MAX {
            exchange.clear();
            self.0.push(exchange);
        }
    }
}
