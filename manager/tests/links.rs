//! A whole manager in this process, seen from the outside: joins, links, the socket.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ballast_link::{
    Credentials, Identity, JoinToken, Link, LinkError, LinkReceiver, LinkSender, Peer, Role,
    TlsStream, Trust, alpn, join,
};
use ballast_manager::{ManagerError, RawConfig, Ready, run_until};
use ballast_model::{
    Bytes, Capacity, Generation, Health, Incarnation, IngressId, MilliCpu, NodeDescription, NodeId,
    Observed, Sequence, TaskState, Timestamp,
};
use ballast_wire::agent::{
    AgentHello, AgentToManager, AssignmentSet, LogLines, ManagerToAgent, TaskReport,
};
use ballast_wire::ingress::{IngressToManager, ManagerToIngress};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const WAIT: Duration = Duration::from_secs(20);

/// An agent's link, and the set that it brought so far.
struct AgentLink {
    sender: LinkSender<AgentToManager>,
    receiver: LinkReceiver<ManagerToAgent>,
    set: AssignmentSet,
}

impl AgentLink {
    fn new(stream: TlsStream, peer: Identity) -> Self {
        let link = Link::new(stream, peer);
        Self {
            sender: link.sender,
            receiver: link.receiver,
            set: AssignmentSet::default(),
        }
    }
}

type IngressLink = Link<IngressToManager, ManagerToIngress>;

struct Manager {
    ready: Ready,
    stop: CancellationToken,
    task: JoinHandle<Result<(), ManagerError>>,
}

fn config(dir: &Path) -> RawConfig {
    RawConfig {
        data_dir: Some(dir.join("manager")),
        socket: Some(dir.join("ballast.sock")),
        listen: Some("127.0.0.1:0".to_owned()),
        admin: Some("off".to_owned()),
        ..RawConfig::default()
    }
}

impl Manager {
    async fn start(dir: &Path) -> Self {
        let config = config(dir).validate().expect("is valid");
        let stop = CancellationToken::new();
        let (on_ready, ready) = oneshot::channel();
        let task = tokio::spawn(run_until(config, on_ready, stop.clone()));
        let Ok(Ok(ready)) = tokio::time::timeout(WAIT, ready).await else {
            panic!("the manager did not start: {:?}", task.await);
        };
        Self { ready, stop, task }
    }

    async fn stop(self) {
        self.stop.cancel();
        let ended = tokio::time::timeout(WAIT, self.task).await;
        ended
            .expect("in time")
            .expect("no panic")
            .expect("no error");
    }

    fn token(&self, role: Role) -> JoinToken {
        let text = match role {
            Role::Agent => &self.ready.agent_token,
            _ => &self.ready.ingress_token,
        };
        text.parse().expect("is a token")
    }

    async fn join(&self, role: Role, name: &str) -> Credentials {
        join::join(self.ready.links, &self.token(role), name)
            .await
            .expect("joins")
    }

    async fn refusal(&self, token: &JoinToken, name: &str) -> String {
        let refused = join::join(self.ready.links, token, name).await;
        refused.expect_err("is refused").to_string()
    }

    /// Sends one request to the socket; returns status and body.
    async fn call(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let mut stream = tokio::net::UnixStream::connect(&self.ready.socket)
            .await
            .expect("connects");
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: ballast\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream
            .write_all((head + &body).as_bytes())
            .await
            .expect("writes");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("reads");
        let (head, body) = answer.split_once("\r\n\r\n").expect("is HTTP");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        let body = serde_json::from_str(body).unwrap_or(Value::String(body.to_owned()));
        (status.expect("has a status"), body)
    }

