//! One message of each kind, with every optional part present, for golden bytes and mutation.
#![allow(dead_code, reason = "each test file uses a part")]

mod log;

use std::collections::BTreeMap;

use ballast_model::view::LogStream;
use ballast_model::*;
use ballast_wire::agent::{
    AgentHello, AgentToManager, AssignedTemplate, Assignment, AssignmentChanges, AssignmentSet,
    IngressAddress, LogLines, ManagerToAgent, TaskReport,
};
use ballast_wire::feed::{AgentToIngress, EndpointHealth, IngressToAgent};
use ballast_wire::ingress::{IngressToManager, ManagerToIngress};
use ballast_wire::join::{JoinRequest, JoinResponse, JoinRole};

pub use log::{COMMAND, commands};

pub const NODE: NodeId = NodeId::from_bits(0x1111_2222_3333_4444);
pub const INGRESS: IngressId = IngressId::from_bits(0x0102_0304_0506_0708);
pub const CLUSTER: ClusterId = ClusterId::from_bits(0xc0ff_ee00_c0ff_ee00);
pub const SERVICE: ServiceId = ServiceId::from_bits(0x5555);
pub const TASK: TaskId = TaskId::from_bits(0x7777_7777);
pub const ASSIGNMENT: AssignmentId = AssignmentId::from_bits(u64::MAX);
pub const TIME: Timestamp = Timestamp(1_800_000_000_123_456);

/// A message and the name of its kind. `name` matches without a wildcard, so that a new variant
/// does not compile until it has a name here, and then fails until it has a sample.
pub struct Sample<M> {
    pub name: &'static str,
    pub message: M,
}

