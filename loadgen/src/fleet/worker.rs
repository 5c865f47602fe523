//! The side that makes the load.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use super::link::{Link, LinkError};
use super::message::{Ask, Measured, Tell, Work};
use super::{ANSWER, MESSAGE, PROGRESS, STRANGER, VERSION};
use crate::plan::{InvalidPlan, Plan};
use crate::run::{self, LoadError, Part, Running};

/// Connections served at once: one run, and some who are told that it is going on.
const GUESTS: usize = 8;
/// How long a coordinator may take between its plan and its start.
const PAUSE: Duration = Duration::from_mins(1);
/// How long an accept that failed for want of a descriptor waits for one.
const BACK_OFF: Duration = Duration::from_millis(100);
/// The furthest ahead that a start may lie.
const FUTURE: Duration = Duration::from_mins(1);

/// What a worker is told.
#[derive(Debug, Clone)]
pub struct WorkerOptions {
    /// What a coordinator must know; none takes anybody.
    pub token: Option<String>,
    /// The cores that its lanes are pinned to; empty: one lane, not pinned.
    pub cores: Vec<usize>,
    /// End after one run.
    pub once: bool,
}

/// A worker that cannot begin, or go on.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// Anybody could make it load anything.
    #[error("{0} can be reached from other hosts: give a --token that coordinators must know")]
    Open(SocketAddr),
    /// Its address cannot be had.
    #[error("cannot listen on {0}")]
    Listen(SocketAddr, #[source] io::Error),
}

/// Why a coordinator was sent away, or lost.
#[derive(Debug, thiserror::Error)]
enum Parting {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("this worker speaks version {VERSION}, the coordinator {0}")]
    Version(u32),
    #[error("the token is not the worker's")]
    Token,
    #[error("another run is going on")]
    Busy,
    #[error("the plan cannot be run: {0}")]
    Plan(#[from] InvalidPlan),
    #[error("lanes {first} to {last} of {of} make no sense")]
    Lanes {
        first: usize,
        last: usize,
        of: usize,
    },
    #[error("the certificates cannot be kept: {0}")]
    Certificates(io::Error),
    #[error("the start came {0:?} too late")]
    Late(Duration),
    #[error("the start is too far ahead")]
    Early,
    #[error("the run could not be made: {0}")]
    Load(#[from] LoadError),
    #[error("`{0}` is not what comes now")]
    Order(&'static str),
}

/// Waits for coordinators and serves one at a time.
#[derive(Debug)]
pub struct Worker {
    listener: TcpListener,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    options: WorkerOptions,
    /// Zero of this worker's clock.
    zero: Instant,
    busy: AtomicBool,
    guests: AtomicUsize,
    /// Runs that were made.
    served: AtomicUsize,
}

impl Worker {
    /// Returns a worker that listens on `address`.
    ///
    /// # Errors
    /// [`WorkerError::Open`] without a token on an address that other hosts reach,
    /// [`WorkerError::Listen`] if it cannot be had.
    pub fn listen(address: SocketAddr, options: WorkerOptions) -> Result<Self, WorkerError> {
        if options.token.is_none() && !address.ip().is_loopback() {
            return Err(WorkerError::Open(address));
        }
        let listener =
            TcpListener::bind(address).map_err(|error| WorkerError::Listen(address, error))?;
        Ok(Self {
            listener,
            state: Arc::new(State {
                options,
                zero: Instant::now(),
                busy: AtomicBool::new(false),
                guests: AtomicUsize::new(0),
                served: AtomicUsize::new(0),
            }),
        })
    }

    /// Returns where it listens.
    ///
    /// # Errors
    /// The operating system's.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until the process ends, or one run was made if only one was asked for; `say` is
    /// told what happens, a line at a time.
    ///
    /// # Errors
    /// [`WorkerError::Listen`] when the listening socket is of no more use.
    pub fn serve(&self, say: impl Fn(&str) + Clone + Send + 'static) -> Result<(), WorkerError> {
        loop {
            let (stream, peer) = match self.listener.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    let address = self.address().unwrap_or(SocketAddr::from(([0; 4], 0)));
                    return Err(WorkerError::Listen(address, error));
                }
                Err(error) => {
                    say(&format!("cannot accept: {error}"));
                    std::thread::park_timeout(BACK_OFF);
                    continue;
                }
            };
            let guest = Guest::new(&self.state);
            if self.state.guests.load(Ordering::Relaxed) > GUESTS {
                continue; // Closed: whoever is among so many tries again.
            }
            let (state, tell) = (self.state.clone(), say.clone());
            let session = std::thread::Builder::new()
                .name("session".to_owned())
                .spawn(move || {
                    let _guest = guest;
                    match serve_one(&state, stream) {
                        Ok(done) => tell(&format!("{peer}: {done} requests done")),
                        Err(parting) => tell(&format!("{peer}: {parting}")),
                    }
                });
            match session {
                Ok(session) if self.state.options.once => {
                    // A panic of a session is that session's end, nothing more.
                    let _ = session.join();
                    if self.state.served.load(Ordering::Relaxed) > 0 {
                        return Ok(());
                    }
                }
                Ok(_) => {}
                Err(error) => say(&format!("cannot serve {peer}: {error}")),
            }
        }
    }
}

