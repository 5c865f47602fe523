//! Health in one hop: a connection to every ingress, and what is pushed through it.
//!
//! The manager names the ingresses; the list outlives the agent, so that health flows without a
//! manager. Each ingress has a queue of its own: a slow one holds up no other.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ballast_link::{Link, LinkError, LinkSender, Peer, Role, Trust, alpn};
use ballast_model::{IngressId, limits};
use ballast_wire::agent::IngressAddress;
use ballast_wire::feed::{AgentToIngress, EndpointHealth, IngressToAgent};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::shell::Agent;
use crate::worker::Event;

/// Changes queued for one ingress; past them it is sent everything anew.
const QUEUE: usize = 4096;
/// Between two attempts to connect, at first and at most. An ingress that restarts must not wait
/// long for the truth.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));
/// How often everything is sent again: what an ingress had to ignore, as it did not know the
/// assignment yet, it hears then.
const RESYNC: Duration = Duration::from_secs(5);
/// How long an ingress may take to answer the first message.
const WELCOME_LIMIT: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
struct QueueState {
    connected: bool,
    overflow: bool,
    changes: Vec<EndpointHealth>,
}

/// Changes on their way to one ingress.
#[derive(Debug, Default)]
struct Queue {
    state: Mutex<QueueState>,
    changed: Notify,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, health: EndpointHealth) {
        let mut state = self.lock();
        if !state.connected || state.overflow {
            return;
        }
        if state.changes.len() >= QUEUE {
            state.changes.clear();
            state.overflow = true;
        } else {
            state.changes.push(health);
        }
        drop(state);
        self.changed.notify_one();
    }

    fn begin(&self) {
        *self.lock() = QueueState {
            connected: true,
            ..QueueState::default()
        };
    }

    /// Takes the changes; none if everything is to be sent anew.
    fn take(&self) -> Option<Vec<EndpointHealth>> {
        let mut state = self.lock();
        (!state.overflow).then(|| std::mem::take(&mut state.changes))
    }
}

#[derive(Debug)]
struct Ingress {
    address: SocketAddr,
    queue: Arc<Queue>,
    cancel: CancellationToken,
}

/// The connections to all ingresses.
#[derive(Debug, Default)]
pub struct Feeds {
    ingresses: Mutex<BTreeMap<IngressId, Ingress>>,
}

impl Feeds {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<IngressId, Ingress>> {
        self.ingresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a change for every ingress that is connected.
    pub fn push(&self, health: EndpointHealth) {
        for ingress in self.lock().values() {
            ingress.queue.push(health);
        }
    }

    /// Connects to these ingresses and to no others, until `shutdown`.
    pub fn set(
        agent: &Arc<Agent>,
        trust: &Arc<Trust>,
        wanted: &[IngressAddress],
        shutdown: &CancellationToken,
    ) {
        let mut ingresses = agent.feeds.lock();
        ingresses.retain(|id, ingress| {
            let keep = wanted
                .iter()
                .any(|wanted| wanted.ingress == *id && wanted.address == ingress.address);
            if !keep {
                ingress.cancel.cancel();
            }
            keep
        });
        for &IngressAddress { ingress, address } in wanted {
            ingresses.entry(ingress).or_insert_with(|| {
                let connection = Connection {
                    agent: agent.clone(),
                    trust: trust.clone(),
                    ingress,
                    address,
                    queue: Arc::default(),
                    cancel: shutdown.child_token(),
                };
                let entry = Ingress {
                    address,
                    queue: connection.queue.clone(),
                    cancel: connection.cancel.clone(),
                };
                tokio::spawn(connection.keep());
                entry
            });
        }
    }
}

struct Connection {
    agent: Arc<Agent>,
    trust: Arc<Trust>,
    ingress: IngressId,
    address: SocketAddr,
    queue: Arc<Queue>,
    cancel: CancellationToken,
}

impl Connection {
    async fn keep(self) {
        let mut backoff = Backoff::new(RECONNECT.0, RECONNECT.1);
        let mut said = String::new();
        loop {
            let (worked, error) = tokio::select! {
                () = self.cancel.cancelled() => break,
                ended = self.run() => ended,
            };
            if worked {
                backoff.reset();
                said.clear();
            }
            let reason =
                error.map_or_else(|| "it closed the connection".to_owned(), |e| e.to_string());
            if reason != said {
                tracing::warn!(ingress = %self.ingress, address = %self.address, reason, "no feed to an ingress");
                said = reason;
            }
            tokio::select! {
                () = self.cancel.cancelled() => break,
                () = backoff.wait() => {}
            }
        }
        self.down();
    }

