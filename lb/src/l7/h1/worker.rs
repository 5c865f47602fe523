//! A thread of the hot path: a ring, the machines of its clients, and its connections to endpoints.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::Guard;
use ballast_http1::{Limits, Request};
use ballast_ring::{Handler, Io, Timer, Token};
use tokio::sync::mpsc;

use super::handoff::{HandOver, Kind};
use super::inbox::{Command, Inbox, ListenId};
use super::machine::{
    Asked, Closing, Connection, Desk, Ended, Input, Routed, Shell, Side, Story, Way,
};
use super::relay::send_cipher;
use super::secure::Secure;
use super::telling;
use super::uplinks::{Uplinks, Use};
use crate::hub::{Active, Hub, Place, random_bits};
use crate::l7::balancer::PROBE_TIMEOUT;
use crate::l7::{Entrance, Hops, Timeouts};
use crate::policy::{Affinity, Attempt, Outcome, Refused, Want};
use crate::route::{Answer, Decision, Route};
use crate::table::{Backend, InFlight, Moment, Pool};

/// How often idle connections to endpoints are looked through.
const SWEEP: Duration = Duration::from_millis(250);
/// The key of the timer for it; clients' timers have their index for a key.
const SWEEP_KEY: u64 = u64::MAX;
/// Names of those that waited once are kept until the next table, or until there are so many.
const WAITING_MAX: usize = 8192;

/// A client's connection.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) machine: Connection<Token>,
    token: Token,
    pub(super) peer: SocketAddr,
    /// The place of its listener in `Worker::listeners`.
    pub(super) listener: u32,
    /// What came of the PROXY header that it must begin with.
    pub(super) preface: Option<Vec<u8>>,
    /// Under TLS.
    pub(super) secure: Option<Box<Secure>>,
    /// The timer, and for when it is armed: not later than the machine's deadline.
    pub(super) timer: Option<(Timer, Instant)>,
}

/// An address that is, or was, listened on.
#[derive(Debug)]
pub(super) struct Listener {
    id: ListenId,
    /// None once it is closed.
    token: Option<Token>,
    pub(super) address: SocketAddr,
    pub(super) entrance: Entrance,
}

/// What is the same for all clients of a thread.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) hub: Arc<Hub>,
    timeouts: Timeouts,
    limits: Limits,
    uplinks: Uplinks,
    /// Clients that wait for a new table.
    waiting: VecDeque<Token>,
    draining: bool,
    sweeping: bool,
    /// Plain text that one event has for a client under TLS: encrypted together at its end.
    pending: Vec<u8>,
    pub(super) cipher: Vec<u8>,
    /// What a machine is given is nothing that the ring has lent.
    pub(super) copied: bool,
}

/// A thread's part of the hot path.
#[derive(Debug)]
pub struct Worker {
    pub(super) core: Core,
    desk: Desk<Token>,
    inbox: Arc<Inbox>,
    /// By the index of their token.
    pub(super) clients: Vec<Option<Box<Client>>>,
    count: usize,
    /// Exchanges under way, and the notice of it.
    busy: usize,
    active: Option<Active>,
    pub(super) listeners: Vec<Listener>,
    /// Plain text of the event at hand.
    pub(super) plain: Vec<u8>,
    /// Clients by the socket through which their plain text goes to pingora.
    pub(super) relays: HashMap<Token, Token>,
    pub(super) handoff: mpsc::Sender<HandOver>,
    stopped: bool,
}

/// What a machine reaches the world with, for one event.
pub(super) struct Hands<'a> {
    core: &'a mut Core,
    io: &'a mut Io,
    client: Token,
    secure: Option<&'a mut Secure>,
    /// The machine wants the connection given away, which under TLS a relay does.
    leaves: bool,
    closed: bool,
}

