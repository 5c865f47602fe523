//! Ports of a node: a bit for each, in pages that exist once one of their ports is touched.
//!
//! The cursor goes round the range instead of taking the lowest free port: a port that was just
//! freed would be reused at once by another service, while a client may still hold the endpoint of
//! the old one.

use std::sync::OnceLock;

use ballast_model::PortRange;

use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// Words of one page: 4,096 ports, 1 KiB with the strangers' bits.
const WORDS: usize = 64;
const PAGES: usize = 65536 / (WORDS * 64);

#[derive(Debug)]
struct Page {
    taken: [AtomicU64; WORDS],
    /// Ports that strangers hold.
    strange: [AtomicU64; WORDS],
}

impl Page {
    fn new() -> Box<Self> {
        let zeros = || std::array::from_fn(|_| AtomicU64::new(0));
        Box::new(Self {
            taken: zeros(),
            strange: zeros(),
        })
    }
}

type Pages = [OnceLock<Box<Page>>; PAGES];

/// Which ports of one node are taken, which are quarantined, and which comes next.
#[derive(Debug)]
pub(crate) struct PortMap {
    range: PortRange,
    /// Where the search for the next dynamic port begins.
    cursor: AtomicU32,
    pages: OnceLock<Box<Pages>>,
}

impl Default for PortMap {
    fn default() -> Self {
        Self::new(PortRange { first: 1, last: 0 })
    }
}

impl PortMap {
    /// Returns a map without a taken port.
    pub(crate) fn new(range: PortRange) -> Self {
        Self {
            range,
            cursor: AtomicU32::new(range.first.into()),
            pages: OnceLock::new(),
        }
    }

    /// Returns whether nobody has the port.
    pub(crate) fn is_free(&self, port: u16) -> bool {
        let (page, word, bit) = place(port);
        let page = self.pages.get().and_then(|pages| pages[page].get());
        page.is_none_or(|page| {
            // Acquire: pairs with the release of whoever gave the port back.
            let used = page.taken[word].load(Ordering::Acquire)
                | page.strange[word].load(Ordering::Acquire);
            used & bit == 0
        })
    }

    /// Takes a port; returns whether it was free.
    pub(crate) fn take(&self, port: u16) -> bool {
        let (page, word, bit) = place(port);
        let page = self.page(page);
        page.strange[word].load(Ordering::Acquire) & bit == 0
            && page.taken[word].fetch_or(bit, Ordering::AcqRel) & bit == 0
    }

    /// Gives a port back.
    pub(crate) fn give(&self, port: u16) {
        let (page, word, bit) = place(port);
        self.page(page).taken[word].fetch_and(!bit, Ordering::AcqRel);
    }

    /// Takes the next free port of the range and moves the cursor past it.
    pub(crate) fn take_next(&self) -> Option<u16> {
        let start = self.cursor();
        let port = self.round_from(start).find(|&port| self.take(port))?;
        self.advance(port);
        Some(port)
    }

    /// Returns whether these ports are free and this many others of the range.
    pub(crate) fn has(&self, fixed: &[u16], dynamic: usize) -> bool {
        fixed.iter().all(|&port| self.is_free(port)) && {
            let others = self
                .round_from(self.cursor())
                .filter(|port| !fixed.contains(port) && self.is_free(*port));
            others.take(dynamic).count() == dynamic
        }
    }

    /// Moves the cursor past a port of the range.
    pub(crate) fn advance(&self, port: u16) {
        if self.range.contains(port) {
            // Relaxed: a hint; two that read the same cursor are told apart by the bits.
            self.cursor.store(u32::from(port) + 1, Ordering::Relaxed);
        }
    }

    /// Keeps a port out, or lets it in again.
    pub(crate) fn set_strange(&self, port: u16, strange: bool) {
        let (page, word, bit) = place(port);
        let word = &self.page(page).strange[word];
        if strange {
            word.fetch_or(bit, Ordering::AcqRel);
        } else {
            word.fetch_and(!bit, Ordering::AcqRel);
        }
    }

    fn cursor(&self) -> u16 {
        let cursor = u16::try_from(self.cursor.load(Ordering::Relaxed)).unwrap_or(u16::MAX);
        if self.range.contains(cursor) {
            cursor
        } else {
            self.range.first
        }
    }

    /// Returns every port of the range once, from `start` on; port 0 is none.
    fn round_from(&self, start: u16) -> impl Iterator<Item = u16> + use<> {
        let range = self.range;
        let (first, last) = (range.first, range.last);
        let empty = range.is_empty();
        (start..=last)
            .chain(first..start)
            .filter(move |&port| port != 0 && !empty)
    }

    fn page(&self, page: usize) -> &Page {
        let pages = self
            .pages
            .get_or_init(|| Box::new(std::array::from_fn(|_| OnceLock::new())));
        pages[page].get_or_init(Page::new)
    }
}

const fn place(port: u16) -> (usize, usize, u64) {
    let port = port as usize;
    (port / (WORDS * 64), port / 64 % WORDS, 1 << (port % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursor_goes_round_and_skips_what_is_taken_or_strange() {
        let ports = PortMap::new(PortRange {
            first: 4094,
            last: 4097,
        });
        assert!(ports.take(4095));
        assert!(!ports.take(4095));
        ports.set_strange(4096, true);
        assert_eq!(ports.take_next(), Some(4094));
        assert_eq!(ports.take_next(), Some(4097));
        assert_eq!(ports.take_next(), None);
        ports.give(4094);
        ports.give(4095);
        ports.set_strange(4096, false);
        assert!(ports.has(&[4095], 2));
        assert!(!ports.has(&[4095], 3));
        let order: Vec<_> = std::iter::from_fn(|| ports.take_next()).collect();
        assert_eq!(order, [4094, 4095, 4096]);
    }

    #[test]
    fn empty_range_has_no_port() {
        let ports = PortMap::default();
        assert_eq!(ports.take_next(), None);
        assert!(ports.has(&[], 0));
    }
}
