//! The types that openraft is told to use.

use std::io::Cursor;
use std::ops::Deref;
use std::sync::Arc;

use ballast_wire::log::{Batch, Command};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::state::{Rejection, Response};

/// What `apply` said to one command.
pub type Outcome = Result<Response, Rejection>;

/// What `apply` said to each command of a batch, in order.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Outcomes {
    /// They go to the proposer in this process and never over a wire, though openraft asks for
    /// types that could.
    #[serde(skip)]
    pub list: Vec<Outcome>,
}

/// One entry's commands. Clones share them: openraft keeps, sends and applies the same entry.
#[derive(Debug, Clone, Default)]
pub struct LogBatch(Arc<Batch>);

impl From<Batch> for LogBatch {
    fn from(batch: Batch) -> Self {
        Self(Arc::new(batch))
    }
}

impl Deref for LogBatch {
    type Target = [Command];

    fn deref(&self) -> &[Command] {
        &self.0
    }
}

impl Serialize for LogBatch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for LogBatch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Batch::deserialize(deserializer).map(Self::from)
    }
}

/// Another manager, as Raft's membership holds it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Peer {
    /// Its address for links: `host:port`.
    pub address: String,
}

openraft::declare_raft_types!(
    /// How openraft is put together here.
    pub TypeConfig:
        D = LogBatch,
        R = Outcomes,
        NodeId = u64,
        Node = Peer,
        Entry = openraft::Entry<TypeConfig>,
        SnapshotData = Cursor<Vec<u8>>,
        AsyncRuntime = openraft::TokioRuntime,
);

/// One entry of the log.
pub type Entry = openraft::Entry<TypeConfig>;
/// Index, and the term in which it was written.
pub type LogId = openraft::LogId<u64>;
/// Who is voted for, in which term.
pub type Vote = openraft::Vote<u64>;
/// Managers, and the entry that made them members.
pub type StoredMembership = openraft::StoredMembership<u64, Peer>;
/// What a snapshot covers.
pub type SnapshotMeta = openraft::SnapshotMeta<u64, Peer>;
/// A failure of the storage: Raft stops on it.
pub type StorageError = openraft::StorageError<u64>;
