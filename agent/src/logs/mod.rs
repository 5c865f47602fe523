//! The logs of tasks: bounded files that the programs themselves write, and how they are read.
//!
//! A program's output goes straight to its files, so that it outlives the agent. The agent bounds
//! them behind the program's back ([`mod@file`]) and reads them when somebody asks ([`read`]).

pub mod file;
pub mod read;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ballast_model::AssignmentId;
use ballast_model::view::LogStream;

use crate::driver::process::Files;
use file::LogFile;

/// How often a file's size is looked at.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// The same for one that grows fast, so that it overshoots its bound by little.
const HOT_INTERVAL: Duration = Duration::from_millis(100);

/// How much of a task's output is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of one file.
    pub bytes: u64,
    /// Files of one stream, the one that is written to included.
    pub files: u32,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            bytes: 10 << 20,
            files: 3,
        }
    }
}

/// Both streams of one assignment.
#[derive(Debug)]
pub struct TaskLogs {
    stdout: LogFile,
    stderr: LogFile,
    next_check: Mutex<Instant>,
}

impl TaskLogs {
    fn new(files: &Files) -> Self {
        Self {
            stdout: LogFile::new(files.stdout.clone()),
            stderr: LogFile::new(files.stderr.clone()),
            next_check: Mutex::new(Instant::now()),
        }
    }

    /// Returns both streams by name.
    pub const fn streams(&self) -> [(LogStream, &LogFile); 2] {
        [
            (LogStream::Stdout, &self.stdout),
            (LogStream::Stderr, &self.stderr),
        ]
    }
}

/// The logs of every assignment of this node.
#[derive(Debug)]
pub struct Logs {
    folder: PathBuf,
    bounds: Bounds,
    open: Mutex<BTreeMap<AssignmentId, Arc<TaskLogs>>>,
}

impl Logs {
    /// Keeps the logs below a folder of tasks within bounds.
    pub fn new(folder: PathBuf, bounds: Bounds) -> Self {
        Self {
            folder,
            bounds,
            open: Mutex::default(),
        }
    }

    /// Bounds an assignment's logs from now on.
    pub fn watch(&self, assignment: AssignmentId) {
        drop(self.open(assignment));
    }

    /// Stops looking at an assignment's logs.
    pub fn forget(&self, assignment: AssignmentId) {
        self.lock().remove(&assignment);
    }

    /// Returns an assignment's logs, also those of one that is over; none if there never were any.
    pub fn find(&self, assignment: AssignmentId) -> Option<Arc<TaskLogs>> {
        if let Some(logs) = self.lock().get(&assignment) {
            return Some(logs.clone());
        }
        let files = Files::of(&self.folder, assignment);
        files
            .stdout
            .exists()
            .then(|| Arc::new(TaskLogs::new(&files)))
    }

    /// Looks at every file that is due and cuts those that are too long. Blocks.
    pub fn check(&self, now: Instant) {
        let all: Vec<_> = self.lock().values().cloned().collect();
        for logs in all {
            let mut next = logs
                .next_check
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if *next > now {
                continue;
            }
            let mut hot = false;
            for (_, file) in logs.streams() {
                hot |= file.bound(self.bounds);
            }
            *next = now + if hot { HOT_INTERVAL } else { CHECK_INTERVAL };
        }
    }

    /// The longest time between two calls of [`check`](Self::check).
    pub const fn check_interval() -> Duration {
        HOT_INTERVAL
    }

    fn open(&self, assignment: AssignmentId) -> Arc<TaskLogs> {
        let mut open = self.lock();
        let logs = open
            .entry(assignment)
            .or_insert_with(|| Arc::new(TaskLogs::new(&Files::of(&self.folder, assignment))));
        logs.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<AssignmentId, Arc<TaskLogs>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
