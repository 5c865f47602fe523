//! Time, the queue of what happens next, and what goes wrong.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ballast_agent::worker::{self, Now};
use ballast_model::{Exit, NodeId, Timestamp};
use ballast_wire::agent::{AgentToManager, ManagerToAgent};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::Summary;
use super::host::Host;
use super::manager::Manager;

/// Virtual microseconds.
pub(super) type Micros = u64;

pub(super) const MILLI: Micros = 1000;
pub(super) const SECOND: Micros = 1_000_000;
/// What the calendar says when a run begins.
const EPOCH: u64 = 1_800_000_000_000_000;
/// How long everything may take to come to rest once the faults have stopped.
const REST_WITHIN: Micros = 180 * SECOND;
/// Things that happen in one run at most: a loop without time passing is a failure, too.
const EVENTS: u64 = 2_000_000;

/// What happens next.
#[derive(Debug, Clone)]
pub(super) enum Event {
    /// From this life of the agent.
    ToManager(NodeId, u64, AgentToManager),
    ToAgent(NodeId, ManagerToAgent),
    Connect(NodeId),
    /// The same, after the connection that there is has broken.
    Reconnect(NodeId),
    Heartbeat(NodeId),
    /// To the worker of this life of an agent.
    Worker(NodeId, u64, worker::Event),
    AgentStart(NodeId),
    ProcessEnd(NodeId, u32, Exit),
    /// The oldest proposal is applied.
    Commit,
    LeaderTick,
    LeaderStart,
    User,
    Fault,
    Heal(NodeId),
}

/// How bad it is; drawn once per run, so that some runs are calm in most respects.
#[derive(Debug)]
pub(super) struct Faults {
    pub on: bool,
    pub loss: f64,
    pub repeat: f64,
    pub late: f64,
    pub exits: f64,
    pub rejects: f64,
    pub unknown: f64,
    pub gap: Micros,
}

/// The whole of it.
#[derive(Debug)]
pub(super) struct World {
    pub rng: StdRng,
    pub now: Micros,
    base: Instant,
    queue: BTreeMap<(Micros, u64), Event>,
    next: u64,
    /// When the last message of a link arrives: without faults they keep their order.
    links: BTreeMap<(NodeId, bool), Micros>,
    pub faults: Faults,
    pub manager: Manager,
    pub hosts: BTreeMap<NodeId, Host>,
    pub summary: Summary,
    pub services: u64,
    /// How often the user wished for something.
    pub wishes: u64,
    verbose: bool,
    trace: Vec<String>,
}

