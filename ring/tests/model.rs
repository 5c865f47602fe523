//! Random operations on both sides of many connections, compared with what a model allows.
//!
//! Every byte says by its value which connection and place it is from, so that data of one socket
//! that reaches another, is lost, repeated or out of order, is seen at once. Some operations are
//! done within callbacks, where sockets are closed and their slots used again while completions
//! for them are under way.

mod common;

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ballast_ring::{Batch, ConnectOptions, Handler, Io, Options, Ring, Timer, Token};
use common::{DEADLINE, ring};
use proptest::prelude::*;

/// Descriptors are counted, so one at a time.
static ALONE: Mutex<()> = Mutex::new(());

#[derive(Clone, Debug)]
enum Step {
    Open(Opening),
    Do(Operation),
    /// Done in a callback, whichever comes.
    Within(Operation),
    Outside(Outside),
    Arm(u64),
    Disarm(usize),
    Wake,
    Turn,
}

#[derive(Copy, Clone, Debug)]
enum Opening {
    Adopted,
    Connecting,
    Accepted,
}

/// What the ring is asked for, on one of its sockets.
#[derive(Clone, Debug)]
enum Operation {
    Receive(usize),
    Expect(usize),
    Pause(usize),
    Send(usize, usize),
    SendVec(usize, usize),
    Shutdown(usize),
    /// What a callback is lent, if it is lent anything; otherwise a send.
    Forward(usize, usize),
    Close(usize),
    CloseSent(usize),
    Reset(usize),
    Detach(usize),
}

impl Operation {
    fn which(&self) -> usize {
        match *self {
            Operation::Receive(which)
            | Operation::Expect(which)
            | Operation::Pause(which)
            | Operation::Send(which, _)
            | Operation::SendVec(which, _)
            | Operation::Forward(which, _)
            | Operation::Shutdown(which)
            | Operation::Close(which)
            | Operation::CloseSent(which)
            | Operation::Reset(which)
            | Operation::Detach(which) => which,
        }
    }
}

/// What the other side does.
#[derive(Clone, Debug)]
enum Outside {
    Write(usize, usize),
    Read(usize, usize),
    Fin(usize),
    Drop(usize),
    Reset(usize),
}

fn operation() -> impl Strategy<Value = Operation> {
    let which = any::<usize>;
    let size = || prop_oneof![3 => 1..200_usize, 1 => 1..20_000_usize, 1 => 1..1_000_000_usize];
    prop_oneof![
        4 => which().prop_map(Operation::Receive),
        2 => which().prop_map(Operation::Pause),
        2 => which().prop_map(Operation::Expect),
        4 => (which(), size()).prop_map(|(which, bytes)| Operation::Send(which, bytes)),
        2 => (which(), size()).prop_map(|(which, bytes)| Operation::SendVec(which, bytes)),
        4 => (which(), size()).prop_map(|(which, bytes)| Operation::Forward(which, bytes)),
        1 => which().prop_map(Operation::Shutdown),
        1 => which().prop_map(Operation::Close),
        1 => which().prop_map(Operation::CloseSent),
        1 => which().prop_map(Operation::Reset),
        1 => which().prop_map(Operation::Detach),
    ]
}

