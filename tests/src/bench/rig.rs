//! A cluster with the service under test, and the faults that it gets.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ballast_loadgen::plan::{Request, Template};
use ballast_loadgen::{Method, Outcome, Plan, Record, Running};
use ballast_model::view::TaskView;
use ballast_model::{Health, TaskState};
use serde_json::{Value, json};

use super::ingress_log::{IngressLog, wall_us};
use crate::cluster::{Cluster, Signal, http, signal_pid};
use crate::watch::{ReadyWatch, Window};

/// The service.
pub const SERVICE: &str = "web";
/// Where it is published.
pub const PUBLISHED: u16 = 8080;
/// Requests a second.
const RATE: f64 = 1100.0;
/// Weights of GETs and POSTs.
const WEIGHTS: [u32; 2] = [4, 1];
/// In a POST.
const BODY_BYTES: usize = 16;
/// For anything to heal; past it the run is counted as not healed.
pub const HEALS_WITHIN: Duration = Duration::from_secs(15);
/// What belongs to a fault after it has healed.
const AFTERMATH: Duration = Duration::from_millis(200);
/// Between two looks at a task that is starting.
const KNOCK: Duration = Duration::from_micros(500);

/// One fault and what was done about it, times since the fault.
#[derive(Debug)]
pub struct Fault {
    /// Its endpoints took nothing new any more.
    pub out: Option<Duration>,
    /// Its replacement answered a request of its own.
    pub answering: Option<Duration>,
    /// As many endpoints took traffic as before.
    pub whole: Option<Duration>,
    /// Requests that it may have harmed.
    pub window: Window,
}

/// Requests that failed in one fault's window, and the slowest.
#[derive(Debug, Clone, Copy)]
pub struct Harm {
    /// Failed GETs.
    pub gets: usize,
    /// Failed POSTs.
    pub posts: usize,
    /// From due to done.
    pub slowest: Duration,
}

impl Fault {
    /// Returns what it did to the requests of a load.
    pub fn harm(&self, zero: Instant, records: &[Record]) -> Harm {
        let failed = |method| {
            let failed = |record: &&Record| record.method == method && record.failure().is_some();
            self.window.of(zero, records).filter(failed).count()
        };
        Harm {
            gets: failed(Method::Get),
            posts: failed(Method::Post),
            slowest: self.window.slowest(zero, records),
        }
    }

    /// Returns it as raw data.
    pub fn to_json(&self, harm: Harm) -> Value {
        json!({
            "out_ms": self.out.map(ms),
            "answering_ms": self.answering.map(ms),
            "whole_ms": self.whole.map(ms),
            "failed_gets": harm.gets,
            "failed_posts": harm.posts,
            "slowest_ms": ms(harm.slowest),
        })
    }
}

/// Returns milliseconds.
pub fn ms(span: Duration) -> f64 {
    span.as_secs_f64() * 1e3
}

/// Returns the window from a fault to a moment after it healed.
pub fn window(from: Instant) -> Window {
    Window {
        from,
        to: Instant::now() + AFTERMATH,
    }
}

/// Starts load on an address from the client's host.
///
/// # Errors
/// If the generator cannot start.
pub fn drive(cluster: &Cluster, port: u16, prefix: &str) -> Result<Running> {
    let address = cluster.ingress(0).address(port);
    let mut load = Plan::http(&format!("http://{address}/"))
        .context("the target")?
        .at_rate(RATE);
    // Stopped when the block ends.
    load.duration = Duration::from_hours(1);
    load.request_ids = Some(prefix.to_owned());
    load.records = true;
    let [get, post] = WEIGHTS;
    let mut requests = vec![Request::get(Template::literal("/")); 2];
    requests[0].weight = get;
    requests[1].weight = post;
    requests[1].method = ::http::Method::POST;
    requests[1].body = Template::literal([b'x'; BODY_BYTES]);
    load.targets[0].requests = requests;
    let running = cluster.client().inside(|| ballast_loadgen::start(load))?;
    running.context("the load generator")
}

/// Ends a load.
///
/// # Errors
/// If the generator broke.
pub fn finish(load: Running) -> Result<(Instant, Outcome)> {
    let zero = load.zero;
    load.stop();
    Ok((zero, load.join().context("the load")?))
}

/// A cluster with five replicas.
#[derive(Debug)]
pub struct Rig {
    /// It.
    pub cluster: Cluster,
    /// What its ingress holds ready.
    pub watch: ReadyWatch,
    log: IngressLog,
}

