//! How a manager comes up, and goes down.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use ballast_link::{Credentials, LinkError, Trust};
use ballast_model::{ClusterId, ManagerId};
use ballast_wire::join::JoinRole;
use ballast_wire::log::Command;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::api::{self, Api, ApiListener, ApiSocket, SocketError};
use crate::ca::{self, Ca, role_name};
use crate::clock;
use crate::config::Config;
use crate::data_dir::{DataDir, DataDirError};
use crate::leader::{self, LeaderContext, Scope};
use crate::links::LinkServer;
use crate::metrics::Metrics;
use crate::raft::{Consensus, Leadership, ProposeError, RaftStartError, TrustCell};
use crate::state::Rejection;

/// The longest wait for a leader at start. A single manager leads at once; of several, a majority
/// must be up.
const LEADER_TIMEOUT: Duration = Duration::from_mins(1);
/// How often this manager looks whether its own certificate is due.
const RENEWAL_CHECK: Duration = Duration::from_secs(5);
/// Folder below the data folder that holds this manager's key and certificate.
const CREDENTIALS: &str = "credentials";

/// Why a manager could not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ManagerError {
    /// Its folder.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// Its log.
    #[error("the log cannot be used: {0}")]
    Raft(#[from] RaftStartError),
    /// A port.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The API's socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// Its certificate, or the CA.
    #[error(transparent)]
    Trust(#[from] LinkError),
    /// The cluster could not be founded.
    #[error("the cluster could not be founded: {0}")]
    Founding(#[source] ProposeError),
    /// The state refused it.
    #[error("the cluster could not be founded: {0}")]
    Refused(#[source] Rejection),
    /// Nobody leads.
    #[error("no manager leads after {LEADER_TIMEOUT:?}: is a majority of the managers up?")]
    NoLeader,
    /// Raft ended: the disk failed, or a mistake of ours. What was acknowledged is safe.
    #[error("the log has failed: {0}; what was acknowledged is safe, start the manager again")]
    Stopped(String),
}

/// What is known once a manager serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// Whether this start made the cluster.
    pub founded: bool,
    /// The token that agents join with.
    pub agent_token: String,
    /// The token that ingresses join with.
    pub ingress_token: String,
    /// Where links, joins and the API over TLS arrive.
    pub links: SocketAddr,
    /// The API's Unix socket.
    pub socket: PathBuf,
    /// Where metrics and health are served, if they are on TCP.
    pub admin: Option<SocketAddr>,
}

/// Runs a manager until `shutdown`. The join tokens are written to `join-token.agent` and
/// `join-token.ingress` in the data folder (mode 0600).
///
/// # Errors
/// [`ManagerError`]: it could not start, or its disk has failed.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), ManagerError> {
    let (on_ready, _) = oneshot::channel();
    run_until(config, on_ready, shutdown).await
}

/// Runs a manager until `shutdown`, and says when it serves.
///
/// # Errors
/// As [`run`].
pub async fn run_until(
    config: Config,
    on_ready: oneshot::Sender<Ready>,
    shutdown: CancellationToken,
) -> Result<(), ManagerError> {
    let dir = DataDir::open(&config.data_dir)?;
    let metrics = Metrics::new();
    let listeners = Listeners::bind(&config).await?;
    let advertised = config.advertised(listeners.links_address);
    let trust: TrustCell = Arc::new(OnceLock::new());
    let stored = Credentials::load(&dir.path().join(CREDENTIALS))?;
    if let Some(stored) = stored {
        // One of several needs its certificate before it can find out who leads.
        let _ = trust.set(Trust::new(stored)?);
    }
    let consensus =
        Consensus::start(&dir, &advertised, Arc::clone(&trust), metrics.clone()).await?;
    let member = Member {
        config: &config,
        dir: &dir,
        consensus: &consensus,
        advertised,
        metrics,
    };
    let result = match member.enrol(&trust).await {
        Ok(enrolled) => member.serve(enrolled, listeners, on_ready, shutdown).await,
        Err(error) => Err(error),
    };
    consensus.shutdown().await;
    result
}

/// Everything that is listened on.
struct Listeners {
    links: TcpListener,
    links_address: SocketAddr,
    socket: ApiSocket,
    admin: Option<(TcpListener, SocketAddr)>,
}

async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), ManagerError> {
    let failed = |source| ManagerError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

impl Listeners {
    async fn bind(config: &Config) -> Result<Self, ManagerError> {
        let (links, links_address) = bind(config.listen).await?;
        let admin = match config.admin {
            Some(address) => Some(bind(address).await?),
            None => None,
        };
        Ok(Self {
            links,
            links_address,
            socket: ApiSocket::bind(&config.socket, config.socket_mode).await?,
            admin,
        })
    }
}

/// A manager that has what it needs to serve.
struct Enrolled {
    founded: bool,
    ca: Arc<Ca>,
    trust: Arc<Trust>,
}

/// A manager whose log is open.
struct Member<'a> {
    config: &'a Config,
    dir: &'a DataDir,
    consensus: &'a Consensus,
    advertised: String,
    metrics: Metrics,
}

