//! What the manager counts, in the OpenMetrics text that `/metrics` answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

/// Upper bounds in seconds for what takes from tens of microseconds to seconds.
const LATENCY_BOUNDS: [f64; 14] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0,
    5.0,
];

/// Upper bounds in commands for the size of a batch.
const BATCH_BOUNDS: [f64; 7] = [1.0, 2.0, 4.0, 16.0, 64.0, 256.0, 1024.0];

/// A state of nodes or tasks.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: String,
}

/// A role at the other end of links.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RoleLabel {
    role: &'static str,
}

/// The manager's metrics. Clones count into the same.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    commit: Histogram,
    append: Histogram,
    batch: Histogram,
    placement: Histogram,
    replacement: Histogram,
    refused: Counter,
    queued: Gauge,
    leading: Gauge,
    nodes: Family<StateLabel, Gauge>,
    tasks: Family<StateLabel, Gauge>,
    services: Gauge,
    links: Family<RoleLabel, Gauge>,
    log_last: Gauge<u64, AtomicU64>,
    late: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn latency() -> Histogram {
    Histogram::new(LATENCY_BOUNDS)
}

impl Metrics {
    /// Makes all of them, at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("ballast");
        registry.register(
            "build",
            "The running build",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        let mut metrics = Self {
            registry: Arc::default(),
            commit: latency(),
            append: latency(),
            batch: Histogram::new(BATCH_BOUNDS),
            placement: latency(),
            replacement: latency(),
            refused: Counter::default(),
            queued: Gauge::default(),
            leading: Gauge::default(),
            nodes: Family::default(),
            tasks: Family::default(),
            services: Gauge::default(),
            links: Family::default(),
            log_last: Gauge::default(),
            late: latency(),
        };
        metrics.register_latencies(&mut registry);
        metrics.register_counts(&mut registry);
        metrics.registry = Arc::new(registry);
        metrics
    }

    fn register_latencies(&self, registry: &mut Registry) {
        for (name, help, histogram) in [
            (
                "manager_replacement_duration",
                "From the end of a task to its replacement running",
                &self.replacement,
            ),
            (
                "scheduler_placement_duration",
                "One step of the reconciler, its placements included",
                &self.placement,
            ),
            (
                "manager_raft_commit_duration",
                "From a change's proposal to its being applied",
                &self.commit,
            ),
            (
                "manager_raft_append_duration",
                "One write to the log, with its fsync",
                &self.append,
            ),
            (
                "manager_timer_lateness",
                "How late the lease timer fired",
                &self.late,
            ),
        ] {
            registry.register_with_unit(name, help, Unit::Seconds, histogram.clone());
        }
    }

    fn register_counts(&self, registry: &mut Registry) {
        registry.register(
            "manager_raft_batch_commands",
            "Commands in one entry of the log",
            self.batch.clone(),
        );
        registry.register(
            "manager_proposals_refused",
            "Changes refused because the queue was full or the disk is",
            self.refused.clone(),
        );
        registry.register(
            "manager_proposals_queued",
            "Changes that wait for the log",
            self.queued.clone(),
        );
        registry.register(
            "manager_leading",
            "1 while this manager leads",
            self.leading.clone(),
        );
        registry.register(
            "manager_raft_log_last_index",
            "Index of the last applied entry",
            self.log_last.clone(),
        );
        registry.register("manager_nodes", "Nodes by status", self.nodes.clone());
        registry.register("manager_tasks", "Tasks by state", self.tasks.clone());
        registry.register("manager_services", "Services", self.services.clone());
        registry.register("manager_links", "Open links by role", self.links.clone());
    }

    /// Counts one write to the log.
    pub fn log_append(&self, elapsed: Duration) {
        self.append.observe(elapsed.as_secs_f64());
    }

    /// Counts one batch, proposed and applied.
    pub fn committed(&self, commands: usize, elapsed: Duration) {
        self.commit.observe(elapsed.as_secs_f64());
        self.batch.observe(commands as f64);
    }

    /// Counts one step of the reconciler.
    pub fn reconciled(&self, elapsed: Duration) {
        self.placement.observe(elapsed.as_secs_f64());
    }

    /// Counts one task that was replaced.
    pub fn replaced(&self, elapsed: Duration) {
        self.replacement.observe(elapsed.as_secs_f64());
    }

    /// Counts one change that was refused for want of room.
    pub fn refused(&self) {
        self.refused.inc();
    }

    /// Notes how many changes wait.
    pub fn queued(&self, count: usize) {
        self.queued.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Notes whether this manager leads.
    pub fn leading(&self, leads: bool) {
        self.leading.set(i64::from(leads));
    }

    /// Notes the last applied entry.
    pub fn applied(&self, index: u64) {
        self.log_last.set(index);
    }

    /// Counts how late the lease timer was.
    pub fn timer_late(&self, late: Duration) {
        self.late.observe(late.as_secs_f64());
    }

    /// Counts a link while the returned guard lives.
    pub fn link(&self, role: &'static str) -> LinkGuard {
        let gauge = self.links.get_or_create(&RoleLabel { role }).clone();
        gauge.inc();
        LinkGuard(gauge)
    }

    /// Sets what is read from the state at each scrape: how many nodes and tasks are in each state.
    pub fn set_population(
        &self,
        services: usize,
        nodes: &BTreeMap<String, i64>,
        tasks: &BTreeMap<String, i64>,
    ) {
        self.services
            .set(i64::try_from(services).unwrap_or(i64::MAX));
        for (family, counts) in [(&self.nodes, nodes), (&self.tasks, tasks)] {
            for (state, count) in counts {
                let label = StateLabel {
                    state: state.clone(),
                };
                family.get_or_create(&label).set(*count);
            }
        }
    }

    /// Returns the exposition.
    pub fn render(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("a String takes every write");
        text
    }
}

/// Counts a link down when it is dropped.
#[derive(Debug)]
pub struct LinkGuard(Gauge);

impl Drop for LinkGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contract_names_are_exposed() {
        let metrics = Metrics::new();
        metrics.replaced(Duration::from_millis(20));
        metrics.reconciled(Duration::from_micros(20));
        let count = |state: &str, count| BTreeMap::from([(state.to_owned(), count)]);
        metrics.set_population(3, &count("ready", 2), &count("running", 7));
        let text = metrics.render();
        for line in [
            "ballast_manager_replacement_duration_seconds_count 1",
            "ballast_scheduler_placement_duration_seconds_count 1",
            "ballast_manager_nodes{state=\"ready\"} 2",
            "ballast_manager_tasks{state=\"running\"} 7",
            "ballast_manager_services 3",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn closed_link_is_not_counted() {
        let metrics = Metrics::new();
        let guard = metrics.link("agent");
        assert!(
            metrics
                .render()
                .contains("ballast_manager_links{role=\"agent\"} 1")
        );
        drop(guard);
        assert!(
            metrics
                .render()
                .contains("ballast_manager_links{role=\"agent\"} 0")
        );
    }
}