fn outside() -> impl Strategy<Value = Outside> {
    let which = any::<usize>;
    let size = || prop_oneof![3 => 1..200_usize, 1 => 1..200_000_usize];
    prop_oneof![
        6 => (which(), size()).prop_map(|(which, bytes)| Outside::Write(which, bytes)),
        4 => (which(), size()).prop_map(|(which, bytes)| Outside::Read(which, bytes)),
        1 => which().prop_map(Outside::Fin),
        1 => which().prop_map(Outside::Drop),
        1 => which().prop_map(Outside::Reset),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let opening = prop_oneof![
        Just(Opening::Adopted),
        Just(Opening::Connecting),
        Just(Opening::Accepted),
    ];
    prop_oneof![
        3 => opening.prop_map(Step::Open),
        8 => operation().prop_map(Step::Do),
        4 => operation().prop_map(Step::Within),
        8 => outside().prop_map(Step::Outside),
        1 => (0..3_000_u64).prop_map(Step::Arm),
        1 => any::<usize>().prop_map(Step::Disarm),
        1 => Just(Step::Wake),
        8 => Just(Step::Turn),
    ]
}

/// Returns the byte at a place of what one side of a connection sends.
fn byte(peer: usize, inbound: bool, at: usize) -> u8 {
    let mixed =
        (peer * 2 + usize::from(inbound)).wrapping_mul(0x9E37_79B9) ^ at.wrapping_mul(0x85EB_CA6B);
    (mixed >> 7).to_le_bytes()[0]
}

fn bytes(peer: usize, inbound: bool, from: usize, count: usize) -> Vec<u8> {
    (from..from + count)
        .map(|at| byte(peer, inbound, at))
        .collect()
}

/// A connection, and what is known of it.
struct Peer {
    outside: Option<TcpStream>,
    token: Option<Token>,
    /// By which an accepted one is recognised.
    address: Option<SocketAddr>,
    receiving: bool,
    detaching: bool,
    detached: Option<OwnedFd>,
    /// The FIN of the other side was told.
    ended: bool,
    /// The ring was told to send a FIN.
    shut: bool,
    /// The other side sent a FIN.
    fin: bool,
    /// The ring closes it when all is sent, and tells nothing more.
    farewell: bool,
    /// Bytes may be lost: one side closed or reset.
    broken: bool,
    /// The other side wrote, and the ring received.
    written: usize,
    received: usize,
    /// The ring was given, and the other side read.
    sent: usize,
    read: usize,
}

#[derive(Default)]
struct World {
    peers: Vec<Peer>,
    names: HashMap<Token, usize>,
    /// Operations that callbacks do.
    within: VecDeque<Operation>,
    timers: Vec<(Timer, Instant, bool)>,
    woken: usize,
}

impl World {
    fn add(&mut self, outside: TcpStream, token: Option<Token>) {
        outside.set_nonblocking(true).expect("a socket");
        let address = outside.local_addr().ok();
        if let Some(token) = token {
            assert_eq!(self.names.insert(token, self.peers.len()), None);
        }
        self.peers.push(Peer {
            outside: Some(outside),
            token,
            address,
            receiving: false,
            detaching: false,
            detached: None,
            ended: false,
            shut: false,
            fin: false,
            farewell: false,
            broken: false,
            written: 0,
            received: 0,
            sent: 0,
            read: 0,
        });
    }

    /// Returns who `token` is; every callback is for a socket that was not closed.
    fn known(&self, token: Token) -> usize {
        *self
            .names
            .get(&token)
            .unwrap_or_else(|| panic!("{token:?} is stale"))
    }

    fn gone(&mut self, peer: usize) -> Option<Token> {
        let token = self.peers[peer].token.take()?;
        self.names.remove(&token);
        Some(token)
    }

    fn operate(&mut self, io: &mut Io, operation: &Operation, lent: &mut [u8]) {
        let count = self.peers.len();
        if count == 0 {
            return;
        }
        let number = operation.which() % count;
        let peer = &mut self.peers[number];
        let Some(token) = peer.token else {
            return;
        };
        match *operation {
            Operation::Receive(_) => {
                io.receive(token);
                peer.receiving = true;
            }
            Operation::Expect(_) => io.expect(token, 1 << 20),
            Operation::Pause(_) => {
                io.pause(token);
                peer.receiving = false;
            }
            Operation::Send(_, size) => {
                let data = bytes(number, false, peer.sent, size);
                Self::sent(peer, io.send(token, &data), size);
            }
            Operation::SendVec(_, size) => {
                let data = bytes(number, false, peer.sent, size);
                Self::sent(peer, io.send_vec(token, data), size);
            }
            Operation::Forward(_, size) if lent.is_empty() => {
                let data = bytes(number, false, peer.sent, size);
                Self::sent(peer, io.send(token, &data), size);
            }
            Operation::Forward(_, size) => {
                let size = size.min(lent.len());
                let from = lent.len() - size;
                lent[from..].copy_from_slice(&bytes(number, false, peer.sent, size));
                Self::sent(peer, io.forward(token, from..lent.len()), size);
            }
            Operation::Shutdown(_) => {
                io.shutdown(token);
                peer.shut = true;
            }
            Operation::Detach(_) => {
                io.detach(token);
                peer.detaching = true;
            }
            Operation::Close(_) | Operation::CloseSent(_) | Operation::Reset(_) => {
                self.end(io, operation, number, token);
            }
        }
    }

    /// Ends what the ring has of a connection.
    fn end(&mut self, io: &mut Io, operation: &Operation, number: usize, token: Token) {
        let peer = &mut self.peers[number];
        if matches!(operation, Operation::CloseSent(_)) {
            io.close_sent(token);
            (peer.shut, peer.farewell) = (true, true);
        } else {
            if matches!(operation, Operation::Reset(_)) {
                io.reset(token);
            } else {
                io.close(token);
            }
            peer.broken = true;
            assert_eq!(io.unsent(token), 0);
        }
        self.gone(number);
        assert!(!io.send(token, b"stale"));
    }

    fn sent(peer: &mut Peer, queued: bool, size: usize) {
        if queued {
            peer.sent += size;
        } else {
            assert!(
                peer.shut || peer.detaching || peer.broken,
                "refused without a reason"
            );
        }
    }

    fn act(&mut self, action: &Outside) {
        let count = self.peers.len();
        if count == 0 {
            return;
        }
        let &(Outside::Write(which, _)
        | Outside::Read(which, _)
        | Outside::Fin(which)
        | Outside::Drop(which)
        | Outside::Reset(which)) = action;
        let number = which % count;
        let peer = &mut self.peers[number];
        let Some(stream) = peer.outside.as_mut() else {
            return;
        };
        match *action {
            Outside::Write(_, size) if !peer.fin => {
                let data = bytes(number, true, peer.written, size);
                match stream.write(&data) {
                    Ok(written) => peer.written += written,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => assert!(peer.broken, "{error}"),
                }
            }
            Outside::Write(..) => {}
            Outside::Read(_, size) => peer.read_some(number, size),
            Outside::Fin(_) => {
                peer.fin = true;
                // It fails if the ring has reset the connection.
                let _broken = stream.shutdown(Shutdown::Write);
            }
            Outside::Drop(_) => {
                peer.broken = true;
                peer.outside = None;
            }
            Outside::Reset(_) => {
                peer.broken = true;
                let stream = peer.outside.take().expect("checked above");
                rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO))
                    .expect("a socket");
            }
        }
    }

    fn next_within(&mut self, io: &mut Io) {
        self.next_within_lent(io, &mut []);
    }

    fn next_within_lent(&mut self, io: &mut Io, lent: &mut [u8]) {
        if let Some(operation) = self.within.pop_front() {
            self.operate(io, &operation, lent);
        }
    }
}

