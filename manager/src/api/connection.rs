//! Serves HTTP on whatever accepts connections.

use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The longest wait for a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long open requests may go on once the manager stops; those that follow would never end.
const LINGER: Duration = Duration::from_millis(500);
/// How long accepting pauses when the process has no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Connections of one listener at a time; past it the newest is closed at once.
const CONNECTIONS: usize = 1024;

/// Serves one connection, HTTP/1.1 or HTTP/2, until its end or `shutdown`.
pub async fn serve_connection(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    shutdown: CancellationToken,
) {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT);
    builder.http2().timer(TokioTimer::new());
    let service = TowerToHyperService::new(router);
    let connection = builder.serve_connection(TokioIo::new(io), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(LINGER, connection).await {
                Ok(ended) => ended,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "API connection broke");
    }
}

/// The API's Unix socket; its file goes with it.
#[derive(Debug)]
pub struct ApiSocket {
    listener: UnixListener,
    path: PathBuf,
}

/// Why the socket cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Somebody answers there.
    #[error("{0} is in use by another manager; stop that one or give another --socket")]
    InUse(PathBuf),
    /// The file system.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl ApiSocket {
    /// Makes the socket with this mode; a file that a dead manager left there is replaced.
    ///
    /// # Errors
    /// [`SocketError`]: a living manager has it, or the file cannot be made.
    pub async fn bind(path: &Path, mode: u32) -> Result<Self, SocketError> {
        if tokio::net::UnixStream::connect(path).await.is_ok() {
            return Err(SocketError::InUse(path.to_owned()));
        }
        let listener = bind_beside(path, mode).map_err(|source| SocketError::Io {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            listener,
            path: path.to_owned(),
        })
    }
}

/// Binds under another name and renames once the mode is right, so that nobody can connect before.
fn bind_beside(path: &Path, mode: u32) -> std::io::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt as _;
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    let draft = PathBuf::from(draft);
    match std::fs::remove_file(&draft) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&draft)?;
    std::fs::set_permissions(&draft, std::fs::Permissions::from_mode(mode))?;
    std::fs::rename(&draft, path)?;
    Ok(listener)
}

impl Drop for ApiSocket {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Something that accepts connections.
#[derive(Debug)]
pub enum ApiListener {
    /// The Unix socket.
    Socket(ApiSocket),
    /// Plain TCP, for metrics and health.
    Tcp(TcpListener),
}

/// Serves every connection of a listener until `shutdown`.
pub async fn serve_listener(listener: ApiListener, router: Router, shutdown: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let room = connections.len() < CONNECTIONS;
        let (router, shutdown) = (router.clone(), shutdown.clone());
        // What is accepted past the limit is dropped, which closes it.
        match accepted {
            Ok(Connection::Unix(stream)) if room => {
                connections.spawn(serve_connection(stream, router, shutdown));
            }
            Ok(Connection::Tcp(stream)) if room => {
                connections.spawn(serve_connection(stream, router, shutdown));
            }
            Ok(_) => tracing::warn!("too many API connections"),
            Err(error) => {
                tracing::warn!(%error, "cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// An accepted connection.
enum Connection {
    Unix(tokio::net::UnixStream),
    Tcp(tokio::net::TcpStream),
}

impl ApiListener {
    async fn accept(&self) -> std::io::Result<Connection> {
        match self {
            Self::Socket(socket) => Ok(Connection::Unix(socket.listener.accept().await?.0)),
            Self::Tcp(listener) => Ok(Connection::Tcp(listener.accept().await?.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[tokio::test]
    async fn living_socket_is_refused_and_a_stale_one_replaced() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("ballast.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).expect("binds"));
        assert!(path.exists(), "a dead manager leaves its file");
        let socket = ApiSocket::bind(&path, 0o600).await.expect("replaces it");
        let metadata = std::fs::metadata(&path).expect("is there");
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
        let error = ApiSocket::bind(&path, 0o600).await.expect_err("is alive");
        assert!(matches!(error, SocketError::InUse(_)), "{error}");
        drop(socket);
        assert!(!path.exists());
    }
}
