//! What can be asked of a ring.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::error::IoError;
use crate::handler::Handler;
use crate::open;
use crate::options::ConnectOptions;
use crate::pool::Pool;
use crate::sockets::{Fin, Role, Socket, Sockets};
use crate::timers::{Alarm, Timers};
use crate::token::{Timer, Token};

/// What is worth a large buffer.
const MUCH: usize = 8 << 10;
/// How many small pieces come one after the other until a stream that brought large ones gets small
/// buffers again: it changes for a cancellation each time.
pub(crate) const PATIENCE: u8 = 16;

/// The sockets and timers of a ring.
///
/// Nothing here waits or fails late: an operation notes what is wanted, the turn does it, and the
/// [`Handler`](crate::Handler) hears of it. An operation on a token whose socket is gone does
/// nothing.
#[derive(Debug)]
pub struct Io {
    pub(crate) now: Instant,
    pub(crate) sockets: Sockets,
    pub(crate) timers: Timers,
    pub(crate) pool: Pool,
    /// Sockets whose state is not what is wanted of them.
    pub(crate) marked: VecDeque<Token>,
    /// Listeners that wait for a slot.
    pub(crate) starved: Vec<Token>,
    /// Sockets that are gone for their user, and that the kernel is still busy with.
    pub(crate) leaving: HashMap<Token, Socket>,
    /// Those of them that the kernel was not told of.
    pub(crate) parting: Vec<Token>,
    /// When those that close once their queue is sent are closed anyway, and whether only the
    /// peer's FIN is missing.
    farewells: HashMap<Token, (Timer, bool)>,
    /// Bytes of what is lent for the callback that is running.
    pub(crate) lent: Option<usize>,
    /// Sockets to which parts of it are forwarded.
    pub(crate) borrowers: Vec<Token>,
}

impl Io {
    pub(crate) fn new(sockets: u32) -> Io {
        let now = Instant::now();
        Io {
            now,
            sockets: Sockets::new(sockets),
            timers: Timers::new(now),
            pool: Pool::default(),
            marked: VecDeque::new(),
            starved: Vec::new(),
            leaving: HashMap::new(),
            parting: Vec::new(),
            farewells: HashMap::new(),
            lent: None,
            borrowers: Vec::new(),
        }
    }

    /// Returns the time, read once for each batch of events.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Returns how many sockets are open: listeners, connections, and what is being connected or
    /// detached.
    pub fn sockets(&self) -> usize {
        self.sockets.len()
    }

    /// Starts accepting; connections inherit `TCP_NODELAY`.
    ///
    /// # Errors
    /// [`IoError::Full`], or the listener is not to be made non-blocking.
    pub fn listen(&mut self, listener: TcpListener) -> Result<Token, IoError> {
        let fd = OwnedFd::from(listener);
        open::prepare_listener(&fd)?;
        self.insert(Socket::new(fd, Role::Listener))
    }

    /// Starts connecting to `address`; what is sent before it is connected goes out then.
    ///
    /// # Errors
    /// Slots, descriptors or ports have run out, or the network is known to be out of reach. What
    /// takes a round trip to find out comes with `connected`.
    pub fn connect(
        &mut self,
        address: SocketAddr,
        options: &ConnectOptions,
    ) -> Result<Token, IoError> {
        if self.sockets.is_full() {
            return Err(self.full());
        }
        let fd = open::connect(address, options)?;
        let mut socket = Socket::new(fd, Role::Stream);
        socket.connecting = true;
        self.insert(socket)
    }

    /// Takes over a connected TCP, UDP or Unix socket.
    ///
    /// # Errors
    /// [`IoError::Full`], or the descriptor is no stream or datagram socket.
    pub fn adopt(&mut self, socket: OwnedFd) -> Result<Token, IoError> {
        let role = open::prepare_adopted(&socket)?;
        self.insert(Socket::new(socket, role))
    }

    fn insert(&mut self, socket: Socket) -> Result<Token, IoError> {
        let Ok(token) = self.sockets.insert(socket) else {
            return Err(self.full());
        };
        self.mark(token);
        Ok(token)
    }

    fn full(&self) -> IoError {
        IoError::Full {
            limit: self.sockets.limit(),
        }
    }

    /// Starts or resumes receiving. Sockets begin not receiving.
    pub fn receive(&mut self, token: Token) {
        self.want(token, |socket| {
            let change = !socket.receiving && !socket.ended && socket.role != Role::Listener;
            socket.receiving |= change;
            change
        });
    }

    /// Says that so many bytes are about to come, so that a driver that receives into small buffers
    /// by default (io_uring) takes large ones, of 64 KiB (`Options::large_buffers`), from now on. It finds out by itself
    /// when a small one is full, and that it was enough when what comes is small again; a hint in
    /// time, when a large answer is asked for, saves the first of many small pieces.
    pub fn expect(&mut self, token: Token, bytes: usize) {
        self.want(token, |socket| {
            let change = bytes >= MUCH && socket.role == Role::Stream && socket.patience == 0;
            if bytes >= MUCH {
                socket.patience = PATIENCE;
            }
            change
        });
    }

