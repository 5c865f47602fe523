//! A server that answers everything with 200 and remembers what it was asked, and when.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long a test waits for what must come.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// One request as it came.
#[derive(Debug, Clone)]
pub struct Asked {
    pub at: Instant,
    /// `GET /path`
    pub line: String,
    pub head: Vec<String>,
    pub body: Vec<u8>,
}

#[derive(Default)]
struct Books {
    count: AtomicU64,
    asked: Mutex<Vec<Asked>>,
}

/// Runs until the test ends.
#[derive(Clone)]
pub struct Server {
    pub address: SocketAddr,
    books: Arc<Books>,
}

impl Server {
    /// Starts one whose answers take `delay`.
    pub fn start(delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let address = listener.local_addr().expect("has an address");
        let books = Arc::new(Books::default());
        let shared = books.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let books = shared.clone();
                std::thread::spawn(move || serve(&stream, &books, delay));
            }
        });
        Self { address, books }
    }

    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    pub fn count(&self) -> u64 {
        self.books.count.load(Ordering::SeqCst)
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.books.asked.lock().expect("locks").clone()
    }

    /// Waits until at least this many requests have come.
    pub fn wait_for(&self, count: u64) {
        let deadline = Instant::now() + PATIENCE;
        while self.count() < count {
            assert!(
                Instant::now() < deadline,
                "{} of {count} came",
                self.count()
            );
            std::thread::yield_now();
        }
    }
}

fn serve(stream: &TcpStream, books: &Books, delay: Duration) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut stream = stream;
    loop {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            match line.trim_end() {
                "" => break,
                line => head.push(line.to_owned()),
            }
        }
        let at = Instant::now();
        let length = head.iter().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.trim().parse().ok())?
        });
        let mut body = vec![0; length.unwrap_or(0)];
        reader.read_exact(&mut body).ok()?;
        let line = head[0]
            .rsplit_once(' ')
            .expect("a request line")
            .0
            .to_owned();
        books.count.fetch_add(1, Ordering::SeqCst);
        books.asked.lock().expect("locks").push(Asked {
            at,
            line,
            head,
            body,
        });
        if !delay.is_zero() {
            // The delay is what the server is for; no test waits for it.
            let (_never, until) = std::sync::mpsc::channel::<()>();
            let _ = until.recv_timeout(delay);
        }
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            .ok()?;
    }
}

/// Returns the binary.
pub fn loadgen() -> assert_cmd::Command {
    assert_cmd::Command::new(assert_cmd::cargo::cargo_bin!("ballast-loadgen"))
}
