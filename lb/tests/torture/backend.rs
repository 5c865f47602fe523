//! A backend that writes down what reaches it, to the byte, and answers what the path asks for.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use ballast_http1::{BodyReader, Limits, Refusal, Scratch, parse_request, render};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// What comes back for a path.
#[derive(Debug, Clone)]
pub struct Script {
    /// The bytes, as they are.
    pub bytes: Vec<u8>,
    /// Whether the connection ends behind them.
    pub close: bool,
    /// Whether they are sent once the head is there, before the body has been read.
    pub early: bool,
}

impl Script {
    pub fn keep(bytes: impl AsRef<[u8]>) -> Self {
        Self {
            bytes: bytes.as_ref().to_vec(),
            close: false,
            early: false,
        }
    }

    pub fn close(bytes: impl AsRef<[u8]>) -> Self {
        Self {
            close: true,
            ..Self::keep(bytes)
        }
    }
}

/// A request that reached the backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The head as it came.
    pub head: String,
    /// The body as it came, framing included.
    pub raw: Vec<u8>,
    /// The payload of the body.
    pub body: Vec<u8>,
}

#[derive(Clone)]
pub struct Recorder {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    scripts: Arc<HashMap<&'static str, Script>>,
}

impl Recorder {
    pub async fn start(scripts: impl IntoIterator<Item = (&'static str, Script)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let recorder = Self {
            address: listener.local_addr().expect("is bound"),
            seen: Arc::default(),
            scripts: Arc::new(scripts.into_iter().collect()),
        };
        let this = recorder.clone();
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.expect("accepts");
                let this = this.clone();
                tokio::spawn(async move { this.serve(socket).await });
            }
        });
        recorder
    }

    /// What has reached it, probes aside; and what was no request is one with an empty head.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    async fn serve(self, mut socket: TcpStream) -> Option<()> {
        let mut buffer = Vec::new();
        loop {
            let (head, mut reader, path, waits) = loop {
                if let Some(read) = self.head(&buffer).ok()? {
                    break read;
                }
                if socket.read_buf(&mut buffer).await.ok()? == 0 {
                    return None;
                }
            };
            let script = self.scripts.get(path.as_str());
            if let Some(script) = script.filter(|script| script.early) {
                socket.write_all(&script.bytes).await.ok()?;
                if script.close {
                    return None;
                }
            }
            if waits {
                socket.write_all(render::CONTINUE).await.ok()?;
            }
            buffer.drain(..head.len());
            let mut seen = Seen {
                head,
                raw: Vec::new(),
                body: Vec::new(),
            };
            while !reader.is_done() {
                let fed = reader.feed(&buffer, &Limits::default()).expect("a body");
                seen.body.extend_from_slice(&buffer[fed.data]);
                seen.raw.extend(buffer.drain(..fed.taken));
                if fed.taken == 0 && socket.read_buf(&mut buffer).await.ok()? == 0 {
                    return None;
                }
            }
            if path.starts_with("/t") {
                self.seen.lock().unwrap().push(seen);
            }
            match script {
                Some(script) if !script.early => {
                    socket.write_all(&script.bytes).await.ok()?;
                    if script.close {
                        return None;
                    }
                }
                Some(_) => {}
                None => {
                    let mut answer = b"HTTP/1.1 200 OK\r\n".to_vec();
                    render::content_length(&mut answer, path.len() as u64);
                    answer.extend_from_slice(b"\r\n");
                    answer.extend_from_slice(path.as_bytes());
                    socket.write_all(&answer).await.ok()?;
                }
            }
        }
    }

    /// The head that the bytes begin with, what follows its body, and its path. Bytes that are no
    /// head are written down, too.
    fn head(&self, buffer: &[u8]) -> Result<Option<(String, BodyReader, String, bool)>, Refusal> {
        let mut scratch = Scratch::default();
        match parse_request(buffer, &mut scratch, &Limits::default()) {
            Ok(None) => Ok(None),
            Ok(Some(request)) => {
                let head = &buffer[..request.head_len()];
                let head = String::from_utf8_lossy(head).into_owned();
                let reader = BodyReader::new(request.body());
                let waits = request.expects_continue();
                Ok(Some((head, reader, request.path().to_owned(), waits)))
            }
            Err(refusal) => {
                self.seen.lock().unwrap().push(Seen {
                    head: String::new(),
                    raw: format!("{refusal}").into_bytes(),
                    body: buffer.to_vec(),
                });
                Err(refusal)
            }
        }
    }
}