impl Peer {
    /// Reads on the other side, at most so many bytes; returns at the end.
    fn read_some(&mut self, number: usize, size: usize) {
        let Some(stream) = self.outside.as_mut() else {
            return;
        };
        let mut data = vec![0; size];
        match stream.read(&mut data) {
            Ok(0) => assert!(
                self.broken || self.shut || self.detached.is_some(),
                "an end out of nowhere"
            ),
            Ok(read) => {
                assert!(
                    data[..read] == bytes(number, false, self.read, read),
                    "peer {number} at {}",
                    self.read
                );
                self.read += read;
                assert!(self.read <= self.sent);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => assert!(self.broken, "{error}"),
        }
    }
}

impl Handler for World {
    fn accepted(&mut self, io: &mut Io, _listener: Token, socket: Token, from: SocketAddr) {
        let number = self
            .peers
            .iter()
            .position(|peer| peer.address == Some(from) && peer.token.is_none());
        // Some other program may look for who had the port before.
        let Some(number) = number else {
            return io.close(socket);
        };
        self.peers[number].token = Some(socket);
        assert_eq!(self.names.insert(socket, number), None);
        self.next_within(io);
    }

    fn accept_failed(&mut self, _io: &mut Io, _listener: Token, error: io::Error) {
        panic!("{error}");
    }

    fn connected(&mut self, io: &mut Io, token: Token, result: io::Result<()>) {
        let number = self.known(token);
        if let Err(error) = result {
            assert!(self.peers[number].broken, "{error}");
            self.gone(number);
        }
        self.next_within(io);
    }

    fn received(&mut self, io: &mut Io, token: Token, data: &mut [u8]) {
        let number = self.known(token);
        let peer = &mut self.peers[number];
        assert!(peer.receiving || peer.detaching, "received while paused");
        assert!(!peer.ended, "received after the end");
        assert!(
            *data == bytes(number, true, peer.received, data.len()),
            "peer {number} at {}",
            peer.received
        );
        peer.received += data.len();
        assert!(peer.received <= peer.written);
        // The buffer is ours for the call.
        data.fill(0xAA);
        self.next_within_lent(io, data);
    }

