//! Floods of HTTP/2 frames: what costs a client nothing and a server something.
//!
//! The library under pingora bounds what it keeps (streams, header lists, continuations), but not
//! how often a client may make it work: a stream that is opened and reset at once (CVE-2023-44487)
//! costs an endpoint a request each time, a PING or SETTINGS frame an answer. So the frames are
//! counted as they come, and a connection with too many is ended.
//!
//! # Source
//! RFC 9113, sections 4.1 and 6; section 10.5 lists what to count.

use std::time::{Duration, Instant};

/// Over which the limits hold.
pub const WINDOW: Duration = Duration::from_secs(10);
/// Streams that a client may take back in a [`WINDOW`]: a browser that leaves a page takes back
/// all it had asked for at once.
pub const RESETS: u32 = 500;
/// PING frames.
pub const PINGS: u32 = 100;
/// SETTINGS frames.
pub const SETTINGS: u32 = 100;
/// Frames that carry nothing: DATA without content that ends no stream, PRIORITY, unknown kinds.
pub const EMPTY: u32 = 1000;
/// CONTINUATION frames of one header block; with [`HEADER_LIST_BYTES`] in frames of the usual
/// size two are enough.
pub const CONTINUATIONS: u32 = 16;
/// Bytes of a request's decoded header list, as RFC 9113 counts them: what bounds an HPACK bomb.
pub const HEADER_LIST_BYTES: u32 = 32 << 10;
/// Requests under way on one connection.
pub const STREAMS: u32 = 128;
/// Streams that were reset and are still remembered.
pub const RESET_STREAMS: usize = 64;
/// Streams that were opened and reset before they were looked at; past it the connection ends.
pub const PENDING_RESETS: usize = 32;
/// Streams that were reset for a client's mistakes; past it the connection ends.
pub const MISTAKES: usize = 64;
/// Bytes of a stream that may be on their way to us.
pub const STREAM_WINDOW: u32 = 256 << 10;
/// Bytes of all streams of a connection that may be on their way to us.
pub const CONNECTION_WINDOW: u32 = 1 << 20;
/// Bytes that are kept for a client that does not read, for each stream.
pub const SEND_BUFFER: usize = 128 << 10;

const PREFACE_BYTES: usize = 24;
const HEAD_BYTES: usize = 9;

/// What a client sent too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Flood {
    /// RST_STREAM.
    #[error("too many streams were reset")]
    Resets,
    /// PING.
    #[error("too many PING frames")]
    Pings,
    /// SETTINGS.
    #[error("too many SETTINGS frames")]
    Settings,
    /// Frames that carry nothing.
    #[error("too many frames that carry nothing")]
    Empty,
    /// CONTINUATION.
    #[error("too many CONTINUATION frames for one header block")]
    Continuations,
}

impl Flood {
    /// Returns its name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Resets => "resets",
            Self::Pings => "pings",
            Self::Settings => "settings",
            Self::Empty => "empty",
            Self::Continuations => "continuations",
        }
    }
}

/// Counts the frames of one connection.
#[derive(Debug)]
pub struct FrameWatch {
    /// Bytes that belong to the preface or to a frame whose head was read.
    skip: usize,
    head: [u8; HEAD_BYTES],
    /// How much of `head` there is.
    filled: usize,
    since: Instant,
    resets: u32,
    pings: u32,
    settings: u32,
    empty: u32,
    continuations: u32,
}

impl FrameWatch {
    /// Begins with a connection's first byte.
    pub fn new(now: Instant) -> Self {
        Self {
            skip: PREFACE_BYTES,
            head: [0; HEAD_BYTES],
            filled: 0,
            since: now,
            resets: 0,
            pings: 0,
            settings: 0,
            empty: 0,
            continuations: 0,
        }
    }

