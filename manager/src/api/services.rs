//! Services and their tasks.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderName, StatusCode, header};
use ballast_model::view::{Problem, Scale, ServiceView, TaskView};
use ballast_model::{Generation, Mode, ServiceId, ServiceSpec, limits, validate};
use ballast_wire::log::Command;
use serde::Deserialize;

use super::input::{JsonBody, Params};
use super::problem::{ApiError, Kind};
use super::{Api, draw_id};
use crate::raft::Replica;
use crate::state::{RejectionKind, Response, Service, State as Applied};
use crate::{clock, views};

/// Tries of a scale that meets another change of the same service.
const SCALE_TRIES: usize = 8;

/// Returns the service with this name.
pub(super) fn find<'a>(state: &'a Applied, name: &str) -> Result<&'a Service, ApiError> {
    state.service_named(name).ok_or_else(|| {
        let known = state.services().map(|service| service.spec.name.as_str());
        ApiError::no_such("service", name, known)
    })
}

fn view(replica: &Replica, id: ServiceId) -> Result<Json<ServiceView>, ApiError> {
    let state = replica.read();
    let gone = || ApiError::new(Kind::NotFound, "the service was removed meanwhile");
    let service = state.service(id).ok_or_else(gone)?;
    Ok(Json(views::service_view(&state, service)))
}

/// Returns every service, by name.
#[utoipa::path(get, path = "/v1/services", tag = "services",
    responses((status = 200, body = Vec<ServiceView>)))]
pub(super) async fn list(State(api): State<Api>) -> Json<Vec<ServiceView>> {
    Json(views::services(&api.replica.read()))
}

/// Makes a service.
#[utoipa::path(post, path = "/v1/services", tag = "services", request_body = ServiceSpec,
    responses((status = 201, body = ServiceView), (status = "4XX", body = Problem)))]
pub(super) async fn create(
    State(api): State<Api>,
    JsonBody(spec): JsonBody<ServiceSpec>,
) -> Result<(StatusCode, [(HeaderName, String); 1], Json<ServiceView>), ApiError> {
    validate(&spec)?;
    let location = format!("/v1/services/{}", spec.name);
    let command = Command::CreateService {
        service: ServiceId::from_bits(draw_id()?),
        spec,
        time: clock::now(),
    };
    match api.change(command).await? {
        Response::Service { service, .. } => {
            let view = view(&api.replica, service)?;
            Ok((StatusCode::CREATED, [(header::LOCATION, location)], view))
        }
        other => {
            let detail = format!("an unexpected answer: {other:?}");
            Err(ApiError::new(Kind::Internal, detail))
        }
    }
}

/// Returns one service.
#[utoipa::path(get, path = "/v1/services/{name}", tag = "services",
    params(("name" = String, Path)),
    responses((status = 200, body = ServiceView), (status = 404, body = Problem)))]
pub(super) async fn inspect(
    State(api): State<Api>,
    Path(name): Path<String>,
) -> Result<Json<ServiceView>, ApiError> {
    let leader = api.leader.borrow().clone();
    let state = api.replica.read();
    let service = find(&state, &name)?;
    let mut view = views::service_view(&state, service);
    view.pending = leader.and_then(|leader| leader.explanation(service.id));
    Ok(Json(view))
}

/// The generation that a change is based on.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Based {
    generation: Option<u64>,
}

/// Replaces a service's spec.
#[utoipa::path(put, path = "/v1/services/{name}", tag = "services", request_body = ServiceSpec,
    params(("name" = String, Path), ("generation" = Option<u64>, Query)),
    responses((status = 200, body = ServiceView), (status = "4XX", body = Problem)))]
pub(super) async fn update(
    State(api): State<Api>,
    Path(name): Path<String>,
    Params(based): Params<Based>,
    JsonBody(spec): JsonBody<ServiceSpec>,
) -> Result<Json<ServiceView>, ApiError> {
    let service = find(&api.replica.read(), &name)?.id;
    if spec.name != name {
        let shown: String = spec.name.chars().take(64).collect();
        let detail = format!("the body is for `{shown}`, the address for `{name}`");
        return Err(ApiError::new(Kind::InvalidField, detail)
            .at("name")
            .nearest(Some(name)));
    }
    validate(&spec)?;
    api.change(Command::UpdateService {
        service,
        expected: based.generation.map(Generation),
        spec,
        time: clock::now(),
    })
    .await?;
    view(&api.replica, service)
}

