//! The request's way to an endpoint: choosing, sending, failing, choosing again.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use ballast_http1::RequestKind;

use super::connection::{Connection, Phase, REPLAY_MAX, UNSENT_MAX};
use super::exchange::Progress;
use super::head::{self, Own};
use super::shell::{Closing, Desk, Input, Shell, Side};
use crate::l7::answer::Reason;
use crate::policy::{Attempt, Failure, Outcome, Refused};
use crate::table::InFlight;

/// Whether an endpoint was found.
enum Choice {
    Begun(InFlight),
    /// Not now; a new table may change that.
    Wait,
    /// In vain.
    GiveUp,
}

impl<L: Copy + PartialEq + Debug> Connection<L> {
    /// Tries endpoints until one is being connected to or asked, or none is left.
    pub(super) fn attempt<S: Shell<Link = L>>(&mut self, desk: &mut Desk<L>, shell: &mut S) {
        loop {
            let flight = match self.choose(shell) {
                Choice::Begun(flight) => flight,
                Choice::Wait => return,
                Choice::GiveUp => return self.give_up(self.unfound(), desk, shell),
            };
            let Some(exchange) = &mut self.exchange else {
                return;
            };
            exchange.place = None;
            exchange.pending = None;
            exchange.attempt_begun = shell.now();
            exchange.endpoint = Some(flight.backend().address);
            let dialed = shell.dial(flight.backend());
            exchange.flight = Some(flight);
            if let Some((link, connected)) = dialed {
                exchange.link = Some(link);
                shell.send(Side::Link(link), &exchange.replay);
                if connected {
                    self.connected(shell);
                } else {
                    exchange.progress = Progress::Connecting;
                    let timeouts = exchange.timeouts(shell.timeouts());
                    let end = exchange.begun + timeouts.whole;
                    self.deadline = end.min(exchange.attempt_begun + timeouts.connect);
                }
                return;
            }
            if !self.fail(Failure::Connecting, Outcome::ConnectFailed, shell) {
                return self.give_up(Reason::ConnectFailed, desk, shell);
            }
        }
    }

    /// Begins at an endpoint. If none takes it, but the pool has members, it waits for a while: as
    /// when the only replica of a service restarts. The pool then becomes the newest of its name,
    /// and those tried are forgotten: what refused before may be another program by now.
    fn choose<S: Shell<Link = L>>(&mut self, shell: &mut S) -> Choice {
        let Some(exchange) = &mut self.exchange else {
            return Choice::GiveUp;
        };
        let end = exchange.end(shell.timeouts());
        let Some(pool) = &mut exchange.pool else {
            return Choice::GiveUp;
        };
        match shell.begin(pool, exchange.way.affinity, &exchange.tried) {
            Ok(flight) => return Choice::Begun(flight),
            Err(Refused::NoEndpoint) => {}
            Err(Refused::Overloaded(_)) => return Choice::GiveUp,
        }
        let Some(newest) = shell.newest(pool) else {
            return Choice::GiveUp;
        };
        if !Arc::ptr_eq(&newest, pool) {
            exchange.tried.clear();
            *pool = newest;
            match shell.begin(pool, exchange.way.affinity, &exchange.tried) {
                Ok(flight) => return Choice::Begun(flight),
                Err(Refused::NoEndpoint) => {}
                Err(Refused::Overloaded(_)) => return Choice::GiveUp,
            }
        }
        let deadline = end.min(exchange.begun + pool.hold(shell.timeouts().hold));
        if pool.members.is_empty() || shell.now() >= deadline {
            return Choice::GiveUp;
        }
        if exchange.place.is_none() {
            exchange.pending = pool.wait().ok();
            exchange.place = exchange.pending.is_some().then(|| shell.hold()).flatten();
        }
        if exchange.place.is_none() {
            exchange.pending = None;
            return Choice::GiveUp;
        }
        exchange.progress = Progress::Waiting;
        self.deadline = deadline;
        Choice::Wait
    }

    /// Returns what to say when no endpoint is to be had.
    fn unfound(&self) -> Reason {
        match &self.exchange {
            Some(exchange) if exchange.attempts > 0 => Reason::ConnectFailed,
            _ => Reason::NoEndpoint,
        }
    }

    /// The table has changed.
    pub fn table_changed<S: Shell<Link = L>>(&mut self, desk: &mut Desk<L>, shell: &mut S) {
        if self.is_waiting() {
            self.attempt(desk, shell);
        }
    }

    /// The connection to the endpoint is there, and the request on its way.
    pub(super) fn connected<S: Shell<Link = L>>(&mut self, shell: &mut S) {
        let Some(exchange) = &mut self.exchange else {
            return;
        };
        exchange.progress = Progress::Asking;
        if !exchange.idempotent {
            // From here on it may be executed, and never again.
            exchange.replayable = false;
        }
        if exchange.client_paused {
            exchange.client_paused = false;
            shell.resume(Side::Client);
        }
        self.await_answer(shell);
    }

