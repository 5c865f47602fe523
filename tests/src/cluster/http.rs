//! HTTP/1.1 as small as a test needs it: one answer per request, on a Unix socket or TCP.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// The longest wait for the next byte of an answer: far above any answer that a test accepts.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest head line and most of them, so that a broken server cannot fill the memory.
const LINE_BYTES: u64 = 16 * 1024;
const HEADERS: usize = 200;

/// An answer.
#[derive(Debug, Clone)]
pub struct Response {
    /// Its status.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: Vec<u8>,
}

impl Response {
    /// Returns a header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// Returns the body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn closes(&self) -> bool {
        self.header("connection")
            .is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

/// A connection that is kept open between requests.
#[derive(Debug)]
pub struct Connection<S> {
    stream: BufReader<S>,
    open: bool,
}

impl Connection<TcpStream> {
    /// Connects.
    ///
    /// # Errors
    /// If nothing accepts there in time.
    pub fn tcp(address: SocketAddr) -> Result<Self> {
        Self::tcp_within(address, TIMEOUT)
    }

    /// Connects; every wait for the other side is bounded by `timeout`.
    ///
    /// # Errors
    /// If nothing accepts there in time.
    pub fn tcp_within(address: SocketAddr, timeout: Duration) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&address, timeout)
            .with_context(|| format!("connecting to {address}"))?;
        stream.set_nodelay(true).context("nodelay")?;
        stream.set_read_timeout(Some(timeout)).context("timeout")?;
        stream.set_write_timeout(Some(timeout)).context("timeout")?;
        Ok(Self::new(stream))
    }
}

impl<S: Read + Write> Connection<S> {
    fn new(stream: S) -> Self {
        Self {
            stream: BufReader::new(stream),
            open: true,
        }
    }

    /// Returns whether another request may be sent on it.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Sends a request and returns its answer. After an error the connection is of no more use.
    ///
    /// # Errors
    /// If the connection breaks or what comes back is no HTTP.
    pub fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&str>,
    ) -> Result<Response> {
        self.open = false;
        let mut head = format!("{method} {path} HTTP/1.1\r\n");
        if !headers
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case("host"))
        {
            head.push_str("host: test\r\n");
        }
        for (name, value) in headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        if let Some(body) = body {
            let _ = write!(head, "content-length: {}\r\n\r\n{body}", body.len());
        } else {
            head.push_str("\r\n");
        }
        self.stream
            .get_mut()
            .write_all(head.as_bytes())
            .context("sending")?;
        let response = self.response(method)?;
        self.open = !response.closes();
        Ok(response)
    }

    fn response(&mut self, method: &str) -> Result<Response> {
        let status = loop {
            let line = self.line().context("reading the status")?;
            let status: u16 = line
                .split(' ')
                .nth(1)
                .and_then(|word| word.parse().ok())
                .with_context(|| format!("{line:?} is no status line"))?;
            if status >= 200 {
                break status;
            }
            self.headers()?;
        };
        let headers = self.headers()?;
        let mut response = Response {
            status,
            headers,
            body: Vec::new(),
        };
        if method != "HEAD" && status != 204 && status != 304 {
            response.body = self.body(&response).context("reading the body")?;
        }
        Ok(response)
    }

    fn headers(&mut self) -> Result<Vec<(String, String)>> {
        let mut headers = Vec::new();
        loop {
            let line = self.line().context("reading the head")?;
            if line.is_empty() {
                return Ok(headers);
            }
            if headers.len() == HEADERS {
                bail!("more than {HEADERS} headers");
            }
            let (name, value) = line.split_once(':').context("a header without a colon")?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    fn body(&mut self, head: &Response) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        if head
            .header("transfer-encoding")
            .is_some_and(|value| value.eq_ignore_ascii_case("chunked"))
        {
            loop {
                let line = self.line()?;
                let size = line.split(';').next().unwrap_or_default().trim();
                let size = u64::from_str_radix(size, 16).context("a chunk's size")?;
                let before = body.len();
                (&mut self.stream).take(size).read_to_end(&mut body)?;
                if (body.len() - before) as u64 != size {
                    bail!("closed within a chunk");
                }
                self.line()?;
                if size == 0 {
                    return Ok(body);
                }
            }
        }
        match head.header("content-length") {
            Some(length) => {
                let length: u64 = length.parse().context("a body's length")?;
                (&mut self.stream).take(length).read_to_end(&mut body)?;
                if body.len() as u64 != length {
                    bail!("closed after {} of {length} bytes", body.len());
                }
            }
            None => {
                self.stream.read_to_end(&mut body)?;
            }
        }
        Ok(body)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = Vec::new();
        (&mut self.stream)
            .take(LINE_BYTES)
            .read_until(b'\n', &mut line)?;
        if line.pop() != Some(b'\n') {
            bail!("closed before the end of a line");
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        String::from_utf8(line).context("a line of text")
    }
}

/// Returns the answer over a Unix socket.
///
/// # Errors
/// If nobody answers there.
pub fn over_socket(
    socket: &Path,
    method: &str,
    path: &str,
    body: Option<&str>,
) -> Result<Response> {
    let stream = UnixStream::connect(socket)
        .with_context(|| format!("connecting to {}", socket.display()))?;
    stream.set_read_timeout(Some(TIMEOUT)).context("timeout")?;
    let mut headers = vec![("connection", "close")];
    if body.is_some() {
        headers.push(("content-type", "application/json"));
    }
    Connection::new(stream)
        .request(method, path, &headers, body)
        .with_context(|| format!("{method} {path}"))
}

/// Returns the answer over a connection of its own.
///
/// # Errors
/// If nobody answers there.
pub fn over_tcp(
    address: SocketAddr,
    method: &str,
    path: &str,
    body: Option<&str>,
) -> Result<Response> {
    Connection::tcp(address)?
        .request(method, path, &[("connection", "close")], body)
        .with_context(|| format!("{method} http://{address}{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    /// Reads from one side, throws away what is written.
    struct Canned(Cursor<Vec<u8>>);

    impl Read for Canned {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            self.0.read(buffer)
        }
    }
    impl Write for Canned {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn answer(bytes: &str) -> Result<Response> {
        Connection::new(Canned(Cursor::new(bytes.as_bytes().to_vec()))).request(
            "GET",
            "/",
            &[],
            None,
        )
    }

    #[test]
    fn bodies_are_read_by_length_by_chunks_and_to_the_end() {
        let by_length = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
        assert_eq!(answer(by_length).expect("reads").text(), "hi");
        let chunks =
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nh\r\n1\r\ni\r\n0\r\n\r\n";
        assert_eq!(answer(chunks).expect("reads").text(), "hi");
        let to_the_end = "HTTP/1.0 502 Bad\r\nConnection: close\r\n\r\nhi";
        let response = answer(to_the_end).expect("reads");
        assert_eq!((response.status, response.text().as_str()), (502, "hi"));
    }

    #[test]
    fn a_truncated_answer_is_an_error() {
        for bytes in [
            "",
            "HTTP/1.1 200",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhi",
        ] {
            assert!(answer(bytes).is_err(), "{bytes}");
        }
    }
}
