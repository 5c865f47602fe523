//! Passing on what was received.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::panic::AssertUnwindSafe;

use ballast_ring::{Handler, Io, Token};
use common::{idle, pair, ring, until};

/// Pauses the source above so many bytes that the other side has not taken.
const HIGH: usize = 1 << 20;

/// Frames whatever it receives, and passes it on; a slow reader holds the source up.
struct Relay {
    from: Token,
    to: Token,
    passed: usize,
    ended: bool,
}

impl Handler for Relay {
    fn received(&mut self, io: &mut Io, token: Token, data: &mut [u8]) {
        assert_eq!(token, self.from);
        let middle = data.len() / 2;
        assert!(io.send(self.to, b"<"));
        assert!(io.forward(self.to, 0..middle));
        assert!(io.forward(self.to, middle..middle), "nothing is fine, too");
        assert!(io.send(self.to, b"|"));
        assert!(io.forward(self.to, middle..data.len()));
        assert!(io.send(self.to, b">"));
        self.passed += data.len();
        if io.unsent(self.to) > HIGH {
            io.pause(self.from);
        }
    }

    fn sent(&mut self, io: &mut Io, token: Token) {
        assert_eq!(token, self.to);
        assert_eq!(io.unsent(token), 0);
        io.receive(self.from);
    }

    fn ended(&mut self, io: &mut Io, token: Token, _result: std::io::Result<()>) {
        if token == self.from {
            self.ended = true;
            io.close_sent(self.to);
        }
    }
}

/// Takes the frames off again, and returns what was in them.
fn unframed(framed: &[u8], original: &[u8]) -> usize {
    let (mut at, mut frames) = (0, 0);
    let mut rest = framed;
    while let Some(tail) = rest.strip_prefix(b"<") {
        // What is passed on has no frame bytes in it.
        let middle = tail
            .iter()
            .position(|byte| *byte == b'|')
            .expect("a middle");
        let end = tail.iter().position(|byte| *byte == b'>').expect("an end");
        for part in [&tail[..middle], &tail[middle + 1..end]] {
            assert!(part == &original[at..at + part.len()], "at {at}");
            at += part.len();
        }
        rest = &tail[end + 1..];
        frames += 1;
    }
    assert!(rest.is_empty(), "only frames");
    assert_eq!(at, original.len());
    frames
}

/// Forwards a range to some socket, once.
struct Once {
    to: Token,
    range: Range<usize>,
    result: Option<bool>,
    close: Option<Token>,
}

impl Handler for Once {
    fn received(&mut self, io: &mut Io, _token: Token, data: &mut [u8]) {
        self.result = Some(io.forward(self.to, self.range.clone()));
        if let Some(token) = self.close {
            io.close(token);
        }
        data.fill(b'!');
    }
}

fn read_all(mut stream: TcpStream) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).expect("ends with a FIN");
        all
    })
}

/// Returns the message with which it panics.
fn panicked<T>(action: impl FnOnce() -> T) -> String {
    let panic = std::panic::catch_unwind(AssertUnwindSafe(action));
    let panic = panic.err().expect("panics");
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string))
        .expect("a message")
}

