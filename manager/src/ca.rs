//! Certificates and join tokens: who may become a member, and what a member is given.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ballast_link::token::ca_digest;
use ballast_link::{Authority, Credentials, Identity, JoinToken, KeyPair, LinkError, Role};
use ballast_model::{ClusterId, ManagerId, Timestamp};
use ballast_wire::join::JoinRole;
use ballast_wire::log::{ClusterInit, JoinSecret};
use sha2::{Digest, Sha256};

/// Random bytes of a join secret.
const SECRET_BYTES: usize = 20;

/// Returns a new join secret: `SERIAL_HEX`. The serial counts rotations, so that whoever comes with
/// an older secret can be told that it was rotated; it proves nothing.
///
/// # Errors
/// If the system gives no random bytes.
pub fn draw_secret(serial: u32) -> Result<JoinSecret, LinkError> {
    let mut bytes = [0u8; SECRET_BYTES];
    getrandom::fill(&mut bytes).map_err(|error| LinkError::Certificate(error.to_string()))?;
    let mut secret = format!("{serial}_");
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            secret.extend(char::from_digit(u32::from(digit), 16));
        }
    }
    Ok(JoinSecret(secret))
}

/// Returns which rotation a secret is of.
pub fn serial(secret: &str) -> Option<u32> {
    secret.split_once('_')?.0.parse().ok()
}

/// Returns a new cluster: its id, its CA, its join secrets.
///
/// # Errors
/// If the system gives no random bytes.
pub fn found(cluster: ClusterId, now: SystemTime) -> Result<ClusterInit, LinkError> {
    let authority = Authority::generate(cluster, now)?;
    let encode = |tag: &str, der: &[u8]| pem::encode(&pem::Pem::new(tag, der));
    Ok(ClusterInit {
        cluster,
        ca_certificate: encode("CERTIFICATE", authority.certificate()),
        ca_key: encode("PRIVATE KEY", authority.key_der()),
        agent_secret: draw_secret(1)?,
        ingress_secret: draw_secret(1)?,
        time: crate::clock::timestamp(now),
    })
}

/// Issues certificates in the cluster's name.
#[derive(Debug)]
pub struct Ca {
    authority: Authority,
    cluster: ClusterId,
    lifetime: Duration,
}

fn der(text: &str) -> Result<Vec<u8>, LinkError> {
    pem::parse(text)
        .map(pem::Pem::into_contents)
        .map_err(|error| LinkError::Certificate(error.to_string()))
}

impl Ca {
    /// Reads the CA out of the replicated state.
    ///
    /// # Errors
    /// It is not one.
    pub fn load(cluster: &ClusterInit, lifetime: Duration) -> Result<Arc<Self>, LinkError> {
        Ok(Arc::new(Self {
            authority: Authority::from_der(der(&cluster.ca_certificate)?, der(&cluster.ca_key)?)?,
            cluster: cluster.cluster,
            lifetime,
        }))
    }

    /// Returns the cluster that it signs for.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// Signs a request: a new member's, or a renewal. Returns the chain, leaf first, DER.
    ///
    /// # Errors
    /// The request is not one.
    pub fn issue(&self, csr: &[u8], role: Role, id: u64) -> Result<Vec<Vec<u8>>, LinkError> {
        let identity = Identity {
            cluster: self.cluster,
            role,
            id,
        };
        self.authority
            .issue(csr, identity, self.lifetime, SystemTime::now())
    }

    /// Makes a key and a certificate for this manager itself.
    ///
    /// # Errors
    /// If the system gives no random bytes.
    pub fn own_credentials(&self, manager: ManagerId) -> Result<Credentials, LinkError> {
        let key = KeyPair::generate()?;
        let chain = self.issue(&key.signing_request()?, Role::Manager, manager.to_bits())?;
        key.into_credentials(chain)
    }

    /// Returns whether credentials are this manager's, of this CA, and not yet due for renewal.
    pub fn are_current(&self, own: &Credentials, manager: ManagerId, now: Timestamp) -> bool {
        let identity = Identity {
            cluster: self.cluster,
            role: Role::Manager,
            id: manager.to_bits(),
        };
        own.identity == identity
            && own.ca() == self.authority.certificate()
            && now < own.renewal_due()
    }

    /// Returns the join token for a role.
    pub fn token(&self, role: JoinRole, secret: &JoinSecret, manager: &str) -> JoinToken {
        JoinToken {
            role,
            ca_digest: ca_digest(self.authority.certificate()),
            secret: secret.0.clone(),
            manager: Some(manager.to_owned()),
        }
    }
}

/// Compares secrets in a time that does not depend on where they differ: their digests are
/// compared, whose bytes a caller cannot choose.
pub fn same_secret(given: &str, known: &str) -> bool {
    Sha256::digest(given.as_bytes())
        .iter()
        .zip(Sha256::digest(known.as_bytes()))
        .fold(0, |differ, (a, b)| differ | (a ^ b))
        == 0
}

/// Returns the secret that machines of a role join with.
pub const fn secret_of(cluster: &ClusterInit, role: JoinRole) -> &JoinSecret {
    match role {
        JoinRole::Agent => &cluster.agent_secret,
        JoinRole::Ingress => &cluster.ingress_secret,
    }
}

/// Returns a role's name, as tokens and addresses of the API have it.
pub const fn role_name(role: JoinRole) -> &'static str {
    match role {
        JoinRole::Agent => "agent",
        JoinRole::Ingress => "ingress",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_equal_only_to_themselves() {
        let one = draw_secret(1).expect("draws");
        let two = draw_secret(2).expect("draws");
        assert_eq!((serial(&one.0), serial(&two.0)), (Some(1), Some(2)));
        assert!(same_secret(&one.0, &one.0));
        assert!(!same_secret(&one.0, &two.0));
        assert!(!same_secret(&one.0, ""));
    }
}
