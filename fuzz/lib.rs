//! What every fuzz target holds of a decoder: an error or a value, never a panic, and what decodes
//! encodes to the same value again.
//!
//! `cargo xtask fuzz agent` (any of `fuzz_targets/`; all without a name), on stable. With nightly
//! `cargo +nightly fuzz run agent` does the same with the address sanitizer.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Holds a wire message's decoder against these bytes.
pub fn hold_message<M: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) {
    if let Ok(message) = ballast_wire::from_bytes::<M>(bytes) {
        let again = ballast_wire::to_bytes(&message).expect("no longer than what it was read from");
        assert_eq!(ballast_wire::from_bytes::<M>(&again), Ok(message));
    }
}

/// Holds a text decoder against this text; what it reads prints as the same value.
pub fn hold_text<T>(text: &str)
where
    T: FromStr<Err: Debug + PartialEq> + Display + PartialEq + Debug,
{
    if let Ok(value) = text.parse::<T>() {
        assert_eq!(value.to_string().parse::<T>(), Ok(value));
    }
}
