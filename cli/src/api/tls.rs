//! Client certificates for the API over TCP.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::Failure;

/// Files given on the command line; all or none.
#[derive(Debug, Clone, Default)]
pub struct ClientFiles {
    /// `--tls-cert`
    pub cert: Option<PathBuf>,
    /// `--tls-key`
    pub key: Option<PathBuf>,
    /// `--tls-ca`
    pub ca: Option<PathBuf>,
}

impl ClientFiles {
    /// Reads the files into a configuration for connections.
    ///
    /// # Errors
    /// [`Failure::Usage`] if one is missing, [`Failure::Failed`] if one cannot be read.
    pub fn load(&self) -> Result<Arc<rustls::ClientConfig>, Failure> {
        let (Some(cert), Some(key), Some(ca)) = (&self.cert, &self.key, &self.ca) else {
            return Err(Failure::Usage(
                "an https:// host needs --tls-cert, --tls-key and --tls-ca: the manager wants a client certificate".to_owned(),
            ));
        };
        let mut roots = rustls::RootCertStore::empty();
        for root in certificates(ca)? {
            roots.add(root).map_err(|error| unusable(ca, error))?;
        }
        let chain = certificates(cert)?;
        let key_der = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, error))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| Failure::while_doing("TLS 1.3 is not available", error))?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key_der)
            .map_err(|error| unusable(cert, error))?;
        let mut config = config;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let list: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(|error| unusable(path, error))?
        .collect::<Result<_, _>>()
        .map_err(|error| unusable(path, error))?;
    if list.is_empty() {
        return Err(unusable(path, "it holds no certificate"));
    }
    Ok(list)
}

fn unusable(path: &Path, error: impl std::fmt::Display) -> Failure {
    Failure::Failed(format!("{} cannot be used: {error}", path.display()))
}
