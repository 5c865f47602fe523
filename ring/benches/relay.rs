//! CPU time of one exchange through a relay: what a proxy costs that does nothing but pass on.
//!
//! `cargo bench -p ballast-ring --bench relay [-- CONNECTIONS BYTES]`; subjects are interleaved, and
//! the median of the rounds is shown. `--once SUBJECT CONNECTIONS BYTES EXCHANGES` runs one of them
//! alone, for profilers.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use ballast_ring::{Backend, ConnectOptions, Handler, Io, Options, Ring, Token};

const REQUEST: [u8; 100] = [b'q'; 100];
const HEAD: [u8; 120] = [b'h'; 120];
const ROUNDS: usize = 5;
const SUBJECTS: [&str; 4] = [
    "epoll/copy",
    "epoll/forward",
    "io_uring/copy",
    "io_uring/forward",
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |text: &str| text.parse().expect("a number");
    if let [once, subject, connections, bytes, exchanges] = arguments.as_slice()
        && once == "--once"
    {
        let cost = run(
            subject,
            number(connections),
            number(bytes),
            number(exchanges),
        );
        return println!("{subject} {cost:.2} µs");
    }
    let cases = match arguments.as_slice() {
        [connections, bytes, ..] => vec![(number(connections), number(bytes))],
        _ => vec![(64, 128), (256, 128), (64, 64 << 10)],
    };
    for (connections, bytes) in cases {
        let exchanges = if bytes > 4096 { 10_000 } else { 40_000 };
        let mut costs = vec![Vec::new(); SUBJECTS.len()];
        for _ in 0..ROUNDS {
            for (subject, costs) in SUBJECTS.iter().zip(&mut costs) {
                costs.push(run(subject, connections, bytes, exchanges));
            }
        }
        for (subject, costs) in SUBJECTS.iter().zip(&mut costs) {
            costs.sort_by(f64::total_cmp);
            println!(
                "relay/{subject}/{connections}x{bytes}: {:.2} µs of CPU (of {ROUNDS} rounds {:.2} to {:.2})",
                costs[ROUNDS / 2],
                costs[0],
                costs[ROUNDS - 1],
            );
        }
    }
}

/// Returns the microseconds of CPU time that an exchange costs the relay's thread.
fn run(subject: &str, connections: usize, bytes: usize, exchanges: usize) -> f64 {
    let (backend, forward) = match subject.split_once('/') {
        Some(("io_uring", how)) => (Backend::IoUring, how == "forward"),
        Some((_, how)) => (Backend::Epoll, how == "forward"),
        None => (Backend::Epoll, true),
    };
    let options = Options {
        backend,
        ..Options::default()
    };
    if let Err(error) = Ring::new(&options) {
        println!("SKIP: {error}");
        return 0.0;
    }
    let sink = serve(bytes);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("bound");
    let (done, is_done) = mpsc::channel();
    let relay = std::thread::spawn(move || {
        let mut ring = Ring::new(&options).expect("was to be had");
        ring.io().listen(listener).expect("a slot");
        let mut relay = Relay {
            sink,
            forward,
            peers: Vec::new(),
            gone: 0,
        };
        while relay.gone < connections {
            ring.turn(&mut relay, None).expect("turns");
        }
        done.send(cpu_time()).expect("is waited for");
    });
    ask(address, connections, HEAD.len() + bytes, exchanges);
    let cost = is_done.recv().expect("the relay ends");
    relay.join().expect("the relay is content");
    cost.as_secs_f64() * 1e6 / exchanges as f64
}

fn cpu_time() -> Duration {
    let statistics = std::fs::read_to_string("/proc/thread-self/schedstat").expect("procfs");
    let first = statistics.split_whitespace().next();
    let nanos = first.and_then(|first| first.parse().ok());
    Duration::from_nanos(nanos.expect("a number"))
}

/// Passes everything on, between each client and a connection of its own to the sink.
struct Relay {
    sink: SocketAddr,
    forward: bool,
    peers: Vec<Option<Token>>,
    gone: usize,
}