macro_rules! named {
    ($(#[$doc:meta])* $fn:ident -> $message:ident: $prefix:literal, $all:ident, $($variant:ident),+ $(,)?) => {
        /// The names of every variant.
        pub const $all: &[&str] = &[$(concat!($prefix, ".", stringify!($variant))),+];

        $(#[$doc])*
        pub fn $fn(message: $message) -> Sample<$message> {
            let name = match &message {
                $($message::$variant { .. } => concat!($prefix, ".", stringify!($variant)),)+
            };
            Sample { name, message }
        }
    };
}
pub(crate) use named;

named!(agent_to_manager -> AgentToManager: "agent_to_manager", AGENT_TO_MANAGER,
    Hello, Heartbeat, Report, Applied, LogLines, Renew);
named!(manager_to_agent -> ManagerToAgent: "manager_to_agent", MANAGER_TO_AGENT,
    Welcome, Assignments, Ingresses, ReadLogs, CancelLogs, Certificate, Redirect, Refused, Changes,
    Beat);
named!(ingress_to_manager -> IngressToManager: "ingress_to_manager", INGRESS_TO_MANAGER,
    Hello, Heartbeat, Applied, ListenFailures, Renew);
named!(manager_to_ingress -> ManagerToIngress: "manager_to_ingress", MANAGER_TO_INGRESS,
    Welcome, Snapshot, Update, Certificate, Redirect, Refused);
named!(agent_to_ingress -> AgentToIngress: "agent_to_ingress", AGENT_TO_INGRESS,
    Hello, Sync, Change, Heartbeat);
named!(ingress_to_agent -> IngressToAgent: "ingress_to_agent", INGRESS_TO_AGENT,
    Welcome, Probe, Drained);
named!(join_response -> JoinResponse: "join_response", JOIN_RESPONSE,
    Accepted, Refused, Redirect);

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}

pub fn description() -> NodeDescription {
    NodeDescription {
        name: "n1".to_owned(),
        address: "10.1.2.3".parse().expect("an address"),
        capacity: Capacity {
            disk: Bytes::from_mib(100_000),
            devices: vec![Device::of("gpu", "T4"), Device::of("gpu", "T4")],
            custom: [("license".to_owned(), 3)].into(),
            sockets: vec![Socket {
                cpu: MilliCpu(4000),
                memory: Bytes::from_mib(8192),
            }],
            ..Capacity::of(MilliCpu(4000), Bytes::from_mib(8192))
        },
        attributes: map(&[("arch", "x86_64"), ("os", "linux")]),
        labels: map(&[("zone", "b")]),
        pool: "batch".to_owned(),
    }
}

pub fn observed() -> Observed {
    Observed {
        state: TaskState::Failed,
        health: Health::Unhealthy,
        sequence: Sequence(300),
        pid: Some(4242),
        exit: Some(Exit::Signal(9)),
        message: "killed by signal 9".to_owned(),
        since: TIME,
    }
}

pub fn report() -> TaskReport {
    TaskReport {
        task: TASK,
        assignment: ASSIGNMENT,
        restarts: 2,
        will_restart: true,
        observed: observed(),
    }
}

pub fn claim() -> Claim {
    Claim {
        resources: resources(),
        ports: vec![20_001, 80],
        devices: vec![DeviceGrant {
            device: 1,
            milli: 500,
        }],
        sockets: vec![SocketGrant {
            socket: 0,
            cpu: MilliCpu(250),
            memory: Bytes::from_mib(64),
        }],
    }
}

fn resources() -> Resources {
    Resources {
        disk: Bytes::from_mib(10),
        devices: DeviceRequest {
            kind: "gpu".to_owned(),
            count: 1,
            milli: 500,
        },
        custom: [("license".to_owned(), 1)].into(),
        ..Resources::of(MilliCpu(250), Bytes::from_mib(64))
    }
}

pub fn binding() -> Binding {
    Binding {
        assignment: ASSIGNMENT,
        node: NODE,
        ports: bindings(),
        claim: claim(),
        restarts: 2,
    }
}

fn bindings() -> Vec<PortBinding> {
    let binding = |name: &str, port| PortBinding {
        name: name.to_owned(),
        port,
    };
    vec![binding("http", 20_001), binding("p80", 80)]
}

fn upstream() -> UpstreamSpec {
    UpstreamSpec {
        http2: true,
        tls: Some(UpstreamTlsSpec {
            server_name: Some("api.internal".to_owned()),
            authority: Some("own".to_owned()),
            identity: Some("ingress".to_owned()),
            insecure: false,
        }),
        proxy_protocol: Some(ProxyVersion::V2),
    }
}

fn balance() -> BalanceSpec {
    BalanceSpec {
        policy: BalancePolicy::BoundedHash,
        hash: HashKey::Header("x-user".to_owned()),
        sticky: Some(StickySpec::default()),
        slow_start: Millis::from_secs(30),
        ..BalanceSpec::default()
    }
}

fn ports() -> Vec<PortSpec> {
    vec![
        PortSpec {
            name: "http".to_owned(),
            target: Target::Dynamic,
            published: Some(8080),
            protocol: Protocol::Http,
            balance: Some(balance()),
            upstream: Some(upstream()),
        },
        PortSpec {
            name: "p80".to_owned(),
            target: Target::Fixed(80),
            published: None,
            protocol: Protocol::Udp,
            balance: None,
            upstream: None,
        },
    ]
}

fn template() -> TaskTemplate {
    TaskTemplate {
        command: vec!["ballast-hello".to_owned(), "--port=$PORT".to_owned()],
        env: map(&[("MODE", "x=y")]),
        working_dir: Some("/srv".to_owned()),
        user: Some("www-data".to_owned()),
        resources: resources(),
        ulimits: BTreeMap::from([(
            "nofile".to_owned(),
            Ulimit {
                soft: 1024,
                hard: u64::MAX,
            },
        )]),
        health: Some(HealthCheck::with_defaults(ProbeKind::Http {
            port: "http".to_owned(),
            path: "/healthz".to_owned(),
            status: (200, 399),
        })),
        restart: RestartPolicy {
            condition: RestartCondition::OnFailure,
            max_attempts: 3,
            ..RestartPolicy::default()
        },
        stop: StopPolicy {
            signal: "SIGQUIT".to_owned(),
            ..StopPolicy::default()
        },
    }
}

pub fn spec() -> ServiceSpec {
    ServiceSpec {
        name: "web".to_owned(),
        stack: Some("shop".to_owned()),
        labels: map(&[("team", "a")]),
        mode: Mode::Job {
            completions: 5,
            parallelism: 2,
        },
        task: template(),
        placement: Placement {
            constraints: vec!["node.labels.zone==b".parse().expect("a constraint")],
            affinities: vec![Affinity {
                constraint: "node.labels.disk==ssd".parse().expect("a constraint"),
                weight: 50,
            }],
            services: vec![ServiceAffinity {
                service: "db".to_owned(),
                over: TopologyKey::Label("rack".to_owned()),
                weight: -100,
                required: true,
            }],
            spread: vec![SpreadRule {
                over: TopologyKey::Label("rack".to_owned()),
                max_skew: 1,
            }],
            policy: Policy::Fgd,
            max_replicas_per_node: 2,
            sockets: 1,
            tolerations: vec![Toleration {
                key: "gpu".to_owned(),
                value: Some("yes".to_owned()),
                effect: Some(TaintEffect::NoSchedule),
            }],
            priority: 10,
            preempts: false,
            max_disrupted: 3,
            gang: true,
            rebalance: false,
        },
        ports: ports(),
        routes: vec![RouteSpec {
            host: Some("*.example.test".to_owned()),
            path_prefix: "/api".to_owned(),
            port: Some("http".to_owned()),
            when: when(),
            then: then(),
        }],
        update: UpdatePolicy {
            order: UpdateOrder::StopFirst,
            parallelism: 2,
            delay: Millis(1500),
            failure_action: UpdateFailureAction::Rollback,
        },
    }
}

fn when() -> RouteMatch {
    RouteMatch {
        path: Some("/users/{id}".to_owned()),
        methods: vec!["GET".to_owned()],
        headers: vec![FieldMatch {
            name: "x-canary".to_owned(),
            exact: Some("1".to_owned()),
            prefix: None,
            absent: false,
        }],
        query: Vec::new(),
        cookies: vec![FieldMatch {
            name: "beta".to_owned(),
            exact: None,
            prefix: Some("y".to_owned()),
            absent: true,
        }],
    }
}

fn then() -> RouteActions {
    let fields = |name: &str| [(name.to_owned(), "v".to_owned())].into();
    RouteActions {
        rewrite: Some(Rewrite {
            prefix: None,
            path: Some("/v2/{id}".to_owned()),
            host: Some("inner.test".to_owned()),
        }),
        redirect: Some(Redirect::default()),
        request_headers: HeaderEdits {
            set: fields("x-set"),
            add: fields("x-add"),
            remove: vec!["x-remove".to_owned()],
        },
        response_headers: HeaderEdits::default(),
        split: Split {
            to: vec![SplitTarget {
                service: "web-next".to_owned(),
                weight: 10,
            }],
            by: Some(RequestKey::Cookie("session".to_owned())),
        },
        mirror: Some(Mirror {
            service: "shadow".to_owned(),
            percent: 5,
        }),
        rate_limit: Some(RateLimit {
            requests: 100,
            per: Millis(1000),
            burst: Some(200),
            by: RequestKey::Client,
        }),
        limits: RouteLimits {
            body: Some(Bytes(1 << 20)),
            head: None,
        },
        access: Access {
            allow: vec!["10.0.0.0/8".to_owned()],
            deny: Vec::new(),
            basic: Some(BasicAuth {
                realm: "inner".to_owned(),
                users: fields("ann"),
            }),
        },
        compression: Some(Compression::default()),
        cors: Some(Cors::default()),
        maintenance: Some(FixedAnswer::default()),
        fallback: None,
        timeouts: RouteTimeouts {
            whole: Some(Millis(30_000)),
            hedge: Some(Millis(50)),
            ..RouteTimeouts::default()
        },
        grpc_web: true,
    }
}

fn assignments() -> AssignmentSet {
    AssignmentSet {
        generation: Generation(77),
        templates: vec![AssignedTemplate {
            service: SERVICE,
            name: "web".to_owned(),
            generation: Generation(3),
            task: template(),
            ports: ports(),
            job: true,
        }],
        assignments: vec![Assignment {
            assignment: ASSIGNMENT,
            task: TASK,
            restarts: 2,
            service: SERVICE,
            generation: Generation(3),
            slot: Slot(4),
            ports: bindings(),
            claim: claim(),
            desired: Desired::Shutdown,
        }],
    }
}

fn table() -> ServiceTable {
    ServiceTable {
        service: SERVICE,
        name: "web".to_owned(),
        generation: Generation(9),
        ports: vec![PortTable {
            name: "http".to_owned(),
            protocol: Protocol::Http,
            published: Some(8080),
            routes: vec![
                RouteRule::new(Some("example.test".to_owned()), "/"),
                RouteRule {
                    host: None,
                    path_prefix: "/".to_owned(),
                    when: when(),
                    then: then(),
                },
            ],
            endpoints: vec![Endpoint {
                assignment: ASSIGNMENT,
                node: NODE,
                address: "[fd00::1]:20001".parse().expect("an address"),
                health: Health::Healthy,
                weight: Weight::DEFAULT,
                zone: Some("b".to_owned()),
            }],
            balance: Some(balance()),
            upstream: Some(upstream()),
        }],
    }
}

pub fn agent_to_managers() -> Vec<Sample<AgentToManager>> {
    let hello = AgentHello {
        node: NODE,
        incarnation: Incarnation(1_800_000_000_000_000),
        description: description(),
        generation: Generation(76),
        tasks: vec![report()],
    };
    let lines = LogLines {
        request: 5,
        lines: vec![
            (LogStream::Stdout, b"up".to_vec()),
            (LogStream::Stderr, vec![0xff, 0]),
        ],
        end: Some("no such task here".to_owned()),
    };
    [
        AgentToManager::Hello(hello),
        AgentToManager::Heartbeat,
        AgentToManager::Report(vec![report()]),
        AgentToManager::Applied(Generation(77)),
        AgentToManager::LogLines(lines),
        AgentToManager::Renew { csr: vec![0x30, 1] },
    ]
    .map(agent_to_manager)
    .into()
}

pub fn manager_to_agents() -> Vec<Sample<ManagerToAgent>> {
    [
        ManagerToAgent::Welcome { cluster: CLUSTER },
        ManagerToAgent::Assignments(assignments()),
        ManagerToAgent::Ingresses(vec![IngressAddress {
            ingress: INGRESS,
            address: "10.0.0.9:7430".parse().expect("an address"),
        }]),
        ManagerToAgent::ReadLogs {
            request: 5,
            assignment: ASSIGNMENT,
            tail: 100,
            follow: true,
        },
        ManagerToAgent::CancelLogs { request: 5 },
        ManagerToAgent::Certificate(vec![vec![1, 2], vec![3]]),
        ManagerToAgent::Redirect {
            leader: Some("10.0.0.2:7400".parse().expect("an address")),
        },
        ManagerToAgent::Refused("of another cluster".to_owned()),
        ManagerToAgent::Changes(AssignmentChanges {
            base: Generation(9),
            generation: Generation(11),
            templates: assignments().templates,
            assignments: assignments().assignments,
            removed: vec![AssignmentId::from_bits(77)],
        }),
        ManagerToAgent::Beat(Millis(250)),
    ]
    .map(manager_to_agent)
    .into()
}

pub fn ingress_to_managers() -> Vec<Sample<IngressToManager>> {
    [
        IngressToManager::Hello {
            ingress: INGRESS,
            name: "edge".to_owned(),
            feed: "10.0.0.9:7430".parse().expect("an address"),
            generation: Generation(9),
        },
        IngressToManager::Heartbeat,
        IngressToManager::Applied(Generation(10)),
        IngressToManager::ListenFailures(vec![(80, "permission denied".to_owned())]),
        IngressToManager::Renew { csr: vec![0x30, 1] },
    ]
    .map(ingress_to_manager)
    .into()
}

pub fn manager_to_ingresses() -> Vec<Sample<ManagerToIngress>> {
    [
        ManagerToIngress::Welcome { cluster: CLUSTER },
        ManagerToIngress::Snapshot {
            generation: Generation(9),
            services: vec![table()],
        },
        ManagerToIngress::Update {
            generation: Generation(10),
            changed: vec![table()],
            removed: vec![SERVICE],
        },
        ManagerToIngress::Certificate(vec![vec![1, 2], vec![3]]),
        ManagerToIngress::Redirect { leader: None },
        ManagerToIngress::Refused("of another cluster".to_owned()),
    ]
    .map(manager_to_ingress)
    .into()
}

fn health() -> EndpointHealth {
    EndpointHealth {
        assignment: ASSIGNMENT,
        sequence: Sequence(12),
        health: Health::Draining,
        seen: TIME,
    }
}

pub fn agent_to_ingresses() -> Vec<Sample<AgentToIngress>> {
    [
        AgentToIngress::Hello {
            node: NODE,
            incarnation: Incarnation(1_800_000_000_000_000),
        },
        AgentToIngress::Sync(vec![health()]),
        AgentToIngress::Change(health()),
        AgentToIngress::Heartbeat,
    ]
    .map(agent_to_ingress)
    .into()
}

pub fn ingress_to_agents() -> Vec<Sample<IngressToAgent>> {
    [
        IngressToAgent::Welcome,
        IngressToAgent::Probe {
            assignment: ASSIGNMENT,
            timeout: Millis(20),
        },
        IngressToAgent::Drained {
            assignment: ASSIGNMENT,
            sequence: Sequence(12),
            in_flight: 3,
        },
    ]
    .map(ingress_to_agent)
    .into()
}

pub fn join_requests() -> Vec<Sample<JoinRequest>> {
    let request = |role| JoinRequest {
        secret: "s3cret".to_owned(),
        role,
        name: "n1".to_owned(),
        csr: vec![0x30, 1],
    };
    vec![
        Sample {
            name: "join_request.Agent",
            message: request(JoinRole::Agent),
        },
        Sample {
            name: "join_request.Ingress",
            message: request(JoinRole::Ingress),
        },
    ]
}

pub fn join_responses() -> Vec<Sample<JoinResponse>> {
    [
        JoinResponse::Accepted {
            id: NODE.to_bits(),
            cluster: CLUSTER,
            chain: vec![vec![1, 2], vec![3]],
        },
        JoinResponse::Refused("the token was rotated".to_owned()),
        JoinResponse::Redirect {
            leader: None,
            generation: Generation(2),
        },
    ]
    .map(join_response)
    .into()
}
