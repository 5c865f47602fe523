//! What both drivers tell in the same way.

use std::io;

use rustix::io::Errno;
use rustix::net::sockopt;

use crate::handler::Handler;
use crate::io::Io;
use crate::sockets::Role;
use crate::token::Token;

/// Lends what was received. Then each of `io.borrowers` has parts of it in its queue.
pub(crate) fn received<H: Handler>(io: &mut Io, handler: &mut H, token: Token, data: &mut [u8]) {
    io.lent = Some(data.len());
    handler.received(io, token, data);
    io.lent = None;
}

/// Returns the next socket that has parts of what was lent in its queue, after those that are not
/// worth more than a copy were copied.
pub(crate) fn next_borrower(io: &mut Io, lent: &[u8]) -> Option<Token> {
    while let Some(token) = io.borrowers.pop() {
        let socket = io.sockets.get_mut(token);
        if socket.is_some_and(|socket| socket.out.copy_small(lent)) {
            return Some(token);
        }
    }
    None
}

/// Copies what the queues have of what was lent.
pub(crate) fn copy_lent(io: &mut Io, lent: &[u8]) {
    while let Some(borrower) = next_borrower(io, lent) {
        if let Some(socket) = io.sockets.get_mut(borrower) {
            socket.out.own(lent, &mut io.pool);
        }
    }
}

/// An attempt to connect has come to an end.
pub(crate) fn finish_connect<H: Handler>(io: &mut Io, handler: &mut H, token: Token) {
    let Some(socket) = io.sockets.get_mut(token) else {
        return;
    };
    match sockopt::socket_error(&socket.fd) {
        Ok(Ok(())) => {
            socket.connecting = false;
            if socket.farewell {
                return io.mark(token);
            }
            handler.connected(io, token, Ok(()));
        }
        Ok(Err(errno)) | Err(errno) => fail(io, handler, token, errno),
    }
}

/// What was received before the connection broke is told first, if it is wanted.
pub(crate) fn send_failed<H: Handler>(io: &mut Io, handler: &mut H, token: Token, errno: Errno) {
    let Some(socket) = io.sockets.get_mut(token) else {
        return;
    };
    socket.out.clear(&mut io.pool);
    if socket.receiving && !socket.ended && !socket.detaching && !socket.farewell {
        socket.broken = Some(errno);
        socket.readable = true;
        socket.hung_up = true;
        io.mark(token);
    } else {
        fail(io, handler, token, errno);
    }
}

/// The stream has ended: by a FIN, or because a send has failed and all that was there is told.
pub(crate) fn end<H: Handler>(io: &mut Io, handler: &mut H, token: Token) {
    let Some(socket) = io.sockets.get_mut(token) else {
        return;
    };
    if let Some(errno) = socket.broken {
        return fail(io, handler, token, errno);
    }
    if socket.farewell {
        return io.close(token);
    }
    socket.ended = true;
    socket.receiving = false;
    handler.ended(io, token, Ok(()));
}

/// Closes what is broken, and tells.
pub(crate) fn fail<H: Handler>(io: &mut Io, handler: &mut H, token: Token, errno: Errno) {
    let Some(socket) = io.sockets.get_mut(token) else {
        return;
    };
    let (connecting, role, farewell) = (socket.connecting, socket.role, socket.farewell);
    io.close(token);
    if farewell {
        return;
    }
    let error = io::Error::from(errno);
    match role {
        Role::Listener => handler.accept_failed(io, token, error),
        _ if connecting => handler.connected(io, token, Err(error)),
        _ => handler.ended(io, token, Err(error)),
    }
}
