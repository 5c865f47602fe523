//! The join token: what a new member must be told, in one word.

use std::fmt::{self, Write as _};
use std::str::FromStr;

use ballast_wire::join::JoinRole;
use sha2::{Digest, Sha256};

/// A join token: `BALLAST-1-ROLE-DIGEST-SECRET@ADDRESS`.
///
/// The digest of the CA's certificate lets the new member know the manager before it says the
/// secret; the secret lets the manager know the member; the address saves a flag.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// What the bearer may become.
    pub role: JoinRole,
    /// SHA-256 of the CA's certificate (DER).
    pub ca_digest: [u8; 32],
    /// Known to managers and bearers.
    pub secret: String,
    /// `host:port` of a manager.
    pub manager: Option<String>,
}

/// A text that is not a join token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a join token: {0}; `ballast node join-token agent` on a manager prints one")]
pub struct InvalidToken(&'static str);

/// Returns the digest by which tokens name a CA.
pub fn ca_digest(ca: &[u8]) -> [u8; 32] {
    Sha256::digest(ca).into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (place, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * place..2 * place + 2], 16).ok()?;
    }
    Some(bytes)
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let role = match self.role {
            JoinRole::Agent => "agent",
            JoinRole::Ingress => "ingress",
        };
        write!(
            f,
            "BALLAST-1-{role}-{}-{}",
            hex(&self.ca_digest),
            self.secret
        )?;
        self.manager
            .as_ref()
            .map_or(Ok(()), |manager| write!(f, "@{manager}"))
    }
}

impl fmt::Debug for JoinToken {
    /// Leaves the secret out: debug output ends up in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken")
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

impl FromStr for JoinToken {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let (token, manager) = match text.trim().split_once('@') {
            None => (text.trim(), None),
            Some((token, manager)) if !manager.is_empty() => (token, Some(manager.to_owned())),
            Some(_) => return Err(InvalidToken("there is nothing after `@`")),
        };
        let rest = token
            .strip_prefix("BALLAST-")
            .ok_or(InvalidToken("it does not begin with `BALLAST-`"))?;
        let rest = rest
            .strip_prefix("1-")
            .ok_or(InvalidToken("it is of a version that is not known"))?;
        let mut parts = rest.splitn(3, '-');
        let role = match parts.next() {
            Some("agent") => JoinRole::Agent,
            Some("ingress") => JoinRole::Ingress,
            _ => return Err(InvalidToken("its role is neither `agent` nor `ingress`")),
        };
        let ca_digest = parts.next().and_then(unhex).ok_or(InvalidToken(
            "its digest does not have 64 hexadecimal digits",
        ))?;
        let secret = parts
            .next()
            .filter(|secret| !secret.is_empty() && secret.len() <= 128)
            .ok_or(InvalidToken("it has no secret"))?;
        Ok(Self {
            role,
            ca_digest,
            secret: secret.to_owned(),
            manager,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn token_round_trips_with_and_without_an_address() {
        for manager in [
            None,
            Some("10.0.0.1:7400".to_owned()),
            Some("[::1]:7400".to_owned()),
        ] {
            let token = JoinToken {
                role: JoinRole::Agent,
                ca_digest: ca_digest(b"ca"),
                secret: "s3cr3t".to_owned(),
                manager,
            };
            assert_eq!(token.to_string().parse(), Ok(token));
        }
    }

    proptest! {
        #[test]
        fn prop_garbage_is_an_error_not_a_panic(text in "(BALLAST-1-agent-)?.{0,80}") {
            let _ = text.parse::<JoinToken>();
        }
    }
}
