//! The ports that are listened on: they come and go with the route table.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ballast_model::Protocol;
use tokio::net::{TcpListener, TcpSocket, UdpSocket};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::hub::Hub;
use crate::l4::{self, Entry};
use crate::l7::h1::{HANDOFF_MAX, ListenId, Setup, Threads, serve_handed_over};
use crate::l7::{Entrance, Front, Timeouts};
use crate::upgrade::{Kind, LINGER, Sockets};

/// Connections that wait to be accepted on one port; past it clients try again.
const BACKLOG: u32 = 4096;
/// After which a port that could not be bound is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// Between two looks whether all connections have ended after a hand-over.
const LOOK: Duration = Duration::from_millis(20);
/// Pause after a failed accept: it fails at once for as long as descriptors are short.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// What is listened on besides published ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shared {
    /// Plain HTTP.
    pub http: Option<SocketAddr>,
    /// HTTP over TLS.
    pub https: Option<SocketAddr>,
}

/// When and how everything ends.
#[derive(Debug)]
pub struct End {
    /// The process ends: connections have `grace`.
    pub stop: CancellationToken,
    /// Another process has taken over: connections have `drain`.
    pub retire: CancellationToken,
    /// How long connections may take to end at a stop.
    pub grace: Duration,
    /// The same after a hand-over.
    pub drain: Duration,
}

/// Ports that could not be bound, with the reason.
pub type Failures = Vec<(u16, String)>;

/// How connections to an address are served.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Serve {
    Http,
    Https,
    PublishedHttp(u16),
    Tcp(Entry),
    Udp(Entry),
}

/// What serves an address.
enum Running {
    /// A task of the runtime.
    Task(CancellationToken, JoinHandle<()>),
    /// The threads of the hot path.
    Hot(ListenId),
}

/// Everything that listens.
pub struct Listeners {
    hub: Arc<Hub>,
    front: Arc<Front>,
    timeouts: Timeouts,
    /// The address for published ports.
    bind: IpAddr,
    hot: Threads,
    running: BTreeMap<(SocketAddr, Serve), Running>,
    connections: TaskTracker,
    failures: watch::Sender<Failures>,
}

impl Listeners {
    /// Makes one that listens on nothing yet, and starts the threads of the hot path.
    ///
    /// # Errors
    /// The system gives no threads, or not what drives them.
    pub fn new(
        hub: Arc<Hub>,
        front: Arc<Front>,
        timeouts: Timeouts,
        bind: IpAddr,
        setup: Setup,
    ) -> io::Result<Self> {
        let connections = TaskTracker::new();
        let (handoff, given) = mpsc::channel(HANDOFF_MAX);
        let hot = Threads::start(&hub, timeouts, setup, &handoff)?;
        let serve = serve_handed_over(Arc::clone(&front), connections.clone(), given);
        tokio::spawn(serve);
        Ok(Self {
            hub,
            front,
            timeouts,
            bind,
            hot,
            running: BTreeMap::new(),
            connections,
            failures: watch::Sender::new(Failures::new()),
        })
    }

    /// Returns the ports that cannot be listened on, as they change.
    pub fn failures(&self) -> watch::Receiver<Failures> {
        self.failures.subscribe()
    }

    /// Binds the shared listeners now.
    ///
    /// # Errors
    /// The first that cannot be bound: at the start that is a mistake to be told at once.
    pub fn bind_shared(&mut self, shared: Shared) -> io::Result<()> {
        for (address, serve) in shared_entries(shared) {
            self.start(address, &serve).map_err(|error| {
                io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
            })?;
        }
        Ok(())
    }

    /// Follows the route table and `shared` until `end`; then stops accepting and gives open
    /// connections time to end. Tells `listening` once everything that the first table asks for is
    /// listened on.
    pub async fn run(
        mut self,
        mut shared: watch::Receiver<Shared>,
        end: End,
        listening: oneshot::Sender<()>,
    ) {
        let mut routings = self.hub.routings();
        routings.mark_changed();
        let mut listening = Some(listening);
        loop {
            let failed = !self.failures.borrow().is_empty();
            tokio::select! {
                changed = routings.changed() => if changed.is_err() { break },
                changed = shared.changed() => if changed.is_err() { break },
                () = tokio::time::sleep(RETRY), if failed => {}
                () = end.retire.cancelled() => break,
                () = end.stop.cancelled() => break,
            }
            let now = *shared.borrow_and_update();
            self.reconcile(now).await;
            if let Some(listening) = listening.take() {
                // Nobody waits unless it takes over from another process.
                let _ = listening.send(());
            }
        }
        for (key, running) in std::mem::take(&mut self.running) {
            self.end(key, running).await;
        }
        self.connections.close();
        let grace = if end.retire.is_cancelled() {
            let begun = Instant::now();
            self.linger(&end).await;
            end.drain.saturating_sub(begun.elapsed())
        } else {
            end.grace
        };
        self.front.close().await;
        let others = tokio::time::timeout(grace, self.connections.wait());
        let (drained, others) = tokio::join!(self.hot.drain(grace), others);
        if !drained || others.is_err() {
            let open = self.connections.len();
            tracing::info!(open, "connections did not end in time");
        }
    }

