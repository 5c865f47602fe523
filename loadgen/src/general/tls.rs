//! Client configurations of rustls, and the certificates they trust.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::plan::{Protocol, Tls};

/// TLS that cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file of certificates cannot be read, or holds none.
    #[error("cannot read certificates from {}", path.display())]
    Certificates {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    /// A name that no certificate can have.
    #[error("`{0}` is not a name that a certificate can have")]
    Name(String),
    /// rustls refuses.
    #[error("cannot set TLS up")]
    Rustls(#[from] rustls::Error),
}

/// How to speak TLS with one target.
#[derive(Clone)]
pub struct TlsSetup {
    pub config: Arc<ClientConfig>,
    pub name: ServerName<'static>,
}

impl TlsSetup {
    /// Returns the set-up for `tls`. Sessions are never resumed: each handshake costs the same.
    pub fn new(tls: &Tls, protocol: Protocol) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()?;
        let mut config = if tls.insecure {
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
                .with_no_client_auth()
        } else {
            builder
                .with_root_certificates(roots(tls.ca_file.as_deref())?)
                .with_no_client_auth()
        };
        config.resumption = Resumption::disabled();
        config.alpn_protocols = match protocol {
            Protocol::Http1 { .. } | Protocol::WebSocket => vec![b"http/1.1".to_vec()],
            Protocol::Http2 { .. } | Protocol::Grpc { .. } => vec![b"h2".to_vec()],
            _ => Vec::new(),
        };
        let bare = tls.server_name.trim_matches(['[', ']']).to_owned();
        let name =
            ServerName::try_from(bare).map_err(|_| TlsError::Name(tls.server_name.clone()))?;
        Ok(Self {
            config: Arc::new(config),
            name,
        })
    }
}

/// Returns the system's certificates and those of `file`. One of the system's that cannot be read
/// is left out, as every client does.
fn roots(file: Option<&Path>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = file {
        let failed = |source| TlsError::Certificates {
            path: path.to_owned(),
            source,
        };
        let mut any = false;
        for certificate in CertificateDer::pem_file_iter(path).map_err(failed)? {
            roots.add(certificate.map_err(failed)?)?;
            any = true;
        }
        if !any {
            return Err(failed(rustls_pki_types::pem::Error::NoItemsFound));
        }
    }
    Ok(roots)
}

/// Takes whatever certificate comes; the handshake's signatures are still checked, so that it
/// costs what it costs.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
