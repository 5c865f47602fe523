//! A certificate that nobody else trusts, for what is measured over TLS.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tempfile::TempDir;

/// The name that it is for.
pub const NAME: &str = "bench.test";

/// Files of a self-signed certificate with an ECDSA key on P-256; they go when this is dropped.
#[derive(Debug)]
pub struct Certificate {
    folder: TempDir,
}

impl Certificate {
    /// Makes one.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn make() -> Result<Self> {
        let made = Self {
            folder: tempfile::tempdir().context("a folder")?,
        };
        made.replace()?;
        Ok(made)
    }

    /// Puts another certificate in the place of the one that is there, each file at once.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn replace(&self) -> Result<()> {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed([NAME.to_owned()]).context("a certificate")?;
        let (cert, key) = (cert.pem(), signing_key.serialize_pem());
        for (path, text) in [
            (self.key(), key.clone()),
            (self.certificate(), cert.clone()),
            (self.both(), cert + &key),
        ] {
            let fresh = path.with_extension("fresh");
            std::fs::write(&fresh, text).context("a certificate")?;
            std::fs::rename(&fresh, &path).context("a certificate")?;
        }
        Ok(())
    }

    /// Returns the PEM file with the certificate.
    pub fn certificate(&self) -> PathBuf {
        self.file("certificate.pem")
    }

    /// Returns the PEM file with its key.
    pub fn key(&self) -> PathBuf {
        self.file("key.pem")
    }

    /// Returns the PEM file with both, as HAProxy wants it.
    pub fn both(&self) -> PathBuf {
        self.file("both.pem")
    }

    fn file(&self, name: &str) -> PathBuf {
        Path::new(self.folder.path()).join(name)
    }
}
