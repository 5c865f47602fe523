//! Manager ↔ manager: Raft's calls as request and answer over a link.

use std::sync::{Arc, OnceLock};

use ballast_link::{Link, LinkError, Peer as LinkPeer, Role, Trust, alpn};
use openraft::error::{
    InstallSnapshotError, NetworkError, RPCError, RaftError, RemoteError, Timeout, Unreachable,
};
use openraft::network::{RPCOption, RPCTypes};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use openraft::{Raft, RaftNetwork, RaftNetworkFactory};
use serde::{Deserialize, Serialize};

use super::types::{Peer, TypeConfig};

/// One of Raft's calls.
#[derive(Debug, Serialize, Deserialize)]
pub enum Call {
    /// Entries, or a heartbeat.
    Append(AppendEntriesRequest<TypeConfig>),
    /// A candidate asks.
    Vote(VoteRequest<u64>),
    /// A piece of a snapshot.
    Snapshot(InstallSnapshotRequest<TypeConfig>),
}

/// Its answer.
#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    /// To [`Call::Append`].
    Append(Result<AppendEntriesResponse<u64>, RaftError<u64>>),
    /// To [`Call::Vote`].
    Vote(Result<VoteResponse<u64>, RaftError<u64>>),
    /// To [`Call::Snapshot`].
    Snapshot(Result<InstallSnapshotResponse<u64>, RaftError<u64, InstallSnapshotError>>),
}

type Failure<E = openraft::error::Infallible> = RPCError<u64, Peer, RaftError<u64, E>>;

/// Answers one manager's calls until it hangs up.
///
/// # Errors
/// The link broke.
pub async fn serve(raft: Raft<TypeConfig>, mut link: Link<Answer, Call>) -> Result<(), LinkError> {
    while let Some(call) = link.receiver.recv().await? {
        let answer = match call {
            Call::Append(request) => Answer::Append(raft.append_entries(request).await),
            Call::Vote(request) => Answer::Vote(raft.vote(request).await),
            Call::Snapshot(request) => Answer::Snapshot(raft.install_snapshot(request).await),
        };
        link.sender.send(&answer).await?;
    }
    Ok(())
}

/// This manager's credentials; empty until it has some. The first manager of a cluster gets its
/// own only once the CA is in the log, and needs no connections before.
pub type TrustCell = Arc<OnceLock<Arc<Trust>>>;

/// Makes connections to other managers.
#[derive(Debug, Clone)]
pub struct Network {
    trust: TrustCell,
    own: u64,
}

impl Network {
    /// Connects with this manager's credentials.
    pub fn new(trust: TrustCell, own: u64) -> Self {
        Self { trust, own }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Connection;

    async fn new_client(&mut self, target: u64, node: &Peer) -> Connection {
        Connection {
            trust: Arc::clone(&self.trust),
            own: self.own,
            target,
            address: node.address.clone(),
            link: None,
        }
    }
}

/// Calls one manager; connects when it is first needed, and again after a failure.
#[derive(Debug)]
pub struct Connection {
    trust: TrustCell,
    own: u64,
    target: u64,
    address: String,
    link: Option<Link<Call, Answer>>,
}

impl Connection {
    async fn connect(&self) -> Result<Link<Call, Answer>, LinkError> {
        let trust = self.trust.get().ok_or(LinkError::NoCertificate)?;
        let mut addresses = tokio::net::lookup_host(&self.address).await?;
        let address = addresses
            .next()
            .ok_or_else(|| LinkError::Refused(format!("{} has no address", self.address)))?;
        let peer = LinkPeer {
            address,
            role: Role::Manager,
            id: Some(self.target),
        };
        let (stream, identity) = trust.connect(peer, alpn::RAFT).await?;
        Ok(Link::new(stream, identity))
    }

    async fn exchange(&mut self, call: &Call) -> Result<Answer, LinkError> {
        // Taken, so that a call that is dropped half-way leaves no link that is out of step.
        let mut link = match self.link.take() {
            Some(link) => link,
            None => self.connect().await?,
        };
        link.sender.send(call).await?;
        let answer = link
            .receiver
            .recv()
            .await?
            .ok_or_else(|| LinkError::Refused("the peer hung up".to_owned()))?;
        self.link = Some(link);
        Ok(answer)
    }

    async fn call<E: std::error::Error>(
        &mut self,
        call: Call,
        kind: RPCTypes,
        option: &RPCOption,
    ) -> Result<Answer, RPCError<u64, Peer, RaftError<u64, E>>> {
        match tokio::time::timeout(option.hard_ttl(), self.exchange(&call)).await {
            Ok(Ok(answer)) => Ok(answer),
            // Unreachable lets openraft wait a moment before the next try.
            Ok(Err(error @ LinkError::Connect { .. })) => {
                Err(RPCError::Unreachable(Unreachable::new(&error)))
            }
            Ok(Err(error)) => Err(RPCError::Network(NetworkError::new(&error))),
            Err(_) => Err(RPCError::Timeout(Timeout {
                action: kind,
                id: self.own,
                target: self.target,
                timeout: option.hard_ttl(),
            })),
        }
    }

    fn remote<T, E: std::error::Error>(
        &self,
        result: Result<T, RaftError<u64, E>>,
    ) -> Result<T, RPCError<u64, Peer, RaftError<u64, E>>> {
        result.map_err(|error| RPCError::RemoteError(RemoteError::new(self.target, error)))
    }
}

fn out_of_step<E: std::error::Error>() -> RPCError<u64, Peer, RaftError<u64, E>> {
    let error = std::io::Error::other("the peer answered another question");
    RPCError::Network(NetworkError::new(&error))
}

impl RaftNetwork<TypeConfig> for Connection {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, Failure> {
        let call = Call::Append(rpc);
        match self.call(call, RPCTypes::AppendEntries, &option).await? {
            Answer::Append(result) => self.remote(result),
            _ => Err(out_of_step()),
        }
    }

    async fn install_snapshot(
        &mut self,
        rpc: InstallSnapshotRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<InstallSnapshotResponse<u64>, Failure<InstallSnapshotError>> {
        let call = Call::Snapshot(rpc);
        match self.call(call, RPCTypes::InstallSnapshot, &option).await? {
            Answer::Snapshot(result) => self.remote(result),
            _ => Err(out_of_step()),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<u64>,
        option: RPCOption,
    ) -> Result<VoteResponse<u64>, Failure> {
        let call = Call::Vote(rpc);
        match self.call(call, RPCTypes::Vote, &option).await? {
            Answer::Vote(result) => self.remote(result),
            _ => Err(out_of_step()),
        }
    }
}
