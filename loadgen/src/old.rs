//! Runs a load on a thread of its own: one dispatcher that releases requests when they are due,
//! and one task for each connection that takes them up.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec,
};
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tokio::task::LocalSet;

use crate::config::{BACKLOG, Load};
use crate::connection::Connection;
use crate::record::{ErrorClass, Method, Record};
use crate::report::{Report, Stats};
use crate::run::LoadError;
use crate::schedule::Schedule;

/// Requests released in one go before the connections get their turn.
const BATCH: usize = 64;
/// How soon a request to stop is noticed.
const STOP_CHECK: Duration = Duration::from_millis(50);
/// Between the call of [`start`] and the first due time: the thread must be up by then.
const LEAD: Duration = Duration::from_millis(2);

/// What a run gave.
#[derive(Debug)]
pub struct Outcome {
    /// The figures and the verdict.
    pub report: Report,
    /// One for each request in the order in which they were done, if [`Load::records`] was set.
    pub records: Vec<Record>,
}

#[derive(Debug, Default)]
struct Progress {
    done: AtomicU64,
    failed: AtomicU64,
    stop: AtomicBool,
}

/// A run under way.
#[derive(Debug)]
pub struct Running {
    /// Zero of every time in its records.
    pub zero: Instant,
    progress: Arc<Progress>,
    thread: JoinHandle<Result<Outcome, LoadError>>,
}

impl Running {
    /// Returns how many requests are done, failed ones included.
    pub fn done(&self) -> u64 {
        self.progress.done.load(Ordering::Relaxed)
    }

    /// Returns how many requests have failed.
    pub fn failed(&self) -> u64 {
        self.progress.failed.load(Ordering::Relaxed)
    }

    /// Returns whether the run has ended by itself.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Schedules nothing more. Requests that are due or in flight are still done.
    pub fn stop(&self) {
        self.progress.stop.store(true, Ordering::Relaxed);
    }

    /// Waits for the end and returns what the run gave.
    ///
    /// # Errors
    /// [`LoadError`] if the run could not be made.
    pub fn join(self) -> Result<Outcome, LoadError> {
        self.thread.join().map_err(|_| LoadError::Panicked)?
    }
}

/// Starts a run.
///
/// # Errors
/// [`LoadError::Invalid`] for a load that makes no sense, [`LoadError::Start`] for want of a
/// thread.
pub fn start(load: Load) -> Result<Running, LoadError> {
    if load
        .rate
        .is_some_and(|rate| !rate.is_finite() || rate <= 0.0)
    {
        return Err(LoadError::Invalid("the rate must be above 0"));
    }
    if load.connections == 0 {
        return Err(LoadError::Invalid("at least one connection is needed"));
    }
    if !(0.0..=1.0).contains(&load.post_ratio) {
        return Err(LoadError::Invalid("the share of POSTs is between 0 and 1"));
    }
    let progress = Arc::new(Progress::default());
    let zero = Instant::now() + LEAD;
    let shared = progress.clone();
    let thread = std::thread::Builder::new()
        .name("loadgen".to_owned())
        .spawn(move || run(load, zero, shared))
        .map_err(LoadError::Start)?;
    Ok(Running {
        zero,
        progress,
        thread,
    })
}

