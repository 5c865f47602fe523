//! A leadership scope on a real log.

use std::time::Duration;

use super::*;

fn leading() -> Leadership {
    Leadership::Leading { term: 7 }
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_that_ends_takes_its_tasks_with_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let running = crate::raft::testing::single(folder.path()).await;
    let consensus = &running.consensus;
    let (sender, leadership) = watch::channel(leading());
    let (leader, mut current) = watch::channel(None);
    let stop = CancellationToken::new();
    let proposer = consensus.proposer.clone();
    let replica = Arc::clone(&consensus.replica);
    let begin = move || {
        let moves = MovePolicy::default();
        Scope::begin(
            proposer.clone(),
            Arc::clone(&replica),
            Metrics::new(),
            moves,
        )
    };
    let supervisor = tokio::spawn(supervise(leadership, leader, begin, stop.clone()));
    let wait = Duration::from_secs(10);
    let begun = tokio::time::timeout(wait, current.wait_for(Option::is_some));
    let context = begun.await.expect("in time").expect("runs").clone();
    let context = context.expect("leads");
    let weak = Arc::downgrade(&context);
    sender.send_replace(Leadership::Following { leader: None });
    tokio::time::timeout(wait, context.ended.cancelled())
        .await
        .expect("ends in time");
    drop(context);
    let deadline = Instant::now() + wait;
    while weak.upgrade().is_some() {
        assert!(Instant::now() < deadline, "a task still holds the scope");
        tokio::task::yield_now().await;
    }
    assert!(current.borrow().is_none());
    stop.cancel();
    supervisor.await.expect("ends");
    running.consensus.shutdown().await;
}
