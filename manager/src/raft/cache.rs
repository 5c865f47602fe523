//! The newest entries of the log, as they were written: openraft reads each of them once more to
//! apply it and to send it to followers, and reading and decoding it again would cost more than
//! applying it does.

use std::collections::VecDeque;
use std::ops::{Bound, RangeBounds};

use super::types::Entry;

/// Encoded bytes of the entries that are kept at most, the newest aside: some of the largest
/// batches. A follower that is further behind is served from the file.
const CACHE_BYTES: usize = 8 << 20;
/// Entries that are kept at most: small ones take more room in memory than in the file.
const CACHE_ENTRIES: usize = 1024;

/// The end of the log: entries without a gap up to the last.
#[derive(Debug, Default)]
pub(super) struct Tail {
    entries: VecDeque<(Entry, usize)>,
    bytes: usize,
}

impl Tail {
    /// Adds entries that were written, with the bytes that each has there.
    pub fn append(&mut self, entries: impl IntoIterator<Item = (Entry, usize)>) {
        for (entry, bytes) in entries {
            let next = self.entries.back().map(|(last, _)| last.log_id.index + 1);
            if next.is_some_and(|next| next != entry.log_id.index) {
                self.clear();
            }
            self.bytes += bytes;
            self.entries.push_back((entry, bytes));
        }
        while self.entries.len() > 1
            && (self.bytes > CACHE_BYTES || self.entries.len() > CACHE_ENTRIES)
        {
            self.drop_first();
        }
    }

    /// Returns the entries of a range, if all that the log has of it are here.
    pub fn read(&self, range: &impl RangeBounds<u64>) -> Option<Vec<Entry>> {
        let first = self.entries.front()?.0.log_id.index;
        let from = match range.start_bound() {
            Bound::Included(from) => *from,
            Bound::Excluded(before) => before + 1,
            Bound::Unbounded => 0,
        };
        let skip = usize::try_from(from.checked_sub(first)?).ok()?;
        let entries = self.entries.iter().skip(skip).map(|(entry, _)| entry);
        let within = entries.take_while(|entry| range.contains(&entry.log_id.index));
        Some(within.cloned().collect())
    }

    /// Forgets the entries from `index` on.
    pub fn truncate(&mut self, index: u64) {
        while self
            .entries
            .back()
            .is_some_and(|(last, _)| last.log_id.index >= index)
        {
            self.bytes -= self.entries.pop_back().map_or(0, |(_, bytes)| bytes);
        }
    }

    /// Forgets the entries up to and with `index`.
    pub fn purge(&mut self, index: u64) {
        while self
            .entries
            .front()
            .is_some_and(|(first, _)| first.log_id.index <= index)
        {
            self.drop_first();
        }
    }

    fn clear(&mut self) {
        self.entries.clear();
        self.bytes = 0;
    }

    fn drop_first(&mut self) {
        self.bytes -= self.entries.pop_front().map_or(0, |(_, bytes)| bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::types::LogId;
    use openraft::{CommittedLeaderId, EntryPayload};

    fn entry(index: u64) -> Entry {
        Entry {
            log_id: LogId::new(CommittedLeaderId::new(1, 1), index),
            payload: EntryPayload::Blank,
        }
    }

    fn indices(tail: &Tail, range: impl RangeBounds<u64>) -> Option<Vec<u64>> {
        let entries = tail.read(&range)?;
        Some(entries.iter().map(|entry| entry.log_id.index).collect())
    }

    #[test]
    fn range_is_answered_only_if_its_start_is_held() {
        let mut tail = Tail::default();
        assert_eq!(indices(&tail, ..), None);
        tail.append((5..10).map(|index| (entry(index), 1)));
        assert_eq!(indices(&tail, 4..7), None);
        assert_eq!(indices(&tail, 5..7), Some(vec![5, 6]));
        assert_eq!(indices(&tail, 8..), Some(vec![8, 9]));
        assert_eq!(indices(&tail, 10..12), Some(vec![]));
        tail.purge(6);
        assert_eq!(indices(&tail, 6..8), None);
        tail.truncate(8);
        assert_eq!(indices(&tail, 7..20), Some(vec![7]));
        tail.append([(entry(20), 1)]);
        assert_eq!(indices(&tail, 7..8), None, "there is a gap behind it");
        assert_eq!(indices(&tail, 20..=20), Some(vec![20]));
    }

    #[test]
    fn bytes_and_entries_are_bounded_and_the_newest_stays() {
        let mut tail = Tail::default();
        tail.append((1..=3).map(|index| (entry(index), CACHE_BYTES)));
        assert_eq!(indices(&tail, 2..), None);
        assert_eq!(indices(&tail, 3..), Some(vec![3]));
        tail.append((4..4000).map(|index| (entry(index), 1)));
        assert_eq!(tail.entries.len(), CACHE_ENTRIES);
        assert_eq!(tail.bytes, CACHE_ENTRIES);
    }
}
