//! The connections that lead to one endpoint, so that they can be cut at once.
//!
//! A proxy that only stops choosing a dead endpoint leaves the requests in flight to it waiting.
//! Here each connection is registered by something that can sever it; when the endpoint is taken
//! out, all are severed, and the requests on them fail over where that is safe.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Something that can be cut: its user sees an error or the end of the stream.
pub trait Sever: Send {
    /// Cuts it. Called at most once, and must not wait.
    fn sever(&self);
}

/// Names one registered connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LinkId(u64);

/// The endpoint was taken out after the connection was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the endpoint was taken out of the table")]
pub struct TakenOut;

/// Every connection to one endpoint.
#[derive(Default)]
pub struct Links {
    /// Written with `held` locked; read without, for each request.
    epoch: AtomicU64,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    next: u64,
    links: HashMap<LinkId, Box<dyn Sever>>,
}

impl Links {
    /// Returns how often the endpoint was taken out. A connection belongs to the epoch in which it
    /// was begun, and is of no use in a later one: a program restarted at the same address has the
    /// same address, but none of its connections.
    pub fn epoch(&self) -> u64 {
        // Acquire pairs with `sever_all`: whoever sees the new epoch sees the closed gate.
        self.epoch.load(Ordering::Acquire)
    }

    /// Registers a connection that was begun in `epoch`.
    ///
    /// # Errors
    /// [`TakenOut`] if that epoch is over.
    pub fn register(&self, epoch: u64, link: Box<dyn Sever>) -> Result<LinkId, TakenOut> {
        let mut held = self.lock();
        if self.epoch() != epoch {
            return Err(TakenOut);
        }
        let id = LinkId(held.next);
        held.next += 1;
        held.links.insert(id, link);
        Ok(id)
    }

    /// Forgets a connection: it has ended.
    pub fn release(&self, id: LinkId) {
        let link = self.lock().links.remove(&id);
        // Dropped outside of the lock: it may close a descriptor.
        drop(link);
    }

    /// Cuts every connection and begins the next epoch. Returns how many there were.
    pub fn sever_all(&self) -> usize {
        let links = {
            let mut held = self.lock();
            self.epoch.fetch_add(1, Ordering::Release);
            std::mem::take(&mut held.links)
        };
        for link in links.values() {
            link.sever();
        }
        links.len()
    }

    /// Returns how many connections there are.
    pub fn len(&self) -> usize {
        self.lock().links.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        // A panic while it was held left a map that is still whole.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = self.lock();
        f.debug_struct("Links")
            .field("epoch", &self.epoch())
            .field("links", &held.links.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    struct Count(Arc<AtomicUsize>);
    impl Sever for Count {
        fn sever(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn taking_out_severs_what_is_registered_and_refuses_what_was_begun_before() {
        let links = Links::default();
        let cut = Arc::new(AtomicUsize::new(0));
        let epoch = links.epoch();
        let gone = links
            .register(epoch, Box::new(Count(cut.clone())))
            .expect("registers");
        links
            .register(epoch, Box::new(Count(cut.clone())))
            .expect("registers");
        links.release(gone);
        assert_eq!(links.sever_all(), 1);
        assert_eq!(cut.load(Ordering::Relaxed), 1);
        assert_eq!(
            links.register(epoch, Box::new(Count(cut.clone()))),
            Err(TakenOut)
        );
        assert!(links.register(links.epoch(), Box::new(Count(cut))).is_ok());
    }
}
