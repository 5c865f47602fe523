//! The shell around the [`Worker`]: hands it events, runs its effects, keeps its timer.
//!
//! Events are stepped under one lock and their effects are run under it, too, so that they happen
//! in the order in which they were decided; therefore no effect blocks. What takes time is spawned
//! and comes back as another event.

mod housekeeping;
mod probes;
mod tasks;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use ballast_model::{AssignmentId, Generation, Incarnation, NodeId, TaskId, TaskState, Timestamp};
use ballast_wire::agent::TaskReport;
use ballast_wire::feed::EndpointHealth;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::driver::process::{ProcessDriver, procfs};
use crate::feed::Feeds;
use crate::logs::Logs;
use crate::metrics::Metrics;
use crate::report::Reports;
use crate::store::{Loaded, Store};
use crate::worker::{Effect, Event, Now, Process, Record, Worker};

/// Programs that are being started at once. Each takes a thread for some milliseconds; more would
/// only make them wait for the same cores.
const STARTS_AT_ONCE: usize = 16;
/// Searches for what dead tasks have left behind that run at once: without cgroups each reads all
/// of `/proc`.
const SWEEPS_AT_ONCE: usize = 4;
/// Probe commands that run at once.
const COMMANDS_AT_ONCE: usize = 16;
/// The longest wait for the tasks of an agent that stops them when it ends, beyond their own drain
/// and grace.
const STOP_MARGIN: Duration = Duration::from_secs(10);
/// The longest wait for the disk when the agent ends.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);

/// Returns the time by both clocks.
pub fn now() -> Now {
    let wall = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Now {
        mono: Instant::now(),
        wall: Timestamp(u64::try_from(wall.as_micros()).unwrap_or(u64::MAX)),
    }
}

struct State {
    worker: Worker,
    rng: StdRng,
}

/// The agent of one node, apart from its links.
pub struct Agent {
    state: Mutex<State>,
    /// Runs programs.
    pub driver: Arc<ProcessDriver>,
    /// Pushes health to the ingresses.
    pub feeds: Feeds,
    /// Reports to the manager.
    pub reports: Reports,
    /// Task logs.
    pub logs: Arc<Logs>,
    /// What is counted.
    pub metrics: Metrics,
    /// This life.
    pub incarnation: Incarnation,
    store: Store,
    address: IpAddr,
    starts: Arc<Semaphore>,
    commands: Arc<Semaphore>,
    sweeps: Arc<Semaphore>,
    /// Assignments that are over and whose cgroups and folders are still there.
    retired: Mutex<Vec<AssignmentId>>,
    rearmed: Notify,
    /// Ends every watch, probe and start of this life.
    life: CancellationToken,
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agent")
            .field("node", &self.driver.node)
            .finish_non_exhaustive()
    }
}

/// What an [`Agent`] is made of.
#[derive(Debug)]
pub struct Parts {
    /// Runs programs.
    pub driver: ProcessDriver,
    /// Where its tasks are reached.
    pub address: IpAddr,
    /// What an earlier life has left, and where the next one finds what this one leaves.
    pub store: (Store, Loaded),
    /// Task logs.
    pub logs: Logs,
    /// Seeds task ids and jitter.
    pub seed: u64,
}

impl Agent {
    /// Takes up the work of an earlier life: adopts the tasks that run, restarts those that died.
    /// To be called inside a runtime.
    pub fn start(parts: Parts) -> Arc<Self> {
        let (store, loaded) = parts.store;
        let agent = Arc::new(Self {
            state: Mutex::new(State {
                worker: Worker::default(),
                rng: StdRng::seed_from_u64(parts.seed),
            }),
            driver: Arc::new(parts.driver),
            feeds: Feeds::default(),
            reports: Reports::default(),
            logs: Arc::new(parts.logs),
            metrics: Metrics::default(),
            incarnation: loaded.incarnation,
            store,
            address: parts.address,
            starts: Arc::new(Semaphore::new(STARTS_AT_ONCE)),
            commands: Arc::new(Semaphore::new(COMMANDS_AT_ONCE)),
            sweeps: Arc::new(Semaphore::new(SWEEPS_AT_ONCE)),
            retired: Mutex::default(),
            rearmed: Notify::new(),
            life: CancellationToken::new(),
        });
        if let Some(notice) = agent.driver.cgroups.notice() {
            tracing::warn!(notice, "limits");
        }
        let (records, strays) = find_survivors(&agent.driver, loaded.records);
        let adopted = records
            .iter()
            .filter(|record| record.process.is_some())
            .count();
        tracing::info!(
            assignments = loaded.set.assignments.len(),
            adopted,
            strays = strays.len(),
            "took up the tasks of this node"
        );
        let mut state = agent.lock();
        let State { worker, rng } = &mut *state;
        for effect in worker.restore(loaded.set, records, strays, now(), rng) {
            agent.run(effect);
        }
        drop(state);
        agent
    }

