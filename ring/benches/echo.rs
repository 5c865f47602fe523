//! CPU time of one echo, on the client's side: a small request, its answer, over loopback.
//!
//! `cargo bench -p ballast-ring [-- CONNECTIONS…]`; subjects are interleaved, and the median of the
//! rounds is shown. `--once SUBJECT CONNECTIONS ECHOES` runs one of them alone, for profilers.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use ballast_ring::{Backend, Batch, ConnectOptions, Handler, Io, Options, Ring, Timer, Token};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const MESSAGE: [u8; 128] = [b'x'; 128];
const ROUNDS: usize = 5;
const ECHOES: usize = 20_000;
const SUBJECTS: [&str; 4] = [
    "ring/epoll",
    "ring/io_uring",
    "ring/io_uring+batch",
    "tokio",
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let address = serve();
    if let [once, subject, connections, echoes] = arguments.as_slice()
        && once == "--once"
    {
        let number = |text: &str| text.parse().expect("a number");
        let cost = run(subject, address, number(connections), number(echoes));
        println!("{subject} {cost:.0} ns");
        return;
    }
    let given: Vec<usize> = arguments
        .iter()
        .filter_map(|text| text.parse().ok())
        .collect();
    let counts = if given.is_empty() {
        vec![1, 64, 256]
    } else {
        given
    };
    for connections in counts {
        let mut costs = vec![Vec::new(); SUBJECTS.len()];
        for _ in 0..ROUNDS {
            for (subject, costs) in SUBJECTS.iter().zip(&mut costs) {
                costs.push(run(subject, address, connections, ECHOES));
            }
        }
        for (subject, costs) in SUBJECTS.iter().zip(&mut costs) {
            costs.sort_by(f64::total_cmp);
            println!(
                "echo/{subject}/{connections}: {:.0} ns of CPU (of {ROUNDS} rounds {:.0} to {:.0})",
                costs[ROUNDS / 2],
                costs[0],
                costs[ROUNDS - 1],
            );
        }
    }
}

/// Returns the nanoseconds of CPU time that an echo costs this thread.
fn run(subject: &str, address: SocketAddr, connections: usize, echoes: usize) -> f64 {
    let cost = match subject {
        "ring/epoll" => ring(Backend::Epoll, None, address, connections, echoes),
        "ring/io_uring" => ring(Backend::IoUring, None, address, connections, echoes),
        "ring/io_uring+batch" => {
            let batch = Batch {
                completions: 16,
                wait: Duration::from_micros(100),
            };
            ring(Backend::IoUring, Some(batch), address, connections, echoes)
        }
        _ => tokio_echoes(address, connections, echoes),
    };
    cost.as_secs_f64() * 1e9 / echoes as f64
}

fn cpu_time() -> Duration {
    let statistics = std::fs::read_to_string("/proc/thread-self/schedstat").expect("procfs");
    let first = statistics.split_whitespace().next();
    let nanos = first.and_then(|first| first.parse().ok());
    Duration::from_nanos(nanos.expect("a number"))
}

/// Asks again as soon as an answer is whole, with a timeout as a real client would have.
struct Client {
    left: usize,
    open: usize,
    received: Vec<usize>,
    timeouts: Vec<Option<Timer>>,
}

impl Client {
    fn ask(&mut self, io: &mut Io, token: Token) {
        if self.left == 0 {
            self.open -= 1;
            return io.close(token);
        }
        self.left -= 1;
        let at = io.now() + Duration::from_secs(10);
        self.timeouts[token.index()] = Some(io.arm(at, 0));
        io.send(token, &MESSAGE);
    }
}

impl Handler for Client {
    fn connected(&mut self, io: &mut Io, token: Token, result: std::io::Result<()>) {
        result.expect("the server listens");
        io.receive(token);
        self.ask(io, token);
    }

    fn received(&mut self, io: &mut Io, token: Token, data: &mut [u8]) {
        let received = &mut self.received[token.index()];
        *received += data.len();
        if *received == MESSAGE.len() {
            *received = 0;
            if let Some(timer) = self.timeouts[token.index()].take() {
                io.disarm(timer);
            }
            self.ask(io, token);
        }
    }
}

fn ring(
    backend: Backend,
    batch: Option<Batch>,
    address: SocketAddr,
    connections: usize,
    echoes: usize,
) -> Duration {
    let options = Options {
        backend,
        batch,
        ..Options::default()
    };
    let mut ring = match Ring::new(&options) {
        Ok(ring) => ring,
        Err(error) => {
            println!("SKIP: {error}");
            return Duration::ZERO;
        }
    };
    let mut client = Client {
        left: echoes,
        open: connections,
        received: vec![0; connections],
        timeouts: vec![None; connections],
    };
    for _ in 0..connections {
        let token = ring.io().connect(address, &ConnectOptions::default());
        token.expect("connects");
    }
    let before = cpu_time();
    while client.open > 0 {
        let until = Instant::now() + Duration::from_secs(1);
        ring.turn(&mut client, Some(until)).expect("turns");
    }
    cpu_time().saturating_sub(before)
}

fn tokio_echoes(address: SocketAddr, connections: usize, echoes: usize) -> Duration {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let before = cpu_time();
    runtime.block_on(async {
        let share = echoes / connections;
        let clients: Vec<_> = (0..connections)
            .map(|_| {
                tokio::spawn(async move {
                    let mut stream = tokio::net::TcpStream::connect(address)
                        .await
                        .expect("connects");
                    stream.set_nodelay(true).expect("a socket");
                    let mut back = [0; MESSAGE.len()];
                    for _ in 0..share {
                        let echo = async {
                            stream.write_all(&MESSAGE).await.expect("sends");
                            stream.read_exact(&mut back).await.expect("comes back");
                        };
                        tokio::time::timeout(Duration::from_secs(10), echo)
                            .await
                            .expect("in time");
                    }
                })
            })
            .collect();
        for client in clients {
            client.await.expect("is content");
        }
    });
    cpu_time().saturating_sub(before)
}

/// Sends back what it receives.
struct Echo;

impl Handler for Echo {
    fn accepted(&mut self, io: &mut Io, _listener: Token, socket: Token, _peer: SocketAddr) {
        io.receive(socket);
    }

    fn received(&mut self, io: &mut Io, token: Token, data: &mut [u8]) {
        io.send(token, data);
    }

    fn ended(&mut self, io: &mut Io, token: Token, _result: std::io::Result<()>) {
        io.close(token);
    }
}

/// Echoes on a thread of its own, until the program ends.
fn serve() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        let options = Options {
            backend: Backend::Epoll,
            ..Options::default()
        };
        let mut ring = Ring::new(&options).expect("epoll is always to be had");
        ring.io().listen(listener).expect("a slot");
        loop {
            ring.turn(&mut Echo, None).expect("turns");
        }
    });
    address
}
