//! Consensus on a real file: openraft's own suite, restarts, group commit.

use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use ballast_link::{ClientAuth, Trust, alpn};
use ballast_model::{Event, EventKind, Timestamp};
use ballast_wire::log::Command;
use openraft::testing::{StoreBuilder, Suite};

use super::types::StorageError;
use super::*;
use crate::ca::Ca;

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
async fn log_of_a_burst_of_large_entries_stays_bounded() {
    /// Of one entry: 40 of them are more than may be kept.
    const BYTES: usize = 4 << 20;
    let folder = tempfile::tempdir().expect("a folder");
    let (dir, consensus) = start(folder.path()).await;
    let large = "x".repeat(BYTES);
    for _ in 0..40 {
        let outcome = consensus.proposer.propose(note(&large)).await;
        outcome.expect("commits").expect("is accepted");
    }
    let metrics = consensus.raft.wait(Some(Duration::from_secs(30)));
    let cut = metrics.metrics(
        |metrics| metrics.purged.is_some_and(|id| id.index > 1),
        "the first entries are gone",
    );
    cut.await.expect("is cut although there are few entries");
    consensus.shutdown().await;
    drop(dir);
    let db = Db::open(&folder.path().join("manager.redb")).expect("opens");
    let left = db.log_size().total();
    assert!(left < 40 * BYTES, "{left} bytes of the log are left");
    assert!(left > 0, "the newest entries are there");
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

/// One of several managers: its member, and the task that answers the others.
struct Manager {
    _dir: DataDir,
    consensus: Consensus,
    address: String,
    server: tokio::task::JoinHandle<()>,
}

async fn manager(path: &Path, ca: &Ca) -> Manager {
    let dir = DataDir::open(path).expect("opens");
    let cell: TrustCell = Arc::new(OnceLock::new());
    let consensus = Consensus::open(&dir, Arc::clone(&cell), Metrics::new());
    let consensus = consensus.await.expect("opens");
    let own = ca.own_credentials(consensus.manager).expect("draws");
    let trust = Arc::clone(cell.get_or_init(|| Trust::new(own).expect("are credentials")));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0");
    let listener = listener.await.expect("binds");
    let address = listener.local_addr().expect("is bound").to_string();
    let raft = consensus.server();
    let server = tokio::spawn(async move {
        let mut links = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let accepted = trust.accept(stream, &[alpn::RAFT], ClientAuth::Required);
            if let Ok(accepted) = accepted.await {
                let raft = raft.clone();
                let peer = accepted.identity.expect("is required");
                links.spawn(async move { raft.serve(accepted.stream, peer).await });
            }
        }
    });
    Manager {
        _dir: dir,
        consensus,
        address,
        server,
    }
}

async fn wait_for(consensus: &Consensus, what: impl Fn(&Leadership) -> bool) -> Leadership {
    let mut leadership = consensus.leadership();
    let found = leadership.wait_for(|now| what(now));
    let found = tokio::time::timeout(Duration::from_secs(30), found).await;
    found.expect("in time").expect("runs").clone()
}

fn is_leading(leadership: &Leadership) -> bool {
    matches!(leadership, Leadership::Leading { .. })
}

#[tokio::test(flavor = "multi_thread")]
async fn three_managers_lose_their_leader_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let cluster = ballast_model::ClusterId::from_bits(7);
    let init = crate::ca::found(cluster, std::time::SystemTime::now()).expect("draws");
    let ca = Ca::load(&init, Duration::from_hours(1)).expect("is a CA");
    let mut managers = Vec::new();
    for name in ["a", "b", "c"] {
        managers.push(manager(&folder.path().join(name), &ca).await);
    }
    let peer = |manager: &Manager| Peer {
        address: manager.address.clone(),
    };
    let ids: Vec<u64> = managers
        .iter()
        .map(|manager| manager.consensus.manager.to_bits())
        .collect();
    let first = managers[0].consensus.raft.clone();
    let alone = BTreeMap::from([(ids[0], peer(&managers[0]))]);
    first.initialize(alone).await.expect("founds a group");
    wait_for(&managers[0].consensus, is_leading).await;
    for (id, manager) in ids.iter().zip(&managers).skip(1) {
        let learns = first.add_learner(*id, peer(manager), true);
        learns.await.expect("learns");
    }
    let voters: std::collections::BTreeSet<u64> = ids.iter().copied().collect();
    let changed = first.change_membership(voters, false);
    changed.await.expect("all vote");
    for n in 0..20 {
        let outcome = managers[0].consensus.proposer.propose(note(&n.to_string()));
        outcome.await.expect("commits").expect("is accepted");
    }
    let expected = messages(&managers[0].consensus);

    let follower = &managers[1].consensus;
    let address = managers[0].address.clone();
    wait_for(
        follower,
        |now| matches!(now, Leadership::Following { leader: Some(leader) } if *leader == address),
    )
    .await;
    let refused = follower.proposer.propose(note("no")).await;
    let leader = Some(address);
    assert_eq!(refused, Err(ProposeError::NotLeader { leader }));

    let lost = managers.remove(0);
    lost.server.abort();
    drop(first);
    lost.consensus.shutdown().await;
    let (b, c) = (&managers[0].consensus, &managers[1].consensus);
    let leader = tokio::select! {
        _ = wait_for(b, is_leading) => b,
        _ = wait_for(c, is_leading) => c,
    };
    assert_eq!(messages(leader), expected, "what was acknowledged is there");
    let outcome = leader.proposer.propose(note("after")).await;
    outcome.expect("two of three commit").expect("is accepted");
    for manager in managers {
        manager.server.abort();
        manager.consensus.shutdown().await;
    }
}
