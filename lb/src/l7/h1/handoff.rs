//! Connections that a thread of the hot path gives away: HTTP/2, and what a route or an endpoint asks
//! of pingora.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use crate::l7::{Front, Prefixed};

/// Connections on their way to pingora; past it they are closed.
pub const HANDOFF_MAX: usize = 1024;

/// A connection that is given away.
#[derive(Debug)]
pub struct HandOver {
    /// Its socket, which is non-blocking.
    pub socket: OwnedFd,
    /// The client's address.
    pub client: SocketAddr,
    /// The address of its listener.
    pub listener: SocketAddr,
    /// What was read of it, and is to be read again.
    pub read: Vec<u8>,
    /// What its socket is.
    pub kind: Kind,
}

/// What the socket of a connection that is given away is.
#[derive(Debug)]
pub enum Kind {
    /// The client's, in plain text.
    Plain,
    /// The client's, whose TLS handshake was not answered yet.
    Hello(Arc<rustls::ServerConfig>),
    /// One end of a pair: the thread that has the client decrypts into it, and encrypts what comes
    /// out, so that no cryptographic state has to move.
    Relay,
}

/// Serves what is given away until nobody can give any more.
pub async fn serve(
    front: Arc<Front>,
    connections: TaskTracker,
    mut given: mpsc::Receiver<HandOver>,
) {
    while let Some(over) = given.recv().await {
        let front = Arc::clone(&front);
        connections.spawn(async move {
            let client = over.client;
            if let Err(error) = take(&front, over).await {
                tracing::debug!(%client, %error, "connection not taken over");
            }
        });
    }
}

async fn take(front: &Front, over: HandOver) -> io::Result<()> {
    let (client, listener) = (over.client, over.listener);
    match over.kind {
        Kind::Plain => {
            let socket = tokio::net::TcpStream::from_std(TcpStream::from(over.socket))?;
            front.take_over(socket, client, listener, &over.read).await;
        }
        Kind::Hello(config) => {
            let socket = tokio::net::TcpStream::from_std(TcpStream::from(over.socket))?;
            let socket = Prefixed::new(over.read, socket);
            front.serve_tls(socket, client, listener, config).await;
        }
        Kind::Relay => {
            let socket = tokio::net::UnixStream::from_std(UnixStream::from(over.socket))?;
            front.take_relay(socket, client, listener, &over.read).await;
        }
    }
    Ok(())
}
