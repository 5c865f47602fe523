//! How other threads speak to a worker.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};

use ballast_ring::{Token, Waker};
use tokio::sync::oneshot;

use crate::l7::Entrance;
use crate::table::Sever;

/// Names what listens at one address, on all threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListenId(pub u64);

/// What a worker is told to do.
#[derive(Debug)]
pub enum Command {
    /// Accept connections.
    Listen {
        /// Its name.
        id: ListenId,
        /// The socket.
        listener: TcpListener,
        /// Where it was told to listen.
        address: SocketAddr,
        /// How its connections come in.
        entrance: Entrance,
    },
    /// Close what listens.
    Unlisten {
        /// Its name.
        id: ListenId,
        /// Told when the socket is closed.
        done: oneshot::Sender<()>,
    },
    /// Cut a connection whose endpoint was taken out.
    Cut(Token),
    /// Accept nothing more, and let connections end after their next request.
    Retire,
    /// Let connections end after the request they are at, and end with the last one.
    Drain,
    /// End now.
    Stop,
}

/// Commands that wait for a worker: at most one for each connection to an endpoint, and a few.
#[derive(Debug)]
pub struct Inbox {
    commands: Mutex<Vec<Command>>,
    waker: Waker,
}

impl Inbox {
    /// Makes one for a ring.
    pub fn new(waker: Waker) -> Arc<Self> {
        Arc::new(Self {
            commands: Mutex::default(),
            waker,
        })
    }

    /// Tells the worker.
    pub fn tell(&self, command: Command) {
        let commands = self.commands.lock();
        let mut commands = commands.unwrap_or_else(PoisonError::into_inner);
        commands.push(command);
        drop(commands);
        self.waker.wake();
    }

    /// Returns what was told since the last call.
    pub fn take(&self) -> Vec<Command> {
        let commands = self.commands.lock();
        std::mem::take(&mut *commands.unwrap_or_else(PoisonError::into_inner))
    }
}

/// Cuts one connection of a worker.
#[derive(Debug)]
pub struct Cut {
    /// The worker's.
    pub inbox: Arc<Inbox>,
    /// The connection.
    pub token: Token,
}

impl Sever for Cut {
    fn sever(&self) {
        self.inbox.tell(Command::Cut(self.token));
    }
}