fn run(load: Load, zero: Instant, progress: Arc<Progress>) -> Result<Outcome, LoadError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(LoadError::Start)?;
    let cpu_before = thread_cpu();
    let timer = Timer::new().map_err(LoadError::Start);
    let methods = RefCell::new(StdRng::seed_from_u64(load.seed.wrapping_add(1)));
    let engine = Rc::new(Engine {
        zero,
        progress,
        methods,
        queue: RefCell::default(),
        closed: Cell::new(load.rate.is_none()),
        next: Cell::new(0),
        wake: Notify::new(),
        stats: RefCell::new(Stats::new(load.records)),
        load,
    });
    let local = LocalSet::new();
    let scheduled_for = local.block_on(&runtime, async {
        let workers: Vec<_> = (0..engine.load.connections)
            .map(|_| tokio::task::spawn_local(worker(engine.clone())))
            .collect();
        let until = match engine.load.rate {
            Some(rate) => engine.dispatch(rate, timer?.register()?).await?,
            None => engine.load.duration,
        };
        for worker in workers {
            worker.await.map_err(|_| LoadError::Panicked)?;
        }
        Ok::<_, LoadError>(until)
    })?;
    let cpu = thread_cpu().saturating_sub(cpu_before);
    let stats = engine.stats.replace(Stats::new(false));
    let report = Report::of_load(&engine.load, scheduled_for, &stats, cpu);
    Ok(Outcome {
        report,
        records: stats.records,
    })
}

struct Job {
    number: u64,
    method: Method,
    due_us: u64,
}

struct Engine {
    load: Load,
    zero: Instant,
    progress: Arc<Progress>,
    methods: RefCell<StdRng>,
    queue: RefCell<VecDeque<Job>>,
    /// Nothing more will be queued. In a closed loop nothing ever is.
    closed: Cell<bool>,
    next: Cell<u64>,
    wake: Notify,
    stats: RefCell<Stats>,
}

impl Engine {
    fn now(&self) -> Duration {
        self.zero.elapsed()
    }

    fn stopped(&self) -> bool {
        self.progress.stop.load(Ordering::Relaxed)
    }

    fn job(&self, due: Duration) -> Job {
        let number = self.next.replace(self.next.get() + 1);
        let uniform: f64 = self.methods.borrow_mut().random();
        Job {
            number,
            method: if uniform < self.load.post_ratio {
                Method::Post
            } else {
                Method::Get
            },
            due_us: micros(due),
        }
    }

    /// Releases every request when it is due; returns for how long requests were scheduled.
    async fn dispatch(&self, rate: f64, timer: AsyncFd<OwnedFd>) -> Result<Duration, LoadError> {
        let mut released = 0;
        let mut until = self.load.duration;
        'schedule: for due in
            Schedule::new(self.load.arrivals, rate, self.load.duration, self.load.seed)
        {
            loop {
                if self.stopped() {
                    until = self.now().min(self.load.duration);
                    break 'schedule;
                }
                let left = due.saturating_sub(self.now());
                if left.is_zero() {
                    break;
                }
                released = 0;
                wait(&timer, left.min(STOP_CHECK))
                    .await
                    .map_err(LoadError::Start)?;
            }
            self.release(due);
            released += 1;
            if released % BATCH == 0 {
                tokio::task::yield_now().await;
            }
        }
        self.closed.set(true);
        self.wake.notify_waiters();
        Ok(until)
    }

    fn release(&self, due: Duration) {
        let job = self.job(due);
        let mut stats = self.stats.borrow_mut();
        stats.released(micros(self.now().saturating_sub(due)));
        if self.queue.borrow().len() >= BACKLOG {
            drop(stats);
            let now = micros(self.now());
            self.done(&job, now, Err(ErrorClass::Overload));
            return;
        }
        self.queue.borrow_mut().push_back(job);
        self.wake.notify_one();
    }

    /// Returns the next request to send; none at the end.
    async fn next_job(&self) -> Option<Job> {
        if self.load.rate.is_none() {
            let now = self.now();
            return (now < self.load.duration && !self.stopped()).then(|| self.job(now));
        }
        loop {
            if let Some(job) = self.queue.borrow_mut().pop_front() {
                return Some(job);
            }
            if self.closed.get() {
                return None;
            }
            self.wake.notified().await;
        }
    }

    fn done(&self, job: &Job, sent_us: u64, result: crate::Result) {
        let record = Record {
            number: job.number,
            method: job.method,
            scheduled_us: job.due_us,
            sent_us,
            done_us: micros(self.now()),
            result,
        };
        self.progress.done.fetch_add(1, Ordering::Relaxed);
        if record.failure().is_some() {
            self.progress.failed.fetch_add(1, Ordering::Relaxed);
        }
        self.stats.borrow_mut().done(record);
    }
}

