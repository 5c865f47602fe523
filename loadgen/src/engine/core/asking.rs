//! What is due, and which connection takes it.

use std::cmp::Reverse;

use rand::RngExt;

use super::super::connection::State;
use super::super::flights::Flight;
use super::super::wire::Wire;
use super::{Core, Then, nanos};
use crate::plan::{BACKLOG, Pick, Think};
use crate::record::ErrorClass;

impl Core {
    /// Looks when the next request is due.
    pub(super) fn draw(&mut self) {
        let zero_ns = self.zero_ns;
        let next = self.schedule.as_mut().and_then(Iterator::next);
        self.due_ns = next.map(|due| zero_ns.saturating_add(nanos(due)));
    }

    /// Releases what is due: to a connection that has room, or to the backlog.
    pub(super) fn release(&mut self, wire: &mut impl Wire, now_ns: u64) {
        while let Some(due_ns) = self.due_ns
            && due_ns <= now_ns
        {
            self.draw();
            let number = self.number();
            let flight = flight(number, self.picker.pick(number), due_ns);
            self.recorder
                .released(self.since_zero(due_ns), self.since_zero(now_ns));
            self.place(wire, flight, now_ns);
        }
    }

    fn place(&mut self, wire: &mut impl Wire, flight: Flight, now_ns: u64) {
        let at = usize::from(self.of_target[usize::from(flight.pick.target)]);
        if let Some(class) = self.pools[at].down {
            self.never_sent(&flight, class, now_ns);
        } else if let Some(connection) = self.take_free(at) {
            self.send(wire, connection, flight, now_ns);
            self.list(connection);
        } else if self.waiting < BACKLOG {
            self.waiting += 1;
            self.pools[at].backlog.push_back(flight);
        } else {
            self.never_sent(&flight, ErrorClass::Overload, now_ns);
        }
    }

    fn number(&mut self) -> u64 {
        let number = self.released * self.lanes + self.index;
        self.released += 1;
        number
    }

    /// Takes the connection that has had room for the longest time.
    fn take_free(&mut self, pool: usize) -> Option<u32> {
        while let Some(connection) = self.pools[pool].free.pop_front() {
            self.connections[connection as usize].is_listed = false;
            if self.has_room(connection) {
                return Some(connection);
            }
        }
        None
    }

    /// Lists a connection as free if it has room.
    fn list(&mut self, connection: u32) {
        if self.has_room(connection) {
            let it = &mut self.connections[connection as usize];
            if !std::mem::replace(&mut it.is_listed, true) {
                self.pools[usize::from(it.pool)].free.push_back(connection);
            }
        }
    }

    fn has_room(&self, connection: u32) -> bool {
        let it = &self.connections[connection as usize];
        it.state == State::Open
            && !it.is_retiring
            && it.asked < self.churn.requests
            && self.flights.count(connection) < self.pipeline
    }

    /// Gives an open connection what it has room for; closes it if its time has come.
    pub(super) fn offer(&mut self, wire: &mut impl Wire, connection: u32, now_ns: u64) {
        let it = &self.connections[connection as usize];
        if it.state != State::Open {
            return;
        }
        let is_spent = it.is_retiring || it.asked >= self.churn.requests;
        if is_spent && self.flights.count(connection) == 0 {
            self.give_back(wire, connection, now_ns);
            return;
        }
        let pool = usize::from(it.pool);
        while self.waiting > 0 && self.has_room(connection) {
            let Some(flight) = self.pools[pool].backlog.pop_front() else {
                break;
            };
            self.waiting -= 1;
            self.send(wire, connection, flight, now_ns);
        }
        if self.think.is_none() {
            self.list(connection);
        } else if self.started && !self.is_scheduled(now_ns) {
            self.ask(wire, connection, now_ns);
        }
    }

    /// Lets a connection of a closed loop ask by itself.
    fn ask(&mut self, wire: &mut impl Wire, connection: u32, now_ns: u64) {
        let pauses = self.connections[connection as usize].pauses;
        while self.has_room(connection) && self.flights.count(connection) + pauses < self.pipeline {
            let flight = self.own(connection, now_ns);
            self.send(wire, connection, flight, now_ns);
        }
    }

    /// Returns the next request of a connection of a closed loop.
    pub(super) fn own(&mut self, connection: u32, due_ns: u64) -> Flight {
        let number = self.number();
        let pool = usize::from(self.connections[connection as usize].pool);
        flight(number, self.pools[pool].pick(number), due_ns)
    }

    fn send(&mut self, wire: &mut impl Wire, connection: u32, mut flight: Flight, now_ns: u64) {
        flight.bodiless = self.renderer.is_bodiless(flight.pick);
        let bytes = self.renderer.render(flight.pick, flight.number);
        wire.send(connection, bytes);
        flight.sent_bytes = bytes.len() as u64;
        flight.sent_ns = now_ns;
        self.flights.push(connection, flight);
        self.connections[connection as usize].asked += 1;
    }

    /// Lets the user of a closed loop's connection think, if that takes time.
    pub(super) fn pause(&mut self, connection: u32, now_ns: u64) {
        let pause_ns = match self.think {
            None | Some(Think::None) => return,
            Some(Think::Constant(span)) => nanos(span),
            Some(Think::Exponential(mean)) => {
                let uniform: f64 = self.rng.random();
                nanos(mean.mul_f64(-(1.0 - uniform).ln()))
            }
        };
        let it = &mut self.connections[connection as usize];
        it.pauses += 1;
        let at_ns = now_ns.saturating_add(pause_ns);
        self.later
            .push(Reverse((at_ns, connection, it.generation, Then::Ask)));
    }
}

fn flight(number: u64, pick: Pick, due_ns: u64) -> Flight {
    Flight {
        number,
        pick,
        bodiless: false,
        resent: false,
        due_ns,
        sent_ns: 0,
        sent_bytes: 0,
    }
}