    /// Takes the next bytes of the connection.
    ///
    /// # Errors
    /// [`Flood`] if there is too much of something: the connection is to be ended.
    pub fn feed(&mut self, mut bytes: &[u8], now: Instant) -> Result<(), Flood> {
        if now.saturating_duration_since(self.since) >= WINDOW {
            self.since = now;
            (self.resets, self.pings, self.settings, self.empty) = (0, 0, 0, 0);
        }
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let wanted = (HEAD_BYTES - self.filled).min(bytes.len());
            self.head[self.filled..self.filled + wanted].copy_from_slice(&bytes[..wanted]);
            self.filled += wanted;
            bytes = &bytes[wanted..];
            if self.filled == HEAD_BYTES {
                self.filled = 0;
                self.frame()?;
            }
        }
        Ok(())
    }

    fn frame(&mut self) -> Result<(), Flood> {
        const END_STREAM: u8 = 1;
        const ACK: u8 = 1;
        let [high, middle, low, kind, flags, ..] = self.head;
        let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        self.skip = length;
        if kind != 9 {
            self.continuations = 0;
        }
        let (count, limit, flood) = match kind {
            0 if length > 0 || flags & END_STREAM != 0 => return Ok(()),
            // HEADERS, PUSH_PROMISE (an error of its own), GOAWAY, WINDOW_UPDATE.
            1 | 5 | 7 | 8 => return Ok(()),
            4 | 6 if flags & ACK != 0 => return Ok(()),
            3 => (&mut self.resets, RESETS, Flood::Resets),
            4 => (&mut self.settings, SETTINGS, Flood::Settings),
            6 => (&mut self.pings, PINGS, Flood::Pings),
            9 => (&mut self.continuations, CONTINUATIONS, Flood::Continuations),
            _ => (&mut self.empty, EMPTY, Flood::Empty),
        };
        *count += 1;
        if *count > limit {
            return Err(flood);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, flags: u8, length: u16) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend(length.to_be_bytes());
        bytes.extend([kind, flags, 0, 0, 0, 1]);
        bytes.resize(HEAD_BYTES + usize::from(length), 3);
        bytes
    }

    fn watch(now: Instant) -> FrameWatch {
        let mut watch = FrameWatch::new(now);
        watch.feed(&[0; PREFACE_BYTES], now).expect("the preface");
        watch
    }

    #[test]
    fn each_kind_has_its_limit_and_a_window_forgives() {
        let now = Instant::now();
        for (kind, flags, length, limit, flood) in [
            (3, 0, 4, RESETS, Flood::Resets),
            (6, 0, 8, PINGS, Flood::Pings),
            (4, 0, 6, SETTINGS, Flood::Settings),
            (0, 0, 0, EMPTY, Flood::Empty),
            (2, 0, 5, EMPTY, Flood::Empty),
            (0x42, 0, 1, EMPTY, Flood::Empty),
            (9, 0, 10, CONTINUATIONS, Flood::Continuations),
        ] {
            let mut watch = watch(now);
            let bytes = frame(kind, flags, length);
            for _ in 0..limit {
                assert_eq!(watch.feed(&bytes, now), Ok(()), "{kind}");
            }
            let later = now + WINDOW;
            assert_eq!(watch.feed(&bytes, now), Err(flood));
            if flood != Flood::Continuations {
                assert_eq!(watch.feed(&bytes, later), Ok(()));
            }
        }
    }

    #[test]
    fn ordinary_traffic_is_not_counted() {
        let now = Instant::now();
        let mut watch = watch(now);
        let mut bytes = frame(1, 4, 30);
        bytes.extend(frame(0, 0, 1000));
        bytes.extend(frame(0, 1, 0));
        bytes.extend(frame(8, 0, 4));
        bytes.extend(frame(6, 1, 8));
        bytes.extend(frame(4, 1, 0));
        for _ in 0..10_000 {
            assert_eq!(watch.feed(&bytes, now), Ok(()));
        }
    }

    proptest! {
        /// However the bytes are cut, the same frames are counted.
        #[test]
        fn prop_cuts_change_nothing(
            kinds in proptest::collection::vec((0u8..12, 0u8..6, 0u16..40), 0..400),
            sizes in proptest::collection::vec(1usize..50, 1..6),
        ) {
            let now = Instant::now();
            let mut bytes = Vec::new();
            for (kind, flags, length) in kinds {
                bytes.extend(frame(kind, flags, length));
            }
            let whole = watch(now).feed(&bytes, now);
            let mut cut = watch(now);
            let mut rest = &bytes[..];
            let mut result = Ok(());
            for size in sizes.iter().cycle() {
                if rest.is_empty() || result.is_err() {
                    break;
                }
                let (piece, after) = rest.split_at((*size).min(rest.len()));
                result = cut.feed(piece, now);
                rest = after;
            }
            prop_assert_eq!(result, whole);
        }
    }
}
