//! Reads HTTP/1.1 responses without touching the network: bytes in, events out.
//!
//! Nothing is copied but a head that comes in pieces: heads that arrive whole are scanned where
//! they lie, and bodies are only counted and shown.

use super::fault::Fault;
use super::head::{Framing, Head, Headers, Memo, Scan};

/// Bytes of one response's head, and of its trailers; past it the answer is a fault.
pub const HEAD_BYTES: usize = 64 * 1024;
/// Bytes of the line with a chunk's size, extensions included.
pub const CHUNK_LINE_BYTES: u32 = 4096;
/// Interim (1xx) responses before a final one.
pub const INTERIM: u8 = 16;
/// A buffer for split heads that has grown past this is not kept.
const KEEP_BYTES: usize = 4096;

/// A part of a response.
#[derive(Debug)]
pub enum Event<'a> {
    /// Its head; interim responses give none.
    Head {
        /// The status.
        status: u16,
        /// The header lines.
        headers: Headers<'a>,
    },
    /// Bytes of its body, chunk sizes taken off.
    Body(&'a [u8]),
    /// Its end.
    End {
        /// Whether the connection may be used again.
        reusable: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Head,
    /// Bytes of the body still to come.
    Body(u64),
    UntilClose,
    /// In the digits of a chunk's size.
    ChunkSize,
    /// Behind them, up to the end of the line.
    ChunkExtension,
    ChunkData(u64),
    ChunkCr,
    ChunkLf,
    /// At the begin of a line behind the last chunk.
    Trailer,
    TrailerCr,
    TrailerLine,
    Ended,
}

/// The reading half of one connection's conversation.
#[derive(Debug)]
pub struct Response {
    state: State,
    keep_alive: bool,
    interim: u8,
    /// Bytes of the present line of chunks, or of all trailers.
    line: u32,
    chunk: u64,
    /// A head that came in pieces, so far.
    split: Vec<u8>,
    scan: Scan,
    /// Whether `split` holds a head that was taken already.
    taken: bool,
}

impl Response {
    /// Returns a reader that expects a response's first byte.
    pub const fn new() -> Self {
        Self {
            state: State::Head,
            keep_alive: true,
            interim: 0,
            line: 0,
            chunk: 0,
            split: Vec::new(),
            scan: Scan::new(),
            taken: false,
        }
    }

    /// Forgets everything, for a new connection.
    pub fn reset(&mut self) {
        self.forget_split();
        self.state = State::Head;
        self.interim = 0;
    }

    /// Returns whether it is between two responses: no byte of the next one has come.
    pub fn is_idle(&self) -> bool {
        self.state == State::Head && (self.split.is_empty() || self.taken) && self.interim == 0
    }

    /// Takes bytes off the front of `data` and returns the next event; none if more are needed.
    /// `bodiless` says that the answer is to a HEAD.
    ///
    /// # Errors
    /// [`Fault`] if they are no response. The connection is of no use then.
    pub fn next<'s, 'd: 's>(
        &'s mut self,
        data: &mut &'d [u8],
        bodiless: bool,
    ) -> Result<Option<Event<'s>>, Fault> {
        self.next_like(data, bodiless, None)
    }

    /// As [`Response::next`], with a memo that may be shared with other connections.
    ///
    /// # Errors
    /// As [`Response::next`].
    #[inline]
    pub fn next_like<'s, 'd: 's>(
        &'s mut self,
        data: &mut &'d [u8],
        bodiless: bool,
        memo: Option<&mut Memo>,
    ) -> Result<Option<Event<'s>>, Fault> {
        match self.state {
            State::Head => self.head(data, bodiless, memo),
            State::Ended => {
                self.state = State::Head;
                Ok(Some(Event::End {
                    reusable: self.keep_alive,
                }))
            }
            State::Body(left) => {
                let Some((body, left)) = take(data, left) else {
                    return Ok(None);
                };
                self.state = if left == 0 {
                    State::Ended
                } else {
                    State::Body(left)
                };
                Ok(Some(Event::Body(body)))
            }
            State::UntilClose => Ok(take(data, u64::MAX).map(|(body, _)| Event::Body(body))),
            _ => self.chunked(data),
        }
    }

    /// Takes the end of the stream: returns whether it ended a response whose body had no length.
    pub fn close(&mut self) -> bool {
        std::mem::replace(&mut self.state, State::Head) == State::UntilClose
    }

    fn head<'s, 'd: 's>(
        &'s mut self,
        data: &mut &'d [u8],
        bodiless: bool,
        mut memo: Option<&mut Memo>,
    ) -> Result<Option<Event<'s>>, Fault> {
        if self.taken {
            self.forget_split();
        }
        loop {
            if data.is_empty() {
                return Ok(None);
            }
            if !self.split.is_empty() {
                break;
            }
            let head = if let Some(head) = memo.as_deref().and_then(|memo| memo.get(data)) {
                head
            } else {
                let mut scan = Scan::new();
                let Some(head) = scan.advance(data)? else {
                    self.scan = scan;
                    return self.keep(data);
                };
                if let Some(memo) = memo.as_deref_mut() {
                    memo.put(&data[..head.bytes], head);
                }
                head
            };
            let (bytes, rest) = data.split_at(head.bytes);
            *data = rest;
            if self.begin(&head, bodiless)? {
                return Ok(Some(Event::Head {
                    status: head.status,
                    headers: Headers::of(bytes),
                }));
            }
        }
        self.split_head(data, bodiless, memo)
    }

    /// Keeps the begin of a head for later.
    fn keep<'d>(&mut self, data: &mut &'d [u8]) -> Result<Option<Event<'d>>, Fault> {
        if data.len() > HEAD_BYTES {
            return Err(Fault::HeadTooLong);
        }
        self.split.extend_from_slice(data);
        *data = &[];
        Ok(None)
    }

    /// Goes on with a head whose begin came earlier.
    fn split_head<'s, 'd: 's>(
        &'s mut self,
        data: &mut &'d [u8],
        bodiless: bool,
        memo: Option<&mut Memo>,
    ) -> Result<Option<Event<'s>>, Fault> {
        let before = self.split.len();
        let room = HEAD_BYTES - before + 1;
        self.split.extend_from_slice(&data[..data.len().min(room)]);
        let Some(head) = self.scan.advance(&self.split)? else {
            if self.split.len() > HEAD_BYTES {
                return Err(Fault::HeadTooLong);
            }
            *data = &[];
            return Ok(None);
        };
        *data = &data[head.bytes - before..];
        self.split.truncate(head.bytes);
        if self.begin(&head, bodiless)? {
            self.taken = true;
            return Ok(Some(Event::Head {
                status: head.status,
                headers: Headers::of(&self.split),
            }));
        }
        self.forget_split();
        self.head(data, bodiless, memo)
    }

    fn forget_split(&mut self) {
        self.taken = false;
        self.scan = Scan::new();
        self.split.clear();
        if self.split.capacity() > KEEP_BYTES {
            self.split = Vec::new();
        }
    }

    /// Takes a head; returns whether it is the final one.
    fn begin(&mut self, head: &Head, bodiless: bool) -> Result<bool, Fault> {
        if head.bytes > HEAD_BYTES {
            return Err(Fault::HeadTooLong);
        }
        if head.status < 200 {
            self.interim += 1;
            return if self.interim > INTERIM {
                Err(Fault::Interim)
            } else {
                Ok(false)
            };
        }
        self.interim = 0;
        self.keep_alive = head.keep_alive;
        self.state = if bodiless || head.status == 204 || head.status == 304 {
            State::Ended
        } else {
            match head.framing {
                Framing::Length(0) => State::Ended,
                Framing::Length(length) => State::Body(length),
                Framing::Chunked => {
                    self.start_line();
                    State::ChunkSize
                }
                Framing::UntilClose => State::UntilClose,
            }
        };
        Ok(true)
    }

    fn start_line(&mut self) {
        self.line = 0;
        self.chunk = 0;
    }

    fn chunked<'d>(&mut self, data: &mut &'d [u8]) -> Result<Option<Event<'d>>, Fault> {
        loop {
            if let State::ChunkData(left) = self.state {
                let Some((body, left)) = take(data, left) else {
                    return Ok(None);
                };
                self.state = if left == 0 {
                    State::ChunkCr
                } else {
                    State::ChunkData(left)
                };
                return Ok(Some(Event::Body(body)));
            }
            if self.state == State::Ended {
                self.state = State::Head;
                return Ok(Some(Event::End {
                    reusable: self.keep_alive,
                }));
            }
            let Some((byte, rest)) = data.split_first() else {
                return Ok(None);
            };
            *data = rest;
            self.state = self.step(*byte)?;
        }
    }

    /// Takes one byte between chunks.
    fn step(&mut self, byte: u8) -> Result<State, Fault> {
        self.line += 1;
        Ok(match (self.state, byte) {
            (State::ChunkSize, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                if self.chunk >> 60 != 0 {
                    return Err(Fault::ChunkSize);
                }
                self.chunk = self.chunk << 4 | hex(byte);
                self.within_line(State::ChunkSize)?
            }
            // No digit at all is no size.
            (State::ChunkSize, _) if self.line == 1 => return Err(Fault::ChunkSize),
            (State::ChunkSize | State::ChunkExtension, b'\n') => self.data(),
            (State::ChunkSize, b'\r' | b';' | b' ' | b'\t') | (State::ChunkExtension, _) => {
                self.within_line(State::ChunkExtension)?
            }
            (State::ChunkCr, b'\r') => State::ChunkLf,
            (State::ChunkCr | State::ChunkLf, b'\n') => {
                self.start_line();
                State::ChunkSize
            }
            (State::ChunkSize, _) => return Err(Fault::ChunkSize),
            (State::ChunkCr | State::ChunkLf, _) => return Err(Fault::ChunkEnd),
            (State::Trailer, b'\r') => State::TrailerCr,
            (State::Trailer | State::TrailerCr, b'\n') => State::Ended,
            (State::TrailerCr, _) => return Err(Fault::HeaderLine),
            (State::TrailerLine, b'\n') => State::Trailer,
            (_, _) => {
                if self.line as usize > HEAD_BYTES {
                    return Err(Fault::HeadTooLong);
                }
                State::TrailerLine
            }
        })
    }

    fn within_line(&self, state: State) -> Result<State, Fault> {
        if self.line > CHUNK_LINE_BYTES {
            return Err(Fault::ChunkSize);
        }
        Ok(state)
    }

    /// Returns what follows the line with a size.
    fn data(&mut self) -> State {
        self.line = 0;
        match self.chunk {
            0 => State::Trailer,
            size => State::ChunkData(size),
        }
    }
}

