//! The process that takes over.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::Sockets;
use super::channel::{Channel, Message};

/// How long the predecessor may take to answer: it only has to pass descriptors.
const PATIENCE: Duration = Duration::from_secs(10);

/// A predecessor whose sockets were taken, and which still serves.
#[derive(Debug)]
pub struct Taken(Channel);

impl Taken {
    /// Tells the predecessor to retire; when this returns, the path is free. Blocks.
    ///
    /// # Errors
    /// It has ended by itself, or does not answer.
    pub fn ready(self) -> io::Result<()> {
        self.0.send(&Message::Ready, &[])?;
        match self.0.receive()?.0 {
            Message::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }
}

/// Takes the sockets of whoever serves at this path; `None` if nobody does. Blocks.
///
/// # Errors
/// It is of another user, or does not do as it should.
pub fn take_over(path: &Path, sockets: &Sockets) -> io::Result<Option<Taken>> {
    let channel = match Channel::connect(path, PATIENCE) {
        Ok(channel) => channel,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    channel.send(&Message::Take, &[])?;
    let mut count = 0;
    loop {
        let (message, fds) = channel.receive()?;
        let Message::Sockets { names, more } = message else {
            return Err(unexpected(&message));
        };
        if names.len() != fds.len() {
            return Err(io::Error::other("descriptors were lost on their way"));
        }
        count += fds.len();
        for ((kind, address), fd) in names.into_iter().zip(fds) {
            sockets.give(kind, address, fd);
        }
        if !more {
            break;
        }
        channel.send(&Message::Take, &[])?;
    }
    tracing::info!(sockets = count, "taking over from the process before");
    Ok(Some(Taken(channel)))
}

fn unexpected(message: &Message) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("out of turn: {message:?}"),
    )
}
