//! The cluster, the service and the load.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use ballast_loadgen::{Plan, Running};
use ballast_model::view::TaskView;
use ballast_model::{Health, TaskState};

use super::story::Story;
use crate::cluster::{Cluster, Isolation, bin_dir};
use crate::watch::ReadyWatch;

/// The name of the service in `examples/hello.yaml` when it is deployed as the stack `hello`.
pub const SERVICE: &str = "hello";
/// Where it is published.
const PUBLISHED: u16 = 8080;
/// Requests a second.
const RATE: f64 = 1200.0;
/// Connections of the load.
const CONNECTIONS: usize = 32;
/// Between two looks at the ingress.
const LOOK: Duration = Duration::from_millis(1);
/// For the first replicas to answer, on a slow machine.
const DEADLINE: Duration = Duration::from_secs(20);

pub struct Stage {
    pub cluster: Cluster,
    pub watch: ReadyWatch,
}

impl Stage {
    /// Starts the cluster and deploys the example; returns once every replica takes traffic.
    pub fn build(story: &Story, example: &Path, replicas: u32) -> Result<Self> {
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!("{}:{path}", bin_dir()?.display());
        let cluster = Cluster::builder()
            .env("PATH", &path)
            .env("BALLAST_LOG", "info")
            .start()?;
        // The programs are found before the first of them is needed.
        cluster.bin("ballast-hello")?;
        story.say("a manager, three agents and an ingress run, each a process of its own");
        for host in cluster.hosts() {
            let pid = host.pid().unwrap_or_default();
            story.note(&format!("{:10} {:15} pid {pid}", host.name(), host.ip()));
        }
        if let Isolation::Loopback(reason) = cluster.isolation() {
            story.note(&format!("on loopback addresses: {reason}"));
        }
        story.say("ballast stack deploy -c examples/hello.yaml hello");
        let example = example.to_str().context("the example's path is UTF-8")?;
        cluster.cli(&["stack", "deploy", "-c", example, SERVICE])?;
        let took = cluster.wait_healthy(SERVICE, replicas, DEADLINE)?;
        let watch = ReadyWatch::start(&cluster, SERVICE, LOOK)?;
        cluster
            .wait_until("the ingress holds every replica ready", DEADLINE, |_| {
                watch.now() == replicas
            })
            .with_context(|| cluster.describe(SERVICE))?;
        story.note(&format!(
            "{replicas} replicas answer; the last after {:.0} ms more",
            ms(took)
        ));
        for line in cluster.cli(&["service", "ps", SERVICE])?.lines() {
            println!("            {line}");
        }
        Ok(Self { cluster, watch })
    }

    /// Starts the load.
    pub fn drive(&self, story: &Story) -> Result<Running> {
        let address = self.cluster.ingress(0).address(PUBLISHED);
        story.say(&format!("ballast-loadgen --rate {RATE} http://{address}/"));
        let mut load = Plan::http(&format!("http://{address}/"))
            .context("the target")?
            .at_rate(RATE);
        // Longer than any demo takes: it is stopped.
        load.duration = Duration::from_hours(1);
        load.connections = CONNECTIONS;
        load.request_ids = Some("demo".to_owned());
        load.records = true;
        let running = self
            .cluster
            .client()
            .inside(|| ballast_loadgen::start(load))?;
        running.context("the load generator")
    }

    pub fn isolation(&self) -> &'static str {
        match self.cluster.isolation() {
            Isolation::Namespaces => "network namespaces",
            Isolation::Loopback(_) => "loopback",
        }
    }

    /// Returns the tasks that take traffic.
    pub fn healthy(&self) -> Result<Vec<TaskView>> {
        let mut tasks = self.cluster.tasks(SERVICE)?;
        tasks.retain(|task| task.state == TaskState::Running && task.health == Health::Healthy);
        tasks.sort_by_key(|task| task.slot);
        Ok(tasks)
    }

    /// Ends everything; keeps the logs if it did not go well.
    pub fn close(self, good: bool) {
        drop(self.watch);
        if good {
            self.cluster.finish();
        }
    }
}

pub fn ms(span: Duration) -> f64 {
    span.as_secs_f64() * 1e3
}
