//! The certificate of the file.

use std::path::PathBuf;

use serde::Deserialize;

/// A certificate.
#[derive(Debug, Clone, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct RawTls {
    /// PEM file: the certificate, then its issuers.
    pub certificate: PathBuf,
    /// PEM file: its key.
    pub key: PathBuf,
}
