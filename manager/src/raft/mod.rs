//! Consensus: the log of commands on this disk and on other managers', and the state it makes.
//!
//! Everything that knows openraft is in here. The rest of the manager proposes commands
//! ([`Proposer`]), reads the applied state ([`Replica`]) and watches who leads ([`Leadership`]).
//! One voter runs the same code as three or five.

#![allow(
    clippy::result_large_err,
    reason = "openraft's errors are as large as they are, and its traits return them unboxed"
)]

mod cache;
mod db;
mod log_store;
mod machine;
mod network;
mod proposer;
mod replica;
mod size;
mod types;

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use ballast_link::{Link, LinkError, TlsStream};
use ballast_model::ManagerId;
use openraft::{Raft, RaftMetrics, ServerState, SnapshotPolicy};
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use self::db::DbError;
use self::db::{Db, Key};
use self::log_store::LogStore;
use self::machine::Machine;
use self::network::Network;
pub use self::network::TrustCell;
pub use self::proposer::{ProposeError, Proposer, RETRY_AFTER_SECS};
pub use self::replica::{Inbox, Replica, Watcher};
use self::types::{Peer, TypeConfig};
use crate::data_dir::DataDir;
use crate::metrics::Metrics;

/// Entries after which a snapshot is made: replaying that many small ones takes well under a second.
/// Large ones are counted by [`size`].
const SNAPSHOT_ENTRIES: u64 = 4096;
/// Entries that are kept behind a snapshot, for a follower that is a little late.
const KEPT_ENTRIES: u64 = 1024;
/// Milliseconds between a leader's heartbeats.
const HEARTBEAT_MS: u64 = 50;
/// Milliseconds without one after which a follower stands for election: at the least, and the
/// most. A new leader within a second is the goal.
const ELECTION_MS: (u64, u64) = (250, 500);

/// The longest wait for a majority to confirm a new leader before its metrics are looked at again.
const CATCH_UP: Duration = Duration::from_secs(1);

/// The longest wait for the file to be closed at the end, and how often it is looked.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
const CLOSE_CHECK: Duration = Duration::from_millis(2);

/// Why consensus could not be started.
#[derive(Debug, thiserror::Error)]
pub enum RaftStartError {
    /// The file.
    #[error(transparent)]
    Db(#[from] DbError),
    /// A value in the file is not what belongs there.
    #[error("manager.redb holds no usable {0}")]
    Contents(&'static str),
    /// openraft refused.
    #[error("raft: {0}")]
    Raft(String),
}

/// Who leads, as far as this manager knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leadership {
    /// This one, in this term; all that was committed before is applied.
    Leading {
        /// Counts elections.
        term: u64,
    },
    /// Another, or nobody at the moment.
    Following {
        /// Its address for links.
        leader: Option<String>,
    },
    /// Raft has ended, with the reason: this process has to end, too.
    Stopped(String),
}

/// A running member of the managers' group.
pub struct Consensus {
    /// This manager.
    pub manager: ManagerId,
    /// Takes commands to the log.
    pub proposer: Proposer,
    /// The applied state.
    pub replica: Arc<Replica>,
    raft: Raft<TypeConfig>,
    leadership: watch::Receiver<Leadership>,
    tasks: JoinSet<()>,
    /// Alive as long as the file is open.
    open: Weak<()>,
}

fn failed(error: impl std::fmt::Display) -> RaftStartError {
    RaftStartError::Raft(error.to_string())
}

fn raft_config() -> Result<Arc<openraft::Config>, RaftStartError> {
    let config = openraft::Config {
        cluster_name: "ballast".to_owned(),
        heartbeat_interval: HEARTBEAT_MS,
        election_timeout_min: ELECTION_MS.0,
        election_timeout_max: ELECTION_MS.1,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(SNAPSHOT_ENTRIES),
        max_in_snapshot_log_to_keep: KEPT_ENTRIES,
        purge_batch_size: KEPT_ENTRIES,
        ..openraft::Config::default()
    };
    config.validate().map(Arc::new).map_err(failed)
}

/// Returns this manager's id: drawn at the first start, then kept.
fn manager_id(db: &Db) -> Result<ManagerId, RaftStartError> {
    if let Some(bytes) = db.get(Key::Manager)? {
        return <[u8; 8]>::try_from(bytes)
            .map(|bits| ManagerId::from_bits(u64::from_be_bytes(bits)))
            .map_err(|_| RaftStartError::Contents("manager id"));
    }
    let bits = getrandom::u64().map_err(failed)?;
    db.put(&[(Key::Manager, &bits.to_be_bytes())])?;
    Ok(ManagerId::from_bits(bits))
}

impl Consensus {
    /// Opens the log in `dir` and joins the group that it names; a folder without a log founds a
    /// group of one, reached at `address`.
    ///
    /// # Errors
    /// [`RaftStartError`]: the file cannot be used.
    pub async fn start(
        dir: &DataDir,
        address: &str,
        trust: TrustCell,
        metrics: Metrics,
    ) -> Result<Self, RaftStartError> {
        let consensus = Self::open(dir, trust, metrics).await?;
        if !consensus.raft.is_initialized().await.map_err(failed)? {
            let address = address.to_owned();
            let members = BTreeMap::from([(consensus.manager.to_bits(), Peer { address })]);
            consensus.raft.initialize(members).await.map_err(failed)?;
        }
        Ok(consensus)
    }