    /// Runs one connection; returns whether it ever worked, and why it ended.
    async fn run(&self) -> (bool, Option<LinkError>) {
        let mut worked = false;
        let result = self.connect(&mut worked).await;
        if worked {
            self.down();
        }
        (worked, result.err())
    }

    fn down(&self) {
        *self.queue.lock() = QueueState::default();
        self.agent.dispatch(Event::IngressDown(self.ingress));
    }

    async fn connect(&self, worked: &mut bool) -> Result<(), LinkError> {
        let peer = Peer {
            address: self.address,
            role: Role::Ingress,
            id: Some(self.ingress.to_bits()),
        };
        let (stream, identity) = self.trust.connect(peer, alpn::FEED).await?;
        crate::backoff::notice_silence(&stream);
        let mut link: Link<AgentToIngress, IngressToAgent> = Link::new(stream, identity);
        let hello = AgentToIngress::Hello {
            node: self.agent.node(),
            incarnation: self.agent.incarnation,
        };
        link.sender.queue(&hello)?;
        self.sync(&mut link.sender).await?;
        let welcome = tokio::time::timeout(WELCOME_LIMIT, link.receiver.recv());
        match welcome
            .await
            .map_err(|_| LinkError::Stalled(WELCOME_LIMIT))??
        {
            Some(IngressToAgent::Welcome) => {}
            Some(other) => self.handle(other),
            None => return Ok(()),
        }
        *worked = true;
        tracing::info!(ingress = %self.ingress, address = %self.address, "feed to an ingress");
        self.agent.dispatch(Event::IngressUp(self.ingress));
        let mut heartbeat = tokio::time::interval(limits::HEARTBEAT_INTERVAL.to_duration());
        heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut resync = tokio::time::interval(RESYNC);
        resync.reset();
        loop {
            tokio::select! {
                biased;
                () = self.queue.changed.notified() => self.send_changes(&mut link.sender).await?,
                message = link.receiver.recv() => match message? {
                    Some(message) => self.handle(message),
                    None => return Ok(()),
                },
                _ = heartbeat.tick() => link.sender.send(&AgentToIngress::Heartbeat).await?,
                _ = resync.tick() => self.sync(&mut link.sender).await?,
            }
        }
    }

    async fn sync(&self, sender: &mut LinkSender<AgentToIngress>) -> Result<(), LinkError> {
        let all = self.agent.health(|| self.queue.begin());
        sender.send(&AgentToIngress::Sync(all)).await
    }

    async fn send_changes(&self, sender: &mut LinkSender<AgentToIngress>) -> Result<(), LinkError> {
        let Some(changes) = self.queue.take() else {
            return self.sync(sender).await;
        };
        for change in &changes {
            sender.queue(&AgentToIngress::Change(*change))?;
        }
        sender.flush().await?;
        let now = crate::shell::now().wall;
        for change in changes {
            let micros = now.0.saturating_sub(change.seen.0);
            self.agent.metrics.pushed(Duration::from_micros(micros));
        }
        Ok(())
    }

    fn handle(&self, message: IngressToAgent) {
        match message {
            IngressToAgent::Welcome => {}
            IngressToAgent::Probe {
                assignment,
                timeout,
            } => self
                .agent
                .dispatch(Event::ProbeRequested(assignment, timeout)),
            IngressToAgent::Drained {
                assignment,
                sequence,
                in_flight,
            } => self.agent.dispatch(Event::Drained {
                ingress: self.ingress,
                assignment,
                sequence,
                in_flight,
            }),
        }
    }
}