impl Worker {
    /// Makes one that listens on nothing yet.
    pub fn new(
        hub: Arc<Hub>,
        timeouts: Timeouts,
        inbox: Arc<Inbox>,
        handoff: mpsc::Sender<HandOver>,
    ) -> Self {
        Self {
            core: Core {
                hub,
                timeouts,
                limits: Limits::default(),
                uplinks: Uplinks::new(Arc::clone(&inbox)),
                waiting: VecDeque::new(),
                draining: false,
                sweeping: false,
                pending: Vec::new(),
                cipher: Vec::new(),
                copied: false,
            },
            plain: Vec::new(),
            relays: HashMap::new(),
            desk: Desk::default(),
            inbox,
            clients: Vec::new(),
            count: 0,
            busy: 0,
            active: None,
            listeners: Vec::new(),
            handoff,
            stopped: false,
        }
    }

    /// Whether it has nothing more to do: it was told to stop, or to drain and all is done.
    pub fn is_done(&self, io: &Io) -> bool {
        self.stopped || self.core.draining && self.count == 0 && io.sockets() == 0
    }

    /// Lets a client's machine take an event, and does what follows.
    pub(super) fn with_client(
        &mut self,
        io: &mut Io,
        token: Token,
        event: impl FnOnce(&mut Connection<Token>, &mut Desk<Token>, &mut Hands<'_>),
    ) {
        let slot = self.clients.get_mut(token.index());
        let Some(client) = slot.and_then(|slot| slot.as_deref_mut()) else {
            return;
        };
        if client.token != token {
            return;
        }
        if client
            .secure
            .as_ref()
            .is_some_and(|secure| secure.relay.is_some())
        {
            // What happens to it is pingora's affair, but for a wish that it end.
            return;
        }
        let mut hands = Hands {
            core: &mut self.core,
            io: &mut *io,
            client: token,
            secure: client.secure.as_deref_mut(),
            leaves: false,
            closed: false,
        };
        let before = client.machine.is_busy();
        event(&mut client.machine, &mut self.desk, &mut hands);
        hands.flush();
        let leaves = hands.leaves;
        let closed = hands.closed;
        let after = client.machine.is_busy();
        let deadline = client.machine.deadline();
        if !closed && client.timer.is_none_or(|(_, at)| deadline < at) {
            if let Some((timer, _)) = client.timer.take() {
                io.disarm(timer);
            }
            let timer = io.arm(deadline, token.index() as u64);
            client.timer = Some((timer, deadline));
        }
        if before != after {
            self.count_busy(after);
        }
        if closed {
            self.forget(io, token);
        } else if leaves {
            self.begin_relay(io, token);
        }
        if !self.core.sweeping && self.core.uplinks.has_idle() {
            self.core.sweeping = true;
            io.arm(io.now() + SWEEP, SWEEP_KEY);
        }
    }

    fn count_busy(&mut self, more: bool) {
        if more {
            self.busy += 1;
            if self.active.is_none() {
                self.active = Some(self.core.hub.activate());
            }
        } else {
            self.busy -= 1;
            if self.busy == 0 {
                self.active = None;
            }
        }
    }

    /// Forgets a client whose connection is closed or given away.
    pub(super) fn forget(&mut self, io: &mut Io, token: Token) -> Option<Box<Client>> {
        let slot = self.clients.get_mut(token.index())?;
        if slot.as_ref()?.token != token {
            return None;
        }
        let client = slot.take()?;
        if let Some((timer, _)) = client.timer {
            io.disarm(timer);
        }
        if let Some(relay) = client.secure.as_ref().and_then(|secure| secure.relay) {
            self.relays.remove(&relay);
            io.close(relay);
        }
        self.count -= 1;
        self.end_drain(io);
        Some(client)
    }

    /// Connections to endpoints are of no more use once the last client is gone.
    fn end_drain(&mut self, io: &mut Io) {
        if self.core.draining && self.count == 0 {
            self.core.uplinks.sweep(io, Duration::ZERO);
        }
    }

    fn obey(&mut self, io: &mut Io, command: Command) {
        match command {
            Command::Listen {
                id,
                listener,
                address,
                entrance,
            } => match io.listen(listener) {
                Ok(token) => {
                    let listener = Listener {
                        id,
                        token: Some(token),
                        address,
                        entrance,
                    };
                    // Ports come and go, and clients name the place of theirs.
                    let like = |one: &&mut Listener| {
                        one.token.is_none() && (one.address, one.entrance) == (address, entrance)
                    };
                    match self.listeners.iter_mut().find(like) {
                        Some(place) => *place = listener,
                        None => self.listeners.push(listener),
                    }
                }
                Err(error) => tracing::error!(%address, %error, "cannot listen"),
            },
            Command::Unlisten { id, done } => {
                for listener in self.listeners.iter_mut().filter(|one| one.id == id) {
                    if let Some(token) = listener.token.take() {
                        io.close(token);
                    }
                }
                // Nobody waits any more if it fails.
                let _ = done.send(());
            }
            Command::Cut(link) => self.link_gone(io, link, true),
            Command::Retire => self.retire(io),
            Command::Drain => self.drain(io),
            Command::Stop => self.stopped = true,
        }
    }

    /// Connections that are idle stay for a while: their clients may just be using them.
    fn retire(&mut self, io: &mut Io) {
        self.core.draining = true;
        for listener in &mut self.listeners {
            if let Some(token) = listener.token.take() {
                io.close(token);
            }
        }
        self.end_drain(io);
    }

    fn drain(&mut self, io: &mut Io) {
        self.retire(io);
        let clients = self.clients.iter().flatten();
        let tokens: Vec<Token> = clients.map(|client| client.token).collect();
        for token in tokens {
            self.with_client(io, token, |machine, _, hands| machine.drain(hands));
        }
        self.end_drain(io);
    }

    /// Tells those that wait of a new table.
    fn table_changed(&mut self, io: &mut Io) {
        for token in std::mem::take(&mut self.core.waiting) {
            self.with_client(io, token, |machine, desk, hands| {
                machine.table_changed(desk, hands);
                if machine.is_waiting() && !hands.closed {
                    hands.core.waiting.push_back(token);
                }
            });
        }
    }

    /// A connection to an endpoint has ended, or is to.
    fn link_gone(&mut self, io: &mut Io, link: Token, broken: bool) {
        match self.core.uplinks.use_of(link) {
            Use::Serves(client) => self.with_client(io, client, |machine, desk, hands| {
                machine.link_ended(link, broken, desk, hands);
            }),
            Use::Idle => self.core.uplinks.discard(io, link),
            Use::Other => {}
        }
    }

    pub(super) fn client_mut(&mut self, token: Token) -> Option<&mut Client> {
        let client = self.clients.get_mut(token.index())?.as_deref_mut()?;
        (client.token == token).then_some(client)
    }

    fn give_away(&mut self, client: Client, socket: OwnedFd) {
        let hello = client.secure.and_then(|secure| secure.into_hello());
        let (read, kind) = match hello {
            Some((read, config)) => (read, Kind::Hello(config)),
            None => (client.machine.into_held(), Kind::Plain),
        };
        let over = HandOver {
            socket,
            client: client.peer,
            listener: self.listeners[client.listener as usize].address,
            read,
            kind,
        };
        if let Err(error) = self.handoff.try_send(over) {
            tracing::warn!(%error, "connection not handed over");
        }
    }
}

impl Handler for Worker {
    fn accepted(&mut self, io: &mut Io, listener: Token, socket: Token, peer: SocketAddr) {
        let place = self
            .listeners
            .iter()
            .position(|one| one.token == Some(listener));
        let Some(place) = place else {
            io.close(socket);
            return;
        };
        let entrance = self.listeners[place].entrance;
        let awaited = self.core.hub.hops.load().sends_proxy_header(peer.ip());
        if self.clients.len() <= socket.index() {
            self.clients.resize_with(socket.index() + 1, || None);
        }
        self.clients[socket.index()] = Some(Box::new(Client {
            machine: Connection::new(peer.ip(), entrance, io.now()),
            token: socket,
            peer,
            preface: awaited.then(Vec::new),
            secure: (entrance == Entrance::SharedTls).then(|| Box::new(Secure::new())),
            listener: u32::try_from(place).unwrap_or(u32::MAX),
            timer: None,
        }));
        self.count += 1;
        io.receive(socket);
        // Arms its timer.
        self.with_client(io, socket, |_, _, _| {});
    }

