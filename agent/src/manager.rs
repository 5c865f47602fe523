//! The link to the manager that leads: registration, assignments down, reports up.
//!
//! Losing it changes nothing for tasks: they run on, are restarted, and their health goes to the
//! ingresses. It is made again with a backoff and begins with all that the agent knows.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ballast_link::{KeyPair, Link, LinkError, LinkSender, Peer, Role, Trust, alpn};
use ballast_model::{Millis, NodeDescription, limits};
use ballast_wire::agent::{AgentHello, AgentToManager, AssignmentSet, LogLines, ManagerToAgent};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::backoff::{Backoff, notice_silence};
use crate::feed::Feeds;
use crate::logs::read::{self, Request};
use crate::report::Batch;
use crate::shell::Agent;
use crate::worker::Event;

/// Between two attempts to connect, at first and at most.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));
/// How long reports that come together are collected before they are sent as one batch.
const COALESCE: Duration = Duration::from_millis(1);
/// Redirects followed without a pause; managers that send us in circles get the backoff.
const REDIRECTS: u32 = 3;
/// How long a manager may take to answer the first message.
const WELCOME_LIMIT: Duration = Duration::from_secs(5);
/// How often it is looked whether the certificate is to be renewed.
const RENEWAL_CHECK: Duration = Duration::from_secs(1);
/// How long an answer to a renewal is awaited before it is asked for again.
const RENEWAL_AGAIN: Duration = Duration::from_secs(30);
/// Requests for logs served at once; more are refused.
const LOG_READERS: usize = 64;
/// Messages with lines of logs that wait for the link; readers wait when it is full.
const LOG_QUEUE: usize = 8;
/// What a manager may ask for as the time between two heartbeats, whatever it says.
const PACES: (Millis, Millis) = (Millis(10), Millis(10_000));

/// Keeps a link to whichever manager leads.
pub(crate) struct ManagerLink {
    pub(crate) agent: Arc<Agent>,
    pub(crate) trust: Arc<Trust>,
    /// `host:port` of managers.
    pub(crate) managers: Vec<String>,
    pub(crate) description: NodeDescription,
    /// Where renewed certificates are kept.
    pub(crate) credentials: PathBuf,
    /// Set once a manager has welcomed us.
    pub(crate) ready: Arc<AtomicBool>,
    pub(crate) shutdown: CancellationToken,
}

/// How a session ended.
enum Ended {
    Redirect(SocketAddr),
    NoLeader,
    Refused(String),
    Closed,
}

impl ManagerLink {
    pub(crate) async fn keep(self) {
        let mut backoff = Backoff::new(RECONNECT.0, RECONNECT.1);
        let mut said = String::new();
        let mut hint = None;
        let mut redirects = 0;
        for turn in 0_usize.. {
            let mut worked = false;
            let result = tokio::select! {
                () = self.shutdown.cancelled() => return,
                result = self.attempt(hint.take(), turn, &mut worked) => result,
            };
            if worked {
                self.agent.reports.end();
                backoff.reset();
                said.clear();
                redirects = 0;
            }
            let reason = match result {
                Ok(Ended::Redirect(leader)) => {
                    hint = Some(leader);
                    redirects += 1;
                    if redirects <= REDIRECTS {
                        continue;
                    }
                    redirects = 0;
                    "the managers send us on to each other".to_owned()
                }
                Ok(Ended::NoLeader) => "no manager leads at the moment".to_owned(),
                Ok(Ended::Refused(reason)) => format!("the manager refused: {reason}"),
                Ok(Ended::Closed) => "the manager closed the connection".to_owned(),
                Err(error) => error.to_string(),
            };
            if reason != said {
                tracing::warn!(reason, "no link to a manager; tasks run on");
                said = reason;
            }
            tokio::select! {
                () = self.shutdown.cancelled() => return,
                () = backoff.wait() => {}
            }
        }
    }

