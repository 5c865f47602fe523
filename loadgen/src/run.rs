//! One run from start to end: its engine, its threads, its outcome.

use std::num::NonZeroU64;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use ballast_ring::{Backend, RingError};
use rustix::process::{Resource, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::control::Control;
use crate::engine;
use crate::general::{self, Driver};
use crate::plan::{EngineChoice, InvalidPlan, Lane, Plan, Protocol};
use crate::record::Record;
use crate::recorder::{Board, Limit, Recorder};
use crate::report::{About, Report};

/// Between the call of [`start`] and the first due time: the threads must be up by then.
const LEAD: Duration = Duration::from_millis(5);
/// More of it for each connection of a lane, for it must be open by then.
const LEAD_PER_CONNECTION: Duration = Duration::from_micros(100);
/// The most of it.
const MOST_LEAD: Duration = Duration::from_secs(2);
/// Descriptors beside those of connections.
const SPARE_DESCRIPTORS: u64 = 256;

/// A run that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The rate, share or number of connections makes no sense.
    #[error("{0}")]
    Invalid(&'static str),
    /// The plan makes no sense.
    #[error(transparent)]
    Plan(#[from] InvalidPlan),
    /// The engine that was asked for cannot do it.
    #[error("the engine `uring` speaks plain HTTP/1.1 only; `auto` takes one that can do this")]
    Engine,
    /// The operating system refused a thread, a timer or an event loop.
    #[error("cannot start the generator")]
    Start(#[source] std::io::Error),
    /// There is no such event loop here.
    #[error("cannot start the engine")]
    Ring(#[source] RingError),
    /// A thread of the generator panicked.
    #[error("the generator panicked")]
    Panicked,
}

/// What a run gave.
#[derive(Debug)]
pub struct Outcome {
    /// The figures and the verdict.
    pub report: Report,
    /// One for each request in the order in which they were done, if [`Plan::records`] was set.
    pub records: Vec<Record>,
    /// What the report was made of, all lanes together.
    pub recorder: Recorder,
    /// What was told of the run, to make the report anew of several recorders.
    pub about: About,
}

/// The part of a plan that this process does, and when.
#[derive(Debug, Clone, Copy)]
pub struct Part {
    /// Zero of every time; none is as soon as connections can be open.
    pub zero: Option<Instant>,
    /// The number of the first lane.
    pub first: usize,
    /// Lanes over all generators.
    pub of: usize,
}

/// Which engine runs, resolved.
#[derive(Debug, Clone, Copy)]
enum Engine {
    Hot(Backend),
    General(Driver),
}

impl Engine {
    fn name(self) -> &'static str {
        match self {
            Self::Hot(Backend::Epoll) => "hot engine on epoll",
            Self::Hot(_) => "hot engine on io_uring",
            Self::General(Driver::TokioUring) => "general engine on tokio-uring",
            Self::General(Driver::Epoll) => "general engine on epoll",
        }
    }
}

/// A run under way.
#[derive(Debug)]
pub struct Running {
    /// Zero of every time in its records.
    pub zero: Instant,
    started: SystemTime,
    plan: Arc<Plan>,
    engine: String,
    notes: Vec<String>,
    control: Arc<Control>,
    board: Arc<Board>,
    stopped: OnceLock<Instant>,
    lanes: Vec<JoinHandle<Result<Recorder, LoadError>>>,
}

impl Running {
    /// Returns which engine runs, and why if it is not the fastest.
    pub fn engine(&self) -> &str {
        &self.engine
    }

    /// Returns how many requests are done, failed ones included.
    pub fn done(&self) -> u64 {
        self.control.done()
    }

    /// Returns how many requests have failed.
    pub fn failed(&self) -> u64 {
        self.control.failed()
    }

    /// Returns where the lanes show what they measure while they do.
    pub fn board(&self) -> &Arc<Board> {
        &self.board
    }

    /// Returns whether the run has ended by itself.
    pub fn is_finished(&self) -> bool {
        self.lanes.iter().all(JoinHandle::is_finished)
    }

    /// Schedules nothing more. Requests that are due or in flight are still done.
    pub fn stop(&self) {
        self.stopped.get_or_init(Instant::now);
        self.control.stop();
    }

    /// Gives up requests in flight, too: they are not counted.
    pub fn abort(&self) {
        self.stopped.get_or_init(Instant::now);
        self.control.abort();
    }

    /// Waits for the end and returns what the run gave.
    ///
    /// # Errors
    /// [`LoadError`] if the run could not be made.
    pub fn join(self) -> Result<Outcome, LoadError> {
        let several = self.lanes.len() > 1;
        let mut all: Option<Recorder> = None;
        let mut failure = None;
        for lane in self.lanes {
            match lane.join().map_err(|_| LoadError::Panicked).flatten() {
                Ok(recorder) => match &mut all {
                    None => all = Some(recorder),
                    Some(all) => all.merge(&recorder),
                },
                Err(error) => {
                    failure.get_or_insert(error);
                }
            }
        }
        if let Some(error) = failure {
            return Err(error);
        }
        let mut recorder = all.ok_or(LoadError::Invalid("no lane ran"))?;
        let ran = self
            .stopped
            .get()
            .map_or(Duration::MAX, |at| at.saturating_duration_since(self.zero));
        let about = About {
            notes: self.notes,
            ..About::of(
                &self.plan,
                self.engine,
                ran.min(self.plan.duration),
                self.started,
            )
        };
        let mut records = recorder.take_records();
        if several {
            records.sort_by_key(|record| record.done_us);
        }
        Ok(Outcome {
            report: Report::new(&about, &recorder),
            records,
            recorder,
            about,
        })
    }
}

/// Starts a run of the whole of a plan.
///
/// # Errors
/// [`LoadError`] for a plan that makes no sense, an engine that is not to be had, or for want of a
/// thread.
pub fn start(plan: Plan) -> Result<Running, LoadError> {
    let of = plan.lanes();
    start_part(
        plan,
        Part {
            zero: None,
            first: 0,
            of,
        },
    )
}

/// Starts a run of some of a plan's lanes: one for each of its cores.
///
/// # Errors
/// As [`start`].
pub fn start_part(plan: Plan, part: Part) -> Result<Running, LoadError> {
    plan.validate(part.of)?;
    let (engine, name) = resolve(&plan)?;
    let mut notes = Vec::new();
    notes.extend(raise_descriptors(plan.connections / part.of * plan.lanes()));
    let lead =
        LEAD + LEAD_PER_CONNECTION * u32::try_from(plan.connections / part.of).unwrap_or(u32::MAX);
    let now = Instant::now();
    let zero = part.zero.unwrap_or(now + lead.min(MOST_LEAD));
    let started = SystemTime::now() + zero.saturating_duration_since(now);
    let plan = Arc::new(plan);
    let control = Arc::new(Control::default());
    let board = Board::new(plan.lanes());
    let mut lanes = Vec::new();
    for nth in 0..plan.lanes() {
        let lane = Lane {
            plan: plan.clone(),
            index: part.first + nth,
            of: part.of,
        };
        let recorder = Recorder::of(&lane).seen_on(&board, nth);
        let core = plan.cores.get(nth).copied();
        let shared = control.clone();
        let thread = std::thread::Builder::new()
            .name(format!("lane-{nth}"))
            .spawn(move || run_lane(&lane, core, zero, recorder, engine, &shared))
            .map_err(LoadError::Start);
        match thread {
            Ok(thread) => lanes.push(thread),
            Err(error) => {
                control.abort();
                return Err(error);
            }
        }
    }
    Ok(Running {
        zero,
        started,
        plan,
        engine: name,
        notes,
        control,
        board,
        stopped: OnceLock::new(),
        lanes,
    })
}

fn run_lane(
    lane: &Lane,
    core: Option<usize>,
    zero: Instant,
    mut recorder: Recorder,
    engine: Engine,
    control: &Control,
) -> Result<Recorder, LoadError> {
    if let Some(core) = core {
        let mut cores = CpuSet::new();
        if core < CpuSet::MAX_CPU {
            cores.set(core);
        }
        if sched_setaffinity(None, &cores).is_err() {
            recorder.limit(Limit::Core);
        }
    }
    // The kernel would otherwise wake this thread up to 50 µs late, to save power. Where it may
    // not be asked, that much of the lag stays.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
    let result = match engine {
        Engine::Hot(backend) => engine::run(lane, zero, recorder, control, backend),
        Engine::General(driver) => general::run(lane, zero, recorder, driver, control),
    };
    if result.is_err() {
        // The others' figures would be a part of the load without the rest.
        control.abort();
    }
    result
}

/// Returns the engine for a plan, and what to call it.
fn resolve(plan: &Plan) -> Result<(Engine, String), LoadError> {
    let is_hot = matches!(plan.protocol, Protocol::Http1 { .. })
        && plan.targets.iter().all(|target| target.tls.is_none());
    let engine = match (plan.engine, is_hot) {
        (EngineChoice::Auto, true) => match engine::probe() {
            Ok(()) => Engine::Hot(Backend::IoUring),
            Err(error) => return Ok(fallen_back(Engine::Hot(Backend::Epoll), &error)),
        },
        (EngineChoice::Auto, false) => match general::probe() {
            Ok(()) => Engine::General(Driver::TokioUring),
            Err(error) => return Ok(fallen_back(Engine::General(Driver::Epoll), &error)),
        },
        (EngineChoice::Uring, true) => {
            engine::probe().map_err(LoadError::Ring)?;
            Engine::Hot(Backend::IoUring)
        }
        (EngineChoice::Uring, false) => return Err(LoadError::Engine),
        (EngineChoice::TokioUring, _) => {
            general::probe().map_err(LoadError::Start)?;
            Engine::General(Driver::TokioUring)
        }
        (EngineChoice::Epoll, true) => Engine::Hot(Backend::Epoll),
        (EngineChoice::Epoll, false) => Engine::General(Driver::Epoll),
    };
    Ok((engine, engine.name().to_owned()))
}

fn fallen_back(engine: Engine, error: &dyn std::error::Error) -> (Engine, String) {
    let why = chain(error);
    (engine, format!("{} (no io_uring: {why})", engine.name()))
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// Lets this process open as many descriptors as it may, if that many are needed; returns a remark
/// if they are too few.
fn raise_descriptors(connections: usize) -> Option<String> {
    let needed = connections as u64 + SPARE_DESCRIPTORS;
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return None;
    }
    limit.current = limit.maximum;
    // If it is refused, what is there has to do; running out of it is told where it happens.
    let _ = setrlimit(Resource::Nofile, limit);
    let most = getrlimit(Resource::Nofile).current?;
    (most < needed).then(|| {
        format!("only {most} descriptors may be open; {connections} connections need more")
    })
}
