//! The driver on io_uring.
//!
//! - `queue`: what is shared with the kernel; the only place that gives it addresses.
//! - `vector`: how it is told of what is to be sent.
//! - `arena`: buffers into which it receives; `arenas`: small and large ones.
//!
//! A socket has at most one operation of each kind in flight; receiving and accepting are
//! operations of many shots. A socket that is closed leaves its slot at once and waits aside, with
//! its descriptor and its queue, until the last of its operations has completed; completions name
//! slot and generation, so that a late one finds it there and never the next socket in the slot.

mod arena;
mod arenas;
mod queue;
mod vector;

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::Shutdown;

use self::queue::{Done, Full, Name, Queue};
use self::vector::Addresses;
pub(crate) use self::vector::Vector;
use crate::error::RingError;
use crate::handler::Handler;
use crate::io::{Io, PATIENCE};
use crate::options::Options;
use crate::outbox::PARTS;
use crate::sockets::{Fin, Flight, Role, Socket};
use crate::tell;
use crate::timers::Alarm;
use crate::token::Token;
use crate::waker::Waker;
use crate::watched::Watched;

pub(crate) struct Uring {
    queue: Queue,
    done: Vec<Done>,
    waker: Waker,
    /// The kernel tells of wakes.
    watching: bool,
    /// Connections that were accepted when no slot was left.
    unplaced: VecDeque<(Token, OwnedFd)>,
}

impl Uring {
    pub fn new(options: &Options, waker: Waker) -> Result<Uring, RingError> {
        let mut uring = Uring {
            queue: Queue::new(options)?,
            done: Vec::new(),
            waker,
            watching: false,
            unplaced: VecDeque::new(),
        };
        uring.try_out()?;
        Ok(uring)
    }

    /// Tries what kernels before 6.1, and some sandboxes, do not know.
    fn try_out(&mut self) -> Result<(), RingError> {
        self.watch();
        self.queue
            .enter(Some(Duration::ZERO))
            .map_err(|error| RingError::at("io_uring_enter", error))
    }

    /// Returns whether the kernel has done with all memory.
    pub fn quiesce(&mut self) -> bool {
        self.queue.quiesce()
    }

    pub fn turn<H: Handler>(
        &mut self,
        io: &mut Io,
        handler: &mut H,
        until: Option<Instant>,
    ) -> io::Result<()> {
        let mut watched = Watched::new(handler);
        self.settle_marked(io, &mut watched);
        let told = watched.told;
        self.part(io);
        self.watch();
        self.take_back(io);
        // What found no room in the queue is tried again when completions have made some.
        let hurry = told || !self.watching || !io.parting.is_empty();
        self.queue.enter(io.timeout(until, hurry))?;
        io.now = Instant::now();
        let mut done = std::mem::take(&mut self.done);
        self.queue.take(&mut done);
        for done in done.drain(..) {
            self.dispatch(io, handler, done);
        }
        self.done = done;
        debug_assert!(self.queue.arenas().are_whole(), "all buffers are back");
        io.timers.expire(io.now);
        while let Some(alarm) = io.timers.pop() {
            match alarm {
                Alarm::User(key) => handler.expired(io, key),
                Alarm::Accept(listener) => io.resume(listener),
                Alarm::Farewell(token) => io.close(token),
            }
        }
        // A FIN or a descriptor that is to be given back does not wait for the next turn.
        self.settle_marked(io, handler);
        Ok(())
    }

    /// Watches the waker, unless it is watched already.
    fn watch(&mut self) {
        if !self.watching {
            self.watching = self.queue.watch(self.waker.as_fd()).is_ok();
        }
    }

