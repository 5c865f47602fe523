//! The threads of the hot path.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use ballast_ring::{Backend, Options, Ring, listen_reuseport};
use tokio::sync::{mpsc, oneshot};

use super::handoff::HandOver;
use super::inbox::{Command, Inbox, ListenId};
use super::worker::Worker;
use crate::hub::Hub;
use crate::l7::{Entrance, Timeouts};
use crate::upgrade::{Kind, Sockets};

/// Connections that wait to be accepted by one thread on one port; past it clients try again.
const BACKLOG: u32 = 4096;
/// Sockets of one thread: clients, connections to endpoints, listeners.
const SOCKETS: u32 = 1 << 20;
/// Events that are taken at a time.
const EVENTS: u32 = 512;
/// Buffers of 4 KiB into which io_uring receives: where a thousand connections speak at once, each
/// that finds none has to be asked for anew.
const BUFFERS: u16 = 1024;
/// Of 64 KiB, for bodies: each is kept until the other side has taken it.
const LARGE_BUFFERS: u16 = 256;

/// How the threads are set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setup {
    /// How many there are.
    pub threads: NonZeroUsize,
    /// What drives them.
    pub backend: Backend,
    /// Whether each stays on a core of its own, in turn.
    pub pin: bool,
}

impl Default for Setup {
    fn default() -> Self {
        let cores = std::thread::available_parallelism();
        Self {
            threads: cores.unwrap_or(NonZeroUsize::MIN),
            backend: Backend::Epoll,
            pin: false,
        }
    }
}

/// Threads that serve HTTP/1.1.
#[derive(Debug)]
pub struct Threads {
    inboxes: Vec<Arc<Inbox>>,
    handles: Vec<JoinHandle<()>>,
    next: AtomicU64,
}

impl Threads {
    /// Starts them; they listen on nothing yet. What they do not serve goes to `handoff`.
    ///
    /// # Errors
    /// The kernel gives no ring or no thread.
    pub fn start(
        hub: &Arc<Hub>,
        timeouts: Timeouts,
        setup: Setup,
        handoff: &mpsc::Sender<HandOver>,
    ) -> io::Result<Self> {
        let mut threads = Self {
            inboxes: Vec::new(),
            handles: Vec::new(),
            next: AtomicU64::new(0),
        };
        for number in 0..setup.threads.get() {
            let (told, started) = std::sync::mpsc::channel();
            let (hub, handoff) = (Arc::clone(hub), handoff.clone());
            let run = move || {
                if setup.pin {
                    pin(number);
                }
                let ring = match ring(setup.backend) {
                    Ok(ring) => ring,
                    Err(error) => {
                        // Whoever started it waits for this.
                        let _ = told.send(Err(error));
                        return;
                    }
                };
                let inbox = Inbox::new(ring.waker());
                hub.watch_tables(ring.waker());
                let worker = Worker::new(hub, timeouts, Arc::clone(&inbox), handoff);
                let _ = told.send(Ok(inbox));
                serve(ring, worker);
            };
            let builder = std::thread::Builder::new().name(format!("http-{number}"));
            threads.handles.push(builder.spawn(run)?);
            let inbox = started.recv();
            let inbox = inbox.map_err(|_| io::Error::other("a thread ended at its start"))??;
            threads.inboxes.push(inbox);
        }
        Ok(threads)
    }

    /// Listens on an address, on every thread: with the sockets that a process before has given
    /// in `sockets`, if it has; copies of all are kept there.
    ///
    /// # Errors
    /// It cannot be bound.
    pub fn listen(
        &self,
        address: SocketAddr,
        entrance: Entrance,
        sockets: &Sockets,
    ) -> io::Result<ListenId> {
        let given = sockets.take(Kind::Tcp, address);
        let mut listeners: Vec<TcpListener> = given.into_iter().map(TcpListener::from).collect();
        if listeners.is_empty() {
            // Alone first: sockets that share an address would share it with another ingress, too.
            drop(TcpListener::bind(address)?);
        }
        while listeners.len() < self.inboxes.len() {
            let listener = listen_reuseport(address, BACKLOG).map_err(io::Error::other)?;
            listeners.push(listener);
        }
        let id = ListenId(self.next.fetch_add(1, Ordering::Relaxed));
        for listener in &listeners {
            sockets.keep(Kind::Tcp, address, listener)?;
        }
        // A process with more threads may have given more sockets: none may be left unserved.
        for (inbox, listener) in self.inboxes.iter().cycle().zip(listeners) {
            inbox.tell(Command::Listen {
                id,
                listener,
                address,
                entrance,
            });
        }
        Ok(id)
    }

    /// Closes what listens; its port is free when this returns.
    pub async fn unlisten(&self, id: ListenId) {
        for inbox in &self.inboxes {
            let (done, closed) = oneshot::channel();
            inbox.tell(Command::Unlisten { id, done });
            // It fails if the thread has ended, and then the socket is closed as well.
            let _ = closed.await;
        }
    }

    /// Accepts nothing more, and lets connections end after their next request.
    pub fn retire(&self) {
        for inbox in &self.inboxes {
            inbox.tell(Command::Retire);
        }
    }

    /// Whether all threads have ended: after the last connection of each.
    pub fn are_ended(&self) -> bool {
        self.handles.iter().all(JoinHandle::is_finished)
    }

    /// Lets connections end after the request they are at, for `grace` at most. Returns whether all
    /// did.
    pub async fn drain(self, grace: Duration) -> bool {
        let (inboxes, handles) = (self.inboxes, self.handles);
        for inbox in &inboxes {
            inbox.tell(Command::Drain);
        }
        let mut ended = tokio::task::spawn_blocking(move || {
            for handle in handles {
                if handle.join().is_err() {
                    tracing::error!("a thread of the hot path panicked");
                }
            }
        });
        if tokio::time::timeout(grace, &mut ended).await.is_ok() {
            return true;
        }
        for inbox in &inboxes {
            inbox.tell(Command::Stop);
        }
        // A turn of a ring is short.
        let _ = ended.await;
        false
    }
}

/// Keeps this thread on one of the cores that it may run on.
fn pin(number: usize) {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    let pinned = sched_getaffinity(None).and_then(|allowed| {
        let cores: Vec<usize> = (0..CpuSet::MAX_CPU)
            .filter(|&core| allowed.is_set(core))
            .collect();
        let mut own = CpuSet::new();
        own.set(cores[number % cores.len().max(1)]);
        sched_setaffinity(None, &own)
    });
    if let Err(error) = pinned {
        tracing::warn!(%error, "a thread of the hot path is not pinned");
    }
}

fn ring(backend: Backend) -> io::Result<Ring> {
    let options = Options {
        backend,
        entries: EVENTS,
        sockets: SOCKETS,
        buffers: BUFFERS,
        large_buffers: LARGE_BUFFERS,
        ..Options::default()
    };
    let ring = Ring::new(&options).map_err(io::Error::other)?;
    if let Some(why) = ring.fallback() {
        let why = crate::chain(why);
        tracing::warn!(why, "io_uring is not to be had: epoll serves instead");
    }
    Ok(ring)
}

fn serve(mut ring: Ring, mut worker: Worker) {
    while !worker.is_done(ring.io()) {
        if let Err(error) = ring.turn(&mut worker, None) {
            // Nothing about one connection does this; without its events the thread is of no use.
            tracing::error!(%error, "a thread of the hot path ended");
            return;
        }
    }
}
