//! Backends that misbehave on purpose, and a client that sees every byte.
#![allow(dead_code, reason = "each test binary uses a part of it")]

pub mod witness;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ballast_lb::RawConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

/// The longest wait for anything.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// How a backend treats a request whose head it has read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// 200, kept alive.
    Answer,
    /// 200, kept alive as far as the head says, closed right after.
    AnswerThenClose,
    /// Closed after the head was read.
    CloseAfterHead,
    /// Closed after the body was read.
    CloseAfterBody,
    /// Reset after the body was read.
    ResetAfterBody,
    /// Half of the response's head, then closed.
    HalfHead,
    /// Never.
    Hang,
    /// The head and half of the body, then closed.
    HalfBody,
    /// 200 after this many milliseconds.
    Slow(u64),
}

/// A server that counts what it began to execute.
#[derive(Clone)]
pub struct Backend {
    pub name: &'static str,
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
    stop: CancellationToken,
}

#[derive(Default)]
struct State {
    /// Taken in turn; the last one stays.
    modes: Vec<Mode>,
    seen: HashMap<String, u32>,
    heads: Vec<String>,
}

impl Backend {
    #[allow(
        clippy::unused_async,
        reason = "reads as what it is: it needs a runtime"
    )]
    pub async fn start(name: &'static str, modes: &[Mode]) -> Self {
        Self::start_at(name, modes, ([127, 0, 0, 1], 0).into())
    }

    pub fn start_at(name: &'static str, modes: &[Mode], address: SocketAddr) -> Self {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.set_reuseaddr(true).expect("reuses");
        socket.bind(address).expect("binds");
        let listener = socket.listen(1024).expect("listens");
        let backend = Self {
            name,
            address: listener.local_addr().expect("is bound"),
            state: Arc::default(),
            stop: CancellationToken::new(),
        };
        backend.set(modes);
        let this = backend.clone();
        tokio::spawn(async move {
            loop {
                let (socket, _) = tokio::select! {
                    accepted = listener.accept() => accepted.expect("accepts"),
                    () = this.stop.cancelled() => return,
                };
                let this = this.clone();
                tokio::spawn(async move {
                    let stop = this.stop.clone();
                    tokio::select! {
                        _ = this.serve(socket) => {}
                        () = stop.cancelled() => {}
                    }
                });
            }
        });
        backend
    }

    pub fn set(&self, modes: &[Mode]) {
        self.state.lock().unwrap().modes = modes.to_vec();
    }

    /// Closes everything, as the end of the process would.
    pub fn kill(&self) {
        self.stop.cancel();
    }

    /// How often a request with this id was begun.
    pub fn count(&self, id: &str) -> u32 {
        let state = self.state.lock().unwrap();
        state.seen.get(id).copied().unwrap_or(0)
    }

    /// Requests begun; probes have no id.
    pub fn total(&self) -> u32 {
        let state = self.state.lock().unwrap();
        let seen = state.seen.iter().filter(|(id, _)| !id.is_empty());
        seen.map(|(_, count)| count).sum()
    }

    /// The last one that was forwarded; probes come between.
    pub fn last_head(&self) -> String {
        let state = self.state.lock().unwrap();
        let forwarded = |head: &&String| header(head, "x-forwarded-proto").is_some();
        let last = state.heads.iter().rev().find(forwarded);
        last.cloned().unwrap_or_default()
    }

    fn next_mode(&self) -> Mode {
        let mut state = self.state.lock().unwrap();
        if state.modes.len() > 1 {
            state.modes.remove(0)
        } else {
            state.modes[0]
        }
    }

    async fn serve(&self, mut socket: TcpStream) -> Option<()> {
        let mut buffer = Vec::new();
        loop {
            let end = read_head(&mut socket, &mut buffer).await?;
            let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
            buffer.drain(..end);
            let id = header(&head, "x-id").unwrap_or_default();
            {
                let mut state = self.state.lock().unwrap();
                *state.seen.entry(id).or_default() += 1;
                state.heads.push(head.clone());
            }
            let mode = self.next_mode();
            if mode == Mode::CloseAfterHead {
                return None;
            }
            let length = header(&head, "content-length").map_or(0, |text| text.parse().unwrap());
            while buffer.len() < length {
                if socket.read_buf(&mut buffer).await.ok()? == 0 {
                    return None;
                }
            }
            buffer.drain(..length);
            if head.to_ascii_lowercase().contains("upgrade: websocket") {
                return self.echo(socket).await;
            }
            self.answer(&mut socket, mode).await?;
        }
    }

    async fn answer(&self, socket: &mut TcpStream, mode: Mode) -> Option<()> {
        let body = self.name;
        let length = body.len();
        let whole = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}");
        match mode {
            Mode::Answer => socket.write_all(whole.as_bytes()).await.ok(),
            Mode::Slow(millis) => {
                tokio::time::sleep(Duration::from_millis(millis)).await;
                socket.write_all(whole.as_bytes()).await.ok()
            }
            Mode::AnswerThenClose => {
                socket.write_all(whole.as_bytes()).await.ok()?;
                None
            }
            Mode::HalfHead => {
                socket.write_all(&whole.as_bytes()[..20]).await.ok()?;
                None
            }
            Mode::HalfBody => {
                let cut = whole.len() - length / 2 - 1;
                socket.write_all(&whole.as_bytes()[..cut]).await.ok()?;
                None
            }
            Mode::ResetAfterBody => {
                let linger = Some(Duration::ZERO);
                socket2::SockRef::from(&*socket).set_linger(linger).ok()?;
                None
            }
            Mode::CloseAfterHead | Mode::CloseAfterBody => None,
            Mode::Hang => std::future::pending().await,
        }
    }

    /// Switches protocols and gives back what comes.
    async fn echo(&self, mut socket: TcpStream) -> Option<()> {
        let head = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n\
                    upgrade: websocket\r\n\r\n";
        socket.write_all(head.as_bytes()).await.ok()?;
        let mut bytes = [0; 1024];
        loop {
            let count = socket.read(&mut bytes).await.ok()?;
            if count == 0 {
                return None;
            }
            socket.write_all(&bytes[..count]).await.ok()?;
        }
    }
}

