//! What the tests of both drivers share.
#![allow(dead_code, reason = "each test binary uses a part of what they share")]

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use ballast_ring::{Backend, ConnectOptions, Handler, Io, Options, Ring, RingError, Token};

/// Longest wait for anything that a test expects, on a machine that is busy with builds.
pub const DEADLINE: Duration = Duration::from_mins(1);

/// Runs each test on both drivers.
#[macro_export]
macro_rules! on_both {
    ($($(#[$meta:meta])* fn $name:ident($options:ident) $body:block)*) => {
        mod epoll {
            #[allow(unused_imports, reason = "not every set of tests needs all")]
            use super::*;
            $(
                $(#[$meta])*
                #[test]
                fn $name() {
                    let $options = $crate::common::options(ballast_ring::Backend::Epoll);
                    $body
                }
            )*
        }
        mod io_uring {
            #[allow(unused_imports, reason = "not every set of tests needs all")]
            use super::*;
            $(
                $(#[$meta])*
                #[test]
                fn $name() {
                    let $options = $crate::common::options(ballast_ring::Backend::IoUring);
                    if $crate::common::skipped(&$options) {
                        return;
                    }
                    $body
                }
            )*
        }
    };
}

pub fn options(backend: Backend) -> Options {
    Options {
        backend,
        ..Options::default()
    }
}

/// Returns whether there is no such ring on this machine, and says why.
pub fn skipped(options: &Options) -> bool {
    match Ring::new(options) {
        Ok(_) => false,
        Err(error @ (RingError::Forbidden { .. } | RingError::Kernel { .. })) => {
            println!("SKIP: {error}");
            true
        }
        Err(error) => panic!("{error}"),
    }
}

pub fn ring(options: &Options) -> Ring {
    Ring::new(options).expect("the ring is to be had")
}

pub fn listener() -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port of loopback is free")
}

/// Turns until `done` holds of the handler.
pub fn until<H: Handler>(
    ring: &mut Ring,
    handler: &mut H,
    mut done: impl FnMut(&mut Io, &mut H) -> bool,
) {
    let deadline = Instant::now() + DEADLINE;
    while !done(ring.io(), handler) {
        assert!(Instant::now() < deadline, "not within the deadline");
        ring.turn(handler, Some(deadline)).expect("turns");
    }
}

/// Turns a few times without waiting, for what must not happen.
pub fn idle<H: Handler>(ring: &mut Ring, handler: &mut H) {
    for _ in 0..10 {
        let now = Instant::now();
        ring.turn(handler, Some(now)).expect("turns");
    }
}

/// Connects a pair of sockets: the first in the ring, the second outside and blocking.
pub fn pair(ring: &mut Ring) -> (Token, std::net::TcpStream) {
    let listener = listener();
    let address = listener.local_addr().expect("bound");
    let outside = std::net::TcpStream::connect(address).expect("connects");
    outside.set_nodelay(true).expect("a TCP socket");
    outside.set_read_timeout(Some(DEADLINE)).expect("a socket");
    outside.set_write_timeout(Some(DEADLINE)).expect("a socket");
    let (inside, _) = listener.accept().expect("accepts");
    let token = ring.io().adopt(OwnedFd::from(inside)).expect("a slot");
    (token, outside)
}

/// What a [`Log`] saw.
#[derive(Debug)]
pub enum Event {
    Accepted(Token, Token, SocketAddr),
    AcceptFailed(Token, io::Error),
    Connected(Token, Result<(), io::Error>),
    Received(Token, Vec<u8>),
    Ended(Token, Result<(), io::Error>),
    Sent(Token),
    Expired(u64, Instant),
    Woken,
    Detached(Token, OwnedFd),
}

/// Writes down what happens, and lets accepted and connected sockets receive.
#[derive(Default)]
pub struct Log {
    pub events: Vec<Event>,
    pub received: HashMap<Token, Vec<u8>>,
    /// Whether accepted sockets start receiving.
    pub mute: bool,
}

impl Log {
    pub fn bytes(&self, token: Token) -> &[u8] {
        self.received.get(&token).map_or(&[], Vec::as_slice)
    }

    pub fn count(&self, pick: impl Fn(&Event) -> bool) -> usize {
        self.events.iter().filter(|event| pick(event)).count()
    }

    pub fn connections(&self) -> Vec<Token> {
        let pick = |event: &Event| match event {
            Event::Accepted(_, socket, _) => Some(*socket),
            _ => None,
        };
        self.events.iter().filter_map(pick).collect()
    }

    /// Returns how the socket ended, if it did: with a FIN, or an error.
    pub fn end(&self, token: Token) -> Option<Result<(), io::ErrorKind>> {
        self.events.iter().find_map(|event| match event {
            Event::Ended(of, result) if *of == token => {
                Some(result.as_ref().copied().map_err(io::Error::kind))
            }
            _ => None,
        })
    }

    pub fn connection(&self, token: Token) -> Option<Result<(), io::ErrorKind>> {
        self.events.iter().find_map(|event| match event {
            Event::Connected(of, result) if *of == token => {
                Some(result.as_ref().copied().map_err(io::Error::kind))
            }
            _ => None,
        })
    }

    pub fn given_back(&mut self, token: Token) -> Option<OwnedFd> {
        let at = self
            .events
            .iter()
            .position(|event| matches!(event, Event::Detached(of, _) if *of == token))?;
        match self.events.remove(at) {
            Event::Detached(_, socket) => Some(socket),
            _ => None,
        }
    }
}

impl Handler for Log {
    fn accepted(&mut self, io: &mut Io, listener: Token, socket: Token, peer: SocketAddr) {
        if !self.mute {
            io.receive(socket);
        }
        self.events.push(Event::Accepted(listener, socket, peer));
    }

    fn accept_failed(&mut self, _io: &mut Io, listener: Token, error: io::Error) {
        self.events.push(Event::AcceptFailed(listener, error));
    }

    fn connected(&mut self, io: &mut Io, token: Token, result: io::Result<()>) {
        if !self.mute {
            io.receive(token);
        }
        self.events.push(Event::Connected(token, result));
    }

    fn received(&mut self, _io: &mut Io, token: Token, data: &mut [u8]) {
        self.received
            .entry(token)
            .or_default()
            .extend_from_slice(data);
        self.events.push(Event::Received(token, data.to_vec()));
    }

    fn ended(&mut self, _io: &mut Io, token: Token, result: io::Result<()>) {
        self.events.push(Event::Ended(token, result));
    }

    fn sent(&mut self, _io: &mut Io, token: Token) {
        self.events.push(Event::Sent(token));
    }

    fn expired(&mut self, io: &mut Io, key: u64) {
        self.events.push(Event::Expired(key, io.now()));
    }

    fn woken(&mut self, _io: &mut Io) {
        self.events.push(Event::Woken);
    }

    fn detached(&mut self, _io: &mut Io, token: Token, socket: OwnedFd) {
        self.events.push(Event::Detached(token, socket));
    }
}

pub fn connect(ring: &mut Ring, address: SocketAddr) -> Token {
    ring.io()
        .connect(address, &ConnectOptions::default())
        .expect("starts to connect")
}
