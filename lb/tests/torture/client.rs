//! A client that sends any bytes, and reads what comes to the letter.

use std::net::SocketAddr;
use std::time::Duration;

use ballast_http1::{BodyLength, BodyReader, Limits, RequestKind, Scratch, parse_response};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The longest wait for anything.
pub const DEADLINE: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
    pub framing: BodyLength,
    /// Whether the connection may be used again.
    pub keep: bool,
}

impl Answer {
    /// The value of a field of the head.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }
}

pub struct Client {
    socket: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).await.expect("connects");
        socket.set_nodelay(true).expect("sends at once");
        Self {
            socket,
            buffer: Vec::new(),
        }
    }

    /// Sends; a connection that was closed meanwhile is found out when the answer is read.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let sent = timeout(DEADLINE, self.socket.write_all(bytes.as_ref())).await;
        let _ = sent.expect("is taken in time");
    }

    /// Sends byte by byte, each in a packet of its own.
    pub async fn drip(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.send([*byte]).await;
            tokio::task::yield_now().await;
        }
    }

    /// Sends the end.
    pub async fn end(&mut self) {
        self.socket.shutdown().await.expect("sends the end");
    }

    /// The next answer to anything but HEAD and CONNECT.
    pub async fn answer(&mut self) -> Answer {
        let answer = self.answer_to(RequestKind::Other).await;
        answer.expect("a whole answer")
    }

    /// The next answer; none if the connection ended before it was whole.
    pub async fn answer_to(&mut self, kind: RequestKind) -> Option<Answer> {
        timeout(DEADLINE, self.read_answer(kind))
            .await
            .expect("answers in time")
    }

    async fn read_answer(&mut self, kind: RequestKind) -> Option<Answer> {
        let limits = Limits::default();
        let mut answer = loop {
            let mut scratch = Scratch::default();
            let read = parse_response(&self.buffer, &mut scratch, kind, &limits);
            if let Some(response) = read.expect("a well-formed answer") {
                let length = response.head_len();
                let answer = Answer {
                    status: response.status(),
                    head: String::from_utf8_lossy(&self.buffer[..length]).into_owned(),
                    body: Vec::new(),
                    framing: response.body(),
                    keep: response.keep_alive(),
                };
                self.buffer.drain(..length);
                break answer;
            }
            if self.more().await == 0 {
                return None;
            }
        };
        let mut reader = BodyReader::new(answer.framing);
        while !reader.is_done() {
            let fed = reader.feed(&self.buffer, &limits).expect("a body");
            answer.body.extend_from_slice(&self.buffer[fed.data]);
            self.buffer.drain(..fed.taken);
            if fed.taken == 0 && self.more().await == 0 {
                return reader.ended().is_ok().then_some(answer);
            }
        }
        Some(answer)
    }

    /// Reads; an end by a reset is an end.
    async fn more(&mut self) -> usize {
        self.socket.read_buf(&mut self.buffer).await.unwrap_or(0)
    }

    /// Waits for the end, before which nothing more may come.
    pub async fn is_closed(&mut self) -> bool {
        let more = timeout(DEADLINE, self.more()).await.expect("ends in time");
        more == 0 && self.buffer.is_empty()
    }
}