    fn ended(&mut self, io: &mut Io, token: Token, result: io::Result<()>) {
        let number = self.known(token);
        let peer = &mut self.peers[number];
        match result {
            Ok(()) => {
                assert!(!peer.ended, "ended twice");
                assert!(peer.receiving, "ended while paused");
                assert!(peer.fin || peer.outside.is_none(), "a FIN out of nowhere");
                assert!(
                    peer.received == peer.written || peer.broken,
                    "ended before the last byte"
                );
                peer.ended = true;
                peer.receiving = false;
            }
            Err(error) => {
                assert!(peer.broken, "{error}");
                self.gone(number);
            }
        }
        self.next_within(io);
    }

    fn sent(&mut self, io: &mut Io, token: Token) {
        let number = self.known(token);
        assert!(self.peers[number].sent > 0);
        assert_eq!(io.unsent(token), 0);
        self.next_within(io);
    }

    fn expired(&mut self, io: &mut Io, key: u64) {
        let (_, at, armed) = &mut self.timers[usize::try_from(key).expect("small")];
        assert!(std::mem::take(armed), "fired and not armed");
        assert!(*at <= io.now(), "early");
        self.next_within(io);
    }

    fn woken(&mut self, io: &mut Io) {
        self.woken += 1;
        self.next_within(io);
    }

    fn detached(&mut self, io: &mut Io, token: Token, socket: OwnedFd) {
        let number = self.known(token);
        assert!(self.peers[number].detaching);
        self.gone(number);
        self.peers[number].detached = Some(socket);
        self.next_within(io);
    }
}

struct Test {
    ring: Ring,
    world: World,
    listener: Token,
    inside: SocketAddr,
    outside: TcpListener,
}

impl Test {
    fn new(options: &Options) -> Test {
        let mut ring = ring(options);
        let listener = common::listener();
        let inside = listener.local_addr().expect("bound");
        let listener = ring.io().listen(listener).expect("a slot");
        Test {
            ring,
            world: World::default(),
            listener,
            inside,
            outside: common::listener(),
        }
    }

    fn open(&mut self, opening: Opening) {
        let address = self.outside.local_addr().expect("bound");
        match opening {
            Opening::Adopted => {
                let inside = TcpStream::connect(address).expect("connects");
                let (outside, _) = self.outside.accept().expect("accepts");
                let token = self.ring.io().adopt(OwnedFd::from(inside)).expect("a slot");
                self.world.add(outside, Some(token));
            }
            Opening::Connecting => {
                let options = ConnectOptions::default();
                let token = self.ring.io().connect(address, &options).expect("connects");
                let (outside, _) = self.outside.accept().expect("accepts");
                self.world.add(outside, Some(token));
            }
            Opening::Accepted => {
                let outside = TcpStream::connect(self.inside).expect("connects");
                self.world.add(outside, None);
            }
        }
    }

    fn step(&mut self, number: usize, step: Step) {
        let world = &mut self.world;
        match step {
            Step::Open(opening) => self.open(opening),
            Step::Do(operation) => world.operate(self.ring.io(), &operation, &mut []),
            Step::Within(operation) => world.within.push_back(operation),
            Step::Outside(action) => world.act(&action),
            Step::Arm(micros) => {
                let at = Instant::now() + Duration::from_micros(micros);
                let timer = self.ring.io().arm(at, world.timers.len() as u64);
                world.timers.push((timer, at, true));
            }
            Step::Disarm(which) if !world.timers.is_empty() => {
                let which = which % world.timers.len();
                let (timer, _, armed) = &mut world.timers[which];
                assert_eq!(self.ring.io().disarm(*timer), std::mem::take(armed));
            }
            Step::Disarm(_) => {}
            Step::Wake => {
                let waker = self.ring.waker();
                let before = world.woken;
                // Sometimes from another thread.
                if number.is_multiple_of(2) {
                    std::thread::spawn(move || waker.wake())
                        .join()
                        .expect("wakes");
                } else {
                    waker.wake();
                }
                let deadline = Instant::now() + DEADLINE;
                while self.world.woken == before {
                    assert!(Instant::now() < deadline, "not woken");
                    self.turn(deadline);
                }
            }
            Step::Turn => self.turn(Instant::now()),
        }
    }

    fn turn(&mut self, until: Instant) {
        self.ring.turn(&mut self.world, Some(until)).expect("turns");
    }

