//! A trace's tasks as the scheduler's requests.

use std::collections::BTreeMap;
use std::str::FromStr;

use ballast_model::{Constraint, DeviceRequest, Millis, Placement, Policy, Resources, ServiceId};
use ballast_scheduler::{Peers, Request};

use crate::amounts::Amounts;
use crate::fleet::GPU;
use crate::trace::{Jumps, Shape, TraceTask, TraceTasks};

/// Tasks that want nodes. Tasks of one shape are replicas of one service.
#[derive(Debug, Clone)]
pub struct Workload {
    pub(crate) services: Vec<Service>,
    pub(crate) tasks: Vec<Task>,
    pub(crate) jumps: Jumps,
    pub(crate) policy: Policy,
}

/// A task names a model of GPU that no constraint can hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column `gpu_spec`: {reason}")]
pub struct UnusableModel {
    /// Where.
    pub line: u64,
    /// What a constraint would need.
    pub reason: String,
}

/// All tasks of one shape.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    id: ServiceId,
    resources: Resources,
    placement: Placement,
    pub amounts: Amounts,
}

/// One task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Task {
    /// Its service's place in [`Workload::services`].
    pub service: usize,
    /// The line of the list, for messages.
    pub line: u64,
    pub created: Option<Millis>,
    pub deleted: Option<Millis>,
}

impl Workload {
    /// Returns the tasks of a list, placed by this policy.
    ///
    /// # Errors
    /// The first task that names a model of GPU which no constraint can hold.
    pub fn new(list: &TraceTasks, policy: Policy) -> Result<Self, UnusableModel> {
        let mut places: BTreeMap<&Shape, usize> = BTreeMap::new();
        let mut services = Vec::new();
        let mut tasks = Vec::with_capacity(list.tasks.len());
        for task in &list.tasks {
            let service = if let Some(&place) = places.get(&task.shape) {
                place
            } else {
                let place = services.len();
                services.push(Service::new(place, task, policy)?);
                places.insert(&task.shape, place);
                place
            };
            tasks.push(Task {
                service,
                line: task.line,
                created: task.created,
                deleted: task.deleted,
            });
        }
        Ok(Self {
            services,
            tasks,
            jumps: list.jumps,
            policy,
        })
    }

    /// Returns how many tasks there are.
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Returns whether there is no task.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Returns what the scheduler is asked for a task of this service.
    pub(crate) fn request(&self, service: usize) -> Request<'_> {
        let service = &self.services[service];
        Request {
            service: service.id,
            resources: &service.resources,
            ports: &[],
            placement: &service.placement,
            node: None,
            avoid: &[],
            kept: &[],
            peers: Peers::none(),
        }
    }

    /// Returns what the scheduler is asked for a task of the service with this id.
    pub(crate) fn request_of(&self, id: ServiceId) -> Option<Request<'_>> {
        let place = usize::try_from(id.to_bits()).ok()?;
        (place < self.services.len()).then(|| self.request(place))
    }
}

impl Service {
    fn new(place: usize, task: &TraceTask, policy: Policy) -> Result<Self, UnusableModel> {
        let shape = &task.shape;
        Ok(Self {
            id: ServiceId::from_bits(place as u64),
            resources: Resources {
                cpu: shape.cpu,
                memory: shape.memory,
                devices: match shape.gpus {
                    0 => DeviceRequest::default(),
                    count => DeviceRequest {
                        kind: GPU.to_owned(),
                        count,
                        milli: shape.gpu_milli,
                    },
                },
                ..Resources::default()
            },
            placement: Placement {
                constraints: model_constraint(task)?.into_iter().collect(),
                policy,
                // Traces do not say; the budget of a replay is for all tasks together.
                max_disrupted: u32::MAX,
                ..Placement::default()
            },
            amounts: Amounts::of_task(shape),
        })
    }
}

fn model_constraint(task: &TraceTask) -> Result<Option<Constraint>, UnusableModel> {
    let text = match &task.shape.models[..] {
        [] => return Ok(None),
        [model] => format!("node.attributes.{GPU}.model=={model}"),
        models => format!("node.attributes.{GPU}.model in ({})", models.join(",")),
    };
    let unusable = |error: <Constraint as FromStr>::Err| UnusableModel {
        line: task.line,
        reason: error.to_string(),
    };
    text.parse().map(Some).map_err(unusable)
}
