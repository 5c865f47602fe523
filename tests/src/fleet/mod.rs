//! Many agents in one process that run nothing: for what a manager does at scale.
//!
//! Each joins with the token, holds a link of its own (TLS, certificates on both sides) and sends
//! heartbeats, as an agent does. It answers an assignment set as its [`Manner`] says, and keeps
//! books of what it was told to run and when it first heard of it.

mod agent;
mod manager;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};
use ballast_link::{JoinToken, Trust, join};
use ballast_model::{Bytes, Capacity, MilliCpu, TaskId};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use manager::FleetManager;

/// Joins at a time: the manager draws its certificates one by one anyway.
const JOINS_AT_A_TIME: usize = 32;
/// Tries at one join: a manager whose backlog is full for a moment drops the call.
const JOIN_TRIES: usize = 5;
/// How often it is looked whether a condition holds.
const LOOK: Duration = Duration::from_millis(1);

/// How an agent answers an assignment set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// At once, that the set was taken over; it never says that a task runs.
    Acknowledges,
    /// At once, that every new task runs and is healthy.
    Runs,
    /// As [`Self::Runs`], so long after each set.
    Slow(Duration),
    /// It lives, and never reads a byte.
    Deaf,
    /// As [`Self::Runs`], but it resets its link at every set of that count, and connects again.
    Resets(usize),
}

/// What is counted over all agents.
#[derive(Debug, Default)]
struct Counts {
    connected: AtomicUsize,
    living: AtomicUsize,
    sets: AtomicUsize,
    resets: AtomicUsize,
    /// Each task that an agent was told to run, and when it first was, µs since the epoch.
    heard: Mutex<HashMap<TaskId, u64>>,
}

impl Counts {
    fn hear(&self, tasks: &[TaskId]) {
        let now = wall_us();
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.extend(tasks.iter().map(|task| (*task, now)));
    }
}

fn wall_us() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_micros()).unwrap_or(u64::MAX)
}

/// The agents.
#[derive(Debug)]
pub struct Fleet {
    counts: Arc<Counts>,
    stop: CancellationToken,
    agents: JoinSet<()>,
    credentials: Vec<Arc<Trust>>,
    manager: SocketAddr,
    capacity: Capacity,
}

/// Returns a node with room for so many tasks of 10 mCPU and 1 MiB.
pub fn room_for(tasks: u32) -> Capacity {
    Capacity {
        task_slots: tasks,
        ..Capacity::of(MilliCpu(tasks * 10), Bytes::from_mib(u64::from(tasks)))
    }
}

impl Fleet {
    /// Gets certificates for so many agents, which [`Self::connect`] brings up.
    ///
    /// # Errors
    /// One was refused.
    pub async fn join(
        manager: SocketAddr,
        token: &JoinToken,
        agents: usize,
        capacity: Capacity,
    ) -> Result<Self> {
        let room = Arc::new(Semaphore::new(JOINS_AT_A_TIME));
        let mut joins = JoinSet::new();
        for nth in 0..agents {
            let (token, room) = (token.clone(), Arc::clone(&room));
            joins.spawn(async move {
                let _turn = room.acquire().await;
                let name = agent::name(nth);
                let mut tries = 0;
                loop {
                    tries += 1;
                    match join::join(manager, &token, &name).await {
                        Ok(credentials) => break Ok((nth, Trust::new(credentials)?)),
                        Err(error) if tries == JOIN_TRIES => break Err(error),
                        Err(_) => {}
                    }
                }
            });
        }
        let mut credentials = Vec::with_capacity(agents);
        while let Some(joined) = joins.join_next().await {
            credentials.push(joined.context("a join")?.context("a join")?);
        }
        credentials.sort_by_key(|(nth, _)| *nth);
        Ok(Self {
            counts: Arc::default(),
            stop: CancellationToken::new(),
            agents: JoinSet::new(),
            credentials: credentials.into_iter().map(|(_, trust)| trust).collect(),
            manager,
            capacity,
        })
    }

    /// Starts every agent; `manner` says how each behaves.
    pub fn connect(&mut self, manner: impl Fn(usize) -> Manner) {
        for (nth, trust) in self.credentials.drain(..).enumerate() {
            let agent = agent::Agent {
                nth,
                trust,
                manager: self.manager,
                capacity: self.capacity.clone(),
                manner: manner(nth),
                counts: Arc::clone(&self.counts),
                stop: self.stop.clone(),
            };
            self.agents.spawn(agent.run());
        }
    }

    /// Returns how many have a link on which they were welcomed.
    pub fn connected(&self) -> usize {
        self.counts.connected.load(Ordering::Relaxed)
    }

    /// Returns how many tasks the agents hold that they were told to run and not to end.
    pub fn living(&self) -> usize {
        self.counts.living.load(Ordering::Relaxed)
    }

    /// Returns how many assignment sets arrived.
    pub fn sets(&self) -> usize {
        self.counts.sets.load(Ordering::Relaxed)
    }

    /// Returns how many links were reset by their agents.
    pub fn resets(&self) -> usize {
        self.counts.resets.load(Ordering::Relaxed)
    }

    /// Returns when each task was first heard of, µs since the epoch; forgets it.
    pub fn take_heard(&self) -> HashMap<TaskId, u64> {
        let heard = self.counts.heard.lock();
        std::mem::take(&mut *heard.unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until a condition holds; returns how long that took.
    ///
    /// # Errors
    /// It does not within `deadline`.
    pub async fn wait(
        &self,
        what: &str,
        deadline: Duration,
        holds: impl Fn(&Self) -> bool,
    ) -> Result<Duration> {
        let began = Instant::now();
        while !holds(self) {
            if began.elapsed() > deadline {
                let (connected, living) = (self.connected(), self.living());
                bail!("not {what} after {deadline:?}: {connected} connected, {living} tasks");
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(began.elapsed())
    }

    /// Ends every agent.
    pub async fn end(mut self) {
        self.stop.cancel();
        self.agents.shutdown().await;
    }
}
