//! How a new member gets its certificate: it knows the CA's digest and a secret.

use std::net::SocketAddr;
use std::sync::Arc;

use ballast_wire::join::{JoinRequest, JoinResponse};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::framed::{LinkReceiver, LinkSender};
use crate::token::{JoinToken, ca_digest};
use crate::trust::{HANDSHAKE_TIMEOUT, connect_tcp, handshake_as_client, provider};
use crate::{Credentials, KeyPair, LinkError, Role, alpn};

/// Redirects that are followed: a cluster has few managers, and one of them leads.
const REDIRECTS: usize = 5;

/// Gets a certificate for a new member from the manager at `address`, or from the leader that it
/// names.
///
/// # Errors
/// [`LinkError::Tls`] if the manager's CA is not the token's, [`LinkError::Refused`] with the
/// manager's reason, or any other [`LinkError`].
pub async fn join(
    address: SocketAddr,
    token: &JoinToken,
    name: &str,
) -> Result<Credentials, LinkError> {
    let key = KeyPair::generate()?;
    let request = JoinRequest {
        secret: token.secret.clone(),
        role: token.role,
        name: name.to_owned(),
        csr: key.signing_request()?,
    };
    let mut address = address;
    for _ in 0..REDIRECTS {
        match ask(address, token, &request).await? {
            JoinResponse::Accepted { chain, .. } => {
                let credentials = key.into_credentials(chain)?;
                if ca_digest(credentials.ca()) != token.ca_digest {
                    let reason = "the manager issued it from another CA than the token's";
                    return Err(LinkError::Certificate(reason.to_owned()));
                }
                return Ok(credentials);
            }
            JoinResponse::Refused(reason) => return Err(LinkError::Refused(reason)),
            JoinResponse::Redirect {
                leader: Some(leader),
                ..
            } => address = leader,
            JoinResponse::Redirect { leader: None, .. } => {
                return Err(LinkError::Refused(
                    "no manager leads at the moment".to_owned(),
                ));
            }
        }
    }
    Err(LinkError::Refused(
        "the managers send each other's joiners round in a circle".to_owned(),
    ))
}

async fn ask(
    address: SocketAddr,
    token: &JoinToken,
    request: &JoinRequest,
) -> Result<JoinResponse, LinkError> {
    let provider = provider();
    let verifier = PinnedCa {
        digest: token.ca_digest,
        provider: provider.clone(),
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(|e| LinkError::Certificate(e.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn::JOIN.to_vec()];
    let stream = connect_tcp(address).await?;
    let stream = handshake_as_client(stream, Arc::new(config), Role::Manager).await?;
    let (reader, writer) = tokio::io::split(stream);
    LinkSender::new(writer).send(request).await?;
    let mut answers = LinkReceiver::<JoinResponse>::new(reader);
    tokio::time::timeout(HANDSHAKE_TIMEOUT, answers.recv())
        .await
        .map_err(|_| LinkError::Stalled(HANDSHAKE_TIMEOUT))??
        .ok_or_else(|| LinkError::Refused("the manager closed the connection".to_owned()))
}

/// Trusts a manager whose chain holds the CA that the token names, and nobody else.
#[derive(Debug)]
struct PinnedCa {
    digest: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedCa {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let ca = intermediates
            .iter()
            .find(|certificate| ca_digest(certificate) == self.digest)
            .ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
            .build()
            .map_err(|error| Error::General(error.to_string()))?
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("links speak TLS 1.3 only".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
