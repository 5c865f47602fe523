//! Whether the manager lives and serves, and what it counts.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use ballast_model::view::Problem;
use ballast_model::{NodeStatus, TaskState};

use super::Api;
use super::problem::{ApiError, Kind};
use crate::raft::Leadership;

const EXPOSITION: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Returns every metric.
#[utoipa::path(get, path = "/metrics", tag = "health",
    responses((status = 200, content_type = "application/openmetrics-text", body = String)))]
pub(super) async fn metrics(State(api): State<Api>) -> Response {
    populate(&api);
    ([(header::CONTENT_TYPE, EXPOSITION)], api.metrics.render()).into_response()
}

fn populate(api: &Api) {
    let statuses = [NodeStatus::Ready, NodeStatus::Suspect, NodeStatus::Down];
    let mut nodes: BTreeMap<String, i64> = statuses
        .iter()
        .map(|status| (status.to_string(), 0))
        .collect();
    let mut tasks: BTreeMap<String, i64> = TaskState::ALL
        .iter()
        .map(|state| (state.to_string(), 0))
        .collect();
    let services = {
        let state = api.replica.read();
        for entry in state.nodes() {
            *nodes.entry(entry.node.status.to_string()).or_default() += 1;
        }
        for entry in state.tasks() {
            let state = entry.task.observed.state.to_string();
            *tasks.entry(state).or_default() += 1;
        }
        state.services().count()
    };
    api.metrics.set_population(services, &nodes, &tasks);
}

/// Answers as long as the manager lives.
#[utoipa::path(get, path = "/healthz", tag = "health",
    responses((status = 200), (status = 503, body = Problem)))]
pub(super) async fn healthz(State(api): State<Api>) -> Result<&'static str, ApiError> {
    match &*api.leadership.borrow() {
        Leadership::Stopped(reason) => Err(ApiError::new(Kind::Stopping, reason.clone())),
        _ => Ok("ok\n"),
    }
}

/// Answers once a leader is known: reads are current then, and changes are taken.
#[utoipa::path(get, path = "/readyz", tag = "health",
    responses((status = 200), (status = 503, body = Problem)))]
pub(super) async fn readyz(State(api): State<Api>) -> Result<&'static str, ApiError> {
    match &*api.leadership.borrow() {
        Leadership::Leading { .. } | Leadership::Following { leader: Some(_) } => Ok("ready\n"),
        Leadership::Following { leader: None } => {
            let detail = "no manager leads at the moment";
            Err(ApiError::new(Kind::NotLeader, detail))
        }
        Leadership::Stopped(reason) => Err(ApiError::new(Kind::Stopping, reason.clone())),
    }
}
