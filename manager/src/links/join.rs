//! Joins: a secret and a signing request for a certificate.

use ballast_link::{LinkReceiver, LinkSender, Role, TlsStream};
use ballast_model::{Generation, NodeStatus, validate_name};
use ballast_wire::join::{JoinRequest, JoinResponse, JoinRole};
use ballast_wire::log::ClusterInit;

use super::{HELLO_TIMEOUT, SessionEnd};
use crate::ca::{self, Ca, role_name};
use crate::raft::Replica;
use crate::state::State;

/// Answers one join.
pub(super) async fn serve(
    stream: TlsStream,
    replica: &Replica,
    ca: &Ca,
    leads: bool,
    leader: Option<std::net::SocketAddr>,
) -> Result<(), SessionEnd> {
    let (reader, writer) = tokio::io::split(stream);
    let mut sender = LinkSender::<JoinResponse>::new(writer);
    let mut receiver = LinkReceiver::<JoinRequest>::new(reader);
    let request = tokio::time::timeout(HELLO_TIMEOUT, receiver.recv())
        .await
        .map_err(|_| SessionEnd::Silent)??;
    let Some(request) = request else {
        return Ok(());
    };
    let response = if leads {
        answer(&request, replica, ca)
    } else {
        JoinResponse::Redirect {
            leader,
            generation: Generation(0),
        }
    };
    sender.send(&response).await?;
    sender.close().await;
    if let JoinResponse::Refused(reason) = response {
        return Err(SessionEnd::Refused(reason));
    }
    let role = role_name(request.role);
    tracing::info!(name = request.name, role, "join answered");
    Ok(())
}

fn answer(request: &JoinRequest, replica: &Replica, ca: &Ca) -> JoinResponse {
    if let Err(reason) = check(request, &replica.read()) {
        return JoinResponse::Refused(reason);
    }
    let role = match request.role {
        JoinRole::Agent => Role::Agent,
        JoinRole::Ingress => Role::Ingress,
    };
    let issued = getrandom::u64()
        .map_err(|error| error.to_string())
        .and_then(|id| {
            let chain = ca.issue(&request.csr, role, id);
            chain
                .map(|chain| (id, chain))
                .map_err(|error| error.to_string())
        });
    match issued {
        Ok((id, chain)) => JoinResponse::Accepted {
            id,
            cluster: ca.cluster(),
            chain,
        },
        Err(error) => JoinResponse::Refused(format!("the signing request cannot be used: {error}")),
    }
}

/// Returns why a machine may not join, if it may not.
fn check(request: &JoinRequest, state: &State) -> Result<(), String> {
    let cluster = state
        .cluster()
        .ok_or("the cluster is still being founded")?;
    check_secret(request, cluster)?;
    validate_name("name", &request.name).map_err(|error| error.to_string())?;
    if request.role == JoinRole::Agent
        && let Some(holder) = state.node_named(&request.name)
        && holder.node.status != NodeStatus::Down
    {
        return Err(format!(
            "the name `{}` is taken by node {}, which is {}; choose another with --name",
            request.name, holder.node.id, holder.node.status
        ));
    }
    Ok(())
}

fn check_secret(request: &JoinRequest, cluster: &ClusterInit) -> Result<(), String> {
    let (own, other) = match request.role {
        JoinRole::Agent => (&cluster.agent_secret, &cluster.ingress_secret),
        JoinRole::Ingress => (&cluster.ingress_secret, &cluster.agent_secret),
    };
    // All comparisons are made, whatever the first says.
    let is_own = ca::same_secret(&request.secret, &own.0);
    let is_other = ca::same_secret(&request.secret, &other.0);
    let role = role_name(request.role);
    if is_own {
        return Ok(());
    }
    if is_other {
        return Err(format!(
            "this secret is not for the role {role} but for the other one"
        ));
    }
    let show = format!("`ballast node join-token {role}` shows the one that is valid");
    match (ca::serial(&request.secret), ca::serial(&own.0)) {
        (Some(given), Some(current)) if given < current => Err(format!(
            "the token was rotated and is not valid any more; {show}"
        )),
        _ => Err(format!(
            "wrong token: its secret is not this cluster's; {show}"
        )),
    }
}
