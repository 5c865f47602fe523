//! The API's description.

use axum::Json;
use utoipa::OpenApi;

use super::{events, health, logs, nodes, plan, pools, rebalance, services, stacks, tokens};

/// Everything that the API has.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Ballast",
        description = "Runs services on a fleet and keeps them answering. Errors are RFC 9457 \
            problem documents that name the field and the nearest value that would be accepted."
    ),
    paths(
        services::list,
        services::create,
        services::inspect,
        services::update,
        services::remove,
        services::scale,
        services::rollback,
        services::tasks,
        services::all_tasks,
        logs::read,
        nodes::list,
        nodes::inspect,
        nodes::update,
        nodes::remove,
        pools::list,
        pools::inspect,
        pools::set,
        pools::remove,
        stacks::list,
        stacks::inspect,
        stacks::deploy,
        stacks::remove,
        plan::plan,
        rebalance::begin,
        events::read,
        tokens::show,
        tokens::rotate,
        serve,
        health::metrics,
        health::healthz,
        health::readyz,
    )
)]
struct Document;

/// Returns the OpenAPI document.
pub fn document() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

/// Returns this description.
#[utoipa::path(get, path = "/v1/openapi.json", tag = "health", responses((status = 200)))]
pub(super) async fn serve() -> Json<utoipa::openapi::OpenApi> {
    Json(document())
}
