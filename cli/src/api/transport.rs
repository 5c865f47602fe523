//! One HTTP/1.1 request on one connection.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::{ClientFiles, Host};
use crate::Failure;

/// How long a connection may take: a manager answers within a round trip or is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How to reach a host.
#[derive(Debug, Clone)]
pub struct Transport {
    host: Host,
    tls: Option<Arc<rustls::ClientConfig>>,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for S {}

impl Transport {
    pub(super) fn new(host: Host, files: &ClientFiles) -> Result<Self, Failure> {
        let tls = match &host {
            Host::Https { .. } => Some(files.load()?),
            _ => None,
        };
        Ok(Self { host, tls })
    }

    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        accept: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Response<Incoming>, Failure> {
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, self.connect())
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(|error| self.unreachable(&error))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.broken(error))?;
        // Ends by itself when the answer has been read or dropped.
        tokio::spawn(connection);
        let name = match &self.host {
            Host::Unix(_) => "localhost",
            Host::Http { name, .. } | Host::Https { name, .. } => name,
        };
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, name)
            .header(header::ACCEPT, accept)
            .header(
                header::USER_AGENT,
                concat!("ballast/", env!("CARGO_PKG_VERSION")),
            );
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request
            .body(Full::new(Bytes::from(body.unwrap_or_default())))
            .map_err(|error| Failure::while_doing("cannot build the request", error))?;
        sender
            .send_request(request)
            .await
            .map_err(|error| self.broken(error))
    }

    async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        match &self.host {
            Host::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
            Host::Http { name, port } => {
                Ok(Box::new(TcpStream::connect((name.as_str(), *port)).await?))
            }
            Host::Https { name, port } => {
                let config = self.tls.clone().ok_or(io::ErrorKind::NotConnected)?;
                // Certificates name roles, not machines: whoever holds one of a manager, signed by
                // the given CA, is a manager of this cluster.
                let server = ServerName::try_from(ballast_link::Role::Manager.dns_name())
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
                let stream = TcpStream::connect((name.as_str(), *port)).await?;
                let connector = tokio_rustls::TlsConnector::from(config);
                Ok(Box::new(connector.connect(server, stream).await?))
            }
        }
    }

    fn unreachable(&self, error: &io::Error) -> Failure {
        let hint = match (&self.host, error.kind()) {
            (Host::Unix(path), io::ErrorKind::PermissionDenied) => format!(
                "the socket belongs to another user; run as its owner (`ls -l {}`)",
                path.display()
            ),
            (Host::Unix(_), _) => {
                "start one with `ballast dev` (all on this machine) or `ballast manager`; \
                 or name another with --host or BALLAST_HOST"
                    .to_owned()
            }
            _ => "is the manager up, and is this its --listen address?".to_owned(),
        };
        Failure::NoManager {
            address: self.host.to_string(),
            reason: plain(error),
            hint,
        }
    }

    fn broken(&self, error: hyper::Error) -> Failure {
        Failure::Failed(format!(
            "the connection to {} broke: {error}; is it a Ballast manager?",
            self.host
        ))
    }
}

/// Returns the system's words without the number behind them.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_lowercase(),
        None => text,
    }
}

/// Reads a whole body.
pub(super) async fn read_body(answer: Response<Incoming>, most: usize) -> Result<Bytes, Failure> {
    Limited::new(answer.into_body(), most)
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes)
        .map_err(|error| Failure::while_doing("the manager's answer broke off", error))
}