    fn dispatch<H: Handler>(&mut self, io: &mut Io, handler: &mut H, done: Done) {
        match done.name {
            Name::Cancel => {}
            Name::Waker => {
                self.watching = done.more;
                self.waker.heard();
                handler.woken(io);
            }
            Name::Socket(operation, token) => {
                if io.sockets.get(token).is_some() {
                    self.complete(io, handler, operation, token, done);
                } else {
                    left(io, operation, token, done);
                }
                if let Some(buffer) = done.buffer {
                    let (arena, id) = self.queue.arena_of(buffer);
                    arena.looked_at(id);
                }
                self.take_back(io);
            }
        }
    }

    fn complete<H: Handler>(
        &mut self,
        io: &mut Io,
        handler: &mut H,
        operation: Flight,
        token: Token,
        done: Done,
    ) {
        let Some(socket) = io.sockets.get_mut(token) else {
            return;
        };
        if !done.more {
            socket.flight.remove(operation);
            socket.cancelling.remove(operation);
            // What is wanted may be more of the same.
            io.mark(token);
        }
        match operation {
            Flight::RECEIVE | Flight::RECEIVE_MUCH => self.received(io, handler, token, done),
            Flight::SEND => sent(io, handler, token, done.result),
            Flight::CONNECT => connected(io, handler, token, done.result),
            _ => self.accepted(io, handler, token, done),
        }
    }

    /// Takes back the buffers that queues have done with.
    fn take_back(&mut self, io: &mut Io) {
        while let Some(buffer) = io.pool.returned.pop() {
            let (arena, id) = self.queue.arena_of(buffer);
            arena.unkeep(id);
        }
    }

    /// Settles what is marked now; what is marked meanwhile is left for the next turn.
    fn settle_marked<H: Handler>(&mut self, io: &mut Io, handler: &mut H) {
        for _ in 0..io.marked.len() {
            if let Some(token) = io.next_marked()
                && self.settle(io, handler, token).is_err()
            {
                io.mark(token);
                return;
            }
        }
    }

    /// Starts and cancels operations until those in flight are what is wanted of the socket.
    fn settle<H: Handler>(
        &mut self,
        io: &mut Io,
        handler: &mut H,
        token: Token,
    ) -> Result<(), Full> {
        let Some(socket) = io.sockets.get_mut(token) else {
            return Ok(());
        };
        if socket.connecting {
            if !socket.flight.has(Flight::CONNECT) {
                self.queue.connect(&socket.fd, token)?;
                socket.flight.add(Flight::CONNECT);
            }
            return Ok(());
        }
        if socket.role == Role::Listener {
            return self.settle_listener(io, handler, token);
        }
        self.settle_sending(token, socket)?;
        if socket.parting() && !io.linger(token) {
            return Ok(());
        }
        let Some(socket) = io.sockets.get_mut(token) else {
            return Ok(());
        };
        if socket.detaching && socket.out.is_empty() {
            return self.detach(io, handler, token);
        }
        if socket.held.is_some() && socket.receiving {
            tell_held(io, handler, token);
        }
        self.settle_receiving(io, token)
    }

    fn settle_sending(&mut self, token: Token, socket: &mut Socket) -> Result<(), Full> {
        if socket.flight.has(Flight::SEND) {
            return Ok(());
        }
        if !socket.out.is_empty() {
            self.send(token, socket)?;
            socket.flight.add(Flight::SEND);
        } else if socket.fin == Fin::Wanted {
            socket.fin = Fin::Sent;
            // It fails only on a connection that is broken, which receiving finds out.
            let _broken = rustix::net::shutdown(&socket.fd, Shutdown::Write);
        }
        Ok(())
    }

    fn send(&mut self, token: Token, socket: &mut Socket) -> Result<(), Full> {
        let mut parts = [IoSlice::new(&[]); PARTS];
        let most = socket.parts_at_a_time();
        let count = socket.out.parts(
            |buffer| self.queue.arenas().kept(buffer),
            &mut parts[..most],
        );
        let addresses = Addresses::of(&parts[..count]);
        let Some(vector) = socket.out.in_flight() else {
            return Ok(());
        };
        let bytes = addresses.bytes;
        // SAFETY: chunks in flight, the buffers that are kept for them, and the vector in their
        // queue stay as they are until `returned`, which the completion calls, wherever the socket
        // is by then; dropping the ring waits for it or leaks them.
        let pushed = unsafe {
            if let Some(address) = addresses.single() {
                self.queue.send(&socket.fd, token, address, bytes)
            } else {
                let message = vector.message(&addresses);
                self.queue.send_message(&socket.fd, token, message, bytes)
            }
        };
        if pushed.is_err() {
            socket.out.returned();
        }
        pushed
    }

