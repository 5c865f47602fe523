//! The sockets that listen: those that were given, and those that will be handed over.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

/// What listens at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// TCP, accepted from.
    Tcp,
    /// UDP.
    Udp,
}

type Named = BTreeMap<(Kind, SocketAddr), Vec<OwnedFd>>;

/// Every socket that listens, by where it does.
#[derive(Debug, Default)]
pub struct Sockets {
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    given: Named,
    kept: Named,
}

impl Sockets {
    /// Notes what a predecessor gave.
    pub fn give(&self, kind: Kind, address: SocketAddr, socket: OwnedFd) {
        let mut held = self.lock();
        held.given.entry((kind, address)).or_default().push(socket);
    }

    /// Returns what was given for an address; the second time nothing.
    pub fn take(&self, kind: Kind, address: SocketAddr) -> Vec<OwnedFd> {
        self.lock()
            .given
            .remove(&(kind, address))
            .unwrap_or_default()
    }

    /// Closes what was given and is not wanted: it listens no longer.
    pub fn close_rest(&self) {
        let rest = std::mem::take(&mut self.lock().given);
        for (kind, address) in rest.into_keys() {
            tracing::info!(?kind, %address, "no longer listening");
        }
    }

    /// Keeps a copy to hand over later.
    ///
    /// # Errors
    /// There is no descriptor left.
    pub fn keep(&self, kind: Kind, address: SocketAddr, socket: impl AsFd) -> io::Result<()> {
        let copy = socket.as_fd().try_clone_to_owned()?;
        let mut held = self.lock();
        held.kept.entry((kind, address)).or_default().push(copy);
        Ok(())
    }

    /// Closes the copies: the address is listened on no longer.
    pub fn forget(&self, kind: Kind, address: SocketAddr) {
        self.lock().kept.remove(&(kind, address));
    }

    /// Returns copies of all that are kept.
    ///
    /// # Errors
    /// There is no descriptor left.
    pub fn copies(&self) -> io::Result<Vec<((Kind, SocketAddr), OwnedFd)>> {
        let held = self.lock();
        let mut all = Vec::new();
        for (&name, sockets) in &held.kept {
            for socket in sockets {
                all.push((name, socket.try_clone()?));
            }
        }
        Ok(all)
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
