//! What comes back: answers, ends and silence.

use std::time::Duration;

use super::super::connection::State;
use super::super::fault::Fault;
use super::super::flights::Flight;
use super::super::response::Event;
use super::super::wire::Wire;
use super::Core;
use crate::record::{CLOSED, ErrorClass};
use crate::sample::Sample;

/// What the bytes of one call led to.
enum Read {
    /// The connection goes on.
    Good,
    /// It is of no use any more, and this is what its first request in flight died of, if any did.
    Spent(Option<ErrorClass>),
}

impl Core {
    /// Takes bytes that `connection` received.
    pub fn received(&mut self, wire: &mut impl Wire, connection: u32, data: &[u8], now_ns: u64) {
        match self.read(connection, data, now_ns) {
            Read::Good => self.offer(wire, connection, now_ns),
            Read::Spent(class) => {
                if let Some(class) = class {
                    self.fail_first(connection, class, now_ns);
                }
                // What was pipelined behind it dies with the connection.
                self.fail_all(connection, ErrorClass::Reset, now_ns);
                wire.close(connection);
                self.lost(connection, now_ns);
                self.pump(wire, now_ns);
            }
        }
    }

    fn read(&mut self, connection: u32, mut data: &[u8], now_ns: u64) -> Read {
        let at = connection as usize;
        loop {
            let Some(bodiless) = self.flights.front(connection).map(|it| it.bodiless) else {
                // Nobody asked for what is left.
                return if data.is_empty() {
                    Read::Good
                } else {
                    Read::Spent(None)
                };
            };
            let it = &mut self.connections[at];
            if it.first_byte_ns == 0 && !data.is_empty() {
                it.first_byte_ns = now_ns;
            }
            let before = data.len();
            let event = it
                .response
                .next_like(&mut data, bodiless, Some(&mut self.memo));
            it.received_bytes += (before - data.len()) as u64;
            match event {
                Ok(None) => return Read::Good,
                Ok(Some(Event::Head { status, headers })) => {
                    it.status = status;
                    if let Some(checker) = self.checkers.get_mut(at) {
                        checker.begin(status, headers);
                    }
                }
                Ok(Some(Event::Body(bytes))) => {
                    if let Some(checker) = self.checkers.get_mut(at) {
                        checker.body(bytes);
                    }
                }
                Ok(Some(Event::End { reusable })) => {
                    // More than its length said is an answer of the wrong length.
                    if !data.is_empty() && self.flights.count(connection) == 1 {
                        self.recorder.reason(ErrorClass::Protocol, Fault::Surplus);
                        return Read::Spent(Some(ErrorClass::Protocol));
                    }
                    self.answered(connection, now_ns);
                    if !reusable {
                        return Read::Spent(None);
                    }
                }
                Err(fault) => {
                    self.recorder.reason(ErrorClass::Protocol, fault);
                    return Read::Spent(Some(ErrorClass::Protocol));
                }
            }
        }
    }

    /// Takes that nothing more comes from an open connection: a FIN, or what broke it.
    pub fn ended(
        &mut self,
        wire: &mut impl Wire,
        connection: u32,
        result: Result<(), ErrorClass>,
        now_ns: u64,
    ) {
        if self.connections[connection as usize].state != State::Open {
            return;
        }
        let had_none = self.flights.count(connection) == 0;
        if result.is_ok() && self.connections[connection as usize].response.close() {
            self.answered(connection, now_ns);
        }
        let class = result.err().unwrap_or(ErrorClass::Reset);
        if !had_none && result.is_ok() && self.flights.count(connection) > 0 {
            self.recorder.reason(class, CLOSED);
        }
        match wire.unsent(connection) {
            0 => self.fail_all(connection, class, now_ns),
            unsent => self.fail_sent(connection, unsent as u64, class, now_ns),
        }
        wire.close(connection);
        if had_none && self.connections[connection as usize].answered == 0 {
            // Opened and closed for nothing: opening it again at once would do nothing else.
            self.lost_for_now(connection, ErrorClass::Reset, now_ns);
        } else {
            self.lost(connection, now_ns);
        }
        self.pump(wire, now_ns);
    }

    /// Ends what is in flight on a connection that its peer has closed, but for what the kernel was
    /// never given: that goes out again, once, for the peer cannot have seen it.
    fn fail_sent(&mut self, connection: u32, mut unsent: u64, class: ErrorClass, now_ns: u64) {
        let all = std::iter::from_fn(|| self.flights.pop(connection));
        let mut all: Vec<Flight> = all.collect();
        let pool = usize::from(self.connections[connection as usize].pool);
        while let Some(flight) = all.pop_if(|it| !it.resent && it.sent_bytes <= unsent) {
            unsent -= flight.sent_bytes;
            self.waiting += 1;
            self.pools[pool].backlog.push_front(Flight {
                resent: true,
                ..flight
            });
        }
        for flight in all {
            self.end(connection, &flight, Err(class), now_ns);
        }
    }

