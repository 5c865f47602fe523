//! The ingress without a cluster: a file says what to serve, checks of our own say how it is.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ballast_model::{
    AssignmentId, Generation, Health, Incarnation, Sequence, ServiceId, UpstreamSpec,
};
use ballast_probe::{Question, ask};
use ballast_wire::feed::{EndpointHealth, IngressToAgent};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::chain;
use crate::config::{Check, Config, Mode, NO_NODE, RawConfig, StandAlone};
use crate::hub::{AGENT_QUEUE, Hub, wall_clock};
use crate::l4::layer;
use crate::listeners::Shared;
use crate::table::{Feed, Session};
use crate::tls::Server as TlsServer;

/// How often the file's time and size are looked at.
const LOOK: Duration = Duration::from_millis(500);
/// How often the session with ourselves is renewed, in which the checks report.
const RENEW: Duration = Duration::from_millis(100);

/// Serves what a file says.
pub struct Standalone {
    hub: Arc<Hub>,
    tls: Arc<TlsServer>,
    shared: watch::Sender<Shared>,
    session: Session,
    generation: Generation,
    checkers: BTreeMap<AssignmentId, Checker>,
}

/// One endpoint's checks.
struct Checker {
    subject: Subject,
    asked: mpsc::Sender<Duration>,
    task: JoinHandle<()>,
}

impl Drop for Checker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Subject {
    assignment: AssignmentId,
    address: SocketAddr,
    check: Check,
    /// Whether it answers plain HTTP/1.1; of others no more than a connection is asked.
    plain: bool,
}

impl Standalone {
    /// Takes the first content of the file.
    pub fn new(
        hub: Arc<Hub>,
        alone: &StandAlone,
        tls: Arc<TlsServer>,
        shared: watch::Sender<Shared>,
    ) -> Self {
        let now = hub.now();
        let session = hub
            .feed()
            .hello(NO_NODE, Incarnation(1), now)
            .expect("the first session of a new feed is taken");
        let mut this = Self {
            hub,
            tls,
            shared,
            session,
            generation: Generation(0),
            checkers: BTreeMap::new(),
        };
        this.take(alone);
        this
    }

    /// Follows the file and keeps checking until `stop`.
    pub async fn run(mut self, path: Option<&Path>, stop: CancellationToken) {
        let (agent, mut questions) = mpsc::channel(AGENT_QUEUE);
        self.hub.connect_agent(NO_NODE, agent);
        let mut hangups = signal(SignalKind::hangup()).ok();
        let mut seen = path.and_then(stamp);
        let mut look = tokio::time::interval(LOOK);
        let mut renew = tokio::time::interval(RENEW);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = renew.tick() => {
                    let _ = self.hub.try_apply(|feed, now| feed.heartbeat(self.session, now));
                }
                Some(question) = questions.recv() => self.question(question),
                _ = look.tick() => {
                    let now = path.and_then(stamp);
                    if now.is_some() && now != seen {
                        seen = now;
                        self.reload(path).await;
                    }
                }
                _ = hangup(hangups.as_mut()) => {
                    seen = path.and_then(stamp);
                    self.reload(path).await;
                }
            }
        }
    }

    /// An endpoint stalls or refuses: it is asked over HTTP, for a hung program still accepts.
    fn question(&self, question: IngressToAgent) {
        if let IngressToAgent::Probe {
            assignment,
            timeout,
        } = question
            && let Some(checker) = self.checkers.get(&assignment)
        {
            // Full: a question is being asked already.
            let _ = checker.asked.try_send(timeout.to_duration());
        }
    }

    /// Reads the file again; if it is wrong, says so and changes nothing.
    async fn reload(&mut self, path: Option<&Path>) {
        let Some(path) = path.map(Path::to_owned) else {
            return;
        };
        let read = move || RawConfig::from_file(&path).and_then(RawConfig::validate);
        let config = match tokio::task::spawn_blocking(read).await {
            Ok(Ok(config)) => config,
            Ok(Err(error)) => {
                let error = chain(&error);
                tracing::error!(error, "configuration not taken, the old one stays");
                return;
            }
            Err(error) => {
                tracing::error!(%error, "configuration not read, the old one stays");
                return;
            }
        };
        self.take_config(&config).await;
    }

    async fn take_config(&mut self, config: &Config) {
        let Mode::StandAlone(alone) = &config.mode else {
            tracing::error!("configuration without services not taken, the old one stays");
            return;
        };
        let tls = config.tls.as_ref();
        let tls = match tls.map(|tls| self.tls.load(tls)).transpose() {
            Ok(tls) => tls,
            Err(error) => {
                let error = chain(&error);
                tracing::error!(error, "configuration not taken, the old one stays");
                return;
            }
        };
        // The table that the file would make is not there yet: new services begin without reals,
        // and get them at the moment at which it is.
        if let Err(error) = layer::take(&self.hub, &config.l4).await {
            let error = chain(&error);
            tracing::error!(error, "configuration not taken, the old one stays");
            return;
        }
        if let Err(error) = self.hub.observe(&config.observe) {
            tracing::error!(%error, "access log not opened, the old configuration stays");
            return;
        }
        if let Some(tls) = tls {
            self.tls.take(tls);
        }
        self.hub.hops.store(Arc::new(config.hops.clone()));
        self.take(alone);
        let hub = Arc::clone(&self.hub);
        // It fails only if it panicked, which it has said then.
        let _ = tokio::task::spawn_blocking(move || hub.l4.settle(&hub.table())).await;
        self.hub.listen_anew();
        self.shared.send_replace(config.listen);
        tracing::info!(generation = %self.generation, "configuration taken");
    }

    fn take(&mut self, alone: &StandAlone) {
        self.generation = self.generation.next();
        let (generation, tables) = (self.generation, alone.tables.clone());
        self.hub
            .apply(|feed: &mut Feed, _| feed.snapshot(generation, tables));
        let wanted = subjects(alone);
        self.checkers
            .retain(|assignment, checker| wanted.get(assignment) == Some(&checker.subject));
        for (assignment, subject) in wanted {
            let (hub, session) = (Arc::clone(&self.hub), self.session);
            self.checkers
                .entry(assignment)
                .or_insert_with(|| Checker::start(hub, session, subject));
        }
    }
}