impl Rig {
    /// Starts it.
    ///
    /// # Errors
    /// If the cluster or the service does not come up.
    pub fn start(replicas: u32) -> Result<Self> {
        let cluster = Cluster::builder()
            // What the ingress logs of departures is at this level, and little else.
            .env("BALLAST_LOG", "warn,ballast_lb::hub=debug")
            .start()?;
        let hello = cluster.bin("ballast-hello")?.display().to_string();
        let ledger = format!("HELLO_LEDGER={}", ledger(&cluster).display());
        let publish = format!("{PUBLISHED}:http");
        let replicas_text = replicas.to_string();
        let mut args = vec!["service", "create", SERVICE, "--replicas", &replicas_text];
        args.extend([
            "--publish",
            &publish,
            "--spread",
            "node",
            "--health-http",
            "/healthz",
        ]);
        // Fifty kills would otherwise look like crash loops: each is the first of its window.
        args.extend(["--env", &ledger, "--restart-window", "1s", "--", &hello]);
        cluster.cli(&args)?;
        let watch = ReadyWatch::start(&cluster, SERVICE, Duration::from_millis(1))?;
        cluster.wait_until("the ingress holds all ready", HEALS_WITHIN, |_| {
            watch.now() == replicas
        })?;
        let log = IngressLog::new(cluster.ingress(0).log_path());
        Ok(Self {
            cluster,
            watch,
            log,
        })
    }

    /// Returns the tasks that take traffic, by slot.
    ///
    /// # Errors
    /// If the manager does not answer.
    pub fn healthy(&self) -> Result<Vec<TaskView>> {
        let mut tasks = self.cluster.tasks(SERVICE)?;
        tasks.retain(|task| task.state == TaskState::Running && task.health == Health::Healthy);
        tasks.sort_by_key(|task| task.slot);
        Ok(tasks)
    }

    /// Signals the process of a task and waits until all is well again.
    ///
    /// # Errors
    /// If there is no such task or the signal cannot be sent.
    pub fn hurt(&self, nth: usize, signal: Signal) -> Result<Fault> {
        let tasks = self.healthy()?;
        let task = tasks
            .get(nth % tasks.len().max(1))
            .context("no task is healthy")?;
        let pid = task.pid.context("the task has no pid")?;
        let before = self.watch.now();
        let began = Instant::now();
        let wall = wall_us();
        signal_pid(pid, signal)?;
        let answering = self.answers_anew(task, began);
        let assignment = task
            .assignment
            .context("the task has no assignment")?
            .to_string();
        let departure = self.log.wait(&assignment, wall, HEALS_WITHIN);
        let out = departure.map(|it| Duration::from_micros(it.out_us.saturating_sub(wall)));
        // Looked at from outside: a dip too short to be seen was over when the new task answered.
        let dip = self.watch.first(began, |ready| ready < before);
        let whole = match dip {
            Some(dip) => self.watch.wait(dip, HEALS_WITHIN, |ready| ready >= before),
            None => answering.map(|after| began + after),
        };
        let replaced = self
            .cluster
            .wait_until("a new task in its slot", HEALS_WITHIN, |_| {
                self.healthy().is_ok_and(|now| {
                    now.len() >= tasks.len()
                        && now
                            .iter()
                            .any(|new| new.slot == task.slot && new.pid != task.pid)
                })
            });
        Ok(Fault {
            out,
            answering,
            whole: whole
                .filter(|_| replaced.is_ok())
                .map(|at| at.saturating_duration_since(began)),
            window: window(began),
        })
    }

    /// Knocks at a task's address until another process answers there.
    fn answers_anew(&self, task: &TaskView, began: Instant) -> Option<Duration> {
        let address = task.address.as_ref()?.parse().ok()?;
        let old = task.id.to_string();
        self.cluster
            .client()
            .inside(|| {
                while began.elapsed() < HEALS_WITHIN {
                    let knock = || -> Result<String> {
                        // A hung process accepts and says nothing; do not wait for it.
                        let timeout = Duration::from_millis(50);
                        let mut connection = http::Connection::tcp_within(address, timeout)?;
                        Ok(connection.request("GET", "/", &[], None)?.text())
                    };
                    if knock().is_ok_and(|text| !text.contains(&old)) {
                        return Some(began.elapsed());
                    }
                    std::thread::sleep(KNOCK);
                }
                None
            })
            .ok()
            .flatten()
    }

    /// Returns how many POSTs were executed, and how many of them more than once.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub fn posts(&self, prefix: &str) -> Result<(usize, usize)> {
        let text = std::fs::read_to_string(ledger(&self.cluster)).context("the ledger")?;
        let mut counts: HashMap<&str, u32> = HashMap::new();
        for line in text.lines() {
            let mut words = line.split(' ');
            if let (Some("POST"), Some(id)) = (words.next(), words.next())
                && id.starts_with(prefix)
            {
                *counts.entry(id).or_default() += 1;
            }
        }
        let twice = counts.values().filter(|count| **count > 1).count();
        Ok((counts.len(), twice))
    }
}

/// Returns the file in which every replica notes what it executed.
pub fn ledger(cluster: &Cluster) -> PathBuf {
    cluster.dir().join("ledger")
}
