//! What is to be done and what was: the part of a lane that all its connections share.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::Notify;

use crate::LoadError;
use crate::control::Control;
use crate::engine::render::Renderer;
use crate::plan::{
    BACKLOG, Check, Checker, Lane, Pacing, Pick, Picker, Plan, Request, Target, Template, Think,
};
use crate::record::ErrorClass;
use crate::recorder::{Limit, Recorder};
use crate::sample::{Opened, Sample};

use super::timer::{Pauses, Timer};

/// Requests released in one go before the connections get their turn.
const BATCH: u32 = 64;
/// How soon a request to stop is noticed.
const STOP_CHECK: Duration = Duration::from_millis(50);
/// Pause of a closed loop after a connection that could not be made: a target that refuses is not
/// asked as fast as this core can.
const REFUSED_PAUSE: Duration = Duration::from_millis(10);

/// One request that is due.
#[derive(Debug, Clone, Copy)]
pub struct Job {
    pub number: u64,
    pub target: u16,
    pub request: u32,
    /// Nanoseconds since the start.
    pub due_ns: u64,
}

/// How a request fared, as far as it got.
#[derive(Debug, Clone, Copy, Default)]
pub struct Course {
    pub sent_ns: u64,
    pub first_byte_ns: u64,
    pub sent_bytes: u64,
    pub received_bytes: u64,
}

/// Requests of one target that are due.
#[derive(Default)]
struct Queue {
    jobs: RefCell<VecDeque<Job>>,
    wake: Notify,
}

/// One connection's place: what it serves, and when it is to be made anew.
pub struct Slot {
    pub target: u16,
    retire: Cell<bool>,
    served: Cell<u64>,
}

impl Slot {
    fn new(target: u16) -> Self {
        Self {
            target,
            retire: Cell::new(false),
            served: Cell::new(0),
        }
    }

    /// Returns whether its connection is to be made anew before it is used again.
    pub fn is_retired(&self) -> bool {
        self.retire.get()
    }

    /// Takes down that its connection is made anew.
    pub fn renewed(&self) {
        self.served.set(0);
        self.retire.set(false);
    }
}

/// Where one request after the other comes from; each connection or stream has its own.
pub struct Turn {
    target: u16,
    /// Of a closed loop.
    picker: Picker,
    /// No request before then.
    pause: Option<Instant>,
}

pub struct Work {
    pub lane: Lane,
    zero: Instant,
    recorder: RefCell<Recorder>,
    queues: Vec<Queue>,
    addresses: Vec<Cell<usize>>,
    /// Numbers given out by a closed loop.
    next: Cell<u64>,
    stopping: Cell<bool>,
    /// Nothing more will be queued. In a closed loop nothing ever is.
    closed: Cell<bool>,
    done: Cell<u64>,
    failed: Cell<u64>,
    pauses: Pauses,
    rng: RefCell<StdRng>,
    /// Of requests of HTTP/1.1.
    pub renderer: RefCell<Renderer>,
    /// Of each target's requests, the bodies that are always the same.
    bodies: Vec<Vec<Option<Bytes>>>,
    /// A status of 400 or more is a failure; no check has a say in it.
    judges_status: bool,
}

impl Job {
    pub fn pick(&self) -> Pick {
        Pick {
            target: self.target,
            request: self.request,
        }
    }
}

impl Work {
    /// Must be called within the runtime.
    pub fn new(lane: Lane, zero: Instant, recorder: Recorder) -> std::io::Result<Self> {
        let targets = lane.plan.targets.len();
        let seed = lane.plan.seed.wrapping_add(lane.index as u64);
        Ok(Self {
            zero,
            recorder: RefCell::new(recorder),
            queues: (0..targets).map(|_| Queue::default()).collect(),
            addresses: vec![Cell::new(lane.index); targets],
            next: Cell::new(0),
            stopping: Cell::new(false),
            closed: Cell::new(false),
            done: Cell::new(0),
            failed: Cell::new(0),
            pauses: Pauses::new(Timer::new()?),
            rng: RefCell::new(StdRng::seed_from_u64(seed)),
            renderer: RefCell::new(Renderer::new(&lane.plan, lane.index)),
            bodies: bodies(&lane.plan),
            judges_status: !lane
                .plan
                .checks
                .iter()
                .any(|check| matches!(check, Check::Status(_))),
            lane,
        })
    }

