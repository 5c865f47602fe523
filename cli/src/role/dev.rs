//! `ballast dev`: a whole cluster in one process on loopback, made without any set-up.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use ballast_link::paths;
use ballast_manager::Ready;
use ballast_model::view::StackSpec;
use ballast_model::{Millis, NodeStatus};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{chain, ingress, logging, process};
use crate::Failure;
use crate::api::{Api, ClientFiles, Host};
use crate::args::{DevArgs, Global};
use crate::command::{Watch, converge, read_compose, stack_name};

/// How long the replicas of the file may take before it is said why they are not there.
const DEPLOY_TIMEOUT: Millis = Millis::from_secs(60);
/// How long the agent may take to join.
const JOIN_TIMEOUT: Duration = Duration::from_secs(10);
/// How often it is looked whether it has: it takes some ten milliseconds.
const JOIN_POLL: Duration = Duration::from_millis(5);
/// The node's and the ingress's name.
const NAME: &str = "dev";
/// Nothing but loopback: what has no set-up must not be reachable from elsewhere.
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Runs manager, agent and ingress until Ctrl-C; deploys a file if one is given.
///
/// # Errors
/// If the file is wrong, or one of the three cannot start or go on.
pub fn dev(global: &Global, args: DevArgs) -> Result<(), Failure> {
    logging::start(global.log, logging::DEV);
    // Before anything is started: a mistake in the file is the likeliest one.
    let stack = match &args.file {
        None => None,
        Some(file) => {
            let name = stack_name(file);
            let spec = read_compose(file, &name)?;
            Some((name, spec))
        }
    };
    process::run(|shutdown| async move {
        let mut cluster = Cluster::start(&args, &shutdown).await?;
        let result = cluster.serve(stack, &shutdown).await;
        let stopped = cluster.stop().await;
        result.and(stopped)
    })
}

type Role = JoinHandle<Result<(), Failure>>;

/// The three roles, each with what ends it: they end one after the other, so that the agent can
/// still tell the ingress what it stops.
struct Cluster {
    manager: Option<Role>,
    agent: Option<Role>,
    ingress: Option<Role>,
    stops: [CancellationToken; 3],
    ready: Ready,
    bind: IpAddr,
    listen: SocketAddr,
}

impl Cluster {
    /// Starts all three; returns once the manager serves.
    async fn start(args: &DevArgs, shutdown: &CancellationToken) -> Result<Self, Failure> {
        let data = args
            .data_dir
            .clone()
            .unwrap_or_else(|| paths::data_dir(NAME));
        let stops = [(); 3].map(|()| CancellationToken::new());
        let [stop_manager, stop_agent, stop_ingress] = &stops;
        let bind = args.bind.unwrap_or(LOOPBACK);
        let listen = listen_address(args)?;

        let (manager, ready) = start_manager(&data, args, stop_manager, shutdown).await?;
        let manager_address = ready.links.to_string();
        let agent = agent_config(&data, args, &ready, &manager_address)?;
        let stop = stop_agent.clone();
        let agent = tokio::spawn(async move {
            let ended = ballast_agent::run(agent, stop).await;
            ended.map_err(|error| Failure::Failed(chain(&error)))
        });
        let ingress = ingress::Plan {
            join: ready.ingress_token.clone(),
            manager: manager_address,
            name: NAME,
            listen,
            bind,
            feed: SocketAddr::new(LOOPBACK, free_port()?),
            data_dir: data.join("ingress"),
        };
        let ingress = tokio::spawn(ingress::run(ingress.validate()?, stop_ingress.clone()));
        Ok(Self {
            manager: Some(manager),
            agent: Some(agent),
            ingress: Some(ingress),
            stops,
            ready,
            bind,
            listen,
        })
    }

    /// Says what there is, deploys the file, and waits for the end.
    async fn serve(
        &mut self,
        stack: Option<(String, StackSpec)>,
        shutdown: &CancellationToken,
    ) -> Result<(), Failure> {
        println!("API:     unix://{}", self.ready.socket.display());
        println!("routes:  http://{} (by host and path)", self.listen);
        println!("published ports are on {}", self.bind);
        if self.ready.socket != paths::socket() {
            let socket = self.ready.socket.display();
            println!("for other commands: export BALLAST_HOST=unix://{socket}");
        }
        let host = Host::Unix(self.ready.socket.clone());
        let api = Api::new(host, &ClientFiles::default())?;
        let bind = self.bind;
        let deploy = async {
            if let Some((name, spec)) = stack {
                // The cluster stays up: what is wrong can be seen and repaired from outside.
                match deploy(&api, &name, &spec).await {
                    Ok(()) => announce(&spec, bind),
                    Err(failure) => eprint!("{}", failure.report()),
                }
            }
            println!("Ctrl-C stops everything.");
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = shutdown.cancelled() => Ok(()),
            () = deploy => Ok(()),
            ended = ended(&mut self.manager) => ended,
            ended = ended(&mut self.agent) => ended,
            ended = ended(&mut self.ingress) => ended,
        }
    }

