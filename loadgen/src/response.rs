//! Reads one HTTP/1.1 response, without touching the network.

use std::io::{Error, ErrorKind};

/// Bytes of one response's head.
const HEAD_BYTES: usize = 64 * 1024;
/// Header lines of one response.
const HEADERS: usize = 64;

/// A whole response, body dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    /// Its status.
    pub status: u16,
    /// Whether the connection may be used again.
    pub keep_alive: bool,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Head,
    Length { left: u64 },
    ChunkSize,
    ChunkData { left: u64 },
    Trailers,
    UntilClose,
}

/// The reading half of one connection's conversation.
#[derive(Debug)]
pub struct ResponseReader {
    buffer: Vec<u8>,
    state: State,
    head: Done,
}

impl ResponseReader {
    /// Returns a reader that expects a response's first byte.
    pub fn new() -> Self {
        Self {
            buffer: Vec::with_capacity(4096),
            state: State::Head,
            head: Done {
                status: 0,
                keep_alive: true,
            },
        }
    }

    /// Takes what was received; returns the response once it is whole. `bytes` empty means that
    /// the peer closed.
    ///
    /// # Errors
    /// `InvalidData` for what is not HTTP, `UnexpectedEof` for a close in the middle.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Option<Done>, Error> {
        if bytes.is_empty() {
            return match self.state {
                State::UntilClose => Ok(Some(self.finish())),
                _ => Err(ErrorKind::UnexpectedEof.into()),
            };
        }
        self.buffer.extend_from_slice(bytes);
        self.advance()
    }

    fn advance(&mut self) -> Result<Option<Done>, Error> {
        loop {
            match self.state {
                State::Head => {
                    if !self.head()? {
                        return Ok(None);
                    }
                }
                State::Length { left } => {
                    let left = self.consume(left);
                    self.state = State::Length { left };
                    return Ok((left == 0).then(|| self.finish()));
                }
                State::ChunkSize => {
                    let Some(line) = self.line()? else {
                        return Ok(None);
                    };
                    let digits = line.split(';').next().unwrap_or_default().trim();
                    let size =
                        u32::from_str_radix(digits, 16).map_err(|_| invalid("chunk size"))?;
                    self.state = match size {
                        0 => State::Trailers,
                        // The line end behind the data goes with it.
                        _ => State::ChunkData {
                            left: u64::from(size) + 2,
                        },
                    };
                }
                State::ChunkData { left } => {
                    let left = self.consume(left);
                    if left > 0 {
                        self.state = State::ChunkData { left };
                        return Ok(None);
                    }
                    self.state = State::ChunkSize;
                }
                State::Trailers => match self.line()? {
                    None => return Ok(None),
                    Some(line) if line.is_empty() => return Ok(Some(self.finish())),
                    Some(_) => {}
                },
                State::UntilClose => {
                    self.buffer.clear();
                    return Ok(None);
                }
            }
        }
    }

    /// Reads the head, if it is whole; returns whether it was.
    fn head(&mut self) -> Result<bool, Error> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS];
        let mut response = httparse::Response::new(&mut headers);
        let length = match response.parse(&self.buffer).map_err(|_| invalid("head"))? {
            httparse::Status::Complete(length) => length,
            httparse::Status::Partial if self.buffer.len() > HEAD_BYTES => {
                return Err(invalid("head too long"));
            }
            httparse::Status::Partial => return Ok(false),
        };
        let status = response.code.unwrap_or_default();
        let mut keep_alive = response.version == Some(1);
        let mut body = State::UntilClose;
        for header in response.headers.iter() {
            let value = || std::str::from_utf8(header.value).unwrap_or_default().trim();
            if header.name.eq_ignore_ascii_case("content-length") {
                let left = value().parse().map_err(|_| invalid("content-length"))?;
                body = State::Length { left };
            } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
                body = State::ChunkSize;
            } else if header.name.eq_ignore_ascii_case("connection") {
                keep_alive = !value().eq_ignore_ascii_case("close");
            }
        }
        self.buffer.drain(..length);
        if (100..200).contains(&status) {
            return Ok(true); // An interim response: the real one follows.
        }
        if status == 204 || status == 304 {
            body = State::Length { left: 0 };
        }
        self.head = Done {
            status,
            keep_alive: keep_alive && !matches!(body, State::UntilClose),
        };
        self.state = body;
        Ok(true)
    }

    fn line(&mut self) -> Result<Option<String>, Error> {
        let Some(end) = self.buffer.windows(2).position(|two| two == b"\r\n") else {
            return if self.buffer.len() > HEAD_BYTES {
                Err(invalid("line too long"))
            } else {
                Ok(None)
            };
        };
        let line = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        self.buffer.drain(..end + 2);
        Ok(Some(line))
    }

    /// Drops up to `count` bytes; returns how many are still to come.
    fn consume(&mut self, count: u64) -> u64 {
        let have = usize::try_from(count)
            .unwrap_or(usize::MAX)
            .min(self.buffer.len());
        self.buffer.drain(..have);
        count - have as u64
    }

    fn finish(&mut self) -> Done {
        self.state = State::Head;
        // What is left was not asked for; the next answer would be read wrong.
        self.head.keep_alive &= self.buffer.is_empty();
        self.head
    }
}

fn invalid(what: &'static str) -> Error {
    Error::new(ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `bytes` in pieces of every size and returns what came out, the same each time.
    fn read(bytes: &[u8]) -> Result<Option<Done>, ErrorKind> {
        let mut results = (1..=bytes.len()).map(|size| {
            let mut reader = ResponseReader::new();
            let mut last = None;
            for piece in bytes.chunks(size) {
                assert_eq!(last, None, "done before the end");
                last = reader.feed(piece).map_err(|error| error.kind())?;
            }
            Ok(last)
        });
        let first = results.next().expect("one");
        assert!(results.all(|result| result == first));
        first
    }

    #[test]
    fn length_chunks_and_interim_responses_are_read_to_their_end() {
        let keep = |status| {
            Ok(Some(Done {
                status,
                keep_alive: true,
            }))
        };
        assert_eq!(
            read(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"),
            keep(200)
        );
        assert_eq!(read(b"HTTP/1.1 204 No Content\r\n\r\n"), keep(204));
        assert_eq!(
            read(b"HTTP/1.1 503 X\r\nTransfer-Encoding: chunked\r\n\r\n2;a\r\nab\r\n0\r\nT: 1\r\n\r\n"),
            keep(503)
        );
        assert_eq!(
            read(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 X\r\ncontent-length: 0\r\n\r\n"),
            keep(201)
        );
    }

    #[test]
    fn close_ends_only_a_body_without_length() {
        let mut reader = ResponseReader::new();
        assert_eq!(
            reader.feed(b"HTTP/1.1 200 OK\r\n\r\nabc").expect("reads"),
            None
        );
        let done = reader.feed(b"").expect("ends").expect("done");
        assert!(!done.keep_alive);
        let mut reader = ResponseReader::new();
        reader
            .feed(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
            .expect("reads");
        assert_eq!(
            reader.feed(b"").expect_err("cut").kind(),
            ErrorKind::UnexpectedEof
        );
    }

    #[test]
    fn what_is_not_http_is_invalid() {
        assert_eq!(
            read(b"SSH-2.0-OpenSSH_9.2\r\n"),
            Err(ErrorKind::InvalidData)
        );
    }

    #[test]
    fn connection_close_is_heeded() {
        let done = read(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(
            done,
            Ok(Some(Done {
                status: 200,
                keep_alive: false
            }))
        );
    }
}