    pub fn plan(&self) -> &Plan {
        &self.lane.plan
    }

    pub fn target(&self, target: u16) -> &Target {
        &self.plan().targets[usize::from(target)]
    }

    pub fn request(&self, job: &Job) -> &Request {
        &self.target(job.target).requests[job.request as usize]
    }

    /// Returns `template` as it is for request `number`.
    pub fn render(&self, template: &Template, number: u64) -> Vec<u8> {
        let mut out = Vec::new();
        template.render(number, &mut *self.rng.borrow_mut(), &mut out);
        out
    }

    /// Returns the request's body; empty if it has none.
    pub fn body(&self, job: &Job) -> Bytes {
        match &self.bodies[usize::from(job.target)][job.request as usize] {
            Some(body) => body.clone(),
            None => self.render(&self.request(job).body, job.number).into(),
        }
    }

    /// Returns what is sent to be echoed: the body, or the request's number where there is none.
    pub fn payload(&self, job: &Job) -> Bytes {
        let body = self.body(job);
        if body.is_empty() {
            return format!("{:016x}", job.number).into();
        }
        body
    }

    /// Returns the address that the next connection to `target` is made to.
    pub fn address(&self, target: u16) -> SocketAddr {
        let all = &self.target(target).addresses;
        let turn = &self.addresses[usize::from(target)];
        all[turn.replace(turn.get().wrapping_add(1)) % all.len()]
    }

    pub fn is_closed_loop(&self) -> bool {
        matches!(self.plan().pacing, Pacing::Closed { .. })
    }

    /// Returns nanoseconds since the start; 0 before it.
    pub fn now_ns(&self) -> u64 {
        nanos(self.zero.elapsed())
    }

    /// Returns this lane's connections, shared out over the targets by weight: at least one for
    /// each that gets requests, even where that makes more than were asked for.
    pub fn slots(&self) -> Vec<Slot> {
        let targets = &self.plan().targets;
        let all: u64 = targets.iter().map(|target| u64::from(target.weight)).sum();
        let connections = self.lane.connections().max(1) as u64;
        let mut slots = Vec::new();
        let mut weight = 0;
        for (target, number) in targets.iter().zip(0_u16..) {
            let before = weight * connections / all.max(1);
            weight += u64::from(target.weight);
            let count = weight * connections / all.max(1) - before;
            let least = u64::from(target.weight > 0);
            slots.extend((0..count.max(least)).map(|_| Slot::new(number)));
        }
        slots
    }

    pub fn turn(&self, slot: &Slot) -> Turn {
        Turn {
            target: slot.target,
            picker: if self.plan().targets.len() == 1 {
                Picker::new(self.plan())
            } else {
                Picker::of_target(self.plan(), slot.target)
            },
            pause: Some(self.zero),
        }
    }

    /// Returns the next request to send; none at the end. May be dropped and called again.
    pub async fn next_job(&self, turn: &mut Turn) -> Option<Job> {
        if self.is_closed_loop() {
            if let Some(until) = turn.pause {
                self.pauses
                    .until(until.min(self.zero + self.plan().duration))
                    .await;
                turn.pause = None;
            }
            return self.own_job(turn);
        }
        let queue = &self.queues[usize::from(turn.target)];
        loop {
            if let Some(job) = self.waiting(queue) {
                return Some(job);
            }
            if self.closed.get() {
                return None;
            }
            queue.wake.notified().await;
        }
    }

