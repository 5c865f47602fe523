//! What one life of the agent leaves the next: the newest set, a record for each assignment, the
//! ingresses, and its incarnation. Small files, each written whole or not at all.
//!
//! Writing is done by a thread of its own and coalesced: no start, stop or push waits for a disk.
//! A disk that is full or broken costs the memory of this life and nothing else; it is said once,
//! and written again when it works. A file that cannot be read is set aside.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ballast_model::{AssignmentId, ClusterId, Incarnation, NodeId, Timestamp};
use ballast_wire::agent::{AssignmentSet, IngressAddress};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::worker::Record;

/// The version of the folder's layout that this build reads and writes.
const LAYOUT: u32 = 1;
/// Between two attempts to write what could not be written.
const RETRY: Duration = Duration::from_secs(1);

const ASSIGNMENTS: &str = "assignments";
const INGRESSES: &str = "ingresses";
const INCARNATION: &str = "incarnation";
const OWNER: &str = "owner";

/// Why a data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be made or read.
    #[error("data folder {path}: {source}")]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another agent runs on it.
    #[error("data folder {0} is in use by another agent; give this one its own with --data-dir")]
    InUse(PathBuf),
    /// A newer build has written it.
    #[error(
        "data folder {path} was written by a newer version (layout {found}, this build knows {LAYOUT})"
    )]
    Newer {
        /// Which.
        path: PathBuf,
        /// Its layout.
        found: u32,
    },
}

/// What was found at the start.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The newest set; its generation is 0 if there was none.
    pub set: AssignmentSet,
    /// One for each assignment that had one.
    pub records: Vec<Record>,
    /// Every ingress that was known.
    pub ingresses: Vec<IngressAddress>,
    /// This life.
    pub incarnation: Incarnation,
}

#[derive(Debug, Default)]
struct Pending {
    set: Option<AssignmentSet>,
    ingresses: Option<Vec<IngressAddress>>,
    records: BTreeMap<AssignmentId, Option<Record>>,
    closed: bool,
    busy: bool,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.set.is_none() && self.ingresses.is_none() && self.records.is_empty()
    }
}

/// The folder, and what is still to be written into it.
#[derive(Debug)]
pub struct Store {
    shared: Arc<Shared>,
    /// Held as long as the agent lives.
    lock: File,
}