    /// Lets everything come to its end, and checks that nothing is missing.
    fn finish(mut self) {
        self.world.within.clear();
        for peer in &mut self.world.peers {
            if let Some(token) = peer.token {
                self.ring.io().receive(token);
                peer.receiving = true;
            }
            if let Some(stream) = &peer.outside {
                peer.fin = true;
                let _broken = stream.shutdown(Shutdown::Write);
            }
        }
        let deadline = Instant::now() + DEADLINE;
        while !self.settled() {
            assert!(Instant::now() < deadline, "does not come to an end");
            self.turn(Instant::now() + Duration::from_millis(1));
            for (number, peer) in self.world.peers.iter_mut().enumerate() {
                // Those whose connection was accepted meanwhile, too.
                if let Some(token) = peer.token.filter(|_| !peer.receiving && !peer.ended) {
                    self.ring.io().receive(token);
                    peer.receiving = true;
                }
                peer.read_some(number, 1 << 20);
            }
        }
        for (number, peer) in self.world.peers.iter_mut().enumerate() {
            peer.rest_of_the_detached(number);
            if !peer.broken {
                assert!(
                    peer.received == peer.written || peer.farewell,
                    "peer {number}"
                );
                assert_eq!(peer.read, peer.sent, "peer {number}");
            }
            if let Some(token) = peer.token.take() {
                self.world.names.remove(&token);
                self.ring.io().close(token);
            }
        }
        self.ring.io().close(self.listener);
        // Those that close behind the scenes have sent all, and their peers have ended.
        while self.ring.io().sockets() > 0 && Instant::now() < deadline {
            self.turn(Instant::now() + Duration::from_millis(1));
        }
        assert_eq!(self.ring.io().sockets(), 0);
    }

    fn settled(&mut self) -> bool {
        let io = self.ring.io();
        self.world.peers.iter().all(|peer| {
            let told = match peer.token {
                Some(token) => peer.ended && !peer.detaching && io.unsent(token) == 0,
                // Not accepted yet?
                None => peer.broken || peer.farewell || peer.detached.is_some(),
            };
            told && (peer.broken || peer.read == peer.sent)
        }) && self.world.timers.iter().all(|(_, _, armed)| !armed)
    }
}

impl Peer {
    /// Reads what the ring had not taken when it gave the descriptor back.
    fn rest_of_the_detached(&mut self, number: usize) {
        let Some(socket) = self.detached.take().filter(|_| !self.broken) else {
            return;
        };
        let mut stream = TcpStream::from(socket);
        stream.set_nonblocking(false).expect("a socket");
        stream.set_read_timeout(Some(DEADLINE)).expect("a socket");
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).expect("ends with a FIN");
        assert!(
            rest == bytes(number, true, self.received, rest.len()),
            "peer {number}"
        );
        self.received += rest.len();
        if self.shut {
            return;
        }
        stream.write_all(b"usable").expect("the descriptor works");
        let outside = self.outside.as_mut().expect("not broken");
        outside.set_nonblocking(false).expect("a socket");
        outside.set_read_timeout(Some(DEADLINE)).expect("a socket");
        let mut usable = [0; 6];
        outside.read_exact(&mut usable).expect("arrives");
        assert_eq!(&usable, b"usable");
    }
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("procfs").count()
}

fn run(options: &Options, steps: Vec<Step>) {
    let before = descriptors();
    let mut test = Test::new(options);
    for (number, step) in steps.into_iter().enumerate() {
        test.step(number, step);
    }
    test.finish();
    // Another test may just be trying out whether it can have a ring.
    let deadline = Instant::now() + DEADLINE;
    while descriptors() > before {
        assert!(Instant::now() < deadline, "every descriptor is closed");
        std::thread::yield_now();
    }
}

fn random(options: &Options) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    // It stays open, and is not to be counted.
    drop(File::open("/dev/null"));
    let usual = ProptestConfig::default();
    let config = ProptestConfig {
        // Each opens dozens of sockets; `PROPTEST_CASES` asks for more.
        cases: usual.cases / 4,
        failure_persistence: None,
        ..usual
    };
    let steps = prop::collection::vec(step(), 1..120);
    proptest!(config, |(steps in steps)| run(options, steps));
}

on_both! {
    fn prop_random_operations_lose_mix_and_leak_nothing(options) {
        random(&options);
    }

    fn prop_the_same_while_waiting_for_company(options) {
        let batch = Batch { completions: 8, wait: Duration::from_micros(100) };
        random(&Options { batch: Some(batch), ..options });
    }

    fn prop_the_same_with_rings_and_buffers_that_are_too_small(options) {
        random(&Options { entries: 2, buffers: 2, buffer_bytes: 512, large_buffers: 0, ..options });
    }

    fn prop_the_same_with_few_large_buffers(options) {
        random(&Options { buffers: 8, buffer_bytes: 512, large_buffers: 2, ..options });
    }
}
