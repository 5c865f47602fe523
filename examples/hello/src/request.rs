//! Reads HTTP/1.1 requests off a connection.

use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes of one request's head; a longer one ends the connection.
const HEAD_BYTES: usize = 16 * 1024;

/// What this program wants to know of a request.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    /// `GET`, `POST`, …
    pub method: String,
    /// Path and query.
    pub target: String,
    /// The value of `X-Request-Id`.
    pub id: Option<String>,
    /// Whether the client wants the connection to stay.
    pub keep_alive: bool,
    /// How its body ends.
    body: Body,
}

#[derive(Debug, PartialEq, Eq)]
enum Body {
    Length(u64),
    Chunked,
}

impl Request {
    /// Returns the path without the query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// Returns the value of the query's parameter `name`.
    pub fn query(&self, name: &str) -> Option<&str> {
        let (_, query) = self.target.split_once('?')?;
        query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .find_map(|(key, value)| (key == name).then_some(value))
    }

    /// Returns the request whose head is `head`, if that is one.
    fn parse(head: &str) -> Option<Self> {
        let mut lines = head.split("\r\n");
        let mut words = lines.next()?.split(' ');
        let (method, target, version) = (words.next()?, words.next()?, words.next()?);
        let mut request = Self {
            method: method.to_owned(),
            target: target.to_owned(),
            id: None,
            keep_alive: version == "HTTP/1.1",
            body: Body::Length(0),
        };
        for line in lines.take_while(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':')?;
            let value = value.trim();
            if name.eq_ignore_ascii_case("x-request-id") {
                request.id = Some(value.to_owned());
            } else if name.eq_ignore_ascii_case("connection") {
                request.keep_alive = !value.eq_ignore_ascii_case("close");
            } else if name.eq_ignore_ascii_case("content-length") {
                request.body = Body::Length(value.parse().ok()?);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                request.body = Body::Chunked;
            }
        }
        Some(request)
    }
}

/// A connection's incoming half.
pub struct Reader<R> {
    inner: R,
    buffer: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    /// Returns a reader of `inner`.
    pub fn new(inner: R) -> Self {
        Self {
            inner,
            buffer: Vec::with_capacity(1024),
        }
    }

    /// Returns the next request's head; none when the connection ended or spoke no HTTP.
    /// Dropping the future loses nothing that was read.
    pub async fn head(&mut self) -> Option<Request> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                let request = Request::parse(std::str::from_utf8(&self.buffer[..end + 2]).ok()?);
                self.buffer.drain(..end + 4);
                return request;
            }
            if self.buffer.len() > HEAD_BYTES || !self.more().await {
                return None;
            }
        }
    }

    /// Reads past the body of `request`; returns whether it was whole.
    pub async fn skip_body(&mut self, request: &Request) -> bool {
        match request.body {
            Body::Length(length) => self.skip(length).await,
            Body::Chunked => self.skip_chunks().await,
        }
    }

    async fn skip_chunks(&mut self) -> bool {
        loop {
            let Some(end) = find(&self.buffer, b"\r\n") else {
                if !self.more().await {
                    return false;
                }
                continue;
            };
            let line = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
            self.buffer.drain(..end + 2);
            let digits = line.split(';').next().unwrap_or_default().trim();
            let Ok(size) = u32::from_str_radix(digits, 16) else {
                return false;
            };
            if !self.skip(u64::from(size) + 2).await {
                return false;
            }
            // No one sends this program trailers; the last chunk's empty line is all that is left.
            if size == 0 {
                return true;
            }
        }
    }

    async fn skip(&mut self, mut count: u64) -> bool {
        loop {
            let have = usize::try_from(count)
                .unwrap_or(usize::MAX)
                .min(self.buffer.len());
            self.buffer.drain(..have);
            count -= have as u64;
            if count == 0 {
                return true;
            }
            if !self.more().await {
                return false;
            }
        }
    }

    async fn more(&mut self) -> bool {
        matches!(self.inner.read_buf(&mut self.buffer).await, Ok(count) if count > 0)
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("builds")
            .block_on(future)
    }

    #[test]
    fn bodies_are_skipped_to_the_next_request() {
        let bytes: &[u8] =
            b"POST /?delay=5ms HTTP/1.1\r\nContent-Length: 3\r\nx-request-id: a1\r\n\r\nabc\
            POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n4;x=y\r\nabcd\r\n0\r\n\r\n\
            GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n";
        run(async {
            let mut reader = Reader::new(bytes);
            let first = reader.head().await.expect("first");
            assert_eq!(first.id.as_deref(), Some("a1"));
            assert_eq!((first.path(), first.query("delay")), ("/", Some("5ms")));
            assert!(reader.skip_body(&first).await);
            let second = reader.head().await.expect("second");
            assert!(second.keep_alive && reader.skip_body(&second).await);
            let third = reader.head().await.expect("third");
            assert_eq!(third.path(), "/healthz");
            assert!(!third.keep_alive);
            assert_eq!(reader.head().await, None);
        });
    }

    #[test]
    fn cut_body_is_not_whole() {
        let bytes: &[u8] = b"POST / HTTP/1.1\r\nContent-Length: 30\r\n\r\nabc";
        run(async {
            let mut reader = Reader::new(bytes);
            let request = reader.head().await.expect("head");
            assert!(!reader.skip_body(&request).await);
        });
    }
}
