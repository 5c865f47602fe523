//! A thread's connections to endpoints.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ballast_ring::{ConnectOptions, Io, Token};

use super::inbox::{Cut, Inbox};
use crate::table::{Backend, LinkId};

/// Idle connections kept by one thread; past it they are closed.
const IDLE_MAX: usize = 4096;

/// A connection to an endpoint.
#[derive(Debug)]
struct Uplink {
    token: Token,
    backend: Arc<Backend>,
    /// It is of use in this epoch of its endpoint alone.
    epoch: u64,
    link: LinkId,
    /// Whose request it serves; nobody's while it is idle.
    client: Option<Token>,
    connected: bool,
    idle_since: Instant,
}

/// What a socket is to the connections to endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// One of them that serves a request of this client.
    Serves(Token),
    /// One of them that is idle.
    Idle,
    /// None of them.
    Other,
}

/// Hashes addresses: their bits are spread well enough by one multiplication.
#[derive(Debug, Default)]
struct PointerHasher(u64);

impl Hasher for PointerHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_usize(byte.into());
        }
    }

    fn write_usize(&mut self, number: usize) {
        let mixed = (self.0 ^ number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ mixed >> 32;
    }
}

/// Idle connections by the address of their endpoint's state in memory, which they keep alive; the
/// last one used is the first one used again.
type Idle = HashMap<usize, Vec<Token>, BuildHasherDefault<PointerHasher>>;

/// The connections of one thread.
#[derive(Debug)]
pub struct Uplinks {
    inbox: Arc<Inbox>,
    /// By the index of their token.
    slots: Vec<Option<Box<Uplink>>>,
    idle: Idle,
    idle_count: usize,
    options: ConnectOptions,
}

fn key(backend: &Arc<Backend>) -> usize {
    Arc::as_ptr(backend) as usize
}

impl Uplinks {
    /// Makes an empty set; what cuts a connection tells `inbox`.
    pub fn new(inbox: Arc<Inbox>) -> Self {
        Self {
            inbox,
            slots: Vec::new(),
            idle: Idle::default(),
            idle_count: 0,
            options: ConnectOptions::default(),
        }
    }

    /// Returns a connection to an endpoint, and whether it is connected already. An idle one must
    /// be of the endpoint's present epoch and not older than `keep`.
    pub fn dial(
        &mut self,
        io: &mut Io,
        backend: &Arc<Backend>,
        client: Token,
        keep: Duration,
    ) -> Option<(Token, bool)> {
        let epoch = backend.links.epoch();
        while let Some(token) = self.pop_idle(backend) {
            if let Some(uplink) = self.get_mut(token)
                && uplink.epoch == epoch
                && io.now().saturating_duration_since(uplink.idle_since) < keep
            {
                uplink.client = Some(client);
                return Some((token, true));
            }
            self.discard(io, token);
        }
        self.connect(io, backend, client, epoch)
    }

    fn connect(
        &mut self,
        io: &mut Io,
        backend: &Arc<Backend>,
        client: Token,
        epoch: u64,
    ) -> Option<(Token, bool)> {
        let token = match io.connect(backend.address, &self.options) {
            Ok(token) => token,
            Err(error) => {
                tracing::debug!(address = %backend.address, %error, "cannot connect");
                return None;
            }
        };
        let cut = Cut {
            inbox: Arc::clone(&self.inbox),
            token,
        };
        let Ok(link) = backend.links.register(epoch, Box::new(cut)) else {
            io.close(token);
            return None;
        };
        io.receive(token);
        if self.slots.len() <= token.index() {
            self.slots.resize_with(token.index() + 1, || None);
        }
        self.slots[token.index()] = Some(Box::new(Uplink {
            token,
            backend: Arc::clone(backend),
            epoch,
            link,
            client: Some(client),
            connected: false,
            idle_since: io.now(),
        }));
        Some((token, false))
    }

    fn pop_idle(&mut self, backend: &Arc<Backend>) -> Option<Token> {
        let token = self.idle.get_mut(&key(backend))?.pop()?;
        self.idle_count -= 1;
        Some(token)
    }

    fn get(&self, token: Token) -> Option<&Uplink> {
        let uplink = self.slots.get(token.index())?.as_deref()?;
        (uplink.token == token).then_some(uplink)
    }

    fn get_mut(&mut self, token: Token) -> Option<&mut Uplink> {
        let uplink = self.slots.get_mut(token.index())?.as_deref_mut()?;
        (uplink.token == token).then_some(uplink)
    }

    /// Returns whether it is one of these, and what it does.
    pub fn use_of(&self, token: Token) -> Use {
        match self.get(token).map(|uplink| uplink.client) {
            Some(Some(client)) => Use::Serves(client),
            Some(None) => Use::Idle,
            None => Use::Other,
        }
    }

    /// Notes that it is connected.
    pub fn connected(&mut self, token: Token) {
        if let Some(uplink) = self.get_mut(token) {
            uplink.connected = true;
        }
    }

    /// Keeps a connection that served its request.
    pub fn release(&mut self, io: &mut Io, token: Token) {
        let full = self.idle_count >= IDLE_MAX;
        let Some(uplink) = self.get_mut(token) else {
            return;
        };
        if full || !uplink.connected {
            return self.discard(io, token);
        }
        uplink.client = None;
        uplink.idle_since = io.now();
        let key = key(&uplink.backend);
        self.idle.entry(key).or_default().push(token);
        self.idle_count += 1;
    }

    /// Closes a connection.
    pub fn discard(&mut self, io: &mut Io, token: Token) {
        if let Some(uplink) = self.forget(token) {
            io.close(uplink.token);
        }
    }

    fn forget(&mut self, token: Token) -> Option<Box<Uplink>> {
        self.get(token)?;
        let uplink = self.slots[token.index()].take()?;
        uplink.backend.links.release(uplink.link);
        if uplink.client.is_none() {
            let key = key(&uplink.backend);
            if let Some(idle) = self.idle.get_mut(&key) {
                let before = idle.len();
                idle.retain(|other| *other != token);
                self.idle_count -= before - idle.len();
                if idle.is_empty() {
                    self.idle.remove(&key);
                }
            }
        }
        Some(uplink)
    }

    /// Returns whether any is idle.
    pub fn has_idle(&self) -> bool {
        self.idle_count > 0
    }

    /// Closes those that have been idle for `keep`, or whose endpoint was taken out.
    pub fn sweep(&mut self, io: &mut Io, keep: Duration) {
        let now = io.now();
        let idle = self.idle.values().flatten().copied();
        let old: Vec<Token> = idle
            .filter(|&token| {
                let uplink = self.get(token);
                uplink.is_some_and(|uplink| {
                    now.saturating_duration_since(uplink.idle_since) >= keep
                        || uplink.epoch != uplink.backend.links.epoch()
                })
            })
            .collect();
        for token in old {
            self.discard(io, token);
        }
    }
}
