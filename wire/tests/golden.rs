//! The bytes of one message of each kind, held against `golden.txt`.
//!
//! A change of the encoding fails here: it breaks clusters of mixed versions and logs on disk, and
//! needs a new [`ballast_wire::VERSION`]. New messages are added by `BALLAST_BLESS=1`.

#[allow(unused_imports, reason = "each test file uses a part")]
mod samples;

use std::collections::BTreeMap;
use std::fmt::{Debug, Write as _};

use ballast_wire::{from_bytes, to_bytes};
use samples::Sample;
use serde::Serialize;
use serde::de::DeserializeOwned;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden.txt");

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes all");
        text
    })
}

/// Encodes samples, and proves that each decodes to itself and that every variant has one.
fn add<M>(to: &mut BTreeMap<String, String>, samples: Vec<Sample<M>>, variants: &[&str])
where
    M: Serialize + DeserializeOwned + PartialEq + Debug,
{
    for variant in variants {
        let has = samples.iter().any(|sample| sample.name == *variant);
        assert!(has, "{variant} has no sample");
    }
    for Sample { name, message } in samples {
        let bytes = to_bytes(&message).expect("short");
        assert_eq!(from_bytes::<M>(&bytes).as_ref(), Ok(&message), "{name}");
        let before = to.insert(name.to_owned(), hex(&bytes));
        assert!(before.is_none(), "{name} has two samples");
    }
}

fn encoded() -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    add(
        &mut all,
        samples::agent_to_managers(),
        samples::AGENT_TO_MANAGER,
    );
    add(
        &mut all,
        samples::manager_to_agents(),
        samples::MANAGER_TO_AGENT,
    );
    add(
        &mut all,
        samples::ingress_to_managers(),
        samples::INGRESS_TO_MANAGER,
    );
    add(
        &mut all,
        samples::manager_to_ingresses(),
        samples::MANAGER_TO_INGRESS,
    );
    add(
        &mut all,
        samples::agent_to_ingresses(),
        samples::AGENT_TO_INGRESS,
    );
    add(
        &mut all,
        samples::ingress_to_agents(),
        samples::INGRESS_TO_AGENT,
    );
    add(&mut all, samples::join_requests(), &[]);
    add(&mut all, samples::join_responses(), samples::JOIN_RESPONSE);
    add(&mut all, samples::commands(), samples::COMMAND);
    all
}

#[test]
fn every_message_has_its_golden_bytes() {
    let encoded = encoded();
    if std::env::var_os("BALLAST_BLESS").is_some() {
        let lines: String = encoded.iter().fold(String::new(), |mut text, (name, hex)| {
            writeln!(text, "{name} {hex}").expect("a string takes all");
            text
        });
        std::fs::write(GOLDEN, lines).expect("the golden file can be written");
    }
    let golden = std::fs::read_to_string(GOLDEN).expect("tests/golden.txt exists");
    let golden: BTreeMap<&str, &str> = golden
        .lines()
        .filter_map(|line| line.split_once(' '))
        .collect();
    let mut wrong = Vec::new();
    for (name, hex) in &encoded {
        match golden.get(name.as_str()) {
            None => wrong.push(format!("{name} is new: run with BALLAST_BLESS=1")),
            Some(golden) if golden != hex => {
                wrong.push(format!("{name} was {golden} and is {hex}"));
            }
            Some(_) => {}
        }
    }
    let gone = golden.keys().filter(|name| !encoded.contains_key(**name));
    wrong.extend(gone.map(|name| format!("{name} is gone")));
    assert!(
        wrong.is_empty(),
        "the encoding changed:\n{}",
        wrong.join("\n")
    );
}
