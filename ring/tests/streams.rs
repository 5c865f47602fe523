//! Connections: bytes both ways, their ends, and what back-pressure does.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::mpsc::TryRecvError;
use std::time::Duration;

use ballast_ring::{Handler, Io, Ring, Token};
use common::{Event, Log, connect, idle, listener, pair, ring, until};

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

    fn rst_of_the_peer_breaks_and_closes(options) {
        let mut ring = ring(&options);
        let mut log = Log::default();
        let (token, outside) = pair(&mut ring);
        ring.io().receive(token);
        rustix::net::sockopt::set_socket_linger(&outside, Some(Duration::ZERO)).expect("a socket");
        drop(outside);
        until(&mut ring, &mut log, |_, log| log.end(token).is_some());
        assert_eq!(log.end(token), Some(Err(ErrorKind::ConnectionReset)));
        assert_eq!(ring.io().sockets(), 0);
    }

    fn reset_is_a_rst_and_close_is_a_fin(options) {
        let mut ring = ring(&options);
        let mut log = Log::default();
        for receiving in [false, true] {
            let (token, mut outside) = pair(&mut ring);
            if receiving {
                ring.io().receive(token);
                idle(&mut ring, &mut log);
            }
            ring.io().reset(token);
            idle(&mut ring, &mut log);
            let error = outside.read(&mut [0; 1]).expect_err("is reset");
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);

            let (token, mut outside) = pair(&mut ring);
            if receiving {
                ring.io().receive(token);
                idle(&mut ring, &mut log);
            }
            ring.io().close(token);
            idle(&mut ring, &mut log);
            assert_eq!(outside.read(&mut [0; 1]).expect("ends"), 0);
        }
        assert!(log.events.is_empty(), "{:?}", log.events);
    }

    fn answer_before_a_rst_is_received_though_sending_failed(options) {
        let mut ring = ring(&options);
        let mut log = Log::default();
        let (token, mut outside) = pair(&mut ring);
        // Bytes that the other side never reads make its close a RST.
        assert!(ring.io().send(token, b"a body that nobody wants"));
        until(&mut ring, &mut log, |_, log| log.count(|e| matches!(e, Event::Sent(_))) == 1);
        outside.peek(&mut [0; 1]).expect("has arrived");
        outside.write_all(b"413").expect("sends");
        drop(outside);
        assert!(ring.io().send(token, b"more of the body"));
        ring.io().receive(token);
        until(&mut ring, &mut log, |_, log| log.end(token).is_some());
        assert!(log.end(token).is_some_and(|end| end.is_err()));
        assert_eq!(log.bytes(token), b"413");
    }

    fn slow_reader_holds_the_queue_up_and_loses_nothing(options) {
        let mut ring = ring(&options);
        let mut log = Log::default();
        let (token, mut outside) = pair(&mut ring);
        let message: Vec<u8> = (0..=250).cycle().take(32 << 20).collect();
        for piece in message.chunks(1 << 20) {
            assert!(ring.io().send(token, piece));
        }
        idle(&mut ring, &mut log);
        assert!(ring.io().unsent(token) > 1 << 20, "loopback does not take so much");
        assert_eq!(log.count(|event| matches!(event, Event::Sent(_))), 0);
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            outside.read_to_end(&mut all).expect("ends with a FIN");
            all
        });
        ring.io().shutdown(token);
        until(&mut ring, &mut log, |_, log| log.count(|e| matches!(e, Event::Sent(_))) == 1);
        assert_eq!(ring.io().unsent(token), 0);
        // The FIN goes out with the last byte.
        assert!(reader.join().expect("reads") == message);
    }

    fn paused_socket_receives_nothing_and_holds_the_peer_up(options) {
        let mut ring = ring(&options);
        let mut log = Log::default();
        let (token, mut outside) = pair(&mut ring);
        outside.set_nonblocking(true).expect("a socket");
        let mut written = 0;
        let data = vec![7; 64 << 10];
        loop {
            match outside.write(&data) {
                Ok(bytes) => written += bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
            idle(&mut ring, &mut log);
        }
        outside.shutdown(std::net::Shutdown::Write).expect("a socket");
        idle(&mut ring, &mut log);
        assert!(log.events.is_empty(), "{:?}", log.events);
        ring.io().receive(token);
        until(&mut ring, &mut log, |_, log| log.end(token).is_some());
        assert_eq!(log.bytes(token).len(), written);
    }

    fn much_comes_in_large_pieces_when_it_is_expected_or_usual(options) {
        for hint in [true, false] {
            let mut ring = ring(&options);
            let mut log = Log::default();
            let (token, mut outside) = pair(&mut ring);
            ring.io().receive(token);
            idle(&mut ring, &mut log);
            if hint {
                ring.io().expect(token, 1 << 20);
                idle(&mut ring, &mut log);
            }
            let mut written = 0;
            // Without a hint the first ones come in small pieces.
            until(&mut ring, &mut log, |_, log| {
                if log.bytes(token).len() == written {
                    outside.write_all(&vec![7; 60_000]).expect("there is room");
                    written += 60_000;
                }
                log.count(|event| matches!(event, Event::Received(_, data) if data.len() > 20_000)) > 0
            });
            if hint {
                assert!(!log.events.iter().any(|event| matches!(event, Event::Received(_, data) if data.len() == 4096)));
            }
            // And small ones are received as ever.
            for size in 1..50 {
                until(&mut ring, &mut log, |_, log| log.bytes(token).len() == written);
                outside.write_all(&vec![7; size]).expect("there is room");
                written += size;
            }
            until(&mut ring, &mut log, |_, log| log.bytes(token).len() == written);
        }
    }

    fn pause_within_a_callback_is_the_last_callback(options) {
        /// Pauses at the first byte.
        #[derive(Default)]
        struct Once(Vec<u8>);
        impl Handler for Once {
            fn received(&mut self, io: &mut Io, token: Token, data: &mut [u8]) {
                self.0.extend_from_slice(data);
                io.pause(token);
            }
        }
        let mut ring = ring(&ballast_ring::Options { buffer_bytes: 16, ..options });
        let (token, mut outside) = pair(&mut ring);
        let data: Vec<u8> = (0..200).collect();
        outside.write_all(&data).expect("sends");
        let mut once = Once::default();
        let mut last = 0;
        while last < data.len() {
            ring.io().receive(token);
            until(&mut ring, &mut once, |_, once| once.0.len() > last);
            last = once.0.len();
            idle(&mut ring, &mut once);
            assert_eq!(once.0.len(), last, "paused");
        }
        assert_eq!(once.0, data);
    }

    fn thousand_connections_echo(options) {
        let mut ring = ring(&options);
        let echo = echoing(&mut ring, |address| {
            let mut streams: Vec<_> = (0..1000)
                .map(|_| {
                    let stream = std::net::TcpStream::connect(address).expect("connects");
                    stream.set_read_timeout(Some(common::DEADLINE)).expect("a socket");
                    stream
                })
                .collect();
            for round in 0..5_u32 {
                for (number, stream) in (0_u32..).zip(&mut streams) {
                    let message = (round * 1000 + number).to_be_bytes();
                    stream.write_all(&message).expect("sends");
                }
                for (number, stream) in (0_u32..).zip(&mut streams) {
                    let mut back = [0; 4];
                    stream.read_exact(&mut back).expect("comes back");
                    assert_eq!(u32::from_be_bytes(back), round * 1000 + number);
                }
            }
        });
        assert_eq!(echo.served, 1000);
    }

    fn tiny_rings_and_buffers_echo_all_the_same(options) {
        // Submissions and completions overflow, and buffers are exhausted all the time.
        let options = ballast_ring::Options {
            entries: 1,
            buffers: 1,
            buffer_bytes: 64,
            large_buffers: 0,
            ..options
        };
        let mut ring = ring(&options);
        let echo = echoing(&mut ring, |address| {
            let mut streams: Vec<_> = (0..30)
                .map(|_| std::net::TcpStream::connect(address).expect("connects"))
                .collect();
            let message: Vec<u8> = (0..=250).cycle().take(4_000).collect();
            for stream in &mut streams {
                stream.set_read_timeout(Some(common::DEADLINE)).expect("a socket");
                stream.write_all(&message).expect("sends");
            }
            for stream in &mut streams {
                let mut back = vec![0; message.len()];
                stream.read_exact(&mut back).expect("comes back");
                assert!(back == message);
            }
        });
        assert_eq!(echo.served, 30);
    }
}
