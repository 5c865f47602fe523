//! The whole role against a manager and an ingress that are played by the test.

mod common;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ballast_agent::driver::process::{Cgroups, ProcessDriver};
use ballast_agent::{Config, RawConfig};
use ballast_link::{
    Authority, ClientAuth, Credentials, Identity, KeyPair, Link, Role, Trust, alpn,
};
use ballast_model::{
    AssignmentId, Claim, ClusterId, Desired, Generation, Health, IngressId, NodeId, PortBinding,
    ServiceId, Slot, TaskId, TaskState,
};
use ballast_wire::agent::{
    AgentHello, AgentToManager, AssignedTemplate, Assignment, AssignmentSet, IngressAddress,
    ManagerToAgent,
};
use ballast_wire::feed::{AgentToIngress, EndpointHealth, IngressToAgent};
use common::{DEADLINE, Service, free_port, getrandom_bits};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const CLUSTER: ClusterId = ClusterId::from_bits(77);
const NODE: NodeId = NodeId::from_bits(1);
const INGRESS: IngressId = IngressId::from_bits(2);

type ToAgent<Out, In> = Link<Out, In>;

/// A cluster's CA, and a folder for the agent.
struct Cluster {
    authority: Authority,
    folder: tempfile::TempDir,
    node: NodeId,
}

impl Cluster {
    fn new() -> Self {
        Self {
            authority: Authority::generate(CLUSTER, SystemTime::now()).expect("makes a CA"),
            folder: tempfile::tempdir().expect("makes a folder"),
            // Its own in each test: processes are known by it.
            node: NodeId::from_bits(getrandom_bits()),
        }
    }

    fn credentials(&self, role: Role, id: u64, age: Duration) -> Credentials {
        let key = KeyPair::generate().expect("makes a key");
        let identity = Identity {
            cluster: CLUSTER,
            role,
            id,
        };
        let request = key.signing_request().expect("signs");
        let life = Duration::from_secs(1000);
        let chain = self
            .authority
            .issue(&request, identity, life, SystemTime::now() - age);
        key.into_credentials(chain.expect("issues"))
            .expect("is a chain")
    }

    fn trust(&self, role: Role, id: u64) -> Arc<Trust> {
        Trust::new(self.credentials(role, id, Duration::ZERO)).expect("is usable")
    }

    fn config(&self, manager: SocketAddr) -> Config {
        let credentials = self.credentials(Role::Agent, self.node.to_bits(), Duration::ZERO);
        credentials
            .store(&self.folder.path().join("credentials"))
            .expect("stores");
        let raw = RawConfig {
            managers: vec![manager.to_string()],
            name: Some("here".to_owned()),
            address: "127.0.0.1".parse().ok(),
            data_dir: Some(self.folder.path().to_owned()),
            admin: Some("off".to_owned()),
            stop_tasks_on_exit: true,
            ..RawConfig::default()
        };
        Config {
            executable: PathBuf::from(env!("CARGO_BIN_EXE_ballast-task-exec")),
            ..raw.validate().expect("is valid")
        }
    }
}

impl Drop for Cluster {
    /// Kills what a failed test has left running.
    fn drop(&mut self) {
        let driver = ProcessDriver {
            executable: PathBuf::new(),
            folder: self.folder.path().join("tasks"),
            node: self.node,
            node_name: String::new(),
            cgroups: Cgroups::detect(self.node),
            nofile: None,
        };
        for (assignment, (_, process)) in driver.find_running() {
            driver.kill(assignment, process);
            driver.sweep(assignment, process);
            driver.forget(assignment);
        }
        driver.cgroups.remove_node();
    }
}

/// One of the agent's peers, played by the test.
struct Played {
    trust: Arc<Trust>,
    listener: TcpListener,
    alpn: &'static [u8],
}

impl Played {
    async fn new(cluster: &Cluster, role: Role, id: u64, alpn: &'static [u8]) -> Self {
        Self {
            trust: cluster.trust(role, id),
            listener: TcpListener::bind("127.0.0.1:0").await.expect("binds"),
            alpn,
        }
    }

    fn address(&self) -> SocketAddr {
        self.listener.local_addr().expect("has an address")
    }

