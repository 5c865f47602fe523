//! One connection between coordinator and worker.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes of the length before each message.
const PREFIX: usize = 4;
/// Bytes read at once.
const CHUNK: usize = 64 * 1024;

/// A connection that broke, or does not say what it should.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The network's.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The peer has closed it.
    #[error("the connection was closed")]
    Closed,
    /// Nothing came in time.
    #[error("no answer within {0:?}")]
    Silent(Duration),
    /// Too large.
    #[error("a message of {0} bytes is larger than {1}")]
    TooLarge(usize, usize),
    /// Not what is spoken.
    #[error("what came is no message of ballast-loadgen: {0}")]
    Garbage(String),
}

/// Sends and receives whole messages.
#[derive(Debug)]
pub struct Link {
    stream: TcpStream,
    /// What came of the next message.
    buffer: Vec<u8>,
    most: usize,
}

impl Link {
    /// Takes over a connection whose peer may send messages of up to `most` bytes.
    pub fn new(stream: TcpStream, most: usize) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: Vec::new(),
            most,
        })
    }

    /// Lets the peer send messages of up to `most` bytes.
    pub fn allow(&mut self, most: usize) {
        self.most = most;
    }

    /// Returns how many bytes of the next message have come.
    pub fn pending(&self) -> usize {
        self.buffer.len()
    }

    /// Sends `message` whole; a peer that takes none of it for `patience` breaks the connection.
    pub fn send(&mut self, message: &impl Serialize, patience: Duration) -> Result<(), LinkError> {
        let mut bytes = vec![0; PREFIX];
        serde_json::to_writer(&mut bytes, message).map_err(io::Error::from)?;
        let length = bytes.len() - PREFIX;
        let prefix = u32::try_from(length)
            .ok()
            .filter(|_| length <= super::MESSAGE)
            .ok_or(LinkError::TooLarge(length, super::MESSAGE))?;
        bytes[..PREFIX].copy_from_slice(&prefix.to_be_bytes());
        self.stream.set_write_timeout(Some(patience))?;
        Ok(self.stream.write_all(&bytes)?)
    }

    /// Returns the next message, which must come within `patience`.
    pub fn expect<T: DeserializeOwned>(&mut self, patience: Duration) -> Result<T, LinkError> {
        self.poll(patience)?.ok_or(LinkError::Silent(patience))
    }

    /// Returns the next message, none if it is not whole within `patience`; what came of it is
    /// kept.
    pub fn poll<T: DeserializeOwned>(
        &mut self,
        patience: Duration,
    ) -> Result<Option<T>, LinkError> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(message) = self.whole()? {
                return Ok(Some(message));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.stream.set_read_timeout(Some(left))?;
            let filled = self.buffer.len();
            self.buffer.resize(filled + CHUNK, 0);
            let read = self.stream.read(&mut self.buffer[filled..]);
            self.buffer.truncate(filled + *read.as_ref().unwrap_or(&0));
            match read {
                Ok(0) => return Err(LinkError::Closed),
                Ok(_) => {}
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                    ) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn whole<T: DeserializeOwned>(&mut self) -> Result<Option<T>, LinkError> {
        let Some(prefix) = self.buffer.first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*prefix) as usize;
        if length > self.most {
            return Err(LinkError::TooLarge(length, self.most));
        }
        let Some(body) = self.buffer.get(PREFIX..PREFIX + length) else {
            return Ok(None);
        };
        let message =
            serde_json::from_slice(body).map_err(|error| LinkError::Garbage(error.to_string()))?;
        self.buffer.drain(..PREFIX + length);
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    const SOON: Duration = Duration::from_millis(20);
    const LATE: Duration = Duration::from_secs(30);

    fn pair(most: usize) -> (Link, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let peer = TcpStream::connect(listener.local_addr().expect("address")).expect("connects");
        let (stream, _) = listener.accept().expect("accepts");
        (Link::new(stream, most).expect("link"), peer)
    }

    #[test]
    fn messages_come_whole_however_they_were_cut() {
        let (mut link, mut peer) = pair(100);
        let bytes = b"\0\0\0\x03\"a\"\0\0\0\x03\"b\"";
        for (at, byte) in bytes.iter().enumerate() {
            peer.write_all(&[*byte]).expect("writes");
            let patience = if at == 6 || at == 13 { LATE } else { SOON };
            let expected = match at {
                6 => Some("a".to_owned()),
                13 => Some("b".to_owned()),
                _ => None,
            };
            assert_eq!(link.poll::<String>(patience).expect("polls"), expected);
        }
    }

    #[test]
    fn too_large_and_garbage_and_closed_are_told_apart() {
        let (mut link, mut peer) = pair(100);
        peer.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("writes");
        let error = link.expect::<String>(LATE).expect_err("refused");
        assert!(matches!(error, LinkError::TooLarge(_, 100)), "{error}");

        let (mut link, mut peer) = pair(100);
        peer.write_all(b"\0\0\0\x02zz").expect("writes");
        let error = link.expect::<String>(LATE).expect_err("refused");
        assert!(matches!(error, LinkError::Garbage(_)), "{error}");

        let (mut link, peer) = pair(100);
        assert!(matches!(
            link.expect::<String>(SOON),
            Err(LinkError::Silent(_))
        ));
        drop(peer);
        assert!(matches!(
            link.expect::<String>(LATE),
            Err(LinkError::Closed)
        ));
    }
}
