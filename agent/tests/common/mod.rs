//! An agent without links, in this process, with real tasks.

#![allow(dead_code, reason = "each test file uses its share")]

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ballast_agent::driver::process::{Cgroups, Files, ProcessDriver, procfs};
use ballast_agent::logs::{Bounds, Logs};
use ballast_agent::shell::{Agent, Parts, now};
use ballast_agent::store::Store;
use ballast_agent::worker::{Event, Process};
use ballast_model::{
    AssignmentId, Claim, Desired, Generation, Health, Millis, NodeId, PortBinding, PortSpec,
    Protocol, ServiceId, Slot, TaskId, TaskState, TaskTemplate,
};
use ballast_wire::agent::{AssignedTemplate, Assignment, AssignmentSet, TaskReport};
use tokio_util::sync::CancellationToken;

/// The longest wait for anything: tests run beside others on few cores.
pub const DEADLINE: Duration = Duration::from_mins(1);

/// An agent and its folder; its tasks are killed when it is dropped.
pub struct Harness {
    agent: Option<Arc<Agent>>,
    pub folder: Arc<tempfile::TempDir>,
    node: NodeId,
    cgroups: bool,
    bounds: Bounds,
    runtime: Option<tokio::runtime::Runtime>,
    generation: u64,
}

pub struct Service {
    pub template: TaskTemplate,
    pub ports: Vec<PortSpec>,
    pub job: bool,
}

impl Service {
    pub fn shell(script: &str) -> Self {
        let command = ["/bin/sh", "-c", script].map(ToOwned::to_owned).to_vec();
        Self {
            template: TaskTemplate {
                command,
                ..TaskTemplate::default()
            },
            ports: Vec::new(),
            job: false,
        }
    }

    pub fn python(script: &str) -> Self {
        let mut service = Self::shell("");
        service.template.command = ["python3", "-u", "-c", script]
            .map(ToOwned::to_owned)
            .to_vec();
        service
    }

    pub fn port(mut self, protocol: Protocol) -> Self {
        self.ports.push(PortSpec {
            name: "http".to_owned(),
            target: ballast_model::Target::Dynamic,
            published: None,
            protocol,
            balance: None,
            upstream: None,
        });
        self
    }
}

/// Answers every GET on `$PORT`, a thread per connection.
pub const WEB: &str = "
import http.server, os
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(s): s.send_response(200); s.send_header('Content-Length', '2'); s.end_headers(); s.wfile.write(b'ok')
    def log_message(s, *a): pass
http.server.ThreadingHTTPServer(('0.0.0.0', int(os.environ['PORT'])), H).serve_forever()
";

pub fn free_port() -> u16 {
    ballast_test_ports::free_address().port()
}

impl Harness {
    pub fn new() -> Self {
        Self::with(true, Bounds::default())
    }

    pub fn with(cgroups: bool, bounds: Bounds) -> Self {
        let folder = Arc::new(tempfile::tempdir().expect("makes a folder"));
        let node = NodeId::from_bits(getrandom_bits());
        Self::begin(folder, node, cgroups, bounds, 0)
    }

