//! The side that says what is to be done, and merges what was measured.

use std::collections::BTreeSet;
use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use super::clock::{Offset, ROUNDS, RoundTrip};
use super::link::{Link, LinkError};
use super::message::{Ask, Measured, Tell, Work};
use super::{ANSWER, LEAD, MESSAGE, SILENCE, VERSION, WORKERS};
use crate::plan::{InvalidPlan, Plan};
use crate::recorder::{Board, Recorder};
use crate::report::{About, Report, Verdict};
use crate::run::Outcome;

/// The port of workers whose port is not given.
const PORT: u16 = 7000;
/// How long a worker may take to make a plan ready.
const READY: Duration = Duration::from_secs(30);
/// How soon a request to stop is passed on.
const LOOK: Duration = Duration::from_millis(50);
/// More time before the start for each connection of a lane, for it must be open by then.
const LEAD_PER_CONNECTION: Duration = Duration::from_micros(100);
/// The most of it.
const MOST_LEAD: Duration = Duration::from_secs(5);
/// How much later than the others a worker may begin.
const LATE: Duration = Duration::from_millis(1);
/// How far apart times of day may be before it is remarked: the results carry only the
/// coordinator's.
const WALL: Duration = Duration::from_secs(1);

/// With whom a run is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FleetOptions {
    /// `HOST` or `HOST:PORT` of each worker.
    pub workers: Vec<String>,
    /// What they ask for.
    pub token: Option<String>,
    /// Workers whose clock is not known to within this are refused.
    pub clock_bound: Duration,
}

/// A run that could not be made with these workers.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// None, too many, or one twice.
    #[error("from 1 to {WORKERS} workers are needed, each once; {0}")]
    Workers(String),
    /// It cannot be reached.
    #[error("cannot reach the worker {worker}")]
    Connect {
        /// As it was given.
        worker: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It does not want to.
    #[error("the worker {worker} refuses: {reason}")]
    Refused {
        /// As it was given.
        worker: String,
        /// Why.
        reason: String,
    },
    /// It does not say what it should.
    #[error("the worker {worker} does not answer as one")]
    Link {
        /// As it was given.
        worker: String,
        /// Why.
        #[source]
        source: LinkError,
    },
    /// Its clock cannot be compared well enough for a common start.
    #[error(
        "the clock of the worker {worker} is known only to within {uncertainty:?}, and \
         --clock-bound is {bound:?}"
    )]
    Clock {
        /// As it was given.
        worker: String,
        /// How far off it may be.
        uncertainty: Duration,
        /// How far it may be off.
        bound: Duration,
    },
    /// The plan cannot be run on as many lanes.
    #[error(transparent)]
    Plan(#[from] InvalidPlan),
    /// A file of certificates cannot be read.
    #[error("cannot read the certificates")]
    Certificates(#[source] io::Error),
    /// No thread.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
}

/// What the threads of a run share.
#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    abort: AtomicBool,
}

/// A run under way on several workers.
#[derive(Debug)]
pub struct Fleet {
    plan: Plan,
    started: SystemTime,
    shared: Arc<Shared>,
    board: Arc<Board>,
    zero: Instant,
    members: Vec<Member>,
    notes: Vec<String>,
}

#[derive(Debug)]
struct Member {
    name: String,
    done: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
    /// What it measured, or why that is lost.
    thread: JoinHandle<Result<Measured, String>>,
}

/// A worker that has said welcome.
struct Greeted {
    name: String,
    link: Link,
    lanes: usize,
    clock: Offset,
}