    /// Returns the oldest job that waits. One that has waited as long as a request may take is a
    /// timeout: a mute target would keep the run going for hours otherwise.
    fn waiting(&self, queue: &Queue) -> Option<Job> {
        loop {
            let job = queue.jobs.borrow_mut().pop_front()?;
            let now = self.now_ns();
            if now.saturating_sub(job.due_ns) < nanos(self.plan().timeouts.request) {
                return Some(job);
            }
            let course = Course {
                sent_ns: now,
                ..Course::default()
            };
            self.done(&job, &course, Err(ErrorClass::Timeout));
        }
    }

    fn own_job(&self, turn: &Turn) -> Option<Job> {
        let due_ns = self.now_ns();
        if self.stopping.get() || due_ns >= nanos(self.plan().duration) {
            return None;
        }
        let count = self.next.replace(self.next.get() + 1);
        let number = count * self.lane.of as u64 + self.lane.index as u64;
        Some(job(&turn.picker, number, due_ns))
    }

    /// Takes down that `turn`'s request ended: a closed loop thinks, and waits a moment after a
    /// connection that could not be made.
    pub fn answered(&self, turn: &mut Turn, connected: bool) {
        let Pacing::Closed { think } = self.plan().pacing else {
            return;
        };
        let think = match think {
            _ if !connected => REFUSED_PAUSE,
            Think::None => return,
            Think::Constant(span) => span,
            Think::Exponential(mean) => {
                let uniform: f64 = self.rng.borrow_mut().random();
                mean.mul_f64(-(1.0 - uniform).ln())
            }
        };
        turn.pause = Some(Instant::now() + think);
    }

    /// Returns the outcome of an answer with `status`, of which `checker` has seen the whole. A status
    /// that is only bad because no check asks for one is kept: it says more than its class.
    pub fn judged(&self, status: u16, checker: &Checker) -> Result<u16, ErrorClass> {
        let verdict = checker.end();
        if let Err(class) = verdict
            && self.recorder.borrow().wants_reason(class)
            && let Some(why) = checker.why(class)
        {
            self.failed(class, why);
        }
        match verdict {
            Err(ErrorClass::Status) if self.judges_status => Ok(status),
            verdict => verdict.map(|()| status),
        }
    }

    /// Takes down what a failure was, in words; returns its class.
    pub fn failed(&self, class: ErrorClass, why: impl std::fmt::Display) -> ErrorClass {
        self.recorder.borrow_mut().reason(class, why);
        class
    }

    /// Takes down a request that ended, in whatever way.
    pub fn done(&self, job: &Job, course: &Course, outcome: Result<u16, ErrorClass>) {
        self.done.set(self.done.get() + 1);
        let failed = match outcome {
            Ok(status) => status >= 400 && self.judges_status,
            Err(_) => true,
        };
        self.failed.set(self.failed.get() + u64::from(failed));
        let mut recorder = self.recorder.borrow_mut();
        match outcome {
            Err(ErrorClass::Ports) => recorder.limit(Limit::Ports),
            Err(ErrorClass::Descriptors) => recorder.limit(Limit::Descriptors),
            _ => {}
        }
        recorder.done(&Sample {
            number: job.number,
            target: job.target,
            request: job.request,
            due_ns: job.due_ns,
            sent_ns: course.sent_ns,
            first_byte_ns: course.first_byte_ns,
            done_ns: self.now_ns(),
            received_bytes: course.received_bytes,
            sent_bytes: course.sent_bytes,
            outcome,
        });
    }

    pub fn opened(&self, opened: &Opened) {
        self.recorder.borrow_mut().opened(opened);
    }

    pub fn late(&self) {
        self.recorder.borrow_mut().late();
    }

    /// Counts a request on `slot`'s connection; returns whether it is to be closed after it.
    pub fn served(&self, slot: &Slot) -> bool {
        slot.served.set(slot.served.get() + 1);
        let most = self.plan().churn.requests_per_connection;
        most.is_some_and(|most| slot.served.get() >= most) || slot.retire.get()
    }

