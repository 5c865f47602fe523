//! The engine without its sockets: which request goes out when and on which connection, and what
//! became of it.
//!
//! Time is handed in, in nanoseconds of a clock that began before the first connection was opened;
//! what is to be done outside goes through [`Wire`]. So a simulation runs the very code that a run
//! does (`crate::engine::simulation`).
//!
//! Every request that was released is told to the recorder exactly once when it ends, whatever
//! happens to connections: it is in a pool's backlog, or in flight on one connection, or done.
//!
//! - `asking`: what is due, and who may take it
//! - `answering`: what comes back
//! - `opening`: connections that come and go

mod answering;
mod asking;
mod opening;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::ops::Range;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::connection::Connection;
use super::flights::Flights;
use super::head::Memo;
use super::pool::Pool;
use super::render::Renderer;
use super::wire::Wire;
use crate::plan::{Checker, Lane, Pacing, Picker, Protocol, Schedule, Think};
use crate::recorder::Recorder;

/// Something that happens to a connection at a time: the first first.
type Later = Reverse<(u64, u32, u32, Then)>;

/// What happens then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Then {
    /// It is opened again.
    Reopen,
    /// Its user has thought.
    Ask,
}

/// When connections are given up.
#[derive(Debug, Clone, Copy)]
struct Churn {
    requests: u64,
    every_ns: Option<u64>,
    reset: bool,
}

/// One lane of a run over plain HTTP/1.1.
#[derive(Debug)]
pub struct Core {
    index: u64,
    lanes: u64,
    zero_ns: u64,
    end_ns: u64,
    pipeline: u32,
    connect_ns: u64,
    request_ns: u64,
    /// None of an open loop.
    think: Option<Think>,
    churn: Churn,

    picker: Picker,
    renderer: Renderer,
    memo: Memo,
    /// One for each connection if there is anything to check.
    checkers: Vec<Checker>,
    pools: Vec<Pool>,
    of_target: Vec<u16>,
    connections: Vec<Connection>,
    flights: Flights,
    /// Requests in all backlogs.
    waiting: usize,

    /// Attempts to connect with their deadlines, in order; those that are over are still among
    /// them until they come first.
    attempts: VecDeque<(u64, u32, u32)>,
    connecting: usize,
    to_open: VecDeque<u32>,
    later: BinaryHeap<Later>,
    churn_ns: u64,
    churn_turn: u32,

    schedule: Option<Schedule>,
    /// When the next request is due.
    due_ns: Option<u64>,
    released: u64,
    started: bool,
    stopped: bool,
    rng: SmallRng,
    recorder: Recorder,
    done: u64,
    failed: u64,
}

impl Core {
    /// Returns a lane whose schedule begins at `zero_ns` of the clock.
    pub fn new(lane: &Lane, zero_ns: u64, recorder: Recorder) -> Self {
        let plan = &*lane.plan;
        let (pools, of_target) = Pool::all(plan);
        let connections: Vec<_> = Pool::shares(&pools, lane.connections())
            .into_iter()
            .map(Connection::new)
            .collect();
        let checkers = if plan.checks.is_empty() {
            Vec::new()
        } else {
            vec![Checker::new(&plan.checks); connections.len()]
        };
        let share = lane.of as f64 / plan.churn.connections_per_second.unwrap_or(f64::NAN);
        let mut core = Self {
            index: lane.index as u64,
            lanes: lane.of as u64,
            zero_ns,
            end_ns: zero_ns.saturating_add(nanos(plan.duration)),
            pipeline: match plan.protocol {
                Protocol::Http1 { pipeline } => pipeline.max(1),
                _ => 1,
            },
            connect_ns: nanos(plan.timeouts.connect),
            request_ns: nanos(plan.timeouts.request),
            think: match plan.pacing {
                Pacing::Open(_) => None,
                Pacing::Closed { think } => Some(think),
            },
            churn: Churn {
                requests: plan
                    .churn
                    .requests_per_connection
                    .unwrap_or(u64::MAX)
                    .max(1),
                every_ns: Duration::try_from_secs_f64(share).ok().map(nanos),
                reset: plan.churn.reset,
            },
            picker: Picker::new(plan),
            renderer: Renderer::new(plan, lane.index),
            memo: Memo::default(),
            checkers,
            pools,
            of_target,
            flights: Flights::new(connections.len()),
            waiting: 0,
            attempts: VecDeque::new(),
            connecting: 0,
            to_open: VecDeque::new(),
            later: BinaryHeap::new(),
            churn_ns: zero_ns,
            churn_turn: 0,
            schedule: lane.schedule(),
            due_ns: None,
            released: 0,
            started: false,
            stopped: false,
            rng: SmallRng::seed_from_u64(plan.seed ^ lane.index as u64),
            recorder,
            done: 0,
            failed: 0,
            connections,
        };
        core.draw();
        core
    }