    /// Answers on the connections there are, and tells their clients to close them.
    async fn linger(&self, end: &End) {
        self.hot.retire();
        self.front.retire();
        let until = Instant::now() + LINGER.min(end.drain);
        while Instant::now() < until && !(self.hot.are_ended() && self.connections.is_empty()) {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = end.stop.cancelled() => return,
            }
        }
    }

    /// Stops one listener and waits until its socket is closed, so that the port can be bound
    /// again.
    async fn end(&self, (address, serve): (SocketAddr, Serve), running: Running) {
        let kind = match serve {
            Serve::Udp(_) => Kind::Udp,
            _ => Kind::Tcp,
        };
        self.hub.sockets.forget(kind, address);
        match running {
            Running::Hot(id) => self.hot.unlisten(id).await,
            Running::Task(stop, task) => {
                stop.cancel();
                // It fails only if the task panicked, and then the socket is closed as well.
                let _ = task.await;
            }
        }
    }

    async fn reconcile(&mut self, shared: Shared) {
        let mut wanted: Vec<(SocketAddr, Serve)> = shared_entries(shared).collect();
        for (port, protocol) in self.hub.table().routing.ports() {
            let serve = match protocol {
                Protocol::Http => Serve::PublishedHttp(port),
                Protocol::Tcp => Serve::Tcp(Entry::Published(port)),
                Protocol::Udp => Serve::Udp(Entry::Published(port)),
            };
            wanted.push((SocketAddr::new(self.bind, port), serve));
        }
        for service in self.hub.l4.user().iter() {
            let entry = Entry::Service(service.pool.clone());
            let serve = match service.protocol {
                Protocol::Udp => Serve::Udp(entry),
                _ => Serve::Tcp(entry),
            };
            wanted.push((service.address, serve));
        }
        let gone: Vec<_> = self
            .running
            .keys()
            .filter(|key| !wanted.contains(key))
            .cloned()
            .collect();
        for key in gone {
            if let Some(running) = self.running.remove(&key) {
                self.end(key, running).await;
            }
        }
        let mut failures = Failures::new();
        for (address, serve) in wanted {
            if self.running.contains_key(&(address, serve.clone())) {
                continue;
            }
            if let Err(error) = self.start(address, &serve) {
                failures.push((address.port(), error.to_string()));
            }
        }
        self.failures.send_if_modified(|known| {
            let changed = *known != failures;
            if changed {
                for (port, error) in &failures {
                    tracing::warn!(port, error, "cannot listen");
                }
                *known = failures;
            }
            changed
        });
    }

    fn start(&mut self, address: SocketAddr, serve: &Serve) -> io::Result<()> {
        let stop = CancellationToken::new();
        let entrance = match serve {
            Serve::Http => Some(Entrance::Shared),
            Serve::Https => Some(Entrance::SharedTls),
            Serve::PublishedHttp(port) => Some(Entrance::Published(*port)),
            Serve::Tcp(_) | Serve::Udp(_) => None,
        };
        if let Some(entrance) = entrance {
            self.front.entrances.insert(address, entrance);
        }
        if let Some(entrance) = entrance {
            let id = self.hot.listen(address, entrance, &self.hub.sockets)?;
            tracing::info!(%address, ?serve, "listening");
            let key = (address, serve.clone());
            self.running.insert(key, Running::Hot(id));
            return Ok(());
        }
        let task = if let Serve::Udp(entry) = serve {
            let given = self.hub.sockets.take(Kind::Udp, address).pop();
            let socket = match given {
                Some(given) => std::net::UdpSocket::from(given),
                None => std::net::UdpSocket::bind(address)?,
            };
            socket.set_nonblocking(true)?;
            self.hub.sockets.keep(Kind::Udp, address, &socket)?;
            let socket = UdpSocket::from_std(socket)?;
            let hub = Arc::clone(&self.hub);
            tokio::spawn(l4::udp::serve(hub, socket, entry.clone(), stop.clone()))
        } else {
            let acceptor = Acceptor {
                listener: listen(address, &self.hub.sockets)?,
                address,
                serve: serve.clone(),
                hub: Arc::clone(&self.hub),
                timeouts: self.timeouts,
                connections: self.connections.clone(),
            };
            tokio::spawn(acceptor.run(stop.clone()))
        };
        tracing::info!(%address, ?serve, "listening");
        let key = (address, serve.clone());
        self.running.insert(key, Running::Task(stop, task));
        Ok(())
    }
}

fn shared_entries(shared: Shared) -> impl Iterator<Item = (SocketAddr, Serve)> {
    let http = shared.http.map(|address| (address, Serve::Http));
    let https = shared.https.map(|address| (address, Serve::Https));
    http.into_iter().chain(https)
}

/// Listens at an address, or goes on with what the process before has given.
pub(crate) fn listen(address: SocketAddr, sockets: &Sockets) -> io::Result<TcpListener> {
    let listener = match sockets.take(Kind::Tcp, address).pop() {
        Some(given) => {
            let given = std::net::TcpListener::from(given);
            given.set_nonblocking(true)?;
            TcpListener::from_std(given)?
        }
        None => bind(address)?,
    };
    sockets.keep(Kind::Tcp, address, &listener)?;
    Ok(listener)
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // Without it a restarted ingress waits for the connections of its former life to time out.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

struct Acceptor {
    listener: TcpListener,
    address: SocketAddr,
    serve: Serve,
    hub: Arc<Hub>,
    timeouts: Timeouts,
    connections: TaskTracker,
}

impl Acceptor {
    async fn run(self, stop: CancellationToken) {
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = stop.cancelled() => return,
            };
            match accepted {
                Ok((socket, _)) => self.spawn(socket),
                Err(error) => {
                    tracing::warn!(address = %self.address, %error, "accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn spawn(&self, socket: tokio::net::TcpStream) {
        // HTTP is served by the hot path, and UDP by a socket of its own.
        if let Serve::Tcp(entry) = &self.serve {
            let hub = Arc::clone(&self.hub);
            self.connections
                .spawn(l4::tcp::serve(hub, self.timeouts, socket, entry.clone()));
        }
    }
}
