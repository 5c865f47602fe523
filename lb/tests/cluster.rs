//! An ingress in a cluster: a manager and agents that do what the test says.
//!
//! Size: the scripted manager and agents are only of use to the tests beside them.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod common;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use ballast_lb::RawConfig;
use ballast_link::{
    Authority, ClientAuth, Credentials, Identity, KeyPair, Link, Peer, Role, Trust, alpn,
};
use ballast_model::{
    AssignmentId, ClusterId, Endpoint, Generation, Health, Incarnation, Millis, NodeId, PortTable,
    Protocol, RouteRule, Sequence, ServiceId, ServiceTable, Timestamp, Weight,
};
use ballast_wire::feed::{AgentToIngress, EndpointHealth, IngressToAgent};
use ballast_wire::ingress::{IngressToManager, ManagerToIngress};
use common::{Backend, Client, DEADLINE, Mode, free_address, get, request, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// The certificates of one cluster.
struct Cluster {
    id: ClusterId,
    authority: Authority,
}

impl Cluster {
    fn new() -> Self {
        let id = ClusterId::from_bits(77);
        Self {
            id,
            authority: Authority::generate(id, SystemTime::now()).expect("a CA"),
        }
    }

    fn credentials(&self, role: Role, id: u64) -> Credentials {
        let key = KeyPair::generate().expect("a key");
        let csr = key.signing_request().expect("a request");
        let identity = Identity {
            cluster: self.id,
            role,
            id,
        };
        let day = Duration::from_hours(24);
        let chain = self.authority.issue(&csr, identity, day, SystemTime::now());
        key.into_credentials(chain.expect("issues"))
            .expect("a chain")
    }

    fn trust(&self, role: Role, id: u64) -> Arc<Trust> {
        Trust::new(self.credentials(role, id)).expect("credentials")
    }
}

/// A manager that sends what it is given.
struct Manager {
    address: SocketAddr,
    services: Arc<Mutex<(Generation, Vec<ServiceTable>)>>,
    heard: Arc<Mutex<Vec<IngressToManager>>>,
    changed: tokio::sync::watch::Sender<u64>,
    stop: CancellationToken,
}

impl Manager {
    async fn start(cluster: &Cluster) -> Self {
        let trust = cluster.trust(Role::Manager, 1);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let manager = Self {
            address: listener.local_addr().expect("is bound"),
            services: Arc::default(),
            heard: Arc::default(),
            changed: tokio::sync::watch::Sender::new(0),
            stop: CancellationToken::new(),
        };
        let (services, heard) = (manager.services.clone(), manager.heard.clone());
        let (changed, stop) = (manager.changed.clone(), manager.stop.clone());
        let cluster = cluster.id;
        tokio::spawn(async move {
            loop {
                let (socket, _) = tokio::select! {
                    accepted = listener.accept() => accepted.expect("accepts"),
                    () = stop.cancelled() => return,
                };
                let accepted = trust.accept(socket, &[alpn::LINK], ClientAuth::Required);
                let Ok(accepted) = accepted.await else {
                    continue;
                };
                let identity = accepted.identity.expect("has a certificate");
                let mut link: Link<ManagerToIngress, IngressToManager> =
                    Link::new(accepted.stream, identity);
                let (services, heard) = (services.clone(), heard.clone());
                let (mut changed, stop) = (changed.subscribe(), stop.clone());
                tokio::spawn(async move {
                    let welcome = ManagerToIngress::Welcome { cluster };
                    link.sender.send(&welcome).await.expect("sends");
                    changed.mark_changed();
                    loop {
                        tokio::select! {
                            message = link.receiver.recv() => match message {
                                Ok(Some(message)) => heard.lock().unwrap().push(message),
                                _ => return,
                            },
                            _ = changed.changed() => {
                                let (generation, services) = services.lock().unwrap().clone();
                                let snapshot = ManagerToIngress::Snapshot { generation, services };
                                link.sender.send(&snapshot).await.expect("sends");
                            }
                            () = stop.cancelled() => return,
                        }
                    }
                });
            }
        });
        manager
    }

    fn say(&self, services: Vec<ServiceTable>) -> Generation {
        let generation = {
            let mut said = self.services.lock().unwrap();
            *said = (said.0.next(), services);
            said.0
        };
        self.changed.send_modify(|count| *count += 1);
        generation
    }

    async fn applied(&self, generation: Generation) {
        until("the table is applied", || async {
            let heard = self.heard.lock().unwrap();
            heard.contains(&IngressToManager::Applied(generation))
        })
        .await;
    }
}

/// An agent that says what it is told to.
struct Agent {
    out: mpsc::Sender<AgentToIngress>,
    heard: mpsc::Receiver<IngressToAgent>,
    sequence: u64,
}

impl Agent {
    /// Connects, greets, and says nothing more than that it lives.
    async fn connect(cluster: &Cluster, node: u64, feed: SocketAddr) -> Self {
        let trust = cluster.trust(Role::Agent, node);
        let peer = Peer {
            address: feed,
            role: Role::Ingress,
            id: None,
        };
        let (stream, identity) = trust.connect(peer, alpn::FEED).await.expect("connects");
        let mut link: Link<AgentToIngress, IngressToAgent> = Link::new(stream, identity);
        let hello = AgentToIngress::Hello {
            node: NodeId::from_bits(node),
            incarnation: Incarnation(1),
        };
        link.sender.send(&hello).await.expect("sends");
        let answer = link.receiver.recv().await.expect("receives");
        assert_eq!(answer, Some(IngressToAgent::Welcome));
        let (out, mut letters) = mpsc::channel(64);
        let (inbox, heard) = mpsc::channel(64);
        tokio::spawn(async move {
            let mut beat = tokio::time::interval(Duration::from_millis(50));
            loop {
                tokio::select! {
                    letter = letters.recv() => {
                        let Some(letter) = letter else { return };
                        link.sender.send(&letter).await.expect("sends");
                    }
                    message = link.receiver.recv() => match message {
                        Ok(Some(message)) => inbox.send(message).await.expect("is read"),
                        _ => return,
                    },
                    _ = beat.tick() => {
                        let _ = link.sender.send(&AgentToIngress::Heartbeat).await;
                    }
                }
            }
        });
        Self {
            out,
            heard,
            sequence: 0,
        }
    }

    fn health(&mut self, assignment: u64, health: Health) -> EndpointHealth {
        self.sequence += 1;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let micros = now.expect("after 1970").as_micros();
        EndpointHealth {
            assignment: AssignmentId::from_bits(assignment),
            sequence: Sequence(self.sequence),
            health,
            seen: Timestamp(u64::try_from(micros).expect("before 500,000")),
        }
    }

    async fn sync(&mut self, healthy: &[u64]) {
        let all = healthy.iter().map(|&n| self.health(n, Health::Healthy));
        let all = all.collect();
        let sent = self.out.send(AgentToIngress::Sync(all)).await;
        sent.expect("is connected");
    }

    async fn say(&mut self, assignment: u64, health: Health) {
        let said = self.health(assignment, health);
        let sent = self.out.send(AgentToIngress::Change(said)).await;
        sent.expect("is connected");
    }

    async fn hear(&mut self) -> IngressToAgent {
        tokio::time::timeout(DEADLINE, self.heard.recv())
            .await
            .expect("in time")
            .expect("is connected")
    }
}

/// An ingress of the cluster.
struct Ingress {
    http: SocketAddr,
    admin: SocketAddr,
    feed: SocketAddr,
    dir: tempfile::TempDir,
    stop: CancellationToken,
}

impl Drop for Ingress {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Ingress {
    async fn start(cluster: &Cluster, manager: SocketAddr) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let credentials = cluster.credentials(Role::Ingress, 9);
        credentials.store(dir.path()).expect("stores");
        Self::start_in(dir, manager).await
    }

    async fn start_in(dir: tempfile::TempDir, manager: SocketAddr) -> Self {
        let ingress = Self {
            http: free_address(),
            admin: free_address(),
            feed: free_address(),
            dir,
            stop: CancellationToken::new(),
        };
        tokio::spawn(ingress.run(manager));
        until("it listens", || async {
            TcpStream::connect(ingress.http).await.is_ok()
        })
        .await;
        ingress
    }

    /// Runs a process of it; the second one takes over from the first.
    fn run(
        &self,
        manager: SocketAddr,
    ) -> impl Future<Output = Result<(), ballast_lb::IngressError>> + Send + 'static {
        let raw = RawConfig {
            manager: vec![manager.to_string()],
            name: Some("front".to_owned()),
            listen: ballast_lb::config::RawListen {
                http: Some(self.http),
                https: None,
                proxy_protocol: Vec::new(),
            },
            bind: Some([127, 0, 0, 1].into()),
            feed: Some(self.feed),
            data_dir: Some(self.dir.path().to_owned()),
            admin: Some(self.admin.to_string()),
            upgrade: Some(ballast_lb::config::RawUpgrade {
                socket: self.upgrade_socket(),
                drain: None,
            }),
            ..RawConfig::default()
        };
        let config = raw.validate().expect("is valid");
        ballast_lb::run(config, self.stop.clone())
    }

    fn upgrade_socket(&self) -> std::path::PathBuf {
        self.dir.path().join("upgrade.sock")
    }

    async fn admin(&self, path: &str) -> String {
        let mut client = Client::connect(self.admin).await;
        let text = format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n");
        client.send(&text).await;
        client.receive().await.expect("answers").body
    }

    async fn until_states(&self, wanted: &[&str]) {
        until(&format!("states {wanted:?}"), || async {
            let table: serde_json::Value =
                serde_json::from_str(&self.admin("/debug/table").await).expect("JSON");
            let Some(endpoints) = table["pools"][0]["endpoints"].as_array() else {
                return wanted.is_empty();
            };
            let states = endpoints.iter().map(|end| end["state"].as_str().unwrap());
            states.eq(wanted.iter().copied())
        })
        .await;
    }
}

