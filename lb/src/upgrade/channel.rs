//! Messages between the two, with descriptors: one JSON object a line. They speak in turns, so no
//! read sees more than one message, and its descriptors belong to it.

use std::io::{self, IoSlice, IoSliceMut, Write as _};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use rustix::net::sockopt;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::{Deserialize, Serialize};

use super::Kind;

/// Descriptors in one message; the kernel takes 253.
pub(super) const DESCRIPTORS: usize = 64;
/// Bytes of one message: 64 names have 4 KB.
const MESSAGE: usize = 16 * 1024;

/// What the two tell each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Message {
    /// The successor asks for the next sockets.
    Take,
    /// Their names, in the order of the message's descriptors.
    Sockets {
        names: Vec<(Kind, SocketAddr)>,
        /// Whether there are more.
        more: bool,
    },
    /// The successor serves.
    Ready,
    /// The predecessor has given up the path.
    Done,
}

/// One end.
#[derive(Debug)]
pub(super) struct Channel(UnixStream);

impl Channel {
    /// Takes an end that may wait for `patience` at most, if the other end may be trusted.
    ///
    /// # Errors
    /// The other end is of another user.
    pub(super) fn new(socket: UnixStream, patience: Duration) -> io::Result<Self> {
        let peer = sockopt::socket_peercred(&socket)?;
        if peer.uid != rustix::process::geteuid() && !peer.uid.is_root() {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("the other process is of user {}", peer.uid.as_raw()),
            ));
        }
        socket.set_nonblocking(false)?;
        socket.set_read_timeout(Some(patience))?;
        socket.set_write_timeout(Some(patience))?;
        Ok(Self(socket))
    }

    /// Connects to whoever listens at a path.
    pub(super) fn connect(path: &Path, patience: Duration) -> io::Result<Self> {
        Self::new(UnixStream::connect(path)?, patience)
    }

    pub(super) fn send(&self, message: &Message, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut text = serde_json::to_vec(message)?;
        text.push(b'\n');
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(io::Error::other("too many descriptors for a message"));
        }
        let parts = [IoSlice::new(&text)];
        let sent = rustix::net::sendmsg(&self.0, &parts, &mut control, SendFlags::NOSIGNAL)?;
        (&self.0).write_all(&text[sent..])
    }

    pub(super) fn receive(&self) -> io::Result<(Message, Vec<OwnedFd>)> {
        let mut text = vec![0; MESSAGE];
        let mut count = 0;
        let mut fds = Vec::new();
        while !text[..count].ends_with(b"\n") {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut parts = [IoSliceMut::new(&mut text[count..])];
            let flags = RecvFlags::CMSG_CLOEXEC;
            let received = rustix::net::recvmsg(&self.0, &mut parts, &mut control, flags)?;
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(rights) = message {
                    fds.extend(rights);
                }
            }
            count += received.bytes;
            if received.bytes == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok((serde_json::from_slice(&text[..count])?, fds))
    }
}

/// Listens at a path, which only this user may use. Whatever was there is replaced.
pub(super) fn listen(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Who connects before the mode is set is looked at all the same: see `Channel::new`.
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}
