//! The rules of placement as text, for command lines and Compose files.
//!
//! | rule | written | such as |
//! | --- | --- | --- |
//! | [`Affinity`] | `[WEIGHT:]CONSTRAINT` | `80:node.labels.disk==ssd`, `-20:node.name==n1` |
//! | [`ServiceAffinity`] | `[WEIGHT:]SERVICE[@OVER]` | `cache`, `self@node.labels.rack`, `50:db@zone` |
//! | [`SpreadRule`] | `OVER[:SKEW]` | `node`, `node.labels.zone:1` |
//! | [`Toleration`] | `KEY[=VALUE][:EFFECT]`, `*` for every key | `gpu`, `gpu=yes:NoExecute`, `*:NoSchedule` |

use std::fmt;
use std::str::FromStr;

use super::{Affinity, ServiceAffinity, SpreadRule, Toleration, TopologyKey};
use crate::taint::{InvalidTaint, is_plain};

/// The weight of a wish that names none.
const WEIGHT: i8 = 50;

/// A rule that does not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {expected}")]
pub struct InvalidRule {
    /// What was given, cut to 128 characters.
    pub text: String,
    /// What would have been right, or what is wrong with a part of it.
    pub expected: String,
}

impl InvalidRule {
    fn new(text: &str, expected: impl Into<String>) -> Self {
        Self {
            text: text.chars().take(128).collect(),
            expected: expected.into(),
        }
    }
}

/// Splits `WEIGHT:` off, if the text begins with a number.
fn split_weight(text: &str, least: i8) -> Result<(Option<i8>, &str), InvalidRule> {
    let Some((weight, rest)) = text.split_once(':') else {
        return Ok((None, text));
    };
    let digits = weight.strip_prefix('-').unwrap_or(weight);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Ok((None, text));
    }
    match weight.parse::<i8>() {
        Ok(weight) if (least..=100).contains(&weight) && weight != 0 => {
            Ok((Some(weight), rest.trim_start()))
        }
        _ => {
            let expected = format!("a rule with a weight of {least} to 100, and not 0");
            Err(InvalidRule::new(text, expected))
        }
    }
}

impl FromStr for Affinity {
    type Err = InvalidRule;

    fn from_str(text: &str) -> Result<Self, InvalidRule> {
        let (weight, rest) = split_weight(text.trim(), -100)?;
        let constraint = rest.parse().map_err(|error| {
            let expected = format!("an affinity, [WEIGHT:]CONSTRAINT: {error}");
            InvalidRule::new(text, expected)
        })?;
        Ok(Self {
            constraint,
            weight: weight.unwrap_or(WEIGHT),
        })
    }
}

impl ServiceAffinity {
    /// Reads what the task has to be near to; with a weight, what it would rather be near to.
    ///
    /// # Errors
    /// What would have been right.
    pub fn near(text: &str) -> Result<Self, InvalidRule> {
        Self::read(text, 1)
    }

    /// Reads what the task has to keep away from; with a weight, what it would rather keep away
    /// from.
    ///
    /// # Errors
    /// What would have been right.
    pub fn apart(text: &str) -> Result<Self, InvalidRule> {
        Self::read(text, -1)
    }

    fn read(text: &str, sign: i8) -> Result<Self, InvalidRule> {
        let (weight, rest) = split_weight(text.trim(), 1)?;
        let (service, over) = rest.split_once('@').unwrap_or((rest, "node"));
        let over: TopologyKey = over.trim().parse().unwrap_or_default();
        let named = service == "self" || super::validate_name("service", service).is_ok();
        if !named || !is_label(&over) {
            let expected = "[WEIGHT:]SERVICE[@OVER], such as `cache`, `self@node.labels.rack` or \
                `50:db@node`";
            return Err(InvalidRule::new(text, expected));
        }
        Ok(Self {
            service: service.to_owned(),
            over,
            weight: weight.unwrap_or(100) * sign,
            required: weight.is_none(),
        })
    }
}

/// Returns whether a place can be told by this key.
fn is_label(over: &TopologyKey) -> bool {
    match over {
        TopologyKey::Node => true,
        TopologyKey::Label(key) => !key.is_empty() && is_plain(key),
    }
}

impl FromStr for SpreadRule {
    type Err = InvalidRule;

    fn from_str(text: &str) -> Result<Self, InvalidRule> {
        let invalid = || {
            let expected = "something to spread over: node or node.labels.KEY, then :SKEW for the \
                most that one may have more than another";
            InvalidRule::new(text, expected)
        };
        let (over, skew) = match text.trim().rsplit_once(':') {
            Some((over, skew)) => (over, skew.trim().parse().map_err(|_| invalid())?),
            None => (text.trim(), 0),
        };
        if over.trim().is_empty() {
            return Err(invalid());
        }
        let over: TopologyKey = over.parse().unwrap_or_default();
        if !is_label(&over) {
            return Err(invalid());
        }
        Ok(Self {
            over,
            max_skew: skew,
        })
    }
}

