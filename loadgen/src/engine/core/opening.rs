//! Connections that come and go.

use std::cmp::Reverse;
use std::time::Duration;

use rand::RngExt;

use super::super::connection::State;
use super::super::wire::Wire;
use super::{Core, Then, nanos};
use crate::record::ErrorClass;
use crate::recorder::Limit;
use crate::sample::Opened;

/// Attempts to connect at a time: fewer than the backlog of a careful server holds (128), so that
/// none is dropped there and retried by the kernel a second later.
const CONNECTING: usize = 64;
/// Before the second attempt; it doubles with each further one.
const BACKOFF: Duration = Duration::from_millis(10);
/// The longest it gets.
const MOST_BACKOFF: Duration = Duration::from_secs(1);
/// How often it doubles until then.
const DOUBLINGS: u32 = 7;

impl Core {
    /// Has a closed connection opened as soon as it is its turn.
    pub(super) fn reopen(&mut self, connection: u32) {
        let pool = &mut self.pools[usize::from(self.connections[connection as usize].pool)];
        pool.opening += 1;
        pool.down = None;
        self.to_open.push_back(connection);
    }

    /// Has it opened unless nobody will ask anything any more.
    pub(super) fn reopen_if_needed(&mut self, connection: u32, now_ns: u64) {
        if !self.is_scheduled(now_ns) || self.waiting > 0 {
            self.reopen(connection);
        }
    }

    /// Begins as many attempts as there may be at a time.
    pub(super) fn pump(&mut self, wire: &mut impl Wire, now_ns: u64) {
        while self.connecting < CONNECTING
            && let Some(connection) = self.to_open.pop_front()
        {
            let it = &mut self.connections[connection as usize];
            it.begin(now_ns);
            let deadline_ns = now_ns.saturating_add(self.connect_ns);
            self.attempts
                .push_back((deadline_ns, connection, it.generation));
            self.connecting += 1;
            let address = self.pools[usize::from(it.pool)].address();
            if let Err(class) = wire.connect(connection, address) {
                self.refused(connection, class, now_ns);
            }
        }
    }

    /// Takes that an attempt to connect went well.
    pub fn connected(&mut self, wire: &mut impl Wire, connection: u32, now_ns: u64) {
        let it = &mut self.connections[connection as usize];
        if it.state != State::Connecting {
            return;
        }
        it.state = State::Open;
        self.connecting -= 1;
        let pool = &mut self.pools[usize::from(it.pool)];
        pool.opening -= 1;
        pool.open += 1;
        self.recorder.opened(&Opened {
            connect_ns: now_ns.saturating_sub(it.began_ns),
            tls_ns: None,
        });
        self.offer(wire, connection, now_ns);
        self.pump(wire, now_ns);
    }

    /// Takes that it did not.
    pub fn connect_failed(
        &mut self,
        wire: &mut impl Wire,
        connection: u32,
        class: ErrorClass,
        now_ns: u64,
    ) {
        if self.connections[connection as usize].state == State::Connecting {
            self.refused(connection, class, now_ns);
            self.pump(wire, now_ns);
        }
    }

    fn refused(&mut self, connection: u32, class: ErrorClass, now_ns: u64) {
        match class {
            ErrorClass::Ports => self.recorder.limit(Limit::Ports),
            ErrorClass::Descriptors => self.recorder.limit(Limit::Descriptors),
            _ => {}
        }
        let it = &self.connections[connection as usize];
        let asks = self.think.is_some() && self.started && !self.is_scheduled(now_ns);
        if asks {
            // In a closed loop each user is its connection: what it would have asked fails.
            let flight = self.own(connection, it.began_ns.max(self.zero_ns));
            self.never_sent(&flight, class, now_ns);
        }
        self.lost_for_now(connection, class, now_ns);
    }

    /// Notes that a connection is closed, and opens it again.
    pub(super) fn lost(&mut self, connection: u32, now_ns: u64) {
        self.forget(connection);
        self.reopen_if_needed(connection, now_ns);
    }

    /// Notes that it is closed, and opens it again after a while. What waits fails if none is
    /// left.
    pub(super) fn lost_for_now(&mut self, connection: u32, class: ErrorClass, now_ns: u64) {
        self.forget(connection);
        let jitter: f64 = self.rng.random_range(0.5..1.0);
        let it = &mut self.connections[connection as usize];
        let backoff = (BACKOFF * (1 << it.failures.min(DOUBLINGS))).min(MOST_BACKOFF);
        it.failures += 1;
        let at_ns = now_ns.saturating_add(nanos(backoff.mul_f64(jitter)));
        self.later
            .push(Reverse((at_ns, connection, it.generation, Then::Reopen)));
        let at = usize::from(it.pool);
        if self.pools[at].is_lost() {
            self.pools[at].down = Some(class);
            while let Some(flight) = self.pools[at].backlog.pop_front() {
                self.waiting -= 1;
                self.never_sent(&flight, class, now_ns);
            }
        }
    }

    fn forget(&mut self, connection: u32) {
        let it = &mut self.connections[connection as usize];
        let pool = &mut self.pools[usize::from(it.pool)];
        match std::mem::replace(&mut it.state, State::Closed) {
            State::Open => pool.open -= 1,
            State::Connecting => {
                pool.opening -= 1;
                self.connecting -= 1;
            }
            State::Closed => {}
        }
    }

    /// Closes a connection on which nothing is in flight because the plan wants new ones.
    pub(super) fn give_back(&mut self, wire: &mut impl Wire, connection: u32, now_ns: u64) {
        if self.churn.reset {
            wire.reset(connection);
        } else {
            wire.close(connection);
        }
        self.lost(connection, now_ns);
        self.pump(wire, now_ns);
    }

    /// Marks as many connections as are to go by now.
    pub(super) fn retire(&mut self, wire: &mut impl Wire, now_ns: u64) {
        let Some(every_ns) = self.churn.every_ns.filter(|_| self.started) else {
            return;
        };
        if self.is_scheduled(now_ns) {
            self.churn.every_ns = None;
            return;
        }
        while self.churn_ns <= now_ns {
            self.churn_ns = self.churn_ns.saturating_add(every_ns.max(1));
            let connection = self.churn_turn;
            self.churn_turn = (connection + 1) % self.numbers().end;
            let it = &mut self.connections[connection as usize];
            it.is_retiring = it.state == State::Open;
            self.offer(wire, connection, now_ns);
        }
    }

    /// Gives up attempts that take too long.
    pub(super) fn expire_attempts(&mut self, wire: &mut impl Wire, now_ns: u64) {
        while let Some((deadline_ns, connection, generation)) = self.attempts.front().copied() {
            let it = &self.connections[connection as usize];
            let is_over = it.state != State::Connecting || it.generation != generation;
            if !is_over && deadline_ns > now_ns {
                return;
            }
            self.attempts.pop_front();
            if !is_over {
                wire.close(connection);
                let span = Duration::from_nanos(self.connect_ns);
                let why = format_args!("no connection within {span:?}");
                self.recorder.reason(ErrorClass::Timeout, why);
                self.refused(connection, ErrorClass::Timeout, now_ns);
            }
        }
    }
}