    /// Stops receiving until [`Io::receive`]: back-pressure. Neither data nor an end is told
    /// meanwhile, but for a connection that a send finds broken.
    pub fn pause(&mut self, token: Token) {
        self.want(token, |socket| std::mem::take(&mut socket.receiving));
    }

    /// Queues `bytes`, and returns whether they can still go out: not if the socket is gone, was
    /// shut down, is being detached, or a send has failed. A datagram is sent for each call.
    ///
    /// The queue has no limit of its own; see [`Io::unsent`].
    pub fn send(&mut self, token: Token, bytes: &[u8]) -> bool {
        let Some(socket) = self.sockets.get_mut(token).filter(|s| s.sendable()) else {
            return false;
        };
        match socket.role {
            Role::Datagram => socket.out.append_datagram(bytes, &mut self.pool),
            _ if bytes.is_empty() => return true,
            _ => socket.out.append(bytes, &mut self.pool),
        }
        self.mark(token);
        true
    }

    /// As [`Io::send`], without a copy.
    pub fn send_vec(&mut self, token: Token, bytes: Vec<u8>) -> bool {
        let Some(socket) = self.sockets.get_mut(token).filter(|s| s.sendable()) else {
            return false;
        };
        if bytes.is_empty() && socket.role == Role::Stream {
            return true;
        }
        socket.out.append_vec(bytes, &mut self.pool);
        self.mark(token);
        true
    }

    /// As [`Io::send`], of a part of what is lent by the
    /// [`received`](crate::Handler::received) that is running, and without a copy so far as the
    /// driver can. What goes out is what lies there when the callback returns.
    ///
    /// # Panics
    /// Outside of `received`, and if the range is not within what is lent.
    pub fn forward(&mut self, to: Token, data: Range<usize>) -> bool {
        let lent = self.lent.expect("only what is lent is forwarded");
        assert!(
            data.start <= data.end && data.end <= lent,
            "within what is lent"
        );
        let Some(socket) = self.sockets.get_mut(to).filter(|s| s.sendable()) else {
            return false;
        };
        if data.is_empty() && socket.role == Role::Stream {
            return true;
        }
        socket.out.append_lent(data, &mut self.pool);
        self.borrowers.push(to);
        self.mark(to);
        true
    }

    /// Returns the bytes that are queued and that the kernel has not taken.
    pub fn unsent(&self, token: Token) -> usize {
        let socket = self.sockets.get(token);
        socket.map_or(0, |socket| socket.out.unsent())
    }

    /// Sends a FIN once the queue is empty; nothing can be queued any more.
    pub fn shutdown(&mut self, token: Token) {
        self.want(token, |socket| {
            let change = socket.fin == Fin::No && socket.role != Role::Listener;
            if change {
                socket.fin = Fin::Wanted;
            }
            change
        });
    }

    /// Closes the socket; what is queued and not taken by the kernel is forgotten.
    pub fn close(&mut self, token: Token) {
        if let Some(socket) = self.take(token) {
            self.leave(token, socket);
        }
    }

    /// Closes the socket once the queue is empty, and loses none of it: after the last byte goes a
    /// FIN, and what the peer still sends is read and forgotten until it ends, too, for a close
    /// with bytes unread would be a RST that overtakes ours.
    ///
    /// It happens behind the scenes: no call names the socket again, and nothing but
    /// [`Io::unsent`], [`Io::close`] and [`Io::reset`] has an effect on it. Until it is gone, which
    /// takes 30 s of sending and 2 s of waiting for the peer at most, it keeps its slot.
    pub fn close_sent(&mut self, token: Token) {
        let Some(socket) = self.open(token) else {
            return;
        };
        if socket.role == Role::Listener || socket.broken.is_some() {
            return self.close(token);
        }
        socket.farewell = true;
        socket.detaching = false;
        socket.held = None;
        socket.receiving = !socket.ended;
        if socket.fin == Fin::No {
            socket.fin = Fin::Wanted;
        }
        let at = self.now + open::LONGEST_SENDING;
        let timer = self.timers.arm(at, Alarm::Farewell(token));
        self.farewells.insert(token, (timer, false));
        self.mark(token);
    }

    /// Everything is sent, and a FIN: the peer has a little time to say goodbye, too. Returns
    /// whether there is something to wait for; otherwise the socket is gone.
    pub(crate) fn linger(&mut self, token: Token) -> bool {
        let socket = self.sockets.get(token);
        if socket.is_none_or(|socket| socket.ended || socket.role != Role::Stream) {
            self.close(token);
            return false;
        }
        if let Some((timer, lingering)) = self.farewells.get_mut(&token)
            && !std::mem::replace(lingering, true)
        {
            self.timers.disarm(*timer);
            let at = self.now + open::LONGEST_LINGERING;
            *timer = self.timers.arm(at, Alarm::Farewell(token));
        }
        true
    }

