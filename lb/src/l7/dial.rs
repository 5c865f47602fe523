//! Connections to endpoints that can be cut from outside.
//!
//! pingora does not cancel a request whose endpoint was taken out. So each connection is
//! registered with the endpoint's [`Links`] by a second descriptor of the same socket, and taking
//! the endpoint out shuts the sockets down: whoever reads or writes sees the end at once, pooled
//! connections are found dead when they would be reused, and nothing is added to the path of a
//! request. A wrapper around the stream could do the same, but pingora gives every stream that is
//! not a plain socket the descriptor -1, and so never reuses it. See docs/adr/0005.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::ErrorType::{ConnectError, ConnectRefused, ConnectTimedout, InternalError};
use pingora::connectors::L4Connect;
use pingora::protocols::l4::socket::SocketAddr as PingoraAddr;
use pingora::protocols::l4::stream::Stream;
use pingora::protocols::l4::virt::VirtualSocketStream;
use pingora::upstreams::peer::{Tracer, Tracing};
use pingora::{Error, OrErr as _, Result};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::upgrade::Patient;
use crate::table::{LinkId, Links, Sever};

/// Connects to one endpoint.
#[derive(Debug)]
pub struct Dialer {
    links: Arc<Links>,
    epoch: u64,
    timeout: Duration,
    upgrade: bool,
    /// What each connection begins with.
    preface: Vec<u8>,
}

impl Dialer {
    /// Makes one for an endpoint in its current epoch; `upgrade` for a request that asks for one.
    pub fn new(links: Arc<Links>, epoch: u64, timeout: Duration, upgrade: bool) -> Self {
        Self {
            links,
            epoch,
            timeout,
            upgrade,
            preface: Vec::new(),
        }
    }

    /// Begins each connection with these bytes.
    #[must_use]
    pub fn with_preface(mut self, preface: Vec<u8>) -> Self {
        self.preface = preface;
        self
    }
}

/// A socket that can be shut down while another owns it.
pub struct Socket(OwnedFd);

impl Socket {
    /// Takes a second descriptor of a socket.
    pub fn of(stream: &TcpStream) -> std::io::Result<Self> {
        stream.as_fd().try_clone_to_owned().map(Self)
    }
}

impl Sever for Socket {
    fn sever(&self) {
        // It fails only if the peer has closed already, and then there is nothing to cut.
        let _ = rustix::net::shutdown(&self.0, rustix::net::Shutdown::Both);
    }
}

/// Something that ends when its token is cancelled: a connection that is being made, or one whose
/// user can wait for two things at once.
pub struct Cancel(pub CancellationToken);

impl Sever for Cancel {
    fn sever(&self) {
        self.0.cancel();
    }
}

/// A connection in the endpoint's links; leaves them when pingora drops the stream.
#[derive(Debug)]
struct Registered {
    links: Arc<Links>,
    id: LinkId,
}

impl Tracing for Registered {
    fn on_connected(&self) {}

    fn on_disconnected(&self) {
        self.links.release(self.id);
    }

    fn boxed_clone(&self) -> Box<dyn Tracing> {
        Box::new(Self {
            links: Arc::clone(&self.links),
            id: self.id,
        })
    }
}

/// Connects to an address, unless its endpoint is taken out meanwhile.
///
/// # Errors
/// Of kind `TimedOut` after `timeout`, of kind `ConnectionAborted` if the endpoint was taken out,
/// and whatever the system says.
pub async fn connect(
    links: &Links,
    epoch: u64,
    address: SocketAddr,
    timeout: Duration,
) -> std::io::Result<TcpStream> {
    let taken_out = || std::io::Error::from(std::io::ErrorKind::ConnectionAborted);
    let token = CancellationToken::new();
    let link = links
        .register(epoch, Box::new(Cancel(token.clone())))
        .map_err(|_| taken_out())?;
    let connected = tokio::select! {
        connected = tokio::time::timeout(timeout, TcpStream::connect(address)) => connected,
        () = token.cancelled() => Ok(Err(taken_out())),
    };
    links.release(link);
    connected.map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))?
}

#[async_trait]
impl L4Connect for Dialer {
    async fn connect(&self, address: &PingoraAddr) -> Result<Stream> {
        let address = *address
            .as_inet()
            .ok_or_else(|| Error::explain(InternalError, "endpoints have internet addresses"))?;
        let mut socket = connect(&self.links, self.epoch, address, self.timeout)
            .await
            .map_err(|error| {
                let kind = match error.kind() {
                    std::io::ErrorKind::TimedOut => ConnectTimedout,
                    std::io::ErrorKind::ConnectionRefused => ConnectRefused,
                    _ => ConnectError,
                };
                Error::because(kind, "connecting to an endpoint", error)
            })?;
        // A fresh connection's buffer takes far more than such a header: this does not wait.
        socket
            .write_all(&self.preface)
            .await
            .or_err(ConnectError, "connecting to an endpoint")?;
        let second = Socket::of(&socket).or_err(InternalError, "no descriptor left")?;
        let id = self
            .links
            .register(self.epoch, Box::new(second))
            .or_err(ConnectError, "connecting to an endpoint")?;
        let mut stream = if self.upgrade {
            Stream::from(VirtualSocketStream::new(Box::new(Patient::new(socket))))
        } else {
            Stream::from(socket)
        };
        stream.tracer = Some(Tracer(Box::new(Registered {
            links: Arc::clone(&self.links),
            id,
        })));
        Ok(stream)
    }
}