impl Fleet {
    /// Starts a run of `plan` on the workers of `options`.
    ///
    /// # Errors
    /// [`FleetError`] if not all of them can and will make it.
    pub fn start(mut plan: Plan, options: &FleetOptions) -> Result<Self, FleetError> {
        plan.cores = Vec::new();
        check_workers(&options.workers)?;
        let zero = Instant::now();
        let mut notes = Vec::new();
        let mut greeted = Vec::new();
        for worker in &options.workers {
            greeted.push(greet(worker, options, zero, &mut notes)?);
        }
        let lanes = greeted.iter().map(|worker| worker.lanes).sum();
        plan.validate(lanes)?;
        send_plan(&plan, lanes, &mut greeted)?;
        let connecting = plan.connections / lanes + 1;
        let more = LEAD_PER_CONNECTION * u32::try_from(connecting).unwrap_or(u32::MAX);
        let lead = LEAD + more.min(MOST_LEAD);
        let start_ns = nanos(zero.elapsed() + lead);
        for worker in &mut greeted {
            let at_ns = worker.clock.theirs(start_ns).unwrap_or_default();
            worker.send(&Ask::Start { at_ns })?;
        }
        let shared = Arc::new(Shared::default());
        let board = Board::new(greeted.len());
        let members = greeted.into_iter().enumerate();
        let members = members.map(|(nth, worker)| worker.accompany(&shared, (&board, nth)));
        Ok(Self {
            members: members.collect::<Result<_, _>>()?,
            board,
            zero: zero + Duration::from_nanos(start_ns),
            plan,
            started: SystemTime::now() + lead,
            shared,
            notes,
        })
    }

    /// Returns where it shows what the workers have told of their seconds.
    pub fn board(&self) -> &Arc<Board> {
        &self.board
    }

    /// Returns when the first request is due.
    pub fn zero(&self) -> Instant {
        self.zero
    }

    /// Returns how many workers there are.
    pub fn workers(&self) -> usize {
        self.members.len()
    }

    /// Returns how many requests are done, as far as the workers have told.
    pub fn done(&self) -> u64 {
        let members = self.members.iter();
        members.map(|it| it.done.load(Ordering::Relaxed)).sum()
    }

    /// Returns how many requests have failed, as far as the workers have told.
    pub fn failed(&self) -> u64 {
        let members = self.members.iter();
        members.map(|it| it.failed.load(Ordering::Relaxed)).sum()
    }

    /// Returns whether every worker has ended, or is lost.
    pub fn is_finished(&self) -> bool {
        self.members.iter().all(|it| it.thread.is_finished())
    }

    /// Schedules nothing more. Requests that are due or in flight are still done.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }

    /// Gives up requests in flight, too.
    pub fn abort(&self) {
        self.stop();
        self.shared.abort.store(true, Ordering::Relaxed);
    }

    /// Waits for the end and returns what all workers gave together. A worker that was lost, or
    /// late, makes it invalid.
    pub fn join(self) -> Outcome {
        let mut recorder: Option<Recorder> = None;
        let mut engines = BTreeSet::new();
        let mut scheduled = Duration::ZERO;
        let mut flaws = Vec::new();
        let count = self.members.len();
        for member in self.members {
            let panicked = |_| Err("its thread panicked".to_owned());
            match member.thread.join().unwrap_or_else(panicked) {
                Ok(measured) => {
                    let late = Duration::from_nanos(measured.late_ns);
                    if late > LATE {
                        flaws.push(format!("the worker {} began {late:?} late", member.name));
                    }
                    scheduled = scheduled.max(Duration::from_nanos(measured.scheduled_ns));
                    engines.insert(measured.engine);
                    match &mut recorder {
                        None => recorder = Some(measured.recorder),
                        Some(all) => all.merge(&measured.recorder),
                    }
                }
                Err(reason) => flaws.push(format!("the worker {} was lost: {reason}", member.name)),
            }
        }
        let engines: Vec<String> = engines.into_iter().collect();
        let engine = format!("{}: {}", some(count, "worker"), engines.join("; "));
        let about = About {
            notes: self.notes,
            ..About::of(&self.plan, engine, scheduled, self.started)
        };
        let recorder = recorder.unwrap_or_default();
        let mut report = Report::new(&about, &recorder);
        if !flaws.is_empty() {
            if report.verdict == Verdict::Invalid {
                flaws.push(std::mem::take(&mut report.reason));
            }
            report.verdict = Verdict::Invalid;
            report.reason = flaws.join("; ");
        }
        Outcome {
            report,
            records: Vec::new(),
            recorder,
            about,
        }
    }
}

