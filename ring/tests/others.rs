//! What is not a stream of bytes: datagrams, timers, wakes, listeners, slots, and closing while
//! something is under way.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use ballast_ring::{Batch, ConnectOptions, Handler, Io, IoError, Options, Ring, RingError, Token};
use common::{DEADLINE, Event, Log, connect, idle, listener, pair, ring, until};

fn datagrams(ring: &mut Ring) -> (Token, UdpSocket) {
    let inside = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let outside = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    inside
        .connect(outside.local_addr().expect("bound"))
        .expect("connects");
    outside
        .connect(inside.local_addr().expect("bound"))
        .expect("connects");
    outside.set_read_timeout(Some(DEADLINE)).expect("a socket");
    let token = ring.io().adopt(OwnedFd::from(inside)).expect("a slot");
    (token, outside)
}

/// Returns a listener whose queue is full, so that to connect to it takes for ever, and what fills
/// it.
fn deaf() -> (std::net::TcpListener, Vec<TcpStream>) {
    let listener = listener();
    rustix::net::listen(&listener, 0).expect("listens already");
    let address = listener.local_addr().expect("bound");
    let mut queued = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        queued.push(stream);
    }
    (listener, queued)
}

on_both! {
    fn datagrams_keep_their_bounds_and_may_be_empty(options) {
        let mut ring = ring(&options);
        let mut log = Log::default();
        let (token, outside) = datagrams(&mut ring);
        ring.io().receive(token);
        let sizes = [5, 0, 1, 0, 0, 1400, 3];
        for size in sizes {
            outside.send(&vec![7; size]).expect("sends");
        }
        until(&mut ring, &mut log, |_, log| log.events.len() == sizes.len());
        let received: Vec<usize> = log
            .events
            .iter()
            .map(|event| match event {
                Event::Received(_, data) => data.len(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(received, sizes);
        for size in sizes {
            assert!(ring.io().send(token, &vec![9; size]));
        }
        until(&mut ring, &mut log, |io, _| io.unsent(token) == 0);
        for size in sizes {
            assert_eq!(outside.recv(&mut [0; 2000]).expect("arrives"), size);
        }
    }

    fn paused_datagrams_wait(options) {
        let mut ring = ring(&options);
        let mut log = Log::default();
        let (token, outside) = datagrams(&mut ring);
        ring.io().receive(token);
        idle(&mut ring, &mut log);
        ring.io().pause(token);
        for text in ["a", "", "c"] {
            outside.send(text.as_bytes()).expect("sends");
        }
        idle(&mut ring, &mut log);
        assert!(log.events.is_empty());
        ring.io().receive(token);
        until(&mut ring, &mut log, |_, log| log.events.len() == 3);
        assert_eq!(log.bytes(token), b"ac");
    }

    fn refused_datagram_ends_its_socket(options) {
        let mut ring = ring(&options);
        let mut log = Log::default();
        let (token, outside) = datagrams(&mut ring);
        drop(outside);
        ring.io().receive(token);
        assert!(ring.io().send(token, b"anybody?"));
        until(&mut ring, &mut log, |_, log| log.end(token).is_some());
        assert_eq!(log.end(token), Some(Err(ErrorKind::ConnectionRefused)));
        assert_eq!(ring.io().sockets(), 0);
    }

    fn timers_expire_in_order_never_early_and_not_when_disarmed(options) {
        let mut ring = ring(&options);
        let mut log = Log::default();
        let start = Instant::now();
        let mut times = Vec::new();
        for key in 0..5_000_u64 {
            // Spread over 50 ms, in no order.
            let at = start + Duration::from_nanos(key * 7_919 % 5_000 * 10_000);
            times.push((at, ring.io().arm(at, key)));
        }
        let mut disarmed = 0;
        for (_, timer) in times.iter().step_by(3) {
            assert!(ring.io().disarm(*timer));
            assert!(!ring.io().disarm(*timer));
            disarmed += 1;
        }
        until(&mut ring, &mut log, |_, log| log.events.len() + disarmed == 5_000);
        idle(&mut ring, &mut log);
        assert_eq!(log.events.len() + disarmed, 5_000);
        let mut last = start;
        for event in &log.events {
            let Event::Expired(key, now) = event else {
                panic!("{event:?}");
            };
            let key = usize::try_from(*key).expect("small");
            let (at, timer) = times[key];
            assert_ne!(key % 3, 0, "disarmed");
            assert!(at >= last && at <= *now, "in order and not early");
            assert!(!ring.io().disarm(timer), "gone");
            last = at;
        }
    }

    fn turn_waits_for_its_time_and_not_much_longer(options) {
        let mut ring = ring(&options);
        let mut log = Log::default();
        for micros in [1, 70, 130, 300, 1_300, 20_300] {
            let mut quickest = Duration::MAX;
            for _ in 0..20 {
                let at = Instant::now() + Duration::from_micros(micros);
                while Instant::now() < at {
                    ring.turn(&mut log, Some(at)).expect("turns");
                }
                quickest = quickest.min(at.elapsed());
            }
            // Waits that are rounded up to milliseconds would be 700 µs late or more; a busy
            // machine is late at times, but not each time.
            assert!(quickest < Duration::from_micros(500), "{micros}: {quickest:?}");
        }
        assert!(log.events.is_empty());
    }

    fn waiting_for_company_delays_no_timer(options) {
        let batch = Batch { completions: 1_000, wait: DEADLINE };
        let mut ring = ring(&Options { batch: Some(batch), ..options });
        let mut log = Log::default();
        let (token, mut outside) = pair(&mut ring);
        ring.io().receive(token);
        outside.write_all(b"not company enough").expect("sends");
        let start = Instant::now();
        ring.io().arm(start + Duration::from_millis(1), 1);
        until(&mut ring, &mut log, |_, log| log.count(|e| matches!(e, Event::Expired(..))) == 1);
        assert!(start.elapsed() < DEADLINE / 2);
        assert_eq!(log.bytes(token), b"not company enough");
    }

    fn waker_ends_a_turn_from_another_thread(options) {
        let mut ring = ring(&options);
        let mut log = Log::default();
        for wakes in 1..=100 {
            let waker = ring.waker();
            let thread = std::thread::spawn(move || {
                waker.wake();
                waker.wake();
            });
            until(&mut ring, &mut log, |_, log| log.events.len() >= wakes);
            thread.join().expect("wakes");
            // The second wake may have been told on its own.
            idle(&mut ring, &mut log);
            log.events.truncate(wakes);
        }
        assert_eq!(log.count(|event| matches!(event, Event::Woken)), 100);
    }

    fn closed_listener_refuses(options) {
        let mut ring = ring(&options);
        let mut log = Log::default();
        let listener = listener();
        let address = listener.local_addr().expect("bound");
        let token = ring.io().listen(listener).expect("a slot");
        let _client = TcpStream::connect(address).expect("connects");
        until(&mut ring, &mut log, |_, log| log.connections().len() == 1);
        ring.io().close(token);
        until(&mut ring, &mut log, |_, _| {
            TcpStream::connect(address).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
        });
        assert_eq!(ring.io().sockets(), 1, "the connection lives on");
    }

    fn detached_listener_accepts_elsewhere(options) {
        let mut ring = ring(&options);
        let mut log = Log::default();
        let listener = listener();
        let address = listener.local_addr().expect("bound");
        let token = ring.io().listen(listener).expect("a slot");
        idle(&mut ring, &mut log);
        ring.io().detach(token);
        let mut socket = None;
        until(&mut ring, &mut log, |_, log| {
            socket = log.given_back(token);
            socket.is_some()
        });
        let listener = std::net::TcpListener::from(socket.expect("just given back"));
        listener.set_nonblocking(false).expect("a socket");
        let _client = TcpStream::connect(address).expect("connects");
        listener.accept().expect("accepts");
        assert_eq!(ring.io().sockets(), 0);
    }

    fn connections_wait_for_a_free_slot(options) {
        let mut ring = ring(&Options { sockets: 4, ..options });
        let mut log = Log::default();
        let listener = listener();
        let address = listener.local_addr().expect("bound");
        let _listener = ring.io().listen(listener).expect("a slot");
        let mut clients: Vec<TcpStream> =
            (0..10).map(|_| TcpStream::connect(address).expect("connects")).collect();
        until(&mut ring, &mut log, |_, log| log.connections().len() == 3);
        until(&mut ring, &mut log, |_, log| log.count(|e| matches!(e, Event::AcceptFailed(..))) > 0);
        let full = ring.io().connect(address, &ConnectOptions::default());
        assert!(matches!(full, Err(IoError::Full { limit: 4 })));
        for done in 0..7 {
            let token = log.connections()[done];
            assert!(token.index() < 4);
            ring.io().close(token);
            until(&mut ring, &mut log, |_, log| log.connections().len() > done + 3);
        }
        for token in log.connections() {
            ring.io().send(token, b"served");
        }
        idle(&mut ring, &mut log);
        for client in &mut clients[7..] {
            client.set_read_timeout(Some(DEADLINE)).expect("a socket");
            let mut served = [0; 6];
            client.read_exact(&mut served).expect("is served");
        }
    }

    fn closing_while_connecting_tells_nothing(options) {
        let (deaf, _queued) = deaf();
        let address = deaf.local_addr().expect("bound");
        let mut ring = ring(&options);
        let mut log = Log::default();
        let end: [fn(&mut Io, Token); 2] = [Io::close, Io::reset];
        for end in end {
            let token = connect(&mut ring, address);
            ring.io().send(token, b"queued");
            idle(&mut ring, &mut log);
            end(ring.io(), token);
            assert_eq!(ring.io().sockets(), 0);
            idle(&mut ring, &mut log);
        }
        assert!(log.events.is_empty(), "{:?}", log.events);
    }

    fn closing_while_sending_and_receiving_tells_nothing(options) {
        let mut ring = ring(&options);
        let mut log = Log::default();
        let end: [fn(&mut Io, Token); 2] = [Io::close, Io::reset];
        for end in end {
            let (token, mut outside) = pair(&mut ring);
            ring.io().receive(token);
            ring.io().send_vec(token, vec![1; 32 << 20]);
            idle(&mut ring, &mut log);
            assert!(ring.io().unsent(token) > 0);
            outside.write_all(b"on its way").expect("sends");
            end(ring.io(), token);
            assert!(!ring.io().send(token, b"stale"));
            idle(&mut ring, &mut log);
            assert!(log.events.is_empty(), "{:?}", log.events);
            let mut all = Vec::new();
            // With bytes unread on our side the kernel makes any close a RST.
            let _reset = outside.read_to_end(&mut all);
            assert!(all.iter().all(|&byte| byte == 1));
        }
        assert_eq!(ring.io().sockets(), 0);
    }

    fn detach_sends_what_is_queued_first_and_loses_no_byte(options) {
        let mut ring = ring(&options);
        let mut log = Log::default();
        let (token, mut outside) = pair(&mut ring);
        ring.io().receive(token);
        outside.write_all(b"first ").expect("sends");
        until(&mut ring, &mut log, |_, log| log.bytes(token) == b"first ");
        ring.io().send_vec(token, vec![2; 32 << 20]);
        ring.io().detach(token);
        assert!(!ring.io().send(token, b"too late"));
        idle(&mut ring, &mut log);
        assert!(log.given_back(token).is_none(), "not before all is sent");
        outside.write_all(b"second").expect("sends");
        let reader = std::thread::spawn(move || {
            let mut all = vec![0; 32 << 20];
            outside.read_exact(&mut all).expect("arrives");
            assert!(all.iter().all(|&byte| byte == 2));
            outside
        });
        let mut socket = None;
        until(&mut ring, &mut log, |_, log| {
            socket = log.given_back(token);
            socket.is_some()
        });
        let mut outside = reader.join().expect("reads");
        outside.shutdown(std::net::Shutdown::Write).expect("a socket");
        let mut socket = TcpStream::from(socket.expect("just given back"));
        socket.set_nonblocking(false).expect("a socket");
        let mut rest = log.bytes(token).to_vec();
        socket.read_to_end(&mut rest).expect("ends");
        assert_eq!(rest, b"first second");
        socket.write_all(b"!").expect("usable");
        outside.read_exact(&mut [0; 1]).expect("arrives");
    }

    fn slot_is_used_again_under_another_name(options) {
        let mut ring = ring(&Options { sockets: 1, ..options });
        let mut log = Log::default();
        let mut names = std::collections::HashSet::new();
        for round in 0..1_000_u32 {
            let (token, mut outside) = pair(&mut ring);
            assert_eq!(token.index(), 0);
            assert!(names.insert(token));
            ring.io().receive(token);
            // Under way when it is closed, and never for the next one.
            outside.write_all(&round.to_be_bytes()).expect("sends");
            if round.is_multiple_of(3) {
                until(&mut ring, &mut log, |_, log| log.bytes(token).len() == 4);
                assert_eq!(log.bytes(token), round.to_be_bytes());
            } else if round.is_multiple_of(2) {
                // In the kernel's hands, and closed before its turn.
                ring.turn(&mut log, Some(Instant::now())).expect("turns");
            }
            ring.io().close(token);
        }
        idle(&mut ring, &mut log);
        for event in &log.events {
            let Event::Received(token, data) = event else {
                panic!("{event:?}");
            };
            assert!(names.contains(token));
            assert_eq!(data.len(), 4);
        }
    }

    fn source_address_is_the_one_asked_for(options) {
        let mut ring = ring(&options);
        let mut log = Log::default();
        let listener = listener();
        let address = listener.local_addr().expect("bound");
        let source = Ipv4Addr::new(127, 0, 0, 77);
        let asked = ConnectOptions { source: Some(source.into()), ..ConnectOptions::default() };
        let token = ring.io().connect(address, &asked).expect("connects");
        let (_outside, peer) = listener.accept().expect("accepts");
        assert_eq!(peer.ip(), source);
        until(&mut ring, &mut log, |_, log| log.connection(token) == Some(Ok(())));
        let foreign = Ipv4Addr::new(192, 0, 2, 1);
        let asked = ConnectOptions { source: Some(foreign.into()), ..ConnectOptions::default() };
        assert!(ring.io().connect(address, &asked).is_err(), "not an address of ours");
    }

    fn dropped_ring_closes_everything(options) {
        let listener = listener();
        let address = listener.local_addr().expect("bound");
        let (token, mut outside, ring) = {
            let mut ring = ring(&options);
            let mut log = Log::default();
            let _listener = ring.io().listen(listener).expect("a slot");
            let (token, outside) = pair(&mut ring);
            ring.io().receive(token);
            ring.io().send_vec(token, vec![3; 32 << 20]);
            idle(&mut ring, &mut log);
            (token, outside, ring)
        };
        assert_eq!(token.index(), 1);
        drop(ring);
        let mut all = Vec::new();
        outside.read_to_end(&mut all).expect("ends");
        assert!(all.iter().all(|&byte| byte == 3));
        let error = TcpStream::connect(address).expect_err("nobody listens");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    }

    fn unix_sockets_are_streams_too(options) {
        let mut ring = ring(&options);
        let mut log = Log::default();
        let (inside, mut outside) = std::os::unix::net::UnixStream::pair().expect("a pair");
        let token = ring.io().adopt(OwnedFd::from(inside)).expect("a slot");
        ring.io().receive(token);
        outside.write_all(b"local").expect("sends");
        until(&mut ring, &mut log, |_, log| log.bytes(token) == b"local");
        ring.io().send(token, b"answer");
        ring.io().shutdown(token);
        idle(&mut ring, &mut log);
        let mut answer = String::new();
        outside.read_to_string(&mut answer).expect("ends");
        assert_eq!(answer, "answer");
    }

    fn what_is_no_socket_is_refused(options) {
        let mut ring = ring(&options);
        let file = std::fs::File::open("/dev/null").expect("there");
        assert!(matches!(ring.io().adopt(OwnedFd::from(file)), Err(IoError::Os(_))));
        assert_eq!(ring.io().sockets(), 0);
    }

    fn handler_that_always_sends_holds_nobody_up(options) {
        /// Sends again as soon as the kernel has taken everything.
        struct Flood {
            expired: bool,
        }
        impl Handler for Flood {
            fn sent(&mut self, io: &mut Io, token: Token) {
                assert!(io.send(token, &[0; 4096]));
            }
            fn expired(&mut self, _io: &mut Io, _key: u64) {
                self.expired = true;
            }
        }
        let mut ring = ring(&options);
        let (token, mut outside) = pair(&mut ring);
        let reader = std::thread::spawn(move || std::io::copy(&mut outside, &mut std::io::sink()));
        let mut flood = Flood { expired: false };
        assert!(ring.io().send(token, b"begin"));
        let at = Instant::now() + Duration::from_millis(20);
        ring.io().arm(at, 1);
        until(&mut ring, &mut flood, |_, flood| flood.expired);
        drop(ring);
        reader.join().expect("reads").expect("ends");
    }
}

#[test]
fn options_that_cannot_be_are_refused() {
    let refused = |options: Options| matches!(Ring::new(&options), Err(RingError::Options(_)));
    assert!(refused(Options {
        entries: 0,
        ..Options::default()
    }));
    assert!(refused(Options {
        buffers: 3,
        ..Options::default()
    }));
    assert!(refused(Options {
        buffers: 0,
        ..Options::default()
    }));
    assert!(refused(Options {
        buffer_bytes: 0,
        ..Options::default()
    }));
    assert!(refused(Options {
        large_buffers: 3,
        ..Options::default()
    }));
    assert!(refused(Options {
        sockets: (1 << 24) + 1,
        ..Options::default()
    }));
}
