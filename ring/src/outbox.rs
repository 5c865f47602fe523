//! What a socket has still to send.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::ops::Range;

use crate::pool::Pool;

/// The most chunks that go out in one send. A head, a body and what frames it are a few; more
/// would cost more stack than a second call costs time.
pub(crate) const PARTS: usize = 8;
/// The longest part of what is lent that is rather copied behind a chunk with room than sent as a
/// part of its own: to name one more part to the kernel costs what it takes to copy so much.
const COPIED: usize = 1 << 10;
/// The buffer that is lent for the callback, which is not kept yet.
const LENT: u16 = u16::MAX;

#[derive(Debug)]
enum Data {
    Own(Vec<u8>),
    /// A part of a buffer of the driver: of the one that is lent for the callback that is running,
    /// or of one that is kept until it is sent.
    Lent {
        buffer: u16,
        part: Range<usize>,
    },
}

impl Data {
    fn len(&self) -> usize {
        match self {
            Data::Own(data) => data.len(),
            Data::Lent { part, .. } => part.len(),
        }
    }

    fn give_back(self, pool: &mut Pool) {
        match self {
            Data::Own(data) => pool.give(data),
            Data::Lent { buffer: LENT, .. } => {}
            Data::Lent { buffer, .. } => pool.returned.push(buffer),
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

/// The chunks of an outbox that is not empty.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    chunks: VecDeque<Chunk>,
    unsent: usize,
    /// How many of the chunks, from the last one on, may be of what is lent for the callback.
    fresh: usize,
    /// The kernel was told of the first chunks: their bytes are neither moved nor changed.
    in_flight: bool,
    /// How it was told, if they are several.
    pub vector: crate::uring::Vector,
}

/// A socket's queue. Its length is not limited here: callers look at `unsent` and pause the source.
///
/// An idle connection has none: what is queued lies elsewhere, and goes on to the next socket that
/// sends, still warm.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    queue: Option<Box<Queue>>,
}

impl Outbox {
    pub fn is_empty(&self) -> bool {
        self.queue.is_none()
    }

    /// Returns the bytes that the kernel has not taken yet.
    pub fn unsent(&self) -> usize {
        self.queue.as_ref().map_or(0, |queue| queue.unsent)
    }

    /// Appends bytes of a stream.
    pub fn append(&mut self, bytes: &[u8], pool: &mut Pool) {
        // Also behind bytes in flight: there is room, so that these stay where they are.
        if let Some(queue) = &mut self.queue
            && queue.extend(queue.chunks.len(), bytes)
        {
            queue.unsent += bytes.len();
            return;
        }
        self.begin(bytes, true, pool);
    }

    /// Appends a message that is sent on its own.
    pub fn append_datagram(&mut self, bytes: &[u8], pool: &mut Pool) {
        self.begin(bytes, false, pool);
    }

    /// Appends a buffer as it is.
    pub fn append_vec(&mut self, data: Vec<u8>, pool: &mut Pool) {
        self.push(Data::Own(data), false, pool);
    }

    /// Appends a part of what is lent for the callback. When that has returned, it is
    /// [copied](Outbox::copy_small), sent, [kept](Outbox::keep) or [owned](Outbox::own).
    pub fn append_lent(&mut self, part: Range<usize>, pool: &mut Pool) {
        let buffer = LENT;
        self.push(Data::Lent { buffer, part }, false, pool);
        if let Some(queue) = &mut self.queue {
            queue.fresh = queue.fresh.max(1);
        }
    }

    fn begin(&mut self, bytes: &[u8], open: bool, pool: &mut Pool) {
        let mut data = pool.take(bytes.len());
        data.extend_from_slice(bytes);
        self.push(Data::Own(data), open, pool);
    }

    fn push(&mut self, data: Data, open: bool, pool: &mut Pool) {
        let queue = self.queue.get_or_insert_with(|| pool.queue());
        queue.unsent += data.len();
        // What comes behind something lent is to be looked at with it.
        queue.fresh += usize::from(queue.fresh > 0);
        queue.chunks.push_back(Chunk {
            data,
            taken: 0,
            open,
        });
    }

    /// Copies what is not worth a part of its own, and returns whether more of what is lent is
    /// left.
    pub fn copy_small(&mut self, lent: &[u8]) -> bool {
        let Some(queue) = &mut self.queue else {
            return false;
        };
        let mut left = false;
        let mut at = queue.chunks.len() - queue.fresh;
        while at < queue.chunks.len() {
            let Some(part) = queue.lent(at) else {
                at += 1;
                continue;
            };
            if part.len() <= COPIED && queue.extend(at, &lent[part]) {
                queue.chunks.remove(at);
                queue.fresh -= 1;
            } else {
                left = true;
                at += 1;
            }
        }
        if !left {
            queue.fresh = 0;
        }
        left
    }