    async fn until(&self, path: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let deadline = tokio::time::Instant::now() + WAIT;
        loop {
            let (_, body) = self.call("GET", path, Value::Null).await;
            if holds(&body) {
                return body;
            }
            assert!(tokio::time::Instant::now() < deadline, "{what}: {body}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

async fn connect(
    address: SocketAddr,
    credentials: &Credentials,
) -> (ballast_link::TlsStream, Identity) {
    let trust: Arc<Trust> = Trust::new(credentials.clone()).expect("are credentials");
    let peer = Peer {
        address,
        role: Role::Manager,
        id: None,
    };
    trust.connect(peer, alpn::LINK).await.expect("connects")
}

fn hello(node: NodeId, name: &str) -> AgentHello {
    AgentHello {
        node,
        incarnation: Incarnation(1),
        description: NodeDescription {
            name: name.to_owned(),
            address: "127.0.0.1".parse().expect("an address"),
            capacity: Capacity {
                task_slots: 100,
                ..Capacity::of(MilliCpu::from_cores(4), Bytes::from_mib(4096))
            },
            attributes: BTreeMap::new(),
            labels: BTreeMap::new(),
            pool: ballast_model::node::DEFAULT_POOL.to_owned(),
        },
        generation: Generation(0),
        tasks: Vec::new(),
    }
}

async fn agent(manager: &Manager, credentials: &Credentials, name: &str) -> AgentLink {
    let (stream, peer) = connect(manager.ready.links, credentials).await;
    let mut link = AgentLink::new(stream, peer);
    let node = NodeId::from_bits(credentials.identity.id);
    let hello = AgentToManager::Hello(hello(node, name));
    link.sender.send(&hello).await.expect("sends");
    link
}

async fn ingress(manager: &Manager, feed: SocketAddr) -> IngressLink {
    let own = manager.join(Role::Ingress, "edge").await;
    let (stream, peer) = connect(manager.ready.links, &own).await;
    let mut link: IngressLink = Link::new(stream, peer);
    let hello = IngressToManager::Hello {
        ingress: IngressId::from_bits(own.identity.id),
        name: "edge".to_owned(),
        feed,
        generation: Generation(0),
    };
    link.sender.send(&hello).await.expect("sends");
    link
}

/// Returns the next message; what changes the set comes as the whole set.
async fn next(link: &mut AgentLink) -> ManagerToAgent {
    let message = tokio::time::timeout(WAIT, link.receiver.recv()).await;
    let message = message
        .expect("in time")
        .expect("arrives")
        .expect("goes on");
    match message {
        ManagerToAgent::Assignments(set) => link.set = set,
        ManagerToAgent::Changes(changes) => assert!(link.set.patch(changes), "is in step"),
        other => return other,
    }
    ManagerToAgent::Assignments(link.set.clone())
}

/// Returns the first assignment set with that many assignments.
async fn assignments(link: &mut AgentLink, count: usize) -> AssignmentSet {
    loop {
        if let ManagerToAgent::Assignments(set) = next(link).await
            && set.assignments.len() == count
        {
            return set;
        }
    }
}

async fn refused(link: &mut AgentLink) -> String {
    loop {
        if let ManagerToAgent::Refused(reason) = next(link).await {
            return reason;
        }
    }
}

fn web(replicas: u32) -> Value {
    json!({
        "name": "web",
        "task": {"command": ["sleep", "1000"]},
        "mode": {"replicated": {"replicas": replicas}},
        "ports": [{"name": "http", "published": 8080}],
    })
}

fn running(set: &AssignmentSet) -> Vec<TaskReport> {
    let report = |assignment: &ballast_wire::agent::Assignment| TaskReport {
        task: assignment.task,
        assignment: assignment.assignment,
        restarts: assignment.restarts,
        will_restart: false,
        observed: Observed {
            state: TaskState::Running,
            health: Health::Healthy,
            sequence: Sequence(1),
            pid: Some(4711),
            exit: None,
            message: String::new(),
            since: Timestamp(1),
        },
    };
    set.assignments.iter().map(report).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn service_reaches_agent_and_ingress_and_its_log_the_client() {
    let dir = tempfile::tempdir().expect("a folder");
    let manager = Manager::start(dir.path()).await;
    let credentials = manager.join(Role::Agent, "one").await;
    let mut agent = agent(&manager, &credentials, "one").await;
    assert!(matches!(
        next(&mut agent).await,
        ManagerToAgent::Welcome { .. }
    ));

    let feed: SocketAddr = "127.0.0.1:7430".parse().expect("an address");
    let mut ingress = ingress(&manager, feed).await;
    loop {
        if let ManagerToAgent::Ingresses(list) = next(&mut agent).await
            && list.iter().any(|ingress| ingress.address == feed)
        {
            break;
        }
    }

    let (status, body) = manager.call("POST", "/v1/services", web(2)).await;
    assert_eq!(status, 201, "{body}");
    let set = assignments(&mut agent, 2).await;
    let report = AgentToManager::Report(running(&set));
    agent.sender.send(&report).await.expect("sends");
    let is_healthy = |body: &Value| body["replicas"]["healthy"] == 2;
    manager
        .until("/v1/services/web", "two replicas are healthy", is_healthy)
        .await;

    let bound = async {
        loop {
            let services = match ingress.receiver.recv().await.expect("arrives") {
                Some(ManagerToIngress::Snapshot { services, .. }) => services,
                Some(ManagerToIngress::Update { changed, .. }) => changed,
                Some(_) => continue,
                None => panic!("the link was closed"),
            };
            let endpoints = services.iter().flat_map(|table| &table.ports[0].endpoints);
            if endpoints.count() == 2 {
                break;
            }
        }
    };
    tokio::time::timeout(WAIT, bound)
        .await
        .expect("two endpoints in time");

    let logs = manager.call("GET", "/v1/services/web/logs?tail=5", Value::Null);
    let answer = async {
        for _ in 0..2 {
            let request = loop {
                if let ManagerToAgent::ReadLogs { request, tail, .. } = next(&mut agent).await {
                    assert_eq!(tail, 5);
                    break request;
                }
            };
            let lines = AgentToManager::LogLines(LogLines {
                request,
                lines: vec![(ballast_model::view::LogStream::Stdout, b"hello".to_vec())],
                end: Some(String::new()),
            });
            agent.sender.send(&lines).await.expect("sends");
        }
    };
    let ((status, body), ()) = tokio::join!(logs, answer);
    assert_eq!(status, 200);
    assert_eq!(body.to_string().matches("hello").count(), 2, "{body}");
    manager.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_service_is_there_after_a_restart_and_members_need_no_new_join() {
    let dir = tempfile::tempdir().expect("a folder");
    let manager = Manager::start(dir.path()).await;
    assert!(manager.ready.founded);
    let credentials = manager.join(Role::Agent, "one").await;
    let (status, before) = manager.call("POST", "/v1/services", web(1)).await;
    assert_eq!(status, 201);
    manager.stop().await;
    let manager = Manager::start(dir.path()).await;
    assert!(!manager.ready.founded);
    let (status, after) = manager.call("GET", "/v1/services/web", Value::Null).await;
    assert_eq!((status, &after["id"]), (200, &before["id"]));
    let mut agent = agent(&manager, &credentials, "one").await;
    assignments(&mut agent, 1).await;
    manager.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_node_is_down_and_its_task_is_replaced_elsewhere() {
    let dir = tempfile::tempdir().expect("a folder");
    let manager = Manager::start(dir.path()).await;
    let one = manager.join(Role::Agent, "one").await;
    let mut first = agent(&manager, &one, "one").await;
    manager.call("POST", "/v1/services", web(1)).await;
    let set = assignments(&mut first, 1).await;
    let report = AgentToManager::Report(running(&set));
    first.sender.send(&report).await.expect("sends");
    let two = manager.join(Role::Agent, "two").await;
    let mut second = agent(&manager, &two, "two").await;
    drop(first);
    let beating = async {
        loop {
            second
                .sender
                .send(&AgentToManager::Heartbeat)
                .await
                .expect("sends");
            let beat = tokio::time::timeout(Duration::from_millis(100), second.receiver.recv());
            let count = match beat.await {
                Ok(Ok(Some(ManagerToAgent::Assignments(set)))) => set.assignments.len(),
                Ok(Ok(Some(ManagerToAgent::Changes(changes)))) => changes.assignments.len(),
                _ => 0,
            };
            if count == 1 {
                break;
            }
        }
    };
    tokio::time::timeout(WAIT, beating)
        .await
        .expect("replaced in time");
    let down = |body: &Value| body["status"] == "down";
    manager
        .until("/v1/nodes/one", "the silent node is down", down)
        .await;
    let ready = |body: &Value| body["status"] == "ready";
    manager
        .until("/v1/nodes/two", "the other is not", ready)
        .await;
    manager.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn joins_are_refused_with_the_reason() {
    let dir = tempfile::tempdir().expect("a folder");
    let manager = Manager::start(dir.path()).await;
    let good = manager.token(Role::Agent);
    let one = manager.join(Role::Agent, "one").await;
    let mut link = agent(&manager, &one, "one").await;
    assert!(matches!(
        next(&mut link).await,
        ManagerToAgent::Welcome { .. }
    ));
    let taken = manager.refusal(&good, "one").await;
    assert!(taken.contains("name `one` is taken"), "{taken}");
    let bad_name = manager.refusal(&good, "No Name").await;
    assert!(bad_name.contains("no-name"), "{bad_name}");
    let wrong = JoinToken {
        secret: "1_00".to_owned(),
        ..good.clone()
    };
    let reason = manager.refusal(&wrong, "two").await;
    assert!(reason.contains("wrong token"), "{reason}");
    let other_role = JoinToken {
        secret: manager.token(Role::Ingress).secret,
        ..good.clone()
    };
    let reason = manager.refusal(&other_role, "two").await;
    assert!(reason.contains("not for the role agent"), "{reason}");
    let other_ca = JoinToken {
        ca_digest: [1; 32],
        ..good.clone()
    };
    let error = join::join(manager.ready.links, &other_ca, "two").await;
    assert!(matches!(error, Err(LinkError::Tls(_))), "{error:?}");
    let (status, _) = manager
        .call("POST", "/v1/join-tokens/agent", Value::Null)
        .await;
    assert_eq!(status, 200);
    let reason = manager.refusal(&good, "two").await;
    assert!(reason.contains("rotated"), "{reason}");
    manager.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn agent_speaks_only_for_its_own_node_and_tasks() {
    let dir = tempfile::tempdir().expect("a folder");
    let manager = Manager::start(dir.path()).await;
    let one = manager.join(Role::Agent, "one").await;
    let mut first = agent(&manager, &one, "one").await;
    manager.call("POST", "/v1/services", web(1)).await;
    let set = assignments(&mut first, 1).await;

    let two = manager.join(Role::Agent, "two").await;
    let (stream, peer) = connect(manager.ready.links, &two).await;
    let mut thief = AgentLink::new(stream, peer);
    let stolen = AgentToManager::Hello(hello(NodeId::from_bits(one.identity.id), "two"));
    thief.sender.send(&stolen).await.expect("sends");
    let reason = refused(&mut thief).await;
    assert!(
        reason.contains("the certificate is that of node"),
        "{reason}"
    );

    let mut second = agent(&manager, &two, "two").await;
    let foreign = AgentToManager::Report(running(&set));
    second.sender.send(&foreign).await.expect("sends");
    let reason = refused(&mut second).await;
    assert!(reason.contains("which runs on node"), "{reason}");

    let edge = manager.join(Role::Ingress, "edge").await;
    let (stream, peer) = connect(manager.ready.links, &edge).await;
    let mut ingress: IngressLink = Link::new(stream, peer);
    let hello = IngressToManager::Hello {
        ingress: IngressId::from_bits(1),
        name: "edge".to_owned(),
        feed: manager.ready.links,
        generation: Generation(0),
    };
    ingress.sender.send(&hello).await.expect("sends");
    let answer = tokio::time::timeout(WAIT, ingress.receiver.recv()).await;
    let answer = answer.expect("in time").expect("arrives");
    assert!(
        matches!(answer, Some(ManagerToIngress::Refused(_))),
        "{answer:?}"
    );
    manager.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn renewed_certificate_names_the_same_node() {
    let dir = tempfile::tempdir().expect("a folder");
    let manager = Manager::start(dir.path()).await;
    let one = manager.join(Role::Agent, "one").await;
    let mut link = agent(&manager, &one, "one").await;
    let key = ballast_link::KeyPair::generate().expect("draws");
    let csr = key.signing_request().expect("signs");
    link.sender
        .send(&AgentToManager::Renew { csr })
        .await
        .expect("sends");
    let chain = loop {
        if let ManagerToAgent::Certificate(chain) = next(&mut link).await {
            break chain;
        }
    };
    let renewed = key.into_credentials(chain).expect("is a chain");
    assert_eq!(renewed.identity, one.identity);
    manager.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn second_manager_on_the_same_folder_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let manager = Manager::start(dir.path()).await;
    let second = config(dir.path()).validate().expect("is valid");
    let error = ballast_manager::run(second, CancellationToken::new()).await;
    let text = error.expect_err("is refused").to_string();
    assert!(text.contains(&std::process::id().to_string()), "{text}");
    let file = dir.path().join("manager").join("join-token.agent");
    let token = std::fs::read_to_string(file).expect("was written");
    assert_eq!(token.trim(), manager.ready.agent_token);
    manager.stop().await;
    assert!(!dir.path().join("ballast.sock").exists());
}