    /// Hands an event to the worker and runs its effects. Never blocks.
    pub fn dispatch(self: &Arc<Self>, event: Event) {
        let mut state = self.lock();
        if self.life.is_cancelled() {
            return;
        }
        if let Event::Assignments(set) = &event
            && set.generation >= state.worker.generation()
        {
            self.store.keep_set(set.clone());
        }
        let fresh_set = matches!(event, Event::Assignments(_));
        let before = state.worker.next_deadline();
        let State { worker, rng } = &mut *state;
        for effect in worker.step(event, now(), rng) {
            self.run(effect);
        }
        let after = state.worker.next_deadline();
        let strays = if fresh_set {
            state.worker.take_strays()
        } else {
            BTreeMap::new()
        };
        drop(state);
        if after.is_some_and(|after| before.is_none_or(|before| after < before)) {
            self.rearmed.notify_one();
        }
        for (assignment, (task, process)) in strays {
            tracing::warn!(%assignment, task_id = %task, pid = process.pid, "a process of this node belongs to no assignment: killed");
            self.driver.kill(assignment, process);
        }
    }

    /// Keeps the worker's timer, the logs' bounds and the folders until `shutdown`.
    pub async fn keep_time(self: Arc<Self>, shutdown: CancellationToken) {
        let house = tokio::spawn(self.clone().keep_house(shutdown.clone()));
        loop {
            let deadline = self.lock().worker.next_deadline();
            let due = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = self.rearmed.notified() => {}
                () = due => self.dispatch(Event::Tick),
            }
        }
        drop(house.await);
    }

    /// Ends all tasks as their policies say, and returns when they have ended.
    pub async fn stop_tasks(self: &Arc<Self>) {
        let longest = {
            let state = self.lock();
            let stops = state
                .worker
                .live()
                .map(|(bound, ..)| &bound.template.task.stop);
            stops
                .map(|stop| stop.drain.to_duration() + stop.grace.to_duration())
                .max()
        };
        self.dispatch(Event::StopAll);
        let limit = longest.unwrap_or_default() + STOP_MARGIN;
        let ended = async {
            while self.lock().worker.live().next().is_some() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if tokio::time::timeout(limit, ended).await.is_err() {
            tracing::warn!("some tasks could not be stopped");
        }
    }

    /// Ends this life: its tasks run on, nothing is done about them any more, and what the next
    /// life needs is on disk unless that takes too long. Blocks.
    pub fn close(&self) {
        // Under the lock: an event that is being stepped ends first.
        let state = self.lock();
        self.life.cancel();
        drop(state);
        self.clear_retired(false);
        // Only if no task is left in it.
        self.driver.cgroups.remove_node();
        self.store.close(FLUSH_LIMIT);
    }

    /// Runs a future until this life ends.
    fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        let life = self.life.clone();
        tokio::spawn(async move { life.run_until_cancelled(future).await });
    }

    /// Returns this node.
    pub fn node(&self) -> NodeId {
        self.driver.node
    }

    /// Keeps the ingresses for the next life.
    pub fn keep_ingresses(&self, ingresses: Vec<ballast_wire::agent::IngressAddress>) {
        self.store.keep_ingresses(ingresses);
    }

    /// Returns the set that was last acted on, and a report of every try; reports that were made
    /// before are part of it.
    pub fn snapshot(&self) -> (Generation, Vec<TaskReport>) {
        let state = self.lock();
        self.reports.begin();
        (state.worker.generation(), state.worker.reports())
    }

    /// Returns the health of every assignment, while `begin` sees to it that what changes from
    /// then on is queued.
    pub fn health(&self, begin: impl FnOnce()) -> Vec<EndpointHealth> {
        let state = self.lock();
        begin();
        state.worker.health(now())
    }

    /// Returns how many assignments are in each state.
    pub fn count_by_state(&self) -> BTreeMap<TaskState, usize> {
        self.lock().worker.count_by_state()
    }

    /// Returns each live try: its service's name, the try, its process.
    pub fn live(&self) -> Vec<(String, TaskId, Process)> {
        let state = self.lock();
        let live = state.worker.live();
        live.map(|(bound, task, process)| (bound.template.name.clone(), task, process))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(self: &Arc<Self>, effect: Effect) {
        match effect {
            Effect::Push(health) => self.feeds.push(health),
            Effect::Report(report) => self.reports.push(report),
            Effect::Start(start) => self.clone().start_task(start),
            Effect::Adopt(bound, task, process) => self.clone().adopt_task(bound, task, process),
            Effect::Signal(_, process, signal) => self.driver.signal(process, &signal),
            Effect::Kill(assignment, task, process) => {
                tracing::debug!(%assignment, task_id = %task, "killing a task");
                self.driver.kill(assignment, process);
            }
            Effect::Probe(probe) => self.clone().probe_task(probe),
            Effect::Remember(record) => self.store.keep(record),
            Effect::Forget(assignment) => self.forget(assignment),
            Effect::Applied(generation) => self.reports.applied(generation),
        }
    }

    fn forget(self: &Arc<Self>, assignment: AssignmentId) {
        self.store.forget(assignment);
        self.logs.forget(assignment);
        self.retired
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(assignment);
    }
}

/// Returns the records, with a process only where it is alive, and the processes of this node that
/// no record knows.
fn find_survivors(
    driver: &ProcessDriver,
    records: Vec<Record>,
) -> (Vec<Record>, BTreeMap<AssignmentId, (TaskId, Process)>) {
    let mut running = driver.find_running();
    let check = |mut record: Record| {
        let stray = running.remove(&record.assignment);
        let known = record.process.filter(|&process| procfs::is_alive(process));
        if known.is_none()
            && let Some((task, process)) = stray
        {
            // The agent died between the start and the record of it.
            record.task = task;
            record.process = Some(process);
        } else {
            record.process = known;
        }
        record
    };
    let records = records.into_iter().map(check).collect();
    (records, running)
}
