//! What a target knows of one connection: how far it has read, and what it has still to write.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

/// The longest head that is understood; past it the connection is closed.
const HEAD_BYTES: usize = 16 * 1024;

/// One connection.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    requests: Requests,
    /// Responses that are to be written, the first of them from [`Self::written`] on.
    due: usize,
    written: usize,
    /// Whether it is told when it can write again.
    awaits: bool,
}

/// A connection that is of no use any more.
#[derive(Debug)]
pub struct Gone;

impl Connection {
    /// Returns a fresh connection.
    pub fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            requests: Requests::default(),
            due: 0,
            written: 0,
            awaits: false,
        }
    }

    /// Notes whether it is to be told when it can write again; returns whether that is new.
    pub fn awaits(&mut self, awaits: bool) -> bool {
        std::mem::replace(&mut self.awaits, awaits) != awaits
    }

    /// Returns the socket.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Reads what is there; returns how many requests it completes.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Gone> {
        let count = match self.stream.read(buffer) {
            Ok(0) => return Err(Gone),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
            Err(_) => return Err(Gone),
        };
        self.requests.take(&buffer[..count])
    }

    /// Adds `count` responses to what is to be written.
    pub fn owe(&mut self, count: usize) {
        self.due += count;
    }

    /// Writes what it owes, as far as the kernel takes it; returns how many responses are out, and
    /// whether more is to be written.
    pub fn write(&mut self, response: &[u8]) -> Result<(usize, bool), Gone> {
        let before = self.due;
        while self.due > 0 {
            match self.stream.write(&response[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return Err(Gone),
            }
            if self.written == response.len() {
                self.written = 0;
                self.due -= 1;
            }
        }
        Ok((before - self.due, self.due > 0))
    }
}

/// How far the requests of a connection have been read.
#[derive(Debug, Default)]
pub struct Requests {
    /// The part of a head that has come so far.
    head: Vec<u8>,
    /// Bytes of a body that are still to come.
    body: usize,
}

impl Requests {
    /// Reads what has come; returns how many requests it completes.
    pub fn take(&mut self, mut bytes: &[u8]) -> Result<usize, Gone> {
        let mut complete = 0;
        while !bytes.is_empty() {
            if self.body > 0 {
                let part = self.body.min(bytes.len());
                self.body -= part;
                bytes = &bytes[part..];
                complete += usize::from(self.body == 0);
                continue;
            }
            // Nearly always a whole head comes at once, and is looked at where it lies.
            let whole = self.head.is_empty().then(|| end(bytes)).flatten();
            if let Some(end) = whole {
                self.body = content_length(&bytes[..end]);
                bytes = &bytes[end..];
            } else {
                let known = self.head.len();
                self.head.extend_from_slice(bytes);
                let Some(end) = end(&self.head) else {
                    return if self.head.len() > HEAD_BYTES {
                        Err(Gone)
                    } else {
                        Ok(complete)
                    };
                };
                self.body = content_length(&self.head[..end]);
                bytes = &bytes[end - known..];
                self.head.clear();
            }
            complete += usize::from(self.body == 0);
        }
        Ok(complete)
    }
}

/// Returns where the first head in `bytes` ends.
fn end(bytes: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = bytes[from..].iter().position(|byte| *byte == b'\n') {
        from += at + 1;
        if bytes[..from].ends_with(b"\r\n\r\n") {
            return Some(from);
        }
    }
    None
}

/// Returns the length that a head announces for its body, 0 if it does not.
fn content_length(head: &[u8]) -> usize {
    const NAME: &[u8] = b"content-length:";
    if head.starts_with(b"GET ") {
        return 0;
    }
    head.split(|byte| *byte == b'\n')
        .filter_map(|line| line.split_at_checked(NAME.len()))
        .find(|(name, _)| name.eq_ignore_ascii_case(NAME))
        .and_then(|(_, value)| std::str::from_utf8(value).ok()?.trim().parse().ok())
        .unwrap_or(0)
}