    fn accept_failed(&mut self, _io: &mut Io, _listener: Token, error: io::Error) {
        tracing::warn!(%error, "accept failed");
    }

    fn connected(&mut self, io: &mut Io, token: Token, result: io::Result<()>) {
        if result.is_ok() {
            self.core.uplinks.connected(token);
        }
        if let Use::Serves(client) = self.core.uplinks.use_of(token) {
            self.with_client(io, client, |machine, desk, hands| {
                machine.link_connected(token, result, desk, hands);
            });
        }
    }

    fn received(&mut self, io: &mut Io, token: Token, data: &mut [u8]) {
        match self.core.uplinks.use_of(token) {
            Use::Serves(client) => self.with_client(io, client, |machine, desk, hands| {
                machine.link_received(token, data, desk, hands);
            }),
            // An answer that nobody asked for: where the next one begins is not known.
            Use::Idle => self.core.uplinks.discard(io, token),
            Use::Other => match self.client_mut(token) {
                Some(client) if client.preface.is_some() => self.preface_received(io, token, data),
                Some(client) if client.secure.is_some() => self.secure_received(io, token, data),
                Some(_) => self.with_client(io, token, |machine, desk, hands| {
                    machine.client_received(data, desk, hands);
                }),
                None => self.relay_received(io, token, data),
            },
        }
    }