impl Relay {
    fn pair(&mut self, one: Token, other: Token) {
        let most = one.index().max(other.index());
        self.peers.resize(self.peers.len().max(most + 1), None);
        self.peers[one.index()] = Some(other);
        self.peers[other.index()] = Some(one);
    }
}

impl Handler for Relay {
    fn accepted(&mut self, io: &mut Io, _listener: Token, socket: Token, _peer: SocketAddr) {
        let upstream = io.connect(self.sink, &ConnectOptions::default());
        let upstream = upstream.expect("connects");
        self.pair(socket, upstream);
        io.receive(socket);
        io.receive(upstream);
    }

    fn received(&mut self, io: &mut Io, token: Token, data: &mut [u8]) {
        let peer = self.peers[token.index()].expect("paired");
        if self.forward {
            io.forward(peer, 0..data.len());
        } else {
            io.send(peer, data);
        }
    }

    fn ended(&mut self, io: &mut Io, token: Token, _result: std::io::Result<()>) {
        if let Some(peer) = self.peers[token.index()].take() {
            self.peers[peer.index()] = None;
            io.close(peer);
            self.gone += 1;
        }
        io.close(token);
    }
}

/// Answers each request with a head and so many bytes.
struct Sink {
    answer: Vec<u8>,
    received: Vec<usize>,
}

impl Handler for Sink {
    fn accepted(&mut self, io: &mut Io, _listener: Token, socket: Token, _peer: SocketAddr) {
        let most = self.received.len().max(socket.index() + 1);
        self.received.resize(most, 0);
        self.received[socket.index()] = 0;
        io.receive(socket);
    }

    fn received(&mut self, io: &mut Io, token: Token, data: &mut [u8]) {
        let received = &mut self.received[token.index()];
        *received += data.len();
        while *received >= REQUEST.len() {
            *received -= REQUEST.len();
            io.send(token, &self.answer);
        }
    }

    fn ended(&mut self, io: &mut Io, token: Token, _result: std::io::Result<()>) {
        io.close(token);
    }
}

/// Answers on a thread of its own, until the program ends.
fn serve(bytes: usize) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        let mut ring = Ring::new(&Options::default()).expect("epoll is always to be had");
        ring.io().listen(listener).expect("a slot");
        let mut answer = HEAD.to_vec();
        answer.resize(HEAD.len() + bytes, b'b');
        let mut sink = Sink {
            answer,
            received: Vec::new(),
        };
        loop {
            ring.turn(&mut sink, None).expect("turns");
        }
    });
    address
}

/// Asks again as soon as an answer is whole.
struct Client {
    left: usize,
    open: usize,
    answer: usize,
    received: Vec<usize>,
}

impl Client {
    fn ask(&mut self, io: &mut Io, token: Token) {
        if self.left == 0 {
            self.open -= 1;
            return io.close(token);
        }
        self.left -= 1;
        io.send(token, &REQUEST);
    }
}

impl Handler for Client {
    fn connected(&mut self, io: &mut Io, token: Token, result: std::io::Result<()>) {
        result.expect("the relay listens");
        io.receive(token);
        self.ask(io, token);
    }

    fn received(&mut self, io: &mut Io, token: Token, data: &mut [u8]) {
        let received = &mut self.received[token.index()];
        *received += data.len();
        if *received == self.answer {
            *received = 0;
            self.ask(io, token);
        }
    }
}

fn ask(address: SocketAddr, connections: usize, answer: usize, exchanges: usize) {
    let mut ring = Ring::new(&Options::default()).expect("epoll is always to be had");
    let mut client = Client {
        left: exchanges,
        open: connections,
        answer,
        received: vec![0; connections],
    };
    for _ in 0..connections {
        let token = ring.io().connect(address, &ConnectOptions::default());
        token.expect("connects");
    }
    while client.open > 0 {
        let until = Instant::now() + Duration::from_secs(1);
        ring.turn(&mut client, Some(until)).expect("turns");
    }
}
