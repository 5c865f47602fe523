//! Consensus on a real file: openraft's own suite, restarts, group commit.

use std::path::Path;
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

async fn start(path: &Path) -> (DataDir, Consensus) {
    let single = testing::single(path).await;
    (single.dir, single.consensus)
}

fn messages(consensus: &Consensus) -> Vec<String> {
    let state = consensus.replica.read();
    let events = state.events().after(0);
    events.map(|event| event.message.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_changes_survive_a_crash() {
    let folder = tempfile::tempdir().expect("a folder");
    let (dir, consensus) = start(folder.path()).await;
    for n in 0..20 {
        let outcome = consensus.proposer.propose(note(&n.to_string())).await;
        outcome.expect("commits").expect("is accepted");
    }
    let expected = messages(&consensus);
    // What a killed process leaves behind: the files as they are while everything runs.
    let crashed = tempfile::tempdir().expect("a folder");
    std::fs::copy(dir.database(), crashed.path().join("manager.redb")).expect("copies");
    let (_other, again) = start(crashed.path()).await;
    assert_eq!(messages(&again), expected);
    assert_eq!(again.manager, consensus.manager);
    again.shutdown().await;
    consensus.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshot_and_the_log_after_it_make_the_same_state() {
    let folder = tempfile::tempdir().expect("a folder");
    let (dir, consensus) = start(folder.path()).await;
    let write = |from: u64, to: u64| {
        let notes: Vec<_> = (from..to).map(|n| note(&n.to_string())).collect();
        consensus.proposer.propose_all(notes)
    };
    write(0, 50).await.expect("commits");
    consensus.raft.trigger().snapshot().await.expect("triggers");
    let taken = consensus.raft.wait(Some(Duration::from_secs(10)));
    let taken = taken.metrics(|metrics| metrics.snapshot.is_some(), "a snapshot");
    taken.await.expect("is taken");
    write(50, 60).await.expect("commits");
    let before = consensus.replica.read().clone();
    consensus.shutdown().await;
    drop(dir);
    let (_dir, again) = start(folder.path()).await;
    assert_eq!(*again.replica.read(), before);
    again.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_changes_share_entries_and_each_gets_its_own_answer() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_dir, consensus) = start(folder.path()).await;
    let first = *consensus.replica.applied().borrow();
    let mut proposals = JoinSet::new();
    for n in 0..400 {
        let proposer = consensus.proposer.clone();
        // Every fourth is refused: no such service.
        let command = if n % 4 == 0 {
            Command::RemoveService {
                service: ballast_model::ServiceId::from_bits(n),
                time: Timestamp(1),
            }
        } else {
            note(&n.to_string())
        };
        proposals.spawn(async move { (n, proposer.propose(command).await) });
    }
    while let Some(done) = proposals.join_next().await {
        let (n, outcome) = done.expect("runs");
        assert_eq!(outcome.expect("commits").is_err(), n % 4 == 0, "{n}");
    }
    let entries = *consensus.replica.applied().borrow() - first;
    assert!(entries < 200, "400 changes took {entries} entries");
    consensus.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn full_queue_refuses_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_dir, consensus) = start(folder.path()).await;
    let mut proposals = JoinSet::new();
    // The guard keeps the state from being changed, so that nothing is answered meanwhile.
    let guard = consensus.replica.read();
    let mut refused = 0;
    for n in 0..3 * proposer::PROPOSAL_QUEUE {
        let mut proposal = Box::pin({
            let proposer = consensus.proposer.clone();
            async move { proposer.propose(note(&n.to_string())).await }
        });
        let polled = futures_util::FutureExt::now_or_never(proposal.as_mut());
        match polled {
            None => {
                proposals.spawn(proposal);
            }
            Some(result) => {
                assert_eq!(result.expect_err("is full"), ProposeError::Overloaded);
                refused += 1;
            }
        }
    }
    drop(guard);
    assert!(refused > 0);
    while let Some(done) = proposals.join_next().await {
        done.expect("runs").expect("commits").expect("is accepted");
    }
    consensus.shutdown().await;
}