    /// Takes bytes of the request from `from` on: sends them, and keeps them as long as they may be
    /// needed again. Returns up to where they belong to this request.
    pub(super) fn request_bytes<S: Shell<Link = L>>(
        &mut self,
        input: Input<'_>,
        from: usize,
        desk: &mut Desk<L>,
        shell: &mut S,
    ) -> usize {
        let Some(exchange) = &mut self.exchange else {
            return from;
        };
        if exchange.progress == Progress::Tunnel {
            self.tunnel_bytes(input, shell);
            return input.bytes.len();
        }
        let mut end = from;
        if end < input.bytes.len() && !exchange.request.is_done() {
            match exchange.request.skim(&input.bytes[end..], shell.limits()) {
                Ok(skimmed) => {
                    end += skimmed.taken;
                    exchange.traffic.received += skimmed.payload as u64;
                }
                Err(refusal) => {
                    if exchange.progress == Progress::Answering {
                        self.abort(shell);
                    } else {
                        let code = Reason::BadRequest.code();
                        self.drop_exchange(refusal.status(), code, desk, shell);
                        self.refuse(refusal, desk, shell);
                    }
                    return input.bytes.len();
                }
            }
        }
        if end == from {
            return end;
        }
        if exchange.drips(shell.now(), shell.timeouts()) {
            self.give_up(Reason::RequestTimeout, desk, shell);
            return input.bytes.len();
        }
        if !exchange.way.admits_body(exchange.traffic.received) {
            self.give_up(Reason::BodyTooLarge, desk, shell);
            return input.bytes.len();
        }
        let bytes = &input.bytes[from..end];
        let open = matches!(
            exchange.progress,
            Progress::Waiting | Progress::Pausing | Progress::Connecting
        );
        if open || exchange.replayable && exchange.replay.len() + bytes.len() <= REPLAY_MAX {
            exchange.replay.extend_from_slice(bytes);
        } else {
            exchange.replayable = false;
        }
        let mut pause = open && exchange.replay.len() > REPLAY_MAX;
        if let Some(link) = exchange.link {
            shell.pass(Side::Link(link), input, from..end);
            pause |= shell.unsent(Side::Link(link)) > UNSENT_MAX;
        }
        if pause && !exchange.client_paused {
            exchange.client_paused = true;
            exchange.was_paused = true;
            shell.pause(Side::Client);
        }
        if exchange.progress == Progress::Asking {
            self.await_answer(shell);
        }
        end
    }

    /// Ends the current attempt; returns whether to try another.
    pub(super) fn fail<S: Shell<Link = L>>(
        &mut self,
        failure: Failure,
        outcome: Outcome,
        shell: &mut S,
    ) -> bool {
        let Some(exchange) = &mut self.exchange else {
            return false;
        };
        exchange.attempts += 1;
        exchange.partial.clear();
        if let Some(link) = exchange.link.take() {
            shell.discard(link);
        }
        if let Some(flight) = exchange.flight.take() {
            exchange.tried.push(Arc::clone(flight.backend()));
            shell.judge(flight, outcome);
        }
        let attempt = Attempt {
            failure,
            idempotent: exchange.idempotent,
            response_begun: exchange.status != 0,
            body_kept: exchange.replayable,
            attempts: exchange.attempts,
        };
        let pool = exchange.pool.as_ref();
        pool.is_some_and(|pool| shell.may_retry(pool, &attempt))
    }

    /// Tries again after a failure, or says that it was one.
    pub(super) fn fail_over<S: Shell<Link = L>>(
        &mut self,
        failure: Failure,
        reason: Reason,
        desk: &mut Desk<L>,
        shell: &mut S,
    ) {
        let outcome = match (failure, reason) {
            (Failure::NotTheEndpoint, _) => Outcome::Cancelled,
            (Failure::Connecting, _) => Outcome::ConnectFailed,
            (_, Reason::Timeout) => Outcome::Timeout,
            _ => Outcome::Reset,
        };
        if self.promote(outcome, shell) {
            return;
        }
        if !self.fail(failure, outcome, shell) {
            return self.give_up(reason, desk, shell);
        }
        let pause = match &self.exchange {
            Some(exchange) => exchange.pool.as_ref().map_or(Duration::ZERO, |pool| {
                shell.backoff(pool, exchange.attempts)
            }),
            None => return,
        };
        if pause.is_zero() {
            return self.attempt(desk, shell);
        }
        if let Some(exchange) = &mut self.exchange {
            exchange.progress = Progress::Pausing;
            self.deadline = (shell.now() + pause).min(exchange.end(shell.timeouts()));
        }
    }

