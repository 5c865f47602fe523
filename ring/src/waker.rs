//! Waking a ring from another thread.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, eventfd};

use crate::error::RingError;

/// Makes a ring's turn end, and call [`Handler::woken`](crate::Handler::woken), from any thread.
#[derive(Clone, Debug)]
pub struct Waker(Arc<Bell>);

#[derive(Debug)]
struct Bell {
    eventfd: OwnedFd,
    /// Rung and not yet heard; a second ring is not worth a system call.
    rung: AtomicBool,
}

impl Waker {
    pub(crate) fn new() -> Result<Waker, RingError> {
        let eventfd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| RingError::at("eventfd", errno.into()))?;
        Ok(Waker(Arc::new(Bell {
            eventfd,
            rung: AtomicBool::new(false),
        })))
    }

    /// Wakes the ring. Several wakes before its next turn are one.
    pub fn wake(&self) {
        // Release: what this thread did before is seen by `woken`; pairs with `heard`.
        if !self.0.rung.swap(true, Ordering::AcqRel) {
            // It fails only if the counter is full, and then it is readable.
            let _full = rustix::io::write(&self.0.eventfd, &1_u64.to_ne_bytes());
        }
    }

    /// Empties the counter, and lets the next wake ring again.
    pub(crate) fn heard(&self) {
        let mut counter = [0; 8];
        // It fails only if the counter is empty already.
        let _empty = rustix::io::read(&self.0.eventfd, &mut counter);
        // In this order: a wake between the two is heard now, one after both rings anew.
        // Acquire pairs with the release of `wake`.
        self.0.rung.swap(false, Ordering::AcqRel);
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.eventfd.as_fd()
    }
}
