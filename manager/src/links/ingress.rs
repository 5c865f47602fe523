//! One ingress's link: a snapshot of every table, then the tables that change.

use std::sync::Arc;
use std::time::Duration;

use ballast_link::{Link, LinkReceiver, LinkSender, Role};
use ballast_model::IngressId;
use ballast_wire::ingress::{IngressToManager, ManagerToIngress};
use ballast_wire::log::Command;
use tokio::sync::mpsc;

use super::{HELLO_TIMEOUT, SessionEnd};
use crate::ca::Ca;
use crate::leader::{IngressLink, LeaderContext};
use crate::{clock, project};

/// The least time between two updates on one link, so that a burst of changes is sent as one.
const UPDATE_INTERVAL: Duration = Duration::from_millis(2);
/// Renewals that may wait for one link: an ingress asks for one at a time.
const RENEWALS: usize = 4;

type Sender = LinkSender<ManagerToIngress>;
type Receiver = LinkReceiver<IngressToManager>;

/// Serves a link until it ends.
pub(super) async fn serve(
    mut link: Link<ManagerToIngress, IngressToManager>,
    leader: &Arc<LeaderContext>,
    ca: &Ca,
) -> Result<(), SessionEnd> {
    let ingress = IngressId::from_bits(link.peer.id);
    let name = match greet(&mut link.receiver, ingress, leader).await {
        Ok(name) => name,
        Err(end) => return Err(refuse(&mut link.sender, end).await),
    };
    let welcome = ManagerToIngress::Welcome {
        cluster: ca.cluster(),
    };
    link.sender.send(&welcome).await?;
    tracing::info!(ingress_id = %ingress, ingress = name, "ingress connected");
    let entry = IngressLink::new();
    // Before the snapshot, so that nothing that changes after it is missed.
    leader.registry.add_ingress(ingress, &entry);
    let session = Session {
        ingress,
        leader,
        ca,
    };
    let end = session.run(link, &entry).await;
    leader.registry.remove_ingress(ingress, &entry);
    tracing::info!(ingress_id = %ingress, ingress = name, "ingress disconnected");
    end
}

async fn refuse(sender: &mut Sender, end: SessionEnd) -> SessionEnd {
    if let SessionEnd::Refused(reason) = &end {
        // The link is closed in any case.
        let _ = sender
            .send(&ManagerToIngress::Refused(reason.clone()))
            .await;
        sender.close().await;
    }
    end
}

async fn greet(
    receiver: &mut Receiver,
    ingress: IngressId,
    leader: &LeaderContext,
) -> Result<String, SessionEnd> {
    let first = tokio::time::timeout(HELLO_TIMEOUT, receiver.recv()).await;
    let Ok(Some(IngressToManager::Hello {
        ingress: said,
        name,
        feed,
        ..
    })) = first.map_err(|_| SessionEnd::Silent)?
    else {
        let reason = "the first message on a link is a hello";
        return Err(SessionEnd::Refused(reason.to_owned()));
    };
    if said != ingress {
        return Err(SessionEnd::Refused(format!(
            "the certificate is that of ingress {ingress}, the hello says ingress {said}"
        )));
    }
    let command = Command::RegisterIngress {
        ingress,
        name: name.clone(),
        feed,
        time: clock::now(),
    };
    match leader.proposer.propose(command).await {
        Ok(Ok(_)) => Ok(name),
        Ok(Err(rejection)) => Err(SessionEnd::Refused(rejection.to_string())),
        Err(error) => Err(SessionEnd::NotCommitted(error)),
    }
}

/// A link past its hello.
struct Session<'a> {
    ingress: IngressId,
    leader: &'a LeaderContext,
    ca: &'a Ca,
}

impl Session<'_> {
    async fn run(
        &self,
        link: Link<ManagerToIngress, IngressToManager>,
        entry: &IngressLink,
    ) -> Result<(), SessionEnd> {
        let Link {
            mut sender,
            receiver,
            ..
        } = link;
        let (renewed, renewals) = mpsc::channel(RENEWALS);
        let end = tokio::select! {
            end = self.read(receiver, renewed) => end,
            end = self.write(&mut sender, entry, renewals) => end,
            () = entry.replaced.cancelled() => Err(SessionEnd::Replaced),
            () = self.leader.ended.cancelled() => Err(SessionEnd::LeadershipLost),
        };
        match end {
            Err(SessionEnd::LeadershipLost) => {
                let redirect = ManagerToIngress::Redirect { leader: None };
                let _ = sender.send(&redirect).await;
                end
            }
            Err(end) => Err(refuse(&mut sender, end).await),
            Ok(()) => Ok(()),
        }
    }

    async fn read(
        &self,
        mut receiver: Receiver,
        renewed: mpsc::Sender<Vec<Vec<u8>>>,
    ) -> Result<(), SessionEnd> {
        while let Some(message) = receiver.recv().await? {
            match message {
                IngressToManager::Heartbeat | IngressToManager::Applied(_) => {}
                IngressToManager::ListenFailures(failures) => {
                    for (port, reason) in failures {
                        tracing::warn!(ingress_id = %self.ingress, port, reason, "ingress cannot listen");
                    }
                }
                IngressToManager::Renew { csr } => {
                    let chain = self
                        .ca
                        .issue(&csr, Role::Ingress, self.ingress.to_bits())
                        .map_err(|error| SessionEnd::Refused(format!("renewal: {error}")))?;
                    // Full only if it asks again before it has its answer.
                    let _ = renewed.try_send(chain);
                }
                IngressToManager::Hello { .. } => {
                    let reason = "a link has one hello".to_owned();
                    return Err(SessionEnd::Refused(reason));
                }
            }
        }
        Ok(())
    }

    async fn write(
        &self,
        sender: &mut Sender,
        entry: &IngressLink,
        mut renewals: mpsc::Receiver<Vec<Vec<u8>>>,
    ) -> Result<(), SessionEnd> {
        let snapshot = {
            let state = self.leader.replica.read();
            ManagerToIngress::Snapshot {
                generation: state.version(),
                services: project::service_tables(&state),
            }
        };
        sender.send(&snapshot).await?;
        loop {
            tokio::select! {
                due = entry.due() => {
                    sender.send(&self.update(due)).await?;
                    tokio::time::sleep(UPDATE_INTERVAL).await;
                }
                Some(chain) = renewals.recv() => {
                    sender.send(&ManagerToIngress::Certificate(chain)).await?;
                }
            }
        }
    }

    fn update(
        &self,
        due: std::collections::BTreeSet<ballast_model::ServiceId>,
    ) -> ManagerToIngress {
        let state = self.leader.replica.read();
        let mut changed = Vec::new();
        let mut removed = Vec::new();
        for service in due {
            match project::service_table(&state, service) {
                Some(table) => changed.push(table),
                None => removed.push(service),
            }
        }
        ManagerToIngress::Update {
            generation: state.version(),
            changed,
            removed,
        }
    }
}
