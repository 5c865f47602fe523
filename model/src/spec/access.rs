//! Networks and password digests, as route specs write them.

use std::net::IpAddr;
use std::str::FromStr;

/// A network: an address and how many of its bits count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Network {
    /// IPv4 networks are kept as the IPv6 addresses that stand for them.
    bits: u128,
    mask: u128,
}

/// A network that does not parse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a network, such as `10.0.0.0/8`, `192.168.1.7` or `fd00::/8`")]
pub struct InvalidNetwork(pub String);

impl FromStr for Network {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        let invalid = || InvalidNetwork(text.chars().take(64).collect());
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| invalid())?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let length: u32 = length.map_or(Ok(width), |text| text.parse().map_err(|_| invalid()))?;
        if length > width {
            return Err(invalid());
        }
        let mask = u128::MAX.checked_shl(width - length).unwrap_or(0);
        // The upper bits of an IPv4 address's stand-in always count.
        let mask = if width == 32 {
            mask | !0xffff_ffff
        } else {
            mask
        };
        Ok(Self {
            bits: bits(address) & mask,
            mask,
        })
    }
}

impl Network {
    /// Whether an address is in it. An IPv4 address written as IPv6 is the IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        bits(address) & self.mask == self.bits
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// What is kept of a password: `sha256:SALT:HEX`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PasswordDigest {
    /// Stands before the password in what is hashed.
    pub salt: String,
    /// SHA-256 of salt and password.
    pub digest: [u8; 32],
}

/// A digest that does not parse. The text is not repeated: it may be a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("is not `sha256:SALT:HEX`, the hex digest of the salt followed by the password")]
pub struct InvalidDigest;

impl FromStr for PasswordDigest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        let rest = text.strip_prefix("sha256:").ok_or(InvalidDigest)?;
        let (salt, hex) = rest.split_once(':').ok_or(InvalidDigest)?;
        if hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(InvalidDigest);
        }
        let mut digest = [0; 32];
        for (place, byte) in digest.iter_mut().enumerate() {
            let pair = &hex[2 * place..2 * place + 2];
            *byte = u8::from_str_radix(pair, 16).map_err(|_| InvalidDigest)?;
        }
        Ok(Self {
            salt: salt.to_owned(),
            digest,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_contains_its_addresses_and_no_others() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.9.8.7", "11.0.0.1"),
            ("10.1.2.3/8", "10.9.8.7", "11.0.0.1"),
            ("192.168.1.7", "192.168.1.7", "192.168.1.8"),
            ("0.0.0.0/0", "1.2.3.4", "fd00::1"),
            ("10.0.0.0/8", "::ffff:10.0.0.1", "::10.0.0.1"),
            ("fd00::/8", "fd12::1", "fe00::1"),
            ("::/0", "fd00::1", "not one"),
        ] {
            let network: Network = network.parse().expect("is one");
            assert!(network.contains(inside.parse().expect("an address")));
            if let Ok(outside) = outside.parse() {
                assert!(!network.contains(outside), "{outside}");
            }
        }
        for bad in [
            "",
            "10.0.0.0/33",
            "fd00::/129",
            "10.0.0/8",
            "10.0.0.0/x",
            "host",
        ] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
    }

    #[test]
    fn digest_is_read_and_a_bare_password_is_not() {
        let text = format!("sha256:pepper:{}", "0f".repeat(32));
        let digest: PasswordDigest = text.parse().expect("is one");
        assert_eq!((digest.salt.as_str(), digest.digest), ("pepper", [15; 32]));
        for bad in ["secret", "sha256:x:00", "sha256:x", "md5:x:y"] {
            assert!(bad.parse::<PasswordDigest>().is_err());
        }
    }
}
