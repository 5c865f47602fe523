//! Ids: 64 random bits each, written as 13 characters of lowercase Crockford base32.
//!
//! Whoever makes a thing draws its id before the command that creates it is proposed, so that
//! `apply` stays a pure function. The type says what the bits name; nothing converts between them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Characters of one id in text: ⌈64 / 5⌉.
const TEXT_LEN: usize = 13;
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// A text that is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an id: an id has 13 characters of 0-9 and a-z without i, l, o and u")]
pub struct InvalidId(pub String);

fn encode(bits: u64, out: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut text = [0u8; TEXT_LEN];
    let mut rest = bits;
    for slot in text.iter_mut().rev() {
        *slot = ALPHABET[(rest & 31) as usize];
        rest >>= 5;
    }
    out.pad(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
}

fn decode(text: &str) -> Result<u64, InvalidId> {
    let invalid = || InvalidId(text.chars().take(32).collect());
    if text.len() != TEXT_LEN {
        return Err(invalid());
    }
    let mut bits: u64 = 0;
    for (place, byte) in text.bytes().enumerate() {
        let digit = ALPHABET
            .iter()
            .position(|&known| known == byte)
            .ok_or_else(invalid)? as u64;
        // 13 × 5 = 65 bits: the first character has room for four.
        if place == 0 && digit > 15 {
            return Err(invalid());
        }
        bits = bits << 5 | digit;
    }
    Ok(bits)
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u64);

        impl $name {
            /// Names the thing with these bits; the caller drew them at random.
            pub const fn from_bits(bits: u64) -> Self {
                Self(bits)
            }

            /// Returns the 64 bits.
            pub const fn to_bits(self) -> u64 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                encode(self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                decode(text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    serializer.serialize_u64(self.0)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                    text.parse().map_err(serde::de::Error::custom)
                } else {
                    u64::deserialize(deserializer).map(Self)
                }
            }
        }
    };
}

id!(
    /// Names one cluster; part of every certificate, so that two clusters never mix.
    ClusterId
);
id!(
    /// Names a machine that runs an agent.
    NodeId
);
id!(
    /// Names an ingress process.
    IngressId
);
id!(
    /// Names a manager; also its id in Raft.
    ManagerId
);
id!(
    /// Names a service for as long as it exists; a service made again gets a new one.
    ServiceId
);
id!(
    /// Names one try at running a slot.
    TaskId
);
id!(
    /// Names the binding of a slot to a node, with its resources and ports.
    ///
    /// Local restarts stay inside one assignment: same node, same ports, a new [`TaskId`] each.
    /// So an endpoint is named by its assignment, and its health can be pushed in one hop
    /// while the manager is away.
    AssignmentId
);

/// The numbered place in a service that a task fills: 1.. for replicated services and jobs,
/// 0 for the one task that a global service has on each node.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
#[serde(transparent)]
pub struct Slot(pub u32);

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn prop_text_round_trips(bits: u64) {
            let id = TaskId::from_bits(bits);
            prop_assert_eq!(id.to_string().parse::<TaskId>(), Ok(id));
        }

        #[test]
        fn prop_garbage_is_an_error_not_a_panic(text in ".{0,40}") {
            if let Ok(id) = text.parse::<NodeId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }

    #[test]
    fn first_character_past_64_bits_is_refused() {
        assert!("zzzzzzzzzzzzz".parse::<NodeId>().is_err());
        assert_eq!(
            "fzzzzzzzzzzzz".parse::<NodeId>().map(NodeId::to_bits),
            Ok(u64::MAX)
        );
    }
}