    fn ended(&mut self, io: &mut Io, token: Token, result: io::Result<()>) {
        let broken = result.is_err();
        if self.is_relayed(token) {
            self.relay_ended(io, token, broken);
        } else if self.core.uplinks.use_of(token) == Use::Other {
            self.with_client(io, token, |machine, desk, hands| {
                machine.client_ended(broken, desk, hands);
            });
        } else {
            self.link_gone(io, token, broken);
        }
    }

    fn sent(&mut self, io: &mut Io, token: Token) {
        match self.core.uplinks.use_of(token) {
            Use::Serves(client) => self.with_client(io, client, |machine, _, hands| {
                machine.link_sent(token, hands);
            }),
            Use::Idle => {}
            Use::Other if self.is_relayed(token) => self.relay_sent(io, token),
            Use::Other => {
                self.with_client(io, token, |machine, _, hands| machine.client_sent(hands));
            }
        }
    }

    fn expired(&mut self, io: &mut Io, key: u64) {
        if key == SWEEP_KEY {
            self.core.sweeping = false;
            let keep = self.core.timeouts.keep;
            self.core.uplinks.sweep(io, keep);
            if self.core.uplinks.has_idle() {
                self.core.sweeping = true;
                io.arm(io.now() + SWEEP, SWEEP_KEY);
            }
            return;
        }
        let index = usize::try_from(key).unwrap_or(usize::MAX);
        let Some(Some(client)) = self.clients.get_mut(index) else {
            return;
        };
        client.timer = None;
        if client
            .secure
            .as_ref()
            .is_some_and(|secure| secure.relay.is_some())
        {
            // pingora watches over its time.
            return;
        }
        let token = client.token;
        let now = io.now();
        self.with_client(io, token, |machine, desk, hands| {
            // The deadline may have moved since the timer was armed.
            if machine.deadline() <= now {
                machine.expired(desk, hands);
            }
        });
    }

    fn woken(&mut self, io: &mut Io) {
        for command in self.inbox.take() {
            self.obey(io, command);
        }
        self.table_changed(io);
    }

