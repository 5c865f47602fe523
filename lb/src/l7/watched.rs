//! An HTTP/2 connection whose frames are counted.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use pingora::protocols::l4::virt::{VirtualSockOpt, VirtualSocket};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::flood::{Flood, FrameWatch};
use crate::metrics::TlsStats;

/// A connection that ends with an error when its client floods it.
#[derive(Debug)]
pub struct Watched<S> {
    inner: S,
    watch: FrameWatch,
    flooded: Option<Flood>,
    stats: TlsStats,
}

impl<S> Watched<S> {
    /// Watches a connection of which `read` was read already.
    pub fn new(inner: S, read: &[u8], stats: TlsStats) -> Self {
        let mut watched = Self {
            inner,
            watch: FrameWatch::new(Instant::now()),
            flooded: None,
            stats,
        };
        watched.count(read);
        watched
    }

    fn count(&mut self, bytes: &[u8]) {
        if let Err(flood) = self.watch.feed(bytes, Instant::now()) {
            self.stats.flood(flood.name());
            tracing::debug!(%flood, "HTTP/2 connection ended");
            self.flooded = Some(flood);
        }
    }
}

impl<S: VirtualSocket> VirtualSocket for Watched<S> {
    fn set_socket_option(&self, option: VirtualSockOpt) -> io::Result<()> {
        self.inner.set_socket_option(option)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Some(flood) = this.flooded {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, flood)));
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.inner).poll_read(cx, buf);
        // What made it too much is still read: the library may find more wrong with it.
        this.count(&buf.filled()[before..]);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// A client's own socket.
#[derive(Debug)]
pub struct Plain(pub TcpStream);

impl VirtualSocket for Plain {
    fn set_socket_option(&self, option: VirtualSockOpt) -> io::Result<()> {
        match option {
            VirtualSockOpt::NoDelay => self.0.set_nodelay(true),
            _ => Ok(()),
        }
    }
}

impl AsyncRead for Plain {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Plain {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
