//! The loop itself.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::time::Instant;

use crate::epoll::Epoll;
use crate::error::RingError;
use crate::handler::Handler;
use crate::io::Io;
use crate::options::{Backend, Options};
use crate::uring::Uring;
use crate::waker::Waker;

/// An event loop of one thread.
///
/// To drop it closes its sockets and waits, a second at most, for the kernel to have done with
/// their memory.
pub struct Ring {
    io: Io,
    driver: Driver,
    waker: Waker,
    fallback: Option<RingError>,
    /// io_uring completes on the thread that submitted.
    thread: PhantomData<*mut ()>,
}

enum Driver {
    Epoll(Epoll),
    Uring(Box<Uring>),
}

impl Ring {
    /// Returns a ring without sockets, after a try of what it needs.
    ///
    /// # Errors
    /// Says which requirement fails. `Backend::Auto` fails only if epoll does, too.
    pub fn new(options: &Options) -> Result<Ring, RingError> {
        options.validate()?;
        let waker = Waker::new()?;
        let mut fallback = None;
        let uring = match options.backend {
            Backend::Epoll => None,
            Backend::IoUring => Some(Uring::new(options, waker.clone())?),
            Backend::Auto => Uring::new(options, waker.clone())
                .map_err(|error| fallback = Some(error))
                .ok(),
        };
        let driver = match uring {
            Some(uring) => Driver::Uring(Box::new(uring)),
            None => Driver::Epoll(Epoll::new(options, waker.clone())?),
        };
        Ok(Ring {
            io: Io::new(options.sockets),
            driver,
            waker,
            fallback,
            thread: PhantomData,
        })
    }

    /// Returns what drives it: io_uring or epoll.
    pub fn backend(&self) -> Backend {
        match self.driver {
            Driver::Epoll(_) => Backend::Epoll,
            Driver::Uring(_) => Backend::IoUring,
        }
    }

    /// Returns why `Backend::Auto` took epoll, if it did.
    pub fn fallback(&self) -> Option<&RingError> {
        self.fallback.as_ref()
    }

    /// Returns what wakes it from other threads.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Returns its sockets and timers.
    pub fn io(&mut self) -> &mut Io {
        &mut self.io
    }

    /// Does what was asked for, waits for an event, a timer or `until`, and tells `handler` all
    /// that has happened. It may return earlier, with nothing told.
    ///
    /// Callbacks for sends that were taken or connections that were detached can come before the
    /// wait, too.
    ///
    /// # Errors
    /// The kernel refuses to wait; that is not about any one socket, and not expected.
    pub fn turn(&mut self, handler: &mut impl Handler, until: Option<Instant>) -> io::Result<()> {
        match &mut self.driver {
            Driver::Epoll(epoll) => epoll.turn(&mut self.io, handler, until),
            Driver::Uring(uring) => uring.turn(&mut self.io, handler, until),
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if let Driver::Uring(uring) = &mut self.driver
            && !uring.quiesce()
        {
            // The kernel may still read what is queued: better lost than used again.
            std::mem::forget(self.io.forget());
        }
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring")
            .field("backend", &self.backend())
            .field("sockets", &self.io.sockets())
            .finish_non_exhaustive()
    }
}
