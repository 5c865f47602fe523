//! The HTTP API under `/v1/`: on the Unix socket, and over TLS for clients with a certificate.
//!
//! Reads are answered from the state that is applied here; changes go through the log and are
//! answered once they are applied.

mod connection;
mod events;
mod health;
mod input;
mod logs;
mod nodes;
mod openapi;
mod plan;
mod pools;
mod problem;
mod rebalance;
mod services;
mod stacks;
mod tokens;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::Router;
use axum::http::{Method, Uri};
use axum::routing::{get, post};
use ballast_wire::log::Command;
use tokio::sync::watch;

pub use self::connection::{ApiListener, ApiSocket, SocketError, serve_connection, serve_listener};
pub use self::openapi::document;
pub use self::plan::Plans;
use self::problem::{ApiError, Kind};
use crate::ca::Ca;
use crate::leader::LeaderContext;
use crate::metrics::Metrics;
use crate::raft::{Leadership, Proposer, Replica};
use crate::state::Response;

/// Every path that is served, with its methods.
pub const ROUTES: &[(&str, &[&str])] = &[
    ("/v1/services", &["get", "post"]),
    ("/v1/services/{name}", &["get", "put", "delete"]),
    ("/v1/services/{name}/scale", &["post"]),
    ("/v1/services/{name}/rollback", &["post"]),
    ("/v1/services/{name}/tasks", &["get"]),
    ("/v1/services/{name}/logs", &["get"]),
    ("/v1/tasks", &["get"]),
    ("/v1/nodes", &["get"]),
    ("/v1/nodes/{node}", &["get", "patch", "delete"]),
    ("/v1/pools", &["get"]),
    ("/v1/pools/{name}", &["get", "put", "delete"]),
    ("/v1/stacks", &["get"]),
    ("/v1/stacks/{name}", &["get", "put", "delete"]),
    ("/v1/plan", &["post"]),
    ("/v1/rebalance", &["post"]),
    ("/v1/events", &["get"]),
    ("/v1/join-tokens/{role}", &["get", "post"]),
    ("/v1/openapi.json", &["get"]),
    ("/metrics", &["get"]),
    ("/healthz", &["get"]),
    ("/readyz", &["get"]),
];

/// What handlers work with.
#[derive(Debug, Clone)]
pub struct Api {
    /// Takes changes to the log.
    pub proposer: Proposer,
    /// The applied state.
    pub replica: Arc<Replica>,
    /// Who leads.
    pub leadership: watch::Receiver<Leadership>,
    /// The leader's scope while this manager leads.
    pub leader: watch::Receiver<Option<Arc<LeaderContext>>>,
    /// The cluster's CA, for join tokens.
    pub ca: Arc<Ca>,
    /// Where others reach this manager's port.
    pub advertised: String,
    /// What `/metrics` answers.
    pub metrics: Metrics,
    /// Bounds how much of the machine plans take.
    pub plans: Plans,
}

impl Api {
    /// Proposes a change and returns what was done.
    async fn change(&self, command: Command) -> Result<Response, ApiError> {
        Ok(self.proposer.propose(command).await??)
    }
}

/// Returns all bits of a new id.
fn draw_id() -> Result<u64, ApiError> {
    getrandom::u64().map_err(|error| ApiError::new(Kind::Internal, error.to_string()))
}

/// Returns the whole API.
pub fn router(api: Api) -> Router {
    let service = get(services::inspect)
        .put(services::update)
        .delete(services::remove);
    let node = get(nodes::inspect)
        .patch(nodes::update)
        .delete(nodes::remove);
    let pool = get(pools::inspect).put(pools::set).delete(pools::remove);
    let stack = get(stacks::inspect)
        .put(stacks::deploy)
        .delete(stacks::remove);
    let token = get(tokens::show).post(tokens::rotate);
    Router::new()
        .route("/v1/services", get(services::list).post(services::create))
        .route("/v1/services/{name}", service)
        .route("/v1/services/{name}/scale", post(services::scale))
        .route("/v1/services/{name}/rollback", post(services::rollback))
        .route("/v1/services/{name}/tasks", get(services::tasks))
        .route("/v1/services/{name}/logs", get(logs::read))
        .route("/v1/tasks", get(services::all_tasks))
        .route("/v1/nodes", get(nodes::list))
        .route("/v1/nodes/{node}", node)
        .route("/v1/pools", get(pools::list))
        .route("/v1/pools/{name}", pool)
        .route("/v1/stacks", get(stacks::list))
        .route("/v1/stacks/{name}", stack)
        .route("/v1/plan", post(plan::plan))
        .route("/v1/rebalance", post(rebalance::begin))
        .route("/v1/events", get(events::read))
        .route("/v1/join-tokens/{role}", token)
        .route("/v1/openapi.json", get(openapi::serve))
        .with_state(api.clone())
        .merge(open_routes(api))
        .fallback(no_such_path)
        .method_not_allowed_fallback(method_not_allowed)
}

/// Returns what the admin port serves: metrics and health, without a guard.
pub fn admin_router(api: Api) -> Router {
    open_routes(api)
        .fallback(no_such_path)
        .method_not_allowed_fallback(method_not_allowed)
}

fn open_routes(api: Api) -> Router {
    Router::new()
        .route("/metrics", get(health::metrics))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .with_state(api)
}

async fn no_such_path(uri: Uri) -> ApiError {
    let shown: String = uri.path().chars().take(128).collect();
    let nearest = ballast_model::nearest(&shown, ROUTES.iter().map(|(path, _)| *path));
    let nearest = nearest.map(ToOwned::to_owned);
    ApiError::new(Kind::NoSuchPath, format!("there is no `{shown}`")).nearest(nearest)
}

async fn method_not_allowed(method: Method, uri: Uri) -> ApiError {
    let shown: String = uri.path().chars().take(128).collect();
    let methods = ROUTES
        .iter()
        .find(|(path, _)| is_of_route(path, uri.path()))
        .map(|(_, methods)| methods.join(", ").to_uppercase());
    let detail = format!("`{shown}` does not have the method {method}");
    ApiError::new(Kind::MethodNotAllowed, detail).nearest(methods)
}

/// Returns whether a path is of a route, in which `{…}` stands for one segment.
fn is_of_route(route: &str, path: &str) -> bool {
    let (mut route, mut path) = (route.split('/'), path.split('/'));
    loop {
        match (route.next(), path.next()) {
            (None, None) => return true,
            (Some(known), Some(given)) if known == given || known.starts_with('{') => {}
            _ => return false,
        }
    }
}
