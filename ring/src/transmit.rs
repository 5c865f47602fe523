//! Sending at once.

use std::io::IoSlice;

use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags};

use crate::outbox::PARTS;
use crate::pool::Pool;
use crate::sockets::{Role, Socket};

/// Sends what is queued, so far as the kernel takes it now, and returns whether it has taken all;
/// `buffer` returns the bytes of a buffer of the driver.
pub(crate) fn transmit<'a>(
    socket: &mut Socket,
    pool: &mut Pool,
    buffer: impl Fn(u16) -> &'a [u8],
) -> Result<bool, Errno> {
    const FLAGS: SendFlags = SendFlags::NOSIGNAL.union(SendFlags::DONTWAIT);
    let most = socket.parts_at_a_time();
    while !socket.out.is_empty() {
        let mut parts = [IoSlice::new(&[]); PARTS];
        let count = socket.out.parts(&buffer, &mut parts[..most]);
        let parts = &parts[..count];
        let offered: usize = parts.iter().map(|part| part.len()).sum();
        let result = match parts {
            [part] => rustix::net::send(&socket.fd, part, FLAGS),
            parts => {
                let mut no_rights = SendAncillaryBuffer::default();
                rustix::net::sendmsg(&socket.fd, parts, &mut no_rights, FLAGS)
            }
        };
        match result {
            Ok(taken) => {
                socket.out.taken(taken, pool);
                // There is no more room, and an edge follows when there is.
                if taken < offered {
                    return Ok(false);
                }
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(false),
            Err(errno) => return Err(errno),
        }
    }
    Ok(true)
}

impl Socket {
    /// Returns how many chunks go out in one send: each datagram is sent on its own.
    pub fn parts_at_a_time(&self) -> usize {
        match self.role {
            Role::Stream => PARTS,
            _ => 1,
        }
    }
}
