//! What the agent counts.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ballast_model::{Exit, TaskId, TaskState};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::sync::atomic::AtomicU64;

use crate::driver::process::procfs::Stat;
use crate::worker::Process;

/// Clock ticks a second of `/proc/PID/stat`: fixed by the kernel's interface on every architecture
/// that Rust's standard library supports on Linux.
const TICKS_PER_SECOND: f64 = 100.0;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByService {
    service: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByResult {
    service: String,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByState {
    state: String,
}

#[derive(Debug, Clone)]
struct StartBuckets;

impl MetricConstructor<Histogram> for StartBuckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new([0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0])
    }
}

fn push_histogram() -> Histogram {
    Histogram::new([
        0.000_02, 0.000_05, 0.0001, 0.000_25, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.25,
    ])
}

type Seconds = Counter<f64, AtomicU64>;

/// The agent's metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    cpu: Family<ByService, Seconds>,
    starts: Family<ByService, Histogram, StartBuckets>,
    pushes: Histogram,
    rejections: Family<ByService, Counter>,
    exits: Family<ByResult, Counter>,
    probes: Family<ByResult, Counter>,
    tasks: Family<ByState, Gauge>,
    /// CPU time that was counted already, of each live try.
    counted: Mutex<BTreeMap<TaskId, u64>>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("ballast_agent");
        let cpu = Family::default();
        let starts = Family::new_with_constructor(StartBuckets);
        let pushes = push_histogram();
        let rejections = Family::default();
        let exits = Family::default();
        let probes = Family::default();
        let tasks = Family::default();
        registry.register_with_unit(
            "task_cpu",
            "CPU time that tasks have used",
            Unit::Seconds,
            Family::clone(&cpu),
        );
        registry.register_with_unit(
            "task_start_duration",
            "From the decision to start a task to its program running",
            Unit::Seconds,
            Family::clone(&starts),
        );
        registry.register_with_unit(
            "push_duration",
            "From a change of health seen to it written to an ingress's connection",
            Unit::Seconds,
            pushes.clone(),
        );
        let help = "Tasks that could not be started";
        registry.register("task_rejections", help, Family::clone(&rejections));
        let help = "Tasks that ended, by how";
        registry.register("task_exits", help, Family::clone(&exits));
        registry.register("probes", "Probes, by outcome", Family::clone(&probes));
        let help = "Assignments of this node, by state";
        registry.register("tasks", help, Family::clone(&tasks));
        Self {
            registry,
            cpu,
            starts,
            pushes,
            rejections,
            exits,
            probes,
            tasks,
            counted: Mutex::default(),
        }
    }
}

impl Metrics {
    pub(crate) fn started(&self, service: &str, took: Duration) {
        let labels = ByService {
            service: service.to_owned(),
        };
        self.starts
            .get_or_create(&labels)
            .observe(took.as_secs_f64());
    }

    pub(crate) fn pushed(&self, took: Duration) {
        self.pushes.observe(took.as_secs_f64());
    }

    pub(crate) fn rejected(&self, service: &str) {
        let labels = ByService {
            service: service.to_owned(),
        };
        self.rejections.get_or_create(&labels).inc();
    }

    pub(crate) fn exited(&self, service: &str, exit: Exit) {
        let result = match exit {
            Exit::Code(0) => "success",
            Exit::Code(_) => "failure",
            Exit::Signal(_) => "signal",
            Exit::Unknown => "unknown",
        };
        let service = service.to_owned();
        self.exits
            .get_or_create(&ByResult { service, result })
            .inc();
    }

    pub(crate) fn probed(&self, service: &str, success: bool) {
        let result = if success { "success" } else { "failure" };
        let service = service.to_owned();
        self.probes
            .get_or_create(&ByResult { service, result })
            .inc();
    }

    /// Counts the last of a try's CPU time.
    pub(crate) fn ended(&self, service: &str, task: TaskId, ticks: u64) {
        self.count_cpu(service, task, ticks);
        self.counted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&task);
    }

    fn count_cpu(&self, service: &str, task: TaskId, ticks: u64) {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let before = counted.insert(task, ticks).unwrap_or(0);
        let labels = ByService {
            service: service.to_owned(),
        };
        #[allow(
            clippy::cast_precision_loss,
            reason = "CPU ticks of a task fit 52 bits"
        )]
        let seconds = ticks.saturating_sub(before) as f64 / TICKS_PER_SECOND;
        self.cpu.get_or_create(&labels).inc_by(seconds);
    }

    /// Returns the exposition in the Prometheus text format. Reads `/proc` for each live try.
    pub fn render(
        &self,
        live: &[(String, TaskId, Process)],
        states: &BTreeMap<TaskState, usize>,
    ) -> String {
        for (service, task, process) in live {
            if let Some(stat) = Stat::read(process.pid)
                && stat.start_time == process.start_time
            {
                self.count_cpu(service, *task, stat.cpu_ticks);
            }
        }
        for state in TaskState::ALL {
            let count = states.get(&state).copied().unwrap_or(0);
            let labels = ByState {
                state: state.to_string(),
            };
            self.tasks
                .get_or_create(&labels)
                .set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        let mut text = String::new();
        // Writing into a String does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