    fn begin(
        folder: Arc<tempfile::TempDir>,
        node: NodeId,
        cgroups: bool,
        bounds: Bounds,
        generation: u64,
    ) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("starts a runtime");
        let tasks = folder.path().join("tasks");
        let parts = Parts {
            driver: ProcessDriver {
                nofile: None,
                executable: PathBuf::from(env!("CARGO_BIN_EXE_ballast-task-exec")),
                folder: tasks.clone(),
                node,
                node_name: "here".to_owned(),
                cgroups: if cgroups {
                    Cgroups::detect(node)
                } else {
                    Cgroups::Unavailable("not wanted by the test".to_owned())
                },
            },
            address: Ipv4Addr::LOCALHOST.into(),
            store: Store::open(folder.path(), now().wall).expect("opens the store"),
            logs: Logs::new(tasks, bounds),
            seed: getrandom_bits(),
        };
        let agent = {
            let _context = runtime.enter();
            let agent = Agent::start(parts);
            tokio::spawn(agent.clone().keep_time(CancellationToken::new()));
            agent
        };
        Self {
            agent: Some(agent),
            folder,
            node,
            cgroups,
            bounds,
            runtime: Some(runtime),
            generation,
        }
    }

    pub fn agent(&self) -> &Arc<Agent> {
        self.agent.as_ref().expect("lives")
    }

    /// Runs a future in the agent's runtime.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.as_ref().expect("lives").block_on(future)
    }

    pub fn dispatch(&self, event: Event) {
        let _context = self.runtime.as_ref().expect("lives").enter();
        self.agent().dispatch(event);
    }

    /// Ends this life of the agent as a crash would: nothing is told to the tasks.
    pub fn crash(&mut self) {
        if let Some(agent) = self.agent.take() {
            agent.close();
            drop(agent);
        }
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(DEADLINE);
        }
    }

    /// Begins the next life.
    pub fn revive(mut self) -> Self {
        self.crash();
        let (folder, node, cgroups) = (self.folder.clone(), self.node, self.cgroups);
        let (bounds, generation) = (self.bounds, self.generation);
        drop(self);
        Self::begin(folder, node, cgroups, bounds, generation)
    }

    pub fn task_files(&self, assignment: AssignmentId) -> Files {
        Files::of(&self.folder.path().join("tasks"), assignment)
    }

    /// Hands the agent a set with these services, one task each, and returns their bindings.
    pub fn assign(&mut self, services: &[(Service, u32)]) -> (AssignmentSet, Vec<AssignmentId>) {
        self.generation += 1;
        let mut set = AssignmentSet {
            generation: Generation(self.generation),
            ..AssignmentSet::default()
        };
        for (place, (service, count)) in services.iter().enumerate() {
            // Of its own in each set: a version of a service never changes.
            let id = ServiceId::from_bits(self.generation * 1000 + place as u64);
            set.templates.push(AssignedTemplate {
                service: id,
                name: format!("service-{place}"),
                generation: Generation(1),
                task: service.template.clone(),
                ports: service.ports.clone(),
                job: service.job,
            });
            for slot in 1..=*count {
                let ports: Vec<_> = service
                    .ports
                    .iter()
                    .map(|port| PortBinding {
                        name: port.name.clone(),
                        port: match port.target {
                            ballast_model::Target::Dynamic => free_port(),
                            ballast_model::Target::Fixed(port) => port,
                        },
                    })
                    .collect();
                set.assignments.push(Assignment {
                    assignment: AssignmentId::from_bits(getrandom_bits()),
                    task: TaskId::from_bits(getrandom_bits()),
                    restarts: 0,
                    service: id,
                    generation: Generation(1),
                    slot: Slot(slot),
                    claim: Claim {
                        resources: service.template.resources.clone(),
                        ports: ports.iter().map(|port| port.port).collect(),
                        ..Claim::default()
                    },
                    ports,
                    desired: Desired::Running,
                });
            }
        }
        self.dispatch(Event::Assignments(set.clone()));
        let ids = set
            .assignments
            .iter()
            .map(|assignment| assignment.assignment)
            .collect();
        (set, ids)
    }

    /// Hands the agent the next set.
    pub fn send(&mut self, mut set: AssignmentSet) {
        self.generation += 1;
        set.generation = Generation(self.generation);
        self.dispatch(Event::Assignments(set));
    }

    pub fn report(&self, assignment: AssignmentId) -> Option<TaskReport> {
        let (_, reports) = self.agent().snapshot();
        reports
            .into_iter()
            .find(|report| report.assignment == assignment)
    }

    /// Waits until a binding's report is as wanted.
    pub fn until(
        &self,
        assignment: AssignmentId,
        what: &str,
        wanted: impl Fn(&TaskReport) -> bool,
    ) -> TaskReport {
        let begun = Instant::now();
        loop {
            let report = self.report(assignment);
            if let Some(report) = report.clone().filter(&wanted) {
                return report;
            }
            assert!(begun.elapsed() < DEADLINE, "no {what}: {report:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub fn until_running(&self, assignment: AssignmentId) -> TaskReport {
        self.until(assignment, "running task", |report| {
            report.observed.state == TaskState::Running
        })
    }

    pub fn until_healthy(&self, assignment: AssignmentId) -> TaskReport {
        self.until(assignment, "healthy task", |report| {
            report.observed.health == Health::Healthy
        })
    }

    #[allow(clippy::unused_self, reason = "reads like the others")]
    pub fn process(&self, report: &TaskReport) -> Process {
        let pid = report.observed.pid.expect("runs");
        let stat = procfs::Stat::read(pid).expect("is alive");
        Process {
            pid,
            start_time: stat.start_time,
        }
    }
}

impl Drop for Harness {
    fn drop(&mut self) {
        let Some(agent) = self.agent.take() else {
            return;
        };
        let driver = agent.driver.clone();
        drop(agent);
        self.crash();
        for (assignment, (_, process)) in driver.find_running() {
            driver.kill(assignment, process);
            driver.sweep(assignment, process);
            driver.forget(assignment);
        }
        driver.cgroups.remove_node();
    }
}

/// Waits until a condition holds.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < DEADLINE, "{what} did not come true");
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub fn read(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}

pub fn getrandom_bits() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new()
        .build_hasher()
        .finish()
}

pub fn env_of(pid: u32) -> BTreeMap<String, String> {
    let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let vars = environ.split(|&byte| byte == 0);
    vars.filter_map(|var| {
        let text = String::from_utf8_lossy(var).into_owned();
        text.split_once('=')
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
    })
    .collect()
}

pub const fn millis(count: u64) -> Millis {
    Millis(count)
}
