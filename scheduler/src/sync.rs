//! Every atomic, lock and cell that threads share, from one place, so that the model checker can
//! take theirs: with `RUSTFLAGS="--cfg loom"` they are loom's.
//!
//! Orderings are named where they are used. The lock is only ever tried, never waited for.

#[cfg(loom)]
pub(crate) use loom::sync::Mutex;
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
#[cfg(not(loom))]
pub(crate) use portable_atomic::{AtomicI64, AtomicU32, AtomicU64, AtomicU128, Ordering};
#[cfg(not(loom))]
pub(crate) use std::sync::Mutex;

/// loom knows no 128-bit atomic: its mutex stands for one, with the orderings of a lock, which are
/// those that the code asks of the word (acquire to read, release to write).
#[cfg(loom)]
#[derive(Debug)]
pub(crate) struct AtomicU128(Mutex<u128>);

#[cfg(loom)]
impl AtomicU128 {
    pub(crate) fn new(value: u128) -> Self {
        Self(Mutex::new(value))
    }

    pub(crate) fn load(&self, _: Ordering) -> u128 {
        *self.0.lock().expect("nothing panics under it")
    }

    pub(crate) fn store(&self, value: u128, _: Ordering) {
        *self.0.lock().expect("nothing panics under it") = value;
    }

    pub(crate) fn compare_exchange_weak(
        &self,
        current: u128,
        new: u128,
        _: Ordering,
        _: Ordering,
    ) -> Result<u128, u128> {
        let mut word = self.0.lock().expect("nothing panics under it");
        let before = *word;
        if before != current {
            return Err(before);
        }
        *word = new;
        Ok(before)
    }
}

/// A value on cache lines of its own: what one thread writes does not take the line from another
/// that reads its neighbour. Two lines, as processors fetch them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Apart<T>(pub T);

/// Orders every read and write before it ahead of those after it, for all threads.
pub(crate) fn fence() {
    #[cfg(loom)]
    loom::sync::atomic::fence(Ordering::SeqCst);
    #[cfg(not(loom))]
    portable_atomic::fence(Ordering::SeqCst);
}

/// Lets others go on before the next try.
pub(crate) fn pause() {
    #[cfg(loom)]
    loom::thread::yield_now();
    #[cfg(not(loom))]
    std::hint::spin_loop();
}
