//! A hash map by id, without an order.
//!
//! `BTreeMap` is the rule in this crate, as hash order differs from run to run. Here nothing walks
//! in hash order: what walks gives the keys sorted, or does not care. A million assignments are
//! looked up some five times as fast as in a tree, and a rebuild has one second.
#![allow(
    clippy::disallowed_types,
    reason = "nothing can see the order of this map"
)]

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// Values by id or other small numbers.
#[derive(Debug, Clone)]
pub(crate) struct IdMap<K, V>(HashMap<K, V, BuildHasherDefault<Mixer>>);

impl<K, V> Default for IdMap<K, V> {
    fn default() -> Self {
        Self(HashMap::default())
    }
}

impl<K: Copy + Eq + Hash + Ord, V> IdMap<K, V> {
    pub(crate) fn get(&self, key: K) -> Option<&V> {
        self.0.get(&key)
    }

    pub(crate) fn get_mut(&mut self, key: K) -> Option<&mut V> {
        self.0.get_mut(&key)
    }

    pub(crate) fn contains(&self, key: K) -> bool {
        self.0.contains_key(&key)
    }

    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        self.0.insert(key, value)
    }

    pub(crate) fn remove(&mut self, key: K) -> Option<V> {
        self.0.remove(&key)
    }

    pub(crate) fn entry_or(&mut self, key: K, value: impl FnOnce() -> V) -> &mut V {
        self.0.entry(key).or_insert_with(value)
    }

    pub(crate) fn reserve(&mut self, more: usize) {
        self.0.reserve(more);
    }

    /// Keeps the entries that pass; whether one does must not depend on the others.
    pub(crate) fn retain(&mut self, mut passes: impl FnMut(&V) -> bool) {
        self.0.retain(|_, value| passes(value));
    }

    /// Returns the keys in their order.
    pub(crate) fn sorted_keys(&self) -> Vec<K> {
        let mut keys: Vec<K> = self.0.keys().copied().collect();
        keys.sort_unstable();
        keys
    }

    /// Visits every entry, in an order that the visit must not depend on.
    pub(crate) fn each(&self, mut visit: impl FnMut(K, &V)) {
        for (&key, value) in &self.0 {
            visit(key, value);
        }
    }

    /// Visits every entry for a change, in an order that the change must not depend on.
    pub(crate) fn each_mut(&mut self, mut visit: impl FnMut(K, &mut V)) {
        for (&key, value) in &mut self.0 {
            visit(key, value);
        }
    }
}

/// Large values by id: a list of them, and their places by id, so that a million of them are
/// written one after the other and not all over twice the memory.
#[derive(Debug, Clone)]
pub(crate) struct IdSlab<K, V> {
    places: IdMap<K, u32>,
    values: Vec<Option<V>>,
    vacant: Vec<u32>,
}

impl<K, V> Default for IdSlab<K, V> {
    fn default() -> Self {
        Self {
            places: IdMap::default(),
            values: Vec::new(),
            vacant: Vec::new(),
        }
    }
}

impl<K: Copy + Eq + Hash + Ord, V> IdSlab<K, V> {
    pub(crate) fn get(&self, key: K) -> Option<&V> {
        let place = *self.places.get(key)?;
        self.values[place as usize].as_ref()
    }

    pub(crate) fn contains(&self, key: K) -> bool {
        self.places.contains(key)
    }

    /// Adds a value; returns whether the key was new. If it was not, nothing changes.
    pub(crate) fn insert(&mut self, key: K, value: V) -> bool {
        if self.contains(key) {
            return false;
        }
        let place = if let Some(place) = self.vacant.pop() {
            self.values[place as usize] = Some(value);
            place
        } else {
            self.values.push(Some(value));
            u32::try_from(self.values.len() - 1).expect("fewer values than 2^32")
        };
        self.places.insert(key, place);
        true
    }

    pub(crate) fn remove(&mut self, key: K) -> Option<V> {
        let place = self.places.remove(key)?;
        self.vacant.push(place);
        self.values[place as usize].take()
    }

    pub(crate) fn reserve(&mut self, more: usize) {
        self.places.reserve(more);
        self.values.reserve(more);
    }

    /// Keeps the values that pass; whether one does must not depend on the others.
    pub(crate) fn retain(&mut self, mut passes: impl FnMut(&V) -> bool) {
        let (values, vacant) = (&mut self.values, &mut self.vacant);
        self.places.retain(|&place| {
            let slot = &mut values[place as usize];
            let keep = slot.as_ref().is_some_and(&mut passes);
            if !keep {
                *slot = None;
                vacant.push(place);
            }
            keep
        });
    }

    /// Returns the keys in their order.
    pub(crate) fn sorted_keys(&self) -> Vec<K> {
        self.places.sorted_keys()
    }
}

/// Mixes the bits of a key with one multiplication. Ids are drawn at random by the manager, so
/// nobody outside chooses keys that collide.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Mixer(u64);

/// 2⁶⁴ divided by the golden ratio.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        let product = u128::from(self.0.rotate_left(5) ^ value) * u128::from(GOLDEN);
        // Both halves: the map takes its buckets from the low bits and its tags from the high.
        #[expect(clippy::cast_possible_truncation, reason = "the halves are folded")]
        let folded = (product as u64) ^ ((product >> 64) as u64);
        self.0 = folded;
    }

    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }
}
