//! Flows that live through changes.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::world::{DEADLINE, World, wait};

/// Connections that are opened at once.
const OPENING: usize = 64;

/// What the client is told to do.
enum Order {
    /// Open so many flows more.
    Open(usize),
    /// Send something on every n-th flow, from the k-th on, and see it come back.
    Check { every: usize, from: usize },
    /// See which flows are reset though nothing is sent on them.
    AwaitResets(usize),
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Flows on which all was well.
    pub well: usize,
    /// Flows that are gone, with why.
    pub broken: Vec<String>,
}

/// A client that keeps flows open.
pub struct Flows {
    orders: mpsc::Sender<Order>,
    outcomes: mpsc::Receiver<Outcome>,
    thread: Option<JoinHandle<()>>,
}

impl Flows {
    pub fn new(world: &World) -> Self {
        let (orders, to_do) = mpsc::channel();
        let (done, outcomes) = mpsc::channel();
        let service = world.service();
        let thread = world
            .rig
            .within("c", move || client(service, &to_do, &done));
        Self {
            orders,
            outcomes,
            thread: Some(thread),
        }
    }

    fn ask(&self, order: Order) -> Outcome {
        self.orders.send(order).expect("the client lives");
        let outcome = self.outcomes.recv_timeout(DEADLINE * 6);
        outcome.expect("the client answers")
    }

    /// Opens flows; each has been answered once.
    pub fn open(&self, count: usize) {
        let outcome = self.ask(Order::Open(count));
        assert_eq!(outcome.broken, Vec::<String>::new());
    }

    /// Returns what becomes of bytes on every n-th flow.
    pub fn check(&self, every: usize, from: usize) -> Outcome {
        self.ask(Order::Check { every, from })
    }

    /// Waits until so many flows are reset, none of which sends anything.
    pub fn await_resets(&self, count: usize) -> Outcome {
        self.ask(Order::AwaitResets(count))
    }
}