fn subjects(alone: &StandAlone) -> BTreeMap<AssignmentId, Subject> {
    let check_of = |service: ServiceId| alone.checks.get(&service);
    let mut subjects = BTreeMap::new();
    for table in &alone.tables {
        let Some(check) = check_of(table.service) else {
            continue;
        };
        for port in &table.ports {
            let upstream = port.upstream.as_ref();
            let plain = upstream.is_none_or(UpstreamSpec::is_plain);
            for endpoint in &port.endpoints {
                let subject = Subject {
                    assignment: endpoint.assignment,
                    address: endpoint.address,
                    check: check.clone(),
                    plain,
                };
                subjects.insert(endpoint.assignment, subject);
            }
        }
    }
    subjects
}

/// Time and size of a file: a change of either is a change.
fn stamp(path: &Path) -> Option<(SystemTime, u64)> {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.modified().ok()?, meta.len()))
}

async fn hangup(signals: Option<&mut tokio::signal::unix::Signal>) -> Option<()> {
    match signals {
        Some(signals) => signals.recv().await,
        None => std::future::pending().await,
    }
}

impl Checker {
    fn start(hub: Arc<Hub>, session: Session, subject: Subject) -> Self {
        let (asked, questions) = mpsc::channel(1);
        let state = Checking {
            hub,
            session,
            subject: subject.clone(),
            streak: 0,
            up: None,
            answers_matter: false,
        };
        Self {
            subject,
            asked,
            task: tokio::spawn(state.run(questions)),
        }
    }
}

/// The loop that checks one endpoint.
struct Checking {
    hub: Arc<Hub>,
    session: Session,
    subject: Subject,
    /// Results in a row that contradict `up`.
    streak: u32,
    /// As last reported; a checker made anew has reported nothing.
    up: Option<bool>,
    /// It hung while it accepted connections: only an answer takes it in again.
    answers_matter: bool,
}

impl Checking {
    async fn run(mut self, mut questions: mpsc::Receiver<Duration>) {
        let mut next = tokio::time::interval(self.subject.check.interval);
        next.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = next.tick() => {
                    let question = self.regular();
                    let answer = ask(&question, self.subject.check.timeout).await;
                    self.judge(answer.is_ok(), false);
                }
                timeout = questions.recv() => {
                    let Some(timeout) = timeout else { return };
                    let answer = ask(&self.any_answer(), timeout).await;
                    self.judge(answer.is_ok(), true);
                }
            }
        }
    }

    fn regular(&self) -> Question {
        let address = self.subject.address;
        if !self.subject.plain {
            return Question::Tcp { address };
        }
        match &self.subject.check.http {
            Some(path) => Question::Http {
                address,
                path: path.clone(),
                status: (100, 399),
            },
            None if self.answers_matter => self.any_answer(),
            None => Question::Tcp { address },
        }
    }

    /// Any answer at all shows that the program runs.
    fn any_answer(&self) -> Question {
        if !self.subject.plain {
            let address = self.subject.address;
            return Question::Tcp { address };
        }
        let path = self.subject.check.http.clone();
        Question::Http {
            address: self.subject.address,
            path: path.unwrap_or_else(|| "/".to_owned()),
            status: (100, 599),
        }
    }

    /// `asked` questions have the traffic's evidence behind them, so one failure is enough.
    fn judge(&mut self, good: bool, asked: bool) {
        if Some(good) == self.up {
            self.streak = 0;
            return;
        }
        if asked && good {
            // It must still pass its regular checks.
            return;
        }
        self.streak += 1;
        let needed = match (good, asked) {
            (true, _) if self.up.is_none() => 1,
            (true, _) => self.subject.check.rise,
            (false, true) => 1,
            (false, false) => self.subject.check.fall,
        };
        if self.streak < needed {
            return;
        }
        self.streak = 0;
        self.up = Some(good);
        self.answers_matter = asked && !good;
        self.report(if good {
            Health::Healthy
        } else {
            Health::Unhealthy
        });
    }

    fn report(&self, health: Health) {
        let said = EndpointHealth {
            assignment: self.subject.assignment,
            // Of a clock that only grows: checkers are made anew by a reload.
            sequence: Sequence(self.hub.now().0),
            health,
            seen: wall_clock(),
        };
        tracing::info!(address = %self.subject.address, %health, "endpoint");
        let taken = self
            .hub
            .try_apply(|feed, now| feed.change(self.session, &said, now));
        if let Err(error) = taken {
            tracing::error!(%error, "check not taken");
        }
    }
}