fn check_workers(workers: &[String]) -> Result<(), FleetError> {
    if workers.is_empty() || workers.len() > WORKERS {
        return Err(FleetError::Workers(format!("{} are given", workers.len())));
    }
    let mut seen = BTreeSet::new();
    match workers
        .iter()
        .find(|worker| !seen.insert(with_port(worker)))
    {
        Some(twice) => Err(FleetError::Workers(format!("{twice} is given twice"))),
        None => Ok(()),
    }
}

fn with_port(worker: &str) -> String {
    let after_address = worker.rsplit(']').next().unwrap_or_default();
    if after_address.contains(':') {
        worker.to_owned()
    } else {
        format!("{worker}:{PORT}")
    }
}

fn connect(worker: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "it has no address");
    for address in with_port(worker).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, ANSWER) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Says hello and compares clocks.
fn greet(
    worker: &str,
    options: &FleetOptions,
    zero: Instant,
    notes: &mut Vec<String>,
) -> Result<Greeted, FleetError> {
    let stream = connect(worker).map_err(|source| FleetError::Connect {
        worker: worker.to_owned(),
        source,
    })?;
    let broken = |source| FleetError::Link {
        worker: worker.to_owned(),
        source,
    };
    let mut link = Link::new(stream, MESSAGE).map_err(|error| broken(error.into()))?;
    let hello = Ask::Hello {
        version: VERSION,
        token: options.token.clone(),
    };
    link.send(&hello, ANSWER).map_err(broken)?;
    let (lanes, host) = match link.expect(ANSWER).map_err(broken)? {
        Tell::Welcome { lanes, host } => (lanes.max(1), host),
        other => return Err(unexpected(worker, other)),
    };
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let sent_ns = nanos(zero.elapsed());
        link.send(&Ask::Ping, ANSWER).map_err(broken)?;
        match link.expect(ANSWER).map_err(broken)? {
            Tell::Pong { clock_ns, wall_ns } => {
                rounds.push(RoundTrip {
                    sent_ns,
                    theirs_ns: clock_ns,
                    received_ns: nanos(zero.elapsed()),
                });
                if rounds.len() == ROUNDS {
                    notes.extend(remark_wall(worker, &host, wall_ns));
                }
            }
            other => return Err(unexpected(worker, other)),
        }
    }
    let clock = Offset::of(&rounds).unwrap_or(Offset {
        ahead_ns: 0,
        uncertainty: Duration::MAX,
    });
    if clock.uncertainty > options.clock_bound {
        return Err(FleetError::Clock {
            worker: worker.to_owned(),
            uncertainty: clock.uncertainty,
            bound: options.clock_bound,
        });
    }
    notes.push(format!(
        "worker {worker} ({host}): {}, its clock is known to within {:?}",
        some(lanes, "lane"),
        clock.uncertainty
    ));
    Ok(Greeted {
        name: worker.to_owned(),
        link,
        lanes,
        clock,
    })
}

fn remark_wall(worker: &str, host: &str, wall_ns: u64) -> Option<String> {
    let here = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let apart = here.abs_diff(Duration::from_nanos(wall_ns));
    (apart > WALL)
        .then(|| format!("worker {worker} ({host}): its time of day is {apart:.1?} off from here"))
}

fn unexpected(worker: &str, told: Tell) -> FleetError {
    let worker = worker.to_owned();
    match told {
        Tell::Refused { reason } | Tell::Failed { reason } => {
            FleetError::Refused { worker, reason }
        }
        _ => FleetError::Link {
            worker,
            source: LinkError::Garbage("another message was expected".to_owned()),
        },
    }
}

fn send_plan(plan: &Plan, lanes: usize, workers: &mut [Greeted]) -> Result<(), FleetError> {
    let certificates = certificates(plan)?;
    let mut first_lane = 0;
    for worker in workers.iter_mut() {
        worker.send(&Ask::Plan(Box::new(Work {
            plan: plan.clone(),
            first_lane,
            lanes,
            certificates: certificates.clone(),
        })))?;
        first_lane += worker.lanes;
    }
    for worker in workers {
        match worker.link.expect(READY) {
            Ok(Tell::Ready) => {}
            Ok(other) => return Err(unexpected(&worker.name, other)),
            Err(source) => {
                return Err(FleetError::Link {
                    worker: worker.name.clone(),
                    source,
                });
            }
        }
    }
    Ok(())
}

