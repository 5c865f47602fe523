//! What a socket has still to send, and the buffers it lies in.

use std::collections::VecDeque;
use std::ops::Range;

/// Room of a small buffer: a head or a small message, and what is appended to it.
const SMALL: usize = 4 << 10;
/// Room of a large buffer: a piece of a body.
const LARGE: usize = 64 << 10;
/// The most free buffers that are kept of each size: 4 MiB of either; more are given back.
const KEPT_SMALL: usize = 1024;
const KEPT_LARGE: usize = 64;

/// Free buffers, so that a send does not allocate.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    small: Vec<Vec<u8>>,
    large: Vec<Vec<u8>>,
}

impl Pool {
    /// Returns an empty buffer with room for `bytes`.
    fn take(&mut self, bytes: usize) -> Vec<u8> {
        if bytes <= SMALL {
            let free = self.small.pop();
            free.unwrap_or_else(|| Vec::with_capacity(SMALL))
        } else if bytes <= LARGE {
            let free = self.large.pop();
            free.unwrap_or_else(|| Vec::with_capacity(LARGE))
        } else {
            Vec::with_capacity(bytes)
        }
    }

    fn give(&mut self, mut buffer: Vec<u8>) {
        buffer.clear();
        if buffer.capacity() == SMALL && self.small.len() < KEPT_SMALL {
            self.small.push(buffer);
        } else if buffer.capacity() == LARGE && self.large.len() < KEPT_LARGE {
            self.large.push(buffer);
        }
    }
}

#[derive(Debug)]
enum Data {
    Own(Vec<u8>),
    /// A part of what is lent for a callback, until that has returned.
    Lent(Range<usize>),
}

impl Data {
    fn len(&self) -> usize {
        match self {
            Data::Own(data) => data.len(),
            Data::Lent(part) => part.len(),
        }
    }
}

#[derive(Debug)]
struct Chunk {
    data: Data,
    /// How much of it the kernel has taken.
    taken: usize,
    /// Whether more may be appended.
    open: bool,
}

/// A socket's queue. Its length is not limited here: callers look at `unsent` and pause the source.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    chunks: VecDeque<Chunk>,
    unsent: usize,
    /// The first chunk is lent to the kernel: its bytes are neither moved nor changed.
    lent: bool,
}

impl Outbox {
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Returns the bytes that the kernel has not taken yet.
    pub fn unsent(&self) -> usize {
        self.unsent
    }

    /// Appends bytes of a stream.
    pub fn append(&mut self, bytes: &[u8], pool: &mut Pool) {
        self.unsent += bytes.len();
        // Also behind bytes that are lent: there is room, so that these stay where they are.
        if let Some(last) = self.chunks.back_mut()
            && last.open
            && let Data::Own(data) = &mut last.data
            && data.capacity() - data.len() >= bytes.len()
        {
            data.extend_from_slice(bytes);
            return;
        }
        self.begin(bytes, true, pool);
    }

    /// Appends a message that is sent on its own.
    pub fn append_datagram(&mut self, bytes: &[u8], pool: &mut Pool) {
        self.unsent += bytes.len();
        self.begin(bytes, false, pool);
    }

    /// Appends a buffer as it is.
    pub fn append_vec(&mut self, data: Vec<u8>) {
        self.unsent += data.len();
        self.push(Data::Own(data), false);
    }

    /// Appends a part of what is lent for the callback; [`Outbox::own`] follows.
    pub fn append_lent(&mut self, part: Range<usize>) {
        self.unsent += part.len();
        self.push(Data::Lent(part), false);
    }

    /// Copies what it has of `lent`, which is taken back.
    pub fn own(&mut self, lent: &[u8], pool: &mut Pool) {
        for chunk in &mut self.chunks {
            if let Data::Lent(part) = &chunk.data {
                let part = &lent[part.clone()];
                let mut data = pool.take(part.len());
                data.extend_from_slice(part);
                chunk.data = Data::Own(data);
            }
        }
    }

    fn push(&mut self, data: Data, open: bool) {
        self.chunks.push_back(Chunk {
            data,
            taken: 0,
            open,
        });
    }

    fn begin(&mut self, bytes: &[u8], open: bool, pool: &mut Pool) {
        let mut data = pool.take(bytes.len());
        data.extend_from_slice(bytes);
        self.push(Data::Own(data), open);
    }

    /// Lends what is to be sent next to the kernel, until [`Outbox::returned`].
    pub fn lend(&mut self) -> Option<&[u8]> {
        self.lent = !self.chunks.is_empty();
        self.front()
    }

    /// The kernel has done with what was lent.
    pub fn returned(&mut self) {
        self.lent = false;
    }

    /// Returns what is to be sent next.
    pub fn front(&self) -> Option<&[u8]> {
        self.chunks.front().map(|chunk| match &chunk.data {
            Data::Own(data) => &data[chunk.taken..],
            Data::Lent(_) => unreachable!("nothing is sent during the callback"),
        })
    }

    /// The kernel took `bytes` of the first chunk.
    pub fn taken(&mut self, bytes: usize, pool: &mut Pool) {
        let Some(first) = self.chunks.front_mut() else {
            return;
        };
        first.taken += bytes;
        self.unsent -= bytes;
        if first.taken >= first.data.len()
            && let Some(Chunk {
                data: Data::Own(data),
                ..
            }) = self.chunks.pop_front()
        {
            pool.give(data);
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self, pool: &mut Pool) {
        debug_assert!(!self.lent, "a lent buffer is not given back");
        self.unsent = 0;
        for chunk in self.chunks.drain(..) {
            if let Data::Own(data) = chunk.data {
                pool.give(data);
            }
        }
    }
}