    async fn attempt(
        &self,
        hint: Option<SocketAddr>,
        turn: usize,
        worked: &mut bool,
    ) -> Result<Ended, LinkError> {
        let address = match hint {
            Some(address) => address,
            None => resolve(&self.managers, turn).await?,
        };
        let peer = Peer {
            address,
            role: Role::Manager,
            id: None,
        };
        let (stream, identity) = self.trust.connect(peer, alpn::LINK).await?;
        notice_silence(&stream);
        let mut link: Link<AgentToManager, ManagerToAgent> = Link::new(stream, identity);
        link.sender.send(&self.hello()).await?;
        let answer = tokio::time::timeout(WELCOME_LIMIT, link.receiver.recv());
        match answer
            .await
            .map_err(|_| LinkError::Stalled(WELCOME_LIMIT))??
        {
            Some(ManagerToAgent::Welcome { cluster })
                if cluster == self.trust.identity().cluster => {}
            Some(ManagerToAgent::Welcome { cluster }) => {
                return Err(LinkError::OtherCluster {
                    ours: self.trust.identity().cluster,
                    theirs: cluster,
                });
            }
            Some(ManagerToAgent::Redirect { leader }) => {
                return Ok(leader.map_or(Ended::NoLeader, Ended::Redirect));
            }
            Some(ManagerToAgent::Refused(reason)) => return Ok(Ended::Refused(reason)),
            Some(_) => {
                return Ok(Ended::Refused(
                    "it speaks before it says welcome".to_owned(),
                ));
            }
            None => return Ok(Ended::Closed),
        }
        *worked = true;
        self.ready.store(true, Ordering::Relaxed);
        tracing::info!(%address, "registered with a manager");
        Session::new(self).run(link).await
    }

    fn hello(&self) -> AgentToManager {
        let (generation, tasks) = self.agent.snapshot();
        AgentToManager::Hello(AgentHello {
            node: self.agent.node(),
            incarnation: self.agent.incarnation,
            description: self.description.clone(),
            generation,
            tasks,
        })
    }
}

/// Returns the address of one of the managers, another one each turn.
pub(crate) async fn resolve(managers: &[String], turn: usize) -> Result<SocketAddr, LinkError> {
    let none = |text: String| LinkError::Refused(text);
    if managers.is_empty() {
        return Err(none(
            "no manager is known; give one with --manager".to_owned(),
        ));
    }
    let name = &managers[turn % managers.len()];
    let found = tokio::net::lookup_host(name).await;
    let mut found =
        found.map_err(|error| none(format!("cannot find manager `{name}`: {error}")))?;
    found
        .next()
        .ok_or_else(|| none(format!("manager `{name}` has no address")))
}

/// Returns a clock for heartbeats; the first is due at once, and one that is late shifts the rest.
fn paced(pace: Millis) -> tokio::time::Interval {
    let mut heartbeat = tokio::time::interval(pace.to_duration());
    heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    heartbeat
}

/// One connection that was welcomed.
struct Session<'a> {
    link: &'a ManagerLink,
    readers: BTreeMap<u64, CancellationToken>,
    lines: (mpsc::Sender<LogLines>, mpsc::Receiver<LogLines>),
    renewal: Option<(KeyPair, Instant)>,
    /// The newest set that this link brought, which what comes next may change.
    set: Option<AssignmentSet>,
    /// How often the manager wants to hear from this agent.
    pace: Millis,
}

impl<'a> Session<'a> {
    fn new(link: &'a ManagerLink) -> Self {
        Self {
            link,
            readers: BTreeMap::new(),
            lines: mpsc::channel(LOG_QUEUE),
            renewal: None,
            set: None,
            pace: limits::HEARTBEAT_INTERVAL,
        }
    }

    async fn run(
        mut self,
        mut link: Link<AgentToManager, ManagerToAgent>,
    ) -> Result<Ended, LinkError> {
        let agent = &self.link.agent;
        let mut pace = self.pace;
        let mut heartbeat = paced(pace);
        let mut renewal = tokio::time::interval(RENEWAL_CHECK);
        loop {
            let mut ended = None;
            tokio::select! {
                biased;
                message = link.receiver.recv() => match message? {
                    Some(message) => ended = self.handle(message),
                    None => ended = Some(Ended::Closed),
                },
                () = agent.reports.changed() => {
                    tokio::time::sleep(COALESCE).await;
                    self.report(&mut link.sender).await?;
                }
                _ = heartbeat.tick() => link.sender.send(&AgentToManager::Heartbeat).await?,
                Some(lines) = self.lines.1.recv() => self.send_lines(lines, &mut link.sender).await?,
                _ = renewal.tick() => self.renew(&mut link.sender).await?,
            }
            if let Some(ended) = ended {
                return Ok(ended);
            }
            if self.pace != pace {
                pace = self.pace;
                heartbeat = paced(pace);
            }
        }
    }

    async fn report(&self, sender: &mut LinkSender<AgentToManager>) -> Result<(), LinkError> {
        let (reports, applied) = match self.link.agent.reports.take() {
            Batch::Some(reports, applied) => (reports, applied),
            Batch::Everything => {
                let (generation, reports) = self.link.agent.snapshot();
                (reports, Some(generation))
            }
        };
        if !reports.is_empty() {
            sender.queue(&AgentToManager::Report(reports))?;
        }
        if let Some(generation) = applied {
            sender.queue(&AgentToManager::Applied(generation))?;
        }
        sender.flush().await
    }