impl fmt::Display for SpreadRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.over.fmt(f)?;
        if self.max_skew > 0 {
            write!(f, ":{}", self.max_skew)?;
        }
        Ok(())
    }
}

impl FromStr for Toleration {
    type Err = InvalidTaint;

    fn from_str(text: &str) -> Result<Self, InvalidTaint> {
        let invalid = || {
            let expected = "a toleration: KEY[=VALUE][:EFFECT] such as `gpu` or `gpu=yes:NoExecute`, \
                or `*` for every key";
            InvalidTaint::new(text, expected)
        };
        let (rest, effect) = match text.trim().rsplit_once(':') {
            Some((rest, effect)) => (rest, Some(effect.parse()?)),
            None => (text.trim(), None),
        };
        let (key, value) = match rest.split_once('=') {
            Some((key, value)) => (key, Some(value.to_owned())),
            None => (rest, None),
        };
        if key == "*" && value.is_none() {
            let key = String::new();
            return Ok(Self { key, value, effect });
        }
        if key.is_empty() || !is_plain(key) || !value.as_deref().is_none_or(is_plain) {
            return Err(invalid());
        }
        let key = key.to_owned();
        Ok(Self { key, value, effect })
    }
}

impl fmt::Display for Toleration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.key.is_empty() { "*" } else { &self.key })?;
        if let Some(value) = &self.value {
            write!(f, "={value}")?;
        }
        match self.effect {
            Some(effect) => write!(f, ":{effect}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn affinities_have_a_weight_before_the_condition() {
        let read = |text: &str| {
            text.parse::<Affinity>()
                .map(|a| (a.weight, a.constraint.to_string()))
        };
        let ssd = "node.labels.disk==ssd".to_owned();
        assert_eq!(read("80:node.labels.disk==ssd"), Ok((80, ssd.clone())));
        assert_eq!(read("-100: node.labels.disk==ssd"), Ok((-100, ssd.clone())));
        assert_eq!(read("node.labels.disk==ssd"), Ok((50, ssd)));
        let colon = "node.labels.a==1:2".to_owned();
        assert_eq!(read("node.labels.a==1:2"), Ok((50, colon)));
        for text in [
            "0:node.name==a",
            "101:node.name==a",
            "999:node.name==a",
            "80:",
            "80:name",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn services_are_near_or_apart_over_a_place() {
        let near = ServiceAffinity::near("cache").expect("reads");
        assert_eq!((near.weight, near.required), (100, true));
        assert_eq!(near.over, TopologyKey::Node);
        let apart = ServiceAffinity::apart("20:self@zone").expect("reads");
        assert_eq!((apart.weight, apart.required), (-20, false));
        assert_eq!(apart.over, TopologyKey::Label("zone".to_owned()));
        assert!(apart.is_own());
        for text in ["", "Cache", "-20:cache", "cache@a b", "200:cache"] {
            assert!(ServiceAffinity::apart(text).is_err(), "{text}");
        }
    }

    #[test]
    fn spread_rules_and_tolerations_read_and_print() {
        for text in ["node", "node.labels.zone", "node.labels.zone:2"] {
            let read = text.parse::<SpreadRule>().map(|rule| rule.to_string());
            assert_eq!(read, Ok(text.to_owned()));
        }
        for text in ["", ":1", "zone:x", "zone:-1", "a b"] {
            assert!(text.parse::<SpreadRule>().is_err(), "{text}");
        }
        for text in [
            "gpu",
            "gpu=yes",
            "gpu=yes:NoExecute",
            "*",
            "*:NoSchedule",
            "gpu=:NoExecute",
        ] {
            let read = text.parse::<Toleration>().map(|borne| borne.to_string());
            assert_eq!(read, Ok(text.to_owned()));
        }
        for text in ["", ":NoExecute", "gpu:Never", "*=yes", "a*"] {
            assert!(text.parse::<Toleration>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn prop_garbage_is_an_error_not_a_panic(text in "[-0-9]{0,3}:?.{0,24}") {
            let _ = text.parse::<Affinity>();
            let _ = ServiceAffinity::near(&text);
            let _ = ServiceAffinity::apart(&text);
            if let Ok(rule) = text.parse::<SpreadRule>() {
                prop_assert_eq!(rule.to_string().parse(), Ok(rule));
            }
            if let Ok(borne) = text.parse::<Toleration>() {
                prop_assert_eq!(borne.to_string().parse(), Ok(borne));
            }
        }
    }
}
