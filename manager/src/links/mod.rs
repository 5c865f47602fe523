//! The manager's port: links of agents and ingresses, joins, other managers, and the API over TLS.
//! The caller says by ALPN what it wants to speak.

mod agent;
mod ingress;
mod join;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ballast_link::{Accepted, ClientAuth, Identity, Link, LinkError, Role, TlsStream, Trust, alpn};
use ballast_wire::agent::ManagerToAgent;
use ballast_wire::ingress::ManagerToIngress;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::api;
use crate::ca::Ca;
use crate::leader::LeaderContext;
use crate::metrics::Metrics;
use crate::raft::{Leadership, ProposeError, RaftServer, Replica};

/// The longest wait for the first message on a connection.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections at a time: every node and ingress of the largest cluster has one, with room for
/// clients. Past it new ones wait unaccepted.
const CONNECTIONS: usize = 16_384;
/// The longest wait for a scope that is about to begin.
const SCOPE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long accepting pauses when the process has no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What is spoken on the port.
const ALPNS: [&[u8]; 5] = [alpn::LINK, alpn::JOIN, alpn::RAFT, alpn::HTTP2, alpn::HTTP1];

/// Why a connection ended, other than by its peer's wish.
#[derive(Debug, thiserror::Error)]
enum SessionEnd {
    /// The peer did or said what it may not; it is told why.
    #[error("refused: {0}")]
    Refused(String),
    /// It did not say hello in time.
    #[error("no hello within {HELLO_TIMEOUT:?}")]
    Silent,
    /// The same member has connected again.
    #[error("replaced by a newer connection of the same member")]
    Replaced,
    /// This manager does not lead any more.
    #[error("this manager does not lead any more")]
    LeadershipLost,
    /// Its hello could not be committed.
    #[error("not committed: {0}")]
    NotCommitted(#[source] ProposeError),
    /// The connection.
    #[error(transparent)]
    Link(#[from] LinkError),
}

/// Everything that connections need.
#[derive(Clone)]
pub struct LinkServer {
    /// This manager's credentials.
    pub trust: Arc<Trust>,
    /// Issues certificates.
    pub ca: Arc<Ca>,
    /// The applied state.
    pub replica: Arc<Replica>,
    /// Answers other managers.
    pub raft: RaftServer,
    /// Who leads.
    pub leadership: watch::Receiver<Leadership>,
    /// The leader's scope while this manager leads.
    pub leader: watch::Receiver<Option<Arc<LeaderContext>>>,
    /// The API.
    pub router: axum::Router,
    /// Counts links.
    pub metrics: Metrics,
}

impl LinkServer {
    /// Accepts connections until `shutdown`, and then ends those that are open.
    pub async fn run(self, listener: TcpListener, shutdown: CancellationToken) {
        let mut connections = JoinSet::new();
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        let server = Arc::new(self);
        loop {
            let permit = Arc::clone(&room).acquire_owned();
            let accepted = tokio::select! {
                () = shutdown.cancelled() => break,
                Some(_) = connections.join_next() => continue,
                accepted = async { (permit.await, listener.accept().await) } => accepted,
            };
            let (Ok(permit), accepted) = accepted else {
                break;
            };
            match accepted {
                Ok((stream, address)) => {
                    let server = Arc::clone(&server);
                    let shutdown = shutdown.clone();
                    connections.spawn(async move {
                        server.serve(stream, address, shutdown).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        connections.shutdown().await;
    }

    async fn serve(&self, stream: TcpStream, address: SocketAddr, shutdown: CancellationToken) {
        let accepted = self
            .trust
            .accept(stream, &ALPNS, ClientAuth::JoinersMayCall)
            .await;
        let ended = match accepted {
            Ok(accepted) => self.dispatch(accepted, shutdown).await,
            Err(error) => Err(error.into()),
        };
        match ended {
            Ok(()) => {}
            Err(SessionEnd::Refused(reason)) => {
                tracing::warn!(%address, reason, "connection refused");
            }
            Err(error) => tracing::debug!(%address, %error, "connection ended"),
        }
    }

    async fn dispatch(
        &self,
        accepted: Accepted,
        shutdown: CancellationToken,
    ) -> Result<(), SessionEnd> {
        let Accepted {
            stream,
            alpn,
            identity,
        } = accepted;
        if alpn == alpn::JOIN {
            let (leads, leader) = self.who_leads();
            return join::serve(stream, &self.replica, &self.ca, leads, leader).await;
        }
        let peer = identity.ok_or(LinkError::NoCertificate)?;
        match (alpn.as_slice(), peer.role) {
            (alpn::LINK, Role::Agent) => self.serve_agent(stream, peer).await,
            (alpn::LINK, Role::Ingress) => self.serve_ingress(stream, peer).await,
            (alpn::RAFT, Role::Manager) => {
                let _count = self.metrics.link("manager");
                Ok(self.raft.serve(stream, peer).await?)
            }
            (alpn::HTTP1 | alpn::HTTP2, Role::Client | Role::Manager) => {
                api::serve_connection(stream, self.router.clone(), shutdown).await;
                Ok(())
            }
            (protocol, role) => {
                let protocol = String::from_utf8_lossy(protocol);
                let reason = format!("a certificate of the role {role} does not open {protocol}");
                Err(SessionEnd::Refused(reason))
            }
        }
    }

    async fn serve_agent(&self, stream: TlsStream, peer: Identity) -> Result<(), SessionEnd> {
        let mut link = Link::new(stream, peer);
        let Some(leader) = self.scope().await else {
            let (_, leader) = self.who_leads();
            let redirect = ManagerToAgent::Redirect { leader };
            return Ok(link.sender.send(&redirect).await?);
        };
        let _count = self.metrics.link("agent");
        agent::serve(link, &leader, &self.ca).await
    }

    async fn serve_ingress(&self, stream: TlsStream, peer: Identity) -> Result<(), SessionEnd> {
        let mut link = Link::new(stream, peer);
        let Some(leader) = self.scope().await else {
            let (_, leader) = self.who_leads();
            let redirect = ManagerToIngress::Redirect { leader };
            return Ok(link.sender.send(&redirect).await?);
        };
        let _count = self.metrics.link("ingress");
        ingress::serve(link, &leader, &self.ca).await
    }

    /// Returns the leader's scope if this manager leads; it may be about to begin.
    async fn scope(&self) -> Option<Arc<LeaderContext>> {
        if !self.who_leads().0 {
            return None;
        }
        let mut leader = self.leader.clone();
        let begun = leader.wait_for(Option::is_some);
        let begun = tokio::time::timeout(SCOPE_TIMEOUT, begun).await.ok()?;
        begun.ok()?.clone()
    }

    /// Returns whether this manager leads, and the leader's address if another does.
    fn who_leads(&self) -> (bool, Option<SocketAddr>) {
        match &*self.leadership.borrow() {
            Leadership::Leading { .. } => (true, None),
            Leadership::Following { leader } => {
                (false, leader.as_ref().and_then(|text| text.parse().ok()))
            }
            Leadership::Stopped(_) => (false, None),
        }
    }
}
