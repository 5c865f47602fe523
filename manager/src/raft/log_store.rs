//! Raft's log and vote as openraft asks for them, on [`Db`].

use std::fmt::Debug;
use std::ops::RangeBounds;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ballast_wire::{EncodeError, from_bytes, to_bytes};
use openraft::storage::{LogFlushed, LogState, RaftLogStorage};
use openraft::{AnyError, OptionalSend, RaftLogReader, StorageIOError};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::cache::Tail;
use super::db::{Db, DbError, Key};
use super::types::{Entry, LogId, StorageError, TypeConfig, Vote};
use crate::metrics::Metrics;

/// The log. Clones share the file.
#[derive(Debug, Clone)]
pub struct LogStore {
    db: Arc<Db>,
    tail: Arc<Mutex<Tail>>,
    metrics: Metrics,
}

impl LogStore {
    /// Wraps an open file.
    pub fn new(db: Arc<Db>, metrics: Metrics) -> Self {
        Self {
            db,
            tail: Arc::default(),
            metrics,
        }
    }

    fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a transaction where waiting for the disk holds nobody up.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Db) -> Result<T, DbError> + Send + 'static,
    ) -> Result<T, AnyError> {
        let db = Arc::clone(&self.db);
        match tokio::task::spawn_blocking(move || work(&db)).await {
            Ok(result) => result.map_err(|error| AnyError::new(&error)),
            Err(error) => Err(AnyError::new(&error)),
        }
    }
}

pub(super) fn encode(value: &impl Serialize) -> Result<Vec<u8>, AnyError> {
    to_bytes(value).map_err(|error| AnyError::new(&error))
}

pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, AnyError> {
    from_bytes(bytes).map_err(|error| AnyError::new(&error))
}

fn io(make: impl FnOnce(AnyError) -> StorageIOError<u64>) -> impl FnOnce(AnyError) -> StorageError {
    |error| StorageError::IO {
        source: make(error),
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        if let Some(entries) = self.tail().read(&range) {
            return Ok(entries);
        }
        let bounds = (range.start_bound().cloned(), range.end_bound().cloned());
        self.run(move |db| db.read(bounds))
            .await
            .and_then(|entries| entries.iter().map(|bytes| decode(bytes)).collect())
            .map_err(io(StorageIOError::read_logs))
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError> {
        let read = self
            .run(|db| Ok((db.get(Key::Purged)?, db.last()?)))
            .await
            .and_then(|(purged, last)| {
                let purged: Option<LogId> = purged.as_deref().map(decode).transpose()?;
                let last: Option<Entry> = last.as_deref().map(decode).transpose()?;
                Ok(LogState {
                    last_purged_log_id: purged,
                    last_log_id: last.map(|entry| entry.log_id).or(purged),
                })
            });
        read.map_err(io(StorageIOError::read_logs))
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let write = async {
            let bytes = encode(vote)?;
            self.run(move |db| db.put(&[(Key::Vote, &bytes)])).await
        };
        write.await.map_err(io(StorageIOError::write_vote))
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        self.run(|db| db.get(Key::Vote))
            .await
            .and_then(|bytes| bytes.as_deref().map(decode).transpose())
            .map_err(io(StorageIOError::read_vote))
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: LogFlushed<TypeConfig>,
    ) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let started = std::time::Instant::now();
        let write = self.run(move |db| {
            let encoded = entries
                .iter()
                .map(|entry| Ok((entry.log_id.index, to_bytes(entry)?)))
                .collect::<Result<Vec<_>, EncodeError>>();
            Ok(match encoded {
                Ok(encoded) => {
                    db.append(&encoded)?;
                    let sizes = encoded.into_iter().map(|(_, bytes)| bytes.len());
                    Ok(entries.into_iter().zip(sizes).collect::<Vec<_>>())
                }
                Err(error) => Err(AnyError::new(&error)),
            })
        });
        match write.await.flatten() {
            Ok(written) => {
                self.tail().append(written);
                self.metrics.log_append(started.elapsed());
                callback.log_io_completed(Ok(()));
                Ok(())
            }
            Err(error) => {
                callback.log_io_completed(Err(std::io::Error::other(error.to_string())));
                Err(io(StorageIOError::write_logs)(error))
            }
        }
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.tail().truncate(log_id.index);
        self.run(move |db| db.truncate(log_id.index))
            .await
            .map_err(io(StorageIOError::write_logs))
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.tail().purge(log_id.index);
        let write = async {
            let id = encode(&log_id)?;
            self.run(move |db| db.purge(log_id.index, &id)).await
        };
        write.await.map_err(io(StorageIOError::write_logs))
    }
}
