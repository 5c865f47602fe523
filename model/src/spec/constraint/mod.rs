//! Placement constraints: `node.labels.zone==b`.
//!
//! | written | holds on a node |
//! | --- | --- |
//! | `KEY==VALUE` | whose property has this very value |
//! | `KEY!=VALUE` | whose property has another value, or none |
//! | `KEY in (A,B)` | whose property has one of these values |
//! | `KEY not in (A,B)` | whose property has none of these values, or none at all |
//! | `KEY exists` | that has the property |
//! | `KEY !exists` | that lacks it |
//! | `KEY>N`, `>=`, `<`, `<=` | whose property is a [`Quantity`] on that side of this one |
//! | `KEY version >=A,<B` | whose property is a [`Version`] that meets every comparison |
//!
//! `KEY` is one of [`NodeKey`]. Space around an operator does not matter. Values of `==` and `!=`
//! reach to the end of the text; those in a list hold no comma and no parenthesis.

mod contradiction;
mod parse;
mod quantity;
mod version;

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use contradiction::{Contradiction, contradiction};
pub use parse::InvalidConstraint;
pub use quantity::Quantity;
pub use version::{Version, VersionBound};

/// One condition on a node.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Constraint {
    /// Which property of the node.
    pub key: NodeKey,
    /// What must be true of it.
    pub condition: Condition,
}

/// A property of a node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
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

/// What must be true of a property.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Condition {
    /// `==`; a node without the property does not match.
    Equal(String),
    /// `!=`; a node without the property matches.
    NotEqual(String),
    /// `in (…)`; a node without the property does not match.
    In(Vec<String>),
    /// `not in (…)`; a node without the property matches.
    NotIn(Vec<String>),
    /// `exists`
    Exists,
    /// `!exists`
    Absent,
    /// `>`, `>=`, `<` or `<=`; a node without the property, or where it is no number, does not
    /// match.
    Compare(CompareOp, Quantity),
    /// `version …`: all comparisons hold; a node without the property, or where it is no version,
    /// does not match.
    Version(Vec<VersionBound>),
}

/// How two values are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CompareOp {
    /// `>`
    Above,
    /// `>=`
    AtLeast,
    /// `<`
    Below,
    /// `<=`
    AtMost,
    /// `==`: of versions only.
    Is,
    /// `!=`: of versions only.
    IsNot,
}

impl CompareOp {
    /// Returns whether `left OP right` holds.
    pub fn holds<T: Ord>(self, left: &T, right: &T) -> bool {
        match self {
            Self::Above => left > right,
            Self::AtLeast => left >= right,
            Self::Below => left < right,
            Self::AtMost => left <= right,
            Self::Is => left == right,
            Self::IsNot => left != right,
        }
    }

    /// Returns how it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Above => ">",
            Self::AtLeast => ">=",
            Self::Below => "<",
            Self::AtMost => "<=",
            Self::Is => "==",
            Self::IsNot => "!=",
        }
    }
}

impl Condition {
    /// Returns whether it holds where the property has this value, or is not there.
    pub fn holds(&self, value: Option<&str>) -> bool {
        match self {
            Self::Equal(wanted) => value == Some(wanted),
            Self::NotEqual(other) => value != Some(other),
            Self::In(wanted) => value.is_some_and(|value| wanted.iter().any(|w| w == value)),
            Self::NotIn(others) => !value.is_some_and(|value| others.iter().any(|o| o == value)),
            Self::Exists => value.is_some(),
            Self::Absent => value.is_none(),
            Self::Compare(op, bound) => value
                .and_then(|value| value.parse::<Quantity>().ok())
                .is_some_and(|value| op.holds(&value.value(), &bound.value())),
            Self::Version(bounds) => value
                .and_then(|value| value.parse::<Version>().ok())
                .is_some_and(|value| bounds.iter().all(|bound| bound.holds(&value))),
        }
    }
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
        let key = &self.key;
        match &self.condition {
            Condition::Equal(value) => write!(f, "{key}=={value}"),
            Condition::NotEqual(value) => write!(f, "{key}!={value}"),
            Condition::In(values) => write!(f, "{key} in ({})", values.join(",")),
            Condition::NotIn(values) => write!(f, "{key} not in ({})", values.join(",")),
            Condition::Exists => write!(f, "{key} exists"),
            Condition::Absent => write!(f, "{key} !exists"),
            Condition::Compare(op, bound) => write!(f, "{key}{}{bound}", op.as_str()),
            Condition::Version(bounds) => {
                write!(f, "{key} version ")?;
                for (place, bound) in bounds.iter().enumerate() {
                    let comma = if place == 0 { "" } else { "," };
                    write!(f, "{comma}{bound}")?;
                }
                Ok(())
            }
        }
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

    /// Returns whether the constraint holds where the property has this value.
    fn holds(text: &str, value: impl Into<Option<&'static str>>) -> bool {
        let constraint: Constraint = text.parse().expect("reads");
        constraint.condition.holds(value.into())
    }

    #[test]
    fn missing_property_meets_only_what_denies() {
        for (text, met) in [
            ("node.labels.a==x", false),
            ("node.labels.a!=x", true),
            ("node.labels.a in (x)", false),
            ("node.labels.a not in (x)", true),
            ("node.labels.a exists", false),
            ("node.labels.a !exists", true),
            ("node.labels.a>1", false),
            ("node.labels.a version !=1", false),
        ] {
            assert_eq!(holds(text, None), met, "{text}");
        }
    }

    #[test]
    fn sets_hold_their_members() {
        assert!(holds("node.labels.a in (x, y)", "y"));
        assert!(!holds("node.labels.a in (x, y)", "z"));
        assert!(!holds("node.labels.a not in (x, y)", "x"));
        assert!(holds("node.labels.a not in (x, y)", "z"));
    }

    #[test]
    fn amounts_compare_as_numbers_in_any_unit() {
        assert!(holds("node.labels.disk>=64GiB", "65536m"));
        assert!(!holds("node.labels.disk>64GiB", "64g"));
        assert!(holds("node.labels.n>9", "10"));
        assert!(holds("node.labels.n<-0.5", "-0.75"));
        for no_number in ["", "ten", "NaN", "inf", "1e9", "0x10", "1 2"] {
            assert!(!holds("node.labels.n>=0", no_number), "{no_number}");
            assert!(!holds("node.labels.n<=0", no_number), "{no_number}");
        }
    }

    #[test]
    fn versions_compare_by_number_not_by_text() {
        let range = "node.attributes.kernel version >=5.10,<6.2";
        for (kernel, met) in [
            ("5.10", true),
            ("5.9.16", false),
            ("6.1.0-18-amd64", true),
            ("6.2.0", false),
            ("6.2.0-rc1", true),
            ("5.15.167.4-microsoft-standard-WSL2", true),
            ("unknown", false),
        ] {
            assert_eq!(holds(range, kernel), met, "{kernel}");
        }
        assert!(holds("node.attributes.docker version ==24", "v24.0"));
        assert!(holds("node.attributes.docker version !=24", "24.0.1"));
    }
}
