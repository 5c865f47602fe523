//! The driver on epoll.
//!
//! Every socket is registered once, edge-triggered, for everything; what may be read or written is
//! remembered beside it, so that pausing, resuming and sending need no call but the one that moves
//! bytes.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, Shutdown, SocketFlags};

use crate::error::RingError;
use crate::handler::Handler;
use crate::io::Io;
use crate::options::Options;
use crate::sockets::{Fin, Role, Socket};
use crate::tell::{end, fail, finish_connect, next_borrower, received, send_failed};
use crate::timers::Alarm;
use crate::token::Token;
use crate::transmit::transmit;
use crate::wait::{TIMER, Wait};
use crate::waker::Waker;
use crate::watched::Watched;

/// The least that is read from a stream at a time: bodies want large reads, and one buffer for all
/// sockets costs nothing.
const READ_BYTES: usize = 64 << 10;
/// Reads, or connections accepted, before the other sockets have their turn.
const ROUNDS: usize = 16;
/// The event of the waker; no socket has this name, for there are at most 2^24.
const WAKER: u64 = u64::MAX;

pub(crate) struct Epoll {
    epoll: OwnedFd,
    wait: Wait,
    events: Vec<Event>,
    /// Into which all sockets receive.
    scratch: Box<[u8]>,
    waker: Waker,
}

/// What became of an attempt to read.
enum Read {
    /// The socket is gone, paused, or has nothing more now.
    Stop,
    Again,
}

impl Epoll {
    pub fn new(options: &Options, waker: Waker) -> Result<Epoll, RingError> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)
            .map_err(|errno| RingError::at("epoll_create1", errno.into()))?;
        let data = EventData::new_u64(WAKER);
        epoll::add(&epoll, &waker, data, EventFlags::IN)
            .map_err(|errno| RingError::at("epoll_ctl", errno.into()))?;
        let bytes = READ_BYTES.max(options.buffer_bytes as usize);
        Ok(Epoll {
            wait: Wait::new(&epoll)?,
            epoll,
            events: Vec::with_capacity(options.entries as usize),
            scratch: vec![0; bytes].into_boxed_slice(),
            waker,
        })
    }

    pub fn turn<H: Handler>(
        &mut self,
        io: &mut Io,
        handler: &mut H,
        until: Option<Instant>,
    ) -> io::Result<()> {
        let mut watched = Watched::new(handler);
        self.settle_marked(io, &mut watched);
        let timeout = io.timeout(until, watched.told);
        self.wait.wait(&self.epoll, &mut self.events, timeout)?;
        io.now = Instant::now();
        for index in 0..self.events.len() {
            let event = self.events[index];
            self.dispatch(io, handler, event.data.u64(), event.flags);
            self.settle_marked(io, handler);
        }
        io.timers.expire(io.now);
        while let Some(alarm) = io.timers.pop() {
            match alarm {
                Alarm::User(key) => handler.expired(io, key),
                Alarm::Accept(listener) => io.resume(listener),
                Alarm::Farewell(token) => io.close(token),
            }
            self.settle_marked(io, handler);
        }
        Ok(())
    }

    fn dispatch<H: Handler>(&mut self, io: &mut Io, handler: &mut H, name: u64, flags: EventFlags) {
        if name == WAKER {
            self.waker.heard();
            handler.woken(io);
            return;
        }
        if name == TIMER {
            return;
        }
        let token = Token::from_bits(name);
        let Some(socket) = io.sockets.get_mut(token) else {
            return;
        };
        let broken = EventFlags::ERR | EventFlags::HUP;
        let hung_up = broken | EventFlags::RDHUP;
        socket.hung_up |= flags.intersects(hung_up);
        socket.readable |= flags.intersects(hung_up | EventFlags::IN);
        socket.writable |= flags.intersects(broken | EventFlags::OUT);
        if socket.connecting && flags.intersects(broken | EventFlags::OUT) {
            finish_connect(io, handler, token);
        }
        self.settle(io, handler, token);
    }

    /// Settles what is marked now; what is marked meanwhile is left for the next time, so that a
    /// handler that always sends more holds nobody up.
    fn settle_marked<H: Handler>(&mut self, io: &mut Io, handler: &mut H) {
        for _ in 0..io.marked.len() {
            if let Some(token) = io.next_marked() {
                self.settle(io, handler, token);
            }
        }
    }

    /// Does what is wanted of the socket and possible now.
    fn settle<H: Handler>(&mut self, io: &mut Io, handler: &mut H, token: Token) {
        let Some(socket) = io.sockets.get_mut(token) else {
            return;
        };
        if !socket.registered
            && let Err(errno) = self.register(token, socket)
        {
            return fail(io, handler, token, errno);
        }
        if socket.connecting {
            return;
        }
        if socket.role == Role::Listener && !socket.detaching {
            return accept(io, handler, token);
        }
        if socket.writable && !socket.out.is_empty() {
            send(io, handler, token, &[]);
        }
        let Some(socket) = io.sockets.get_mut(token) else {
            return;
        };
        if socket.fin == Fin::Wanted && socket.out.is_empty() {
            socket.fin = Fin::Sent;
            // It fails only on a connection that is broken, which receiving finds out.
            let _broken = rustix::net::shutdown(&socket.fd, Shutdown::Write);
        }
        if socket.parting() && !io.linger(token) {
            return;
        }
        let Some(socket) = io.sockets.get_mut(token) else {
            return;
        };
        if socket.detaching && socket.out.is_empty() {
            return self.detach(io, handler, token);
        }
        if socket.receiving && socket.readable {
            self.receive(io, handler, token);
        }
    }

    fn register(&self, token: Token, socket: &mut Socket) -> Result<(), Errno> {
        let flags = match socket.role {
            // Level-triggered it would be reported in each turn in which it waits for descriptors.
            Role::Listener => EventFlags::IN | EventFlags::ET,
            _ => EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET,
        };
        let data = EventData::new_u64(token.bits());
        epoll::add(&self.epoll, &socket.fd, data, flags)?;
        socket.registered = true;
        Ok(())
    }

    fn detach<H: Handler>(&mut self, io: &mut Io, handler: &mut H, token: Token) {
        if let Some(socket) = io.take(token) {
            // Its registration would outlive the slot, for the descriptor lives on.
            let _gone = epoll::delete(&self.epoll, &socket.fd);
            handler.detached(io, token, socket.fd);
        }
    }

    fn receive<H: Handler>(&mut self, io: &mut Io, handler: &mut H, token: Token) {
        for _ in 0..ROUNDS {
            let Some(socket) = io.sockets.get_mut(token) else {
                return;
            };
            if !socket.receiving || !socket.readable || socket.detaching {
                return;
            }
            let outcome = rustix::net::recv(&socket.fd, &mut *self.scratch, RecvFlags::empty());
            match self.received(io, handler, token, outcome.map(|(_, bytes)| bytes)) {
                Read::Again => {}
                Read::Stop => return,
            }
        }
        io.mark(token);
    }

    fn received<H: Handler>(
        &mut self,
        io: &mut Io,
        handler: &mut H,
        token: Token,
        outcome: Result<usize, Errno>,
    ) -> Read {
        let Some(socket) = io.sockets.get_mut(token) else {
            return Read::Stop;
        };
        match outcome {
            Ok(0) if socket.role == Role::Stream => {
                socket.readable = false;
                end(io, handler, token);
                return Read::Stop;
            }
            Ok(bytes) => {
                // A stream that gave less than it could has nothing more; a later byte is an edge.
                if socket.role == Role::Stream && bytes < self.scratch.len() && !socket.hung_up {
                    socket.readable = false;
                }
                if !socket.farewell {
                    self.lend(io, handler, token, bytes);
                }
            }
            Err(Errno::AGAIN) => {
                socket.readable = false;
                if let Some(errno) = socket.broken {
                    fail(io, handler, token, errno);
                }
                return Read::Stop;
            }
            Err(Errno::INTR) => {}
            Err(errno) => {
                fail(io, handler, token, errno);
                return Read::Stop;
            }
        }
        Read::Again
    }

    /// Tells of data; what is forwarded of it goes out now, or is copied.
    fn lend<H: Handler>(&mut self, io: &mut Io, handler: &mut H, token: Token, bytes: usize) {
        received(io, handler, token, &mut self.scratch[..bytes]);
        let lent = &self.scratch[..bytes];
        while let Some(borrower) = next_borrower(io, lent) {
            if io.sockets.get(borrower).is_some_and(Socket::ready) {
                send(io, handler, borrower, lent);
            }
            if let Some(socket) = io.sockets.get_mut(borrower) {
                socket.out.own(lent, &mut io.pool);
            }
        }
    }
}