    /// Opens the log in `dir`: without one, a member that waits to be taken into a group.
    async fn open(
        dir: &DataDir,
        trust: TrustCell,
        metrics: Metrics,
    ) -> Result<Self, RaftStartError> {
        let db = Arc::new(Db::open(&dir.database())?);
        let manager = manager_id(&db)?;
        let id = manager.to_bits();
        let log = LogStore::new(Arc::clone(&db), metrics.clone());
        let (machine, replica) = Machine::open(Arc::clone(&db), metrics.clone()).map_err(failed)?;
        let open = db.open_mark();
        let size = db.log_size();
        drop(db);
        let network = Network::new(trust, id);
        let raft = Raft::new(id, raft_config()?, network, log, machine)
            .await
            .map_err(failed)?;
        let mut tasks = JoinSet::new();
        let (proposer, writer) = Proposer::new(
            raft.clone(),
            dir.path().to_owned(),
            Arc::clone(&size),
            metrics.clone(),
        );
        tasks.spawn(writer);
        tasks.spawn(size::bound(raft.clone(), size));
        let (sender, leadership) = watch::channel(Leadership::Following { leader: None });
        tasks.spawn(watch_leadership(raft.clone(), sender, metrics));
        Ok(Self {
            manager,
            proposer,
            replica,
            raft,
            leadership,
            tasks,
            open,
        })
    }

    /// Returns who leads, and a way to wait for a change.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }

    /// Returns what answers other managers' calls.
    pub fn server(&self) -> RaftServer {
        RaftServer {
            raft: self.raft.clone(),
        }
    }

    /// Ends this member; what it has acknowledged is on disk already. Waits until the file is
    /// closed, so that it can be opened again.
    pub async fn shutdown(mut self) {
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(%error, "raft did not end cleanly");
        }
        self.tasks.shutdown().await;
        let Self { raft, open, .. } = self;
        drop(raft);
        // openraft does not await its state machine's task; it lets go of the file by itself.
        let deadline = tokio::time::Instant::now() + CLOSE_TIMEOUT;
        while open.strong_count() > 0 {
            if tokio::time::Instant::now() > deadline {
                tracing::warn!("the log's file is still open");
                return;
            }
            tokio::time::sleep(CLOSE_CHECK).await;
        }
    }
}

/// Answers other managers' calls.
#[derive(Clone)]
pub struct RaftServer {
    raft: Raft<TypeConfig>,
}

impl RaftServer {
    /// Serves one manager until it hangs up.
    ///
    /// # Errors
    /// The link broke.
    pub async fn serve(
        &self,
        stream: TlsStream,
        peer: ballast_link::Identity,
    ) -> Result<(), LinkError> {
        network::serve(self.raft.clone(), Link::new(stream, peer)).await
    }
}

/// Turns openraft's metrics into [`Leadership`]: leading only once everything that was committed
/// before is applied here, so that nothing is decided on an old state.
async fn watch_leadership(
    raft: Raft<TypeConfig>,
    sender: watch::Sender<Leadership>,
    metrics: Metrics,
) {
    let mut raft_metrics = raft.metrics();
    loop {
        let seen = raft_metrics.borrow_and_update().clone();
        let current = sender.borrow().clone();
        let leadership = judge(&raft, &seen, &current).await;
        metrics.leading(matches!(leadership, Leadership::Leading { .. }));
        sender.send_if_modified(|current| {
            let changed = *current != leadership;
            *current = leadership;
            changed
        });
        if raft_metrics.changed().await.is_err() {
            let reason = "its core has ended".to_owned();
            sender.send_replace(Leadership::Stopped(reason));
            return;
        }
    }
}

async fn judge(
    raft: &Raft<TypeConfig>,
    seen: &RaftMetrics<u64, Peer>,
    current: &Leadership,
) -> Leadership {
    if let Err(fatal) = &seen.running_state {
        return Leadership::Stopped(fatal.to_string());
    }
    let leader = || {
        let id = seen.current_leader?;
        let node = seen.membership_config.membership().get_node(&id)?;
        (id != seen.id).then(|| node.address.clone())
    };
    if seen.state != ServerState::Leader {
        return Leadership::Following { leader: leader() };
    }
    let leading = Leadership::Leading {
        term: seen.current_term,
    };
    if *current == leading {
        return leading;
    }
    let caught_up = tokio::time::timeout(CATCH_UP, raft.ensure_linearizable());
    match caught_up.await {
        Ok(Ok(_)) => leading,
        // Asked again at the next change of openraft's metrics, which every heartbeat is.
        _ => Leadership::Following { leader: None },
    }
}

#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod tests;
