//! The answer's way to the client.

use std::fmt::Debug;
use std::io;

use ballast_http1::{BodyLength, BodyReader, Refusal, Response, Version, parse_response};

use super::connection::{Connection, UNSENT_MAX};
use super::exchange::{Exchange, Progress};
use super::head;
use super::shell::{Closing, Desk, Input, Shell, Side};
use crate::l7::answer::Reason;
use crate::l7::balancer::UPGRADED_IDLE;
use crate::policy::sticky::set_cookie;
use crate::policy::{Failure, Outcome};

/// What was read of an answer's head.
enum Head {
    /// Not all of it.
    Partial,
    /// One before the answer (100, 103), of this length.
    Interim(usize),
    /// The answer's, of this length; it is on its way to the client, unless it may go there as it
    /// came.
    Final { length: usize, verbatim: bool },
    /// The other protocol begins after this length.
    Switched(usize),
    /// What came is no answer.
    Wrong,
}

impl<L: Copy + PartialEq + Debug> Connection<L> {
    /// The endpoint accepted the connection, or did not.
    pub fn link_connected<S: Shell<Link = L>>(
        &mut self,
        link: L,
        result: io::Result<()>,
        desk: &mut Desk<L>,
        shell: &mut S,
    ) {
        if self.hedge_connected(link, result.is_ok(), shell) || !self.is_current(link) {
            return;
        }
        match result {
            Ok(()) => self.connected(shell),
            Err(_) => self.fail_over(Failure::Connecting, Reason::ConnectFailed, desk, shell),
        }
    }

    /// All that was queued for the endpoint is taken.
    pub fn link_sent<S: Shell<Link = L>>(&mut self, link: L, shell: &mut S) {
        if self.is_current(link)
            && let Some(exchange) = &mut self.exchange
            && exchange.client_paused
            && exchange.progress != Progress::Connecting
        {
            exchange.client_paused = false;
            shell.resume(Side::Client);
            if exchange.progress == Progress::Asking {
                self.await_answer(shell);
            }
        }
    }

    /// The endpoint's connection ended: by its FIN, broken, or cut because it was taken out.
    pub fn link_ended<S: Shell<Link = L>>(
        &mut self,
        link: L,
        broken: bool,
        desk: &mut Desk<L>,
        shell: &mut S,
    ) {
        if self.hedge_ended(link, shell) || !self.is_current(link) {
            return;
        }
        let Some(exchange) = &mut self.exchange else {
            return;
        };
        match exchange.progress {
            Progress::Waiting | Progress::Pausing => {}
            Progress::Connecting => {
                self.fail_over(Failure::Connecting, Reason::ConnectFailed, desk, shell);
            }
            Progress::Asking => {
                self.fail_over(Failure::Later, Reason::EndpointFailed, desk, shell);
            }
            Progress::Answering if !broken && exchange.answer.ended().is_ok() => {
                exchange.link_keep = false;
                self.finish(desk, shell);
            }
            Progress::Answering => self.abort(shell),
            Progress::Tunnel if broken => self.abort(shell),
            Progress::Tunnel if self.ended => self.end_tunnel(desk, shell),
            Progress::Tunnel => {
                exchange.link_keep = false;
                exchange.until_close = true;
                shell.shutdown(Side::Client);
            }
        }
    }

    /// The endpoint sent bytes.
    pub fn link_received<S: Shell<Link = L>>(
        &mut self,
        link: L,
        bytes: &[u8],
        desk: &mut Desk<L>,
        shell: &mut S,
    ) {
        if self.exchange.as_ref().is_some_and(|it| it.hedge.is_some()) {
            self.decide(link, shell);
        }
        if !self.is_current(link) {
            return;
        }
        let Some(exchange) = &mut self.exchange else {
            return;
        };
        if exchange.partial.is_empty() {
            let input = Input { bytes, lent: true };
            self.answer_bytes(input, desk, shell);
            return;
        }
        let mut partial = std::mem::take(&mut exchange.partial);
        partial.extend_from_slice(bytes);
        let input = Input {
            bytes: &partial,
            lent: false,
        };
        self.answer_bytes(input, desk, shell);
    }

    fn is_current(&self, link: L) -> bool {
        let exchange = self.exchange.as_ref();
        exchange.is_some_and(|exchange| exchange.link == Some(link))
    }

