//! What every role's process needs: a runtime, and signals that end it in order.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::Failure;

/// Runs a role on a runtime of all cores until it ends. The first SIGINT or SIGTERM cancels the
/// token that it was given; the second ends the process at once.
pub(super) fn run<F, Fut>(role: F) -> Result<(), Failure>
where
    F: FnOnce(CancellationToken) -> Fut,
    Fut: Future<Output = Result<(), Failure>>,
{
    run_with(None, role)
}

/// The same with this many threads.
pub(super) fn run_with<F, Fut>(threads: Option<NonZeroUsize>, role: F) -> Result<(), Failure>
where
    F: FnOnce(CancellationToken) -> Fut,
    Fut: Future<Output = Result<(), Failure>>,
{
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = threads {
        builder.worker_threads(threads.get());
    }
    let runtime = builder.enable_all().thread_name("ballast").build()?;
    let result = runtime.block_on(async {
        let shutdown = CancellationToken::new();
        let signals = [SignalKind::interrupt(), SignalKind::terminate()].map(signal);
        let [interrupt, terminate] = signals;
        tokio::spawn(watch(interrupt?, terminate?, shutdown.clone()));
        role(shutdown).await
    });
    // What is still blocking (a name lookup) has nothing to lose.
    runtime.shutdown_background();
    result
}

/// A signal so soon after the first is the same one: `timeout` and some supervisors send it to the
/// process and to its group.
const SAME_SIGNAL: Duration = Duration::from_secs(1);

async fn watch(mut interrupt: Signal, mut terminate: Signal, shutdown: CancellationToken) {
    let mut first: Option<Instant> = None;
    loop {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        match first {
            None => {
                first = Some(Instant::now());
                shutdown.cancel();
            }
            Some(first) if first.elapsed() > SAME_SIGNAL => {
                eprintln!("ended at once by the second signal");
                std::process::exit(130);
            }
            Some(_) => {}
        }
    }
}
