//! How an ingress speaks to the endpoints of one port.

use serde::{Deserialize, Serialize};

use super::InvalidSpec;

/// Bytes of a name in this section at most.
const NAME_BYTES: usize = 253;

/// How an ingress speaks to the endpoints of one port: in plain text by HTTP/1.1 unless something
/// else is said.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct UpstreamSpec {
    /// Speaks HTTP/2, as gRPC needs: by ALPN with `tls`, by prior knowledge (h2c) without.
    /// Upgrades (WebSocket) are asked for by HTTP/1.1 all the same.
    pub http2: bool,
    /// Speaks TLS.
    pub tls: Option<UpstreamTlsSpec>,
    /// Begins each connection with the client's address. Such a connection serves one client's
    /// requests and is not shared.
    pub proxy_protocol: Option<ProxyVersion>,
}

/// How an ingress speaks TLS to endpoints. What is secret, or a file, is not part of a service's
/// spec: it names what the ingress's own configuration holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct UpstreamTlsSpec {
    /// The name that the endpoints' certificate must have, which is also asked for (SNI); their
    /// IP address if not given.
    #[schema(example = "api.internal")]
    pub server_name: Option<String>,
    /// Who must have signed it: the name of an entry of `tls.authorities` in the ingress's
    /// configuration; one of those that the ingress's system trusts if not given.
    pub authority: Option<String>,
    /// What the ingress shows itself: the name of an entry of `tls.identities` in its
    /// configuration; nothing if not given.
    pub identity: Option<String>,
    /// Takes any certificate: hides the traffic from those who only listen, and from nobody else.
    pub insecure: bool,
}

/// A version of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProxyVersion {
    /// One line of text.
    V1,
    /// Binary.
    V2,
}

impl UpstreamSpec {
    /// Whether endpoints are spoken to as if nothing was said.
    pub fn is_plain(&self) -> bool {
        *self == Self::default()
    }

    /// Proves it; `field` is where it is.
    ///
    /// # Errors
    /// [`InvalidSpec`] names the part.
    pub fn validate(&self, field: &str) -> Result<(), InvalidSpec> {
        let Some(tls) = &self.tls else {
            return Ok(());
        };
        for (part, name) in [
            ("server_name", &tls.server_name),
            ("authority", &tls.authority),
            ("identity", &tls.identity),
        ] {
            let Some(name) = name else { continue };
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
            if name.is_empty() || name.len() > NAME_BYTES || !name.bytes().all(plain) {
                let field = format!("{field}.tls.{part}");
                return Err(InvalidSpec::new(field, "is not a name", None));
            }
        }
        if tls.insecure && tls.authority.is_some() {
            let field = format!("{field}.tls.insecure");
            let reason = "takes any certificate, so `authority` would mean nothing";
            return Err(InvalidSpec::new(field, reason, None));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_names_and_an_authority_is_not_ignored() {
        let tls = |text: &str| -> UpstreamSpec { serde_json::from_str(text).expect("JSON") };
        for (text, part) in [
            (r#"{"tls": {"server_name": ""}}"#, "at.tls.server_name"),
            (r#"{"tls": {"identity": "../key"}}"#, "at.tls.identity"),
            (
                r#"{"tls": {"authority": "a", "insecure": true}}"#,
                "at.tls.insecure",
            ),
        ] {
            let error = tls(text).validate("at").expect_err(text);
            assert_eq!(error.field, part);
        }
        let good = tls(r#"{"http2": true, "tls": {"server_name": "a.test", "authority": "own"}}"#);
        assert_eq!(good.validate("at"), Ok(()));
        assert!(!good.is_plain() && tls("{}").is_plain());
    }
}