    async fn send_lines(
        &mut self,
        lines: LogLines,
        sender: &mut LinkSender<AgentToManager>,
    ) -> Result<(), LinkError> {
        if lines.end.is_some() {
            self.readers.remove(&lines.request);
        }
        sender.send(&AgentToManager::LogLines(lines)).await
    }

    async fn renew(&mut self, sender: &mut LinkSender<AgentToManager>) -> Result<(), LinkError> {
        let asked = self.renewal.as_ref().map(|(_, at)| at.elapsed());
        if asked.is_some_and(|ago| ago < RENEWAL_AGAIN) {
            return Ok(());
        }
        let credentials = self.link.trust.credentials();
        if crate::shell::now().wall < credentials.renewal_due() {
            return Ok(());
        }
        let key = KeyPair::generate()?;
        let csr = key.signing_request()?;
        self.renewal = Some((key, Instant::now()));
        sender.send(&AgentToManager::Renew { csr }).await
    }

    fn handle(&mut self, message: ManagerToAgent) -> Option<Ended> {
        let link = self.link;
        match message {
            ManagerToAgent::Welcome { .. } => {}
            ManagerToAgent::Assignments(set) => {
                self.set = Some(set.clone());
                link.agent.dispatch(Event::Assignments(set));
            }
            ManagerToAgent::Beat(pace) => self.pace = pace.clamp(PACES.0, PACES.1),
            ManagerToAgent::Changes(changes) => {
                let Some(set) = self.set.as_mut() else {
                    return Some(Ended::Closed);
                };
                if !set.patch(changes) {
                    // Out of step: the next link begins with the whole set.
                    return Some(Ended::Closed);
                }
                link.agent.dispatch(Event::Assignments(set.clone()));
            }
            ManagerToAgent::Ingresses(ingresses) => {
                Feeds::set(&link.agent, &link.trust, &ingresses, &link.shutdown);
                link.agent.keep_ingresses(ingresses);
            }
            ManagerToAgent::ReadLogs {
                request,
                assignment,
                tail,
                follow,
            } => {
                let request = Request {
                    id: request,
                    tail,
                    follow,
                };
                self.read_logs(request, assignment);
            }
            ManagerToAgent::CancelLogs { request } => {
                if let Some(reader) = self.readers.remove(&request) {
                    reader.cancel();
                }
            }
            ManagerToAgent::Certificate(chain) => {
                if let Some((key, _)) = self.renewal.take() {
                    link.install(key, chain);
                }
            }
            ManagerToAgent::Redirect { leader } => {
                return Some(leader.map_or(Ended::NoLeader, Ended::Redirect));
            }
            ManagerToAgent::Refused(reason) => return Some(Ended::Refused(reason)),
        }
        None
    }

    fn read_logs(&mut self, request: Request, assignment: ballast_model::AssignmentId) {
        let out = self.lines.0.clone();
        let logs = if self.readers.len() < LOG_READERS {
            let logs = self.link.agent.logs.find(assignment);
            logs.ok_or_else(|| format!("node has no log of assignment {assignment}"))
        } else {
            Err(format!("{LOG_READERS} logs are being read already"))
        };
        match logs {
            Ok(logs) => {
                let cancel = self.link.shutdown.child_token();
                self.readers.insert(request.id, cancel.clone());
                tokio::spawn(read::serve(logs, request, out, cancel));
            }
            Err(reason) => {
                let end = LogLines {
                    request: request.id,
                    lines: Vec::new(),
                    end: Some(reason),
                };
                // The queue is drained by the very task that runs this.
                tokio::spawn(async move { drop(out.send(end).await) });
            }
        }
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        for reader in self.readers.values() {
            reader.cancel();
        }
    }
}

impl ManagerLink {
    /// Puts a renewed certificate to use, for every connection from now on.
    fn install(&self, key: KeyPair, chain: Vec<Vec<u8>>) {
        let installed = key.into_credentials(chain).and_then(|credentials| {
            let until = credentials.not_after;
            self.trust.renew(credentials.clone())?;
            credentials.store(&self.credentials).map(|()| until)
        });
        match installed {
            Ok(until) => tracing::info!(%until, "renewed the certificate"),
            Err(error) => tracing::warn!(%error, "cannot use a renewed certificate"),
        }
    }
}
