//! Taints: what keeps tasks from a node, and how it is written.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What keeps tasks that do not bear it from a node.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(deny_unknown_fields)]
pub struct Taint {
    /// Its key.
    pub key: String,
    /// Its value; may be empty.
    #[serde(default)]
    pub value: String,
    /// What it does.
    pub effect: TaintEffect,
}

/// What a taint does to tasks that do not bear it.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum TaintEffect {
    /// They are not placed there.
    NoSchedule,
    /// They are placed there only if nothing else fits.
    PreferNoSchedule,
    /// They are not placed there, and those that run there move away.
    NoExecute,
}

impl fmt::Display for TaintEffect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::NoSchedule => "NoSchedule",
            Self::PreferNoSchedule => "PreferNoSchedule",
            Self::NoExecute => "NoExecute",
        })
    }
}

/// A taint, effect or toleration that does not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {expected}")]
pub struct InvalidTaint {
    /// What was given, cut to 128 characters.
    pub text: String,
    /// What would have been right.
    pub expected: &'static str,
}

impl InvalidTaint {
    pub(crate) fn new(text: &str, expected: &'static str) -> Self {
        Self {
            text: text.chars().take(128).collect(),
            expected,
        }
    }
}

impl FromStr for TaintEffect {
    type Err = InvalidTaint;

    /// Reads the effect in any case and with or without `_` and `-`.
    fn from_str(text: &str) -> Result<Self, InvalidTaint> {
        let plain = text.replace(['_', '-'], "").to_ascii_lowercase();
        match plain.as_str() {
            "noschedule" => Ok(Self::NoSchedule),
            "prefernoschedule" => Ok(Self::PreferNoSchedule),
            "noexecute" => Ok(Self::NoExecute),
            _ => {
                let expected = "an effect: NoSchedule, PreferNoSchedule or NoExecute";
                Err(InvalidTaint::new(text, expected))
            }
        }
    }
}

impl fmt::Display for Taint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)?;
        if !self.value.is_empty() {
            write!(f, "={}", self.value)?;
        }
        write!(f, ":{}", self.effect)
    }
}

/// Returns whether a key or value of a taint can be told apart from what stands around it.
pub(crate) fn is_plain(part: &str) -> bool {
    part.len() <= crate::limits::LABEL_BYTES
        && !part.contains(|c: char| c.is_whitespace() || c.is_control() || "=:*".contains(c))
}

impl FromStr for Taint {
    type Err = InvalidTaint;

    /// Reads `KEY[=VALUE]:EFFECT`.
    fn from_str(text: &str) -> Result<Self, InvalidTaint> {
        let invalid = || {
            let expected = "a taint: KEY[=VALUE]:EFFECT, such as `gpu=yes:NoSchedule`";
            InvalidTaint::new(text, expected)
        };
        let (rest, effect) = text.trim().rsplit_once(':').ok_or_else(invalid)?;
        let (key, value) = rest.split_once('=').unwrap_or((rest, ""));
        if key.is_empty() || !is_plain(key) || !is_plain(value) {
            return Err(invalid());
        }
        Ok(Self {
            key: key.to_owned(),
            value: value.to_owned(),
            effect: effect.parse()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn taints_read_and_print() {
        for text in [
            "gpu=yes:NoSchedule",
            "spot:PreferNoSchedule",
            "a/b:NoExecute",
        ] {
            assert_eq!(
                text.parse::<Taint>().map(|taint| taint.to_string()),
                Ok(text.to_owned())
            );
        }
        let other: Taint = "gpu:no_execute".parse().expect("reads");
        assert_eq!(other.to_string(), "gpu:NoExecute");
        for text in [
            "",
            "gpu",
            "gpu=yes",
            ":NoSchedule",
            "gpu:Never",
            "a b:NoExecute",
        ] {
            assert!(text.parse::<Taint>().is_err(), "{text}");
        }
        let error = "gpu:Never".parse::<Taint>().expect_err("no such effect");
        assert!(error.to_string().contains("PreferNoSchedule"), "{error}");
    }

    proptest! {
        #[test]
        fn prop_garbage_is_an_error_or_prints_as_it_reads(text in "[a-z=: *]{0,8}(:NoExecute)?") {
            if let Ok(taint) = text.parse::<Taint>() {
                prop_assert_eq!(taint.to_string().parse(), Ok(taint));
            }
        }
    }
}
