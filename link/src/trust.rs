//! Connects and accepts with a member's credentials, which can be renewed while in use.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::error::Expected;
use crate::{Credentials, Identity, LinkError, Role};

/// A TLS connection of either side.
pub type TlsStream = tokio_rustls::TlsStream<TcpStream>;

/// The longest wait for a connection, and for a TLS handshake.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Who is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Where.
    pub address: SocketAddr,
    /// Its role.
    pub role: Role,
    /// Its id, if it must be this one.
    pub id: Option<u64>,
}

/// Whether whoever calls must show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// Always.
    Required,
    /// May be left out, which only [`crate::alpn::JOIN`] may then be used for.
    JoinersMayCall,
}

/// An accepted connection.
#[derive(Debug)]
pub struct Accepted {
    /// The connection.
    pub stream: TlsStream,
    /// What the caller wants to speak.
    pub alpn: Vec<u8>,
    /// Who it is; none only for [`crate::alpn::JOIN`].
    pub identity: Option<Identity>,
}

struct Loaded {
    credentials: Credentials,
    roots: Arc<RootCertStore>,
}

/// A member's credentials in use.
pub struct Trust {
    loaded: ArcSwap<Loaded>,
    provider: Arc<CryptoProvider>,
}

impl std::fmt::Debug for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trust")
            .field("identity", &self.identity())
            .finish_non_exhaustive()
    }
}

/// Returns the cryptography that every link uses.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn load(credentials: Credentials) -> Result<Loaded, LinkError> {
    let mut roots = RootCertStore::empty();
    roots
        .add(credentials.ca().clone())
        .map_err(|e| LinkError::Certificate(e.to_string()))?;
    Ok(Loaded {
        credentials,
        roots: Arc::new(roots),
    })
}

impl Trust {
    /// Puts credentials to use.
    ///
    /// # Errors
    /// If their CA is not a certificate.
    pub fn new(credentials: Credentials) -> Result<Arc<Self>, LinkError> {
        let loaded = ArcSwap::from_pointee(load(credentials)?);
        Ok(Arc::new(Self {
            loaded,
            provider: provider(),
        }))
    }

    /// Uses renewed credentials for every connection from now on; those that are open stay.
    ///
    /// # Errors
    /// If they name somebody else, or their CA is not a certificate.
    pub fn renew(&self, credentials: Credentials) -> Result<(), LinkError> {
        if credentials.identity != self.identity() {
            let reason = format!("a renewal for {}", credentials.identity);
            return Err(LinkError::Certificate(reason));
        }
        self.loaded.store(Arc::new(load(credentials)?));
        Ok(())
    }

    /// Returns whom the credentials name.
    pub fn identity(&self) -> Identity {
        self.loaded.load().credentials.identity
    }

    /// Returns the credentials in use.
    pub fn credentials(&self) -> Credentials {
        self.loaded.load().credentials.clone()
    }

    /// Connects to a member and proves both sides.
    ///
    /// # Errors
    /// [`LinkError`]: nobody there, the wrong one there, or we are refused. A server that refuses
    /// our certificate may say so only at the first read (TLS 1.3).
    pub async fn connect(
        &self,
        peer: Peer,
        alpn: &[u8],
    ) -> Result<(TlsStream, Identity), LinkError> {
        let config = self.client_config(alpn)?;
        let stream = connect_tcp(peer.address).await?;
        let stream = handshake_as_client(stream, config, peer.role).await?;
        let identity = self.identify(&stream)?.ok_or(LinkError::NoCertificate)?;
        let expected = Expected {
            role: peer.role,
            id: peer.id,
        };
        if identity.role != peer.role || peer.id.is_some_and(|id| id != identity.id) {
            return Err(LinkError::WrongPeer {
                found: identity,
                expected,
            });
        }
        Ok((stream, identity))
    }