/// A plan that waits for its start.
struct Ready {
    plan: Plan,
    first_lane: usize,
    lanes: usize,
    /// Gone with it.
    _files: Vec<tempfile::TempPath>,
}

/// Counts a connection for as long as it is served.
struct Guest(Arc<State>);

impl Guest {
    fn new(state: &Arc<State>) -> Self {
        state.guests.fetch_add(1, Ordering::Relaxed);
        Self(state.clone())
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.0.guests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Keeps others out for as long as a run is made.
struct Turn<'a>(&'a State);

impl<'a> Turn<'a> {
    fn take(state: &'a State) -> Option<Self> {
        let was_busy = state.busy.swap(true, Ordering::Acquire);
        // Not `then_some`: the turn that it would make and drop would end the other's.
        (!was_busy).then(|| Self(state))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.busy.store(false, Ordering::Release);
    }
}

/// Serves one coordinator; returns how many requests were done.
fn serve_one(state: &State, stream: TcpStream) -> Result<u64, Parting> {
    let mut link = Link::new(stream, STRANGER).map_err(LinkError::from)?;
    let served = session(state, &mut link);
    if let Err(parting) = &served {
        let reason = parting.to_string();
        let last_word = match parting {
            Parting::Load(_) => Tell::Failed { reason },
            _ => Tell::Refused { reason },
        };
        // Whoever is gone hears nothing.
        let _ = link.send(&last_word, ANSWER);
    }
    served
}

fn session(state: &State, link: &mut Link) -> Result<u64, Parting> {
    match link.expect(ANSWER)? {
        Ask::Hello { version, .. } if version != VERSION => return Err(Parting::Version(version)),
        Ask::Hello { token, .. } => {
            let known = state.options.token.as_deref();
            if !known.is_none_or(|known| same(known, token.as_deref().unwrap_or_default())) {
                return Err(Parting::Token);
            }
        }
        _ => return Err(Parting::Order("something before hello")),
    }
    let _turn = Turn::take(state).ok_or(Parting::Busy)?;
    link.allow(MESSAGE);
    let welcome = Tell::Welcome {
        lanes: state.options.cores.len().max(1),
        host: rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned(),
    };
    link.send(&welcome, ANSWER)?;
    let mut part = None;
    loop {
        match link.expect(PAUSE)? {
            Ask::Ping => link.send(&state.pong(), ANSWER)?,
            Ask::Plan(work) => {
                part = Some(state.prepare(*work)?);
                link.send(&Tell::Ready, ANSWER)?;
            }
            Ask::Start { at_ns } => {
                let ready = part
                    .take()
                    .ok_or(Parting::Order("a start without a plan"))?;
                state.check_start(at_ns)?;
                return state.run(link, ready, state.zero + Duration::from_nanos(at_ns));
            }
            Ask::Stop | Ask::Abort => return Ok(0),
            Ask::Hello { .. } => return Err(Parting::Order("a second hello")),
        }
    }
}

/// Compares without telling by its time how much is the same.
fn same(a: &str, b: &str) -> bool {
    let differing = a
        .bytes()
        .zip(b.bytes())
        .fold(0, |all, (a, b)| all | (a ^ b));
    a.len() == b.len() && differing == 0
}

impl State {
    fn now_ns(&self) -> u64 {
        u64::try_from(self.zero.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn pong(&self) -> Tell {
        let wall = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        Tell::Pong {
            clock_ns: self.now_ns(),
            wall_ns: u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX),
        }
    }

    fn prepare(&self, work: Work) -> Result<Ready, Parting> {
        let mut plan = work.plan;
        plan.cores.clone_from(&self.options.cores);
        plan.records = false;
        let lanes = plan.lanes();
        let last = work.first_lane.saturating_add(lanes);
        if last > work.lanes {
            return Err(Parting::Lanes {
                first: work.first_lane,
                last,
                of: work.lanes,
            });
        }
        plan.validate(work.lanes)?;
        let mut files = Vec::new();
        let certificates = work.certificates.into_iter().chain(std::iter::repeat(None));
        for (target, pem) in plan.targets.iter_mut().zip(certificates) {
            let Some(tls) = &mut target.tls else {
                continue;
            };
            // A path of the coordinator's host: whatever is there on this one was not meant.
            tls.ca_file = None;
            if let Some(pem) = pem {
                let file = keep(&pem).map_err(Parting::Certificates)?;
                tls.ca_file = Some(PathBuf::from(&*file));
                files.push(file);
            }
        }
        Ok(Ready {
            plan,
            first_lane: work.first_lane,
            lanes: work.lanes,
            _files: files,
        })
    }

    fn check_start(&self, at_ns: u64) -> Result<(), Parting> {
        let now_ns = self.now_ns();
        match at_ns.checked_sub(now_ns) {
            None => Err(Parting::Late(Duration::from_nanos(now_ns - at_ns))),
            Some(ahead) if Duration::from_nanos(ahead) > FUTURE => Err(Parting::Early),
            Some(_) => Ok(()),
        }
    }

    fn run(&self, link: &mut Link, ready: Ready, zero: Instant) -> Result<u64, Parting> {
        let part = Part {
            zero: Some(zero),
            first: ready.first_lane,
            of: ready.lanes,
        };
        let running = run::start_part(ready.plan, part)?;
        let late = Instant::now().saturating_duration_since(zero);
        if let Err(error) = accompany(link, &running) {
            // The coordinator is gone: nobody wants this load any more.
            running.abort();
            let _ = running.join();
            return Err(error.into());
        }
        let ended = running.join()?;
        let done = ended.recorder.counts().done;
        let measured = Measured {
            recorder: ended.recorder,
            engine: ended.about.engine,
            scheduled_ns: u64::try_from(ended.about.duration.as_nanos()).unwrap_or(u64::MAX),
            late_ns: u64::try_from(late.as_nanos()).unwrap_or(u64::MAX),
        };
        link.send(&Tell::Done(Box::new(measured)), PAUSE)?;
        self.served.fetch_add(1, Ordering::Relaxed);
        Ok(done)
    }
}

/// Tells how far the run is and heeds what the coordinator says, until it has ended.
fn accompany(link: &mut Link, running: &Running) -> Result<(), LinkError> {
    const LOOK: Duration = Duration::from_millis(50);
    let mut told = Instant::now();
    while !running.is_finished() {
        match link.poll::<Ask>(LOOK)? {
            Some(Ask::Stop) => running.stop(),
            Some(Ask::Abort) => running.abort(),
            _ => {}
        }
        if told.elapsed() >= PROGRESS {
            told = Instant::now();
            tell(link, running)?;
        }
    }
    // The last seconds, too.
    tell(link, running)
}

fn tell(link: &mut Link, running: &Running) -> Result<(), LinkError> {
    let (counts, seconds) = running.board().take();
    let progress = Tell::Progress {
        done: running.done(),
        failed: running.failed(),
        counts: Box::new(counts),
        seconds,
    };
    link.send(&progress, ANSWER)
}

fn keep(pem: &str) -> io::Result<tempfile::TempPath> {
    use io::Write as _;
    let mut file = tempfile::NamedTempFile::new()?;
    file.write_all(pem.as_bytes())?;
    file.flush()?;
    Ok(file.into_temp_path())
}
