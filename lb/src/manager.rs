//! The link to the managers: route tables come down it. Nothing that is served waits for it.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ballast_link::{
    Credentials, KeyPair, Link, LinkError, LinkReceiver, LinkSender, Peer, Role, Trust, alpn, join,
};
use ballast_model::limits::HEARTBEAT_INTERVAL;
use ballast_model::{Generation, IngressId};
use ballast_wire::ingress::{IngressToManager, ManagerToIngress};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::chain;
use crate::config::Cluster;
use crate::hub::{Hub, wall_clock};
use crate::listeners::Failures;

/// The last route table, in the data folder.
const TABLE_FILE: &str = "route-table";
/// Before the second attempt to connect; doubles until [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// The longest pause between two attempts.
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// How often it is looked whether the certificate has to be renewed.
const RENEWAL_LOOK: Duration = Duration::from_secs(1);
/// Between two heartbeats to the manager. Slower than an agent's: nothing is rescheduled when an
/// ingress falls silent.
const HEARTBEAT: Duration = HEARTBEAT_INTERVAL.to_duration().saturating_mul(10);
/// Silence of a manager after which another connection is tried, TCP's own patience being hours.
/// It sends nothing when nothing changes, so the heartbeats have to fail: see `LinkSender`.
const HELLO: Duration = Duration::from_secs(5);
/// Between two writes of the route table's file lies this many times what the first of them took,
/// so that a large table that changes all the time costs a twentieth of a core at most.
const PERSIST_SHARE: u32 = 20;
/// But not longer than this: what a killed ingress forgets.
const PERSIST_PAUSE: Duration = Duration::from_millis(500);

