//! The listener that agents push health to: one hop from a failure seen to a table swapped.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ballast_link::{Accepted, ClientAuth, Link, LinkError, LinkSender, Role, Trust, alpn};
use ballast_model::limits::INGRESS_LEASE;
use ballast_model::{AssignmentId, Health, NodeId, Sequence};
use ballast_wire::feed::{AgentToIngress, EndpointHealth, IngressToAgent};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use crate::chain;
use crate::hub::{AGENT_QUEUE, Hub};
use crate::table::{Feed, FeedError, Session};

/// TLS handshakes at once: each costs about a millisecond of CPU, and a thousand agents may
/// reconnect together.
const HANDSHAKES: usize = 16;
/// How long a new connection may take to say who it is.
const HELLO: Duration = Duration::from_secs(5);
/// Silence after which a connection is closed. Much longer than the lease: only the lease decides
/// about traffic, this only frees what a vanished host left behind.
const SILENCE: Duration = INGRESS_LEASE.to_duration().saturating_mul(20);

/// Why a connection of an agent ended.
#[derive(Debug, thiserror::Error)]
enum FeedLinkError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Feed(#[from] FeedError),
    #[error("a certificate of {0} was shown; only agents push health")]
    NotAnAgent(String),
    #[error("said to be node {said}, but its certificate names {certified}")]
    WrongNode { said: NodeId, certified: NodeId },
    #[error("spoke before it said who it is")]
    NoHello,
    #[error("fell silent")]
    Silent,
}

/// Accepts agents until `stop`.
pub async fn serve(
    hub: Arc<Hub>,
    trust: Arc<Trust>,
    listener: TcpListener,
    stop: CancellationToken,
) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let Ok((socket, address)) = accepted else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let (hub, trust) = (Arc::clone(&hub), Arc::clone(&trust));
        let (handshakes, stop) = (Arc::clone(&handshakes), stop.clone());
        tokio::spawn(async move {
            let served = tokio::select! {
                served = greet(&hub, &trust, socket, &handshakes) => served,
                () = stop.cancelled() => return,
            };
            match served {
                Ok(()) => tracing::debug!(%address, "agent closed its feed"),
                Err(error) => {
                    let error = chain(&error);
                    tracing::warn!(%address, error, "feed of an agent ended");
                }
            }
        });
    }
}

async fn greet(
    hub: &Arc<Hub>,
    trust: &Trust,
    socket: TcpStream,
    handshakes: &Semaphore,
) -> Result<(), FeedLinkError> {
    let accepted = {
        let _place = handshakes.acquire().await;
        trust
            .accept(socket, &[alpn::FEED], ClientAuth::Required)
            .await?
    };
    let Accepted {
        stream, identity, ..
    } = accepted;
    let identity = identity.ok_or(LinkError::NoCertificate)?;
    if identity.role != Role::Agent {
        return Err(FeedLinkError::NotAnAgent(identity.to_string()));
    }
    let certified = NodeId::from_bits(identity.id);
    let mut link: Link<IngressToAgent, AgentToIngress> = Link::new(stream, identity);
    let hello = tokio::time::timeout(HELLO, link.receiver.recv()).await;
    let Ok(Some(AgentToIngress::Hello { node, incarnation })) =
        hello.map_err(|_| FeedLinkError::NoHello)?
    else {
        return Err(FeedLinkError::NoHello);
    };
    if node != certified {
        return Err(FeedLinkError::WrongNode {
            said: node,
            certified,
        });
    }
    let now = hub.now();
    let session = hub.feed().hello(node, incarnation, now)?;
    link.sender.send(&IngressToAgent::Welcome).await?;
    let (outbox, letters) = mpsc::channel(AGENT_QUEUE);
    hub.connect_agent(node, outbox.clone());
    let mut agent = Agent {
        hub: Arc::clone(hub),
        session,
        outbox: outbox.clone(),
        drains: BTreeMap::new(),
    };
    let ended = tokio::select! {
        ended = agent.receive(link.receiver) => ended,
        ended = send(link.sender, letters) => ended,
    };
    // The end of the connection is not the end of the node: its lease decides.
    hub.disconnect_agent(node, &outbox);
    ended
}

async fn send(
    mut sender: LinkSender<IngressToAgent>,
    mut letters: mpsc::Receiver<IngressToAgent>,
) -> Result<(), FeedLinkError> {
    while let Some(letter) = letters.recv().await {
        sender.send(&letter).await?;
    }
    Ok(())
}

/// One connected agent.
struct Agent {
    hub: Arc<Hub>,
    session: Session,
    outbox: mpsc::Sender<IngressToAgent>,
    /// Who waits for the last request of a draining endpoint.
    drains: BTreeMap<AssignmentId, (Sequence, AbortHandle)>,
}

impl Drop for Agent {
    fn drop(&mut self) {
        for (_, waiting) in self.drains.values() {
            waiting.abort();
        }
    }
}

impl Agent {
    async fn receive(
        &mut self,
        mut receiver: ballast_link::LinkReceiver<AgentToIngress>,
    ) -> Result<(), FeedLinkError> {
        loop {
            let message = tokio::time::timeout(SILENCE, receiver.recv()).await;
            let Some(message) = message.map_err(|_| FeedLinkError::Silent)?? else {
                return Ok(());
            };
            self.take(&message)?;
        }
    }

    fn take(&mut self, message: &AgentToIngress) -> Result<(), FeedLinkError> {
        let session = self.session;
        match message {
            AgentToIngress::Hello { .. } => {}
            AgentToIngress::Sync(all) => {
                self.hub
                    .try_apply(|feed, now| feed.sync(session, all, now))?;
                for said in all {
                    self.answer_drain(said);
                }
            }
            AgentToIngress::Change(said) => {
                self.hub
                    .try_apply(|feed, now| feed.change(session, said, now))?;
                self.answer_drain(said);
            }
            AgentToIngress::Heartbeat => {
                self.hub
                    .try_apply(|feed: &mut Feed, now| feed.heartbeat(session, now))?;
            }
        }
        Ok(())
    }

    /// Says at once that a draining endpoint gets nothing new, and once more when the last of what
    /// it had has ended.
    fn answer_drain(&mut self, said: &EndpointHealth) {
        let before = self.drains.get(&said.assignment);
        if said.health != Health::Draining {
            if let Some((_, waiting)) = self.drains.remove(&said.assignment) {
                waiting.abort();
            }
            return;
        }
        if before
            .is_some_and(|(sequence, waiting)| *sequence == said.sequence && !waiting.is_finished())
        {
            return;
        }
        let (assignment, sequence) = (said.assignment, said.sequence);
        let backends = self.hub.feed().backends(assignment);
        let outbox = self.outbox.clone();
        let waiting = tokio::spawn(async move {
            let in_flight: u32 = backends.iter().map(|backend| backend.in_flight()).sum();
            let drained = |in_flight| IngressToAgent::Drained {
                assignment,
                sequence,
                in_flight,
            };
            if outbox.send(drained(in_flight)).await.is_err() || in_flight == 0 {
                return;
            }
            for backend in &backends {
                backend.idle().await;
            }
            // The link may have closed meanwhile; the agent then asks again with its next sync.
            let _ = outbox.send(drained(0)).await;
        });
        let waiting = waiting.abort_handle();
        if let Some((_, old)) = self.drains.insert(assignment, (sequence, waiting)) {
            old.abort();
        }
    }
}
