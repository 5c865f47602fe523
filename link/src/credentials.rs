//! A member's key and certificate, and the folder they are kept in.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use ballast_model::Timestamp;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{Identity, LinkError};

const KEY_FILE: &str = "key.pem";
const CHAIN_FILE: &str = "certificate.pem";

/// A private key that has no certificate yet.
pub struct KeyPair(rcgen::KeyPair);

impl KeyPair {
    /// Makes a new key (ECDSA P-256).
    ///
    /// # Errors
    /// If the system gives no random bytes.
    pub fn generate() -> Result<Self, LinkError> {
        rcgen::KeyPair::generate()
            .map(Self)
            .map_err(|e| LinkError::Certificate(e.to_string()))
    }

    /// Reads the key of credentials, for a renewal that keeps it.
    ///
    /// # Errors
    /// If it is not a key that certificates can be asked for with.
    pub fn from_credentials(credentials: &Credentials) -> Result<Self, LinkError> {
        let key = PrivatePkcs8KeyDer::from(credentials.key.secret_der());
        rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&key, &rcgen::PKCS_ECDSA_P256_SHA256)
            .map(Self)
            .map_err(|e| LinkError::Certificate(e.to_string()))
    }

    /// Returns a signing request (PKCS #10, DER). It names nobody: the manager says whom the
    /// certificate will name.
    ///
    /// # Errors
    /// If signing fails.
    pub fn signing_request(&self) -> Result<Vec<u8>, LinkError> {
        let params = rcgen::CertificateParams::default();
        let request = params
            .serialize_request(&self.0)
            .map_err(|e| LinkError::Certificate(e.to_string()))?;
        Ok(request.der().to_vec())
    }

    /// Joins the key with the certificate that was issued for it (leaf first, then the CA).
    ///
    /// # Errors
    /// If the chain is too short or names nobody.
    pub fn into_credentials(self, chain: Vec<Vec<u8>>) -> Result<Credentials, LinkError> {
        let chain = chain.into_iter().map(CertificateDer::from).collect();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.0.serialize_der()));
        Credentials::new(chain, key)
    }
}

/// A member's certificate chain (leaf, then CA) and private key.
#[derive(Debug)]
pub struct Credentials {
    /// Leaf first, the cluster's CA last.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's key.
    pub key: PrivateKeyDer<'static>,
    /// Whom the leaf names.
    pub identity: Identity,
    /// From when the leaf is valid.
    pub not_before: Timestamp,
    /// Until when.
    pub not_after: Timestamp,
}

impl Clone for Credentials {
    fn clone(&self) -> Self {
        Self {
            chain: self.chain.clone(),
            key: self.key.clone_key(),
            ..*self
        }
    }
}

impl Credentials {
    fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, LinkError> {
        let [leaf, .., _ca] = chain.as_slice() else {
            let reason = "a chain has two certificates: the member's and the CA's";
            return Err(LinkError::Certificate(reason.to_owned()));
        };
        let identity = Identity::from_certificate(leaf)?;
        let (_, parsed) =
            X509Certificate::from_der(leaf).map_err(|e| LinkError::Certificate(e.to_string()))?;
        let micros = |time: x509_parser::time::ASN1Time| {
            Timestamp(
                u64::try_from(time.timestamp())
                    .unwrap_or(0)
                    .saturating_mul(1_000_000),
            )
        };
        let (not_before, not_after) = (
            micros(parsed.validity().not_before),
            micros(parsed.validity().not_after),
        );
        Ok(Self {
            chain,
            key,
            identity,
            not_before,
            not_after,
        })
    }

    /// Returns the cluster's CA.
    pub fn ca(&self) -> &CertificateDer<'static> {
        self.chain
            .last()
            .expect("checked by new: a chain has two certificates")
    }

    /// Returns when a renewal is due: two thirds into the certificate's life.
    pub fn renewal_due(&self) -> Timestamp {
        let life = self.not_after.0.saturating_sub(self.not_before.0);
        Timestamp(self.not_before.0 + life / 3 * 2)
    }

    /// Reads the credentials in a folder; `None` if there are none.
    ///
    /// # Errors
    /// If there are some that cannot be read.
    pub fn load(dir: &Path) -> Result<Option<Self>, LinkError> {
        let bad = |reason: String| LinkError::Credentials {
            path: dir.to_owned(),
            reason,
        };
        let (key, chain) = (dir.join(KEY_FILE), dir.join(CHAIN_FILE));
        if !key.exists() && !chain.exists() {
            return Ok(None);
        }
        let key =
            PrivateKeyDer::from_pem_file(&key).map_err(|e| bad(format!("{KEY_FILE}: {e}")))?;
        let chain = CertificateDer::pem_file_iter(&chain)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|e| bad(format!("{CHAIN_FILE}: {e}")))?;
        Self::new(chain, key)
            .map(Some)
            .map_err(|e| bad(e.to_string()))
    }

    /// Writes the credentials into a folder that it makes if need be, each file whole or not at
    /// all, readable by its owner only.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn store(&self, dir: &Path) -> Result<(), LinkError> {
        let bad = |error: std::io::Error| LinkError::Credentials {
            path: dir.to_owned(),
            reason: error.to_string(),
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(bad)?;
        let pem = |tag: &str, der: &[u8]| pem::encode(&pem::Pem::new(tag, der));
        let chain: String = self
            .chain
            .iter()
            .map(|der| pem("CERTIFICATE", der))
            .collect();
        // The key first: a certificate without its key would be useless, a key without its
        // certificate only means that the member joins again.
        write_whole(
            &dir.join(KEY_FILE),
            pem("PRIVATE KEY", self.key.secret_der()).as_bytes(),
        )
        .and_then(|()| write_whole(&dir.join(CHAIN_FILE), chain.as_bytes()))
        .map_err(bad)
    }
}

fn write_whole(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}
