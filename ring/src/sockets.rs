//! The slots of a ring's sockets.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use rustix::io::Errno;

use crate::outbox::Outbox;
use crate::token::Token;

/// What a socket is.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    Listener,
    Stream,
    Datagram,
}

/// How far the end of what we send is.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Fin {
    No,
    /// Once the queue is empty.
    Wanted,
    Sent,
}

/// A set of operations of one socket.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) struct Flight(u8);

impl Flight {
    pub const NONE: Flight = Flight(0);
    pub const RECEIVE: Flight = Flight(1);
    pub const SEND: Flight = Flight(2);
    pub const CONNECT: Flight = Flight(4);
    pub const ACCEPT: Flight = Flight(8);
    /// Receiving once, into a large buffer.
    pub const RECEIVE_MUCH: Flight = Flight(16);
    pub const EACH: [Flight; 5] = [
        Self::RECEIVE,
        Self::SEND,
        Self::CONNECT,
        Self::ACCEPT,
        Self::RECEIVE_MUCH,
    ];

    pub fn has(self, operation: Flight) -> bool {
        self.0 & operation.0 != 0
    }

    pub fn add(&mut self, operation: Flight) {
        self.0 |= operation.0;
    }

    pub fn remove(&mut self, operation: Flight) {
        self.0 &= !operation.0;
    }

    pub fn bits(self) -> u8 {
        self.0
    }

    pub fn from_bits(bits: u8) -> Flight {
        Flight(bits)
    }
}

/// What the kernel had received when it was told to pause, in order.
#[derive(Debug, Default)]
pub(crate) struct Held {
    pub data: VecDeque<Vec<u8>>,
    /// How it ended, after all that.
    pub end: Option<Result<(), Errno>>,
}

/// What its user wants of a socket, and what its driver knows of it.
///
/// The operations of `Io` only change what is wanted and mark the socket; the driver settles the
/// difference. So what cancels itself out within one callback never reaches the kernel.
#[derive(Debug)]
pub(crate) struct Socket {
    pub fd: OwnedFd,
    pub role: Role,
    pub connecting: bool,
    pub receiving: bool,
    /// The peer's FIN was told.
    pub ended: bool,
    pub fin: Fin,
    pub detaching: bool,
    /// It closes once the queue is sent; its user hears no more of it.
    pub farewell: bool,
    /// It waits in the list of what is to be settled.
    pub marked: bool,
    /// A failed send: told once what was received before it has been.
    pub broken: Option<Errno>,
    pub out: Outbox,
    /// The driver knows it.
    pub registered: bool,
    /// A listener that waits for descriptors, memory or slots.
    pub waiting: bool,
    /// io_uring: operations that the kernel has not finished.
    pub flight: Flight,
    /// io_uring: those that it was told to cancel.
    pub cancelling: Flight,
    /// io_uring: what came while the socket was paused.
    pub held: Option<Box<Held>>,
    /// io_uring: how many more small pieces are received into large buffers.
    pub patience: u8,
    /// epoll: bytes, an end or an error may be there to be read.
    pub readable: bool,
    /// epoll: the peer has ended or broken the connection, so that a short read is not the last.
    pub hung_up: bool,
    /// epoll: the kernel may take more.
    pub writable: bool,
}

impl Socket {
    pub fn new(fd: OwnedFd, role: Role) -> Socket {
        Socket {
            fd,
            role,
            connecting: false,
            receiving: false,
            ended: false,
            fin: Fin::No,
            detaching: false,
            farewell: false,
            marked: false,
            broken: None,
            out: Outbox::default(),
            registered: false,
            waiting: false,
            flight: Flight::NONE,
            cancelling: Flight::NONE,
            held: None,
            patience: 0,
            readable: false,
            hung_up: false,
            writable: true,
        }
    }

    /// Returns whether the kernel may still use its memory.
    pub fn busy(&self) -> bool {
        self.flight != Flight::NONE
    }

    /// Returns whether epoll may send on it now.
    pub fn ready(&self) -> bool {
        self.writable && self.registered && !self.connecting
    }

    /// Returns whether only the peer is waited for before it is closed.
    pub fn parting(&self) -> bool {
        self.farewell && self.fin == Fin::Sent && self.out.is_empty()
    }

    /// Returns whether what is sent now can still go out.
    pub fn sendable(&self) -> bool {
        self.role != Role::Listener
            && self.fin == Fin::No
            && self.broken.is_none()
            && !self.detaching
            && !self.farewell
    }
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    socket: Option<Socket>,
}

/// Slots with generations; the last one freed is the first one used, for its memory is warm.
#[derive(Debug)]
pub(crate) struct Sockets {
    slots: Vec<Slot>,
    free: Vec<u32>,
    limit: u32,
}

impl Sockets {
    pub fn new(limit: u32) -> Sockets {
        Sockets {
            slots: Vec::new(),
            free: Vec::new(),
            limit,
        }
    }

    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub fn limit(&self) -> u32 {
        self.limit
    }

    pub fn is_full(&self) -> bool {
        self.free.is_empty() && self.slots.len() >= self.limit as usize
    }

    /// Returns the name of `socket`, which is now in a slot, or gives it back if all are taken.
    pub fn insert(&mut self, socket: Socket) -> Result<Token, Socket> {
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.is_full() => return Err(socket),
            None => {
                let index = u32::try_from(self.slots.len()).expect("the limit is below 2^24");
                self.slots.push(Slot::default());
                index
            }
        };
        let slot = &mut self.slots[index as usize];
        slot.socket = Some(socket);
        Ok(Token {
            index,
            generation: slot.generation,
        })
    }

    pub fn get(&self, token: Token) -> Option<&Socket> {
        let slot = self.slots.get(token.index())?;
        (slot.generation == token.generation)
            .then_some(slot.socket.as_ref())
            .flatten()
    }

    pub fn get_mut(&mut self, token: Token) -> Option<&mut Socket> {
        let slot = self.slots.get_mut(token.index())?;
        (slot.generation == token.generation)
            .then_some(slot.socket.as_mut())
            .flatten()
    }

    /// Takes the socket out; its slot is free for another generation.
    pub fn remove(&mut self, token: Token) -> Option<Socket> {
        let slot = self.slots.get_mut(token.index())?;
        if slot.generation != token.generation {
            return None;
        }
        let socket = slot.socket.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(token.index);
        Some(socket)
    }
}
