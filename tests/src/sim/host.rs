//! A machine: its disk, its processes, and the shell around its agent's worker.

use std::collections::BTreeMap;

use ballast_agent::worker::{
    Effect, Event as WorkerEvent, ProbeFailure, Process, Record, Start, Worker,
};
use ballast_model::{
    AssignmentId, Bytes, Capacity, Exit, Generation, Incarnation, MilliCpu, NodeDescription,
    NodeId, PortRange, Sequence, TaskId, limits,
};
use ballast_wire::agent::{AgentHello, AgentToManager, AssignmentSet, ManagerToAgent};
use rand::RngExt as _;

use super::world::{Event, MILLI, Micros, SECOND, World};

/// A program that runs, whether or not its agent does.
#[derive(Debug)]
pub(super) struct Running {
    pub assignment: AssignmentId,
    pub task: TaskId,
    pub ports: Vec<u16>,
    pub start_time: u64,
    /// When the agent hears of its start; of its end it hears after that.
    told: Micros,
    pub hung: bool,
    deaf: bool,
}

/// A machine.
#[derive(Debug)]
pub(super) struct Host {
    pub id: NodeId,
    description: NodeDescription,
    worker: Option<Worker>,
    /// Which life of the agent this is: events for an earlier one are dropped.
    life: u64,
    incarnation: Incarnation,
    pub connected: bool,
    pub silent: bool,
    /// On disk.
    set: AssignmentSet,
    records: BTreeMap<AssignmentId, Record>,
    pub processes: BTreeMap<u32, Running>,
    next_pid: u32,
    /// Highest generation that was acted on.
    applied: Generation,
    /// Highest sequence number pushed for each assignment in this life.
    pushed: BTreeMap<AssignmentId, Sequence>,
}

impl Host {
    pub fn new(number: u64) -> Self {
        let zone = if number.is_multiple_of(2) { "a" } else { "b" };
        Self {
            id: NodeId::from_bits(number),
            description: NodeDescription {
                name: format!("n{number}"),
                address: [10, 0, 0, u8::try_from(number).expect("few nodes")].into(),
                capacity: Capacity {
                    task_slots: 24,
                    ports: PortRange {
                        first: 20_000,
                        last: 20_063,
                    },
                    ..Capacity::of(MilliCpu::from_cores(8), Bytes::from_mib(4096))
                },
                attributes: BTreeMap::new(),
                labels: BTreeMap::from([("zone".to_owned(), zone.to_owned())]),
                pool: ballast_model::node::DEFAULT_POOL.to_owned(),
            },
            worker: None,
            life: 0,
            incarnation: Incarnation(0),
            connected: false,
            silent: false,
            set: AssignmentSet::default(),
            records: BTreeMap::new(),
            processes: BTreeMap::new(),
            next_pid: 100,
            applied: Generation(0),
            pushed: BTreeMap::new(),
        }
    }
}

impl World {
    pub(super) fn start_agent(&mut self, id: NodeId) -> Result<(), String> {
        let (time, incarnation) = (self.time(), Incarnation(self.wall().0));
        let host = self.hosts.get_mut(&id).expect("known");
        if host.worker.is_some() {
            return Ok(());
        }
        host.life += 1;
        host.incarnation = incarnation;
        host.pushed.clear();
        let life = host.life;
        let mut strays = BTreeMap::new();
        let mut records = host.records.clone();
        for record in records.values_mut() {
            record.process = None;
        }
        for (&pid, running) in &host.processes {
            let process = Process {
                pid,
                start_time: running.start_time,
            };
            match records.get_mut(&running.assignment) {
                Some(record) if record.task == running.task => record.process = Some(process),
                _ => drop(strays.insert(running.assignment, (running.task, process))),
            }
        }
        let mut worker = Worker::default();
        let records = records.into_values().collect();
        let effects = worker.restore(host.set.clone(), records, strays, time, &mut self.rng);
        self.hosts.get_mut(&id).expect("known").worker = Some(worker);
        self.say(|| format!("agent on {id} starts, life {life}"));
        self.run_effects(id, effects)?;
        self.after(MILLI, Event::Connect(id));
        self.after(MILLI, Event::Heartbeat(id));
        Ok(())
    }

    /// Ends an agent, or its whole machine; it comes back with all that is on its disk. (A lost disk
    /// is not played: a try that ended meanwhile is then begun again under the same id, which the
    /// manager ignores.)
    pub(super) fn crash_agent(&mut self, id: NodeId, machine: bool) {
        self.summary.crashes += 1;
        self.say(|| format!("crash on {id}, whole machine: {machine}"));
        let host = self.hosts.get_mut(&id).expect("known");
        host.worker = None;
        host.connected = false;
        if machine {
            host.processes.clear();
        }
        let delay = self.draw(5 * MILLI, 3 * SECOND);
        self.after(delay, Event::AgentStart(id));
    }