    fn answer_bytes<S: Shell<Link = L>>(
        &mut self,
        input: Input<'_>,
        desk: &mut Desk<L>,
        shell: &mut S,
    ) {
        let mut from = 0;
        // Where that begins which is passed on as it is.
        let mut start = 0;
        while let Some(exchange) = &mut self.exchange
            && exchange.progress == Progress::Asking
        {
            match exchange.answer_head(&input.bytes[from..], self.ended, desk, shell) {
                Head::Partial => {
                    exchange.partial.extend_from_slice(&input.bytes[from..]);
                    return;
                }
                Head::Interim(length) => {
                    from += length;
                    start = from;
                }
                Head::Final { length, verbatim } => {
                    start = if verbatim { from } else { from + length };
                    from += length;
                }
                Head::Switched(length) => {
                    self.deadline = shell.now() + UPGRADED_IDLE;
                    from += length;
                    start = from;
                }
                Head::Wrong => {
                    return self.fail_over(Failure::Later, Reason::EndpointFailed, desk, shell);
                }
            }
            if from == input.bytes.len() && exchange.progress == Progress::Asking {
                return;
            }
        }
        match self.exchange.as_ref().map(|exchange| exchange.progress) {
            Some(Progress::Answering) => self.answer_body(input, from, start, desk, shell),
            Some(Progress::Tunnel) => self.tunnelled(input, start, shell),
            _ => {}
        }
    }

    /// Passes on the body from `from` on, and with it what is already decided to be passed on,
    /// which begins at `start`.
    fn answer_body<S: Shell<Link = L>>(
        &mut self,
        input: Input<'_>,
        from: usize,
        start: usize,
        desk: &mut Desk<L>,
        shell: &mut S,
    ) {
        let Some(exchange) = &mut self.exchange else {
            return;
        };
        let end = if exchange.unchunk {
            exchange.unchunked(input, from, shell)
        } else {
            let rest = &input.bytes[from..];
            let skimmed = exchange.answer.skim(rest, shell.limits());
            skimmed.map(|skimmed| {
                exchange.traffic.sent += skimmed.payload as u64;
                from + skimmed.taken
            })
        };
        let Ok(end) = end else {
            // As much as was right has not been passed on either: the client sees it cut.
            return self.abort(shell);
        };
        if !exchange.unchunk && start < end {
            shell.pass(Side::Client, input, start..end);
        }
        if end < input.bytes.len() {
            // It sent more than it had announced: where its next answer begins is not known.
            exchange.link_keep = false;
        }
        if exchange.answer.is_done() {
            return self.finish(desk, shell);
        }
        if let Some(flight) = &exchange.flight {
            shell.progressed(flight.backend());
        }
        self.hold_back(shell);
        if let Some(exchange) = &self.exchange {
            let timeouts = exchange.timeouts(shell.timeouts());
            let whole = exchange.begun + timeouts.whole;
            self.deadline = whole.min(shell.now() + timeouts.read);
        }
    }

    /// Stops reading from the endpoint if the client does not take what is queued.
    fn hold_back<S: Shell<Link = L>>(&mut self, shell: &mut S) {
        if let Some(exchange) = &mut self.exchange
            && let Some(link) = exchange.link
            && !exchange.link_paused
            && shell.unsent(Side::Client) > UNSENT_MAX
        {
            exchange.link_paused = true;
            shell.pause(Side::Link(link));
        }
    }

    /// The answer is whole.
    fn finish<S: Shell<Link = L>>(&mut self, desk: &mut Desk<L>, shell: &mut S) {
        let Some(mut exchange) = self.exchange.take() else {
            return;
        };
        // An answer that did not wait for all of the request leaves both connections in its middle.
        let whole = exchange.request.is_done();
        if let Some(link) = exchange.link.take() {
            if exchange.link_keep && whole {
                if exchange.link_paused {
                    shell.resume(Side::Link(link));
                }
                shell.release(link);
            } else {
                shell.discard(link);
            }
        }
        let ended = exchange.ended(0, "", shell.now());
        shell.finished(exchange.pool.as_ref(), ended, exchange.story.as_deref());
        if let Some(flight) = exchange.flight.take() {
            shell.judge(flight, Outcome::Status(exchange.status));
        }
        let keep = exchange.keep && whole && !exchange.until_close && !self.ended;
        let paused = exchange.client_paused;
        desk.spare.give(exchange);
        if paused {
            shell.resume(Side::Client);
        }
        self.next(keep, desk, shell);
    }

    /// Bytes of the client after both agreed on another protocol.
    pub(super) fn tunnel_bytes<S: Shell<Link = L>>(&mut self, input: Input<'_>, shell: &mut S) {
        let Some(exchange) = &mut self.exchange else {
            return;
        };
        let Some(link) = exchange.link else {
            return;
        };
        shell.pass(Side::Link(link), input, 0..input.bytes.len());
        if shell.unsent(Side::Link(link)) > UNSENT_MAX && !exchange.client_paused {
            exchange.client_paused = true;
            shell.pause(Side::Client);
        }
        self.deadline = shell.now() + UPGRADED_IDLE;
    }

