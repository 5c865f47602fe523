//! A second attempt beside one that is slow: the first to answer wins, and the other is dropped.
//!
//! Only what may run twice is asked twice: the request is idempotent, all of it was sent and is
//! kept, its route wants it, and the budget of the retries has room. The first byte of an answer
//! decides. If one of the two fails, the other goes on in its place, and no retry is spent.

use std::fmt::Debug;
use std::sync::Arc;

use super::connection::Connection;
use super::exchange::{Exchange, Progress};
use super::shell::{Shell, Side};
use crate::policy::{Attempt, Failure, Outcome};
use crate::table::InFlight;

/// The second attempt.
#[derive(Debug)]
pub struct Hedge<L> {
    pub flight: InFlight,
    pub link: L,
    pub connected: bool,
}

impl<L: Copy + PartialEq + Debug> Connection<L> {
    /// Sets when an attempt that is asked is given up, or helped: something has just happened.
    pub(super) fn await_answer<S: Shell<Link = L>>(&mut self, shell: &S) {
        let Some(exchange) = &mut self.exchange else {
            return;
        };
        let now = shell.now();
        exchange.due = exchange.answer_due(now, shell.timeouts());
        self.deadline = match exchange.hedge_after() {
            Some(after) => exchange.due.min(now + after),
            None => exchange.due,
        };
    }

    /// Asks a second endpoint as well, if that is safe and there is one.
    pub(super) fn hedge<S: Shell<Link = L>>(&mut self, shell: &mut S) {
        let Some(exchange) = &mut self.exchange else {
            return;
        };
        self.deadline = exchange.due;
        exchange.hedged = true;
        let attempt = Attempt {
            failure: Failure::Later,
            idempotent: exchange.idempotent,
            response_begun: exchange.status != 0,
            body_kept: exchange.replayable && exchange.request.is_done(),
            attempts: exchange.attempts + 1,
        };
        let (Some(pool), Some(flight)) = (&exchange.pool, &exchange.flight) else {
            return;
        };
        exchange.tried.push(Arc::clone(flight.backend()));
        let begun = shell.begin_hedge(pool, exchange.way.affinity, &exchange.tried, &attempt);
        // As long as it has not failed it may be asked again.
        exchange.tried.pop();
        let Some(flight) = begun else {
            return;
        };
        let Some((link, connected)) = shell.dial(flight.backend()) else {
            return shell.judge(flight, Outcome::ConnectFailed);
        };
        shell.send(Side::Link(link), &exchange.replay);
        exchange.hedge = Some(Hedge {
            flight,
            link,
            connected,
        });
    }

    /// Notes what happened to a second attempt; returns whether it is one's.
    pub(super) fn hedge_connected<S: Shell<Link = L>>(
        &mut self,
        link: L,
        fine: bool,
        shell: &mut S,
    ) -> bool {
        let Some(exchange) = self.hedging(link) else {
            return false;
        };
        if !fine {
            exchange.drop_hedge(Outcome::ConnectFailed, shell);
        } else if let Some(hedge) = &mut exchange.hedge {
            hedge.connected = true;
        }
        true
    }

    /// The second attempt's connection ended; returns whether it was one's.
    pub(super) fn hedge_ended<S: Shell<Link = L>>(&mut self, link: L, shell: &mut S) -> bool {
        let Some(exchange) = self.hedging(link) else {
            return false;
        };
        let connected = exchange.hedge.as_ref().is_some_and(|one| one.connected);
        let outcome = if connected {
            Outcome::Reset
        } else {
            Outcome::ConnectFailed
        };
        if let Some(hedge) = &exchange.hedge {
            exchange.tried.push(Arc::clone(hedge.flight.backend()));
        }
        exchange.drop_hedge(outcome, shell);
        true
    }

    /// One of two attempts has answered: it is the only one from here on.
    pub(super) fn decide<S: Shell<Link = L>>(&mut self, link: L, shell: &mut S) {
        if self.hedging(link).is_some() {
            self.promote(Outcome::Cancelled, shell);
        } else if let Some(exchange) = &mut self.exchange {
            exchange.drop_hedge(Outcome::Cancelled, shell);
        }
    }

    /// Puts the second attempt in the place of the first, which ends like this. Returns false if
    /// there is none.
    pub(super) fn promote<S: Shell<Link = L>>(&mut self, outcome: Outcome, shell: &mut S) -> bool {
        let Some(exchange) = &mut self.exchange else {
            return false;
        };
        let Some(hedge) = exchange.hedge.take() else {
            return false;
        };
        exchange.attempts += 1;
        exchange.partial.clear();
        if let Some(link) = exchange.link.replace(hedge.link) {
            shell.discard(link);
        }
        exchange.endpoint = Some(hedge.flight.backend().address);
        if let Some(flight) = exchange.flight.replace(hedge.flight) {
            exchange.tried.push(Arc::clone(flight.backend()));
            shell.judge(flight, outcome);
        }
        if hedge.connected {
            exchange.progress = Progress::Asking;
            self.await_answer(shell);
        } else {
            exchange.progress = Progress::Connecting;
            self.deadline = shell.now() + exchange.timeouts(shell.timeouts()).connect;
        }
        true
    }

    fn hedging(&mut self, link: L) -> Option<&mut Exchange<L>> {
        let exchange = self.exchange.as_deref_mut()?;
        let hedge = exchange.hedge.as_ref()?;
        (hedge.link == link).then_some(exchange)
    }
}

impl<L: Copy + PartialEq + Debug> Exchange<L> {
    /// Ends the second attempt, if there is one.
    pub(super) fn drop_hedge<S: Shell<Link = L>>(&mut self, outcome: Outcome, shell: &mut S) {
        if let Some(hedge) = self.hedge.take() {
            shell.discard(hedge.link);
            shell.judge(hedge.flight, outcome);
        }
    }
}
