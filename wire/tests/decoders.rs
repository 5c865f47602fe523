//! Every decoder against random bytes and mutated golden bytes: an error or a message, never a
//! panic, and what decodes encodes to the same message again.
//!
//! The same properties run under cargo-fuzz (`fuzz/`), with coverage and without an end; this runs
//! everywhere.

#[allow(unused_imports, reason = "each test file uses a part")]
mod samples;

use std::fmt::Debug;

use ballast_wire::{from_bytes, to_bytes};
use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use samples::Sample;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Inputs for each decoder.
const CASES: u32 = 200_000;
/// Bytes of a random input at most.
const RANDOM_BYTES: usize = 96;

/// Returns random bytes, or a sample with a few bytes flipped, cut, doubled or put elsewhere.
fn input(rng: &mut StdRng, seeds: &[Vec<u8>], out: &mut Vec<u8>) {
    out.clear();
    if rng.random_ratio(1, 4) {
        out.resize(rng.random_range(0..RANDOM_BYTES), 0);
        rng.fill_bytes(out);
        // Else nearly all would end at the version byte.
        if let Some(version) = out.first_mut().filter(|_| rng.random_ratio(7, 8)) {
            *version = ballast_wire::VERSION;
        }
        return;
    }
    out.extend_from_slice(&seeds[rng.random_range(0..seeds.len())]);
    for _ in 0..rng.random_range(0..4) {
        if out.is_empty() {
            return;
        }
        let at = rng.random_range(0..out.len());
        match rng.random_range(0..6) {
            0 => out[at] = rng.random(),
            1 => out[at] ^= 1 << rng.random_range(0..8),
            2 => out.truncate(at),
            3 => out.insert(at, rng.random()),
            // A length that promises far more than there is.
            4 => drop(out.splice(at..at, [0xff, 0xff, 0xff, 0xff, 0x0f])),
            _ => out.extend_from_within(at..),
        }
    }
}

fn hold<M>(seed: u64, samples: Vec<Sample<M>>)
where
    M: Serialize + DeserializeOwned + PartialEq + Debug,
{
    let seeds: Vec<Vec<u8>> = samples
        .iter()
        .map(|sample| to_bytes(&sample.message).expect("short"))
        .collect();
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut bytes, mut decoded) = (Vec::new(), 0);
    for _ in 0..CASES {
        input(&mut rng, &seeds, &mut bytes);
        if let Ok(message) = from_bytes::<M>(&bytes) {
            decoded += 1;
            let again = to_bytes(&message).expect("no longer than what it was read from");
            assert_eq!(from_bytes::<M>(&again), Ok(message), "from {bytes:02x?}");
        }
    }
    assert!(
        decoded > CASES / 100,
        "mutations are gentle enough: {decoded} decoded"
    );
    assert!(decoded < CASES, "mutations are harsh enough");
}

#[test]
fn agent_messages_survive_garbage() {
    hold(1, samples::agent_to_managers());
}

#[test]
fn messages_to_agents_survive_garbage() {
    hold(2, samples::manager_to_agents());
}

#[test]
fn ingress_messages_survive_garbage() {
    hold(3, samples::ingress_to_managers());
}

#[test]
fn messages_to_ingresses_survive_garbage() {
    hold(4, samples::manager_to_ingresses());
}

#[test]
fn feed_messages_survive_garbage() {
    hold(5, samples::agent_to_ingresses());
}

#[test]
fn feed_answers_survive_garbage() {
    hold(6, samples::ingress_to_agents());
}

#[test]
fn join_requests_survive_garbage() {
    hold(7, samples::join_requests());
}

#[test]
fn join_responses_survive_garbage() {
    hold(8, samples::join_responses());
}

#[test]
fn log_commands_survive_garbage() {
    hold(9, samples::commands());
}
