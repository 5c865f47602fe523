//! The TLS listener of the file.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use serde_saphyr::Spanned;

use super::acme::RawAcme;
use super::{ConfigError, RawConfig, with_nearest};
use crate::tls::{ClientAuth, IdentityFiles, Minimum, Settings, UnknownName, cipher, cipher_names};

/// The TLS listener: one certificate, or several.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawTls {
    /// PEM file: the certificate, then its issuers.
    pub certificate: Option<PathBuf>,
    /// PEM file: its key.
    pub key: Option<PathBuf>,
    /// DER file: the OCSP response to staple.
    pub ocsp: Option<PathBuf>,
    /// Certificates besides that one; the first of all is shown for names that none is for.
    pub certificates: Vec<RawCertificate>,
    /// The oldest version: `1.2`, the default, or `1.3`.
    pub minimum: Option<Spanned<String>>,
    /// Cipher suites by their IANA names, the preferred first.
    pub ciphers: Vec<Spanned<String>>,
    /// How clients show who they are.
    pub client: Option<RawClientAuth>,
    /// Refuses clients that ask for a name without a certificate.
    pub strict: bool,
    /// Who may have signed endpoints' certificates: PEM files by the names that services use.
    pub authorities: BTreeMap<String, PathBuf>,
    /// What the ingress shows to endpoints, by the names that services use.
    pub identities: BTreeMap<String, RawCertificate>,
    /// Certificates from an ACME server.
    pub acme: Option<RawAcme>,
}

/// One of several certificates.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawCertificate {
    /// PEM file: the certificate, then its issuers.
    pub certificate: PathBuf,
    /// PEM file: its key.
    pub key: PathBuf,
    /// DER file: the OCSP response to staple.
    #[serde(default)]
    pub ocsp: Option<PathBuf>,
    /// The names it is shown for; those in the certificate if left out.
    #[serde(default)]
    pub hosts: Vec<String>,
}

/// How clients show who they are.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawClientAuth {
    /// PEM file: those who may have signed a client's certificate.
    pub ca: PathBuf,
    /// PEM file: certificates that were taken back.
    #[serde(default)]
    pub crl: Option<PathBuf>,
    /// Whether a client without a certificate is served, too.
    #[serde(default)]
    pub optional: bool,
}

impl RawCertificate {
    fn files(&self) -> IdentityFiles {
        IdentityFiles {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            ocsp: self.ocsp.clone(),
            hosts: self.hosts.clone(),
        }
    }
}

impl RawTls {
    /// Returns what one certificate and its key say.
    pub fn of(certificate: PathBuf, key: PathBuf) -> Self {
        Self {
            certificate: Some(certificate),
            key: Some(key),
            ..Self::default()
        }
    }
}

impl RawConfig {
    pub(super) fn tls(&self) -> Result<Option<Settings>, ConfigError> {
        let Some(raw) = &self.tls else {
            return Ok(None);
        };
        let mut certificates = Vec::new();
        match (&raw.certificate, &raw.key) {
            (Some(certificate), Some(key)) => certificates.push(IdentityFiles {
                certificate: certificate.clone(),
                key: key.clone(),
                ocsp: raw.ocsp.clone(),
                hosts: Vec::new(),
            }),
            (None, None) if raw.ocsp.is_none() => {}
            _ => {
                let message = "`tls` needs both `certificate` and `key`";
                return Err(ConfigError::Invalid(message.to_owned()));
            }
        }
        certificates.extend(raw.certificates.iter().map(RawCertificate::files));
        if certificates.is_empty() && raw.acme.is_none() && self.listen.https.is_some() {
            let message = "`listen.https` needs a certificate in `tls`";
            return Err(ConfigError::Invalid(message.to_owned()));
        }
        Ok(Some(Settings {
            certificates,
            minimum: self.minimum(raw)?,
            ciphers: self.ciphers(raw)?,
            client: raw.client.as_ref().map(|client| ClientAuth {
                authorities: client.ca.clone(),
                revoked: client.crl.clone(),
                required: !client.optional,
            }),
            unknown_name: if raw.strict {
                UnknownName::Refuse
            } else {
                UnknownName::First
            },
            acme: raw.acme.as_ref().is_some_and(RawAcme::is_in_the_handshake),
            authorities: raw.authorities.clone(),
            identities: raw
                .identities
                .iter()
                .map(|(name, one)| (name.clone(), one.files()))
                .collect(),
        }))
    }

    fn minimum(&self, raw: &RawTls) -> Result<Minimum, ConfigError> {
        match &raw.minimum {
            None => Ok(Minimum::default()),
            Some(text) => match text.value.as_str() {
                "1.2" => Ok(Minimum::Tls12),
                "1.3" => Ok(Minimum::Tls13),
                other => Err(self.at(text, format!("TLS `{other}` is not spoken: 1.2 or 1.3"))),
            },
        }
    }

    fn ciphers(&self, raw: &RawTls) -> Result<Vec<rustls::SupportedCipherSuite>, ConfigError> {
        let suites = raw.ciphers.iter().map(|name| {
            cipher(&name.value).ok_or_else(|| {
                let names = cipher_names();
                let message = format!("no cipher suite is called `{}`", name.value);
                let names = names.iter().map(String::as_str);
                self.at(name, with_nearest(message, &name.value, names))
            })
        });
        suites.collect()
    }
}
