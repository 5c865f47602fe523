//! Connections: bytes both ways, their ends, and what back-pressure does.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::mpsc::TryRecvError;

use ballast_ring::{Handler, Io, Ring, Token};
use common::{Event, Log, connect, listener, pair, ring, until};

/// Sends back what it receives.
#[derive(Default)]
struct Echo {
    served: usize,
    closed: usize,
}

impl Handler for Echo {
    fn accepted(&mut self, io: &mut Io, _listener: Token, socket: Token, _peer: SocketAddr) {
        self.served += 1;
        io.receive(socket);
    }

    fn received(&mut self, io: &mut Io, token: Token, data: &mut [u8]) {
        assert!(io.send(token, data));
    }

    fn ended(&mut self, io: &mut Io, token: Token, result: std::io::Result<()>) {
        assert!(result.is_ok(), "{result:?}");
        self.closed += 1;
        io.close(token);
    }
}

/// Runs `client` on a thread of its own while the ring echoes, until it is done.
fn echoing(ring: &mut Ring, client: impl FnOnce(SocketAddr) + Send + 'static) -> Echo {
    let listener = listener();
    let address = listener.local_addr().expect("bound");
    let token = ring.io().listen(listener).expect("a slot");
    let waker = ring.waker();
    let (done, is_done) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        // Dropped when the client panics, too.
        let done: std::sync::mpsc::Sender<()> = done;
        client(address);
        drop(done);
        waker.wake();
    });
    let mut echo = Echo::default();
    until(ring, &mut echo, |_, _| {
        is_done.try_recv() == Err(TryRecvError::Disconnected)
    });
    thread.join().expect("the client is content");
    until(ring, &mut echo, |io, echo| {
        echo.closed == echo.served && io.sockets() == 1
    });
    ring.io().close(token);
    echo
}

on_both! {
    fn echo_returns_messages_of_every_size(options) {
        let mut ring = ring(&options);
        let echo = echoing(&mut ring, |address| {
            let mut stream = std::net::TcpStream::connect(address).expect("connects");
            stream.set_read_timeout(Some(common::DEADLINE)).expect("a socket");
            for size in [1, 2, 100, 4095, 4096, 4097, 65_535, 65_536, 100_000, 1_000_000] {
                let message: Vec<u8> = (0..=250).cycle().take(size).collect();
                let mut writer = stream.try_clone().expect("a descriptor");
                let copy = message.clone();
                let thread = std::thread::spawn(move || writer.write_all(&copy));
                let mut back = vec![0; size];
                stream.read_exact(&mut back).expect("comes back");
                assert!(back == message, "{size}");
                thread.join().expect("no panic").expect("is sent");
            }
        });
        assert_eq!(echo.served, 1);
        assert_eq!(ring.io().sockets(), 0);
    }

    fn connects_to_a_listener_of_its_own(options) {
        let mut ring = ring(&options);
        let mut log = Log::default();
        let listener = listener();
        let address = listener.local_addr().expect("bound");
        let _listener = ring.io().listen(listener).expect("a slot");
        let client = connect(&mut ring, address);
        assert!(ring.io().send(client, b"before it is connected"));
        until(&mut ring, &mut log, |_, log| {
            log.connections().first().is_some_and(|&server| log.bytes(server) == b"before it is connected")
        });
        assert_eq!(log.connection(client), Some(Ok(())));
        let server = log.connections()[0];
        assert!(ring.io().send_vec(server, b"back".to_vec()));
        until(&mut ring, &mut log, |_, log| log.bytes(client) == b"back");
    }

    fn refused_connection_is_told_once_and_closed(options) {
        let mut ring = ring(&options);
        let mut log = Log::default();
        let address = listener().local_addr().expect("bound");
        let token = connect(&mut ring, address);
        until(&mut ring, &mut log, |_, log| log.connection(token).is_some());
        assert_eq!(log.connection(token), Some(Err(ErrorKind::ConnectionRefused)));
        assert_eq!(ring.io().sockets(), 0);
        assert!(!ring.io().send(token, b"too late"));
    }

    fn fin_of_the_peer_ends_receiving_and_leaves_sending(options) {
        let mut ring = ring(&options);
        let mut log = Log::default();
        let (token, mut outside) = pair(&mut ring);
        ring.io().receive(token);
        outside.write_all(b"last words").expect("sends");
        outside.shutdown(std::net::Shutdown::Write).expect("sends a FIN");
        until(&mut ring, &mut log, |_, log| log.end(token).is_some());
        assert_eq!(log.end(token), Some(Ok(())));
        assert_eq!(log.bytes(token), b"last words");
        assert!(ring.io().send(token, b"answer"));
        ring.io().shutdown(token);
        assert!(!ring.io().send(token, b"after the FIN"));
        until(&mut ring, &mut log, |_, log| log.count(|e| matches!(e, Event::Sent(_))) == 1);
        let mut answer = Vec::new();
        outside.read_to_end(&mut answer).expect("ends with a FIN");
        assert_eq!(answer, b"answer");
        ring.io().close(token);
        assert_eq!(ring.io().sockets(), 0);
    }
}