impl Member<'_> {
    /// Waits for a leader, founds the cluster if there is none, and gets this manager's
    /// certificate.
    async fn enrol(&self, trust: &TrustCell) -> Result<Enrolled, ManagerError> {
        self.wait_for_leader().await?;
        let founded = self.found().await?;
        let cluster = self.consensus.replica.read().cluster().cloned();
        let cluster = cluster.ok_or(ManagerError::NoLeader)?;
        let ca = Ca::load(&cluster, self.config.certificate_lifetime)?;
        let trust = self.own_trust(&ca, trust)?;
        Ok(Enrolled { founded, ca, trust })
    }

    async fn wait_for_leader(&self) -> Result<(), ManagerError> {
        let mut leadership = self.consensus.leadership();
        let known = leadership.wait_for(|now| *now != Leadership::Following { leader: None });
        match tokio::time::timeout(LEADER_TIMEOUT, known).await {
            Err(_) => Err(ManagerError::NoLeader),
            Ok(Err(_)) => Err(ManagerError::Stopped("it has ended".to_owned())),
            Ok(Ok(now)) => match &*now {
                Leadership::Stopped(reason) => Err(ManagerError::Stopped(reason.clone())),
                _ => Ok(()),
            },
        }
    }

    /// Makes the cluster if there is none yet; returns whether it did.
    async fn found(&self) -> Result<bool, ManagerError> {
        if self.consensus.replica.read().cluster().is_some() {
            return Ok(false);
        }
        let bits = getrandom::u64().map_err(|e| LinkError::Certificate(e.to_string()))?;
        let init = ca::found(ClusterId::from_bits(bits), SystemTime::now())?;
        let command = Command::InitCluster(init);
        let outcome = self.consensus.proposer.propose(command).await;
        outcome
            .map_err(ManagerError::Founding)?
            .map_err(ManagerError::Refused)?;
        Ok(true)
    }

    /// Returns this manager's own certificate: the stored one while it is good, else a new one.
    fn own_trust(&self, ca: &Ca, trust: &TrustCell) -> Result<Arc<Trust>, ManagerError> {
        let manager = self.consensus.manager;
        if let Some(own) = trust.get() {
            renew_if_due(ca, own, manager, &self.credentials())?;
            return Ok(Arc::clone(own));
        }
        let credentials = ca.own_credentials(manager)?;
        credentials.store(&self.credentials())?;
        let own = Trust::new(credentials)?;
        Ok(Arc::clone(trust.get_or_init(|| own)))
    }

    fn credentials(&self) -> PathBuf {
        self.dir.path().join(CREDENTIALS)
    }

    /// Writes the join tokens into the folder and says what is ready.
    fn ready(&self, enrolled: &Enrolled, listeners: &Listeners) -> Result<Ready, ManagerError> {
        let token = |role| -> Result<String, ManagerError> {
            let state = self.consensus.replica.read();
            let cluster = state.cluster().ok_or(ManagerError::NoLeader)?;
            let secret = ca::secret_of(cluster, role);
            let token = enrolled
                .ca
                .token(role, secret, &self.advertised)
                .to_string();
            let name = format!("join-token.{}", role_name(role));
            self.dir.write_secret(&name, &format!("{token}\n"))?;
            Ok(token)
        };
        Ok(Ready {
            founded: enrolled.founded,
            agent_token: token(JoinRole::Agent)?,
            ingress_token: token(JoinRole::Ingress)?,
            links: listeners.links_address,
            socket: self.config.socket.clone(),
            admin: listeners.admin.as_ref().map(|(_, address)| *address),
        })
    }

    async fn serve(
        &self,
        enrolled: Enrolled,
        listeners: Listeners,
        on_ready: oneshot::Sender<Ready>,
        shutdown: CancellationToken,
    ) -> Result<(), ManagerError> {
        let ready = self.ready(&enrolled, &listeners)?;
        // Cancelled for everything below when one of the reasons to end comes.
        let stop = CancellationToken::new();
        let mut tasks = self.spawn(enrolled, listeners, &stop);
        tracing::info!(links = %ready.links, socket = %ready.socket.display(), "manager serves");
        // Whoever started this may not care.
        let _ = on_ready.send(ready);
        let mut leadership = self.consensus.leadership();
        let result = tokio::select! {
            // Raft's reason before that of the tasks that it takes with it.
            biased;
            () = shutdown.cancelled() => Ok(()),
            reason = stopped(&mut leadership) => Err(ManagerError::Stopped(reason)),
            _ = tasks.join_next() => Err(ManagerError::Stopped("a task has ended".to_owned())),
        };
        stop.cancel();
        while tasks.join_next().await.is_some() {}
        result
    }

    fn spawn(
        &self,
        enrolled: Enrolled,
        listeners: Listeners,
        stop: &CancellationToken,
    ) -> JoinSet<()> {
        let Enrolled { ca, trust, .. } = enrolled;
        let consensus = self.consensus;
        let (leader_sender, leader) = watch::channel(None);
        let api = Api {
            proposer: consensus.proposer.clone(),
            replica: Arc::clone(&consensus.replica),
            leadership: consensus.leadership(),
            leader: leader.clone(),
            ca: Arc::clone(&ca),
            advertised: self.advertised.clone(),
            metrics: self.metrics.clone(),
            plans: api::Plans::default(),
        };
        let router = api::router(api.clone());
        let links = LinkServer {
            trust: Arc::clone(&trust),
            ca: Arc::clone(&ca),
            replica: Arc::clone(&consensus.replica),
            raft: consensus.server(),
            leadership: consensus.leadership(),
            leader,
            router: router.clone(),
            metrics: self.metrics.clone(),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(links.run(listeners.links, stop.clone()));
        let socket = ApiListener::Socket(listeners.socket);
        tasks.spawn(api::serve_listener(socket, router, stop.clone()));
        if let Some((listener, _)) = listeners.admin {
            let listener = ApiListener::Tcp(listener);
            let router = api::admin_router(api);
            tasks.spawn(api::serve_listener(listener, router, stop.clone()));
        }
        tasks.spawn(self.supervise(leader_sender, stop.clone()));
        let renewal = Renewal {
            ca,
            trust,
            manager: consensus.manager,
            dir: self.credentials(),
        };
        tasks.spawn(renewal.run(stop.clone()));
        tasks
    }

    fn supervise(
        &self,
        leader: watch::Sender<Option<Arc<LeaderContext>>>,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + use<> {
        let proposer = self.consensus.proposer.clone();
        let replica = Arc::clone(&self.consensus.replica);
        let metrics = self.metrics.clone();
        let moves = self.config.moves;
        let begin = move || {
            Scope::begin(
                proposer.clone(),
                Arc::clone(&replica),
                metrics.clone(),
                moves,
            )
        };
        leader::supervise(self.consensus.leadership(), leader, begin, stop)
    }
}

async fn stopped(leadership: &mut watch::Receiver<Leadership>) -> String {
    let stopped = leadership.wait_for(|now| matches!(now, Leadership::Stopped(_)));
    match stopped.await.as_deref() {
        Ok(Leadership::Stopped(reason)) => reason.clone(),
        _ => "it has ended".to_owned(),
    }
}

/// Gives this manager a new certificate if its own is due.
fn renew_if_due(ca: &Ca, own: &Trust, manager: ManagerId, dir: &Path) -> Result<(), ManagerError> {
    if ca.are_current(&own.credentials(), manager, clock::now()) {
        return Ok(());
    }
    let renewed = ca.own_credentials(manager)?;
    renewed.store(dir)?;
    own.renew(renewed)?;
    tracing::info!("this manager's certificate was renewed");
    Ok(())
}

/// Keeps this manager's own certificate valid.
struct Renewal {
    ca: Arc<Ca>,
    trust: Arc<Trust>,
    manager: ManagerId,
    dir: PathBuf,
}

impl Renewal {
    async fn run(self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(RENEWAL_CHECK) => {}
            }
            if let Err(error) = renew_if_due(&self.ca, &self.trust, self.manager, &self.dir) {
                tracing::warn!(%error, "this manager's certificate could not be renewed");
            }
        }
    }
}
