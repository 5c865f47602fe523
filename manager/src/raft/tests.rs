//! Consensus on a real file: openraft's own suite, restarts, group commit.

use std::sync::OnceLock;
use std::time::Duration;

use ballast_model::{Event, EventKind, Timestamp};
use ballast_wire::log::Command;
use openraft::testing::{StoreBuilder, Suite};

use super::types::StorageError;
use super::*;

struct OnDisk;

impl StoreBuilder<TypeConfig, LogStore, Machine, tempfile::TempDir> for OnDisk {
    async fn build(&self) -> Result<(tempfile::TempDir, LogStore, Machine), StorageError> {
        let dir = tempfile::tempdir().expect("a folder");
        let db = Arc::new(Db::open(&dir.path().join("manager.redb")).expect("opens"));
        let log = LogStore::new(Arc::clone(&db), Metrics::new());
        let (machine, _) = Machine::open(db, Metrics::new())?;
        Ok((dir, log, machine))
    }
}

#[test]
fn storage_keeps_openrafts_contract() {
    Suite::test_all(OnDisk).expect("keeps it");
}

fn note(message: &str) -> Command {
    Command::Note(Event {
        index: 0,
        time: Timestamp(1),
        kind: EventKind::LeaderElected,
        service: None,
        service_name: None,
        task: None,
        node: None,
        node_name: None,
        message: message.to_owned(),
    })
}

async fn start(dir: &Path) -> (DataDir, Consensus) {
    let dir = DataDir::open(dir).expect("opens");
    let trust = Arc::new(OnceLock::new());
    let consensus = Consensus::start(&dir, "127.0.0.1:1", trust, Metrics::new())
        .await
        .expect("starts");
    let mut leadership = consensus.leadership();
    let leads = leadership.wait_for(|l| matches!(l, Leadership::Leading { .. }));
    tokio::time::timeout(Duration::from_secs(10), leads)
        .await
        .expect("leads in time")
        .expect("runs");
    (dir, consensus)
}
