//! What the threads of a run share while it goes on.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Read by whoever looks on, written by the lanes; the other way round to stop them.
#[derive(Debug, Default)]
pub struct Control {
    stop: AtomicBool,
    abort: AtomicBool,
    done: AtomicU64,
    failed: AtomicU64,
}

impl Control {
    /// Schedules nothing more. Requests that are due or in flight are still done.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Gives up requests in flight, too: they are not counted.
    pub fn abort(&self) {
        self.stop();
        self.abort.store(true, Ordering::Relaxed);
    }

    /// Returns whether nothing more is to be scheduled; engines look every 50 ms or oftener.
    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Returns whether requests in flight are to be given up.
    pub fn aborted(&self) -> bool {
        self.abort.load(Ordering::Relaxed)
    }

    /// Adds what a lane has done since it last told.
    pub fn add(&self, done: u64, failed: u64) {
        self.done.fetch_add(done, Ordering::Relaxed);
        self.failed.fetch_add(failed, Ordering::Relaxed);
    }

    /// Returns how many requests are done, failed ones included.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Returns how many requests have failed.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }
}
