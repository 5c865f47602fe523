//! Units: one newtype each, so that a number never travels without saying what it counts.
//!
//! In JSON and YAML they read as people write them (`0.5`, `64m`, `500ms`, RFC 3339); on the wire
//! they are plain integers.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A text that is not a value of the unit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{value}` is not {expected}")]
pub struct InvalidUnit {
    /// What was given, cut to 64 characters.
    pub value: String,
    /// What would have been right, with examples.
    pub expected: &'static str,
}

impl InvalidUnit {
    fn new(value: &str, expected: &'static str) -> Self {
        Self {
            value: value.chars().take(64).collect(),
            expected,
        }
    }
}

/// A number or a text, as configuration files and JSON bodies may hold either.
#[derive(Deserialize)]
#[serde(untagged)]
enum Scalar {
    Int(i64),
    Float(f64),
    Text(String),
}

impl Scalar {
    fn into_text(self) -> String {
        match self {
            Self::Int(int) => int.to_string(),
            Self::Float(float) => float.to_string(),
            Self::Text(text) => text,
        }
    }
}

macro_rules! unit_serde {
    ($name:ident, $inner:ty) => {
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    Scalar::deserialize(deserializer)?
                        .into_text()
                        .parse()
                        .map_err(D::Error::custom)
                } else {
                    <$inner>::deserialize(deserializer).map(Self)
                }
            }
        }
    };
}

/// Thousandths of one CPU core.
///
/// # Units
/// `0.5` or `500m` in text is 500; JSON shows the decimal as text (`"0.5"`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MilliCpu(pub u32);

impl MilliCpu {
    /// Converts whole cores.
    pub const fn from_cores(cores: u32) -> Self {
        Self(cores.saturating_mul(1000))
    }
}

impl fmt::Display for MilliCpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}.{:03}", self.0 / 1000, self.0 % 1000);
        f.pad(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

impl FromStr for MilliCpu {
    type Err = InvalidUnit;

    fn from_str(text: &str) -> Result<Self, InvalidUnit> {
        let invalid =
            || InvalidUnit::new(text, "a number of CPU cores, such as `0.5`, `2` or `250m`");
        if let Some(milli) = text.strip_suffix('m') {
            return milli.parse().map(Self).map_err(|_| invalid());
        }
        let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(part) || part.len() > 3 && part[3..].bytes().any(|b| b != b'0')
        {
            return Err(invalid());
        }
        let whole: u32 = whole.parse().map_err(|_| invalid())?;
        let part: u32 = format!("{part:0<3}")[..3].parse().map_err(|_| invalid())?;
        whole
            .checked_mul(1000)
            .and_then(|milli| milli.checked_add(part))
            .map(Self)
            .ok_or_else(invalid)
    }
}

impl Serialize for MilliCpu {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            serializer.serialize_u32(self.0)
        }
    }
}
unit_serde!(MilliCpu, u32);

/// A number of bytes.
///
/// # Units
/// In text `64m` and `64MiB` are 64 × 2²⁰, as Docker reads them; JSON shows the plain number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Bytes(pub u64);

impl Bytes {
    /// Converts mebibytes (2²⁰ bytes).
    pub const fn from_mib(mib: u64) -> Self {
        Self(mib.saturating_mul(1 << 20))
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [
            (1 << 40, "TiB"),
            (1 << 30, "GiB"),
            (1 << 20, "MiB"),
            (1 << 10, "KiB"),
        ];
        let text = match units.into_iter().find(|&(size, _)| self.0 >= size) {
            None => format!("{} B", self.0),
            Some((size, unit)) if self.0.is_multiple_of(size) => {
                format!("{} {unit}", self.0 / size)
            }
            Some((size, unit)) => format!("{:.1} {unit}", self.0 as f64 / size as f64),
        };
        f.pad(&text)
    }
}

impl FromStr for Bytes {
    type Err = InvalidUnit;

    fn from_str(text: &str) -> Result<Self, InvalidUnit> {
        let invalid = || InvalidUnit::new(text, "a size in bytes, such as `64m`, `1g` or `512MiB`");
        let lower = text.trim().to_ascii_lowercase();
        let split = lower
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(lower.len());
        let (number, suffix) = lower.split_at(split);
        let shift = match suffix.trim() {
            "" | "b" => 0,
            "k" | "kb" | "ki" | "kib" => 10,
            "m" | "mb" | "mi" | "mib" => 20,
            "g" | "gb" | "gi" | "gib" => 30,
            "t" | "tb" | "ti" | "tib" => 40,
            _ => return Err(invalid()),
        };
        let number: u64 = number.parse().map_err(|_| invalid())?;
        number.checked_mul(1 << shift).map(Self).ok_or_else(invalid)
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}
unit_serde!(Bytes, u64);

/// A span of time in whole milliseconds.
///
/// # Units
/// `500ms`, `1m30s`, `2h` in text; a bare number is seconds, as in Compose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Millis(pub u64);

impl Millis {
    /// Converts whole seconds.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    /// Returns the same span as the standard library's type.
    pub const fn to_duration(self) -> std::time::Duration {
        std::time::Duration::from_millis(self.0)
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        let mut text = String::new();
        for (size, unit) in [(3_600_000, "h"), (60_000, "m"), (1000, "s"), (1, "ms")] {
            if rest >= size {
                text.push_str(&(rest / size).to_string());
                text.push_str(unit);
                rest %= size;
            }
        }
        f.pad(if text.is_empty() { "0s" } else { &text })
    }
}

impl FromStr for Millis {
    type Err = InvalidUnit;

