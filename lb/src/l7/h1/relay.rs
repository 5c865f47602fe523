//! Clients under TLS: from their records to their machines, and through a pair of sockets to pingora
//! where a machine does not serve them.

use std::mem;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use ballast_ring::{Io, Token};

use super::handoff::{HandOver, Kind};
use super::machine::{Connection, UNSENT_MAX};
use super::secure::Step;
use super::worker::Worker;
use crate::metrics::Handshake;

/// Encrypted bytes from which a buffer is given to the ring rather than copied.
const GIVE_BYTES: usize = 16 << 10;

/// Sends encrypted bytes, and empties their buffer.
pub fn send_cipher(io: &mut Io, client: Token, cipher: &mut Vec<u8>) {
    if cipher.len() < GIVE_BYTES {
        io.send(client, cipher);
        cipher.clear();
    } else {
        io.send_vec(client, mem::take(cipher));
    }
}

impl Worker {
    /// A client under TLS sent bytes.
    pub(super) fn secure_received(&mut self, io: &mut Io, token: Token, data: &mut [u8]) {
        let mut plain = mem::take(&mut self.plain);
        let mut cipher = mem::take(&mut self.core.cipher);
        let hub = &self.core.hub;
        let slot = self.clients.get_mut(token.index());
        let client = slot.and_then(|slot| slot.as_deref_mut());
        let Some(secure) = client.and_then(|client| client.secure.as_deref_mut()) else {
            return;
        };
        let was_open = secure.is_open();
        let step = secure.received(data, || hub.tls.load_full(), &mut cipher, &mut plain);
        let (ended, relay) = (secure.is_ended(), secure.relay);
        send_cipher(io, token, &mut cipher);
        self.core.cipher = cipher;
        let stats = &hub.metrics.tls;
        let failed = step.is_err();
        match step {
            Ok(Step::Opened) => stats.handshake(Handshake::Done),
            Ok(Step::Leave) => io.detach(token),
            Ok(Step::Go) => {}
            Err(error) => {
                tracing::debug!(%error, "TLS session failed");
                if !was_open {
                    stats.handshake(Handshake::Failed);
                }
            }
        }
        if let Some(relay) = relay {
            io.send(relay, &plain);
            if io.unsent(relay) > UNSENT_MAX {
                io.pause(token);
            }
            if ended {
                io.shutdown(relay);
            }
        } else {
            if !plain.is_empty() {
                self.with_client(io, token, |machine, desk, hands| {
                    machine.client_received(&plain, desk, hands);
                });
            }
            if ended {
                self.with_client(io, token, |machine, desk, hands| {
                    machine.client_ended(false, desk, hands);
                });
            }
        }
        plain.clear();
        plain.shrink_to(UNSENT_MAX);
        self.plain = plain;
        if failed {
            self.secure_failed(io, token);
        }
    }

    /// Closes a connection once its alert is sent.
    fn secure_failed(&mut self, io: &mut Io, token: Token) {
        let busy = |client: &mut super::worker::Client| client.machine.is_busy();
        if self.client_mut(token).is_some_and(busy) {
            self.with_client(io, token, |machine, desk, hands| {
                machine.client_ended(true, desk, hands);
            });
        } else {
            io.close_sent(token);
            self.forget(io, token);
        }
    }

    /// Gives the plain text of a client to pingora, from what its machine has not consumed on.
    pub(super) fn begin_relay(&mut self, io: &mut Io, token: Token) {
        let made = pair().and_then(|(ours, theirs)| {
            let relay = io.adopt(ours).map_err(std::io::Error::other)?;
            Ok((relay, theirs))
        });
        let (relay, socket) = match made {
            Ok(made) => made,
            Err(error) => {
                tracing::warn!(%error, "connection not handed over");
                io.close(token);
                self.forget(io, token);
                return;
            }
        };
        let Some(client) = self.client_mut(token) else {
            io.close(relay);
            return;
        };
        if let Some((timer, _)) = client.timer.take() {
            io.disarm(timer);
        }
        let Some(secure) = client.secure.as_deref_mut() else {
            io.close(relay);
            return;
        };
        secure.relay = Some(relay);
        let peer = client.peer;
        let place = client.listener as usize;
        let (entrance, address) = {
            let listener = &self.listeners[place];
            (listener.entrance, listener.address)
        };
        let fresh = Connection::new(peer.ip(), entrance, io.now());
        let Some(client) = self.client_mut(token) else {
            return;
        };
        let read = mem::replace(&mut client.machine, fresh).into_held();
        self.relays.insert(relay, token);
        io.receive(relay);
        io.receive(token);
        let over = HandOver {
            socket,
            client: peer,
            listener: address,
            read,
            kind: Kind::Relay,
        };
        if let Err(error) = self.handoff.try_send(over) {
            // The pair's other end is closed with it, which ends the client.
            tracing::warn!(%error, "connection not handed over");
        }
    }

    /// Whether a socket is an end of a relay, or a client with one.
    pub(super) fn is_relayed(&mut self, token: Token) -> bool {
        if self.relays.is_empty() {
            return false;
        }
        self.relays.contains_key(&token) || self.relay_of(token).is_some()
    }

    fn relay_of(&mut self, client: Token) -> Option<Token> {
        let client = self.client_mut(client)?;
        client.secure.as_ref()?.relay
    }

    /// pingora answered.
    pub(super) fn relay_received(&mut self, io: &mut Io, relay: Token, data: &[u8]) {
        let Some(&token) = self.relays.get(&relay) else {
            return;
        };
        let mut cipher = mem::take(&mut self.core.cipher);
        let secure = self
            .client_mut(token)
            .and_then(|client| client.secure.as_deref_mut());
        if let Some(secure) = secure
            && let Err(error) = secure.encrypt(data, &mut cipher)
        {
            tracing::debug!(%error, "not encrypted");
        }
        send_cipher(io, token, &mut cipher);
        self.core.cipher = cipher;
        if io.unsent(token) > UNSENT_MAX {
            io.pause(relay);
        }
    }

    /// One side has taken all that was queued: the other goes on.
    pub(super) fn relay_sent(&mut self, io: &mut Io, token: Token) {
        let client = self.relays.get(&token).copied();
        if let Some(other) = client.or_else(|| self.relay_of(token)) {
            io.receive(other);
        }
    }

    /// One side has ended.
    pub(super) fn relay_ended(&mut self, io: &mut Io, token: Token, broken: bool) {
        if let Some(&client) = self.relays.get(&token) {
            let mut cipher = mem::take(&mut self.core.cipher);
            let secure = self
                .client_mut(client)
                .and_then(|client| client.secure.as_deref_mut());
            if let Some(secure) = secure {
                secure.close(&mut cipher);
            }
            send_cipher(io, client, &mut cipher);
            self.core.cipher = cipher;
            io.close_sent(client);
            self.forget(io, client);
        } else if broken {
            self.forget(io, token);
        } else if let Some(relay) = self.relay_of(token) {
            io.shutdown(relay);
        }
    }
}

fn pair() -> std::io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    theirs.set_nonblocking(true)?;
    Ok((ours.into(), theirs.into()))
}