    pub(super) fn reconnect(&mut self, id: NodeId) {
        self.hosts.get_mut(&id).expect("known").connected = false;
        self.connect(id);
    }

    pub(super) fn connect(&mut self, id: NodeId) {
        if self.manager.reconciler.is_none() {
            return;
        }
        let host = self.hosts.get_mut(&id).expect("known");
        let Some(worker) = host
            .worker
            .as_ref()
            .filter(|_| !host.connected && !host.silent)
        else {
            return;
        };
        host.connected = true;
        let life = host.life;
        let hello = AgentHello {
            node: id,
            incarnation: host.incarnation,
            description: host.description.clone(),
            generation: worker.generation(),
            tasks: worker.reports(),
        };
        self.send(id, Event::ToManager(id, life, AgentToManager::Hello(hello)));
    }

    pub(super) fn heartbeat(&mut self, id: NodeId) {
        let host = &self.hosts[&id];
        if host.worker.is_none() {
            return;
        }
        if host.connected {
            let life = host.life;
            self.send(id, Event::ToManager(id, life, AgentToManager::Heartbeat));
        } else {
            self.connect(id);
        }
        self.after(limits::HEARTBEAT_INTERVAL.0 * MILLI, Event::Heartbeat(id));
    }

    pub(super) fn agent_hears(
        &mut self,
        id: NodeId,
        message: ManagerToAgent,
    ) -> Result<(), String> {
        let host = self.hosts.get_mut(&id).expect("known");
        let (Some(worker), false) = (&host.worker, host.silent) else {
            return Ok(());
        };
        match message {
            ManagerToAgent::Assignments(set) => {
                if set.generation >= worker.generation() {
                    host.set = set.clone();
                }
                let life = host.life;
                self.worker(id, life, WorkerEvent::Assignments(set))
            }
            ManagerToAgent::Refused(_) => {
                host.connected = false;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    pub(super) fn worker(
        &mut self,
        id: NodeId,
        life: u64,
        event: WorkerEvent,
    ) -> Result<(), String> {
        let time = self.time();
        let host = self.hosts.get_mut(&id).expect("known");
        if host.life != life {
            return Ok(());
        }
        let Some(worker) = &mut host.worker else {
            return Ok(());
        };
        let fresh_set = matches!(event, WorkerEvent::Assignments(_));
        let effects = worker.step(event, time, &mut self.rng);
        if fresh_set {
            // Nobody wants what no assignment has claimed.
            for (_, process) in worker.take_strays().into_values() {
                self.after(MILLI, Event::ProcessEnd(id, process.pid, Exit::Signal(9)));
            }
        }
        self.run_effects(id, effects)
    }

    fn run_effects(&mut self, id: NodeId, effects: Vec<Effect>) -> Result<(), String> {
        for effect in effects {
            self.run_effect(id, effect)?;
        }
        let host = &self.hosts[&id];
        let deadline = host.worker.as_ref().and_then(Worker::next_deadline);
        let life = host.life;
        if let Some(deadline) = deadline {
            let at = self.micros(deadline).max(self.now + 1);
            self.at(at, Event::Worker(id, life, WorkerEvent::Tick));
        }
        Ok(())
    }

    fn run_effect(&mut self, id: NodeId, effect: Effect) -> Result<(), String> {
        let host = self.hosts.get_mut(&id).expect("known");
        match effect {
            Effect::Push(health) => {
                let last = host.pushed.insert(health.assignment, health.sequence);
                if last.is_some_and(|last| last >= health.sequence) {
                    return Err(format!("{id}: health of {health:?} after {last:?}"));
                }
            }
            Effect::Report(report) => {
                if host.connected {
                    let (life, report) = (host.life, AgentToManager::Report(vec![report]));
                    self.send(id, Event::ToManager(id, life, report));
                }
            }
            Effect::Start(start) => self.start_process(id, &start)?,
            Effect::Adopt(bound, task, process) => {
                if !host.processes.contains_key(&process.pid) {
                    // It ended before it was watched.
                    let assignment = bound.assignment.assignment;
                    let exited = WorkerEvent::Exited(assignment, task, Exit::Unknown);
                    let life = host.life;
                    self.after(MILLI / 10, Event::Worker(id, life, exited));
                }
            }
            Effect::Signal(_, process, _) => {
                let Some(running) = host.processes.get(&process.pid) else {
                    return Ok(());
                };
                if !running.deaf && !running.hung {
                    let delay = self.draw(MILLI, 100 * MILLI);
                    self.after(delay, Event::ProcessEnd(id, process.pid, Exit::Signal(15)));
                }
            }
            Effect::Kill(_, _, process) => {
                let delay = self.draw(MILLI, 5 * MILLI);
                self.after(delay, Event::ProcessEnd(id, process.pid, Exit::Signal(9)));
            }
            Effect::Probe(probe) => {
                let life = host.life;
                let alive = host.processes.get(&probe.process.pid).map(|p| !p.hung);
                let (delay, result) = match alive {
                    Some(true) => (self.draw(MILLI / 10, 3 * MILLI), Ok(())),
                    Some(false) => (probe.timeout.0 * MILLI, Err("no answer")),
                    None => (MILLI / 10, Err("connection refused")),
                };
                let refused = alive.is_none();
                let event = WorkerEvent::Probed {
                    assignment: probe.bound.assignment.assignment,
                    task: probe.task,
                    demand: probe.demand,
                    result: result.map_err(|reason| ProbeFailure {
                        reason: reason.to_owned(),
                        refused,
                    }),
                };
                self.after(delay, Event::Worker(id, life, event));
            }
            Effect::Remember(record) => drop(host.records.insert(record.assignment, record)),
            Effect::Forget(assignment) => drop(host.records.remove(&assignment)),
            Effect::Applied(generation) => {
                if generation < host.applied {
                    return Err(format!("{id}: back from {} to {generation}", host.applied));
                }
                host.applied = generation;
            }
        }
        Ok(())
    }

    fn start_process(&mut self, id: NodeId, start: &Start) -> Result<(), String> {
        let (assignment, task) = (start.bound.assignment.assignment, start.task);
        let host = &self.hosts[&id];
        if let Some(other) = host.processes.values().find(|p| p.assignment == assignment) {
            return Err(format!(
                "{id}: {task} started beside {} in {assignment}",
                other.task
            ));
        }
        let ports: Vec<u16> = start.bound.assignment.claim.ports.clone();
        let held = |port: &&u16| host.processes.values().any(|p| p.ports.contains(port));
        let taken = ports.iter().find(held).copied();
        let life = host.life;
        let delay = self.draw(MILLI / 2, 20 * MILLI);
        let refusal = match taken {
            Some(port) => Some(format!("port {port} is in use")),
            None if self.unlucky(self.faults.rejects) => Some("no such program".to_owned()),
            None => None,
        };
        if let Some(reason) = refusal {
            let event = WorkerEvent::Rejected(assignment, task, reason);
            self.after(delay, Event::Worker(id, life, event));
            return Ok(());
        }
        self.summary.starts += 1;
        let (hung, deaf) = (self.unlucky(0.02), self.rng.random_bool(0.1));
        let (start_time, told) = (self.now, self.now + delay);
        let host = self.hosts.get_mut(&id).expect("known");
        host.next_pid += 1;
        let pid = host.next_pid;
        let running = Running {
            assignment,
            task,
            ports,
            start_time,
            told,
            hung,
            deaf,
        };
        host.processes.insert(pid, running);
        let event = WorkerEvent::Started(assignment, task, Process { pid, start_time });
        self.after(delay, Event::Worker(id, life, event));
        self.plan_end(id, pid, start.bound.template.job);
        Ok(())
    }

    /// Jobs end; other programs do so when they are unlucky.
    fn plan_end(&mut self, id: NodeId, pid: u32, job: bool) {
        let fails = self.unlucky(self.faults.exits);
        if !job && !fails {
            return;
        }
        let exit = match self.rng.random_range(0..4) {
            _ if !fails => Exit::Code(0),
            0 => Exit::Code(0),
            1 => Exit::Signal(11),
            _ => Exit::Code(1),
        };
        let delay: Micros = self.draw(0, 3 * SECOND);
        self.after(delay, Event::ProcessEnd(id, pid, exit));
    }

    pub(super) fn process_end(&mut self, id: NodeId, pid: u32, exit: Exit) {
        let host = self.hosts.get_mut(&id).expect("known");
        let Some(running) = host.processes.remove(&pid) else {
            return;
        };
        let (life, assignment, task) = (host.life, running.assignment, running.task);
        self.say(|| format!("{id}: process of {task} in {assignment} ends, {exit}"));
        let seen = running.told.max(self.now + MILLI / 10) + 1;
        let exiting = WorkerEvent::Exiting(assignment, task);
        self.at(seen, Event::Worker(id, life, exiting));
        let delay = self.draw(MILLI / 5, 5 * MILLI);
        let exited = WorkerEvent::Exited(assignment, task, exit);
        self.at(seen + delay, Event::Worker(id, life, exited));
    }

    pub(super) fn end_some_process(&mut self, id: NodeId) {
        let pids: Vec<u32> = self.hosts[&id].processes.keys().copied().collect();
        if !pids.is_empty() {
            let pid = pids[self.rng.random_range(0..pids.len())];
            self.process_end(id, pid, Exit::Signal(9));
        }
    }

    pub(super) fn hang_some_process(&mut self, id: NodeId) {
        let pids: Vec<u32> = self.hosts[&id].processes.keys().copied().collect();
        if !pids.is_empty() {
            let pid = pids[self.rng.random_range(0..pids.len())];
            let host = self.hosts.get_mut(&id).expect("known");
            host.processes.get_mut(&pid).expect("listed").hung = true;
        }
    }
}