    fn detached(&mut self, io: &mut Io, token: Token, socket: OwnedFd) {
        if let Some(client) = self.forget(io, token) {
            self.give_away(*client, socket);
        }
    }
}

impl Hands<'_> {
    fn token(&self, side: Side<Token>) -> Token {
        match side {
            Side::Client => self.client,
            Side::Link(link) => link,
        }
    }

    /// Answers an ACME server that looks for a proof, whatever the routes say.
    fn challenge(&self, asked: &Asked<'_>) -> Option<Answer> {
        if asked.entrance != Entrance::Shared {
            return None;
        }
        let proof = self.core.hub.challenges.answer(asked.request.path())?;
        Some(Answer {
            status: 200,
            fields: vec![(
                "content-type".to_owned(),
                "application/octet-stream".to_owned(),
            )],
            body: proof.into(),
        })
    }

    /// Encrypts and sends what the event had for the client.
    fn flush(&mut self) {
        let Core {
            pending, cipher, ..
        } = &mut *self.core;
        let Some(secure) = self.secure.as_deref_mut() else {
            return;
        };
        if pending.is_empty() {
            return;
        }
        if let Err(error) = secure.encrypt(pending, cipher) {
            tracing::debug!(%error, "not encrypted");
        }
        pending.clear();
        send_cipher(self.io, self.client, cipher);
    }

    /// Sends what is left, and says that it was the last.
    fn end_secure(&mut self) {
        self.flush();
        if let Some(secure) = self.secure.as_deref_mut() {
            secure.close(&mut self.core.cipher);
            send_cipher(self.io, self.client, &mut self.core.cipher);
        }
    }

    fn moment(&self) -> Moment {
        self.core.hub.moment(self.io.now())
    }
}

