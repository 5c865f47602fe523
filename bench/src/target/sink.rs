//! Where proxies send their requests: the cheapest answer that there is, on a ring.
//!
//! It shares the core of the generator, so what it takes is what the generator lacks to keep a
//! proxy busy. The loop under it is ours, as that of the ingress is; what it counts is checked
//! against what generators got.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use ballast_ring::{Backend, Handler, Io, Options, Ring, Token, Waker};

use super::connection::Requests;

/// Responses that are made at once for requests that came at once.
const ROW: usize = 16;
/// Connections that it takes.
const SOCKETS: u32 = 65_536;

/// A running sink; it ends when this is dropped.
#[derive(Debug)]
pub struct Sink {
    address: SocketAddr,
    answered: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    waker: Waker,
    thread: Option<JoinHandle<std::io::Result<()>>>,
}

impl Sink {
    /// Starts one on a thread of its own, on `core` alone if there is one; each answer has a body
    /// of `body_bytes`.
    ///
    /// # Errors
    /// It cannot listen, or the system refuses a thread.
    pub fn start(body_bytes: usize, core: Option<usize>) -> Result<Self> {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listener = TcpListener::bind(any).context("listening")?;
        let address = listener.local_addr().context("the sink's address")?;
        let (answered, stop) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let handler = Answers::new(body_bytes, Arc::clone(&answered));
        let (told, tells) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new().name("sink".to_owned()).spawn({
            let stop = Arc::clone(&stop);
            move || {
                serve(listener, handler, core, &stop, |waker| {
                    // Whoever waits for it is there until it comes.
                    let _ = told.send(waker);
                })
            }
        });
        let thread = thread.context("a thread for the sink")?;
        let Ok(waker) = tells.recv() else {
            let ended = thread.join().unwrap_or(Ok(()));
            ended.context("the sink")?;
            anyhow::bail!("the sink did not start");
        };
        Ok(Self {
            address,
            answered,
            stop,
            waker,
            thread: Some(thread),
        })
    }

    /// Returns where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns how many requests it has answered.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.waker.wake();
        if let Some(thread) = self.thread.take() {
            // It is going away with its owner: what it broke on no longer matters.
            let _ = thread.join();
        }
    }
}

fn serve(
    listener: TcpListener,
    mut answers: Answers,
    core: Option<usize>,
    stop: &AtomicBool,
    ready: impl FnOnce(Waker),
) -> std::io::Result<()> {
    if let Some(core) = core {
        let mut set = rustix::thread::CpuSet::new();
        set.set(core);
        rustix::thread::sched_setaffinity(None, &set)?;
    }
    let options = Options {
        backend: Backend::Auto,
        sockets: SOCKETS,
        ..Options::default()
    };
    let mut ring = Ring::new(&options).map_err(std::io::Error::other)?;
    let listening = ring.io().listen(listener);
    listening.map_err(std::io::Error::other)?;
    ready(ring.waker());
    while !stop.load(Ordering::Relaxed) {
        ring.turn(&mut answers, None)?;
    }
    Ok(())
}

/// What is known of the connections.
#[derive(Debug)]
struct Answers {
    /// Responses in a row.
    row: Vec<u8>,
    /// Bytes of one.
    one: usize,
    answered: Arc<AtomicU64>,
    /// By slot.
    connections: Vec<Requests>,
}

impl Answers {
    fn new(body_bytes: usize, answered: Arc<AtomicU64>) -> Self {
        let body = "x".repeat(body_bytes);
        let one = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {body_bytes}\r\n\r\n\
             {body}"
        );
        Self {
            row: one.repeat(ROW).into_bytes(),
            one: one.len(),
            answered,
            connections: Vec::new(),
        }
    }
}

impl Handler for Answers {
    fn accepted(&mut self, io: &mut Io, _: Token, socket: Token, _: SocketAddr) {
        let slots = self.connections.len().max(socket.index() + 1);
        self.connections.resize_with(slots, Requests::default);
        self.connections[socket.index()] = Requests::default();
        io.receive(socket);
    }

    fn received(&mut self, io: &mut Io, token: Token, data: &mut [u8]) {
        let Ok(mut complete) = self.connections[token.index()].take(data) else {
            io.close(token);
            return;
        };
        self.answered.fetch_add(complete as u64, Ordering::Relaxed);
        while complete > 0 {
            let now = complete.min(ROW);
            io.send(token, &self.row[..now * self.one]);
            complete -= now;
        }
    }

    fn ended(&mut self, io: &mut Io, token: Token, result: std::io::Result<()>) {
        if result.is_ok() {
            io.close(token);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::time::Duration;

    use super::*;

    #[test]
    fn requests_in_pieces_and_in_a_row_are_each_answered_and_counted_once() {
        let sink = Sink::start(16, None).expect("starts");
        let mut stream = TcpStream::connect(sink.address()).expect("connects");
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("a timeout");
        let many = "GET / HTTP/1.1\r\n\r\n".repeat(40);
        for piece in ["GET / HT", "TP/1.1\r\nHost: a\r\n\r", "\n", &many] {
            stream.write_all(piece.as_bytes()).expect("sent");
        }
        let mut text = Vec::new();
        while text.windows(16).filter(|it| *it == [b'x'; 16]).count() < 41 {
            let mut buffer = [0; 4096];
            let read = stream.read(&mut buffer).expect("an answer");
            assert!(read > 0, "closed after {} bytes", text.len());
            text.extend_from_slice(&buffer[..read]);
        }
        assert_eq!(sink.answered(), 41);
    }
}