/// Gets this ingress's credentials: from the data folder, else by joining, for which it waits until
/// a manager answers.
///
/// # Errors
/// [`LinkError`] with the reason; [`LinkError::Refused`] if neither credentials nor token exist.
pub async fn credentials(config: &Cluster) -> Result<Credentials, LinkError> {
    if let Some(credentials) = Credentials::load(&config.data_dir)? {
        if credentials.not_after > wall_clock() {
            return Ok(credentials);
        }
        tracing::warn!(until = %credentials.not_after, "certificate has expired, joining anew");
    }
    let Some(token) = &config.join else {
        let reason = format!(
            "there are no valid credentials in {} and no join token was given; `ballast node \
             join-token ingress` on a manager prints one",
            config.data_dir.display()
        );
        return Err(LinkError::Refused(reason));
    };
    if config.managers.is_empty() {
        let reason = "the join token names no manager; say --manager";
        return Err(LinkError::Refused(reason.to_owned()));
    }
    let mut backoff = BACKOFF_MIN;
    loop {
        for manager in &config.managers {
            let joined = match resolve(manager).await {
                Ok(address) => join::join(address, token, &config.name).await,
                Err(error) => Err(error.into()),
            };
            match joined {
                Ok(credentials) => {
                    credentials.store(&config.data_dir)?;
                    return Ok(credentials);
                }
                Err(error) if is_passing(&error) => {
                    let error = chain(&error);
                    tracing::warn!(manager, error, "cannot join yet");
                }
                Err(error) => return Err(error),
            }
        }
        tokio::time::sleep(backoff).await;
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

/// Whether joining may work later: nobody is there yet, or nobody leads.
fn is_passing(error: &LinkError) -> bool {
    match error {
        LinkError::Connect { .. } | LinkError::Stalled(_) | LinkError::Io(_) => true,
        LinkError::Refused(reason) => {
            reason.contains("leads") || reason.contains("closed the connection")
        }
        _ => false,
    }
}

/// Returns the last route table that was kept, so that a restarted ingress serves at once.
pub fn restore(hub: &Hub, data_dir: &Path) -> bool {
    let Ok(bytes) = std::fs::read(data_dir.join(TABLE_FILE)) else {
        return false;
    };
    match ballast_wire::from_bytes(&bytes) {
        Ok(ManagerToIngress::Snapshot {
            generation,
            services,
        }) => {
            hub.apply(|feed, _| feed.snapshot(generation, services));
            true
        }
        Ok(_) => false,
        Err(error) => {
            tracing::warn!(%error, "kept route table is not readable, waiting for a manager");
            false
        }
    }
}

/// Keeps the route table in the data folder as it changes, until `stop`, and once more then.
pub async fn persist(hub: Arc<Hub>, data_dir: PathBuf, stop: CancellationToken) {
    let mut versions = hub.versions();
    let mut kept = None;
    loop {
        tokio::select! {
            changed = versions.changed() => if changed.is_err() { return },
            () = stop.cancelled() => break,
        }
        let begun = Instant::now();
        persist_once(&hub, &data_dir, &mut kept).await;
        let pause = (begun.elapsed() * PERSIST_SHARE).min(PERSIST_PAUSE);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => break,
        }
    }
    persist_once(&hub, &data_dir, &mut kept).await;
}

async fn persist_once(hub: &Hub, data_dir: &Path, kept: &mut Option<Generation>) {
    let (generation, services) = hub.feed().snapshot_of();
    if *kept == Some(generation) || generation == Generation(0) {
        return;
    }
    let snapshot = ManagerToIngress::Snapshot {
        generation,
        services,
    };
    let dir = data_dir.to_owned();
    let written = tokio::task::spawn_blocking(move || write(&dir, &snapshot)).await;
    match written {
        Ok(Ok(())) => *kept = Some(generation),
        Ok(Err(error)) => tracing::warn!(%error, "route table not kept"),
        Err(error) => tracing::error!(%error, "route table not kept"),
    }
}

/// Keeps the route table with the health that is known now, for a process that takes over. Blocks.
pub fn keep_live(hub: &Hub, data_dir: &Path) -> std::io::Result<()> {
    let (generation, services) = hub.feed().live_snapshot();
    if generation == Generation(0) {
        return Ok(());
    }
    let snapshot = ManagerToIngress::Snapshot {
        generation,
        services,
    };
    write(data_dir, &snapshot)
}

/// Whole or not at all. Not synced to the disk: after a power cut a manager sends it anew.
fn write(dir: &Path, snapshot: &ManagerToIngress) -> std::io::Result<()> {
    let bytes = ballast_wire::to_bytes(snapshot).map_err(std::io::Error::other)?;
    let temporary = dir.join(format!("{TABLE_FILE}.new"));
    let mut file = std::fs::File::create(&temporary)?;
    file.write_all(&bytes)?;
    std::fs::rename(temporary, dir.join(TABLE_FILE))
}

/// Follows whichever manager leads.
pub struct Follower {
    /// What is shared.
    pub hub: Arc<Hub>,
    /// Who we are.
    pub trust: Arc<Trust>,
    /// How to be a member.
    pub config: Cluster,
    /// Where agents connect to, the port being known.
    pub feed: SocketAddr,
    /// Ports that cannot be listened on.
    pub failures: watch::Receiver<Failures>,
    /// Set when there is a table to serve from.
    pub ready: Arc<AtomicBool>,
}

impl Follower {
    /// Connects, and connects again, until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut backoff = BACKOFF_MIN;
        let mut next = 0;
        let mut leader: Option<SocketAddr> = None;
        loop {
            let target = match leader.take() {
                Some(leader) => Ok(leader),
                None if self.config.managers.is_empty() => {
                    tracing::error!("no manager is known: say --manager");
                    return;
                }
                None => {
                    next = (next + 1) % self.config.managers.len();
                    resolve(&self.config.managers[next]).await
                }
            };
            let ended = tokio::select! {
                ended = self.follow(target) => ended,
                () = stop.cancelled() => return,
            };
            match ended {
                Ok(End::Redirected(to)) => {
                    leader = to;
                    backoff = if to.is_some() { BACKOFF_MIN } else { backoff };
                }
                Ok(End::Closed { served }) => {
                    tracing::info!("manager closed the link");
                    backoff = if served { BACKOFF_MIN } else { backoff };
                }
                Err(error) => {
                    let error = chain(&error);
                    tracing::warn!(error, "no link to a manager");
                }
            }
            tokio::select! {
                () = tokio::time::sleep(backoff) => {}
                () = stop.cancelled() => return,
            }
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    async fn follow(&mut self, target: std::io::Result<SocketAddr>) -> Result<End, LinkError> {
        let peer = Peer {
            address: target?,
            role: Role::Manager,
            id: None,
        };
        let (stream, identity) = self.trust.connect(peer, alpn::LINK).await?;
        let local = stream.get_ref().0.local_addr()?;
        let link: Link<IngressToManager, ManagerToIngress> = Link::new(stream, identity);
        let (mut sender, mut receiver) = (link.sender, link.receiver);
        let generation = self.hub.table().generation;
        sender
            .send(&IngressToManager::Hello {
                ingress: IngressId::from_bits(self.trust.identity().id),
                name: self.config.name.clone(),
                feed: self.advertised_feed(local),
                generation,
            })
            .await?;
        let first = tokio::time::timeout(HELLO, receiver.recv()).await;
        match first.map_err(|_| LinkError::Stalled(HELLO))?? {
            Some(ManagerToIngress::Welcome { .. }) => {}
            Some(ManagerToIngress::Redirect { leader }) => return Ok(End::Redirected(leader)),
            Some(ManagerToIngress::Refused(reason)) => return Err(LinkError::Refused(reason)),
            Some(_) => return Err(LinkError::Refused("it did not say welcome first".into())),
            None => return Ok(End::Closed { served: false }),
        }
        tracing::info!(manager = %peer.address, "follows");
        self.converse(&mut sender, &mut receiver).await
    }

    /// Where agents reach the feed: as configured, else the address that the manager sees.
    fn advertised_feed(&self, local: SocketAddr) -> SocketAddr {
        self.config.advertise_feed.unwrap_or_else(|| {
            if self.feed.ip().is_unspecified() {
                SocketAddr::new(local.ip(), self.feed.port())
            } else {
                self.feed
            }
        })
    }

    async fn converse(
        &mut self,
        sender: &mut LinkSender<IngressToManager>,
        receiver: &mut LinkReceiver<ManagerToIngress>,
    ) -> Result<End, LinkError> {
        let mut heartbeat = tokio::time::interval(HEARTBEAT);
        let mut renewal = tokio::time::interval(RENEWAL_LOOK);
        let mut pending: Option<KeyPair> = None;
        self.failures.mark_changed();
        loop {
            tokio::select! {
                message = receiver.recv() => {
                    let Some(message) = message? else {
                        return Ok(End::Closed { served: true });
                    };
                    match message {
                        ManagerToIngress::Redirect { leader } => {
                            return Ok(End::Redirected(leader));
                        }
                        ManagerToIngress::Refused(reason) => {
                            return Err(LinkError::Refused(reason));
                        }
                        ManagerToIngress::Certificate(chain) => self.renewed(pending.take(), chain),
                        other => {
                            self.take(other);
                            let generation = self.hub.table().generation;
                            sender.send(&IngressToManager::Applied(generation)).await?;
                        }
                    }
                }
                _ = heartbeat.tick() => sender.send(&IngressToManager::Heartbeat).await?,
                _ = renewal.tick() => {
                    if self.trust.credentials().renewal_due() <= wall_clock() {
                        let key = KeyPair::generate()?;
                        let csr = key.signing_request()?;
                        pending = Some(key);
                        sender.send(&IngressToManager::Renew { csr }).await?;
                    }
                }
                changed = self.failures.changed() => {
                    if changed.is_ok() {
                        let failures = self.failures.borrow_and_update().clone();
                        sender.send(&IngressToManager::ListenFailures(failures)).await?;
                    }
                }
            }
        }
    }

    fn take(&self, message: ManagerToIngress) {
        match message {
            ManagerToIngress::Snapshot {
                generation,
                services,
            } => {
                self.hub
                    .apply(|feed, _| feed.snapshot(generation, services));
            }
            ManagerToIngress::Update {
                generation,
                changed,
                removed,
            } => self
                .hub
                .apply(|feed, _| feed.update(generation, changed, &removed)),
            _ => return,
        }
        self.ready.store(true, Ordering::Release);
    }

    fn renewed(&self, key: Option<KeyPair>, chain: Vec<Vec<u8>>) {
        let Some(key) = key else {
            return;
        };
        let renewed = key.into_credentials(chain).and_then(|credentials| {
            self.trust.renew(credentials.clone())?;
            credentials.store(&self.config.data_dir)
        });
        match renewed {
            Ok(()) => tracing::info!("certificate renewed"),
            Err(error) => tracing::error!(%error, "certificate not renewed"),
        }
    }
}

/// How a conversation ended.
enum End {
    Redirected(Option<SocketAddr>),
    Closed { served: bool },
}

async fn resolve(manager: &str) -> std::io::Result<SocketAddr> {
    let mut found = tokio::net::lookup_host(manager).await?;
    found.next().ok_or_else(|| {
        let message = format!("`{manager}` has no address");
        std::io::Error::new(std::io::ErrorKind::NotFound, message)
    })
}