    fn settle_receiving(&mut self, io: &mut Io, token: Token) -> Result<(), Full> {
        let Some(socket) = io.sockets.get_mut(token) else {
            return Ok(());
        };
        let over = socket.held.as_ref().is_some_and(|held| held.end.is_some());
        let wanted = socket.receiving && !over && !socket.ended;
        let much = socket.patience > 0 && self.queue.has_large();
        let flight = socket.flight;
        if wanted && !flight.has(Flight::RECEIVE) && !flight.has(Flight::RECEIVE_MUCH) {
            if much {
                self.queue.receive_much(&socket.fd, token)?;
                socket.flight.add(Flight::RECEIVE_MUCH);
            } else {
                self.queue.receive(&socket.fd, token)?;
                socket.flight.add(Flight::RECEIVE);
            }
        }
        // After a failed send, what is there is received, and then no more is waited for.
        let over = !wanted || socket.broken.is_some();
        if over || much {
            self.cancel(token, socket, Flight::RECEIVE)?;
        }
        if over {
            self.cancel(token, socket, Flight::RECEIVE_MUCH)?;
        }
        Ok(())
    }

    fn settle_listener<H: Handler>(
        &mut self,
        io: &mut Io,
        handler: &mut H,
        token: Token,
    ) -> Result<(), Full> {
        self.place(io, handler, token);
        let Some(socket) = io.sockets.get_mut(token) else {
            return Ok(());
        };
        if socket.detaching {
            return self.detach(io, handler, token);
        }
        if socket.waiting {
            return self.cancel(token, socket, Flight::ACCEPT);
        }
        if !socket.registered {
            socket.registered = true;
            // Waiting is the kernel's; of a non-blocking listener it might say that nobody is there.
            let _unsupported = rustix::io::ioctl_fionbio(&socket.fd, false);
        }
        if !socket.flight.has(Flight::ACCEPT) {
            self.queue.accept(&socket.fd, token)?;
            socket.flight.add(Flight::ACCEPT);
        }
        Ok(())
    }

    fn cancel(&mut self, token: Token, socket: &mut Socket, operation: Flight) -> Result<(), Full> {
        if socket.flight.has(operation) && !socket.cancelling.has(operation) {
            self.queue.cancel(operation, token)?;
            socket.cancelling.add(operation);
        }
        Ok(())
    }

    /// Gives the descriptor back once no operation is in flight and what was held is told.
    fn detach<H: Handler>(
        &mut self,
        io: &mut Io,
        handler: &mut H,
        token: Token,
    ) -> Result<(), Full> {
        let Some(socket) = io.sockets.get_mut(token) else {
            return Ok(());
        };
        if socket.busy() {
            for operation in Flight::EACH {
                self.cancel(token, socket, operation)?;
            }
            return Ok(());
        }
        tell_held(io, handler, token);
        if let Some(socket) = io.take(token) {
            let _unsupported = rustix::io::ioctl_fionbio(&socket.fd, true);
            handler.detached(io, token, socket.fd);
        }
        Ok(())
    }

    /// Cancels what is in flight for sockets that were closed.
    fn part(&mut self, io: &mut Io) {
        while let Some(token) = io.parting.pop() {
            let Some(mut socket) = io.leaving.remove(&token) else {
                continue;
            };
            let mut full = false;
            for operation in Flight::EACH {
                full |= self.cancel(token, &mut socket, operation).is_err();
            }
            io.leaving.insert(token, socket);
            if full {
                io.parting.push(token);
                return;
            }
        }
        // Connections of listeners that were closed go with them.
        self.unplaced
            .retain(|(listener, _)| io.sockets.get(*listener).is_some());
    }

