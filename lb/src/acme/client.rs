//! The library's way to the ACME server: HTTP/1.1 over TLS, a connection for each request. There
//! are a dozen requests for a certificate and one of those in two months, so nothing is pooled.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::tls::{TlsError, certificates};

/// A request and its answer may take as long.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of an answer at most: chains are the longest.
const ANSWER_MAX: usize = 1 << 20;

/// Speaks to one ACME server.
#[derive(Clone)]
pub struct Client(TlsConnector);

type Failure = Box<dyn std::error::Error + Send + Sync>;

impl Client {
    /// Makes one that believes those in a file, or those that the system trusts.
    ///
    /// # Errors
    /// [`TlsError`] if the file cannot be used.
    pub fn new(authority: Option<&Path>) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        if let Some(path) = authority {
            for certificate in certificates(path)? {
                roots.add(certificate)?;
            }
        } else {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    async fn ask(self, request: Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, Failure> {
        let (mut parts, body) = request.into_parts();
        let authority = parts.uri.authority().ok_or("a URL without a host")?.clone();
        let port = authority.port_u16().unwrap_or(443);
        let name = authority.host().trim_matches(['[', ']']).to_owned();
        let socket = TcpStream::connect((name.as_str(), port)).await?;
        let stream = self.0.connect(name.try_into()?, socket).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let path = parts.uri.path_and_query();
        parts.uri = Uri::from(path.ok_or("a URL without a path")?.clone());
        let host = HeaderValue::from_str(authority.as_str())?;
        parts.headers.insert(HOST, host);
        let answer = sender
            .send_request(Request::from_parts(parts, body))
            .await?;
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, ANSWER_MAX).collect().await?.to_bytes();
        connection.abort();
        Ok(BytesResponse::from(Response::from_parts(
            parts,
            Full::new(body),
        )))
    }
}

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let this = self.clone();
        Box::pin(async move {
            match tokio::time::timeout(TIMEOUT, this.ask(request)).await {
                Ok(answered) => answered.map_err(Error::Other),
                Err(late) => Err(Error::Other(Box::new(late))),
            }
        })
    }
}