    /// Ends the first request in flight with the answer that was read.
    fn answered(&mut self, connection: u32, now_ns: u64) {
        let Some(flight) = self.flights.pop(connection) else {
            return;
        };
        let it = &mut self.connections[connection as usize];
        it.answered += 1;
        it.failures = 0;
        let outcome = match self.checkers.get(connection as usize) {
            Some(checker) => checker.end().map(|()| it.status).inspect_err(|class| {
                if self.recorder.wants_reason(*class)
                    && let Some(why) = checker.why(*class)
                {
                    self.recorder.reason(*class, why);
                }
            }),
            None => Ok(it.status),
        };
        self.end(connection, &flight, outcome, now_ns);
        self.pause(connection, now_ns);
    }

    fn fail_first(&mut self, connection: u32, class: ErrorClass, now_ns: u64) {
        if let Some(flight) = self.flights.pop(connection) {
            self.end(connection, &flight, Err(class), now_ns);
        }
    }

    /// Ends every request in flight on a connection.
    pub(super) fn fail_all(&mut self, connection: u32, class: ErrorClass, now_ns: u64) {
        while let Some(flight) = self.flights.pop(connection) {
            self.end(connection, &flight, Err(class), now_ns);
        }
    }

    fn end(
        &mut self,
        connection: u32,
        flight: &Flight,
        outcome: Result<u16, ErrorClass>,
        now_ns: u64,
    ) {
        let it = &mut self.connections[connection as usize];
        let (first_byte_ns, received_bytes) = (it.first_byte_ns, it.received_bytes);
        it.expect();
        self.tell(flight, first_byte_ns, received_bytes, outcome, now_ns);
    }

    /// Ends a request that no connection has taken.
    pub(super) fn never_sent(&mut self, flight: &Flight, class: ErrorClass, now_ns: u64) {
        let flight = Flight {
            sent_ns: now_ns,
            sent_bytes: 0,
            ..*flight
        };
        self.tell(&flight, 0, 0, Err(class), now_ns);
    }

    fn tell(
        &mut self,
        flight: &Flight,
        first_byte_ns: u64,
        received_bytes: u64,
        outcome: Result<u16, ErrorClass>,
        now_ns: u64,
    ) {
        let sample = Sample {
            number: flight.number,
            target: flight.pick.target,
            request: flight.pick.request,
            due_ns: self.since_zero(flight.due_ns),
            sent_ns: self.since_zero(flight.sent_ns),
            first_byte_ns: self.since_zero(first_byte_ns),
            done_ns: self.since_zero(now_ns),
            received_bytes,
            sent_bytes: flight.sent_bytes,
            outcome,
        };
        self.done += 1;
        let is_good = match outcome {
            // A check has judged it already, if there is one.
            Ok(status) => status < 400 || !self.checkers.is_empty(),
            Err(_) => false,
        };
        self.failed += u64::from(!is_good);
        self.recorder.done(&sample);
    }

    /// Gives up what has waited too long: for its answer, for a connection, or for a turn.
    pub(super) fn expire(&mut self, wire: &mut impl Wire, now_ns: u64) {
        while let Some((connection, sent_ns)) = self.flights.oldest()
            && sent_ns.saturating_add(self.request_ns) <= now_ns
        {
            let span = Duration::from_nanos(self.request_ns);
            let why = format_args!("no whole answer within {span:?}");
            self.recorder.reason(ErrorClass::Timeout, why);
            self.fail_first(connection, ErrorClass::Timeout, now_ns);
            self.fail_all(connection, ErrorClass::Reset, now_ns);
            wire.close(connection);
            self.lost(connection, now_ns);
        }
        self.expire_attempts(wire, now_ns);
        if self.waiting == 0 {
            return;
        }
        for at in 0..self.pools.len() {
            while let Some(flight) = self.pools[at]
                .backlog
                .pop_front_if(|flight| flight.due_ns.saturating_add(self.request_ns) <= now_ns)
            {
                self.waiting -= 1;
                let span = Duration::from_nanos(self.request_ns);
                let why = format_args!("no connection was free within {span:?}");
                self.recorder.reason(ErrorClass::Timeout, why);
                self.never_sent(&flight, ErrorClass::Timeout, now_ns);
            }
        }
    }
}