    async fn accept<Out, In>(&self) -> ToAgent<Out, In>
    where
        Out: serde::Serialize,
        In: serde::de::DeserializeOwned,
    {
        let accept = async {
            let (stream, _) = self.listener.accept().await.expect("accepts");
            let accepted = self
                .trust
                .accept(stream, &[self.alpn], ClientAuth::Required)
                .await;
            accepted.expect("is a member")
        };
        let accepted = tokio::time::timeout(DEADLINE, accept)
            .await
            .expect("calls in time");
        Link::new(accepted.stream, accepted.identity.expect("has one"))
    }
}

type Manager = ToAgent<ManagerToAgent, AgentToManager>;
type Ingress = ToAgent<IngressToAgent, AgentToIngress>;

async fn next<Out, In: serde::de::DeserializeOwned>(link: &mut ToAgent<Out, In>) -> In {
    let message = tokio::time::timeout(DEADLINE, link.receiver.recv()).await;
    message.expect("in time").expect("reads").expect("goes on")
}

async fn welcome(manager: &Played) -> (Manager, AgentHello) {
    let mut link: Manager = manager.accept().await;
    let AgentToManager::Hello(hello) = next(&mut link).await else {
        panic!("the first is a hello");
    };
    let welcome = ManagerToAgent::Welcome { cluster: CLUSTER };
    link.sender.send(&welcome).await.expect("sends");
    (link, hello)
}

/// Accepts a feed; returns it with what the agent said first.
async fn feed(ingress: &Played) -> (Ingress, NodeId, Vec<EndpointHealth>) {
    let mut link: Ingress = ingress.accept().await;
    let AgentToIngress::Hello { node, .. } = next(&mut link).await else {
        panic!("the first is a hello");
    };
    link.sender
        .send(&IngressToAgent::Welcome)
        .await
        .expect("sends");
    let AgentToIngress::Sync(all) = next(&mut link).await else {
        panic!("the second is a sync");
    };
    (link, node, all)
}

async fn change(link: &mut Ingress, wanted: Health) -> EndpointHealth {
    loop {
        match next(link).await {
            AgentToIngress::Change(change) if change.health == wanted => return change,
            AgentToIngress::Sync(all) => {
                if let Some(found) = all.into_iter().find(|one| one.health == wanted) {
                    return found;
                }
            }
            _ => {}
        }
    }
}

async fn report(
    link: &mut Manager,
    wanted: impl Fn(&ballast_wire::agent::TaskReport) -> bool,
) -> ballast_wire::agent::TaskReport {
    loop {
        if let AgentToManager::Report(reports) = next(link).await
            && let Some(found) = reports.into_iter().find(&wanted)
        {
            return found;
        }
    }
}

fn set(generation: u64, service: &Service) -> AssignmentSet {
    let ports: Vec<_> = service
        .ports
        .iter()
        .map(|port| PortBinding {
            name: port.name.clone(),
            port: free_port(),
        })
        .collect();
    AssignmentSet {
        generation: Generation(generation),
        templates: vec![AssignedTemplate {
            service: ServiceId::from_bits(1),
            name: "web".to_owned(),
            generation: Generation(1),
            task: service.template.clone(),
            ports: service.ports.clone(),
            job: false,
        }],
        assignments: vec![Assignment {
            assignment: AssignmentId::from_bits(getrandom_bits()),
            task: TaskId::from_bits(getrandom_bits()),
            restarts: 0,
            service: ServiceId::from_bits(1),
            generation: Generation(1),
            slot: Slot(1),
            claim: Claim::default(),
            ports,
            desired: Desired::Running,
        }],
    }
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("we may");
}

fn start(config: Config) -> (CancellationToken, tokio::task::JoinHandle<()>) {
    let shutdown = CancellationToken::new();
    let running = ballast_agent::run(config, shutdown.clone());
    let handle = tokio::spawn(async move { running.await.expect("runs") });
    (shutdown, handle)
}

