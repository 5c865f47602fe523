//! Plans: what a change would do, tried on a copy.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use ballast_model::plan::{PlanRequest, PlanView, Rebalance};
use ballast_model::view::{Problem, Scale, StackSpec};
use ballast_model::{Availability, ServiceId, validate, validate_name};
use ballast_wire::log::Command;
use tokio::sync::Semaphore;

use super::input::JsonBody;
use super::problem::{ApiError, Kind};
use super::{Api, draw_id, nodes, services, stacks};
use crate::clock;
use crate::forecast::{self, Ask};
use crate::reconcile::Goal;
use crate::state::State as Applied;

/// Plans that are made at a time: each has a copy of the state.
const AT_ONCE: usize = 1;
/// Plans that are made or wait; past it callers are told to come again.
const WAITING: usize = 16;
/// The longest that a plan is thought about: what was found until then is shown as incomplete.
const LONGEST: Duration = Duration::from_secs(10);

/// Bounds how much of the machine plans take.
#[derive(Debug, Clone)]
pub struct Plans {
    working: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

impl Default for Plans {
    fn default() -> Self {
        Self {
            working: Arc::new(Semaphore::new(AT_ONCE)),
            waiting: Arc::new(Semaphore::new(WAITING)),
        }
    }
}

/// Says what a change would do; changes nothing.
#[utoipa::path(post, path = "/v1/plan", tag = "plan", request_body = PlanRequest,
    responses((status = 200, body = PlanView), (status = "4XX", body = Problem)))]
pub(super) async fn plan(
    State(api): State<Api>,
    JsonBody(request): JsonBody<PlanRequest>,
) -> Result<Json<PlanView>, ApiError> {
    make(&api, move |state| ask_of(state, request))
        .await
        .map(Json)
}

/// Plans what is asked of the state as it is now.
pub(super) async fn make(
    api: &Api,
    ask: impl FnOnce(&Applied) -> Result<Ask, ApiError> + Send + 'static,
) -> Result<PlanView, ApiError> {
    let many = || ApiError::new(Kind::Overloaded, format!("{WAITING} plans are being made"));
    let waiting = Arc::clone(&api.plans.waiting);
    let _waits = waiting.try_acquire().map_err(|_| many())?;
    let working = Arc::clone(&api.plans.working).acquire_owned().await;
    let works = working.map_err(|_| many())?;
    let seed = draw_id()?;
    let replica = Arc::clone(&api.replica);
    // Aside: copying and thinking take milliseconds to seconds, and links wait for nobody.
    let thinking = tokio::task::spawn_blocking(move || {
        let _works = works;
        let state = replica.read().clone();
        let ask = ask(&state)?;
        think(state, &ask, seed)
    });
    thinking
        .await
        .unwrap_or_else(|error| Err(ApiError::new(Kind::Internal, error.to_string())))
}

fn think(state: Applied, ask: &Ask, seed: u64) -> Result<PlanView, ApiError> {
    let started = Instant::now();
    let give_up = move || started.elapsed() > LONGEST;
    Ok(forecast::plan(state, ask, seed, clock::now(), &give_up)?)
}

/// Returns what moves are for.
pub(super) fn goal_of(request: Rebalance) -> Goal {
    if request.defragment {
        Goal::Defragment
    } else {
        Goal::Even
    }
}

/// Returns what the request would become if it were not only planned.
fn ask_of(state: &Applied, request: PlanRequest) -> Result<Ask, ApiError> {
    let time = clock::now();
    let command = match request {
        PlanRequest::Rebalance(request) => return Ok(Ask::Rebalance(goal_of(request))),
        PlanRequest::Stack { name, services } => {
            validate_name("name", &name)?;
            if services.is_empty() {
                stacks::find(state, &name)?;
            }
            let services = stacks::prepare(&name, StackSpec { services })?;
            Command::DeployStack {
                stack: name,
                services,
                time,
            }
        }
        PlanRequest::Service(spec) => {
            validate(&spec)?;
            let known = state.service_named(&spec.name);
            match known.filter(|service| !service.removing) {
                Some(service) => Command::UpdateService {
                    service: service.id,
                    expected: None,
                    spec: *spec,
                    time,
                },
                None => Command::CreateService {
                    service: ServiceId::from_bits(draw_id()?),
                    spec: *spec,
                    time,
                },
            }
        }
        PlanRequest::Scale { service, replicas } => {
            services::scaled(state, &service, Scale { replicas })?.1
        }
        PlanRequest::RemoveService { service } => Command::RemoveService {
            service: services::find(state, &service)?.id,
            time,
        },
        PlanRequest::Drain { node } => Command::UpdateNode {
            node: nodes::find(state, &node)?.node.id,
            availability: Some(Availability::Drain),
            labels: std::collections::BTreeMap::new(),
            taints: Vec::new(),
            untaint: Vec::new(),
            time,
        },
    };
    Ok(Ask::Command(Box::new(command)))
}