fn accept<H: Handler>(io: &mut Io, handler: &mut H, listener: Token) {
    for _ in 0..ROUNDS {
        let full = io.sockets.is_full();
        let Some(socket) = io.sockets.get_mut(listener) else {
            return;
        };
        if socket.detaching || socket.waiting || !socket.readable {
            return;
        }
        if full {
            let error = io.starve(listener);
            return handler.accept_failed(io, listener, error);
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        match rustix::net::acceptfrom_with(&socket.fd, flags) {
            Ok((fd, peer)) => {
                let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
                io.accepted(handler, listener, fd, peer);
            }
            Err(Errno::AGAIN) => {
                socket.readable = false;
                return;
            }
            // The client gave up while it was queued; the next one may not have.
            Err(Errno::INTR | Errno::CONNABORTED | Errno::PROTO | Errno::PERM) => {}
            Err(errno) => {
                let error = io.postpone(listener, errno);
                return handler.accept_failed(io, listener, error);
            }
        }
    }
    io.mark(listener);
}

/// Sends what is queued; `lent` is what is lent by a callback that has just returned.
fn send<H: Handler>(io: &mut Io, handler: &mut H, token: Token, lent: &[u8]) {
    let Some(socket) = io.sockets.get_mut(token) else {
        return;
    };
    match transmit(socket, &mut io.pool, |_| lent) {
        Ok(true) if socket.farewell => {}
        Ok(true) => handler.sent(io, token),
        Ok(false) => socket.writable = false,
        Err(errno) => send_failed(io, handler, token, errno),
    }
}
