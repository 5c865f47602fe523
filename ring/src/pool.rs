//! What is used again: buffers and queues, so that a send does not allocate.

use crate::outbox::Queue;

/// Room of a small buffer: a head or a small message, and what is appended to it.
const SMALL: usize = 4 << 10;
/// Room of a large buffer: a piece of a body.
const LARGE: usize = 64 << 10;
/// The most free buffers that are kept of each size: 4 MiB of either; more are given back.
const KEPT_SMALL: usize = 1024;
const KEPT_LARGE: usize = 64;
/// The most free queues that are kept: half a MiB.
const KEPT_QUEUES: usize = 1024;

/// Free buffers and queues.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    small: Vec<Vec<u8>>,
    large: Vec<Vec<u8>>,
    #[expect(
        clippy::vec_box,
        reason = "the kernel knows where a queue is, so it is moved by its box"
    )]
    queues: Vec<Box<Queue>>,
    /// Buffers of the driver that a queue has done with; one that was in two queues is here twice.
    pub returned: Vec<u16>,
}

impl Pool {
    /// Returns an empty buffer with room for `bytes`.
    pub fn take(&mut self, bytes: usize) -> Vec<u8> {
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

    pub fn give(&mut self, mut buffer: Vec<u8>) {
        buffer.clear();
        if buffer.capacity() == SMALL && self.small.len() < KEPT_SMALL {
            self.small.push(buffer);
        } else if buffer.capacity() == LARGE && self.large.len() < KEPT_LARGE {
            self.large.push(buffer);
        }
    }

    /// Returns an empty queue.
    pub fn queue(&mut self) -> Box<Queue> {
        self.queues.pop().unwrap_or_default()
    }

    pub fn give_queue(&mut self, queue: Box<Queue>) {
        if self.queues.len() < KEPT_QUEUES {
            self.queues.push(queue);
        }
    }
}