    fn tunnelled<S: Shell<Link = L>>(&mut self, input: Input<'_>, start: usize, shell: &mut S) {
        if start < input.bytes.len() {
            shell.pass(Side::Client, input, start..input.bytes.len());
        }
        if let Some(flight) = self.exchange.as_ref().and_then(|e| e.flight.as_ref()) {
            shell.progressed(flight.backend());
        }
        self.hold_back(shell);
        self.deadline = shell.now() + UPGRADED_IDLE;
    }

    /// Both directions have ended, or nothing came for too long.
    pub(super) fn end_tunnel<S: Shell<Link = L>>(&mut self, desk: &mut Desk<L>, shell: &mut S) {
        self.drop_exchange(101, "", desk, shell);
        self.close(Closing::Sent, shell);
    }
}

impl<L: Copy + PartialEq + Debug> Exchange<L> {
    /// Reads the head of an answer, and begins with it at the client.
    fn answer_head<S: Shell<Link = L>>(
        &mut self,
        bytes: &[u8],
        ended: bool,
        desk: &mut Desk<L>,
        shell: &mut S,
    ) -> Head {
        let Desk { scratch, out, .. } = desk;
        let response = match parse_response(bytes, scratch, self.kind, shell.limits()) {
            Ok(Some(response)) => response,
            Ok(None) => return Head::Partial,
            Err(_) => return Head::Wrong,
        };
        let length = response.head_len();
        if let Some(flight) = &self.flight {
            let latency = shell.now() - self.attempt_begun;
            self.first_byte = Some(shell.now() - self.begun);
            shell.responded(flight.backend(), latency);
        }
        if response.status() == 101 {
            if !self.upgrade {
                return Head::Wrong;
            }
            out.clear();
            head::write_response(out, &response, head::Towards::upgraded(), &self.way, None);
            shell.send(Side::Client, out);
            self.status = 101;
            self.keep = false;
            self.progress = Progress::Tunnel;
            return Head::Switched(length);
        }
        if response.is_interim() {
            // HTTP/1.0 knows no such answers.
            if !self.old {
                shell.send(Side::Client, &bytes[..length]);
            }
            return Head::Interim(length);
        }
        self.keep &= !ended && !shell.draining();
        let verbatim = self.begin_answer(&response, out, shell);
        Head::Final { length, verbatim }
    }

    /// Passes on what is in the chunks; returns up to where the body goes.
    fn unchunked<S: Shell<Link = L>>(
        &mut self,
        input: Input<'_>,
        from: usize,
        shell: &mut S,
    ) -> Result<usize, Refusal> {
        let mut end = from;
        while end < input.bytes.len() && !self.answer.is_done() {
            let fed = self.answer.feed(&input.bytes[end..], shell.limits())?;
            if !fed.data.is_empty() {
                self.traffic.sent += fed.data.len() as u64;
                let part = end + fed.data.start..end + fed.data.end;
                shell.pass(Side::Client, input, part);
            }
            end += fed.taken;
        }
        Ok(end)
    }

    /// Notes what kind of answer it is. Returns whether its head may go to the client as it came;
    /// otherwise another one was sent.
    fn begin_answer<S: Shell<Link = L>>(
        &mut self,
        response: &Response<'_>,
        out: &mut Vec<u8>,
        shell: &mut S,
    ) -> bool {
        let body = response.body();
        self.progress = Progress::Answering;
        self.status = response.status();
        self.answer = BodyReader::new(body);
        self.link_keep = response.keep_alive() && body != BodyLength::UntilClose;
        self.unchunk = self.old && body == BodyLength::Chunked;
        self.until_close = body == BodyLength::UntilClose || self.unchunk;
        self.keep &= !self.until_close;
        let plain = self.keep && !self.old && response.version() == Version::Http11;
        let cookie = self.cookie();
        let as_is = plain && cookie.is_none() && self.way.leaves_response();
        if as_is && head::is_end_to_end(response) {
            return true;
        }
        let towards = head::Towards {
            keep: self.keep,
            old: self.old,
            chunked: body == BodyLength::Chunked && !self.unchunk,
            upgrade: false,
        };
        out.clear();
        head::write_response(out, response, towards, &self.way, cookie.as_deref());
        shell.send(Side::Client, out);
        false
    }

    /// Returns the cookie that binds the client to its endpoint, if the pool wants that and it has
    /// another one or none.
    fn cookie(&self) -> Option<String> {
        let spec = self.pool.as_ref()?.sticky()?;
        let name = self.flight.as_ref()?.backend().cookie();
        if self.way.affinity.sticky == Some(name) {
            return None;
        }
        Some(set_cookie(spec, name, self.tls))
    }
}
