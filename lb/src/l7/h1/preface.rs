//! The PROXY header before a client's first byte.

use ballast_http1::proxy::parse;
use ballast_ring::{Io, Token};

use super::machine::Connection;
use super::worker::Worker;

impl Worker {
    /// A balancer's connection, which has not said yet whose it is, sent bytes.
    pub(super) fn preface_received(&mut self, io: &mut Io, token: Token, data: &[u8]) {
        let Some(client) = self.client_mut(token) else {
            return;
        };
        let Some(preface) = &mut client.preface else {
            return;
        };
        preface.extend_from_slice(data);
        let (length, source) = match parse(preface) {
            Ok(Some(header)) => (header.length, header.addresses.map(|both| both.source)),
            // It has a greatest length, past which it is an error.
            Ok(None) => return,
            Err(error) => {
                tracing::debug!(peer = %client.peer, %error, "connection refused");
                io.close(token);
                self.forget(io, token);
                return;
            }
        };
        let mut rest = preface.split_off(length);
        client.preface = None;
        if let Some(source) = source {
            client.peer = source;
            let place = client.listener as usize;
            let entrance = self.listeners[place].entrance;
            let machine = Connection::new(source.ip(), entrance, io.now());
            if let Some(client) = self.client_mut(token) {
                client.machine = machine;
            }
        }
        if rest.is_empty() {
            return;
        }
        let secure = self
            .client_mut(token)
            .is_some_and(|client| client.secure.is_some());
        if secure {
            self.secure_received(io, token, &mut rest);
        } else {
            self.core.copied = true;
            self.with_client(io, token, |machine, desk, hands| {
                machine.client_received(&rest, desk, hands);
            });
            self.core.copied = false;
        }
    }
}