    /// Ends the agent with its tasks, then the ingress, then the manager.
    async fn stop(&mut self) -> Result<(), Failure> {
        let [stop_manager, stop_agent, stop_ingress] = &self.stops;
        let roles = [
            (stop_agent, &mut self.agent),
            (stop_ingress, &mut self.ingress),
            (stop_manager, &mut self.manager),
        ];
        let mut result = Ok(());
        for (stop, role) in roles {
            stop.cancel();
            if role.is_some() {
                let ended = ended(role).await;
                result = result.and(ended);
            }
        }
        result
    }
}

/// Waits for a role's end; for ever for one whose end was seen.
async fn ended(role: &mut Option<Role>) -> Result<(), Failure> {
    let Some(handle) = role else {
        return std::future::pending().await;
    };
    let result = handle.await;
    *role = None;
    result.unwrap_or_else(|panic| Err(Failure::while_doing("a role has failed", panic)))
}

async fn start_manager(
    data: &std::path::Path,
    args: &DevArgs,
    stop: &CancellationToken,
    shutdown: &CancellationToken,
) -> Result<(Role, Ready), Failure> {
    let config = ballast_manager::RawConfig {
        data_dir: Some(data.join("manager")),
        socket: args.socket.clone(),
        listen: Some(SocketAddr::new(LOOPBACK, 0).to_string()),
        admin: Some("off".to_owned()),
        ..ballast_manager::RawConfig::default()
    };
    let config = config
        .validate()
        .map_err(|error| Failure::Failed(chain(&error)))?;
    let (on_ready, ready) = oneshot::channel();
    let stop = stop.clone();
    let mut manager = tokio::spawn(async move {
        let ended = ballast_manager::run_until(config, on_ready, stop).await;
        ended.map_err(|error| Failure::Failed(chain(&error)))
    });
    tokio::select! {
        Ok(ready) = ready => Ok((manager, ready)),
        result = &mut manager => Err(match result {
            Ok(Err(failure)) => failure,
            Ok(Ok(())) => Failure::Failed("the manager ended before it served".to_owned()),
            Err(panic) => Failure::while_doing("the manager has failed", panic),
        }),
        () = shutdown.cancelled() => Err(Failure::Failed("ended before it served".to_owned())),
    }
}

fn agent_config(
    data: &std::path::Path,
    args: &DevArgs,
    ready: &Ready,
    manager: &str,
) -> Result<ballast_agent::Config, Failure> {
    let config = ballast_agent::RawConfig {
        join: Some(ready.agent_token.clone()),
        managers: vec![manager.to_owned()],
        name: Some(NAME.to_owned()),
        address: Some(LOOPBACK),
        data_dir: Some(data.join("agent")),
        ports: args.ports.clone(),
        admin: Some("off".to_owned()),
        stop_tasks_on_exit: !args.keep_tasks,
        ..ballast_agent::RawConfig::default()
    };
    config
        .validate()
        .map_err(|error| Failure::Failed(chain(&error)))
}

fn listen_address(args: &DevArgs) -> Result<SocketAddr, Failure> {
    let text = args.listen.as_deref().unwrap_or("127.0.0.1:8000");
    text.parse().map_err(|_| {
        Failure::Usage(format!(
            "--listen: `{text}` is not IP:PORT, such as 127.0.0.1:8000"
        ))
    })
}

/// Returns a port of loopback that nobody listens on now.
fn free_port() -> Result<u16, Failure> {
    let listener = std::net::TcpListener::bind((LOOPBACK, 0))?;
    Ok(listener.local_addr()?.port())
}

async fn deploy(api: &Api, name: &str, spec: &StackSpec) -> Result<(), Failure> {
    wait_for_node(api).await?;
    api.deploy(name, spec).await?;
    let mut watches = Vec::new();
    for service in &spec.services {
        watches.push(Watch::of(&api.service(&service.name).await?));
    }
    converge(api, &watches, DEPLOY_TIMEOUT).await?;
    Ok(())
}

/// Waits until the agent has joined, so that nothing is pending for want of it; not for ever, as
/// what keeps it away is told by whoever waits for the replicas.
async fn wait_for_node(api: &Api) -> Result<(), Failure> {
    let deadline = Instant::now() + JOIN_TIMEOUT;
    while Instant::now() < deadline {
        let nodes = api.nodes().await?;
        if nodes.iter().any(|node| node.status == NodeStatus::Ready) {
            return Ok(());
        }
        tokio::time::sleep(JOIN_POLL).await;
    }
    Ok(())
}

/// Says where the services of a stack answer.
fn announce(spec: &StackSpec, bind: IpAddr) {
    for service in &spec.services {
        for port in &service.ports {
            let Some(published) = port.published else {
                continue;
            };
            let address = SocketAddr::new(bind, published);
            println!("{} answers on {}://{address}", service.name, port.protocol);
        }
    }
}
