//! Versions as kernels, engines and packages write them.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use super::CompareOp;

/// Numbers in one version: `5.15.167.4` has four.
const NUMBERS: usize = 8;
/// Digits of one of them, so that it fits a `u64`.
const DIGITS: usize = 18;
/// What follows the numbers of a version that comes before the one it names.
const PRE_RELEASES: [&str; 5] = ["rc", "alpha", "beta", "pre", "dev"];

/// Dotted numbers with whatever follows them: `6.1`, `v24.0.7`, `6.1.0-18-amd64`.
///
/// Versions are ordered by their numbers, missing ones being 0: `6.1` equals `6.1.0`. What follows
/// does not count, as distributions number their builds there; only `-rc`, `-alpha`, `-beta`,
/// `-pre` and `-dev` come before the same numbers without. Strict semantic versions do not fit:
/// to them `6.1.0-18-amd64` is older than `6.1.0`, and `5.15.167.4` is none.
#[derive(Debug, Clone)]
pub struct Version {
    /// As it was written, so that it prints as it was read.
    text: String,
    /// Without zeros at the end.
    numbers: Vec<u64>,
    /// Whether it is the numbers' release, or before it.
    released: bool,
}

impl Version {
    fn rank(&self) -> (&[u64], bool) {
        (&self.numbers, self.released)
    }
}

impl Hash for Version {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.rank().hash(state);
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Version {}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank().cmp(&other.rank())
    }
}

/// A text that is not a [`Version`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a version is written like `6.1` or `24.0.7`, with at most 8 numbers of 18 digits")]
pub struct InvalidVersion;

impl FromStr for Version {
    type Err = InvalidVersion;

    fn from_str(text: &str) -> Result<Self, InvalidVersion> {
        let text = text.trim();
        let mut rest = text.strip_prefix(['v', 'V']).unwrap_or(text);
        let mut numbers = Vec::new();
        loop {
            let end = rest
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(rest.len());
            if end == 0 || end > DIGITS || numbers.len() == NUMBERS {
                return Err(InvalidVersion);
            }
            numbers.push(rest[..end].parse().map_err(|_| InvalidVersion)?);
            rest = &rest[end..];
            match rest.strip_prefix('.') {
                Some(next) => rest = next,
                None => break,
            }
        }
        if rest.contains(|c: char| c.is_whitespace() || ",<>=!()".contains(c)) {
            return Err(InvalidVersion);
        }
        while numbers.last() == Some(&0) {
            numbers.pop();
        }
        let suffix = rest
            .trim_start_matches(['-', '_', '~'])
            .to_ascii_lowercase();
        let released = !PRE_RELEASES.iter().any(|pre| suffix.starts_with(pre));
        Ok(Self {
            text: text.to_owned(),
            numbers,
            released,
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

/// One comparison of a version range: `>=5.10`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct VersionBound {
    /// How.
    pub op: CompareOp,
    /// With which version.
    pub version: Version,
}

impl VersionBound {
    /// Returns whether a version is within this bound.
    pub fn holds(&self, version: &Version) -> bool {
        self.op.holds(version, &self.version)
    }
}

impl fmt::Display for VersionBound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.op.as_str(), self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_releases_are() {
        let ordered = [
            "0",
            "0.9",
            "5.9.16",
            "5.10.0-rc2",
            "5.10",
            "5.10.0.1",
            "6.1.0-18-amd64",
            "6.2.0-alpha",
            "v6.2",
            "10",
        ];
        let read = |text: &str| text.parse::<Version>().expect("reads");
        for pair in ordered.windows(2) {
            assert!(read(pair[0]) < read(pair[1]), "{pair:?}");
        }
        assert_eq!(read("6.1"), read("v6.1.0-18-amd64"));
        for text in ["", "v", ".1", "1.", "1..2", "-1", "one", "1 2", "1,2"] {
            assert!(text.parse::<Version>().is_err(), "{text}");
        }
        assert!("1.1.1.1.1.1.1.1.1".parse::<Version>().is_err());
        assert!("1000000000000000000".parse::<Version>().is_err());
    }
}