/// Reads until the end of a head; returns where it ends.
async fn read_head(socket: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<usize> {
    loop {
        let end = buffer.windows(4).position(|window| window == b"\r\n\r\n");
        if let Some(end) = end {
            return Some(end + 4);
        }
        if socket.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}

pub fn header(head: &str, name: &str) -> Option<String> {
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name)
            .then(|| value.trim().to_owned())
    })
}

/// An answer as it came.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

/// One connection of a client.
pub struct Client {
    pub socket: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Self {
        Self {
            socket: TcpStream::connect(address).await.expect("connects"),
            buffer: Vec::new(),
        }
    }

    pub async fn send(&mut self, text: &str) {
        self.socket.write_all(text.as_bytes()).await.expect("sends");
    }

    /// Reads one answer; none if the connection ended before it was whole.
    pub async fn receive(&mut self) -> Option<Answer> {
        let end = read_head(&mut self.socket, &mut self.buffer).await?;
        let head = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        self.buffer.drain(..end);
        let status = head.split(' ').nth(1)?.parse().ok()?;
        let length: usize = header(&head, "content-length").map_or(0, |text| text.parse().unwrap());
        while self.buffer.len() < length {
            if self.socket.read_buf(&mut self.buffer).await.ok()? == 0 {
                return None;
            }
        }
        let body = self.buffer.drain(..length).collect();
        Some(Answer {
            status,
            head,
            body: String::from_utf8(body).ok()?,
        })
    }
}

/// One request on a connection of its own.
pub async fn request(address: SocketAddr, method: &str, id: &str, body: &str) -> Option<Answer> {
    let mut client = Client::connect(address).await;
    let length = body.len();
    let text = format!(
        "{method} /path HTTP/1.1\r\nhost: example.test\r\nx-id: {id}\r\n\
         content-length: {length}\r\n\r\n{body}"
    );
    client.send(&text).await;
    tokio::time::timeout(DEADLINE, client.receive())
        .await
        .expect("answers in time")
}

pub async fn get(address: SocketAddr) -> Answer {
    request(address, "GET", "get", "").await.expect("answers")
}

pub use ballast_test_ports::free_address;

/// A running ingress.
pub struct Ingress {
    pub http: SocketAddr,
    pub admin: SocketAddr,
    pub file: PathBuf,
    pub stop: CancellationToken,
    pub ended: Option<tokio::task::JoinHandle<Result<(), ballast_lb::IngressError>>>,
    _dir: tempfile::TempDir,
}

impl Drop for Ingress {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Ingress {
    /// Starts a stand-alone one; `rest` is the file without `listen` and `admin`.
    pub async fn start(rest: &str) -> Self {
        Self::start_with("", rest).await
    }

    /// The same with more listeners than that for HTTP: `, https: ADDRESS`.
    pub async fn start_with(listen: &str, rest: &str) -> Self {
        Self::start_at(free_address(), listen, rest).await
    }

    /// Ends it, and waits until it has.
    pub async fn end(mut self) {
        self.stop.cancel();
        if let Some(ended) = self.ended.take() {
            ended.await.expect("no panic").expect("ends well");
        }
    }

    /// The same with an address for HTTP that was chosen before.
    pub async fn start_at(http: SocketAddr, listen: &str, rest: &str) -> Self {
        let admin = free_address();
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("lb.yaml");
        let mut ingress = Self {
            http,
            admin,
            file,
            stop: CancellationToken::new(),
            ended: None,
            _dir: dir,
        };
        ingress.write_with(listen, rest);
        let config = RawConfig::from_file(&ingress.file).and_then(RawConfig::validate);
        let config = config.expect("a valid file");
        let running = tokio::spawn(ballast_lb::run(config, ingress.stop.clone()));
        until("it listens", || async {
            TcpStream::connect(admin).await.is_ok() && TcpStream::connect(http).await.is_ok()
        })
        .await;
        ingress.ended = Some(running);
        ingress
    }

    /// Writes the file anew, as an editor would: whole.
    pub fn write(&self, rest: &str) {
        self.write_with("", rest);
    }

    /// See [`Ingress::start_with`].
    pub fn write_with(&self, listen: &str, rest: &str) {
        let (http, admin) = (self.http, self.admin);
        let text = format!("listen: {{ http: \"{http}\"{listen} }}\nadmin: \"{admin}\"\n{rest}");
        let temporary = self.file.with_extension("new");
        std::fs::write(&temporary, text).expect("writes");
        std::fs::rename(temporary, &self.file).expect("renames");
    }

    pub async fn admin(&self, path: &str) -> String {
        let mut client = Client::connect(self.admin).await;
        client
            .send(&format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n"))
            .await;
        client.receive().await.expect("answers").body
    }
}

/// One service of these backends, found by any host.
pub fn service(backends: &[&Backend]) -> String {
    let endpoints: Vec<String> = backends
        .iter()
        .map(|backend| format!("\"{}\"", backend.address))
        .collect();
    let endpoints = endpoints.join(", ");
    format!("services:\n  web: {{ endpoints: [{endpoints}] }}\nroutes:\n  - {{ service: web }}\n")
}

/// Waits until a condition holds.
pub async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < DEADLINE, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