    /// Begins to open every connection.
    pub fn open_all(&mut self, wire: &mut impl Wire, now_ns: u64) {
        for connection in self.numbers() {
            self.reopen(connection);
        }
        self.pump(wire, now_ns);
    }

    /// Does whatever is due by now.
    pub fn poll(&mut self, wire: &mut impl Wire, now_ns: u64) {
        if !self.started && now_ns >= self.zero_ns {
            self.started = true;
            self.churn_ns = now_ns.saturating_add(self.churn.every_ns.unwrap_or_default());
            for connection in self.numbers() {
                self.offer(wire, connection, now_ns);
            }
        }
        if self.think.is_some() && now_ns >= self.end_ns {
            self.stop();
        }
        self.release(wire, now_ns);
        self.expire(wire, now_ns);
        self.wake(wire, now_ns);
        self.retire(wire, now_ns);
        self.pump(wire, now_ns);
    }

    /// Returns when [`Core::poll`] has something to do next, if nothing else happens before.
    pub fn next_ns(&self) -> u64 {
        let mut next = if self.started {
            self.due_ns.unwrap_or(u64::MAX)
        } else {
            self.zero_ns
        };
        if let Some((_, sent_ns)) = self.flights.oldest() {
            next = next.min(sent_ns.saturating_add(self.request_ns));
        }
        if let Some((deadline_ns, ..)) = self.attempts.front() {
            next = next.min(*deadline_ns);
        }
        if let Some(Reverse((at_ns, ..))) = self.later.peek() {
            next = next.min(*at_ns);
        }
        if self.waiting > 0 {
            let oldest = self.pools.iter().filter_map(|pool| pool.backlog.front());
            let due_ns = oldest.map(|flight| flight.due_ns).min().unwrap_or(u64::MAX);
            next = next.min(due_ns.saturating_add(self.request_ns));
        }
        if self.churn.every_ns.is_some() && self.started {
            next = next.min(self.churn_ns);
        }
        if self.think.is_some() && !self.stopped {
            next = next.min(self.end_ns);
        }
        next
    }

    /// Schedules nothing more.
    pub fn stop(&mut self) {
        self.stopped = true;
        self.due_ns = None;
    }

    /// Returns whether every request has ended and no more will be made.
    pub fn is_done(&self, now_ns: u64) -> bool {
        self.is_scheduled(now_ns) && self.waiting == 0 && self.flights.is_empty()
    }

    /// Returns whether all is scheduled that will be.
    fn is_scheduled(&self, now_ns: u64) -> bool {
        match self.think {
            None => self.due_ns.is_none(),
            Some(_) => self.stopped || now_ns >= self.end_ns,
        }
    }

    /// Returns the requests that ended since the last call, and how many of them failed.
    pub fn progress(&mut self) -> (u64, u64) {
        (
            std::mem::take(&mut self.done),
            std::mem::take(&mut self.failed),
        )
    }

    /// Returns the recorder, for its ticks.
    pub fn recorder(&mut self) -> &mut Recorder {
        &mut self.recorder
    }

    /// Ends the run.
    pub fn into_recorder(self) -> Recorder {
        self.recorder
    }

    /// Does what was put off until now.
    fn wake(&mut self, wire: &mut impl Wire, now_ns: u64) {
        while let Some(Reverse((at_ns, connection, generation, then))) = self.later.peek().copied()
            && at_ns <= now_ns
        {
            self.later.pop();
            let it = &mut self.connections[connection as usize];
            if it.generation != generation {
                continue;
            }
            match then {
                Then::Reopen => self.reopen_if_needed(connection, now_ns),
                Then::Ask => {
                    it.pauses -= 1;
                    self.offer(wire, connection, now_ns);
                }
            }
        }
    }

    /// Returns the numbers of all connections.
    fn numbers(&self) -> Range<u32> {
        0..u32::try_from(self.connections.len()).expect("a plan has at most four million")
    }

    fn since_zero(&self, at_ns: u64) -> u64 {
        at_ns.saturating_sub(self.zero_ns)
    }
}

/// Returns a span in nanoseconds; 584 years for longer ones.
pub(super) fn nanos(span: Duration) -> u64 {
    span.as_secs()
        .saturating_mul(1_000_000_000)
        .saturating_add(u64::from(span.subsec_nanos()))
}