impl Drop for Flows {
    fn drop(&mut self) {
        let (nothing, _) = mpsc::channel();
        self.orders = nothing;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn client(service: SocketAddr, orders: &mpsc::Receiver<Order>, done: &mpsc::Sender<Outcome>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let mut flows: Vec<TcpStream> = Vec::new();
    while let Ok(order) = orders.recv() {
        let outcome = runtime.block_on(async {
            match order {
                Order::Open(count) => open(service, count, &mut flows).await,
                Order::Check { every, from } => check(every, from, &mut flows).await,
                Order::AwaitResets(count) => await_resets(count, &mut flows).await,
            }
        });
        if done.send(outcome).is_err() {
            return;
        }
    }
}

async fn open(service: SocketAddr, count: usize, flows: &mut Vec<TcpStream>) -> Outcome {
    let mut outcome = Outcome::default();
    let mut left = count;
    while left > 0 {
        let mut opening = tokio::task::JoinSet::new();
        for _ in 0..OPENING.min(left) {
            opening.spawn(async move {
                let connect = tokio::time::timeout(DEADLINE, TcpStream::connect(service));
                let mut flow = connect.await.map_err(std::io::Error::from)??;
                echo(&mut flow, 0).await?;
                Ok::<_, std::io::Error>(flow)
            });
        }
        left -= OPENING.min(left);
        while let Some(opened) = opening.join_next().await {
            match opened.expect("no panic") {
                Ok(flow) => flows.push(flow),
                Err(error) => outcome.broken.push(error.to_string()),
            }
        }
    }
    outcome.well = flows.len();
    outcome
}

async fn echo(flow: &mut TcpStream, number: usize) -> std::io::Result<()> {
    let sent = format!("flow {number:10}");
    flow.write_all(sent.as_bytes()).await?;
    let mut back = vec![0; sent.len()];
    let read = tokio::time::timeout(DEADLINE / 4, flow.read_exact(&mut back)).await;
    read.map_err(std::io::Error::from)??;
    if back != sent.as_bytes() {
        return Err(std::io::Error::other("other bytes came back"));
    }
    Ok(())
}

async fn check(every: usize, from: usize, flows: &mut Vec<TcpStream>) -> Outcome {
    let mut outcome = Outcome::default();
    let mut gone = Vec::new();
    for (number, flow) in flows.iter_mut().enumerate() {
        if number % every != from % every {
            continue;
        }
        match echo(flow, number).await {
            Ok(()) => outcome.well += 1,
            Err(error) => {
                outcome.broken.push(format!("{:?} ({error})", error.kind()));
                gone.push(number);
            }
        }
    }
    for number in gone.into_iter().rev() {
        flows.swap_remove(number);
    }
    outcome
}

async fn await_resets(count: usize, flows: &mut Vec<TcpStream>) -> Outcome {
    let mut outcome = Outcome::default();
    let until = tokio::time::Instant::now() + DEADLINE;
    while outcome.broken.len() < count && tokio::time::Instant::now() < until {
        let mut alive = Vec::new();
        for flow in flows.drain(..) {
            match flow.try_read(&mut [0; 16]) {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => alive.push(flow),
                Err(error) => outcome.broken.push(format!("{:?}", error.kind())),
                Ok(read) => outcome.broken.push(format!("{read} bytes")),
            }
        }
        *flows = alive;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    outcome.well = flows.len();
    outcome
}

/// Ten thousand flows, a hundred changes of every kind, none broken.
pub fn no_change_breaks_a_flow() {
    /// As many, or what the limit of open files allows.
    const FLOWS: usize = 10_000;
    const CHANGES: usize = 100;
    /// Every how-manyth flow is looked at after a change.
    const SAMPLE: usize = 50;
    let world = World::new(true, &["r1", "r2", "r3", "r4"]);
    let flows_max = FLOWS.min(crate::rig::flows_max()) / SAMPLE * SAMPLE;
    let file = |reals: &[&str]| world.config("dsr", "tcp", reals, "");
    let mut balancer = world.balancer("lb", &file(&["r1", "r2", "r3"]));
    world.wait_active("lb", 3);
    let flows = Flows::new(&world);
    flows.open(flows_max);
    for change in 0..CHANGES {
        match change % 5 {
            // Added.
            0 => {
                world.write("lb", &balancer.file, &file(&["r1", "r2", "r3", "r4"]));
                world.wait_active("lb", 4);
            }
            // Weighted anew.
            1 => {
                let heavy = format!("r4={}", change + 2);
                world.write("lb", &balancer.file, &file(&["r1=3", "r2", "r3=7", &heavy]));
            }
            // Drained.
            2 => {
                world.write("lb", &balancer.file, &file(&["r1", "r2", "r4"]));
                world.wait_active("lb", 3);
            }
            // Killed and started again: its maps are all it has left.
            3 => {
                let config = std::fs::read_to_string(&balancer.file).expect("it is there");
                balancer.stop(false);
                balancer = world.balancer("lb", &config);
            }
            // Ended and started again, as for another version: its program is replaced.
            _ => {
                balancer.stop(true);
                balancer = world.balancer("lb", &file(&["r1", "r2", "r3"]));
                world.wait_active("lb", 3);
            }
        }
        let outcome = flows.check(SAMPLE, change);
        assert_eq!(
            outcome.broken,
            Vec::<String>::new(),
            "after change {change}"
        );
        assert_eq!(outcome.well, flows_max / SAMPLE);
    }
    let outcome = flows.check(1, 0);
    assert_eq!(outcome.broken, Vec::<String>::new());
    assert_eq!(outcome.well, flows_max);
    balancer.stop(true);
}

/// A real is cut off: its flows are reset, also those that wait silently, and no others.
pub fn flows_of_a_killed_real_are_reset_and_no_others(v4: bool) {
    const FLOWS: usize = 300;
    let world = World::new(v4, &["r1", "r2", "r3"]);
    let balancer = world.balancer("lb", &world.config("dsr", "tcp", &["r1", "r2", "r3"], ""));
    world.wait_active("lb", 3);
    let flows = Flows::new(&world);
    flows.open(FLOWS);
    world.rig.ip("r2", &["link", "set", "eth0", "down"]);
    world.wait_active("lb", 2);
    // A third of them, more or less: the rest must not be among those that are reset.
    let few = FLOWS / 6;
    let outcome = flows.await_resets(few);
    assert!(outcome.broken.len() >= few, "{outcome:?}");
    wait("all are reset", || {
        let outcome = flows.check(1, 0);
        assert!(
            outcome.broken.iter().all(|why| why.contains("Reset")),
            "{outcome:?}"
        );
        outcome.broken.is_empty()
    });
    let left = flows.check(1, 0).well;
    assert!(left > FLOWS / 3 && left < FLOWS * 5 / 6, "{left} are left");
    assert_eq!(world.names_seen(30), ["r1", "r3"]);
    balancer.stop(true);
}