on_both! {
    fn forwarded_bytes_keep_their_place_among_sent_ones(options) {
        let mut ring = ring(&options);
        let (from, mut source) = pair(&mut ring);
        let (to, sink) = pair(&mut ring);
        let original: Vec<u8> = (b'a'..=b'z').cycle().take(24 << 20).collect();
        let copy = original.clone();
        let writer = std::thread::spawn(move || source.write_all(&copy));
        let mut relay = Relay { from, to, passed: 0, ended: false };
        ring.io().receive(from);
        // So long as nobody reads, the source is held up.
        until(&mut ring, &mut relay, |io, _| io.unsent(to) > HIGH);
        for _ in 0..10 {
            idle(&mut ring, &mut relay);
        }
        assert!(ring.io().unsent(to) < HIGH + (1 << 20));
        let passed = relay.passed;
        assert!(passed < original.len());
        let reader = read_all(sink);
        until(&mut ring, &mut relay, |io, relay| relay.ended && io.sockets() <= 1);
        writer.join().expect("no panic").expect("is sent");
        let framed = reader.join().expect("reads");
        assert!(unframed(&framed, &original) > 1);
    }

    fn many_pairs_with_slow_readers_share_few_buffers(options) {
        /// Passes on from each even socket to the next.
        struct Pairs(Vec<Token>, usize);
        impl Handler for Pairs {
            fn received(&mut self, io: &mut Io, token: Token, data: &mut [u8]) {
                let at = self.0.iter().position(|of| *of == token).expect("known");
                assert!(io.forward(self.0[at + 1], 0..data.len()));
            }
            fn ended(&mut self, io: &mut Io, token: Token, _result: std::io::Result<()>) {
                let at = self.0.iter().position(|of| *of == token).expect("known");
                io.close_sent(self.0[at + 1]);
                self.1 += 1;
            }
        }
        // Each could keep all of them.
        let options = ballast_ring::Options { buffers: 4, buffer_bytes: 512, ..options };
        let mut ring = ring(&options);
        let mut pairs = Pairs(Vec::new(), 0);
        let mut ends = Vec::new();
        let message: Vec<u8> = (0..=250).cycle().take(6 << 20).collect();
        for _ in 0..4 {
            let (from, mut source) = pair(&mut ring);
            let (to, sink) = pair(&mut ring);
            pairs.0.extend([from, to]);
            ring.io().receive(from);
            let copy = message.clone();
            let writer = std::thread::spawn(move || source.write_all(&copy));
            ends.push((writer, sink));
        }
        // Everything is taken from the sources while nobody reads.
        until(&mut ring, &mut pairs, |_, pairs| pairs.1 == 4);
        let readers: Vec<_> = ends
            .into_iter()
            .map(|(writer, sink)| {
                writer.join().expect("no panic").expect("is sent");
                read_all(sink)
            })
            .collect();
        until(&mut ring, &mut pairs, |io, _| io.sockets() == 4);
        for reader in readers {
            assert!(reader.join().expect("reads") == message);
        }
    }

    fn forward_to_itself_echoes_what_lies_there_in_the_end(options) {
        let mut ring = ring(&options);
        let (token, mut outside) = pair(&mut ring);
        ring.io().receive(token);
        outside.write_all(b"question").expect("sends");
        let mut once = Once { to: token, range: 2..5, result: None, close: None };
        until(&mut ring, &mut once, |io, once| once.result.is_some() && io.unsent(token) == 0);
        assert_eq!(once.result, Some(true));
        let mut answer = [0; 3];
        outside.read_exact(&mut answer).expect("comes back");
        assert_eq!(&answer, b"!!!");
    }

    fn forward_outlives_its_source_and_not_its_target(options) {
        for target_too in [false, true] {
            let mut ring = ring(&options);
            let (from, mut source) = pair(&mut ring);
            let (to, mut sink) = pair(&mut ring);
            ring.io().receive(from);
            source.write_all(b"last words").expect("sends");
            let close = Some(if target_too { to } else { from });
            let mut once = Once { to, range: 0..10, result: None, close };
            until(&mut ring, &mut once, |io, once| once.result.is_some() && io.unsent(to) == 0);
            idle(&mut ring, &mut once);
            ring.io().close(to);
            idle(&mut ring, &mut once);
            let mut all = Vec::new();
            sink.read_to_end(&mut all).expect("ends with a FIN");
            assert_eq!(all.len(), if target_too { 0 } else { 10 });
        }
    }

    fn forward_to_what_cannot_send_is_refused(options) {
        let mut ring = ring(&options);
        let (from, mut source) = pair(&mut ring);
        let (to, _sink) = pair(&mut ring);
        ring.io().shutdown(to);
        ring.io().receive(from);
        source.write_all(b"unwanted").expect("sends");
        let mut once = Once { to, range: 0..8, result: None, close: None };
        until(&mut ring, &mut once, |_, once| once.result.is_some());
        assert_eq!(once.result, Some(false));
    }

    fn forwarded_datagrams_keep_their_bounds(options) {
        let mut ring = ring(&options);
        let (from, mut source) = pair(&mut ring);
        let (inside, outside) = std::os::unix::net::UnixDatagram::pair().expect("a pair");
        let to = ring.io().adopt(OwnedFd::from(inside)).expect("a slot");
        ring.io().receive(from);
        source.write_all(b"abc").expect("sends");
        struct Each(Token, usize);
        impl Handler for Each {
            fn received(&mut self, io: &mut Io, _token: Token, data: &mut [u8]) {
                for at in 0..data.len() {
                    assert!(io.forward(self.0, at..at + 1));
                    assert!(io.forward(self.0, at..at));
                    self.1 += 1;
                }
            }
        }
        let mut each = Each(to, 0);
        until(&mut ring, &mut each, |_, each| each.1 == 3);
        idle(&mut ring, &mut each);
        outside.set_read_timeout(Some(common::DEADLINE)).expect("a socket");
        for want in [&b"a"[..], b"", b"b", b"", b"c", b""] {
            let mut data = [0; 9];
            let bytes = outside.recv(&mut data).expect("is there");
            assert_eq!(&data[..bytes], want);
        }
    }

    fn forward_of_what_is_not_lent_is_a_mistake(options) {
        let mut ring = ring(&options);
        let (token, mut outside) = pair(&mut ring);
        let nothing = panicked(|| ring.io().forward(token, 0..0));
        assert_eq!(nothing, "only what is lent is forwarded");
        ring.io().receive(token);
        outside.write_all(b"four").expect("sends");
        let mut once = Once { to: token, range: 0..5, result: None, close: None };
        let much = panicked(|| until(&mut ring, &mut once, |_, once| once.result.is_some()));
        assert_eq!(much, "within what is lent");
    }
}
