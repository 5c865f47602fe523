//! The one file that a manager keeps: Raft's log, vote and newest snapshot, in redb.
//!
//! Bytes only: what they mean is for [`super::log_store`] and [`super::machine`].
//! Each function is one transaction; those that write return once the kernel has the bytes on disk
//! (`Durability::Immediate`), so that a process killed at any moment comes back with all of it.

use std::ops::{Bound, RangeBounds};
use std::path::Path;
use std::sync::{Arc, Weak};

use redb::{
    Database, Durability, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction,
};

use super::size::LogSize;

/// The log by index.
const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
/// Single values by name.
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

/// Bytes of redb's page cache: the log is read only at start and by slow followers, so the
/// default of 1 GiB would only hold memory.
const CACHE_BYTES: usize = 2 << 20;

/// A failure of the file: of the disk under it, or of its contents.
///
/// After one redb refuses all further writes until the file is opened again.
#[derive(Debug, thiserror::Error)]
#[error("manager.redb: {0}")]
pub struct DbError(#[source] pub Box<redb::Error>);

impl<E: Into<redb::Error>> From<E> for DbError {
    fn from(error: E) -> Self {
        Self(Box::new(error.into()))
    }
}

/// Names of the single values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// Term and candidate of the last vote.
    Vote,
    /// Id of the last entry that was purged.
    Purged,
    /// What the newest snapshot covers.
    SnapshotMeta,
    /// The newest snapshot.
    Snapshot,
    /// Id of this manager.
    Manager,
}

impl Key {
    const fn name(self) -> &'static str {
        match self {
            Self::Vote => "vote",
            Self::Purged => "purged",
            Self::SnapshotMeta => "snapshot-meta",
            Self::Snapshot => "snapshot",
            Self::Manager => "manager",
        }
    }
}

/// The open file.
#[derive(Debug)]
pub struct Db {
    database: Database,
    /// How many bytes the log has.
    size: Arc<LogSize>,
    /// Dropped after the database: gone when the file is closed.
    open: Arc<()>,
}

impl Db {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    /// The file cannot be read or written, or is not a redb file.
    pub fn open(path: &Path) -> Result<Self, DbError> {
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create(path)?;
        let db = Self {
            database,
            size: Arc::default(),
            open: Arc::new(()),
        };
        db.write(|transaction| {
            transaction.open_table(LOG)?;
            transaction.open_table(META)?;
            Ok(())
        })?;
        db.measure()?;
        Ok(db)
    }

    /// Counts what is there already.
    fn measure(&self) -> Result<(), DbError> {
        let transaction = self.database.begin_read()?;
        let meta = transaction.open_table(META)?;
        if let Some(snapshot) = meta.get(Key::Snapshot.name())? {
            self.size.snapshot(snapshot.value().len());
        }
        let log = transaction.open_table(LOG)?;
        let entries = log.iter()?.map(|entry| {
            let (index, bytes) = entry?;
            Ok((index.value(), bytes.value().len()))
        });
        let entries = entries.collect::<Result<Vec<_>, DbError>>()?;
        self.size.append(entries);
        Ok(())
    }

    /// Returns what counts the bytes of the log.
    pub fn log_size(&self) -> Arc<LogSize> {
        Arc::clone(&self.size)
    }

    /// Returns what is alive as long as the file is open.
    pub fn open_mark(&self) -> Weak<()> {
        Arc::downgrade(&self.open)
    }

