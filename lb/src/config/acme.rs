//! Certificates that the file orders from an ACME server.

use std::path::PathBuf;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use instant_acme::LetsEncrypt;
use serde::Deserialize;
use serde_saphyr::Spanned;

use super::{ConfigError, RawConfig};
use crate::acme::{AcmeSettings, External, HOSTS_MAX, Proof};

/// Certificates from an ACME server.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawAcme {
    /// The hosts: one certificate for each.
    pub hosts: Vec<Spanned<String>>,
    /// Says yes to the server's terms of service, without which it issues nothing.
    #[serde(default)]
    pub terms_agreed: bool,
    /// The URL of the server's directory; Let's Encrypt's if left out.
    #[serde(default)]
    pub directory: Option<Spanned<String>>,
    /// Who is told of problems: `mailto:` URLs.
    #[serde(default)]
    pub contact: Vec<String>,
    /// `http-01`, the default, or `tls-alpn-01`.
    #[serde(default)]
    pub challenge: Option<Spanned<String>>,
    /// PEM file: who may have signed the server's own certificate.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// Where account and certificates are kept; `acme` in the data folder if left out.
    #[serde(default)]
    pub dir: Option<PathBuf>,
    /// The account that the server's operator has given out, if it wants one.
    #[serde(default)]
    pub external_account: Option<RawExternal>,
}

/// An account that the server's operator has given out.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawExternal {
    /// Its name.
    pub id: String,
    /// Its key, in base64url.
    pub key: Spanned<String>,
}

impl std::fmt::Debug for RawExternal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RawExternal")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl RawAcme {
    pub(super) fn is_in_the_handshake(&self) -> bool {
        self.challenge
            .as_ref()
            .is_some_and(|challenge| challenge.value == "tls-alpn-01")
    }
}

impl RawConfig {
    pub(super) fn acme(&self) -> Result<Option<AcmeSettings>, ConfigError> {
        let Some(raw) = self.tls.as_ref().and_then(|tls| tls.acme.as_ref()) else {
            return Ok(None);
        };
        let invalid = |message: &str| ConfigError::Invalid(message.to_owned());
        if !raw.terms_agreed {
            return Err(invalid("`tls.acme` needs `terms_agreed: true`"));
        }
        if raw.hosts.is_empty() || raw.hosts.len() > HOSTS_MAX {
            let message = format!("`tls.acme.hosts` names 1 to {HOSTS_MAX} hosts");
            return Err(invalid(&message));
        }
        for host in &raw.hosts {
            if !is_host(&host.value) {
                let message = format!(
                    "`{}` is not a host name: one for which a proof over HTTP or in the handshake \
                     is possible, without a wildcard",
                    host.value
                );
                return Err(self.at(host, message));
            }
        }
        let directory = raw.directory.as_ref();
        if let Some(directory) = directory.filter(|one| !one.value.starts_with("https://")) {
            let message = "an ACME directory begins with `https://`";
            return Err(self.at(directory, message.to_owned()));
        }
        let external = raw.external_account.as_ref().map(|account| {
            let key = BASE64_URL_SAFE_NO_PAD.decode(account.key.value.trim_end_matches('='));
            let key = key.map_err(|_| self.at(&account.key, "not in base64url".to_owned()))?;
            let id = account.id.clone();
            Ok::<_, ConfigError>(External { id, key })
        });
        let lower = |host: &Spanned<String>| host.value.to_ascii_lowercase();
        let default_dir = || {
            let data_dir = self.data_dir.clone();
            let data_dir = data_dir.unwrap_or_else(|| ballast_link::paths::data_dir("ingress"));
            data_dir.join("acme")
        };
        Ok(Some(AcmeSettings {
            directory: directory.map_or_else(
                || LetsEncrypt::Production.url().to_owned(),
                |one| one.value.clone(),
            ),
            contact: raw.contact.clone(),
            proof: self.proof(raw)?,
            authority: raw.ca.clone(),
            dir: raw.dir.clone().unwrap_or_else(default_dir),
            hosts: raw.hosts.iter().map(lower).collect(),
            external: external.transpose()?,
        }))
    }

    fn proof(&self, raw: &RawAcme) -> Result<Proof, ConfigError> {
        match &raw.challenge {
            None => Ok(Proof::default()),
            Some(text) => match text.value.as_str() {
                "http-01" if self.listen.http.is_none() => {
                    let message = "`http-01` needs `listen.http`, which the server asks on port 80";
                    Err(self.at(text, message.to_owned()))
                }
                "http-01" => Ok(Proof::Http),
                "tls-alpn-01" if self.listen.https.is_none() => {
                    let message =
                        "`tls-alpn-01` needs `listen.https`, which the server asks on port 443";
                    Err(self.at(text, message.to_owned()))
                }
                "tls-alpn-01" => Ok(Proof::TlsAlpn),
                other => {
                    let message =
                        format!("`{other}` is not a challenge: http-01 and tls-alpn-01 are");
                    Err(self.at(text, message))
                }
            },
        }
    }
}

/// Whether it is a host name; as a file name it stays in its folder, too.
fn is_host(text: &str) -> bool {
    let label = |label: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        !label.is_empty() && label.len() <= 63 && label.bytes().all(plain)
    };
    text.len() <= 253 && text.contains('.') && text.split('.').all(label)
}
