//! Ctrl-C, and the signal that service managers send.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::Thread;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Counts how often the user asked to end.
#[derive(Debug, Clone)]
pub struct Interrupts(Arc<AtomicU32>);

impl Interrupts {
    /// Takes over SIGINT and SIGTERM; each one also wakes the calling thread, if it is parked.
    ///
    /// # Errors
    /// The operating system's, for want of a thread or a signal handler.
    pub fn watch() -> io::Result<Self> {
        let seen = Self(Arc::default());
        let (told, caller) = (seen.clone(), std::thread::current());
        let (ready, is_ready) = channel();
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || told.listen(&caller, &ready))?;
        is_ready
            .recv()
            .unwrap_or_else(|_| Err(io::Error::other("the signal thread is gone")))?;
        Ok(seen)
    }

    fn listen(&self, caller: &Thread, ready: &Sender<io::Result<()>>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build();
        let told = match runtime {
            Ok(runtime) => runtime.block_on(async {
                let signals = signals()?;
                // The receiver waits for just this one message.
                let _ = ready.send(Ok(()));
                self.count_all(signals, caller).await;
                Ok(())
            }),
            Err(error) => Err(error),
        };
        let _ = ready.send(told);
    }

    async fn count_all(&self, (mut interrupt, mut terminate): (Signal, Signal), caller: &Thread) {
        loop {
            let more = tokio::select! {
                more = interrupt.recv() => more,
                more = terminate.recv() => more,
            };
            if more.is_none() {
                return;
            }
            self.0.fetch_add(1, Ordering::Relaxed);
            caller.unpark();
        }
    }

    /// Returns how often so far.
    pub fn count(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

fn signals() -> io::Result<(Signal, Signal)> {
    Ok((
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    ))
}
