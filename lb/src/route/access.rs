//! Who may ask: networks and passwords.

use std::net::IpAddr;

use ballast_model::{Access, Network, PasswordDigest};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest as _, Sha256};

use super::{Answer, RequestView};

/// Who may ask.
#[derive(Debug)]
pub(super) struct Gate {
    allow: Vec<Network>,
    deny: Vec<Network>,
    basic: Option<Passwords>,
}

#[derive(Debug)]
struct Passwords {
    challenge: String,
    users: Vec<(String, PasswordDigest)>,
}

impl Gate {
    /// Makes one; what does not parse was refused before it came here, and shuts the gate.
    pub fn new(spec: &Access) -> Option<Self> {
        let basic = spec.basic.as_ref().map(|basic| Passwords {
            challenge: format!(
                "Basic realm=\"{}\", charset=\"UTF-8\"",
                basic.realm.replace(['"', '\\'], "'")
            ),
            users: basic
                .users
                .iter()
                .filter_map(|(user, digest)| Some((user.clone(), digest.parse().ok()?)))
                .collect(),
        });
        let networks = |texts: &[String]| -> Vec<Network> {
            texts.iter().filter_map(|text| text.parse().ok()).collect()
        };
        let guards = basic.is_some() || !spec.allow.is_empty() || !spec.deny.is_empty();
        let everyone = "::/0".parse().ok();
        guards.then(|| Self {
            allow: if spec.allow.is_empty() {
                everyone.into_iter().collect()
            } else {
                networks(&spec.allow)
            },
            deny: networks(&spec.deny),
            basic,
        })
    }

    /// Refuses a client that is not in the networks.
    pub fn admits(&self, client: IpAddr) -> Result<(), Answer> {
        let within = |list: &[Network]| list.iter().any(|network| network.contains(client));
        if within(&self.allow) && !within(&self.deny) {
            return Ok(());
        }
        let title = "clients with this address may not ask for this";
        Err(Answer::problem(403, "address-not-allowed", title))
    }

    /// Refuses a request without the name and password of a user.
    pub fn knows(&self, request: &RequestView<'_>) -> Result<(), Answer> {
        let Some(basic) = &self.basic else {
            return Ok(());
        };
        let said = request.fields.get("authorization");
        if said
            .and_then(credentials)
            .is_some_and(|(user, password)| basic.holds(&user, &password))
        {
            return Ok(());
        }
        let title = "a user name and a password are needed";
        let answer = Answer::problem(401, "not-authenticated", title);
        Err(answer.with("www-authenticate", basic.challenge.clone()))
    }

    /// Whether the field with the password is for the ingress alone.
    pub const fn asks_password(&self) -> bool {
        self.basic.is_some()
    }
}

impl Passwords {
    fn holds(&self, user: &str, password: &[u8]) -> bool {
        let known = self.users.iter().find(|(name, _)| name == user);
        // A name that nobody has costs as much as one that somebody has.
        let digest = known.or(self.users.first()).map(|(_, digest)| digest);
        let Some(digest) = digest else {
            return false;
        };
        let mut hasher = Sha256::new();
        hasher.update(digest.salt.as_bytes());
        hasher.update(password);
        let given = hasher.finalize();
        let differ = given
            .iter()
            .zip(&digest.digest)
            .fold(0, |sum, (a, b)| sum | (a ^ b));
        known.is_some() && differ == 0
    }
}

/// Reads `Basic BASE64(user:password)`.
fn credentials(value: &[u8]) -> Option<(String, Vec<u8>)> {
    let (scheme, rest) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let mut decoded = BASE64_STANDARD.decode(rest.trim_ascii()).ok()?;
    let colon = decoded.iter().position(|&byte| byte == b':')?;
    let password = decoded.split_off(colon + 1);
    decoded.truncate(colon);
    Some((String::from_utf8(decoded).ok()?, password))
}
