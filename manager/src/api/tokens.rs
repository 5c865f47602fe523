//! Join tokens.

use axum::Json;
use axum::extract::{Path, State};
use ballast_model::view::{JoinTokenView, Problem};
use ballast_wire::join::JoinRole;
use ballast_wire::log::{Command, JoinSecret};

use super::Api;
use super::problem::{ApiError, Kind};
use crate::ca::{self, role_name};
use crate::clock;
use crate::raft::Replica;

const ROLES: [JoinRole; 2] = [JoinRole::Agent, JoinRole::Ingress];

fn role(name: &str) -> Result<JoinRole, ApiError> {
    ROLES
        .into_iter()
        .find(|role| role_name(*role) == name)
        .ok_or_else(|| ApiError::no_such("role", name, ROLES.map(role_name)))
}

fn secret(replica: &Replica, role: JoinRole) -> Result<JoinSecret, ApiError> {
    let state = replica.read();
    let founding = || ApiError::new(Kind::NotLeader, "the cluster is still being founded");
    let cluster = state.cluster().ok_or_else(founding)?;
    Ok(ca::secret_of(cluster, role).clone())
}

fn view(api: &Api, role: JoinRole) -> Result<Json<JoinTokenView>, ApiError> {
    let secret = secret(&api.replica, role)?;
    Ok(Json(JoinTokenView {
        role: role_name(role).to_owned(),
        token: api.ca.token(role, &secret, &api.advertised).to_string(),
        manager: api.advertised.clone(),
    }))
}

/// Returns the token with which a machine joins.
#[utoipa::path(get, path = "/v1/join-tokens/{role}", tag = "nodes",
    params(("role" = String, Path)),
    responses((status = 200, body = JoinTokenView), (status = 404, body = Problem)))]
pub(super) async fn show(
    State(api): State<Api>,
    Path(name): Path<String>,
) -> Result<Json<JoinTokenView>, ApiError> {
    view(&api, role(&name)?)
}

/// Makes a new token; the old one is worth nothing any more. Members stay members.
#[utoipa::path(post, path = "/v1/join-tokens/{role}", tag = "nodes",
    params(("role" = String, Path)),
    responses((status = 200, body = JoinTokenView), (status = 404, body = Problem)))]
pub(super) async fn rotate(
    State(api): State<Api>,
    Path(name): Path<String>,
) -> Result<Json<JoinTokenView>, ApiError> {
    let role = role(&name)?;
    let serial = ca::serial(&secret(&api.replica, role)?.0).unwrap_or(0);
    let secret = ca::draw_secret(serial.saturating_add(1))
        .map_err(|error| ApiError::new(Kind::Internal, error.to_string()))?;
    api.change(Command::RotateJoinSecret {
        role,
        secret,
        time: clock::now(),
    })
    .await?;
    view(&api, role)
}