/// Removes a service; its tasks stop.
#[utoipa::path(delete, path = "/v1/services/{name}", tag = "services",
    params(("name" = String, Path)),
    responses((status = 204), (status = 404, body = Problem)))]
pub(super) async fn remove(
    State(api): State<Api>,
    Path(name): Path<String>,
) -> Result<StatusCode, ApiError> {
    let service = find(&api.replica.read(), &name)?.id;
    api.change(Command::RemoveService {
        service,
        time: clock::now(),
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Sets how many replicas a service has.
#[utoipa::path(post, path = "/v1/services/{name}/scale", tag = "services", request_body = Scale,
    params(("name" = String, Path)),
    responses((status = 200, body = ServiceView), (status = "4XX", body = Problem)))]
pub(super) async fn scale(
    State(api): State<Api>,
    Path(name): Path<String>,
    JsonBody(scale): JsonBody<Scale>,
) -> Result<Json<ServiceView>, ApiError> {
    for _ in 0..SCALE_TRIES {
        let (service, command) = scaled(&api.replica.read(), &name, scale)?;
        match api.proposer.propose(command).await? {
            Ok(_) => return view(&api.replica, service),
            // Somebody changed the spec in between: what they changed is kept.
            Err(rejection) if rejection.kind == RejectionKind::Stale => {}
            Err(rejection) => return Err(rejection.into()),
        }
    }
    let detail = format!("`{name}` changed {SCALE_TRIES} times meanwhile");
    Err(ApiError::new(Kind::Stale, detail))
}

/// Returns the command that scales a service.
pub(super) fn scaled(
    state: &Applied,
    name: &str,
    scale: Scale,
) -> Result<(ServiceId, Command), ApiError> {
    check_replicas(scale)?;
    let service = find(state, name)?;
    let mut spec = service.spec.clone();
    match &mut spec.mode {
        Mode::Replicated { replicas } => *replicas = scale.replicas,
        Mode::Global {} | Mode::Job { .. } => {
            let detail = format!("`{name}` has no replicas: only replicated services are scaled");
            return Err(ApiError::new(Kind::InvalidField, detail)
                .at("mode")
                .nearest(Some("replicated")));
        }
    }
    let command = Command::UpdateService {
        service: service.id,
        expected: Some(service.generation),
        spec,
        time: clock::now(),
    };
    Ok((service.id, command))
}

fn check_replicas(scale: Scale) -> Result<(), ApiError> {
    let most = limits::REPLICAS_PER_SERVICE;
    if scale.replicas <= most {
        return Ok(());
    }
    let detail = format!("{} is more than the limit of {most}", scale.replicas);
    Err(ApiError::new(Kind::InvalidField, detail)
        .at("replicas")
        .nearest(Some(most.to_string())))
}

/// Brings back the spec before the last update.
#[utoipa::path(post, path = "/v1/services/{name}/rollback", tag = "services",
    params(("name" = String, Path), ("generation" = Option<u64>, Query)),
    responses((status = 200, body = ServiceView), (status = "4XX", body = Problem)))]
pub(super) async fn rollback(
    State(api): State<Api>,
    Path(name): Path<String>,
    Params(based): Params<Based>,
) -> Result<Json<ServiceView>, ApiError> {
    let service = find(&api.replica.read(), &name)?.id;
    api.change(Command::RollbackService {
        service,
        expected: based.generation.map(Generation),
        automatic: None,
        time: clock::now(),
    })
    .await?;
    view(&api.replica, service)
}

/// Returns a service's tasks, also those that ended lately.
#[utoipa::path(get, path = "/v1/services/{name}/tasks", tag = "services",
    params(("name" = String, Path)),
    responses((status = 200, body = Vec<TaskView>), (status = 404, body = Problem)))]
pub(super) async fn tasks(
    State(api): State<Api>,
    Path(name): Path<String>,
) -> Result<Json<Vec<TaskView>>, ApiError> {
    let state = api.replica.read();
    let service = find(&state, &name)?;
    Ok(Json(views::tasks(&state, service)))
}

/// Returns the tasks of every service, also those that ended lately.
#[utoipa::path(get, path = "/v1/tasks", tag = "services",
    responses((status = 200, body = Vec<TaskView>)))]
pub(super) async fn all_tasks(State(api): State<Api>) -> Json<Vec<TaskView>> {
    let state = api.replica.read();
    let services = state.services();
    Json(
        services
            .flat_map(|service| views::tasks(&state, service))
            .collect(),
    )
}
