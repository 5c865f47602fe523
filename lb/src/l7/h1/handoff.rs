//! Connections that a thread of the hot path gives away: HTTP/2, and what a route asks of pingora.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use crate::l7::Front;

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
    let socket = tokio::net::TcpStream::from_std(TcpStream::from(over.socket))?;
    front
        .take_over(socket, over.client, over.listener, &over.read)
        .await;
    Ok(())
}