#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    pending: Mutex<Pending>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// Opens a data folder, makes it if need be, and reads what is in it.
    ///
    /// # Errors
    /// [`StoreError`]. Broken files in it are no error.
    pub fn open(data: &Path, now: Timestamp) -> Result<(Self, Loaded), StoreError> {
        let failed = |source| StoreError::Folder {
            path: data.to_owned(),
            source,
        };
        let folder = data.join("state");
        fs::create_dir_all(folder.join("tasks")).map_err(failed)?;
        let lock = File::create(data.join("lock")).map_err(failed)?;
        lock.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => StoreError::InUse(data.to_owned()),
            fs::TryLockError::Error(source) => failed(source),
        })?;
        check_layout(data, &folder)?;
        let before: Incarnation = read(&folder.join(INCARNATION)).unwrap_or_default();
        // A clock that was set back must not make this life look older than the last one.
        let incarnation = Incarnation(now.0.max(before.0 + 1));
        if let Err(error) = write(&folder.join(INCARNATION), &incarnation) {
            tracing::warn!(%error, folder = %folder.display(), "cannot write the data folder");
        }
        let loaded = Loaded {
            set: read(&folder.join(ASSIGNMENTS)).unwrap_or_default(),
            ingresses: read(&folder.join(INGRESSES)).unwrap_or_default(),
            records: read_records(&folder.join("tasks")),
            incarnation,
        };
        let shared = Arc::new(Shared {
            folder,
            pending: Mutex::default(),
            changed: Condvar::new(),
        });
        let writer = shared.clone();
        std::thread::Builder::new()
            .name("agent-store".to_owned())
            .spawn(move || writer.write_until_closed())
            .map_err(failed)?;
        let store = Self { shared, lock };
        Ok((store, loaded))
    }

    /// Says as which member of which cluster the agent runs. If that was another one before, what
    /// the folder holds is not for this one: the set is dropped, generations of another cluster
    /// compare to nothing; the records are left, so that their processes are seen to.
    pub fn claim(&self, cluster: ClusterId, node: NodeId, loaded: &mut Loaded) {
        let path = self.shared.folder.join(OWNER);
        let before: Option<(ClusterId, NodeId)> = read(&path);
        if before == Some((cluster, node)) {
            return;
        }
        if before.is_some() {
            tracing::warn!(%cluster, node_id = %node, "the data folder was another member's: its tasks are stopped");
            loaded.set = AssignmentSet::default();
            loaded.ingresses.clear();
        }
        if let Err(error) = write(&path, &(cluster, node)) {
            tracing::warn!(%error, file = %path.display(), "cannot write the data folder");
        }
    }

    /// Keeps the newest set.
    pub fn keep_set(&self, set: AssignmentSet) {
        self.shared.lock().set = Some(set);
        self.shared.changed.notify_all();
    }

    /// Keeps the ingresses.
    pub fn keep_ingresses(&self, ingresses: Vec<IngressAddress>) {
        self.shared.lock().ingresses = Some(ingresses);
        self.shared.changed.notify_all();
    }

    /// Keeps the newest record of an assignment.
    pub fn keep(&self, record: Record) {
        self.shared
            .lock()
            .records
            .insert(record.assignment, Some(record));
        self.shared.changed.notify_all();
    }

    /// Removes the record of an assignment.
    pub fn forget(&self, assignment: AssignmentId) {
        self.shared.lock().records.insert(assignment, None);
        self.shared.changed.notify_all();
    }

    /// Flushes, and lets another life of the agent have the folder. Blocks.
    pub fn close(&self, limit: Duration) {
        self.flush(limit);
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
        if let Err(error) = self.lock.unlock() {
            tracing::debug!(%error, "cannot unlock the data folder");
        }
    }

    /// Waits until everything is written, or until `limit` has passed. Blocks.
    pub fn flush(&self, limit: Duration) {
        let pending = self.shared.lock();
        let unwritten = |pending: &mut Pending| pending.busy || !pending.is_empty();
        // A disk that is full does not keep the agent from ending.
        drop(
            self.shared
                .changed
                .wait_timeout_while(pending, limit, unwritten),
        );
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn write_until_closed(&self) {
        let mut failing = false;
        loop {
            let mut pending = self.lock();
            pending.busy = false;
            self.changed.notify_all();
            while pending.is_empty() && !pending.closed {
                pending = self
                    .changed
                    .wait(pending)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            if pending.is_empty() {
                return;
            }
            let closed = pending.closed;
            let mut batch = std::mem::take(&mut *pending);
            pending.closed = closed;
            pending.busy = true;
            drop(pending);
            match self.write_batch(&mut batch) {
                Ok(()) if failing => {
                    failing = false;
                    tracing::info!("the data folder can be written again");
                }
                Ok(()) => {}
                Err(error) => {
                    if !failing {
                        tracing::warn!(%error, folder = %self.folder.display(), "cannot write the data folder: the agent goes on, but would not remember its tasks");
                    }
                    failing = true;
                    if closed {
                        return;
                    }
                    self.put_back(batch);
                    std::thread::sleep(RETRY);
                }
            }
        }
    }

    /// Takes what it has written out of the batch.
    fn write_batch(&self, batch: &mut Pending) -> io::Result<()> {
        while let Some((&id, record)) = batch.records.first_key_value() {
            let path = self.folder.join("tasks").join(id.to_string());
            match record {
                Some(record) => write(&path, record)?,
                None => remove(&path)?,
            }
            batch.records.pop_first();
        }
        if let Some(set) = &batch.set {
            write(&self.folder.join(ASSIGNMENTS), set)?;
            batch.set = None;
        }
        if let Some(ingresses) = &batch.ingresses {
            write(&self.folder.join(INGRESSES), ingresses)?;
            batch.ingresses = None;
        }
        Ok(())
    }

    /// Puts back what could not be written, unless something newer has come.
    fn put_back(&self, batch: Pending) {
        let mut pending = self.lock();
        for (id, record) in batch.records {
            pending.records.entry(id).or_insert(record);
        }
        pending.set = pending.set.take().or(batch.set);
        pending.ingresses = pending.ingresses.take().or(batch.ingresses);
    }
}

fn check_layout(data: &Path, folder: &Path) -> Result<(), StoreError> {
    let path = folder.join("layout");
    let found = fs::read_to_string(&path)
        .ok()
        .and_then(|text| text.trim().parse().ok());
    match found {
        Some(found) if found > LAYOUT => Err(StoreError::Newer {
            path: data.to_owned(),
            found,
        }),
        Some(_) => Ok(()),
        None => {
            // On a full disk it is written by a later life.
            drop(fs::write(&path, LAYOUT.to_string()));
            Ok(())
        }
    }
}

/// Writes a file whole: a reader sees the old content or the new. Not synced: what it speaks of,
/// running processes, does not outlive a crash of the machine either.
fn write<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let bytes = ballast_wire::to_bytes(value).map_err(io::Error::other)?;
    let temporary = path.with_extension("new");
    fs::write(&temporary, bytes)?;
    fs::rename(&temporary, path)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Reads a file; one that makes no sense is set aside, with a warning.
fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!(file = %path.display(), %error, "cannot read a state file");
            return None;
        }
    };
    match ballast_wire::from_bytes(&bytes) {
        Ok(value) => Some(value),
        Err(error) => {
            let aside = path.with_extension("broken");
            tracing::warn!(file = %path.display(), aside = %aside.display(), %error, "a state file makes no sense: set aside");
            drop(fs::rename(path, &aside));
            None
        }
    }
}

