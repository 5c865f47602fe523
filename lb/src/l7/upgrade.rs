//! The connection to an endpoint for a request that asks for an upgrade (WebSocket).
//!
//! pingora ends an upgraded exchange when the request's body ends, and for a request without one
//! it sends itself that end through a channel. If the endpoint's 101 is read before that message,
//! the end is taken for the end of the upgraded stream, and the client sees an EOF right after the
//! 101 (seen here in one of a few dozen exchanges with a local endpoint; pingora 0.9.1,
//! `proxy_handle_upstream`). Both wait in one unordered `select!`, so a first read that is not
//! ready lets the message go first. Such a connection is never pooled, so it need not be the plain
//! socket that pooling asks for (see `dial`).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use pingora::protocols::l4::virt::{VirtualSockOpt, VirtualSocket};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A socket whose first read is not ready.
#[derive(Debug)]
pub struct Patient {
    socket: TcpStream,
    asked: bool,
}

impl Patient {
    /// Wraps a fresh connection.
    pub fn new(socket: TcpStream) -> Self {
        Self {
            socket,
            asked: false,
        }
    }
}

impl VirtualSocket for Patient {
    fn set_socket_option(&self, option: VirtualSockOpt) -> io::Result<()> {
        match option {
            VirtualSockOpt::NoDelay => self.socket.set_nodelay(true),
            _ => Ok(()),
        }
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.asked {
            self.asked = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