    fn from_str(text: &str) -> Result<Self, InvalidUnit> {
        let invalid = || InvalidUnit::new(text, "a duration, such as `500ms`, `10s` or `1m30s`");
        let mut rest = text.trim();
        if rest.is_empty() {
            return Err(invalid());
        }
        let mut total: f64 = 0.0;
        while !rest.is_empty() {
            let split = rest
                .find(|c: char| !c.is_ascii_digit() && c != '.')
                .unwrap_or(rest.len());
            let number: f64 = rest[..split].parse().map_err(|_| invalid())?;
            let after = &rest[split..];
            let end = after
                .find(|c: char| c.is_ascii_digit())
                .unwrap_or(after.len());
            let size = match &after[..end] {
                "us" | "µs" => 0.001,
                "ms" => 1.0,
                "" | "s" => 1000.0,
                "m" => 60_000.0,
                "h" => 3_600_000.0,
                "d" => 86_400_000.0,
                _ => return Err(invalid()),
            };
            total += number * size;
            rest = &after[end..];
        }
        // 10,000 years: past it the arithmetic of timestamps would not hold.
        if !total.is_finite() || total > 3.2e14 {
            return Err(invalid());
        }
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "checked: finite, not negative, below 3.2e14"
        )]
        Ok(Self(total.round() as u64))
    }
}

impl Serialize for Millis {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            serializer.serialize_u64(self.0)
        }
    }
}
unit_serde!(Millis, u64);

/// A moment, by the clock of whoever stamped it.
///
/// # Units
/// Microseconds since 1970-01-01T00:00:00Z; RFC 3339 with microseconds in JSON.
/// Never compared across machines to order events: sequence numbers do that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Returns this moment plus a span, at the end of time at the latest.
    #[must_use]
    pub const fn saturating_add(self, span: Millis) -> Self {
        Self(self.0.saturating_add(span.0.saturating_mul(1000)))
    }

    /// Returns how long after `earlier` this moment is; zero if it is not (clocks jump).
    pub const fn since(self, earlier: Self) -> Millis {
        Millis(self.0.saturating_sub(earlier.0) / 1000)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = i64::try_from(self.0).unwrap_or(i64::MAX);
        match jiff::Timestamp::from_microsecond(micros) {
            Ok(moment) => f.pad(&format!("{moment:.6}")),
            Err(_) => f.pad("9999-12-31T23:59:59.999999Z"),
        }
    }
}

impl FromStr for Timestamp {
    type Err = InvalidUnit;

    fn from_str(text: &str) -> Result<Self, InvalidUnit> {
        let invalid = || InvalidUnit::new(text, "a time, such as `2026-01-31T12:00:00.000000Z`");
        let moment: jiff::Timestamp = text.parse().map_err(|_| invalid())?;
        u64::try_from(moment.as_microsecond())
            .map(Self)
            .map_err(|_| invalid())
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            serializer.serialize_u64(self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?
                .parse()
                .map_err(D::Error::custom)
        } else {
            u64::deserialize(deserializer).map(Self)
        }
    }
}

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// Returns the one after this.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

counter!(
    /// A version that only grows: of a service's spec, of a node's assignments, of what an ingress
    /// is sent. The higher one wins, so late and repeated messages are harmless.
    Generation
);
counter!(
    /// Orders what one agent says of one assignment; counts from 1 again in a new [`Incarnation`].
    Sequence
);
counter!(
    /// One life of an agent process: its start time in microseconds, so a later life is higher.
    Incarnation
);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn cpu_reads_as_people_write_it() {
        for (text, milli) in [
            ("0.5", 500),
            ("2", 2000),
            ("250m", 250),
            ("0.001", 1),
            ("1.5000", 1500),
        ] {
            assert_eq!(text.parse(), Ok(MilliCpu(milli)), "{text}");
        }
        for text in ["", "-1", "0.0001", "1e3", "NaN", "5000000", ".", "1."] {
            assert!(text.parse::<MilliCpu>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_and_spans_read_as_in_compose() {
        assert_eq!("64m".parse(), Ok(Bytes::from_mib(64)));
        assert_eq!("512 MiB".parse(), Ok(Bytes::from_mib(512)));
        assert!("-64m".parse::<Bytes>().is_err());
        assert!("99999999999g".parse::<Bytes>().is_err());
        assert_eq!("1m30s".parse(), Ok(Millis(90_000)));
        assert_eq!("1.5s".parse(), Ok(Millis(1500)));
        assert!("soon".parse::<Millis>().is_err());
        assert!("-5s".parse::<Millis>().is_err());
    }

    #[test]
    fn time_is_rfc_3339_with_microseconds() {
        let moment = Timestamp(1_700_000_000_000_001);
        assert_eq!(moment.to_string(), "2023-11-14T22:13:20.000001Z");
        assert_eq!(moment.to_string().parse(), Ok(moment));
    }

    proptest! {
        #[test]
        fn prop_units_round_trip(cpu: u32, millis in 0u64..100_000_000_000) {
            prop_assert_eq!(MilliCpu(cpu).to_string().parse(), Ok(MilliCpu(cpu)));
            prop_assert_eq!(Millis(millis).to_string().parse(), Ok(Millis(millis)));
        }

        #[test]
        fn prop_garbage_is_an_error_not_a_panic(text in ".{0,24}") {
            let _ = text.parse::<MilliCpu>();
            let _ = text.parse::<Bytes>();
            let _ = text.parse::<Millis>();
            let _ = text.parse::<Timestamp>();
        }
    }
}
