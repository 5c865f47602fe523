//! Pools.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use ballast_model::view::Problem;
use ballast_model::{Pool, validate_name};
use ballast_wire::log::Command;

use super::Api;
use super::input::JsonBody;
use super::problem::{ApiError, Kind};
use crate::clock;

/// Returns every pool that was set, by name.
#[utoipa::path(get, path = "/v1/pools", tag = "nodes",
    responses((status = 200, body = Vec<Pool>)))]
pub(super) async fn list(State(api): State<Api>) -> Json<Vec<Pool>> {
    Json(api.replica.read().pools().cloned().collect())
}

/// Returns one pool.
#[utoipa::path(get, path = "/v1/pools/{name}", tag = "nodes", params(("name" = String, Path)),
    responses((status = 200, body = Pool), (status = 404, body = Problem)))]
pub(super) async fn inspect(
    State(api): State<Api>,
    Path(name): Path<String>,
) -> Result<Json<Pool>, ApiError> {
    let state = api.replica.read();
    let known = state.pools().map(|pool| pool.name.as_str());
    match state.pool(&name) {
        Some(pool) => Ok(Json(pool.clone())),
        None => Err(ApiError::no_such("pool", &name, known)),
    }
}

/// Sets how much of its nodes a pool lets be placed; what is not given is the default.
#[utoipa::path(put, path = "/v1/pools/{name}", tag = "nodes", request_body = Pool,
    params(("name" = String, Path)),
    responses((status = 200, body = Pool), (status = "4XX", body = Problem)))]
pub(super) async fn set(
    State(api): State<Api>,
    Path(name): Path<String>,
    JsonBody(body): JsonBody<Pool>,
) -> Result<Json<Pool>, ApiError> {
    let pool = Pool { name, ..body };
    pool.validate()?;
    let time = clock::now();
    let command = Command::SetPool {
        pool: pool.clone(),
        time,
    };
    api.change(command).await?;
    Ok(Json(pool))
}

/// Lets all that its nodes have be placed again.
#[utoipa::path(delete, path = "/v1/pools/{name}", tag = "nodes", params(("name" = String, Path)),
    responses((status = 204), (status = "4XX", body = Problem)))]
pub(super) async fn remove(
    State(api): State<Api>,
    Path(name): Path<String>,
) -> Result<StatusCode, ApiError> {
    if validate_name("name", &name).is_err() {
        return Err(ApiError::new(Kind::NotFound, "no pool has such a name"));
    }
    let time = clock::now();
    api.change(Command::RemovePool { name, time }).await?;
    Ok(StatusCode::NO_CONTENT)
}
