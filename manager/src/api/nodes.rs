//! Nodes.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use ballast_model::view::{NodePatch, NodeView, Problem};
use ballast_model::{NodeId, Taint, limits};
use ballast_wire::log::Command;

use super::Api;
use super::input::JsonBody;
use super::problem::{ApiError, Kind};
use crate::state::{NodeEntry, State as Applied};
use crate::{clock, views};

/// Returns the node with this name, or this id.
pub(super) fn find<'a>(state: &'a Applied, node: &str) -> Result<&'a NodeEntry, ApiError> {
    let by_id = || state.node(node.parse::<NodeId>().ok()?);
    state.node_named(node).or_else(by_id).ok_or_else(|| {
        let known = state
            .nodes()
            .map(|entry| entry.node.description.name.as_str());
        ApiError::no_such("node", node, known)
    })
}

/// Returns every node, by name.
#[utoipa::path(get, path = "/v1/nodes", tag = "nodes",
    responses((status = 200, body = Vec<NodeView>)))]
pub(super) async fn list(State(api): State<Api>) -> Json<Vec<NodeView>> {
    Json(views::nodes(&api.replica.read()))
}

/// Returns one node, by name or id.
#[utoipa::path(get, path = "/v1/nodes/{node}", tag = "nodes", params(("node" = String, Path)),
    responses((status = 200, body = NodeView), (status = 404, body = Problem)))]
pub(super) async fn inspect(
    State(api): State<Api>,
    Path(node): Path<String>,
) -> Result<Json<NodeView>, ApiError> {
    let state = api.replica.read();
    Ok(Json(views::node_view(find(&state, &node)?)))
}

/// Changes what a node may take, or its labels.
#[utoipa::path(patch, path = "/v1/nodes/{node}", tag = "nodes", request_body = NodePatch,
    params(("node" = String, Path)),
    responses((status = 200, body = NodeView), (status = "4XX", body = Problem)))]
pub(super) async fn update(
    State(api): State<Api>,
    Path(node): Path<String>,
    JsonBody(patch): JsonBody<NodePatch>,
) -> Result<Json<NodeView>, ApiError> {
    let id = find(&api.replica.read(), &node)?.node.id;
    check_labels(&patch)?;
    check_taints(&patch)?;
    api.change(Command::UpdateNode {
        node: id,
        availability: patch.availability,
        labels: patch.labels,
        taints: patch.taints,
        untaint: patch.untaint,
        time: clock::now(),
    })
    .await?;
    let state = api.replica.read();
    let gone = || ApiError::new(Kind::NotFound, "the node was removed meanwhile");
    Ok(Json(views::node_view(state.node(id).ok_or_else(gone)?)))
}

fn check_labels(patch: &NodePatch) -> Result<(), ApiError> {
    let most = limits::LABEL_BYTES;
    for (key, value) in &patch.labels {
        let size = key.len().max(value.as_ref().map_or(0, String::len));
        if key.is_empty() || size > most {
            let shown: String = key.chars().take(32).collect();
            let detail = format!("a label's key has 1 to {most} bytes, its value up to {most}");
            return Err(ApiError::new(Kind::InvalidField, detail).at(format!("labels.{shown}")));
        }
    }
    Ok(())
}

fn check_taints(patch: &NodePatch) -> Result<(), ApiError> {
    let most = limits::TAINTS;
    if patch.taints.len().max(patch.untaint.len()) > most {
        let detail = format!("at most {most} taints at once");
        return Err(ApiError::new(Kind::InvalidField, detail).at("taints"));
    }
    for (place, taint) in patch.taints.iter().enumerate() {
        // What prints and reads as itself can be told apart and taken off again.
        let read = taint.to_string().parse::<Taint>();
        if read.as_ref() != Ok(taint) {
            let detail = "a key is not empty; neither key nor value has spaces, `=`, `:` or `*`";
            let field = format!("taints[{place}]");
            return Err(ApiError::new(Kind::InvalidField, detail).at(field));
        }
    }
    Ok(())
}

/// Forgets a node that will not come back.
#[utoipa::path(delete, path = "/v1/nodes/{node}", tag = "nodes", params(("node" = String, Path)),
    responses((status = 204), (status = "4XX", body = Problem)))]
pub(super) async fn remove(
    State(api): State<Api>,
    Path(node): Path<String>,
) -> Result<StatusCode, ApiError> {
    let id = find(&api.replica.read(), &node)?.node.id;
    api.change(Command::RemoveNode {
        node: id,
        time: clock::now(),
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}