fn web(backends: &[&Backend], protocol: Protocol, published: Option<u16>) -> Vec<ServiceTable> {
    let endpoints = backends
        .iter()
        .zip(1..)
        .map(|(backend, number)| Endpoint {
            assignment: AssignmentId::from_bits(number),
            node: NodeId::from_bits(1),
            address: backend.address,
            health: Health::Unknown,
            weight: Weight::DEFAULT,
            zone: None,
        })
        .collect();
    vec![ServiceTable {
        service: ServiceId::from_bits(1),
        name: "web".to_owned(),
        generation: Generation(1),
        ports: vec![PortTable {
            name: "http".to_owned(),
            protocol,
            published,
            routes: vec![RouteRule::new(None, "/")],
            endpoints,
            balance: None,
            upstream: None,
        }],
    }]
}

/// A manager, an ingress, an agent that calls all backends healthy.
async fn all(backends: &[&Backend]) -> (Cluster, Manager, Ingress, Agent) {
    let cluster = Cluster::new();
    let manager = Manager::start(&cluster).await;
    let ingress = Ingress::start(&cluster, manager.address).await;
    let generation = manager.say(web(backends, Protocol::Http, None));
    manager.applied(generation).await;
    let mut agent = Agent::connect(&cluster, 1, ingress.feed).await;
    let numbers: Vec<u64> = (1..=backends.len() as u64).collect();
    agent.sync(&numbers).await;
    let ready = vec!["ready"; backends.len()];
    ingress.until_states(&ready).await;
    (cluster, manager, ingress, agent)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_comes_in_one_hop_and_a_drain_is_acknowledged_twice() {
    let one = Backend::start("one", &[Mode::Slow(400)]).await;
    let two = Backend::start("two", &[Mode::Answer]).await;
    let (_cluster, _manager, ingress, mut agent) = all(&[&one, &two]).await;
    // Until one of them is at the slow one.
    let mut asked = Vec::new();
    let address = ingress.http;
    while one.total() == 0 {
        let id = format!("post-{}", asked.len());
        asked.push(tokio::spawn(async move {
            request(address, "POST", &id, "body").await
        }));
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    agent.say(1, Health::Draining).await;
    let first = agent.hear().await;
    let IngressToAgent::Drained {
        assignment,
        sequence,
        in_flight,
    } = first
    else {
        panic!("{first:?}");
    };
    assert_eq!(assignment, AssignmentId::from_bits(1));
    assert_eq!(sequence, Sequence(agent.sequence));
    assert!(in_flight > 0);
    let before = one.total();
    for _ in 0..20 {
        assert_eq!(get(ingress.http).await.body, "two");
    }
    let last = agent.hear().await;
    let drained = IngressToAgent::Drained {
        assignment,
        sequence,
        in_flight: 0,
    };
    assert_eq!(last, drained);
    for asked in asked {
        let answer = asked.await.expect("no panic").expect("answers");
        assert_eq!(answer.status, 200, "what was in flight ran on");
    }
    assert_eq!(one.total(), before);
    agent.say(2, Health::Draining).await;
    let IngressToAgent::Drained { in_flight, .. } = agent.hear().await else {
        panic!("is acknowledged");
    };
    assert_eq!(in_flight, 0, "nothing was in flight: one answer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn death_moves_gets_in_flight_and_ends_posts() {
    let dead = Backend::start("dead", &[Mode::Answer]).await;
    let live = Backend::start("live", &[Mode::Answer]).await;
    let (_cluster, _manager, ingress, mut agent) = all(&[&dead, &live]).await;
    dead.set(&[Mode::Hang]);
    let address = ingress.http;
    let ask = |method: &'static str, count: usize| {
        let asked = (0..count).map(move |number| {
            let id = format!("{method}-{number}");
            tokio::spawn(async move { request(address, method, &id, "").await })
        });
        asked.collect::<Vec<_>>()
    };
    let (gets, posts) = (ask("GET", 30), ask("POST", 30));
    // Each has arrived somewhere: what is on its way to the dead one may not be sent again either.
    until("some hang", || async {
        dead.total() >= 4 && dead.total() + live.total() >= 60
    })
    .await;
    let begun = Instant::now();
    agent.say(1, Health::Unhealthy).await;
    for get in gets {
        let answer = get.await.expect("no panic").expect("answers");
        assert_eq!((answer.status, answer.body.as_str()), (200, "live"));
    }
    let mut ended = 0;
    for (number, post) in posts.into_iter().enumerate() {
        let answer = post.await.expect("no panic").expect("answers");
        let id = format!("POST-{number}");
        assert!(dead.count(&id) + live.count(&id) <= 1, "{id} ran twice");
        if dead.count(&id) == 1 {
            assert_eq!(answer.status, 502);
            ended += 1;
        } else {
            assert_eq!(answer.status, 200);
        }
    }
    let took = begun.elapsed();
    assert!(ended > 0, "no POST was at the dead one");
    assert!(took < Duration::from_secs(2), "{took:?}");
    let metrics = ingress.admin("/metrics").await;
    let line = "ballast_ingress_deregistration_seconds_count 1";
    assert!(metrics.contains(line), "{metrics}");
    for name in ["deregistration_seconds_sum", "table_swap_seconds_sum"] {
        let found = metrics.lines().find(|line| line.contains(name));
        println!("{}", found.expect("is there"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stalled_endpoint_has_its_agent_asked_within_tens_of_milliseconds() {
    let hung = Backend::start("hung", &[Mode::Answer]).await;
    let live = Backend::start("live", &[Mode::Answer]).await;
    let (_cluster, _manager, ingress, mut agent) = all(&[&hung, &live]).await;
    for _ in 0..50 {
        assert_eq!(get(ingress.http).await.status, 200);
    }
    hung.set(&[Mode::Hang]);
    let address = ingress.http;
    let asked: Vec<_> = (0..10)
        .map(|_| tokio::spawn(async move { get(address).await }))
        .collect();
    let begun = Instant::now();
    let message = agent.hear().await;
    let took = begun.elapsed();
    let IngressToAgent::Probe {
        assignment,
        timeout,
    } = message
    else {
        panic!("{message:?}");
    };
    assert_eq!(assignment, AssignmentId::from_bits(1));
    assert!(timeout <= Millis(1000), "{timeout}");
    println!("asked after {took:?} for a probe of {timeout}");
    agent.say(1, Health::Unhealthy).await;
    for asked in asked {
        let answer = asked.await.expect("no panic");
        assert_eq!((answer.status, answer.body.as_str()), (200, "live"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_nodes_own_agent_may_speak() {
    let one = Backend::start("one", &[Mode::Answer]).await;
    let (cluster, _manager, ingress, _agent) = all(&[&one]).await;
    for (role, certified, said) in [
        (Role::Agent, 2, 1),
        (Role::Ingress, 9, 1),
        (Role::Manager, 1, 1),
    ] {
        let trust = cluster.trust(role, certified);
        let peer = Peer {
            address: ingress.feed,
            role: Role::Ingress,
            id: None,
        };
        let (stream, identity) = trust.connect(peer, alpn::FEED).await.expect("connects");
        let mut link: Link<AgentToIngress, IngressToAgent> = Link::new(stream, identity);
        let hello = AgentToIngress::Hello {
            node: NodeId::from_bits(said),
            incarnation: Incarnation(99),
        };
        let _ = link.sender.send(&hello).await;
        let answer = tokio::time::timeout(DEADLINE, link.receiver.recv()).await;
        let answer = answer.expect("in time");
        assert!(!matches!(answer, Ok(Some(_))), "{role}: {answer:?}");
    }
    let stranger = Cluster::new().trust(Role::Agent, 1);
    let peer = Peer {
        address: ingress.feed,
        role: Role::Ingress,
        id: None,
    };
    assert!(stranger.connect(peer, alpn::FEED).await.is_err());
    // The right agent, in another connection that is silent, has not been disturbed.
    assert_eq!(get(ingress.http).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serves_while_the_manager_is_away_and_after_a_restart_without_it() {
    let one = Backend::start("one", &[Mode::Answer]).await;
    let two = Backend::start("two", &[Mode::Answer]).await;
    let (cluster, manager, mut ingress, mut agent) = all(&[&one, &two]).await;
    // The manager comes to know that they are healthy.
    let mut services = web(&[&one, &two], Protocol::Http, None);
    for endpoint in &mut services[0].ports[0].endpoints {
        endpoint.health = Health::Healthy;
    }
    services[0].generation = Generation(2);
    let generation = manager.say(services);
    manager.applied(generation).await;
    until("the table is kept", || async {
        let file = std::fs::read(ingress.dir.path().join("route-table"));
        file.is_ok_and(|bytes| {
            let kept = ballast_wire::from_bytes(&bytes);
            matches!(kept, Ok(ManagerToIngress::Snapshot { generation: kept, .. }) if kept == generation)
        })
    })
    .await;
    manager.stop.cancel();
    assert_eq!(get(ingress.http).await.status, 200);
    agent.say(1, Health::Unhealthy).await;
    ingress.until_states(&["out", "ready"]).await;
    drop(agent);
    let dir = std::mem::replace(&mut ingress.dir, tempfile::tempdir().expect("a folder"));
    ingress.stop.cancel();
    let again = Ingress::start_in(dir, manager.address).await;
    assert_eq!(get(again.http).await.status, 200);
    let mut agent = Agent::connect(&cluster, 1, again.feed).await;
    agent.sync(&[2]).await;
    again.until_states(&["unknown", "ready"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lone_replica_that_restarts_costs_no_request() {
    let old = Backend::start("old", &[Mode::Answer]).await;
    let (_cluster, _manager, ingress, mut agent) = all(&[&old]).await;
    assert_eq!(get(ingress.http).await.body, "old");
    old.kill();
    agent.say(1, Health::Unhealthy).await;
    agent.say(1, Health::Unknown).await;
    ingress.until_states(&["unknown"]).await;
    let address = ingress.http;
    let asked: Vec<_> = (0..10)
        .map(|number| {
            let id = format!("post-{number}");
            tokio::spawn(async move { request(address, "POST", &id, "x").await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let new = Backend::start_at("new", &[Mode::Answer], old.address);
    agent.say(1, Health::Healthy).await;
    for asked in asked {
        let answer = asked.await.expect("no panic").expect("answers");
        assert_eq!((answer.status, answer.body.as_str()), (200, "new"));
    }
    assert_eq!(new.total(), 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn published_ports_come_and_go_and_a_taken_one_is_reported_and_retried() {
    let one = Backend::start("one", &[Mode::Answer]).await;
    let (_cluster, manager, ingress, mut agent) = all(&[&one]).await;
    let free = free_address();
    let services = web(&[&one], Protocol::Http, Some(free.port()));
    let generation = manager.say(services);
    manager.applied(generation).await;
    until("the port listens", || async {
        TcpStream::connect(free).await.is_ok()
    })
    .await;
    assert_eq!(get(free).await.body, "one");
    let taken = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = taken.local_addr().expect("is bound");
    manager.say(web(&[&one], Protocol::Http, Some(address.port())));
    let reported = |failing: bool| {
        let heard = manager.heard.clone();
        move || {
            let heard = heard.clone();
            async move {
                let heard = heard.lock().unwrap();
                let last = heard.iter().rev().find_map(|message| match message {
                    IngressToManager::ListenFailures(failures) => Some(failures.clone()),
                    _ => None,
                });
                last.is_some_and(|failures| {
                    let named = failures.iter().any(|(port, _)| *port == address.port());
                    named == failing
                })
            }
        }
    };
    until("it is reported", reported(true)).await;
    until("the old port is closed", || async {
        TcpStream::connect(free).await.is_err()
    })
    .await;
    drop(taken);
    until("the failure is over", reported(false)).await;
    assert_eq!(get(address).await.body, "one");
    agent.say(1, Health::Healthy).await;
    drop(ingress);
}

/// Answers each connection with its name once the client has finished sending.
async fn polite(name: &'static str) -> (SocketAddr, CancellationToken) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("is bound");
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = tokio::select! {
                accepted = listener.accept() => accepted.expect("accepts"),
                () = stopped.cancelled() => return,
            };
            tokio::spawn(async move {
                let mut got = Vec::new();
                if socket.read_to_end(&mut got).await.is_ok() {
                    got.extend(name.as_bytes());
                    let _ = socket.write_all(&got).await;
                }
            });
        }
    });
    (address, stop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tcp_port_is_relayed_with_half_closes_and_reset_when_its_endpoint_dies() {
    let cluster = Cluster::new();
    let manager = Manager::start(&cluster).await;
    let ingress = Ingress::start(&cluster, manager.address).await;
    let published = free_address();
    let refusing = free_address();
    let (serving, _stop) = polite("tcp").await;
    let mut services = web(&[], Protocol::Tcp, Some(published.port()));
    for (address, number) in [(refusing, 1), (serving, 2)] {
        services[0].ports[0].endpoints.push(Endpoint {
            assignment: AssignmentId::from_bits(number),
            node: NodeId::from_bits(1),
            address,
            health: Health::Healthy,
            weight: Weight::DEFAULT,
            zone: None,
        });
    }
    let generation = manager.say(services);
    manager.applied(generation).await;
    until("the port listens", || async {
        TcpStream::connect(published).await.is_ok()
    })
    .await;
    for _ in 0..10 {
        let mut client = TcpStream::connect(published).await.expect("connects");
        client.write_all(b"hello ").await.expect("writes");
        client.shutdown().await.expect("half-closes");
        let mut got = String::new();
        client.read_to_string(&mut got).await.expect("reads");
        assert_eq!(got, "hello tcp", "the refusing one is passed over");
    }
    let mut agent = Agent::connect(&cluster, 1, ingress.feed).await;
    agent.sync(&[1, 2]).await;
    let mut open = TcpStream::connect(published).await.expect("connects");
    open.write_all(b"x").await.expect("writes");
    until("it is in flight", || async {
        let table = ingress.admin("/debug/table").await;
        table.contains("\"in_flight\": 1")
    })
    .await;
    agent.say(2, Health::Draining).await;
    let drained = loop {
        if let IngressToAgent::Drained { in_flight, .. } = agent.hear().await {
            break in_flight;
        }
    };
    assert_eq!(drained, 1, "a drain lets it run");
    agent.say(2, Health::Unknown).await;
    let mut byte = [0];
    let read = tokio::time::timeout(DEADLINE, open.read(&mut byte)).await;
    let error = read.expect("in time").expect_err("is reset");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn udp_port_is_relayed() {
    let cluster = Cluster::new();
    let manager = Manager::start(&cluster).await;
    let ingress = Ingress::start(&cluster, manager.address).await;
    let published = free_address();
    let server = tokio::net::UdpSocket::bind("127.0.0.1:0")
        .await
        .expect("binds");
    let mut services = web(&[], Protocol::Udp, Some(published.port()));
    services[0].ports[0].endpoints.push(Endpoint {
        assignment: AssignmentId::from_bits(1),
        node: NodeId::from_bits(1),
        address: server.local_addr().expect("is bound"),
        health: Health::Healthy,
        weight: Weight::DEFAULT,
        zone: None,
    });
    let generation = manager.say(services);
    manager.applied(generation).await;
    tokio::spawn(async move {
        let mut bytes = [0; 2048];
        loop {
            let (count, from) = server.recv_from(&mut bytes).await.expect("receives");
            server.send_to(&bytes[..count], from).await.expect("sends");
        }
    });
    let client = tokio::net::UdpSocket::bind("127.0.0.1:0")
        .await
        .expect("binds");
    client.connect(published).await.expect("connects");
    let mut bytes = [0; 2048];
    // The port may not be bound yet when the table is applied, and datagrams get lost.
    until("a datagram comes back", || async {
        let _ = client.send(b"ping").await;
        let mut bytes = [0; 16];
        let answer = client.recv(&mut bytes);
        let answer = tokio::time::timeout(Duration::from_millis(100), answer).await;
        matches!(answer, Ok(Ok(4)))
    })
    .await;
    client.send(b"pong!").await.expect("sends");
    loop {
        let answer = tokio::time::timeout(DEADLINE, client.recv(&mut bytes)).await;
        let count = answer.expect("in time").expect("receives");
        if &bytes[..count] == b"pong!" {
            break;
        }
    }
    drop(ingress);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn process_that_takes_over_serves_before_anybody_has_spoken_to_it() {
    let backend = Backend::start("one", &[Mode::Answer]).await;
    let (cluster, manager, ingress, mut agent) = all(&[&backend]).await;
    until("it can be taken over", || async {
        ingress.upgrade_socket().exists()
    })
    .await;
    let mut client = Client::connect(ingress.http).await;
    // Nor has a manager: the health that agents told the first process is all there is.
    manager.stop.cancel();
    let second = tokio::spawn(ingress.run(manager.address));
    // The first process ends the agent's link once the second one serves.
    until("the agent has to connect anew", || {
        let closed = agent.out.is_closed();
        let heard = agent.heard.try_recv();
        async move { closed || heard == Err(mpsc::error::TryRecvError::Disconnected) }
    })
    .await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let answer = client.receive().await.expect("is answered by the first");
    assert_eq!(answer.status, 200);
    for _ in 0..20 {
        let answer = request(ingress.http, "GET", "after", "").await;
        assert_eq!(answer.expect("answers").status, 200);
    }
    let mut agent = Agent::connect(&cluster, 1, ingress.feed).await;
    agent.sync(&[1]).await;
    ingress.until_states(&["ready"]).await;
    ingress.stop.cancel();
    second.await.expect("no panic").expect("ends well");
}