    /// Answers for the endpoint. If the client has seen a part of an answer, all that is left is to
    /// break off, so that it is not taken for whole.
    pub(super) fn give_up<S: Shell<Link = L>>(
        &mut self,
        reason: Reason,
        desk: &mut Desk<L>,
        shell: &mut S,
    ) {
        let Some(exchange) = &self.exchange else {
            return;
        };
        if exchange.status != 0 {
            return self.abort(shell);
        }
        let bodiless = exchange.kind == RequestKind::Head;
        let unserved = matches!(reason, Reason::NoEndpoint | Reason::ConnectFailed);
        desk.out.clear();
        let fallback = exchange.way.fallback().filter(|_| unserved);
        let status = if let Some(fallback) = fallback {
            head::write_answer(&mut desk.out, fallback, false, bodiless);
            fallback.status
        } else {
            let own = Own {
                bodiless,
                ..Own::last(reason)
            };
            head::write_own(&mut desk.out, own);
            reason.status()
        };
        self.drop_exchange(status, reason.code(), desk, shell);
        shell.send(Side::Client, &desk.out);
        // The rest of the request may still be on its way.
        self.close(Closing::Sent, shell);
    }

    /// Breaks off in the middle of an answer, which is the endpoint's doing.
    pub(super) fn abort<S: Shell<Link = L>>(&mut self, shell: &mut S) {
        self.abort_as(Outcome::Reset, shell);
    }

    /// The same, the endpoint being judged like this.
    fn abort_as<S: Shell<Link = L>>(&mut self, outcome: Outcome, shell: &mut S) {
        if let Some(mut exchange) = self.exchange.take() {
            if let Some(link) = exchange.link.take() {
                shell.discard(link);
            }
            let reason = Reason::EndpointFailed;
            let ended = exchange.ended(reason.status(), reason.code(), shell.now());
            shell.finished(exchange.pool.as_ref(), ended, exchange.story.as_deref());
            if let Some(flight) = exchange.flight.take() {
                shell.judge(flight, outcome);
            }
        }
        self.close(Closing::Reset, shell);
    }

    /// Ends the exchange without a word to the client.
    pub(super) fn drop_exchange<S: Shell<Link = L>>(
        &mut self,
        status: u16,
        reason: &'static str,
        desk: &mut Desk<L>,
        shell: &mut S,
    ) {
        if let Some(mut exchange) = self.exchange.take() {
            exchange.drop_hedge(Outcome::Cancelled, shell);
            if let Some(link) = exchange.link.take() {
                shell.discard(link);
            }
            let ended = exchange.ended(status, reason, shell.now());
            shell.finished(exchange.pool.as_ref(), ended, exchange.story.as_deref());
            if let Some(flight) = exchange.flight.take() {
                shell.judge(flight, Outcome::Cancelled);
            }
            desk.spare.give(exchange);
        }
    }

    /// Nothing happened for too long.
    pub(super) fn exchange_expired<S: Shell<Link = L>>(
        &mut self,
        desk: &mut Desk<L>,
        shell: &mut S,
    ) {
        let Some(exchange) = &self.exchange else {
            return;
        };
        let now = shell.now();
        let tunnel = exchange.progress == Progress::Tunnel;
        if !tunnel && now >= exchange.end(shell.timeouts()) {
            return self.overdue(desk, shell);
        }
        match exchange.progress {
            Progress::Waiting => self.give_up(self.unfound(), desk, shell),
            Progress::Pausing => self.attempt(desk, shell),
            Progress::Connecting => match exchange.patient_until(now, shell.timeouts()) {
                Some(later) => self.deadline = later,
                None => self.fail_over(Failure::Connecting, Reason::Timeout, desk, shell),
            },
            Progress::Asking if now < exchange.due => self.hedge(shell),
            Progress::Asking if exchange.waits_for_client() => {
                self.give_up(Reason::RequestTimeout, desk, shell);
            }
            Progress::Asking => self.fail_over(Failure::Later, Reason::Timeout, desk, shell),
            // The endpoint was told to wait, since the client does not read.
            Progress::Answering if exchange.link_paused => {
                self.abort_as(Outcome::Cancelled, shell);
            }
            Progress::Answering => self.abort(shell),
            Progress::Tunnel => self.end_tunnel(desk, shell),
        }
        debug_assert!(self.phase != Phase::Exchange || self.deadline > shell.now());
    }

    /// All of the time that a request may take has passed.
    fn overdue<S: Shell<Link = L>>(&mut self, desk: &mut Desk<L>, shell: &mut S) {
        let Some(exchange) = &self.exchange else {
            return;
        };
        if exchange.status != 0 {
            return self.abort_as(Outcome::Cancelled, shell);
        }
        let reason = if exchange.progress == Progress::Asking && exchange.waits_for_client() {
            Reason::RequestTimeout
        } else {
            Reason::Timeout
        };
        self.give_up(reason, desk, shell);
    }
}