fn certificates(plan: &Plan) -> Result<Vec<Option<String>>, FleetError> {
    let files = plan
        .targets
        .iter()
        .map(|target| target.tls.as_ref()?.ca_file.as_ref());
    files
        .map(|file| file.map(std::fs::read_to_string).transpose())
        .collect::<Result<_, _>>()
        .map_err(FleetError::Certificates)
}

impl Greeted {
    fn send(&mut self, ask: &Ask) -> Result<(), FleetError> {
        let sent = self.link.send(ask, READY);
        sent.map_err(|source| FleetError::Link {
            worker: self.name.clone(),
            source,
        })
    }

    fn accompany(
        self,
        shared: &Arc<Shared>,
        (board, nth): (&Arc<Board>, usize),
    ) -> Result<Member, FleetError> {
        let (done, failed) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let counts = (done.clone(), failed.clone());
        let (shared, board, mut link) = (shared.clone(), board.clone(), self.link);
        let thread = std::thread::Builder::new()
            .name("worker".to_owned())
            .spawn(move || {
                let measured = follow(&mut link, &shared, &counts, (&board, nth));
                if measured.is_err() {
                    // What the others still did would not be the load that was asked for.
                    shared.stop.store(true, Ordering::Relaxed);
                }
                measured
            })
            .map_err(FleetError::Thread)?;
        Ok(Member {
            name: self.name,
            done,
            failed,
            thread,
        })
    }
}

/// Follows one worker to its end; returns what it measured, or why that is lost.
fn follow(
    link: &mut Link,
    shared: &Shared,
    (done, failed): &(Arc<AtomicU64>, Arc<AtomicU64>),
    (board, nth): (&Board, usize),
) -> Result<Measured, String> {
    let mut heard = Instant::now();
    let (mut stopped, mut aborted) = (false, false);
    let mut fresh = Vec::new();
    loop {
        if shared.stop.load(Ordering::Relaxed) && !stopped {
            stopped = true;
            link.send(&Ask::Stop, ANSWER)
                .map_err(|error| error.to_string())?;
        }
        if shared.abort.load(Ordering::Relaxed) && !aborted {
            aborted = true;
            link.send(&Ask::Abort, ANSWER)
                .map_err(|error| error.to_string())?;
        }
        let pending = link.pending();
        match link.poll(LOOK).map_err(|error| error.to_string())? {
            Some(Tell::Progress {
                done: all,
                failed: bad,
                counts,
                mut seconds,
            }) => {
                fresh.append(&mut seconds);
                board.put(nth, &counts, &mut fresh);
                done.store(all, Ordering::Relaxed);
                failed.store(bad, Ordering::Relaxed);
            }
            Some(Tell::Done(measured)) => {
                done.store(measured.recorder.counts().done, Ordering::Relaxed);
                return Ok(*measured);
            }
            Some(Tell::Failed { reason } | Tell::Refused { reason }) => return Err(reason),
            Some(_) => return Err("it said something out of turn".to_owned()),
            // A large result is some time on its way.
            None if link.pending() > pending => {}
            None if heard.elapsed() > SILENCE => {
                return Err(format!("it said nothing for {SILENCE:?}"));
            }
            None => continue,
        }
        heard = Instant::now();
    }
}

/// Returns a number and what it is of, in the plural if need be.
pub(crate) fn some(count: usize, of: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {of}{plural}")
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_given_once_each() {
        let check = |workers: &[&str]| {
            let workers: Vec<String> = workers.iter().map(|it| (*it).to_owned()).collect();
            check_workers(&workers).map_err(|error| error.to_string())
        };
        assert_eq!(check(&["a", "b:1", "[::1]"]), Ok(()));
        assert!(check(&[]).expect_err("none").contains("0 are given"));
        assert!(
            check(&["a", "a:7000"])
                .expect_err("twice")
                .contains("given twice")
        );
        assert_eq!(with_port("[::1]"), "[::1]:7000");
        assert_eq!(with_port("[::1]:5"), "[::1]:5");
    }
}