async fn worker(engine: Rc<Engine>) {
    let templates = [
        template(&engine.load, Method::Get),
        template(&engine.load, Method::Post),
    ];
    let mut connection = None;
    let mut request = Vec::new();
    while let Some(job) = engine.next_job().await {
        let sent_us = micros(engine.now());
        let (head, tail) = &templates[usize::from(job.method == Method::Post)];
        request.clear();
        request.extend_from_slice(head);
        if let Some(prefix) = &engine.load.request_ids {
            request
                .extend_from_slice(format!("X-Request-Id: {prefix}-{}\r\n", job.number).as_bytes());
        }
        request.extend_from_slice(tail);
        let attempt = exchange(&engine.load, &mut connection, &request);
        let result = match tokio::time::timeout(engine.load.timeout, attempt).await {
            Ok(Ok(status)) => Ok(status),
            Ok(Err(error)) => Err(ErrorClass::of(&error)),
            Err(_) => Err(ErrorClass::Timeout),
        };
        if result.is_err() {
            connection = None;
        }
        engine.done(&job, sent_us, result);
    }
}

async fn exchange(
    load: &Load,
    connection: &mut Option<Connection>,
    request: &[u8],
) -> Result<u16, std::io::Error> {
    // A peer may close an idle connection at any time; any client would open another.
    let kept = connection.take().and_then(Connection::if_alive);
    let mut open = match kept {
        Some(open) => open,
        None => Connection::open(load.target.address).await?,
    };
    let done = open.exchange(request).await?;
    if done.keep_alive {
        *connection = Some(open);
    }
    Ok(done.status)
}

/// Returns a request's bytes before and after the line with its id.
fn template(load: &Load, method: Method) -> (Vec<u8>, Vec<u8>) {
    let mut head = format!(
        "{} {} HTTP/1.1\r\nHost: {}\r\n",
        method.name(),
        load.target.path,
        load.target.authority
    );
    for line in &load.headers {
        head.push_str(line);
        head.push_str("\r\n");
    }
    let mut tail = b"\r\n".to_vec();
    if method == Method::Post {
        let length = format!("Content-Length: {}\r\n\r\n", load.body_bytes);
        tail = length.into_bytes();
        tail.resize(tail.len() + load.body_bytes, b'x');
    }
    (head.into_bytes(), tail)
}

/// A timer of the kernel's: tokio's own tick is a millisecond, which is twenty requests at
/// 20,000 a second.
struct Timer(OwnedFd);

impl Timer {
    fn new() -> Result<Self, std::io::Error> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        Ok(Self(rustix::time::timerfd_create(
            TimerfdClockId::Monotonic,
            flags,
        )?))
    }

    /// Must be called within the runtime.
    #[allow(
        deprecated,
        reason = "deprecated for types that may close their descriptor early, which OwnedFd \
                  cannot; the replacement is unsafe"
    )]
    fn register(self) -> Result<AsyncFd<OwnedFd>, LoadError> {
        AsyncFd::new(self.0).map_err(LoadError::Start)
    }
}

async fn wait(timer: &AsyncFd<OwnedFd>, span: Duration) -> Result<(), std::io::Error> {
    let none = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let once = Itimerspec {
        it_interval: none,
        it_value: Timespec {
            tv_sec: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(span.subsec_nanos()),
        },
    };
    rustix::time::timerfd_settime(timer.get_ref(), TimerfdTimerFlags::empty(), &once)?;
    loop {
        let mut ready = timer.readable().await?;
        match rustix::io::read(timer.get_ref(), &mut [0_u8; 8]) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => ready.clear_ready(),
            Err(error) => return Err(error.into()),
        }
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

/// Returns the CPU time of this thread.
fn thread_cpu() -> Duration {
    let time = rustix::time::clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}
