//! Rate limits: a token bucket for each client of a route.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ballast_model::RateLimit;

use super::key::{client_bytes, with_key};
use super::{Answer, RequestView};
use crate::table::Moment;

/// Clients of one route that are remembered at once, in all shards together. When it is full, one
/// that is near its full bucket is forgotten: it may ask more than it should, nobody less.
pub(super) const CLIENTS: usize = 65_536;
/// Locks they are spread over, so that threads seldom meet.
const SHARDS: usize = 16;
/// Between two looks for clients whose bucket is full again.
const SWEEP: u64 = 100_000_000;
/// How many are compared when one must be forgotten.
const LOOKED_AT: usize = 8;

/// A token bucket for each client, as GCRA keeps it: when the bucket will be full again.
#[derive(Debug)]
pub(super) struct Limiter {
    spec: RateLimit,
    /// Nanoseconds that one request takes from the bucket.
    cost: u64,
    /// Nanoseconds that the bucket holds.
    depth: u64,
    hasher: RandomState,
    shards: [Mutex<Shard>; SHARDS],
}

#[derive(Debug, Default)]
struct Shard {
    full_at: HashMap<u64, u64>,
    swept: u64,
}

impl Limiter {
    pub fn new(spec: &RateLimit) -> Self {
        let per = u64::try_from(spec.per.to_duration().as_nanos()).unwrap_or(u64::MAX);
        let cost = (per / u64::from(spec.requests.max(1))).max(1);
        let burst = u64::from(spec.burst.unwrap_or(spec.requests).max(1));
        Self {
            cost,
            depth: cost.saturating_mul(burst),
            hasher: RandomState::new(),
            shards: Default::default(),
            spec: spec.clone(),
        }
    }

    /// Takes one request from the bucket of the client.
    ///
    /// # Errors
    /// The answer, with the seconds after which there is room.
    pub fn take(&self, request: &RequestView<'_>, now: Moment) -> Result<(), Answer> {
        // Seeded: nobody can choose a key that shares another client's bucket.
        let hash = |bytes: &[u8]| self.hasher.hash_one(bytes);
        let key = with_key(&self.spec.by, request, hash);
        let key = key.unwrap_or_else(|| hash(&client_bytes(request.client)));
        match self.take_key(key, now) {
            Ok(()) => Ok(()),
            Err(wait) => {
                let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
                let title = "too many requests of this client";
                let answer = Answer::problem(429, "rate-limited", title);
                Err(answer.with("retry-after", seconds.max(1).to_string()))
            }
        }
    }

    fn take_key(&self, key: u64, now: Moment) -> Result<(), Duration> {
        let now = now.0.saturating_mul(1000);
        let index = usize::try_from(key % SHARDS as u64).unwrap_or(0);
        // Each step leaves the map whole.
        let mut shard = self.shards[index]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let before = shard.full_at.get(&key).copied();
        let full_at = before.unwrap_or(0).max(now).saturating_add(self.cost);
        if full_at - now > self.depth {
            return Err(Duration::from_nanos(full_at - now - self.depth));
        }
        if before.is_none() && shard.full_at.len() >= CLIENTS / SHARDS {
            shard.make_room(now);
        }
        shard.full_at.insert(key, full_at);
        Ok(())
    }
}

impl Shard {
    fn make_room(&mut self, now: u64) {
        if now.saturating_sub(self.swept) >= SWEEP {
            self.swept = now;
            self.full_at.retain(|_, full_at| *full_at > now);
        }
        if self.full_at.len() >= CLIENTS / SHARDS {
            let looked_at = self.full_at.iter().take(LOOKED_AT);
            let fullest = looked_at.min_by_key(|(_, full_at)| **full_at);
            if let Some(key) = fullest.map(|(&key, _)| key) {
                self.full_at.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ballast_model::{Millis, RequestKey};
    use proptest::prelude::*;

    use super::*;

    fn limiter(requests: u32, per: u64, burst: Option<u32>) -> Limiter {
        Limiter::new(&RateLimit {
            requests,
            per: Millis(per),
            burst,
            by: RequestKey::Client,
        })
    }

    #[test]
    fn burst_passes_at_once_and_then_the_rate() {
        let limiter = limiter(10, 1000, Some(3));
        let at = |ms: u64| Moment(ms * 1000);
        for _ in 0..3 {
            assert_eq!(limiter.take_key(1, at(5000)), Ok(()));
        }
        assert_eq!(
            limiter.take_key(1, at(5000)),
            Err(Duration::from_millis(100))
        );
        assert_eq!(limiter.take_key(2, at(5000)), Ok(()), "another client");
        assert_eq!(limiter.take_key(1, at(5100)), Ok(()));
        assert_eq!(
            limiter.take_key(1, at(5150)),
            Err(Duration::from_millis(50))
        );
    }

    #[test]
    fn clients_are_bounded_and_the_spent_are_not_forgotten_for_the_full() {
        let limiter = limiter(1, 1000, None);
        let now = Moment(1_000_000);
        for key in 0..200_000 {
            assert_eq!(limiter.take_key(key, now), Ok(()));
        }
        let known: usize = limiter
            .shards
            .iter()
            .map(|shard| shard.lock().expect("whole").full_at.len())
            .sum();
        assert_eq!(known, CLIENTS);
        let later = Moment(3_000_000);
        for key in 0..16 {
            assert_eq!(limiter.take_key(key + 500_000, later), Ok(()));
        }
        let known: usize = limiter
            .shards
            .iter()
            .map(|shard| shard.lock().expect("whole").full_at.len())
            .sum();
        assert_eq!(known, 16, "those whose bucket is full again are swept");
    }

    proptest! {
        #[test]
        fn prop_no_window_lets_more_through_than_burst_and_rate(
            requests in 1u32..50,
            burst in 1u32..50,
            steps in proptest::collection::vec(0u64..100_000, 1..300),
        ) {
            let limiter = limiter(requests, 1000, Some(burst));
            let mut now = 1_000_000;
            let mut passed: Vec<u64> = Vec::new();
            for step in steps {
                now += step;
                if limiter.take_key(7, Moment(now)).is_ok() {
                    passed.push(now);
                }
            }
            for (first, &from) in passed.iter().enumerate() {
                for (last, &to) in passed.iter().enumerate().skip(first) {
                    let count = (last - first + 1) as u64;
                    let earned = (to - from) * u64::from(requests) / 1_000_000;
                    prop_assert!(count <= u64::from(burst) + earned + 1);
                }
            }
        }
    }
}