impl Default for Response {
    fn default() -> Self {
        Self::new()
    }
}

/// Takes up to `most` bytes off the front of `data`; returns them and how many of `most` are left.
fn take<'a>(data: &mut &'a [u8], most: u64) -> Option<(&'a [u8], u64)> {
    if data.is_empty() {
        return None;
    }
    let count = usize::try_from(most).unwrap_or(usize::MAX).min(data.len());
    let (taken, rest) = data.split_at(count);
    *data = rest;
    Some((taken, most - count as u64))
}

fn hex(digit: u8) -> u64 {
    u64::from(match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What an answer came to, whatever pieces it came in.
    #[derive(Debug, PartialEq, Eq)]
    enum Seen {
        Head(u16, Vec<(String, Vec<u8>)>),
        Body(Vec<u8>),
        End(bool),
        Fault(Fault),
    }

    /// Reads `pieces`, the answers to requests of which the first `bodiless` were HEADs.
    fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, bodiless: usize) -> Vec<Seen> {
        let (mut response, mut memo) = (Response::new(), Memo::default());
        let (mut all, mut ends) = (Vec::new(), 0);
        for piece in pieces {
            let mut data = piece;
            loop {
                match response.next_like(&mut data, ends < bodiless, Some(&mut memo)) {
                    Ok(None) => break,
                    Ok(Some(Event::Head { status, headers })) => {
                        let headers =
                            headers.map(|(name, value)| (name.to_owned(), value.to_vec()));
                        all.push(Seen::Head(status, headers.collect()));
                    }
                    Ok(Some(Event::Body(bytes))) => {
                        if let Some(Seen::Body(body)) = all.last_mut() {
                            body.extend_from_slice(bytes);
                        } else {
                            all.push(Seen::Body(bytes.to_vec()));
                        }
                    }
                    Ok(Some(Event::End { reusable })) => {
                        ends += 1;
                        all.push(Seen::End(reusable));
                    }
                    Err(fault) => {
                        all.push(Seen::Fault(fault));
                        return all;
                    }
                }
            }
            assert!(data.is_empty(), "{} bytes were left", data.len());
        }
        all
    }

    fn whole(text: &str) -> Vec<Seen> {
        read([text.as_bytes()], 0)
    }

    fn statuses_and_bodies(seen: &[Seen]) -> Vec<(u16, String)> {
        let mut all = Vec::new();
        for it in seen {
            match it {
                Seen::Head(status, _) => all.push((*status, String::new())),
                Seen::Body(body) => {
                    all.last_mut().expect("a head").1 = String::from_utf8_lossy(body).into_owned();
                }
                Seen::End(_) => {}
                Seen::Fault(fault) => panic!("{fault}"),
            }
        }
        all
    }

    #[test]
    fn pipelined_answers_of_every_framing_are_told_apart() {
        let text = "HTTP/1.1 100 Continue\r\n\r\n\
            HTTP/1.1 103 Hints\r\nLink: x\r\n\r\n\
            HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc\
            HTTP/1.1 204 None\r\n\r\n\
            HTTP/1.1 304 Same\r\nContent-Length: 9\r\n\r\n\
            HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\nab\r\nA\r\n0123456789\r\n0\r\nT: 1\r\n\r\n\
            HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n\
            HTTP/1.1 200 OK\r\n\r\nto the end";
        let seen = whole(text);
        let expected = [
            (200, "abc"),
            (204, ""),
            (304, ""),
            (503, "ab0123456789"),
            (200, ""),
            (200, "to the end"),
        ];
        let expected: Vec<_> = expected.map(|(s, b)| (s, b.to_owned())).into();
        assert_eq!(statuses_and_bodies(&seen), expected);
    }

    #[test]
    fn answer_to_head_has_no_body() {
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
        let seen = read([&text[..]], 1);
        let expected = [(200, String::new()), (200, "abc".to_owned())];
        assert_eq!(statuses_and_bodies(&seen), expected);
    }

    #[test]
    fn close_ends_only_a_body_without_length() {
        for (text, ends) in [
            ("HTTP/1.1 200 OK\r\n\r\nabc", true),
            ("HTTP/1.1 200 OK\r\n\r\n", true),
            ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", false),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
                false,
            ),
            ("HTTP/1.1 200", false),
            ("", false),
        ] {
            let mut response = Response::new();
            let mut data = text.as_bytes();
            while response.next(&mut data, false).expect("reads").is_some() {}
            assert_eq!(response.close(), ends, "{text:?}");
        }
    }

    #[test]
    fn endless_parts_are_faults() {
        let head = "HTTP/1.1 200 OK\r\n";
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let long = "a".repeat(HEAD_BYTES + 1);
        let fault = |text: &str| match whole(text).pop() {
            Some(Seen::Fault(fault)) => fault,
            other => panic!("{other:?}"),
        };
        assert_eq!(fault(&format!("{head}X: {long}")), Fault::HeadTooLong);
        assert_eq!(
            fault(&format!("{head}X: {long}\r\n\r\n")),
            Fault::HeadTooLong
        );
        assert_eq!(fault(&format!("{head}{long}")), Fault::HeaderLine);
        assert_eq!(fault(&format!("{chunked}1;{long}")), Fault::ChunkSize);
        assert_eq!(
            fault(&format!("{chunked}0\r\nX: {long}")),
            Fault::HeadTooLong
        );
        assert_eq!(
            fault(&format!("{chunked}00000000000000000001\r\nab")),
            Fault::ChunkEnd
        );
        assert_eq!(
            fault(&format!("{chunked}10000000000000000\r\n")),
            Fault::ChunkSize
        );
        assert_eq!(fault(&format!("{chunked}\r\n")), Fault::ChunkSize);
        assert_eq!(fault(&format!("{chunked}x\r\n")), Fault::ChunkSize);
        assert_eq!(fault(&format!("{chunked}1\r\nab\r\n")), Fault::ChunkEnd);
        let interim = "HTTP/1.1 100 Continue\r\n\r\n".repeat(usize::from(INTERIM) + 1);
        assert_eq!(fault(&interim), Fault::Interim);
    }

    #[test]
    fn head_that_drips_in_is_scanned_once() {
        // The square of its length would take minutes.
        let head = format!(
            "HTTP/1.1 200 OK\r\n{}Content-Length: 0\r\n\r\n",
            format!("X: {}\r\n", "y".repeat(240)).repeat(200)
        );
        let seen = read(head.as_bytes().chunks(1), 0);
        assert_eq!(seen.len(), 2, "a head and an end");
    }

    /// Heads and bodies, right and wrong ones, put together from parts.
    fn answers() -> impl Strategy<Value = Vec<u8>> {
        let part = prop::sample::select(vec![
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.0 404 No\r\n",
            "HTTP/1.1 100 Continue\r\n\r\n",
            "HTTP/1.1 204 None\n\n",
            "HTTP/1.1 ",
            "Content-Length: 3\r\n",
            "content-length: 0\r\n",
            "Transfer-Encoding: chunked\r\n",
            "Connection: close\r\n",
            "X-Long: abcdefghijklmnopqrstuvwxyz\r\n",
            "\r\n",
            "\n",
            "abc",
            "3\r\nabc\r\n",
            "5;x=y\r\nhello\r\n",
            "0\r\n\r\n",
            "0\r\nTrailer: 1\r\n\r\n",
            ":",
            "\0",
        ]);
        prop::collection::vec(part, 0..14).prop_map(|parts| parts.concat().into_bytes())
    }

    fn split(bytes: &[u8], mut cuts: Vec<usize>) -> Vec<&[u8]> {
        for cut in &mut cuts {
            *cut %= bytes.len() + 1;
        }
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        cuts.windows(2).map(|two| &bytes[two[0]..two[1]]).collect()
    }

    proptest! {
        #[test]
        fn prop_any_split_gives_the_same_events(
            bytes in answers(),
            cuts in prop::collection::vec(any::<usize>(), 0..12),
            bodiless in 0_usize..2,
        ) {
            let whole = read([&bytes[..]], bodiless);
            prop_assert_eq!(&read(split(&bytes, cuts), bodiless), &whole);
            prop_assert_eq!(&read(bytes.chunks(1), bodiless), &whole);
        }

        #[test]
        fn prop_no_bytes_make_it_panic(pieces in prop::collection::vec(
            prop::collection::vec(any::<u8>(), 0..50), 0..8,
        )) {
            let _ = read(pieces.iter().map(Vec::as_slice), 0);
        }
    }
}
