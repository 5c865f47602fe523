//! Numbers with an optional unit, as labels hold them.

use std::fmt;
use std::str::FromStr;

/// Digits before the point: with the largest unit and [`DECIMALS`] the value stays below 2¹²⁷.
const WHOLE_DIGITS: usize = 18;
/// Decimals that count; later ones are cut off.
const DECIMALS: usize = 6;

/// A decimal number, perhaps with a unit of size: `4`, `-0.5`, `64GiB`.
///
/// # Units
/// `k`, `m`, `g` and `t`, also as `KB` or `KiB`, are 2¹⁰, 2²⁰, 2³⁰ and 2⁴⁰, as in
/// [`crate::Bytes`]; so `1g` is above `1000`. Six decimals count.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Quantity {
    /// As it was written, so that it prints as it was read.
    text: String,
    millionths: i128,
}

impl Quantity {
    /// Returns the number in millionths.
    pub const fn value(&self) -> i128 {
        self.millionths
    }
}

/// A text that is not a [`Quantity`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a number is written like `4`, `0.5` or `64GiB`, with at most 18 digits before the point")]
pub struct InvalidQuantity;

impl FromStr for Quantity {
    type Err = InvalidQuantity;

    fn from_str(text: &str) -> Result<Self, InvalidQuantity> {
        let text = text.trim();
        let unsigned = text.strip_prefix('-').unwrap_or(text);
        let split = unsigned
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(split);
        let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(part) || whole.len() > WHOLE_DIGITS {
            return Err(InvalidQuantity);
        }
        let shift = match suffix.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 0,
            "k" | "kb" | "ki" | "kib" => 10,
            "m" | "mb" | "mi" | "mib" => 20,
            "g" | "gb" | "gi" | "gib" => 30,
            "t" | "tb" | "ti" | "tib" => 40,
            _ => return Err(InvalidQuantity),
        };
        let part = format!("{part:0<DECIMALS$}");
        let digits = format!("{whole}{}", &part[..DECIMALS]);
        let size: i128 = digits.parse().map_err(|_| InvalidQuantity)?;
        let size = size.checked_mul(1 << shift).ok_or(InvalidQuantity)?;
        Ok(Self {
            text: text.to_owned(),
            millionths: if text.starts_with('-') { -size } else { size },
        })
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_read_as_sizes_do() {
        for (text, millionths) in [
            ("0", 0),
            ("-1.5", -1_500_000),
            ("0.0000019", 1),
            ("1KiB", 1_024_000_000),
            ("1.5 k", 1_536_000_000),
        ] {
            assert_eq!(text.parse().map(|q: Quantity| q.value()), Ok(millionths));
        }
        let most: Quantity = "999999999999999999.999999t".parse().expect("fits");
        assert!(most.value() > 0);
        for text in ["", "-", ".", "1.", ".5", "--1", "1e3", "1x", "1.2.3", "٣"] {
            assert_eq!(text.parse::<Quantity>(), Err(InvalidQuantity), "{text}");
        }
        assert!("1000000000000000000".parse::<Quantity>().is_err());
    }
}
