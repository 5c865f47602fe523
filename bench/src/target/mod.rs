//! The other end of what is measured: a server that is never the bottleneck, stalls on command,
//! and remembers when each request came and was answered.
//!
//! It shares no code with the load generator, so that neither's mistakes hide the other's: plain
//! epoll, one thread, a response made once. [`Sink`] costs less and keeps no books but a count: what
//! proxies are measured before. [`truth`] turns its records and the schedule into what
//! the latencies truly were.

mod connection;
mod server;
mod sink;
pub mod truth;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
pub use sink::Sink;

/// What a target is to do.
#[derive(Debug, Clone, Default)]
pub struct Behaviour {
    /// Where it listens; port 0 takes any.
    pub listen: Option<SocketAddr>,
    /// The core that it is pinned to.
    pub core: Option<usize>,
    /// Bytes in the body of each response.
    pub body_bytes: usize,
    /// When it stops doing anything, counted from the first request, and for how long.
    pub stalls: Vec<Stall>,
    /// How long each response is held back; the server goes on meanwhile.
    pub delay: Duration,
    /// How much the delay of one response is shorter or longer than that, as a share of it: evenly
    /// spread, the same sequence each time.
    pub jitter: f64,
    /// Whether it remembers each request.
    pub records: bool,
}

/// A time in which a target neither reads nor writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stall {
    /// From the first request.
    pub at: Duration,
    /// How long.
    pub lasts: Duration,
}

/// One request as its target saw it, nanoseconds since the target started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// When it was read.
    pub read_ns: u64,
    /// When its answer had been handed to the kernel.
    pub answered_ns: u64,
}

/// A running target; it ends when this is dropped.
#[derive(Debug)]
pub struct Target {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<Vec<Seen>>>>,
}

/// What the server's thread and its owner share.
#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    answered: AtomicU64,
}

impl Target {
    /// Starts one on a thread of its own.
    ///
    /// # Errors
    /// It cannot listen, or the system refuses a thread.
    pub fn start(behaviour: Behaviour) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let server = server::Server::new(behaviour, shared.clone())?;
        let address = server.address()?;
        let thread = std::thread::Builder::new()
            .name("target".to_owned())
            .spawn(move || server.run())
            .context("a thread for the target")?;
        Ok(Self {
            address,
            shared,
            thread: Some(thread),
        })
    }

    /// Returns where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns how many requests it has answered.
    pub fn answered(&self) -> u64 {
        self.shared.answered.load(Ordering::Relaxed)
    }

    /// Ends it and returns what it saw, in the order of its answers.
    ///
    /// # Errors
    /// It broke.
    pub fn stop(mut self) -> Result<Vec<Seen>> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("a target is stopped once")?;
        thread.join().map_err(|_| anyhow!("the target panicked"))?
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It is going away with its owner: what it broke on no longer matters.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::time::Instant;

    use super::*;

    fn behaviour() -> Behaviour {
        Behaviour {
            body_bytes: 16,
            records: true,
            ..Behaviour::default()
        }
    }

    fn connect(target: &Target) -> TcpStream {
        let stream = TcpStream::connect(target.address()).expect("connects");
        let timeout = Some(Duration::from_secs(20));
        stream.set_read_timeout(timeout).expect("a timeout");
        stream
    }

    /// Reads `count` whole responses of `body` bytes.
    fn responses(stream: &mut TcpStream, count: usize, body: usize) -> String {
        let mut text = Vec::new();
        let mut buffer = vec![0; 1 << 16];
        loop {
            let head = text.windows(4).position(|it| it == b"\r\n\r\n");
            if head.is_some_and(|head| text.len() == count * (head + 4 + body)) {
                let text = String::from_utf8(text).expect("ASCII");
                assert_eq!(text.matches("\r\n\r\n").count(), count);
                return text;
            }
            let read = stream.read(&mut buffer).expect("an answer");
            assert!(read > 0, "closed after {} bytes", text.len());
            text.extend_from_slice(&buffer[..read]);
        }
    }

    #[test]
    fn requests_in_pieces_and_in_a_row_are_each_answered_once() {
        let target = Target::start(behaviour()).expect("starts");
        let mut stream = connect(&target);
        for piece in [
            "GET / HT",
            "TP/1.1\r\nHost: a\r\n\r",
            "\nGET /b HTTP/1.1\r\n\r\n",
        ] {
            stream.write_all(piece.as_bytes()).expect("sent");
        }
        let text = responses(&mut stream, 2, 16);
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
        let post = "POST / HTTP/1.1\r\nContent-Length: 8\r\n\r\n\r\n\r\n\r\n\r\n";
        stream.write_all(post.as_bytes()).expect("sent");
        responses(&mut stream, 1, 16);
        assert_eq!(target.answered(), 3);
        assert_eq!(target.stop().expect("its records").len(), 3);
    }

    #[test]
    fn long_bodies_come_whole_although_the_client_reads_late() {
        let body = 4 << 20;
        let large = Behaviour {
            body_bytes: body,
            ..behaviour()
        };
        let target = Target::start(large).expect("starts");
        let mut stream = connect(&target);
        stream
            .write_all(b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n")
            .expect("sent");
        responses(&mut stream, 2, body);
    }

    #[test]
    fn target_that_stalls_answers_when_the_stall_is_over() {
        let lasts = Duration::from_millis(200);
        let stalls = vec![Stall {
            at: Duration::ZERO,
            lasts,
        }];
        let target = Target::start(Behaviour {
            stalls,
            ..behaviour()
        })
        .expect("starts");
        let mut stream = connect(&target);
        let began = Instant::now();
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("sent");
        responses(&mut stream, 1, 16);
        assert!(began.elapsed() >= lasts);
        let seen = target.stop().expect("its records");
        let waited = seen[0].answered_ns - seen[0].read_ns;
        assert!(u128::from(waited) >= lasts.as_nanos());
    }

    #[test]
    fn delayed_responses_do_not_hold_up_others() {
        let delay = Duration::from_millis(100);
        let target = Target::start(Behaviour {
            delay,
            ..behaviour()
        })
        .expect("starts");
        let mut streams: Vec<_> = (0..20).map(|_| connect(&target)).collect();
        let began = Instant::now();
        for stream in &mut streams {
            stream.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("sent");
        }
        for stream in &mut streams {
            responses(stream, 1, 16);
        }
        let took = began.elapsed();
        // One after the other they would take 2 s.
        assert!(took >= delay && took < delay * 15, "{took:?}");
    }
}
