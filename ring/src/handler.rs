//! What a ring tells its user.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use crate::io::Io;
use crate::token::Token;

/// What happens on a ring's sockets, and what to do then.
///
/// Each call may do to any socket whatever [`Io`] offers. After a socket was closed no call names
/// it again, not even one for something that had happened before.
#[expect(
    unused_variables,
    reason = "the defaults do nothing; the names are documentation"
)]
pub trait Handler {
    /// `listener` accepted `socket`, which is not receiving yet. By default it is closed.
    fn accepted(&mut self, io: &mut Io, listener: Token, socket: Token, peer: SocketAddr) {
        io.close(socket);
    }

    /// `listener` could not accept: descriptors or memory ran out, or every slot is taken
    /// ([`io::ErrorKind::QuotaExceeded`]). It goes on by itself after a while.
    fn accept_failed(&mut self, io: &mut Io, listener: Token, error: io::Error) {}

    /// `token` is connected, or could not be and is closed already.
    fn connected(&mut self, io: &mut Io, token: Token, result: io::Result<()>) {}

    /// `token` received `data`: bytes of a stream, or one datagram, which may be empty.
    fn received(&mut self, io: &mut Io, token: Token, data: &mut [u8]) {}

    /// Nothing more will be received: `Ok` for the peer's FIN, after which sending still works,
    /// `Err` for a broken connection, which is closed already.
    fn ended(&mut self, io: &mut Io, token: Token, result: io::Result<()>) {}

    /// The kernel has taken everything that was to be sent.
    fn sent(&mut self, io: &mut Io, token: Token) {}

    /// The time of a timer has come. It is gone already.
    fn expired(&mut self, io: &mut Io, key: u64) {}

    /// A [`Waker`](crate::Waker) was used, once or more often.
    fn woken(&mut self, io: &mut Io) {}

    /// `token` is gone, and its descriptor free for any use. It is non-blocking.
    fn detached(&mut self, io: &mut Io, token: Token, socket: OwnedFd) {}
}
