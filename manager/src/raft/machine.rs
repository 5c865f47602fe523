//! The state machine as openraft asks for it: the [`Replica`] in memory, its snapshots in the file.
//!
//! Applied entries are not written a second time: after a start the state is the newest snapshot
//! with the log applied to it again.

use std::io::Cursor;
use std::sync::Arc;

use openraft::storage::RaftStateMachine;
use openraft::{
    AnyError, EntryPayload, OptionalSend, RaftSnapshotBuilder, Snapshot, StorageIOError,
};

use super::db::{Db, Key};
use super::log_store::{decode, encode};
use super::replica::Replica;
use super::types::{
    Entry, LogId, Outcomes, SnapshotMeta, StorageError, StoredMembership, TypeConfig,
};
use crate::metrics::Metrics;
use crate::state::State;

/// Applies entries and makes snapshots.
#[derive(Debug)]
pub struct Machine {
    replica: Arc<Replica>,
    db: Arc<Db>,
    last_applied: Option<LogId>,
    membership: StoredMembership,
}

fn read_failed(error: AnyError) -> StorageError {
    StorageIOError::read_snapshot(None, error).into()
}

fn write_failed(error: AnyError) -> StorageError {
    StorageIOError::write_snapshot(None, error).into()
}

fn restore(body: &[u8]) -> Result<State, StorageError> {
    State::from_snapshot(body).map_err(|error| read_failed(AnyError::new(&error)))
}

fn load(db: &Db) -> Result<Option<(SnapshotMeta, Vec<u8>)>, AnyError> {
    let get = |key| db.get(key).map_err(|error| AnyError::new(&error));
    match (get(Key::SnapshotMeta)?, get(Key::Snapshot)?) {
        (Some(meta), Some(body)) => Ok(Some((decode(&meta)?, body))),
        _ => Ok(None),
    }
}

/// Writes a snapshot where waiting for the disk holds nobody up.
async fn store(db: &Arc<Db>, meta: &SnapshotMeta, body: Vec<u8>) -> Result<(), AnyError> {
    let meta = encode(meta)?;
    let db = Arc::clone(db);
    let write = move || db.put(&[(Key::SnapshotMeta, &meta), (Key::Snapshot, &body)]);
    match tokio::task::spawn_blocking(write).await {
        Ok(result) => result.map_err(|error| AnyError::new(&error)),
        Err(error) => Err(AnyError::new(&error)),
    }
}

impl Machine {
    /// Reads the newest snapshot, if there is one.
    ///
    /// # Errors
    /// It is there and cannot be read.
    pub fn open(db: Arc<Db>, metrics: Metrics) -> Result<(Self, Arc<Replica>), StorageError> {
        let (state, last_applied, membership) = match load(&db).map_err(read_failed)? {
            None => (State::default(), None, StoredMembership::default()),
            Some((meta, body)) => {
                let state = restore(&body)?;
                (state, meta.last_log_id, meta.last_membership)
            }
        };
        let replica = Replica::new(state, metrics);
        let machine = Self {
            replica: Arc::clone(&replica),
            db,
            last_applied,
            membership,
        };
        Ok((machine, replica))
    }

    fn apply_one(&mut self, entry: Entry) -> Outcomes {
        self.last_applied = Some(entry.log_id);
        let index = entry.log_id.index;
        match entry.payload {
            EntryPayload::Blank => self.replica.pass(index),
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(entry.log_id), membership);
                self.replica.pass(index);
            }
            EntryPayload::Normal(batch) => {
                return Outcomes {
                    list: self.replica.apply(index, &batch),
                };
            }
        }
        Outcomes::default()
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        Ok((self.last_applied, self.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Outcomes>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        Ok(entries
            .into_iter()
            .map(|entry| self.apply_one(entry))
            .collect())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let id = self
            .last_applied
            .map_or_else(String::new, |id| id.to_string());
        Builder {
            db: Arc::clone(&self.db),
            meta: SnapshotMeta {
                last_log_id: self.last_applied,
                last_membership: self.membership.clone(),
                snapshot_id: id,
            },
            // Now, because the next entry may be applied before the snapshot is built.
            body: self
                .replica
                .read()
                .to_snapshot()
                .map_err(|error| AnyError::new(&error)),
        }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError> {
        let body = snapshot.into_inner();
        let state = restore(&body)?;
        store(&self.db, meta, body).await.map_err(write_failed)?;
        self.last_applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        let index = meta.last_log_id.map_or(0, |id| id.index);
        self.replica.replace(index, state);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<TypeConfig>>, StorageError> {
        let found = load(&self.db).map_err(read_failed)?;
        Ok(found.map(|(meta, body)| Snapshot {
            meta,
            snapshot: Box::new(Cursor::new(body)),
        }))
    }
}

/// The state at one moment, on its way to the file.
#[derive(Debug)]
pub struct Builder {
    db: Arc<Db>,
    meta: SnapshotMeta,
    body: Result<Vec<u8>, AnyError>,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<TypeConfig>, StorageError> {
        let body = self.body.clone().map_err(write_failed)?;
        store(&self.db, &self.meta, body.clone())
            .await
            .map_err(write_failed)?;
        tracing::debug!(
            snapshot = self.meta.snapshot_id,
            bytes = body.len(),
            "snapshot written"
        );
        Ok(Snapshot {
            meta: self.meta.clone(),
            snapshot: Box::new(Cursor::new(body)),
        })
    }
}