fn read_records(folder: &Path) -> Vec<Record> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let named = entries.filter_map(|entry| {
        let id: AssignmentId = entry.file_name().to_str()?.parse().ok()?;
        Some((id, entry.path()))
    });
    named
        .filter_map(|(id, path)| read::<Record>(&path).filter(|record| record.assignment == id))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ballast_model::{Generation, Health, TaskId, TaskState};

    fn record(bits: u64) -> Record {
        Record {
            assignment: AssignmentId::from_bits(bits),
            task: TaskId::from_bits(7),
            restarts: 1,
            streak: 1,
            process: None,
            state: TaskState::Running,
            health: Health::Healthy,
            will_restart: false,
            exit: None,
            message: String::new(),
            since: Timestamp(5),
        }
    }

    fn set(generation: u64) -> AssignmentSet {
        AssignmentSet {
            generation: Generation(generation),
            ..AssignmentSet::default()
        }
    }

    #[test]
    fn next_life_reads_what_this_one_kept() {
        let folder = tempfile::tempdir().expect("makes a folder");
        let (store, loaded) = Store::open(folder.path(), Timestamp(100)).expect("opens");
        assert_eq!(loaded.incarnation, Incarnation(100));
        store.keep(record(1));
        store.keep(record(2));
        store.forget(AssignmentId::from_bits(2));
        store.keep_set(set(9));
        store.flush(Duration::from_secs(10));
        drop(store);
        // The clock was set back meanwhile.
        let (_store, loaded) = Store::open(folder.path(), Timestamp(50)).expect("opens again");
        assert_eq!(loaded.incarnation, Incarnation(101));
        assert_eq!(loaded.records, [record(1)]);
        assert_eq!(loaded.set, set(9));
    }

    #[test]
    fn garbage_is_set_aside_and_the_rest_is_read() {
        let folder = tempfile::tempdir().expect("makes a folder");
        let (store, _) = Store::open(folder.path(), Timestamp(1)).expect("opens");
        store.keep(record(1));
        store.flush(Duration::from_secs(10));
        drop(store);
        let state = folder.path().join("state");
        let bad = state
            .join("tasks")
            .join(AssignmentId::from_bits(2).to_string());
        fs::write(&bad, b"garbage").expect("writes");
        fs::write(state.join(ASSIGNMENTS), [0xff; 99]).expect("writes");
        let (_store, loaded) = Store::open(folder.path(), Timestamp(1)).expect("opens");
        assert_eq!(loaded.records, [record(1)]);
        assert_eq!(loaded.set, AssignmentSet::default());
        assert!(bad.with_extension("broken").exists() && !bad.exists());
    }

    #[test]
    fn set_of_another_member_is_dropped_and_its_records_are_left() {
        let folder = tempfile::tempdir().expect("makes a folder");
        let (cluster, node) = (ClusterId::from_bits(1), NodeId::from_bits(1));
        let (store, mut loaded) = Store::open(folder.path(), Timestamp(1)).expect("opens");
        store.claim(cluster, node, &mut loaded);
        store.keep_set(set(9));
        store.keep(record(1));
        store.close(Duration::from_secs(10));
        let (store, mut loaded) = Store::open(folder.path(), Timestamp(1)).expect("opens");
        store.claim(cluster, node, &mut loaded);
        assert_eq!(loaded.set, set(9));
        store.claim(cluster, NodeId::from_bits(2), &mut loaded);
        assert_eq!((loaded.set, loaded.records.len()), (set(0), 1));
    }

    #[test]
    fn second_agent_and_newer_layout_are_refused() {
        let folder = tempfile::tempdir().expect("makes a folder");
        let open = || Store::open(folder.path(), Timestamp(1)).map(|(store, _)| store);
        let store = open().expect("opens");
        assert!(matches!(open(), Err(StoreError::InUse(_))));
        drop(store);
        fs::write(folder.path().join("state/layout"), "99").expect("writes");
        assert!(matches!(open(), Err(StoreError::Newer { found: 99, .. })));
    }
}