    fn received<H: Handler>(&mut self, io: &mut Io, handler: &mut H, token: Token, done: Done) {
        let Some(socket) = io.sockets.get_mut(token) else {
            return;
        };
        match done.result {
            Ok(0) if socket.role == Role::Stream => ended(io, handler, token, Ok(())),
            Ok(bytes) => {
                let bytes = bytes as usize;
                let before = socket.patience;
                if self.queue.arenas().is_much(bytes) && socket.role == Role::Stream {
                    socket.patience = PATIENCE;
                    if before == 0 {
                        io.mark(token);
                    }
                } else {
                    socket.patience = before.saturating_sub(1);
                }
                self.give(io, handler, token, done.buffer, bytes);
            }
            // Buffers have run out for the moment, or it was cancelled, and is wanted again.
            Err(Errno::NOBUFS | Errno::CANCELED | Errno::INTR | Errno::AGAIN) => {
                if done.result == Err(Errno::NOBUFS) {
                    // Small ones may be left.
                    socket.patience = 0;
                }
                if let Some(errno) = socket.broken
                    && done.result != Err(Errno::NOBUFS)
                {
                    ended(io, handler, token, Err(errno));
                }
            }
            Err(errno) => ended(io, handler, token, Err(errno)),
        }
    }

    /// Tells of data, or holds it back while the socket is paused.
    fn give<H: Handler>(
        &mut self,
        io: &mut Io,
        handler: &mut H,
        token: Token,
        buffer: Option<u16>,
        bytes: usize,
    ) {
        if listens(io, token) {
            tell_held(io, handler, token);
        }
        let hears = listens(io, token);
        let Some(socket) = io.sockets.get_mut(token).filter(|s| !s.farewell) else {
            return;
        };
        // An empty datagram comes without a buffer.
        let data = match buffer {
            Some(buffer) => {
                let (arena, id) = self.queue.arena_of(buffer);
                arena.lent(id, bytes)
            }
            None => &mut [],
        };
        if hears {
            tell::received(io, handler, token, data);
            match buffer {
                Some(buffer) => self.keep(io, buffer, bytes),
                None => tell::copy_lent(io, &[]),
            }
        } else {
            let held = socket.held.get_or_insert_default();
            held.data.push_back(data.to_vec());
        }
    }

    /// Keeps a buffer that was lent so long as parts of it are to be sent, or copies them.
    fn keep(&mut self, io: &mut Io, buffer: u16, bytes: usize) {
        loop {
            let lent = &self.queue.arenas().kept(buffer)[..bytes];
            let Some(borrower) = tell::next_borrower(io, lent) else {
                return;
            };
            let Some(socket) = io.sockets.get_mut(borrower) else {
                continue;
            };
            let (arena, id) = self.queue.arena_of(buffer);
            if arena.may_keep(id) {
                arena.keep(id, socket.out.keep(buffer));
            } else {
                let lent = &arena.kept(id)[..bytes];
                socket.out.own(lent, &mut io.pool);
            }
        }
    }

    fn accepted<H: Handler>(&mut self, io: &mut Io, handler: &mut H, listener: Token, done: Done) {
        // SAFETY: this is the one place that looks at the connection of a completion that is told.
        if let Some(connection) = unsafe { done.connection() } {
            self.unplaced.push_back((listener, connection));
            self.place(io, handler, listener);
            return;
        }
        match done.result {
            // The client gave up while it was queued; the next one may not have.
            Ok(_)
            | Err(
                Errno::CONNABORTED
                | Errno::PROTO
                | Errno::PERM
                | Errno::CANCELED
                | Errno::INTR
                | Errno::AGAIN,
            ) => {}
            Err(errno) => {
                let error = io.postpone(listener, errno);
                handler.accept_failed(io, listener, error);
            }
        }
    }

