//! Tasks moved on request.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use ballast_model::plan::{PlanView, Rebalance};
use ballast_model::view::Problem;

use super::Api;
use super::input::JsonBody;
use super::plan::{self, goal_of};
use super::problem::ApiError;
use crate::forecast::Ask;
use crate::raft::{Leadership, ProposeError};

/// Moves tasks so that services that spread are even, or whole nodes are empty; answers with the
/// moves that are to come.
#[utoipa::path(post, path = "/v1/rebalance", tag = "plan", request_body = Rebalance,
    responses((status = 202, body = PlanView), (status = "4XX", body = Problem)))]
pub(super) async fn begin(
    State(api): State<Api>,
    JsonBody(request): JsonBody<Rebalance>,
) -> Result<(StatusCode, Json<PlanView>), ApiError> {
    let leader = api.leader.borrow().clone();
    let Some(leader) = leader else {
        let address = match &*api.leadership.borrow() {
            Leadership::Following { leader } => leader.clone(),
            _ => None,
        };
        return Err(ProposeError::NotLeader { leader: address }.into());
    };
    let goal = goal_of(request);
    let view = plan::make(&api, move |_| Ok(Ask::Rebalance(goal))).await?;
    leader.wishes.ask(goal);
    Ok((StatusCode::ACCEPTED, Json(view)))
}
