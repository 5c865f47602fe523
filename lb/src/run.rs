//! The role: everything put together.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ballast_link::{LinkError, Trust};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::admin::Admin;
use crate::chain;
use crate::config::{Cluster, Config, Mode, StandAlone};
use crate::hub::Hub;
use crate::l4::layer;
use crate::l4::xdp::L4Error;
use crate::l7::Front;
use crate::listeners::{self, End, Failures, Listeners, Shared};
use crate::manager::{self, Follower};
use crate::standalone::Standalone;
use crate::table::TICK;
use crate::tls::{Server as TlsServer, TlsError};
use crate::upgrade::{self, Taken};
use crate::{acme, admin, feed, stall};

/// How long open connections may take to end at a shutdown.
const GRACE: Duration = Duration::from_secs(5);

/// Why an ingress ended.
#[derive(Debug, thiserror::Error)]
pub enum IngressError {
    /// A socket that it cannot do without.
    #[error(transparent)]
    Listen(io::Error),
    /// A process to take over from, which does not let this one.
    #[error("cannot take over from the process before")]
    TakeOver(#[source] io::Error),
    /// The access log's file.
    #[error("cannot open the access log")]
    Log(#[source] io::Error),
    /// The threads of the hot path.
    #[error("cannot start the threads that serve HTTP")]
    Threads(#[source] io::Error),
    /// It is not, or cannot become, a member of the cluster.
    #[error("cannot join the cluster")]
    Join(#[source] LinkError),
    /// The certificate for HTTPS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The balancer in the kernel.
    #[error("cannot balance at layer 4")]
    L4(#[from] L4Error),
    /// Its data folder.
    #[error("cannot use {path}")]
    DataDir {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Serves until `shutdown`, then lets open connections end. Runs inside the runtime of its caller,
/// and touches nothing that belongs to the process (signals aside: SIGHUP reads a stand-alone
/// balancer's file again).
///
/// # Errors
/// [`IngressError`] if it cannot start; once it serves, failures are logged and outlived.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), IngressError> {
    raise_descriptor_limit();
    let hub = Hub::new();
    hub.feed().set_zone(config.zone.clone());
    hub.hops.store(Arc::new(config.hops.clone()));
    hub.observe(&config.observe).map_err(IngressError::Log)?;
    let taken = take_over(&hub, &config).await?;
    let stop = shutdown.child_token();
    let retire = CancellationToken::new();
    let _stop_all = stop.clone().drop_guard();
    let tls = start_tls(&hub, &config, &stop)?;
    let front = Front::new(Arc::clone(&hub), config.timeouts);
    let mut listeners = Listeners::new(
        Arc::clone(&hub),
        front,
        config.timeouts,
        config.bind,
        config.hot,
    )
    .map_err(IngressError::Threads)?;
    let ready = Arc::new(AtomicBool::new(false));
    start_admin(&hub, &config, &ready, either(&stop, &retire))?;
    tokio::spawn(stall::watch(Arc::clone(&hub), stop.clone()));
    tokio::spawn(ticks(Arc::clone(&hub), stop.clone()));
    tokio::spawn(layer::look_after(Arc::clone(&hub), stop.clone()));
    let (shared, shared_changes) = watch::channel(config.listen);
    match &config.mode {
        Mode::StandAlone(alone) => {
            let parts = (Arc::clone(&hub), tls, shared);
            // Before anything listens: sockets that were taken over have clients at once.
            stand_alone(parts, alone, &ready, stop.clone());
            layer::take(&hub, &config.l4).await?;
            listeners
                .bind_shared(config.listen)
                .map_err(IngressError::Listen)?;
        }
        Mode::Cluster(cluster) => {
            let failures = listeners.failures();
            // The links of a process that retires end at once, for its agents to tell the next one.
            let leave = either(&stop, &retire);
            join(&hub, cluster, failures, &ready, leave).await?;
            listeners
                .bind_shared(config.listen)
                .map_err(IngressError::Listen)?;
            let published = layer::publish(Arc::clone(&hub), config.l4.clone(), stop.clone());
            tokio::spawn(published);
            // Kept for as long as the listeners run: a closed channel would end them.
            tokio::spawn(keep(shared, stop.clone()));
        }
    }
    let (listening, listened) = oneshot::channel();
    let tokens = (retire.clone(), stop.clone());
    start_succession(&hub, &config, taken, listened, tokens);
    let retired = retire.clone();
    let end = End {
        stop,
        retire,
        grace: GRACE,
        drain: config.upgrade.map_or(GRACE, |upgrade| upgrade.drain),
    };
    listeners.run(shared_changes, end, listening).await;
    if !retired.is_cancelled() {
        hub.l4.stop();
    }
    let closed = tokio::task::spawn_blocking(move || hub.log.close());
    // It fails only if the writing thread panicked, which it has said then.
    let _ = closed.await;
    Ok(())
}

fn start_tls(
    hub: &Arc<Hub>,
    config: &Config,
    stop: &CancellationToken,
) -> Result<Arc<TlsServer>, IngressError> {
    let tls = TlsServer::new(
        Arc::clone(&hub.tls),
        Arc::clone(&hub.upstreams),
        hub.metrics.tls.clone(),
    );
    if let Some(settings) = &config.tls {
        tls.take(tls.load(settings)?);
    }
    tokio::spawn(Arc::clone(&tls).follow(stop.clone()));
    if let Some(settings) = config.acme.clone() {
        let (server, challenges) = (Arc::clone(&tls), Arc::clone(&hub.challenges));
        tokio::spawn(acme::keep(settings, server, challenges, stop.clone()));
    }
    Ok(tls)
}

fn start_admin(
    hub: &Arc<Hub>,
    config: &Config,
    ready: &Arc<AtomicBool>,
    stop: CancellationToken,
) -> Result<(), IngressError> {
    let Some(address) = config.admin else {
        return Ok(());
    };
    match bind(hub, address) {
        Ok(listener) => {
            let admin = Admin {
                hub: Arc::clone(hub),
                ready: Arc::clone(ready),
                log: config.log.clone(),
            };
            tokio::spawn(admin::serve(admin, listener, stop));
        }
        Err(error) if config.admin_said => return Err(error),
        Err(error) => {
            let error = chain(&error);
            tracing::warn!(error, "no admin server; --admin gives another address");
        }
    }
    Ok(())
}

fn start_succession(
    hub: &Arc<Hub>,
    config: &Config,
    taken: Option<Taken>,
    listened: oneshot::Receiver<()>,
    tokens: (CancellationToken, CancellationToken),
) {
    if let Some(upgrade) = &config.upgrade {
        let data_dir = match &config.mode {
            Mode::Cluster(cluster) => Some(cluster.data_dir.clone()),
            Mode::StandAlone(_) => None,
        };
        let paths = (upgrade.socket.clone(), data_dir);
        tokio::spawn(succeed(Arc::clone(hub), paths, taken, listened, tokens));
    }
}

/// Returns what the process before has given, if there is one.
async fn take_over(hub: &Arc<Hub>, config: &Config) -> Result<Option<Taken>, IngressError> {
    let Some(upgrade) = config.upgrade.clone() else {
        return Ok(None);
    };
    let hub = Arc::clone(hub);
    let taken =
        tokio::task::spawn_blocking(move || upgrade::take_over(&upgrade.socket, &hub.sockets));
    let taken = taken.await.map_err(io::Error::other);
    taken
        .and_then(|taken| taken)
        .map_err(IngressError::TakeOver)
}

/// Tells the process before to retire once this one listens, and then waits for the one after.
async fn succeed(
    hub: Arc<Hub>,
    (path, data_dir): (PathBuf, Option<PathBuf>),
    taken: Option<Taken>,
    listened: oneshot::Receiver<()>,
    (retire, stop): (CancellationToken, CancellationToken),
) {
    if listened.await.is_err() {
        return;
    }
    if let Some(taken) = taken {
        hub.sockets.close_rest();
        match tokio::task::spawn_blocking(move || taken.ready()).await {
            Ok(Ok(())) => tracing::info!("taken over"),
            Ok(Err(error)) => tracing::warn!(%error, "the process before did not answer"),
            Err(error) => tracing::error!(%error, "the process before was not told"),
        }
    }
    upgrade::hand_over(hub, path, data_dir, retire, stop).await;
}

/// Returns a token that either of two cancels.
fn either(one: &CancellationToken, other: &CancellationToken) -> CancellationToken {
    let token = one.child_token();
    let (both, other) = (token.clone(), other.clone());
    tokio::spawn(async move {
        tokio::select! {
            () = other.cancelled() => both.cancel(),
            () = both.cancelled() => {}
        }
    });
    token
}

async fn keep(shared: watch::Sender<Shared>, stop: CancellationToken) {
    stop.cancelled().await;
    drop(shared);
}

type StandAloneParts = (Arc<Hub>, Arc<TlsServer>, watch::Sender<Shared>);

fn stand_alone(
    (hub, tls, shared): StandAloneParts,
    alone: &StandAlone,
    ready: &AtomicBool,
    stop: CancellationToken,
) {
    let standalone = Standalone::new(hub, alone, tls, shared);
    ready.store(true, Ordering::Release);
    let path = alone.path.clone();
    tokio::spawn(async move { standalone.run(path.as_deref(), stop).await });
}

async fn join(
    hub: &Arc<Hub>,
    cluster: &Cluster,
    failures: watch::Receiver<Failures>,
    ready: &Arc<AtomicBool>,
    stop: CancellationToken,
) -> Result<(), IngressError> {
    let dir = &cluster.data_dir;
    std::fs::create_dir_all(dir).map_err(|source| IngressError::DataDir {
        path: dir.clone(),
        source,
    })?;
    let credentials = tokio::select! {
        credentials = manager::credentials(cluster) => credentials.map_err(IngressError::Join)?,
        () = stop.cancelled() => return Ok(()),
    };
    let trust = Trust::new(credentials).map_err(IngressError::Join)?;
    if manager::restore(hub, dir) {
        tracing::info!("serves from the kept route table until a manager answers");
        ready.store(true, Ordering::Release);
    }
    let listener = bind(hub, cluster.feed)?;
    let address = listener.local_addr().map_err(IngressError::Listen)?;
    let feeds = feed::serve(Arc::clone(hub), Arc::clone(&trust), listener, stop.clone());
    tokio::spawn(feeds);
    tokio::spawn(manager::persist(Arc::clone(hub), dir.clone(), stop.clone()));
    let follower = Follower {
        hub: Arc::clone(hub),
        trust,
        config: cluster.clone(),
        feed: address,
        failures,
        ready: Arc::clone(ready),
    };
    tokio::spawn(follower.run(stop));
    Ok(())
}

/// Lets leases lapse. On a thread of its own the delay would be seen less, but so would a starved
/// process: the core extends the leases when a tick is late.
async fn ticks(hub: Arc<Hub>, stop: CancellationToken) {
    let mut interval = tokio::time::interval(TICK);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = interval.tick() => hub.apply(crate::table::Feed::tick),
            () = stop.cancelled() => return,
        }
    }
}

fn bind(hub: &Hub, address: SocketAddr) -> Result<TcpListener, IngressError> {
    listeners::listen(address, &hub.sockets).map_err(|error| {
        let message = format!("cannot listen on {address}: {error}");
        IngressError::Listen(io::Error::new(error.kind(), message))
    })
}

/// A connection through the proxy takes up to three descriptors; the usual soft limit of 1,024 is
/// there for programs that still use `select`.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "limit of open files not raised");
    }
}
