//! What is counted for one service, by the threads that serve it, without a lock or a hash.
//!
//! A pool holds its service's [`ServiceStats`], so a request finds its counters without a look-up.
//! Each thread counts in a shard of its own, made when it first counts here: an idle service costs
//! a few hundred bytes, and busy threads do not pull a cache line to and fro. Whoever reads sums
//! up the shards.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use super::latency::{Counted, Latency};

/// The most shards: past it, threads share them, which costs time and loses nothing.
const SHARDS_MAX: usize = 64;
/// Statuses other than [`CODES`] that are counted apart for one service; past it, all others count
/// as 999. Endpoints choose their statuses, so they must not be able to fill the memory.
const ODD_CODES_MAX: usize = 64;
/// What an odd status is counted as when there are too many of them.
const ODD_CODE: u16 = 999;
/// The statuses that have a counter of their own; others are counted under a lock.
const CODES: [u16; 32] = [
    101, 200, 201, 202, 204, 206, 301, 302, 303, 304, 307, 308, 400, 401, 403, 404, 405, 408, 409,
    410, 412, 413, 414, 415, 422, 429, 431, 499, 500, 502, 503, 504,
];

/// Returns the place of a status in [`CODES`].
fn place_of(code: u16) -> Option<usize> {
    /// By status less 100; [`NONE`] for the odd ones.
    const PLACES: [u8; 500] = {
        let mut places = [NONE; 500];
        let mut place = 0;
        while place < CODES.len() {
            #[allow(clippy::cast_possible_truncation, reason = "32 at most")]
            {
                places[CODES[place] as usize - 100] = place as u8;
            }
            place += 1;
        }
        places
    };
    const NONE: u8 = u8::MAX;
    let place = *PLACES.get(usize::from(code).checked_sub(100)?)?;
    (place != NONE).then_some(usize::from(place))
}

/// Bytes of bodies, heads not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// From the client.
    pub received: u64,
    /// To the client.
    pub sent: u64,
}

/// What one thread counts.
#[derive(Debug, Default)]
struct Shard {
    codes: [AtomicU64; CODES.len()],
    latency: Counted,
    received: AtomicU64,
    sent: AtomicU64,
    retries: AtomicU64,
    hedges: AtomicU64,
}

/// What is counted for one service.
#[derive(Debug)]
pub struct ServiceStats {
    shards: Box<[OnceLock<Box<Shard>>]>,
    odd: Mutex<BTreeMap<u16, u64>>,
}

impl Default for ServiceStats {
    fn default() -> Self {
        Self::new()
    }
}

impl ServiceStats {
    /// Makes one that has counted nothing.
    pub fn new() -> Self {
        Self {
            shards: (0..shards()).map(|_| OnceLock::new()).collect(),
            odd: Mutex::default(),
        }
    }

    /// Counts an answered request: from its head to the end of its response. 499 stands for a client
    /// that left before the answer.
    pub fn finished(&self, code: u16, took: Duration, traffic: Traffic) {
        let shard = self.shard();
        match place_of(code) {
            Some(place) => {
                shard.codes[place].fetch_add(1, Ordering::Relaxed);
            }
            None => self.odd(code),
        }
        shard.latency.add(took);
        if traffic.received > 0 {
            shard
                .received
                .fetch_add(traffic.received, Ordering::Relaxed);
        }
        shard.sent.fetch_add(traffic.sent, Ordering::Relaxed);
    }

