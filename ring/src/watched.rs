//! Whether a handler was told anything.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use crate::handler::Handler;
use crate::io::Io;
use crate::token::Token;

/// A handler that notes that it was called: a turn that has told something does not wait.
pub(crate) struct Watched<'a, H> {
    handler: &'a mut H,
    pub told: bool,
}

impl<'a, H> Watched<'a, H> {
    pub fn new(handler: &'a mut H) -> Self {
        Watched {
            handler,
            told: false,
        }
    }

    fn tell(&mut self) -> &mut H {
        self.told = true;
        self.handler
    }
}

impl<H: Handler> Handler for Watched<'_, H> {
    fn accepted(&mut self, io: &mut Io, listener: Token, socket: Token, peer: SocketAddr) {
        self.tell().accepted(io, listener, socket, peer);
    }

    fn accept_failed(&mut self, io: &mut Io, listener: Token, error: io::Error) {
        self.tell().accept_failed(io, listener, error);
    }

    fn connected(&mut self, io: &mut Io, token: Token, result: io::Result<()>) {
        self.tell().connected(io, token, result);
    }

    fn received(&mut self, io: &mut Io, token: Token, data: &mut [u8]) {
        self.tell().received(io, token, data);
    }

    fn ended(&mut self, io: &mut Io, token: Token, result: io::Result<()>) {
        self.tell().ended(io, token, result);
    }

    fn sent(&mut self, io: &mut Io, token: Token) {
        self.tell().sent(io, token);
    }

    fn expired(&mut self, io: &mut Io, key: u64) {
        self.tell().expired(io, key);
    }

    fn woken(&mut self, io: &mut Io) {
        self.tell().woken(io);
    }

    fn detached(&mut self, io: &mut Io, token: Token, socket: OwnedFd) {
        self.tell().detached(io, token, socket);
    }
}
