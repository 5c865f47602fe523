//! Connections of every kind behind one type, so that the protocols are written, and compiled, once.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::record::ErrorClass;
use crate::sample::Opened;

use super::failure;
use super::tls::TlsSetup;
use super::uring::{Buffers, UringSocket};
use super::work::Work;

/// A connected socket of either driver. Of UDP a read is one datagram, as is a write.
pub enum Socket {
    Tcp(TcpStream),
    Udp(UdpSocket),
    Uring(UringSocket),
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_read(context, out),
            Self::Udp(socket) => socket.poll_recv(context, out),
            Self::Uring(socket) => Pin::new(socket).poll_read(context, out),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_write(context, bytes),
            Self::Udp(socket) => socket.poll_send(context, bytes),
            Self::Uring(socket) => Pin::new(socket).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            // Neither holds anything back.
            Self::Tcp(_) | Self::Udp(_) => Poll::Ready(Ok(())),
            Self::Uring(socket) => Pin::new(socket).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_shutdown(context),
            Self::Udp(_) => Poll::Ready(Ok(())),
            Self::Uring(socket) => Pin::new(socket).poll_shutdown(context),
        }
    }
}

/// A connection, with TLS or without.
pub enum Stream {
    Plain(Socket),
    Tls(Box<TlsStream<Socket>>),
}

impl Stream {
    /// Returns what was agreed on in the handshake.
    pub fn alpn(&self) -> Option<&[u8]> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => stream.get_ref().1.alpn_protocol(),
        }
    }

    /// Returns an error of the socket that no read has told.
    pub fn take_error(&self) -> Option<io::Error> {
        match self {
            Self::Plain(Socket::Udp(socket)) => socket.take_error().ok().flatten(),
            // A read is in flight, or waits for the end, and an error is one.
            _ => None,
        }
    }

    /// Reads what is there into `buffer`; 0 at the end.
    pub fn poll_fill(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut out = ReadBuf::new(buffer);
        ready!(Pin::new(self).poll_read(context, &mut out))?;
        Poll::Ready(Ok(out.filled().len()))
    }

    /// Writes `bytes[*sent..]` and flushes, as far as the peer takes it.
    pub fn poll_drain(
        &mut self,
        context: &mut Context<'_>,
        bytes: &[u8],
        sent: &mut usize,
    ) -> Poll<io::Result<()>> {
        while *sent < bytes.len() {
            let count = ready!(Pin::new(&mut *self).poll_write(context, &bytes[*sent..]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            *sent += count;
        }
        Pin::new(self).poll_flush(context)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, out),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, out),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

/// Opens connections on the lane's driver.
pub struct Dialer {
    /// None on epoll.
    buffers: Option<Buffers>,
    /// One for each target; none without TLS.
    tls: Vec<Option<TlsSetup>>,
    reset: bool,
}

impl Dialer {
    pub fn new(buffers: Option<Buffers>, tls: Vec<Option<TlsSetup>>, reset: bool) -> Self {
        Self {
            buffers,
            tls,
            reset,
        }
    }

    /// Opens a connection to `target`, TLS included; takes down how long that took.
    ///
    /// Connecting is left to tokio's own sockets on both drivers: tokio-uring cannot give up a
    /// connect, and sets no option before it.
    pub async fn open(&self, work: &Work, target: u16) -> Result<Stream, ErrorClass> {
        let started = Instant::now();
        let socket = self.connect(work.address(target)).await.map_err(|error| {
            work.failed(failure::of_io(&error), format_args!("connecting: {error}"))
        })?;
        let connected = Instant::now();
        let stream = match &self.tls[usize::from(target)] {
            None => Stream::Plain(socket),
            Some(setup) => {
                let connector = TlsConnector::from(setup.config.clone());
                let stream = connector
                    .connect(setup.name.clone(), socket)
                    .await
                    .map_err(|error| work.failed(failure::of_handshake(&error), error))?;
                Stream::Tls(Box::new(stream))
            }
        };
        let tls = matches!(stream, Stream::Tls(_)).then(|| nanos(connected.elapsed()));
        work.opened(&Opened {
            connect_ns: nanos(connected.saturating_duration_since(started)),
            tls_ns: tls,
        });
        Ok(stream)
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<Socket> {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        socket.set_nodelay(true)?;
        if self.reset {
            rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
        }
        let stream = socket.connect(address).await?;
        Ok(match &self.buffers {
            None => Socket::Tcp(stream),
            Some(buffers) => Socket::Uring(UringSocket::tcp(stream.into_std()?, buffers)?),
        })
    }

    /// Returns a UDP socket that only talks to `address`.
    pub fn datagrams(&self, address: SocketAddr) -> io::Result<Socket> {
        let any: SocketAddr = match address {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = std::net::UdpSocket::bind(any)?;
        socket.connect(address)?;
        Ok(match &self.buffers {
            None => {
                socket.set_nonblocking(true)?;
                Socket::Udp(UdpSocket::from_std(socket)?)
            }
            Some(buffers) => Socket::Uring(UringSocket::udp(socket, buffers)?),
        })
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