impl Shell for Hands<'_> {
    type Link = Token;

    fn now(&self) -> Instant {
        self.io.now()
    }

    fn timeouts(&self) -> &Timeouts {
        &self.core.timeouts
    }

    fn limits(&self) -> &Limits {
        &self.core.limits
    }

    fn hops(&self) -> Guard<Arc<Hops>> {
        self.core.hub.hops.load()
    }

    fn route(&mut self, asked: &Asked<'_>) -> Routed {
        if let Some(answer) = self.challenge(asked) {
            return Routed::Answer(answer);
        }
        let now = self.moment();
        let table = self.core.hub.current();
        let ours = |route: &Route| !route.needs_pingora();
        let decided = table.decide_if(&asked.view(), random_bits(), now, &ours);
        match decided {
            None => Routed::Over,
            Some(Decision::Forward(forward)) => {
                let route = forward.route;
                let way = Way {
                    route: (!route.is_plain()).then(|| Arc::clone(route)),
                    target: forward.target,
                    origin: forward.origin,
                    affinity: forward.affinity,
                };
                Routed::To(Arc::clone(forward.pool), way)
            }
            Some(Decision::Answer(answer)) => Routed::Answer(answer),
            Some(Decision::NoRoute) => Routed::Nowhere,
        }
    }

    fn begin(
        &mut self,
        pool: &Arc<Pool>,
        affinity: Affinity,
        tried: &[Arc<Backend>],
    ) -> Result<InFlight, Refused> {
        let want = Want::any(random_bits(), self.moment(), tried);
        pool.begin(&want.with(affinity))
    }

    fn begin_hedge(
        &mut self,
        pool: &Arc<Pool>,
        affinity: Affinity,
        asked: &[Arc<Backend>],
        attempt: &Attempt,
    ) -> Option<InFlight> {
        // A client that belongs to an endpoint would be moved to another by it.
        if pool.sticky().is_some() || pool.open().len() < 2 {
            return None;
        }
        let now = self.moment();
        if !pool.may_retry(attempt, now) {
            return None;
        }
        let want = Want::any(random_bits(), now, asked);
        let flight = pool.begin(&want.with(affinity)).ok()?;
        pool.stats.hedged();
        Some(flight)
    }

    fn backoff(&mut self, pool: &Pool, attempts: usize) -> Duration {
        pool.backoff(attempts, random_bits())
    }

    fn newest(&mut self, pool: &Pool) -> Option<Arc<Pool>> {
        self.core.hub.current().pool(&pool.key).cloned()
    }

    fn hold(&mut self) -> Option<Place> {
        if self.core.waiting.len() >= WAITING_MAX {
            return None;
        }
        let place = self.core.hub.hold()?;
        self.core.waiting.push_back(self.client);
        Some(place)
    }

    fn responded(&mut self, backend: &Backend, latency: Duration) {
        backend.responded(latency, self.moment());
    }

    fn progressed(&mut self, backend: &Backend) {
        backend.progressed(self.moment());
    }

    fn judge(&mut self, flight: InFlight, outcome: Outcome) {
        if matches!(
            outcome,
            Outcome::ConnectFailed | Outcome::Reset | Outcome::Timeout
        ) {
            self.core.hub.ask_probe(flight.backend(), PROBE_TIMEOUT);
        }
        flight.ended(outcome, None, self.moment());
    }

    fn may_retry(&mut self, pool: &Pool, attempt: &Attempt) -> bool {
        let retry = pool.may_retry(attempt, self.moment());
        if retry {
            pool.stats.retried();
        }
        retry
    }

    fn story(&mut self, request: &Request<'_>, client: IpAddr, tls: bool) -> Option<Box<Story>> {
        telling::begin(&self.core.hub, request, client, tls)
    }

    fn finished(&mut self, pool: Option<&Arc<Pool>>, ended: Ended, story: Option<&Story>) {
        let stats = pool.map_or(&self.core.hub.metrics.unrouted, |pool| &pool.stats);
        stats.finished(ended.status, ended.took, ended.traffic);
        if let Some(story) = story {
            let service = pool.map_or("", |pool| &*pool.service_name);
            telling::end(&self.core.hub, service, &ended, story);
        }
    }

    fn draining(&self) -> bool {
        self.core.draining
    }

    fn dial(&mut self, backend: &Arc<Backend>) -> Option<(Token, bool)> {
        let keep = self.core.timeouts.keep;
        self.core.uplinks.dial(self.io, backend, self.client, keep)
    }

    fn release(&mut self, link: Token) {
        self.core.uplinks.release(self.io, link);
    }

    fn discard(&mut self, link: Token) {
        self.core.uplinks.discard(self.io, link);
    }

    fn send(&mut self, to: Side<Token>, bytes: &[u8]) {
        // A connection that cannot take it any more is told to have ended.
        if to == Side::Client && self.secure.is_some() {
            self.core.pending.extend_from_slice(bytes);
        } else {
            self.io.send(self.token(to), bytes);
        }
    }

    fn pass(&mut self, to: Side<Token>, input: Input<'_>, part: Range<usize>) {
        // Under TLS the plain text is nowhere the ring could lend it from.
        if input.lent && self.secure.is_none() && !self.core.copied {
            self.io.forward(self.token(to), part);
        } else {
            self.send(to, &input.bytes[part]);
        }
    }

    fn unsent(&self, to: Side<Token>) -> usize {
        let pending = match to {
            Side::Client => self.core.pending.len(),
            Side::Link(_) => 0,
        };
        self.io.unsent(self.token(to)) + pending
    }

    fn pause(&mut self, from: Side<Token>) {
        self.io.pause(self.token(from));
    }

    fn resume(&mut self, from: Side<Token>) {
        self.io.receive(self.token(from));
    }

    fn shutdown(&mut self, to: Side<Token>) {
        if to == Side::Client {
            self.end_secure();
        }
        self.io.shutdown(self.token(to));
    }

    fn close(&mut self, how: Closing) {
        self.closed = true;
        match how {
            Closing::Sent => {
                self.end_secure();
                self.io.close_sent(self.client);
            }
            Closing::Reset => self.io.reset(self.client),
        }
    }

    fn hand_over(&mut self) {
        if self.secure.is_some() {
            self.leaves = true;
        } else {
            self.io.detach(self.client);
        }
    }
}
