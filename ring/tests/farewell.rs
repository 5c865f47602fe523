//! Closing once everything is sent.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use ballast_ring::Ring;
use common::{DEADLINE, Event, Log, idle, listener, pair, ring, until};

/// More than the kernel takes of a connection that nobody reads.
const MUCH: usize = 32 << 20;

fn much() -> Vec<u8> {
    (0..=250).cycle().take(MUCH).collect()
}

fn read_all(mut stream: TcpStream) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).expect("ends with a FIN");
        all
    })
}

/// Waits until every socket is gone, of which nothing is told.
fn gone(ring: &mut Ring, log: &mut Log) {
    let deadline = Instant::now() + DEADLINE;
    while ring.io().sockets() > 0 {
        let now = Instant::now();
        assert!(now < deadline, "not within the deadline");
        let soon = now + Duration::from_millis(5);
        ring.turn(log, Some(soon)).expect("turns");
    }
}

on_both! {
    fn close_sent_delivers_the_last_byte_and_tells_nothing(options) {
        let mut ring = ring(&options);
        let mut log = Log::default();
        let (token, outside) = pair(&mut ring);
        ring.io().receive(token);
        let message = much();
        assert!(ring.io().send(token, &message));
        ring.io().close_sent(token);
        assert!(!ring.io().send(token, b"after the end"));
        idle(&mut ring, &mut log);
        assert!(ring.io().unsent(token) > 0, "nobody reads");
        let reader = read_all(outside);
        gone(&mut ring, &mut log);
        assert!(reader.join().expect("reads") == message);
        assert!(log.events.is_empty(), "{:?}", log.events);
    }

    fn close_sent_loses_nothing_to_a_peer_that_is_still_sending(options) {
        // A close with bytes unread would be a RST, which destroys what the peer has not read.
        let mut ring = ring(&options);
        let mut log = Log::default();
        let (token, mut outside) = pair(&mut ring);
        outside.write_all(&vec![7; 100_000]).expect("there is room");
        assert!(ring.io().send(token, b"413"));
        ring.io().close_sent(token);
        idle(&mut ring, &mut log);
        outside.write_all(&vec![8; 100_000]).expect("is read and forgotten");
        outside.shutdown(Shutdown::Write).expect("a socket");
        let mut all = Vec::new();
        outside.read_to_end(&mut all).expect("ends with a FIN");
        assert_eq!(all, b"413");
        gone(&mut ring, &mut log);
        assert!(log.events.is_empty(), "{:?}", log.events);
    }

    fn close_sent_waits_for_the_fin_of_the_peer_and_not_for_ever(options) {
        let mut ring = ring(&options);
        let mut log = Log::default();
        let (token, mut outside) = pair(&mut ring);
        ring.io().close_sent(token);
        idle(&mut ring, &mut log);
        assert_eq!(outside.read(&mut [0; 1]).expect("ends"), 0);
        idle(&mut ring, &mut log);
        assert_eq!(ring.io().sockets(), 1, "the peer may still send");
        let before = Instant::now();
        gone(&mut ring, &mut log);
        assert!(before.elapsed().as_secs() >= 1);
        assert!(log.events.is_empty(), "{:?}", log.events);
    }

    fn close_sent_closes_at_once_what_has_ended(options) {
        let mut ring = ring(&options);
        let mut log = Log::default();
        let (token, mut outside) = pair(&mut ring);
        ring.io().receive(token);
        outside.shutdown(Shutdown::Write).expect("a socket");
        until(&mut ring, &mut log, |_, log| log.end(token) == Some(Ok(())));
        assert!(ring.io().send(token, b"answer"));
        ring.io().close_sent(token);
        let before = Instant::now();
        gone(&mut ring, &mut log);
        assert!(before.elapsed() < Duration::from_millis(1900), "no wait for a second FIN");
        let mut all = Vec::new();
        outside.read_to_end(&mut all).expect("ends with a FIN");
        assert_eq!(all, b"answer");
    }

    fn close_sent_gives_up_a_broken_connection_silently(options) {
        let mut ring = ring(&options);
        let mut log = Log::default();
        let (token, outside) = pair(&mut ring);
        assert!(ring.io().send(token, &much()));
        ring.io().close_sent(token);
        idle(&mut ring, &mut log);
        rustix::net::sockopt::set_socket_linger(&outside, Some(Duration::ZERO))
            .expect("a socket");
        drop(outside);
        gone(&mut ring, &mut log);
        assert!(log.events.is_empty(), "{:?}", log.events);
    }

    fn close_hastens_a_close_sent(options) {
        let mut ring = ring(&options);
        let mut log = Log::default();
        let (token, mut outside) = pair(&mut ring);
        assert!(ring.io().send(token, &much()));
        ring.io().close_sent(token);
        ring.io().receive(token);
        ring.io().detach(token);
        idle(&mut ring, &mut log);
        ring.io().reset(token);
        assert_eq!(ring.io().sockets(), 0);
        idle(&mut ring, &mut log);
        let error = outside.read_to_end(&mut Vec::new()).expect_err("is reset");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert!(log.events.is_empty(), "{:?}", log.events);
    }

    fn close_sent_while_connecting_sends_first(options) {
        let mut ring = ring(&options);
        let mut log = Log::default();
        let listener = listener();
        let token = common::connect(&mut ring, listener.local_addr().expect("bound"));
        assert!(ring.io().send(token, b"last words"));
        ring.io().close_sent(token);
        let (outside, _) = listener.accept().expect("accepts");
        let reader = read_all(outside);
        gone(&mut ring, &mut log);
        assert_eq!(reader.join().expect("reads"), b"last words");
        assert!(log.events.is_empty(), "{:?}", log.events);
    }

    fn close_sent_of_datagrams_sends_them(options) {
        let mut ring = ring(&options);
        let mut log = Log::default();
        let (inside, outside) = std::os::unix::net::UnixDatagram::pair().expect("a pair");
        let token = ring.io().adopt(OwnedFd::from(inside)).expect("a slot");
        assert!(ring.io().send(token, b"one"));
        assert!(ring.io().send(token, b"two"));
        ring.io().close_sent(token);
        gone(&mut ring, &mut log);
        let mut data = [0; 9];
        assert_eq!(outside.recv(&mut data).expect("is there"), 3);
        assert_eq!(&data[..3], b"one");
        assert_eq!(outside.recv(&mut data).expect("is there"), 3);
        assert_eq!(&data[..3], b"two");
    }

    fn listeners_of_one_address_share_its_connections(options) {
        let any = (std::net::Ipv4Addr::LOCALHOST, 0).into();
        let first = ballast_ring::listen_reuseport(any, 64).expect("a port");
        let address = first.local_addr().expect("bound");
        let second = ballast_ring::listen_reuseport(address, 64).expect("shares the port");
        let mut ring = ring(&options);
        let mut log = Log::default();
        let listeners = [first, second].map(|listener| ring.io().listen(listener).expect("a slot"));
        // The chance that all of them come to one of the two is 2^-99.
        let clients: Vec<TcpStream> =
            (0..100).map(|_| TcpStream::connect(address).expect("connects")).collect();
        until(&mut ring, &mut log, |_, log| log.connections().len() == clients.len());
        for listener in listeners {
            let accepted = |event: &Event| matches!(event, Event::Accepted(by, ..) if *by == listener);
            assert!(log.count(accepted) > 0);
        }
    }
}
