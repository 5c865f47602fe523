//! From an accepted connection to pingora's proxy.

use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use pingora::apps::{HttpServerApp as _, HttpServerOptions, ServerApp as _};
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::H2Options;
use pingora::protocols::l4::socket::SocketAddr as PingoraAddr;
use pingora::protocols::l4::stream::Stream as L4Stream;
use pingora::protocols::l4::virt::{VirtualSocket, VirtualSocketStream};
use pingora::protocols::{GetSocketDigest as _, SocketDigest, Stream};
use pingora::proxy::{HttpProxy, http_proxy};
use pingora::server::configuration::ServerConf;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::tls::{Decrypted, Prefixed, Relayed};
use super::watched::{Plain, Watched};
use super::{Balancer, Timeouts, flood};
use crate::hub::Hub;
use crate::metrics::{Handshake, TlsStats};
use crate::tls::ACME_ALPN;

/// Until the first bytes of a connection, and until a TLS handshake is done.
const FIRST_BYTES: Duration = Duration::from_mins(1);
/// How long a client's connection may be idle between two requests.
const CLIENT_KEEP_SECS: u64 = 75;
/// Idle connections to endpoints kept in all. pingora's default of 128 is less than the clients of
/// one loaded service; each costs two descriptors here.
const POOL_SIZE: usize = 1024;
/// An HTTP/2 connection starts with `PRI * HTTP/2.0`; no method of HTTP/1.1 starts with `PRI`.
const H2_PREFIX: &[u8; 3] = b"PRI";

/// How a connection came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entrance {
    /// On the port that a service published.
    Published(u16),
    /// On the shared plain listener.
    Shared,
    /// On the shared TLS listener.
    SharedTls,
}

/// Entrances by the address of their listener: pingora tells of a request only the addresses of its
/// connection, so each connection is given its listener's as its own.
pub type EntranceMap = DashMap<SocketAddr, Entrance>;

/// The entrances that listen.
#[derive(Debug, Default)]
pub struct Entrances(EntranceMap);

impl Entrances {
    /// Notes that an address listens.
    pub fn insert(&self, listener: SocketAddr, entrance: Entrance) {
        self.0.insert(listener, entrance);
    }

    /// Returns how connections to an address come in.
    pub fn get(&self, listener: &SocketAddr) -> Option<Entrance> {
        self.0.get(listener).map(|entrance| *entrance)
    }
}

/// Serves connections.
pub struct Front {
    proxy: Arc<HttpProxy<Balancer>>,
    /// The entrances that listen.
    pub entrances: Arc<Entrances>,
    stats: TlsStats,
    shutdown: watch::Sender<bool>,
}

impl Front {
    /// Makes one over the hub's tables.
    pub fn new(hub: Arc<Hub>, timeouts: Timeouts) -> Arc<Self> {
        let conf = ServerConf {
            threads: 1,
            upstream_keepalive_pool_size: POOL_SIZE,
            // An empty list of authorities: endpoints are spoken to in plain text, and reading the
            // system's costs memory and fails where there are none.
            ca_file: Some("/dev/null".to_owned()),
            // Ours is the limit that counts (`retry::MAX_ATTEMPTS`).
            max_retries: 16,
            ..ServerConf::default()
        };
        let entrances = Arc::new(Entrances::default());
        let stats = hub.metrics.tls.clone();
        let balancer = Balancer::new(hub, timeouts, Arc::clone(&entrances));
        let mut proxy = http_proxy(&Arc::new(conf), balancer);
        let mut options = HttpServerOptions::default();
        options.h2c = true;
        proxy.server_options = Some(options);
        proxy.h2_options = Some(h2_options());
        Arc::new(Self {
            proxy: Arc::new(proxy),
            entrances,
            stats,
            shutdown: watch::Sender::new(false),
        })
    }

    /// Serves one TLS connection until it ends.
    pub async fn serve_tls(
        &self,
        socket: Prefixed,
        client: SocketAddr,
        listener: SocketAddr,
        config: Arc<rustls::ServerConfig>,
    ) {
        let digest = digest(socket.socket.as_raw_fd(), client, listener);
        let accepted = TlsAcceptor::from(config).accept(socket);
        let stream = match tokio::time::timeout(FIRST_BYTES, accepted).await {
            Ok(Ok(stream)) => stream,
            failed => {
                self.stats.handshake(Handshake::Failed);
                if let Ok(Err(error)) = failed {
                    tracing::debug!(%client, %error, "TLS handshake failed");
                }
                return;
            }
        };
        self.stats.handshake(Handshake::Done);
        let protocol = stream.get_ref().1.alpn_protocol();
        if protocol == Some(ACME_ALPN) {
            // The certificate was the answer.
            return;
        }
        let h2 = protocol == Some(b"h2");
        let stream = Decrypted(stream);
        let mut stream = if h2 {
            self.watched(stream, &[])
        } else {
            L4Stream::from(VirtualSocketStream::new(Box::new(stream)))
        };
        stream.set_socket_digest(digest);
        self.process(Box::new(stream), h2).await;
    }

