//! What was executed, by (method, request id).

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io::Write;
use std::path::Path;

use anyhow::Context;

/// Ids remembered for finding duplicates, 8 bytes each. Past it the count goes on but duplicates
/// of forgotten ids are not seen, and the ledger says so.
const REMEMBERED: usize = 1 << 20;

/// The books of one process, and the file that all replicas share.
pub struct Ledger {
    seen: HashSet<u64>,
    hasher: RandomState,
    executions: u64,
    duplicates: u64,
    shared: Option<File>,
    suffix: String,
}

impl Ledger {
    /// Returns an empty ledger that also appends to `file`, if given.
    pub fn open(file: Option<&Path>, slot: &str) -> anyhow::Result<Self> {
        let shared = file
            .map(|path| {
                OpenOptions::new()
                    .create(true)
                    .append(true)
                    .open(path)
                    .with_context(|| format!("cannot open the ledger {}", path.display()))
            })
            .transpose()?;
        Ok(Self {
            seen: HashSet::new(),
            hasher: RandomState::new(),
            executions: 0,
            duplicates: 0,
            shared,
            suffix: format!(" {slot} {}\n", std::process::id()),
        })
    }

    /// Counts one execution. The shared file is written first and in one append, so that a
    /// process killed a moment later has still left its trace.
    pub fn executed(&mut self, method: &str, id: &str) {
        if let Some(file) = &mut self.shared {
            let line = format!("{method} {id}{}", self.suffix);
            if let Err(error) = file.write_all(line.as_bytes()) {
                eprintln!("cannot write the ledger: {error}");
            }
        }
        self.executions += 1;
        let hash = self.hasher.hash_one((method, id));
        if self.seen.contains(&hash) {
            self.duplicates += 1;
        } else if self.seen.len() < REMEMBERED {
            self.seen.insert(hash);
        }
    }

    /// Returns the body of `GET /ledger`.
    pub fn to_json(&self) -> String {
        format!(
            "{{\"executions\":{},\"duplicates\":{},\"complete\":{}}}\n",
            self.executions,
            self.duplicates,
            self.seen.len() < REMEMBERED,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_id_by_another_method_is_no_duplicate() {
        let mut ledger = Ledger::open(None, "1").expect("opens");
        ledger.executed("POST", "a");
        ledger.executed("GET", "a");
        ledger.executed("POST", "b");
        ledger.executed("POST", "a");
        assert_eq!(
            ledger.to_json(),
            "{\"executions\":4,\"duplicates\":1,\"complete\":true}\n"
        );
    }

    #[test]
    fn shared_file_gets_one_line_per_execution() {
        let path = std::env::temp_dir().join(format!("hello-ledger-{}", std::process::id()));
        let mut ledger = Ledger::open(Some(&path), "3").expect("opens");
        ledger.executed("POST", "x1");
        let text = std::fs::read_to_string(&path).expect("reads");
        std::fs::remove_file(&path).expect("removes");
        assert_eq!(text, format!("POST x1 3 {}\n", std::process::id()));
    }
}