    /// Copies what it has of what is lent.
    pub fn own(&mut self, lent: &[u8], pool: &mut Pool) {
        let Some(queue) = &mut self.queue else {
            return;
        };
        let fresh = std::mem::take(&mut queue.fresh);
        for at in queue.chunks.len() - fresh..queue.chunks.len() {
            if let Some(part) = queue.lent(at) {
                let chunk = &mut queue.chunks[at];
                let rest = &lent[part.start + chunk.taken..part.end];
                let mut data = pool.take(rest.len());
                data.extend_from_slice(rest);
                chunk.taken = 0;
                chunk.data = Data::Own(data);
            }
        }
    }

    /// Names the buffer that is lent, and returns how often it is in the queue: it is kept until
    /// it has been returned to the pool so often.
    pub fn keep(&mut self, id: u16) -> u32 {
        let Some(queue) = &mut self.queue else {
            return 0;
        };
        let mut count = 0;
        let fresh = std::mem::take(&mut queue.fresh);
        let old = queue.chunks.len() - fresh;
        for chunk in queue.chunks.range_mut(old..) {
            if let Data::Lent { buffer, .. } = &mut chunk.data
                && *buffer == LENT
            {
                *buffer = id;
                count += 1;
            }
        }
        count
    }

    /// Puts what is to be sent next into `parts`, and returns how many these are; `buffer` returns
    /// the bytes of a buffer of the driver.
    pub fn parts<'a, 'buffers: 'a>(
        &'a self,
        buffer: impl Fn(u16) -> &'buffers [u8],
        parts: &mut [IoSlice<'a>],
    ) -> usize {
        let chunks = self.queue.iter().flat_map(|queue| &queue.chunks);
        let mut count = 0;
        for (part, chunk) in parts.iter_mut().zip(chunks) {
            let bytes = match &chunk.data {
                Data::Own(data) => &data[..],
                Data::Lent { buffer: id, part } => &buffer(*id)[part.clone()],
            };
            *part = IoSlice::new(&bytes[chunk.taken..]);
            count += 1;
        }
        count
    }

    /// What [`Outbox::parts`] returned is now the kernel's, until [`Outbox::returned`]. Returns
    /// where to write down what it is to be told.
    pub fn in_flight(&mut self) -> Option<&mut crate::uring::Vector> {
        let queue = self.queue.as_mut()?;
        queue.in_flight = true;
        Some(&mut queue.vector)
    }

    /// The kernel has done with what was in flight.
    pub fn returned(&mut self) {
        if let Some(queue) = &mut self.queue {
            queue.in_flight = false;
        }
    }

    /// The kernel took so many bytes.
    pub fn taken(&mut self, mut bytes: usize, pool: &mut Pool) {
        let Some(queue) = &mut self.queue else {
            return;
        };
        queue.unsent -= bytes;
        while let Some(first) = queue.chunks.front_mut() {
            let left = first.data.len() - first.taken;
            if bytes < left {
                first.taken += bytes;
                return;
            }
            bytes -= left;
            if let Some(chunk) = queue.chunks.pop_front() {
                chunk.data.give_back(pool);
            }
            queue.fresh = queue.fresh.min(queue.chunks.len());
            // An empty datagram behind what was sent is a message, too.
            if bytes == 0 {
                break;
            }
        }
        if queue.chunks.is_empty()
            && let Some(queue) = self.queue.take()
        {
            pool.give_queue(queue);
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self, pool: &mut Pool) {
        if let Some(mut queue) = self.queue.take() {
            debug_assert!(!queue.in_flight, "what is in flight is not given back");
            queue.unsent = 0;
            queue.fresh = 0;
            for chunk in queue.chunks.drain(..) {
                chunk.data.give_back(pool);
            }
            pool.give_queue(queue);
        }
    }
}

impl Queue {
    /// Appends to the chunk before `at`, if it is open and has room.
    fn extend(&mut self, at: usize, bytes: &[u8]) -> bool {
        let before = at.checked_sub(1).and_then(|at| self.chunks.get_mut(at));
        if let Some(chunk) = before
            && chunk.open
            && let Data::Own(data) = &mut chunk.data
            && data.capacity() - data.len() >= bytes.len()
        {
            data.extend_from_slice(bytes);
            return true;
        }
        false
    }

    /// Returns which part of what is lent for the callback is the chunk at a place.
    fn lent(&self, at: usize) -> Option<Range<usize>> {
        match &self.chunks[at].data {
            Data::Lent { buffer: LENT, part } => Some(part.clone()),
            _ => None,
        }
    }
}