    /// Serves a connection of which `read` was read already, until it ends.
    pub async fn take_over(
        &self,
        socket: TcpStream,
        client: SocketAddr,
        listener: SocketAddr,
        read: &[u8],
    ) {
        let h2 = read.starts_with(H2_PREFIX);
        let digest = digest(socket.as_raw_fd(), client, listener);
        let mut stream = if h2 {
            self.watched(Plain(socket), read)
        } else {
            L4Stream::from(socket)
        };
        stream.set_socket_digest(digest);
        stream.rewind(read);
        self.process(Box::new(stream), h2).await;
    }

    /// Serves the plain text of a connection that another thread decrypts, until it ends.
    pub async fn take_relay(
        &self,
        socket: UnixStream,
        client: SocketAddr,
        listener: SocketAddr,
        read: &[u8],
    ) {
        let h2 = read.starts_with(H2_PREFIX);
        let digest = digest(socket.as_raw_fd(), client, listener);
        let socket = Relayed(socket);
        let mut stream = if h2 {
            self.watched(socket, read)
        } else {
            L4Stream::from(VirtualSocketStream::new(Box::new(socket)))
        };
        stream.set_socket_digest(digest);
        stream.rewind(read);
        self.process(Box::new(stream), h2).await;
    }

    fn watched<S>(&self, socket: S, read: &[u8]) -> L4Stream
    where
        S: VirtualSocket + Unpin + Send + Sync + std::fmt::Debug + 'static,
    {
        let watched = Watched::new(socket, read, self.stats.clone());
        L4Stream::from(VirtualSocketStream::new(Box::new(watched)))
    }

    async fn process(&self, stream: Stream, h2: bool) {
        let shutdown = self.shutdown.subscribe();
        if h2 {
            self.proxy.process_new(stream, &shutdown).await;
            return;
        }
        // What `process_new` does, without its look for the HTTP/2 preface: that waits for 24
        // bytes, which a short HTTP/1.0 request does not have.
        let mut session = ServerSession::new_http1(stream);
        session.set_keepalive(Some(CLIENT_KEEP_SECS));
        session.set_pipelining_enabled(true);
        let mut reused = self.proxy.process_new_http(session, &shutdown).await;
        while let Some((stream, settings)) = reused.map(pingora::apps::ReusedHttpStream::consume) {
            let mut session = ServerSession::new_http1(stream);
            if let Some(settings) = settings {
                settings.apply_to_session(&mut session);
            }
            reused = self.proxy.process_new_http(session, &shutdown).await;
        }
    }

    /// Lets connections end after their next request.
    pub fn retire(&self) {
        self.shutdown.send_replace(true);
    }

    /// Lets connections end after the request they are at.
    pub async fn close(&self) {
        self.shutdown.send_replace(true);
        self.proxy.http_cleanup().await;
    }
}

fn h2_options() -> H2Options {
    let mut options = H2Options::default();
    options
        .max_concurrent_streams(flood::STREAMS)
        .max_header_list_size(flood::HEADER_LIST_BYTES)
        .max_concurrent_reset_streams(flood::RESET_STREAMS)
        .max_pending_accept_reset_streams(flood::PENDING_RESETS)
        .max_local_error_reset_streams(Some(flood::MISTAKES))
        .initial_window_size(flood::STREAM_WINDOW)
        .initial_connection_window_size(flood::CONNECTION_WINDOW)
        .max_send_buffer_size(flood::SEND_BUFFER);
    options
}

fn digest(fd: std::os::fd::RawFd, client: SocketAddr, listener: SocketAddr) -> SocketDigest {
    let digest = SocketDigest::from_raw_fd(fd);
    // Both cells are new, so setting them cannot fail.
    let _ = digest.peer_addr.set(Some(PingoraAddr::Inet(client)));
    let _ = digest.local_addr.set(Some(PingoraAddr::Inet(listener)));
    digest
}