impl World {
    pub fn new(seed: u64, verbose: bool) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let level = |rng: &mut StdRng, most: f64| {
            if rng.random_bool(0.4) {
                0.0
            } else {
                rng.random_range(0.0..most)
            }
        };
        let faults = Faults {
            on: true,
            loss: level(&mut rng, 0.2),
            repeat: level(&mut rng, 0.2),
            late: level(&mut rng, 0.3),
            exits: level(&mut rng, 0.5),
            rejects: level(&mut rng, 0.2),
            unknown: level(&mut rng, 0.2),
            gap: rng.random_range(50..2000) * MILLI,
        };
        let nodes = rng.random_range(4..8);
        let hosts = (1..=nodes)
            .map(|n| (NodeId::from_bits(n), Host::new(n)))
            .collect();
        let mut world = Self {
            rng,
            now: 0,
            base: Instant::now(),
            queue: BTreeMap::new(),
            next: 0,
            links: BTreeMap::new(),
            faults,
            manager: Manager::default(),
            hosts,
            summary: Summary::default(),
            services: 0,
            wishes: 0,
            verbose,
            trace: Vec::new(),
        };
        world.at(0, Event::LeaderStart);
        for id in world.hosts.keys().copied().collect::<Vec<_>>() {
            world.after(10 * MILLI, Event::AgentStart(id));
        }
        world.after(SECOND / 10, Event::User);
        world.after(SECOND, Event::Fault);
        world
    }

    /// Runs until all is at rest.
    ///
    /// # Errors
    /// What is wrong.
    pub fn run(&mut self) -> Result<(), String> {
        let calm = self.rng.random_range(5..15) * SECOND;
        while self.now < calm {
            self.step()?;
        }
        self.stop_faults();
        let give_up = self.now + REST_WITHIN;
        let mut look = self.now;
        loop {
            self.step()?;
            if self.now < look {
                continue;
            }
            look = self.now + SECOND / 4;
            match self.at_rest() {
                Ok(()) => break,
                Err(reason) if self.now > give_up => {
                    return Err(format!("does not come to rest: {reason}"));
                }
                Err(_) => {}
            }
        }
        self.check_replicas()?;
        self.summary.digest = self.manager.digest();
        Ok(())
    }

    pub fn summary(&self) -> Summary {
        self.summary.clone()
    }

    pub fn trace(&self) -> impl Iterator<Item = &str> {
        self.trace.iter().map(String::as_str)
    }

    /// Puts down what happened, if anybody will read it.
    pub fn say(&mut self, words: impl FnOnce() -> String) {
        if self.verbose {
            let line = format!("{:>10.3} ms  {}", self.now as f64 / 1000.0, words());
            self.trace.push(line);
        }
    }

    pub fn at(&mut self, at: Micros, event: Event) {
        self.next += 1;
        self.queue.insert((at, self.next), event);
    }

    pub fn after(&mut self, delay: Micros, event: Event) {
        self.at(self.now + delay, event);
    }

    /// Returns a delay between these two.
    pub fn draw(&mut self, from: Micros, to: Micros) -> Micros {
        self.rng.random_range(from..to)
    }

    /// Returns whether something happens that has this chance, faults being on.
    pub fn unlucky(&mut self, chance: f64) -> bool {
        self.faults.on && chance > 0.0 && self.rng.random_bool(chance)
    }

    pub fn time(&self) -> Now {
        Now {
            mono: self.base + Duration::from_micros(self.now),
            wall: self.wall(),
        }
    }

    pub fn wall(&self) -> Timestamp {
        Timestamp(EPOCH + self.now)
    }

    /// Returns when a moment of the worker's clock is.
    pub fn micros(&self, at: Instant) -> Micros {
        let after = at.saturating_duration_since(self.base).as_micros();
        u64::try_from(after).unwrap_or(u64::MAX)
    }

    /// Sends a message over a node's link, if it is lucky.
    pub fn send(&mut self, node: NodeId, event: Event) {
        let cut = self.hosts.get(&node).is_none_or(|host| host.silent);
        if cut || self.unlucky(self.faults.loss) {
            self.summary.disturbed += u64::from(!cut);
            return;
        }
        if self.unlucky(self.faults.repeat) {
            self.summary.disturbed += 1;
            let delay = self.draw(MILLI, 2 * SECOND);
            self.after(delay, event.clone());
        }
        if self.unlucky(self.faults.late) {
            let delay = self.draw(MILLI, SECOND);
            self.after(delay, event);
            return;
        }
        let up = matches!(event, Event::ToManager(..));
        let at = self.now + self.draw(MILLI / 10, 2 * MILLI);
        let last = self.links.entry((node, up)).or_default();
        let at = at.max(*last + 1);
        *last = at;
        self.at(at, event);
    }

    fn step(&mut self) -> Result<(), String> {
        self.summary.events += 1;
        if self.summary.events > EVENTS {
            return Err(format!("{EVENTS} events and no end"));
        }
        let ((at, _), event) = self.queue.pop_first().expect("ticks never end");
        self.now = self.now.max(at);
        match event {
            Event::ToManager(node, life, message) => self.manager_hears(node, life, message),
            Event::ToAgent(node, message) => self.agent_hears(node, message)?,
            Event::Connect(node) => self.connect(node),
            Event::Reconnect(node) => self.reconnect(node),
            Event::Heartbeat(node) => self.heartbeat(node),
            Event::Worker(node, life, event) => self.worker(node, life, event)?,
            Event::AgentStart(node) => self.start_agent(node)?,
            Event::ProcessEnd(node, pid, exit) => self.process_end(node, pid, exit),
            Event::Commit => self.commit()?,
            Event::LeaderTick => self.leader_tick()?,
            Event::LeaderStart => self.start_leader(),
            Event::User => self.user_acts(),
            Event::Fault => self.fault(),
            Event::Heal(node) => self.heal(node),
        }
        Ok(())
    }

    /// Lets one thing go wrong, and plans the next.
    fn fault(&mut self) {
        if !self.faults.on {
            return;
        }
        let node = self.any_node();
        match self.rng.random_range(0..10) {
            0..=2 => self.crash_agent(node, false),
            3 => self.crash_agent(node, true),
            4..=5 => {
                self.say(|| format!("node {node} falls silent"));
                let host = self.hosts.get_mut(&node).expect("known");
                host.silent = true;
                host.connected = false;
                let delay = self.draw(100 * MILLI, 4 * SECOND);
                self.after(delay, Event::Heal(node));
            }
            6 => self.crash_leader(),
            7 => self.reconnect(node),
            8 => self.end_some_process(node),
            _ => self.hang_some_process(node),
        }
        let gap = self.faults.gap;
        let delay = self.draw(gap / 10, gap);
        self.after(delay, Event::Fault);
    }

    fn any_node(&mut self) -> NodeId {
        let at = self.rng.random_range(0..self.hosts.len());
        *self.hosts.keys().nth(at).expect("below the length")
    }

    fn heal(&mut self, node: NodeId) {
        let host = self.hosts.get_mut(&node).expect("known");
        if host.silent {
            host.silent = false;
            self.say(|| format!("node {node} is heard again"));
            self.after(MILLI, Event::Connect(node));
        }
    }

    fn stop_faults(&mut self) {
        self.say(|| "faults stop".to_owned());
        self.faults.on = false;
        self.user_calms_down();
        for id in self.hosts.keys().copied().collect::<Vec<_>>() {
            let host = self.hosts.get_mut(&id).expect("known");
            host.silent = false;
            for process in host.processes.values_mut() {
                process.hung = false;
            }
            // What was late is too late now: every agent says all that it knows.
            self.after(4 * SECOND, Event::Reconnect(id));
        }
    }
}