    /// Closes the connection with a RST.
    pub fn reset(&mut self, token: Token) {
        if let Some(socket) = self.take(token) {
            open::reset_on_close(&socket.fd);
            self.leave(token, socket);
        }
    }

    /// Ends everything on the socket, once what is queued is sent, and gives its descriptor back
    /// with [`Handler::detached`](crate::Handler::detached). What the ring has taken from the
    /// socket by then is received before, even if it is paused. To give up on a peer that does not
    /// read, close it.
    pub fn detach(&mut self, token: Token) {
        self.want(token, |socket| {
            !std::mem::replace(&mut socket.detaching, true)
        });
    }

    /// Arms a timer; a time that has passed expires in the next turn. Times are met to the
    /// microsecond, never early, so far as the kernel's timers allow (50 µs by default, see
    /// `PR_SET_TIMERSLACK`).
    pub fn arm(&mut self, at: Instant, key: u64) -> Timer {
        self.timers.arm(at, Alarm::User(key))
    }

    /// Disarms a timer, and returns whether that kept it from expiring.
    pub fn disarm(&mut self, timer: Timer) -> bool {
        self.timers.disarm(timer)
    }

    /// Returns the socket, unless its user has done with it.
    fn open(&mut self, token: Token) -> Option<&mut Socket> {
        let socket = self.sockets.get_mut(token);
        socket.filter(|socket| !socket.farewell)
    }

    /// Changes what is wanted of a socket.
    fn want(&mut self, token: Token, change: impl FnOnce(&mut Socket) -> bool) {
        let socket = self.open(token);
        if socket.is_some_and(change) {
            self.mark(token);
        }
    }

    /// Notes that the driver must look at the socket.
    pub(crate) fn mark(&mut self, token: Token) {
        if let Some(socket) = self.sockets.get_mut(token)
            && !std::mem::replace(&mut socket.marked, true)
        {
            self.marked.push_back(token);
        }
    }

    /// Returns the next socket that is to be settled.
    pub(crate) fn next_marked(&mut self) -> Option<Token> {
        let token = self.marked.pop_front()?;
        if let Some(socket) = self.sockets.get_mut(token) {
            socket.marked = false;
        }
        Some(token)
    }

    /// Takes the socket out of its slot, which listeners may be waiting for.
    pub(crate) fn take(&mut self, token: Token) -> Option<Socket> {
        let socket = self.sockets.remove(token)?;
        if socket.farewell
            && let Some((timer, _)) = self.farewells.remove(&token)
        {
            self.timers.disarm(timer);
        }
        while let Some(listener) = self.starved.pop() {
            self.resume(listener);
        }
        Some(socket)
    }

    /// Drops a socket that was taken out, at once or when the kernel has done with it.
    fn leave(&mut self, token: Token, mut socket: Socket) {
        if socket.busy() {
            self.leaving.insert(token, socket);
            self.parting.push(token);
        } else {
            socket.out.clear(&mut self.pool);
        }
    }

    /// Tells of a connection that was accepted.
    pub(crate) fn accepted<H: Handler>(
        &mut self,
        handler: &mut H,
        listener: Token,
        fd: OwnedFd,
        peer: Option<SocketAddr>,
    ) {
        // Without an address it has been reset already.
        if let Some(peer) = peer
            && let Ok(token) = self.insert(Socket::new(fd, Role::Stream))
        {
            handler.accepted(self, listener, token, peer);
        }
    }

    /// A listener that cannot accept waits a while.
    pub(crate) fn postpone(&mut self, listener: Token, errno: Errno) -> io::Error {
        if let Some(socket) = self.sockets.get_mut(listener) {
            socket.waiting = true;
        }
        let at = self.now + open::ACCEPT_PAUSE;
        self.timers.arm(at, Alarm::Accept(listener));
        errno.into()
    }

    /// A listener that finds every slot taken waits for one.
    pub(crate) fn starve(&mut self, listener: Token) -> io::Error {
        if let Some(socket) = self.sockets.get_mut(listener) {
            socket.waiting = true;
        }
        self.starved.push(listener);
        io::ErrorKind::QuotaExceeded.into()
    }

    /// A listener that waited tries again.
    pub(crate) fn resume(&mut self, listener: Token) {
        if let Some(socket) = self.sockets.get_mut(listener) {
            socket.waiting = false;
            self.mark(listener);
        }
    }

    /// Returns everything whose memory the kernel may hold.
    pub(crate) fn forget(&mut self) -> impl Sized + use<> {
        let sockets = std::mem::replace(&mut self.sockets, Sockets::new(0));
        (sockets, std::mem::take(&mut self.leaving))
    }

    /// Returns how long a turn may wait, which is not at all if it has told something or has more
    /// to do.
    pub(crate) fn timeout(&self, until: Option<Instant>, hurry: bool) -> Option<Duration> {
        if hurry || !self.marked.is_empty() {
            return Some(Duration::ZERO);
        }
        let at = match (self.timers.next(), until) {
            (Some(timer), Some(until)) => timer.min(until),
            (timer, until) => timer.or(until)?,
        };
        Some(at.saturating_duration_since(Instant::now()))
    }
}
