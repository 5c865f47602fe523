//! Placement constraints: `node.labels.zone==b`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One condition on a node.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Constraint {
    /// Which property of the node.
    pub key: NodeKey,
    /// How it is compared.
    pub op: ConstraintOp,
    /// With what.
    pub value: String,
}

/// A property of a node.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum NodeKey {
    /// `node.id`
    Id,
    /// `node.name`; Compose's `node.hostname` means the same.
    Name,
    /// `node.labels.KEY`: set by the operator.
    Label(String),
    /// `node.attributes.KEY`: reported by the agent (`os`, `arch`, `kernel`); Compose's
    /// `node.platform.os` and `.arch` mean the same.
    Attribute(String),
}

/// How a property is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConstraintOp {
    /// `==`; a node without the property does not match.
    Equal,
    /// `!=`; a node without the property matches.
    NotEqual,
}

/// A constraint that does not parse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a constraint: {reason}; write `node.labels.KEY==VALUE`, or `!=`, or one of node.id, node.name, node.attributes.KEY"
)]
pub struct InvalidConstraint {
    /// What was given, cut to 128 characters.
    pub text: String,
    /// What is wrong with it.
    pub reason: String,
}

impl fmt::Display for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id => f.write_str("node.id"),
            Self::Name => f.write_str("node.name"),
            Self::Label(key) => write!(f, "node.labels.{key}"),
            Self::Attribute(key) => write!(f, "node.attributes.{key}"),
        }
    }
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let op = match self.op {
            ConstraintOp::Equal => "==",
            ConstraintOp::NotEqual => "!=",
        };
        write!(f, "{}{op}{}", self.key, self.value)
    }
}

impl FromStr for Constraint {
    type Err = InvalidConstraint;

    fn from_str(text: &str) -> Result<Self, InvalidConstraint> {
        let invalid = |reason: &str| InvalidConstraint {
            text: text.chars().take(128).collect(),
            reason: reason.to_owned(),
        };
        let equal = text.find("==").map(|at| (at, ConstraintOp::Equal));
        let not_equal = text.find("!=").map(|at| (at, ConstraintOp::NotEqual));
        let (at, op) = [equal, not_equal]
            .into_iter()
            .flatten()
            .min_by_key(|&(at, _)| at)
            .ok_or_else(|| invalid("it has neither == nor !="))?;
        let (key, value) = (text[..at].trim(), text[at + 2..].trim());
        if value.is_empty() {
            return Err(invalid("nothing to compare with"));
        }
        // `a! == b` would print as `a!==b`, which reads as something else.
        if key.contains(['!', '=']) {
            return Err(invalid("a key has no `!` and no `=`"));
        }
        let key = match key {
            "node.id" => NodeKey::Id,
            "node.name" | "node.hostname" => NodeKey::Name,
            "node.platform.os" => NodeKey::Attribute("os".to_owned()),
            "node.platform.arch" => NodeKey::Attribute("arch".to_owned()),
            _ => match (
                key.strip_prefix("node.labels."),
                key.strip_prefix("node.attributes."),
            ) {
                (Some(label), _) if !label.is_empty() => NodeKey::Label(label.to_owned()),
                (_, Some(attribute)) if !attribute.is_empty() => {
                    NodeKey::Attribute(attribute.to_owned())
                }
                _ => return Err(invalid(&format!("a node has no property `{key}`"))),
            },
        };
        Ok(Self {
            key,
            op,
            value: value.to_owned(),
        })
    }
}

impl Serialize for Constraint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Constraint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn constraints_read_and_print() {
        for text in [
            "node.labels.zone==b",
            "node.name!=n1",
            "node.attributes.os==linux",
        ] {
            assert_eq!(
                text.parse::<Constraint>().map(|c| c.to_string()),
                Ok(text.to_owned())
            );
        }
        for text in [
            "zone==b",
            "node.labels.zone",
            "node.labels.==b",
            "node.labels.zone==",
            "node.labels.zone! == b",
            "",
        ] {
            assert!(text.parse::<Constraint>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn prop_garbage_is_an_error_not_a_panic(text in ".{0,64}") {
            let _ = text.parse::<Constraint>();
        }
    }
}