    /// Gives slots to connections that were accepted.
    fn place<H: Handler>(&mut self, io: &mut Io, handler: &mut H, listener: Token) {
        while let Some((listener, connection)) = self.unplaced.pop_front() {
            if io.sockets.get(listener).is_none() {
                continue;
            }
            if io.sockets.is_full() {
                self.unplaced.push_front((listener, connection));
                break;
            }
            let peer = rustix::net::getpeername(&connection).ok().flatten();
            let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
            io.accepted(handler, listener, connection, peer);
        }
        let waiting = io.sockets.get(listener).is_none_or(|socket| socket.waiting);
        if !self.unplaced.is_empty() && !waiting {
            let error = io.starve(listener);
            io.mark(listener);
            handler.accept_failed(io, listener, error);
        }
    }
}

/// Returns whether what the socket receives is to be told now.
fn listens(io: &Io, token: Token) -> bool {
    let socket = io.sockets.get(token);
    socket.is_some_and(|socket| socket.receiving || socket.detaching)
}

/// Tells what came while the socket was paused, so long as it is not paused again.
fn tell_held<H: Handler>(io: &mut Io, handler: &mut H, token: Token) {
    while listens(io, token) {
        let Some(socket) = io.sockets.get_mut(token) else {
            return;
        };
        let Some(held) = socket.held.as_mut() else {
            return;
        };
        if let Some(mut data) = held.data.pop_front() {
            tell::received(io, handler, token, &mut data);
            tell::copy_lent(io, &data);
            continue;
        }
        let end = held.end;
        socket.held = None;
        if let Some(end) = end {
            ended(io, handler, token, end);
        }
    }
}

/// The last of receiving: told after all that was held back.
fn ended<H: Handler>(io: &mut Io, handler: &mut H, token: Token, end: Result<(), Errno>) {
    if listens(io, token) {
        tell_held(io, handler, token);
    }
    let hears = listens(io, token);
    let Some(socket) = io.sockets.get_mut(token) else {
        return;
    };
    match end {
        _ if !hears => socket.held.get_or_insert_default().end = Some(end),
        // Whoever gets the descriptor reads the end again.
        Ok(()) if socket.detaching => {}
        Ok(()) => tell::end(io, handler, token),
        Err(errno) => tell::fail(io, handler, token, errno),
    }
}

fn sent<H: Handler>(io: &mut Io, handler: &mut H, token: Token, result: Result<u32, Errno>) {
    let Some(socket) = io.sockets.get_mut(token) else {
        return;
    };
    socket.out.returned();
    match result {
        Ok(bytes) => {
            socket.out.taken(bytes as usize, &mut io.pool);
            if socket.out.is_empty() && !socket.farewell {
                handler.sent(io, token);
            }
        }
        Err(Errno::CANCELED | Errno::INTR | Errno::AGAIN) => {}
        Err(errno) => tell::send_failed(io, handler, token, errno),
    }
}

fn connected<H: Handler>(io: &mut Io, handler: &mut H, token: Token, result: Result<u32, Errno>) {
    match result {
        Ok(_) => tell::finish_connect(io, handler, token),
        Err(Errno::CANCELED | Errno::INTR) => {}
        Err(errno) => tell::fail(io, handler, token, errno),
    }
}

/// An operation of a socket that was closed has completed; after the last one it is gone.
fn left(io: &mut Io, operation: Flight, token: Token, done: Done) {
    // SAFETY: completions of closed listeners are looked at only here.
    drop(unsafe { done.connection() });
    if done.more {
        return;
    }
    let Some(socket) = io.leaving.get_mut(&token) else {
        return;
    };
    socket.flight.remove(operation);
    if operation == Flight::SEND {
        socket.out.returned();
    }
    if !socket.busy()
        && let Some(mut socket) = io.leaving.remove(&token)
    {
        socket.out.clear(&mut io.pool);
    }
}