async fn end(agent: (CancellationToken, tokio::task::JoinHandle<()>)) {
    agent.0.cancel();
    tokio::time::timeout(DEADLINE, agent.1)
        .await
        .expect("in time")
        .expect("well");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn death_reaches_the_ingress_in_one_hop_and_the_manager_beside_it() {
    let cluster = Cluster::new();
    let manager = Played::new(&cluster, Role::Manager, 9, alpn::LINK).await;
    let ingress = Played::new(&cluster, Role::Ingress, INGRESS.to_bits(), alpn::FEED).await;
    let agent = start(cluster.config(manager.address()));
    let (mut to_manager, hello) = welcome(&manager).await;
    assert_eq!(
        (hello.node, hello.description.name.as_str()),
        (cluster.node, "here")
    );
    assert_eq!(hello.description.attributes["os"], "linux");
    let ingresses = vec![IngressAddress {
        ingress: INGRESS,
        address: ingress.address(),
    }];
    let send = ManagerToAgent::Ingresses(ingresses);
    to_manager.sender.send(&send).await.expect("sends");
    let (mut to_ingress, node, all) = feed(&ingress).await;
    assert_eq!((node, all.len()), (cluster.node, 0));
    let set = set(1, &Service::shell("exec sleep 1000"));
    let id = set.assignments[0].assignment;
    to_manager
        .sender
        .send(&ManagerToAgent::Assignments(set))
        .await
        .expect("sends");
    let mut last = change(&mut to_ingress, Health::Healthy).await;
    assert_eq!(last.assignment, id);
    let mut running = report(&mut to_manager, |report| {
        report.observed.state == TaskState::Running
    })
    .await;
    let mut hops = Vec::new();
    for restarts in 1..=20 {
        let begun = Instant::now();
        kill(running.observed.pid.expect("runs"));
        let dead = change(&mut to_ingress, Health::Unhealthy).await;
        hops.push(begun.elapsed());
        assert!(dead.sequence > last.sequence);
        last = change(&mut to_ingress, Health::Healthy).await;
        // The delay of restarts in a row is not what is measured here, only waited for.
        running = report(&mut to_manager, |report| {
            report.restarts == restarts && report.observed.state == TaskState::Running
        })
        .await;
        if restarts == 4 {
            break;
        }
    }
    hops.sort_unstable();
    // How fast is for the benches to say: a test must hold on a machine that is out of breath.
    println!("kill to ingress: {hops:?}");
    end(agent).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agent_drains_before_it_stops_and_sends_logs() {
    let cluster = Cluster::new();
    let manager = Played::new(&cluster, Role::Manager, 9, alpn::LINK).await;
    let ingress = Played::new(&cluster, Role::Ingress, INGRESS.to_bits(), alpn::FEED).await;
    let agent = start(cluster.config(manager.address()));
    let (mut to_manager, _) = welcome(&manager).await;
    let ingresses = vec![IngressAddress {
        ingress: INGRESS,
        address: ingress.address(),
    }];
    to_manager
        .sender
        .send(&ManagerToAgent::Ingresses(ingresses))
        .await
        .expect("sends");
    let (mut to_ingress, ..) = feed(&ingress).await;
    let service = Service::shell("echo hello; exec sleep 1000").port(ballast_model::Protocol::Udp);
    let mut set = set(1, &service);
    let id = set.assignments[0].assignment;
    to_manager
        .sender
        .send(&ManagerToAgent::Assignments(set.clone()))
        .await
        .expect("sends");
    change(&mut to_ingress, Health::Healthy).await;
    let read = ManagerToAgent::ReadLogs {
        request: 3,
        assignment: id,
        tail: 10,
        follow: true,
    };
    to_manager.sender.send(&read).await.expect("sends");
    loop {
        if let AgentToManager::LogLines(lines) = next(&mut to_manager).await {
            assert_eq!(
                (lines.request, lines.lines[0].1.as_slice()),
                (3, &b"hello"[..])
            );
            break;
        }
    }
    set.generation = Generation(2);
    set.assignments[0].desired = Desired::Shutdown;
    to_manager
        .sender
        .send(&ManagerToAgent::Assignments(set))
        .await
        .expect("sends");
    let draining = change(&mut to_ingress, Health::Draining).await;
    let drained = |in_flight| IngressToAgent::Drained {
        assignment: id,
        sequence: draining.sequence,
        in_flight,
    };
    to_ingress.sender.send(&drained(1)).await.expect("sends");
    let quiet = tokio::time::timeout(
        Duration::from_millis(300),
        report(&mut to_manager, |report| {
            report.observed.state == TaskState::Shutdown
        }),
    );
    assert!(quiet.await.is_err(), "a request is in flight");
    to_ingress.sender.send(&drained(0)).await.expect("sends");
    let over = report(&mut to_manager, |report| {
        report.observed.state == TaskState::Shutdown
    })
    .await;
    assert_eq!(over.observed.exit, Some(ballast_model::Exit::Signal(15)));
    end(agent).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_manager_tasks_are_restarted_and_health_flows() {
    let cluster = Cluster::new();
    let manager = Played::new(&cluster, Role::Manager, 9, alpn::LINK).await;
    let ingress = Played::new(&cluster, Role::Ingress, INGRESS.to_bits(), alpn::FEED).await;
    let mut config = cluster.config(manager.address());
    config.stop_tasks_on_exit = false;
    let agent = start(config.clone());
    let (mut to_manager, first_life) = welcome(&manager).await;
    let ingresses = vec![IngressAddress {
        ingress: INGRESS,
        address: ingress.address(),
    }];
    to_manager
        .sender
        .send(&ManagerToAgent::Ingresses(ingresses))
        .await
        .expect("sends");
    let set = set(5, &Service::shell("exec sleep 1000"));
    to_manager
        .sender
        .send(&ManagerToAgent::Assignments(set.clone()))
        .await
        .expect("sends");
    let running = report(&mut to_manager, |report| {
        report.observed.state == TaskState::Running
    })
    .await;
    let (to_ingress, ..) = feed(&ingress).await;
    drop(to_ingress);
    end(agent).await;
    drop(to_manager);
    drop(manager);
    // Nobody but the folder tells the next life what to run and whom to tell.
    config.stop_tasks_on_exit = true;
    let agent = start(config);
    let (mut to_ingress, _, all) = feed(&ingress).await;
    assert_eq!(
        all.iter()
            .map(|one| (one.assignment, one.health))
            .collect::<Vec<_>>(),
        [(set.assignments[0].assignment, Health::Healthy)]
    );
    kill(running.observed.pid.expect("runs"));
    change(&mut to_ingress, Health::Unhealthy).await;
    change(&mut to_ingress, Health::Healthy).await;
    assert!(first_life.incarnation.0 > 0);
    end(agent).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redirect_leads_to_the_leader_and_an_old_certificate_is_renewed() {
    let cluster = Cluster::new();
    let follower = Played::new(&cluster, Role::Manager, 8, alpn::LINK).await;
    let leader = Played::new(&cluster, Role::Manager, 9, alpn::LINK).await;
    let config = cluster.config(follower.address());
    let folder = cluster.folder.path().join("credentials");
    let old = cluster.credentials(Role::Agent, cluster.node.to_bits(), Duration::from_mins(15));
    old.store(&folder).expect("stores");
    let agent = start(config);
    let mut link: Manager = follower.accept().await;
    assert!(matches!(next(&mut link).await, AgentToManager::Hello(_)));
    let redirect = ManagerToAgent::Redirect {
        leader: Some(leader.address()),
    };
    link.sender.send(&redirect).await.expect("sends");
    let (mut link, _) = welcome(&leader).await;
    let csr = loop {
        if let AgentToManager::Renew { csr } = next(&mut link).await {
            break csr;
        }
    };
    let identity = Identity {
        cluster: CLUSTER,
        role: Role::Agent,
        id: cluster.node.to_bits(),
    };
    let life = Duration::from_secs(1000);
    let chain = cluster
        .authority
        .issue(&csr, identity, life, SystemTime::now())
        .expect("issues");
    link.sender
        .send(&ManagerToAgent::Certificate(chain))
        .await
        .expect("sends");
    let renewed = |folder: &Path| {
        let stored = Credentials::load(folder).expect("reads").expect("is there");
        stored.not_after > old.not_after
    };
    let begun = Instant::now();
    while !renewed(&folder) {
        assert!(begun.elapsed() < DEADLINE, "not stored");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    end(agent).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agent_that_cannot_be_one_says_why() {
    let cluster = Cluster::new();
    let nowhere: SocketAddr = ([127, 0, 0, 1], 1).into();
    let config = cluster.config(nowhere);
    let folder = cluster.folder.path().join("credentials");
    let try_run = async |config: &Config| {
        let running = ballast_agent::run(config.clone(), CancellationToken::new());
        let error = tokio::time::timeout(DEADLINE, running)
            .await
            .expect("in time");
        error.expect_err("is refused").to_string()
    };
    let old = cluster.credentials(Role::Agent, NODE.to_bits(), Duration::from_secs(2000));
    old.store(&folder).expect("stores");
    assert!(try_run(&config).await.contains("has expired"));
    let other = cluster.credentials(Role::Ingress, 1, Duration::ZERO);
    other.store(&folder).expect("stores");
    assert!(try_run(&config).await.contains("is not that of an agent"));
    std::fs::remove_dir_all(&folder).expect("removes");
    assert!(try_run(&config).await.contains("has not joined a cluster"));
}