    fn write(
        &self,
        change: impl FnOnce(&WriteTransaction) -> Result<(), DbError>,
    ) -> Result<(), DbError> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        change(&transaction)?;
        transaction.commit()?;
        Ok(())
    }

    /// Returns a value.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn get(&self, key: Key) -> Result<Option<Vec<u8>>, DbError> {
        let table = self.database.begin_read()?.open_table(META)?;
        Ok(table.get(key.name())?.map(|value| value.value().to_vec()))
    }

    /// Sets values, all or none.
    ///
    /// # Errors
    /// They were not written.
    pub fn put(&self, values: &[(Key, &[u8])]) -> Result<(), DbError> {
        self.write(|transaction| {
            let mut table = transaction.open_table(META)?;
            for (key, value) in values {
                table.insert(key.name(), *value)?;
            }
            Ok(())
        })?;
        for (key, value) in values {
            if *key == Key::Snapshot {
                self.size.snapshot(value.len());
            }
        }
        Ok(())
    }

    /// Adds entries to the log, all or none.
    ///
    /// # Errors
    /// They were not written.
    pub fn append(&self, entries: &[(u64, Vec<u8>)]) -> Result<(), DbError> {
        self.write(|transaction| {
            let mut table = transaction.open_table(LOG)?;
            for (index, entry) in entries {
                table.insert(index, entry.as_slice())?;
            }
            Ok(())
        })?;
        let sizes = entries.iter().map(|(index, bytes)| (*index, bytes.len()));
        self.size.append(sizes);
        Ok(())
    }

    /// Returns the entries of a range, in order.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(&self, range: impl RangeBounds<u64>) -> Result<Vec<Vec<u8>>, DbError> {
        let table = self.database.begin_read()?.open_table(LOG)?;
        let bounds: (Bound<u64>, Bound<u64>) =
            (range.start_bound().cloned(), range.end_bound().cloned());
        table
            .range::<u64>(bounds)?
            .map(|entry| Ok(entry?.1.value().to_vec()))
            .collect()
    }

    /// Returns the last entry.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn last(&self) -> Result<Option<Vec<u8>>, DbError> {
        let table = self.database.begin_read()?.open_table(LOG)?;
        Ok(table.last()?.map(|(_, value)| value.value().to_vec()))
    }

    /// Removes the entries from `index` on: a newer leader has others there.
    ///
    /// # Errors
    /// They were not removed.
    pub fn truncate(&self, index: u64) -> Result<(), DbError> {
        self.write(|transaction| {
            let mut table = transaction.open_table(LOG)?;
            table.retain_in(index.., |_, _| false)?;
            Ok(())
        })?;
        self.size.truncate(index);
        Ok(())
    }

    /// Removes the entries up to and with `index`, which a snapshot covers, and notes the id of the
    /// last of them.
    ///
    /// # Errors
    /// They were not removed.
    pub fn purge(&self, index: u64, id: &[u8]) -> Result<(), DbError> {
        self.write(|transaction| {
            let mut table = transaction.open_table(LOG)?;
            table.retain_in(..=index, |_, _| false)?;
            let mut meta = transaction.open_table(META)?;
            meta.insert(Key::Purged.name(), id)?;
            Ok(())
        })?;
        self.size.purge(index);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_there_after_a_crash() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("manager.redb");
        let db = Db::open(&path).expect("opens");
        let entries: Vec<_> = (1..=10u64)
            .map(|i| (i, vec![u8::try_from(i).expect("small")]))
            .collect();
        db.append(&entries).expect("appends");
        db.put(&[(Key::Vote, b"me")]).expect("puts");
        // A copy of the file as it is on disk while the database is open and dirty is what a
        // killed process leaves behind.
        let crashed = dir.path().join("crashed.redb");
        std::fs::copy(&path, &crashed).expect("copies");
        let again = Db::open(&crashed).expect("repairs");
        assert_eq!(again.read(..).expect("reads").len(), 10);
        assert_eq!(again.last().expect("reads"), Some(vec![10]));
        assert_eq!(again.get(Key::Vote).expect("reads"), Some(b"me".to_vec()));
    }

    #[test]
    fn truncate_and_purge_leave_the_middle() {
        let dir = tempfile::tempdir().expect("a folder");
        let db = Db::open(&dir.path().join("manager.redb")).expect("opens");
        let entries: Vec<_> = (1..=9u64).map(|i| (i, i.to_be_bytes().to_vec())).collect();
        db.append(&entries).expect("appends");
        db.truncate(7).expect("truncates");
        db.purge(3, b"three").expect("purges");
        let left: Vec<_> = (4..=6u64).map(|i| i.to_be_bytes().to_vec()).collect();
        assert_eq!(db.read(..).expect("reads"), left);
        assert_eq!(db.get(Key::Purged).expect("reads"), Some(b"three".to_vec()));
    }
}
