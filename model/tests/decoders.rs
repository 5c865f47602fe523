//! The text decoders against random and mutated text: a value or an error, never a panic, and what
//! reads prints to text that reads as the same value.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use ballast_model::{Bytes, Constraint, MilliCpu, Millis, NodeId, PortSpec, Timestamp};
use proptest::prelude::Rng as _;
use proptest::test_runner::{RngAlgorithm, TestRng};

/// Inputs for each decoder.
const CASES: u32 = 200_000;
/// What random characters are drawn from: what the languages are made of, and some that none has.
const ALPHABET: &[char] = &[
    '0',
    '1',
    '9',
    '.',
    '-',
    '+',
    '=',
    '<',
    '>',
    '(',
    ')',
    ',',
    '!',
    ':',
    '/',
    ' ',
    'a',
    'm',
    'k',
    'g',
    's',
    'h',
    'T',
    'Z',
    'e',
    'N',
    '\0',
    '\n',
    'é',
    '\u{1F680}',
    '\u{202e}',
];

struct Draw(TestRng);

impl Draw {
    fn below(&mut self, bound: usize) -> usize {
        self.0.next_u32() as usize % bound.max(1)
    }

    /// Returns random text, or a seed with a few characters changed, cut, doubled or put in.
    fn text(&mut self, seeds: &[&str]) -> String {
        let mut text: Vec<char> = if self.below(4) == 0 {
            (0..self.below(24))
                .map(|_| ALPHABET[self.below(ALPHABET.len())])
                .collect()
        } else {
            seeds[self.below(seeds.len())].chars().collect()
        };
        for _ in 0..self.below(4) {
            let at = self.below(text.len());
            let drawn = ALPHABET[self.below(ALPHABET.len())];
            match self.below(4) {
                0 if !text.is_empty() => text[at] = drawn,
                1 => text.truncate(at),
                2 => text.insert(at, drawn),
                _ => text.extend_from_within(at..),
            }
        }
        text.into_iter().collect()
    }
}

fn hold<T>(seed: u8, seeds: &[&str], mut check: impl FnMut(&T, &str))
where
    T: FromStr,
    T::Err: Display,
{
    let mut draw = Draw(TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]));
    let mut read = 0;
    for _ in 0..CASES {
        let text = draw.text(seeds);
        match text.parse::<T>() {
            Ok(value) => {
                read += 1;
                check(&value, &text);
            }
            Err(error) => {
                // Errors travel: however long the input was, they are short.
                let words = error.to_string();
                assert!(words.len() < 1024, "{words}");
            }
        }
    }
    assert!(
        read > CASES / 100,
        "mutations are gentle enough: {read} read"
    );
    assert!(read < CASES, "mutations are harsh enough");
}

/// What prints as it reads.
fn hold_round_trip<T>(seed: u8, seeds: &[&str])
where
    T: FromStr + Display + PartialEq + Debug,
    T::Err: Display + Debug + PartialEq,
{
    hold::<T>(seed, seeds, |value, text| {
        assert_eq!(
            value.to_string().parse::<T>().as_ref(),
            Ok(value),
            "from {text:?}"
        );
    });
}

#[test]
fn constraints_survive_garbage() {
    let seeds = [
        "node.labels.zone==b",
        "node.name!=n1",
        "node.attributes.os == linux",
        "node.labels.zone in (a, b)",
        "node.labels.zone not in (a,b)",
        "node.labels.gpu !exists",
        "node.labels.disk>=64GiB",
        "node.attributes.kernel version >=5.10,<6.2",
    ];
    hold_round_trip::<Constraint>(1, &seeds);
}

#[test]
fn published_ports_survive_garbage() {
    let seeds = ["8080:http", "6379:redis/tcp", "8080:80/http", "53:dns/udp"];
    hold::<PortSpec>(2, &seeds, |port, text| {
        assert!(port.published.is_some_and(|number| number > 0), "{text:?}");
        assert!(!port.name.is_empty(), "{text:?}");
    });
}

#[test]
fn cpu_survives_garbage() {
    hold_round_trip::<MilliCpu>(3, &["0.5", "2", "250m", "1024.001"]);
}

#[test]
fn sizes_survive_garbage() {
    hold::<Bytes>(
        4,
        &["64m", "512MiB", "1g", "1073741824", "16 tb"],
        |_, _| {},
    );
}

#[test]
fn spans_survive_garbage() {
    hold_round_trip::<Millis>(5, &["500ms", "10s", "1m30s", "2h", "1.5s", "7d"]);
}

#[test]
fn moments_survive_garbage() {
    let seeds = ["2026-01-31T12:00:00.000000Z", "2023-11-14T22:13:20+02:00"];
    hold_round_trip::<Timestamp>(6, &seeds);
}

#[test]
fn ids_survive_garbage() {
    hold_round_trip::<NodeId>(7, &["0000000000001", "fzzzzzzzzzzzz", "3h4ds4ad83j60"]);
}
