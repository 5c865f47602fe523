//! Stacks: several services under one name.

use axum::Json;
use axum::extract::{Path, State};
use ballast_model::view::{Problem, StackResult, StackSpec, StackView};
use ballast_model::{ServiceId, validate, validate_name};
use ballast_wire::log::{Command, StackService};

use super::input::JsonBody;
use super::problem::{ApiError, Kind};
use super::{Api, draw_id};
use crate::state::{Response, State as Applied};
use crate::{clock, views};

/// Returns the stack with this name.
pub(super) fn find(state: &Applied, name: &str) -> Result<StackView, ApiError> {
    let stacks = views::stacks(state);
    let found = stacks.iter().find(|stack| stack.name == name).cloned();
    found.ok_or_else(|| {
        ApiError::no_such(
            "stack",
            name,
            stacks.iter().map(|stack| stack.name.as_str()),
        )
    })
}

/// Returns every stack, by name.
#[utoipa::path(get, path = "/v1/stacks", tag = "stacks",
    responses((status = 200, body = Vec<StackView>)))]
pub(super) async fn list(State(api): State<Api>) -> Json<Vec<StackView>> {
    Json(views::stacks(&api.replica.read()))
}

/// Returns one stack.
#[utoipa::path(get, path = "/v1/stacks/{name}", tag = "stacks", params(("name" = String, Path)),
    responses((status = 200, body = StackView), (status = 404, body = Problem)))]
pub(super) async fn inspect(
    State(api): State<Api>,
    Path(name): Path<String>,
) -> Result<Json<StackView>, ApiError> {
    find(&api.replica.read(), &name).map(Json)
}

/// Makes, updates and removes services so that the stack has exactly these.
#[utoipa::path(put, path = "/v1/stacks/{name}", tag = "stacks", request_body = StackSpec,
    params(("name" = String, Path)),
    responses((status = 200, body = StackResult), (status = "4XX", body = Problem)))]
pub(super) async fn deploy(
    State(api): State<Api>,
    Path(name): Path<String>,
    JsonBody(spec): JsonBody<StackSpec>,
) -> Result<Json<StackResult>, ApiError> {
    validate_name("name", &name)?;
    if spec.services.is_empty() {
        let detail = "a stack has at least one service; DELETE removes it";
        return Err(ApiError::new(Kind::InvalidField, detail).at("services"));
    }
    let services = prepare(&name, spec)?;
    put(&api, name, services).await
}

/// Proves every service of a stack; wrong fields are named from the body's top.
///
/// Ids ascend in the order of the services: where two compete for room, the first in the file has
/// it, whatever was drawn, and a plan says what a deploy does.
pub(super) fn prepare(name: &str, stack: StackSpec) -> Result<Vec<StackService>, ApiError> {
    let mut services = Vec::with_capacity(stack.services.len());
    let draws: Result<Vec<u64>, ApiError> = stack.services.iter().map(|_| draw_id()).collect();
    let mut ids = draws?;
    ids.sort_unstable();
    for (place, (mut spec, id)) in stack.services.into_iter().zip(ids).enumerate() {
        let own = spec.stack.get_or_insert_with(|| name.to_owned());
        if own != name {
            let shown: String = own.chars().take(64).collect();
            let detail = format!("`{shown}` is not this stack's name");
            return Err(ApiError::new(Kind::InvalidField, detail)
                .at(format!("services[{place}].stack"))
                .nearest(Some(name)));
        }
        validate(&spec).map_err(|mut invalid| {
            invalid.field = format!("services[{place}].{}", invalid.field);
            invalid
        })?;
        services.push(StackService {
            id: ServiceId::from_bits(id),
            spec,
        });
    }
    Ok(services)
}

async fn put(
    api: &Api,
    stack: String,
    services: Vec<StackService>,
) -> Result<Json<StackResult>, ApiError> {
    let command = Command::DeployStack {
        stack,
        services,
        time: clock::now(),
    };
    match api.change(command).await? {
        Response::Stack(result) => Ok(Json(result)),
        other => {
            let detail = format!("an unexpected answer: {other:?}");
            Err(ApiError::new(Kind::Internal, detail))
        }
    }
}

/// Removes a stack with all its services.
#[utoipa::path(delete, path = "/v1/stacks/{name}", tag = "stacks", params(("name" = String, Path)),
    responses((status = 200, body = StackResult), (status = 404, body = Problem)))]
pub(super) async fn remove(
    State(api): State<Api>,
    Path(name): Path<String>,
) -> Result<Json<StackResult>, ApiError> {
    find(&api.replica.read(), &name)?;
    put(&api, name, Vec::new()).await
}