    /// Proves both sides of a connection that was accepted on a port that speaks `alpns`.
    ///
    /// # Errors
    /// [`LinkError`]: the caller is not a member of this cluster, or speaks nothing that is spoken
    /// here.
    pub async fn accept(
        &self,
        stream: TcpStream,
        alpns: &[&[u8]],
        auth: ClientAuth,
    ) -> Result<Accepted, LinkError> {
        stream.set_nodelay(true)?;
        let acceptor = TlsAcceptor::from(self.server_config(alpns, auth)?);
        let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream));
        let stream = handshake
            .await
            .map_err(|_| LinkError::Stalled(HANDSHAKE_TIMEOUT))?
            .map_err(LinkError::Tls)?;
        let stream = TlsStream::from(stream);
        let alpn = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
        let alpn = alpn.ok_or(LinkError::NoProtocol)?;
        let identity = self.identify(&stream)?;
        if identity.is_none() && alpn != crate::alpn::JOIN {
            return Err(LinkError::NoCertificate);
        }
        Ok(Accepted {
            stream,
            alpn,
            identity,
        })
    }

    /// Returns the configuration with which a server of another library accepts: for the HTTP API.
    ///
    /// # Errors
    /// If the credentials cannot be used.
    pub fn server_config(
        &self,
        alpns: &[&[u8]],
        auth: ClientAuth,
    ) -> Result<Arc<ServerConfig>, LinkError> {
        let failed = |e: &dyn std::fmt::Display| LinkError::Certificate(e.to_string());
        let loaded = self.loaded.load();
        let verifier = WebPkiClientVerifier::builder_with_provider(
            loaded.roots.clone(),
            self.provider.clone(),
        );
        let verifier = match auth {
            ClientAuth::Required => verifier,
            ClientAuth::JoinersMayCall => verifier.allow_unauthenticated(),
        };
        let verifier = verifier.build().map_err(|e| failed(&e))?;
        let Credentials { chain, key, .. } = &loaded.credentials;
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(|e| failed(&e))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(|e| failed(&e))?;
        config.alpn_protocols = alpns.iter().map(|name| name.to_vec()).collect();
        // A resumed session would outlive the certificate that it was made with.
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }

    /// Returns the configuration with which a client of another library connects.
    ///
    /// # Errors
    /// If the credentials cannot be used.
    pub fn client_config(&self, alpn: &[u8]) -> Result<Arc<ClientConfig>, LinkError> {
        let failed = |e: &dyn std::fmt::Display| LinkError::Certificate(e.to_string());
        let loaded = self.loaded.load();
        let Credentials { chain, key, .. } = &loaded.credentials;
        let mut config = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(|e| failed(&e))?
            .with_root_certificates(loaded.roots.clone())
            .with_client_auth_cert(chain.clone(), key.clone_key())
            .map_err(|e| failed(&e))?;
        config.alpn_protocols = vec![alpn.to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Arc::new(config))
    }

    /// Returns who is at the other end, if it showed a certificate.
    fn identify(&self, stream: &TlsStream) -> Result<Option<Identity>, LinkError> {
        let Some(leaf) = stream
            .get_ref()
            .1
            .peer_certificates()
            .and_then(<[_]>::first)
        else {
            return Ok(None);
        };
        let identity = Identity::from_certificate(leaf)?;
        let (ours, theirs) = (self.identity().cluster, identity.cluster);
        if ours != theirs {
            return Err(LinkError::OtherCluster { ours, theirs });
        }
        Ok(Some(identity))
    }
}

pub(crate) async fn connect_tcp(address: SocketAddr) -> Result<TcpStream, LinkError> {
    let failed = |source| LinkError::Connect { address, source };
    let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, TcpStream::connect(address))
        .await
        .map_err(|_| failed(std::io::Error::from(std::io::ErrorKind::TimedOut)))?
        .map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    Ok(stream)
}

pub(crate) async fn handshake_as_client(
    stream: TcpStream,
    config: Arc<ClientConfig>,
    role: Role,
) -> Result<TlsStream, LinkError> {
    let name = ServerName::try_from(role.dns_name()).expect("role names are DNS names");
    let connect = TlsConnector::from(config).connect(name, stream);
    let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, connect)
        .await
        .map_err(|_| LinkError::Stalled(HANDSHAKE_TIMEOUT))?
        .map_err(LinkError::Tls)?;
    Ok(TlsStream::from(stream))
}
