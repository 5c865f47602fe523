//! How many bytes the log has, and when that is too much.
//!
//! openraft counts entries. One may be a heartbeat's worth of status or thousands of placements,
//! so that by entries alone the log could take gigabytes of the disk under bursts. Here bytes are
//! counted, a snapshot is asked for when many were written since the last, and what is kept behind
//! it is bounded, too.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use openraft::Raft;
use tokio::sync::Notify;

use super::types::TypeConfig;

/// Bytes after the last snapshot from which on another is asked for, at the least: some tens of
/// the largest batches. A snapshot is as large as the state, so that a larger state waits for as
/// many bytes of the log as it has itself, up to [`SNAPSHOT_BYTES_MOST`].
const SNAPSHOT_BYTES: usize = 64 << 20;
/// The same at the most.
const SNAPSHOT_BYTES_MOST: usize = 128 << 20;
/// Bytes that are kept behind a snapshot, for a follower that is a little late: with fewer than so
/// many behind it, it is sent entries, else the snapshot.
const KEPT_BYTES: usize = 32 << 20;
/// Bytes from which on new entries wait for the snapshot that is under way to let old ones go.
const FULL_BYTES: usize = 224 << 20;
/// The longest wait of one entry: a log that cannot be cut, for whatever reason, slows the leader
/// down and does not stop it.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// The entries of the log by their bytes.
#[derive(Debug, Default)]
struct Sizes {
    /// Index and bytes of each, without a gap.
    entries: VecDeque<(u64, usize)>,
    total: usize,
    /// Bytes of those that no snapshot covers.
    fresh: usize,
    /// Bytes of the newest snapshot, and the last entry that it covers.
    snapshot: usize,
    covered: u64,
}

impl Sizes {
    fn is_due(&self) -> bool {
        let state = self.snapshot.clamp(SNAPSHOT_BYTES, SNAPSHOT_BYTES_MOST);
        self.fresh >= state
    }

    fn append(&mut self, index: u64, bytes: usize) {
        self.entries.push_back((index, bytes));
        self.total += bytes;
        if index > self.covered {
            self.fresh += bytes;
        }
    }

    fn truncate(&mut self, from: u64) {
        while let Some((_, bytes)) = self.entries.pop_back_if(|(index, _)| *index >= from) {
            self.total -= bytes;
            // What is truncated was not applied, so that no snapshot covers it.
            self.fresh = self.fresh.saturating_sub(bytes);
        }
    }

    fn purge(&mut self, upto: u64) {
        while let Some((index, bytes)) = self.entries.pop_front_if(|(index, _)| *index <= upto) {
            self.total -= bytes;
            if index > self.covered {
                self.fresh = self.fresh.saturating_sub(bytes);
            }
        }
    }

    fn cover(&mut self, upto: u64) {
        self.covered = self.covered.max(upto);
        let newest = self.entries.iter().rev();
        let fresh = newest.take_while(|(index, _)| *index > self.covered);
        self.fresh = fresh.map(|(_, bytes)| bytes).sum();
    }

    /// Returns the last entry that has to go so that those behind the snapshot are not too many
    /// bytes, if one has to.
    fn purgeable(&self) -> Option<u64> {
        let behind = self.entries.iter().rev();
        let mut behind = behind.skip_while(|(index, _)| *index > self.covered);
        let mut kept = 0;
        behind
            .find(|(_, bytes)| {
                kept += bytes;
                kept > KEPT_BYTES
            })
            .map(|(index, _)| *index)
    }
}

/// Counts the bytes of the log, and tells when there are too many.
#[derive(Debug, Default)]
pub(super) struct LogSize {
    sizes: Mutex<Sizes>,
    due: Notify,
    cut: Notify,
}

impl LogSize {
    fn sizes(&self) -> MutexGuard<'_, Sizes> {
        self.sizes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts entries that were written.
    pub fn append(&self, entries: impl IntoIterator<Item = (u64, usize)>) {
        let mut sizes = self.sizes();
        for (index, bytes) in entries {
            sizes.append(index, bytes);
        }
        if sizes.is_due() {
            self.due.notify_one();
        }
    }

    /// Forgets the entries from `from` on.
    pub fn truncate(&self, from: u64) {
        self.sizes().truncate(from);
        self.cut.notify_waiters();
    }

    /// Forgets the entries up to and with `upto`.
    pub fn purge(&self, upto: u64) {
        self.sizes().purge(upto);
        self.cut.notify_waiters();
    }

    /// Notes the bytes of the newest snapshot.
    pub fn snapshot(&self, bytes: usize) {
        self.sizes().snapshot = bytes;
    }

    /// Waits while the log is full, but not for ever.
    pub async fn has_room(&self) {
        let room = async {
            loop {
                let mut cut = std::pin::pin!(self.cut.notified());
                // Before the look, so that no change after it is missed.
                cut.as_mut().enable();
                if self.sizes().total < FULL_BYTES {
                    return;
                }
                cut.await;
            }
        };
        if tokio::time::timeout(LONGEST_WAIT, room).await.is_err() {
            tracing::warn!("the log is full and could not be cut");
        }
    }

    #[cfg(test)]
    pub fn total(&self) -> usize {
        self.sizes().total
    }
}

/// Asks for snapshots when many bytes were written, and lets go of what is too much behind one,
/// until Raft ends.
pub(super) async fn bound(raft: Raft<TypeConfig>, size: std::sync::Arc<LogSize>) {
    let mut metrics = raft.metrics();
    let mut seen = None;
    loop {
        let snapshot = metrics.borrow_and_update().snapshot;
        let trigger = raft.trigger();
        if snapshot != seen {
            seen = snapshot;
            let (purgeable, due) = {
                let mut sizes = size.sizes();
                sizes.cover(snapshot.map_or(0, |id| id.index));
                (sizes.purgeable(), sizes.is_due())
            };
            if let Some(upto) = purgeable
                && trigger.purge_log(upto).await.is_err()
            {
                return;
            }
            if due {
                size.due.notify_one();
            }
        }
        tokio::select! {
            changed = metrics.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            // One that is under way already counts as this one; what it leaves is seen above.
            () = size.due.notified() => {
                if trigger.snapshot().await.is_err() {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn snapshot_is_due_by_bytes_and_later_for_a_larger_state() {
        let mut sizes = Sizes::default();
        for index in 1..=63 {
            sizes.append(index, MIB);
        }
        assert!(!sizes.is_due());
        sizes.append(64, MIB);
        assert!(sizes.is_due());
        sizes.snapshot = 100 * MIB;
        assert!(!sizes.is_due());
        sizes.snapshot = usize::MAX;
        for index in 65..=128 {
            sizes.append(index, MIB);
        }
        assert!(sizes.is_due());
        sizes.cover(100);
        assert_eq!(sizes.fresh, 28 * MIB);
        sizes.truncate(120);
        assert_eq!((sizes.fresh, sizes.total), (19 * MIB, 119 * MIB));
    }

    #[test]
    fn what_is_kept_behind_a_snapshot_is_bounded_by_bytes() {
        let mut sizes = Sizes::default();
        for index in 1..=100 {
            sizes.append(index, MIB);
        }
        assert_eq!(sizes.purgeable(), None, "no snapshot covers them");
        sizes.cover(90);
        // 59 to 90 are kept: 32 MiB.
        assert_eq!(sizes.purgeable(), Some(58));
        sizes.purge(58);
        assert_eq!((sizes.total, sizes.fresh), (42 * MIB, 10 * MIB));
        assert_eq!(sizes.purgeable(), None);
    }
}