    /// Counts a request that was sent to another endpoint.
    pub fn retried(&self) {
        self.shard().retries.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request that was sent to a second endpoint besides, since the first was slow.
    pub fn hedged(&self) {
        self.shard().hedges.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns everything that was counted.
    pub fn total(&self) -> Totals {
        let mut totals = Totals::default();
        let mut codes = [0; CODES.len()];
        for shard in self.shards.iter().filter_map(OnceLock::get) {
            for (sum, one) in codes.iter_mut().zip(&shard.codes) {
                *sum += one.load(Ordering::Relaxed);
            }
            shard.latency.add_to(&mut totals.latency);
            totals.traffic.received += shard.received.load(Ordering::Relaxed);
            totals.traffic.sent += shard.sent.load(Ordering::Relaxed);
            totals.retries += shard.retries.load(Ordering::Relaxed);
            totals.hedges += shard.hedges.load(Ordering::Relaxed);
        }
        let counted = CODES.into_iter().zip(codes).filter(|&(_, count)| count > 0);
        totals.codes.extend(counted);
        let odd = self.odd.lock().unwrap_or_else(PoisonError::into_inner);
        totals.codes.extend(odd.iter());
        totals
    }

    fn shard(&self) -> &Shard {
        let place = thread_number() & (self.shards.len() - 1);
        self.shards[place].get_or_init(Box::default)
    }

    #[cold]
    fn odd(&self, code: u16) {
        let mut odd = self.odd.lock().unwrap_or_else(PoisonError::into_inner);
        let code = if odd.len() < ODD_CODES_MAX || odd.contains_key(&code) {
            code
        } else {
            ODD_CODE
        };
        *odd.entry(code).or_default() += 1;
    }
}

/// What was counted for one service.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Totals {
    /// Answered requests by status.
    pub codes: BTreeMap<u16, u64>,
    /// From a request's head to the end of its response.
    pub latency: Latency,
    /// Bytes of bodies.
    pub traffic: Traffic,
    /// Requests sent to another endpoint after the first one failed.
    pub retries: u64,
    /// Requests sent to a second endpoint besides, since the first was slow.
    pub hedges: u64,
}

impl Totals {
    /// Returns how many requests were answered.
    pub fn requests(&self) -> u64 {
        self.codes.values().sum()
    }

    /// Returns how many were answered with a status of this hundred, such as 5.
    pub fn hundred(&self, hundred: u16) -> u64 {
        let of = |&(&code, _): &(&u16, &u64)| code / 100 == hundred;
        self.codes.iter().filter(of).map(|(_, count)| count).sum()
    }
}

/// Returns how many shards there are: a power of two, twice the cores, for the threads of both
/// paths run side by side.
fn shards() -> usize {
    static COUNT: OnceLock<usize> = OnceLock::new();
    *COUNT.get_or_init(|| {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        (cores * 2).next_power_of_two().min(SHARDS_MAX)
    })
}

/// Returns the number of this thread, in the order in which threads first counted.
pub(crate) fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    NUMBER.with(|number| {
        let mut mine = number.get();
        if mine == usize::MAX {
            mine = NEXT.fetch_add(1, Ordering::Relaxed);
            number.set(mine);
        }
        mine
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_count_into_one_total() {
        let stats = ServiceStats::new();
        std::thread::scope(|scope| {
            for thread in 0..8u16 {
                let stats = &stats;
                scope.spawn(move || {
                    for request in 0..1000 {
                        let code = if request % 10 == 0 {
                            503
                        } else {
                            200 + thread % 2
                        };
                        let traffic = Traffic {
                            received: 1,
                            sent: 10,
                        };
                        stats.finished(code, Duration::from_millis(1), traffic);
                    }
                    stats.retried();
                    stats.hedged();
                });
            }
        });
        let totals = stats.total();
        let codes = [(200, 3600), (201, 3600), (503, 800)];
        assert_eq!(totals.codes, BTreeMap::from(codes));
        assert_eq!((totals.requests(), totals.hundred(5)), (8000, 800));
        assert_eq!(totals.latency.count(), 8000);
        assert_eq!(totals.latency.sum, Duration::from_secs(8));
        let traffic = Traffic {
            received: 8000,
            sent: 80_000,
        };
        assert_eq!((totals.traffic, totals.retries), (traffic, 8));
        assert_eq!(totals.hedges, 8);
    }

    #[test]
    fn every_status_is_counted_under_its_own_name_up_to_a_bound() {
        let stats = ServiceStats::new();
        for code in 0..=u16::MAX {
            stats.finished(code, Duration::ZERO, Traffic::default());
        }
        let totals = stats.total();
        assert_eq!(totals.requests(), u64::from(u16::MAX) + 1);
        assert_eq!(totals.codes.len(), CODES.len() + ODD_CODES_MAX + 1);
        assert!(CODES.iter().all(|code| totals.codes[code] == 1));
        assert_eq!(totals.codes[&0], 1);
    }
}