    /// Retires connections in turn, as many a second as asked for; for ever.
    pub async fn churn(&self, slots: &[std::rc::Rc<Slot>]) {
        let Some(rate) = self.plan().churn.connections_per_second else {
            return std::future::pending().await;
        };
        let rate = rate / self.lane.of as f64;
        if !(rate > 0.0 && rate.is_finite()) {
            return std::future::pending().await;
        }
        let mut turn = slots.iter().cycle();
        let mut retired = 0.0;
        loop {
            let at = Duration::try_from_secs_f64((retired + 1.0) / rate).unwrap_or(Duration::MAX);
            let Some(at) = self.zero.checked_add(at) else {
                return std::future::pending().await;
            };
            tokio::time::sleep_until(at.into()).await;
            if let Some(slot) = turn.next() {
                slot.retire.set(true);
            }
            retired += 1.0;
        }
    }

    /// Releases every request when it is due; returns when the last one is.
    pub async fn dispatch(&self) -> Result<(), LoadError> {
        let Some(schedule) = self.lane.schedule() else {
            return self.pauses.run().await.map_err(LoadError::Start);
        };
        let timer = Timer::new().map_err(LoadError::Start)?;
        let picker = Picker::new(self.plan());
        let mut released = 0;
        let numbers = (self.lane.index as u64..).step_by(self.lane.of);
        for (due, number) in schedule.zip(numbers) {
            let at = self.zero + due;
            loop {
                if self.stopping.get() {
                    self.close();
                    return Ok(());
                }
                let now = Instant::now();
                if at <= now {
                    break;
                }
                released = 0;
                timer
                    .wait(at.min(now + STOP_CHECK))
                    .await
                    .map_err(LoadError::Start)?;
            }
            self.release(job(&picker, number, nanos(due)));
            released += 1;
            if released % BATCH == 0 {
                tokio::task::yield_now().await;
            }
        }
        self.close();
        Ok(())
    }

    fn release(&self, job: Job) {
        let now = self.now_ns();
        self.recorder.borrow_mut().released(job.due_ns, now);
        let queue = &self.queues[usize::from(job.target)];
        if queue.jobs.borrow().len() >= BACKLOG {
            let course = Course {
                sent_ns: now,
                ..Course::default()
            };
            self.done(&job, &course, Err(ErrorClass::Overload));
            return;
        }
        queue.jobs.borrow_mut().push_back(job);
        queue.wake.notify_one();
    }

    fn close(&self) {
        self.closed.set(true);
        for queue in &self.queues {
            queue.wake.notify_waiters();
        }
    }

    /// Tells `control` what was done and heeds it; returns when requests in flight are to be given
    /// up.
    pub async fn watch(&self, control: &Control) {
        loop {
            tokio::time::sleep(STOP_CHECK).await;
            self.tell(control);
            self.recorder.borrow_mut().tick(self.now_ns());
            if control.stopped() && !self.stopping.replace(true) {
                self.pauses.end();
            }
            if control.aborted() {
                return;
            }
        }
    }

    /// Adds what was done since the last time to `control`.
    pub fn tell(&self, control: &Control) {
        control.add(self.done.take(), self.failed.take());
    }

    /// Returns what was measured; nothing is, afterwards.
    pub fn take_recorder(&self) -> Recorder {
        let mut recorder = self.recorder.take();
        recorder.finish(self.now_ns());
        recorder
    }
}

fn bodies(plan: &Plan) -> Vec<Vec<Option<Bytes>>> {
    let literal = |request: &Request| {
        let body = &request.body;
        body.is_literal()
            .then(|| body.literals().flatten().copied().collect())
    };
    let of = |target: &Target| target.requests.iter().map(literal).collect();
    plan.targets.iter().map(of).collect()
}

fn job(picker: &Picker, number: u64, due_ns: u64) -> Job {
    let pick = picker.pick(number);
    Job {
        number,
        target: pick.target,
        request: pick.request,
        due_ns,
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
