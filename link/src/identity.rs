//! Who a certificate names: a cluster, a role, an id.

use std::fmt;
use std::str::FromStr;

use ballast_model::{ClusterId, NodeId};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::LinkError;

/// What a member of a cluster does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Holds the state.
    Manager,
    /// Runs tasks.
    Agent,
    /// Fronts services.
    Ingress,
    /// A person or tool that uses the API.
    Client,
}

impl Role {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Manager => "manager",
            Self::Agent => "agent",
            Self::Ingress => "ingress",
            Self::Client => "client",
        }
    }

    /// Returns the DNS name in certificates of this role: what a connecting peer asks for.
    pub const fn dns_name(self) -> &'static str {
        match self {
            Self::Manager => "manager.ballast",
            Self::Agent => "agent.ballast",
            Self::Ingress => "ingress.ballast",
            Self::Client => "client.ballast",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Manager, Self::Agent, Self::Ingress, Self::Client]
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| format!("`{text}` is not a role: manager, agent, ingress or client"))
    }
}

/// A member of a cluster, as its certificate names it: `ballast://CLUSTER/ROLE/ID` as the one URI
/// among its subject alternative names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// What it does.
    pub role: Role,
    /// The bits of its `NodeId`, `IngressId` or `ManagerId`.
    pub id: u64,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // All ids read alike, so any of them prints the bits.
        write!(f, "{} {}", self.role, NodeId::from_bits(self.id))
    }
}

impl Identity {
    /// Returns the URI that a certificate carries.
    pub fn to_uri(self) -> String {
        format!(
            "ballast://{}/{}/{}",
            self.cluster,
            self.role,
            NodeId::from_bits(self.id)
        )
    }

    fn from_uri(uri: &str) -> Option<Self> {
        let mut parts = uri.strip_prefix("ballast://")?.split('/');
        let cluster = parts.next()?.parse().ok()?;
        let role = parts.next()?.parse().ok()?;
        let id = parts.next()?.parse::<NodeId>().ok()?.to_bits();
        parts.next().is_none().then_some(Self { cluster, role, id })
    }

    /// Reads whom a certificate names; whether it is genuine, TLS has checked.
    ///
    /// # Errors
    /// [`LinkError::NotAMember`] if it names nobody, or more than one.
    pub fn from_certificate(certificate: &CertificateDer<'_>) -> Result<Self, LinkError> {
        let not = |reason: &str| LinkError::NotAMember(reason.to_owned());
        let (_, parsed) =
            X509Certificate::from_der(certificate).map_err(|_| not("it cannot be read"))?;
        let names = parsed
            .subject_alternative_name()
            .map_err(|_| not("its names cannot be read"))?
            .ok_or_else(|| not("it has no alternative names"))?;
        let mut uris = names
            .value
            .general_names
            .iter()
            .filter_map(|name| match name {
                GeneralName::URI(uri) => Some(*uri),
                _ => None,
            });
        match (uris.next().and_then(Self::from_uri), uris.next()) {
            (Some(identity), None) => Ok(identity),
            _ => Err(not("it has no `ballast://` name, or more than one")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uri_round_trips_and_garbage_is_refused() {
        let identity = Identity {
            cluster: ClusterId::from_bits(7),
            role: Role::Agent,
            id: 0xdead_beef,
        };
        assert_eq!(Identity::from_uri(&identity.to_uri()), Some(identity));
        for uri in ["", "ballast://", "http://a/b/c", "ballast://x/agent/y"] {
            assert_eq!(Identity::from_uri(uri), None, "{uri}");
        }
        assert_eq!(
            Identity::from_uri(&format!("{}/more", identity.to_uri())),
            None
        );
    }
}
