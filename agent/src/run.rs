//! The agent as a role: join, take up the node's tasks, link to manager and ingresses.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use ballast_link::token::ca_digest;
use ballast_link::{Credentials, LinkError, Role, Trust};
use ballast_model::{NodeDescription, NodeId};
use ballast_wire::join::JoinRole;
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::config::Config;
use crate::driver::process::{Cgroups, ProcessDriver, raise_nofile};
use crate::feed::Feeds;
use crate::logs::Logs;
use crate::manager::{ManagerLink, resolve};
use crate::shell::{Agent, Parts, now};
use crate::store::{Loaded, Store, StoreError};
use crate::{admin, machine};

/// Between two attempts to join, at first and at most.
const REJOIN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// Why an agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// It has no certificate and no token to get one with.
    #[error(
        "this agent has not joined a cluster: give it a token with --join (`ballast node join-token agent` on a manager prints one)"
    )]
    NotJoined,
    /// The token is one for another role.
    #[error(
        "the join token is an ingress's: `ballast node join-token agent` on a manager prints an agent's"
    )]
    WrongToken,
    /// Its certificate is of another cluster than the token, or of another role.
    #[error("the certificate in {path} {reason}; remove it to join anew")]
    WrongCredentials {
        /// Where.
        path: std::path::PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Its certificate has expired, so no manager lets it in to renew it.
    #[error("the certificate in {path} has expired ({at}): join anew with --join TOKEN")]
    Expired {
        /// Where.
        path: std::path::PathBuf,
        /// When.
        at: ballast_model::Timestamp,
    },
    /// The manager does not let it in, or a certificate cannot be used.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// Its data folder cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The admin listener cannot listen.
    #[error("cannot serve metrics on {0}")]
    Admin(#[source] std::io::Error),
}

/// Runs an agent until `shutdown`; its tasks run on unless the configuration says otherwise.
///
/// # Errors
/// [`AgentError`] if it cannot start; once it runs it only ends by `shutdown`.
pub async fn run(mut config: Config, shutdown: CancellationToken) -> Result<(), AgentError> {
    let mut store = Store::open(&config.data_dir, now().wall)?;
    let folder = config.data_dir.join("credentials");
    remember_managers(&mut config);
    let listener = match config.admin {
        Some(address) => Some(admin::listen(address).await.map_err(AgentError::Admin)?),
        None => None,
    };
    let joined = tokio::select! {
        () = shutdown.cancelled() => return Ok(()),
        joined = join(&config, &folder) => joined?,
    };
    let node = NodeId::from_bits(joined.identity.id);
    store.0.claim(joined.identity.cluster, node, &mut store.1);
    let trust = Trust::new(joined)?;
    let address = match config.address {
        Some(address) => address,
        None => own_address(&config.managers).await,
    };
    let ingresses = store.1.ingresses.clone();
    let agent = start(&config, node, address, store);
    tracing::info!(node_id = %node, name = config.name, %address, "agent runs");
    // The tasks outlive the links: an agent that stops its tasks still tells the ingresses.
    let links = CancellationToken::new();
    Feeds::set(&agent, &trust, &ingresses, &links);
    let timer = tokio::spawn(agent.clone().keep_time(links.clone()));
    let ready = Arc::new(AtomicBool::new(false));
    if let Some(listener) = listener {
        tokio::spawn(admin::serve(
            listener,
            agent.clone(),
            ready.clone(),
            links.clone(),
        ));
    }
    let link = ManagerLink {
        agent: agent.clone(),
        trust,
        managers: config.managers.clone(),
        description: NodeDescription {
            name: config.name.clone(),
            address,
            capacity: machine::capacity(&config),
            attributes: machine::attributes(&config.devices),
            labels: config.labels.clone(),
            pool: config.pool.clone(),
        },
        credentials: folder,
        ready,
        shutdown: links.clone(),
    };
    let link = tokio::spawn(link.keep());
    shutdown.cancelled().await;
    if config.stop_tasks_on_exit {
        agent.stop_tasks().await;
    }
    links.cancel();
    // Both end by themselves now; a panic in them was logged by its hook.
    drop(timer.await);
    drop(link.await);
    // A thread of its own: the store waits for a disk.
    drop(tokio::task::spawn_blocking(move || agent.close()).await);
    Ok(())
}

/// Takes up the tasks of this node.
fn start(config: &Config, node: NodeId, address: IpAddr, store: (Store, Loaded)) -> Arc<Agent> {
    let folder = config.data_dir.join("tasks");
    Agent::start(Parts {
        driver: ProcessDriver {
            executable: config.executable.clone(),
            folder: folder.clone(),
            node,
            node_name: config.name.clone(),
            cgroups: Cgroups::detect(node),
            nofile: raise_nofile(),
        },
        address,
        store,
        logs: Logs::new(folder, config.logs),
        seed: seed(),
    })
}

/// Keeps the managers' addresses for a later start that is told none, or takes those of an earlier.
fn remember_managers(config: &mut Config) {
    let file = config.data_dir.join("managers");
    if config.managers.is_empty() {
        let kept = std::fs::read_to_string(&file).unwrap_or_default();
        config.managers = kept.lines().map(ToOwned::to_owned).collect();
    } else if let Err(error) = std::fs::write(&file, config.managers.join("\n")) {
        tracing::warn!(%error, file = %file.display(), "cannot keep the managers' addresses");
    }
}

/// Returns the credentials in the folder, or joins to get some.
async fn join(config: &Config, folder: &Path) -> Result<Credentials, AgentError> {
    if let Some(credentials) = Credentials::load(folder)? {
        let wrong = |reason| AgentError::WrongCredentials {
            path: folder.to_owned(),
            reason,
        };
        if credentials.identity.role != Role::Agent {
            return Err(wrong("is not that of an agent"));
        }
        let other =
            |token: &ballast_link::JoinToken| token.ca_digest != ca_digest(credentials.ca());
        if config.join.as_ref().is_some_and(other) {
            return Err(wrong("is of another cluster than the join token"));
        }
        if now().wall < credentials.not_after {
            return Ok(credentials);
        }
        if config.join.is_none() {
            return Err(AgentError::Expired {
                path: folder.to_owned(),
                at: credentials.not_after,
            });
        }
        tracing::warn!(until = %credentials.not_after, "the certificate has expired: joining anew");
    }
    let token = config.join.as_ref().ok_or(AgentError::NotJoined)?;
    // An ingress's token would be honoured, with a certificate that is of no use to an agent.
    if token.role != JoinRole::Agent {
        return Err(AgentError::WrongToken);
    }
    let mut backoff = Backoff::new(REJOIN.0, REJOIN.1);
    let mut said = false;
    for turn in 0.. {
        let joined = match resolve(&config.managers, turn).await {
            Ok(address) => ballast_link::join::join(address, token, &config.name).await,
            Err(error) => Err(error),
        };
        match joined {
            Ok(credentials) => {
                credentials.store(folder)?;
                tracing::info!(identity = %credentials.identity, "joined the cluster");
                return Ok(credentials);
            }
            Err(error) if !is_passing(&error) => return Err(error.into()),
            Err(error) => {
                if !said {
                    tracing::warn!(%error, "cannot join yet; trying again");
                }
                said = true;
            }
        }
        backoff.wait().await;
    }
    unreachable!("the loop above has no end");
}

/// Returns whether joining may work later: nobody is there yet, or nobody leads.
fn is_passing(error: &LinkError) -> bool {
    match error {
        LinkError::Connect { .. } | LinkError::Stalled(_) | LinkError::Io(_) => true,
        LinkError::Refused(reason) => {
            reason.contains("leads") || reason.contains("closed the connection")
        }
        _ => false,
    }
}

/// Returns the address from which this machine reaches a manager.
async fn own_address(managers: &[String]) -> IpAddr {
    let fallback = IpAddr::from([127, 0, 0, 1]);
    let Ok(manager) = resolve(managers, 0).await else {
        return fallback;
    };
    let any: SocketAddr = match manager {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => ([0u16; 8], 0).into(),
    };
    // Connecting a UDP socket sends nothing; it only asks the kernel for the route.
    let route = async {
        let socket = UdpSocket::bind(any).await?;
        socket.connect(manager).await?;
        socket.local_addr()
    };
    route.await.map_or(fallback, |address| address.ip())
}

/// Returns random bits; without any, those of the clock.
fn seed() -> u64 {
    getrandom::u64().unwrap_or_else(|_| now().wall.0)
}
