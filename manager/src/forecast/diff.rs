//! What differs between a state and what became of it, lane by lane.

use std::collections::{BTreeMap, BTreeSet};

use ballast_model::plan::{
    PlanView, PlanWhen, PlannedPending, ServiceAction, ServicePlan, TaskAction, TaskChange,
};
use ballast_model::view::PendingView;
use ballast_model::{AssignmentId, Desired, Generation, NodeId, ServiceId, TaskId};
use ballast_scheduler::Request;

use super::Future;
use crate::reconcile::affinity::peers;
use crate::reconcile::placing::explained;
use crate::state::{Lane, Service, State};
use crate::views;

/// The task that fills a lane, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    assignment: AssignmentId,
    task: TaskId,
    node: NodeId,
    generation: Generation,
}

/// What is to be remembered of the state before.
#[derive(Debug)]
pub(super) struct Before {
    version: Generation,
    held: BTreeMap<Lane, Held>,
    pending: BTreeSet<Lane>,
    services: BTreeMap<ServiceId, Known>,
    nodes: BTreeMap<NodeId, String>,
}

/// What is to be remembered of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    name: String,
    generation: Generation,
    template: Generation,
    removing: bool,
    replicas: u32,
}

impl Known {
    fn of(state: &State, service: &Service) -> Self {
        Self {
            name: service.spec.name.clone(),
            generation: service.generation,
            template: service.template,
            removing: service.removing,
            replicas: views::replicas(state, service).desired,
        }
    }
}

/// Returns the task that fills each lane: of two, the one that is to stay.
pub(super) fn bindings(state: &State) -> BTreeMap<Lane, Held> {
    let mut held: BTreeMap<Lane, Held> = BTreeMap::new();
    for entry in state.tasks() {
        let Some(binding) = entry.task.binding.as_ref() else {
            continue;
        };
        if entry.task.desired == Desired::Shutdown || !state.occupies(entry) {
            continue;
        }
        let new = Held {
            assignment: binding.assignment,
            task: entry.task.id,
            node: binding.node,
            generation: entry.task.generation,
        };
        let newer = |old: &Held| {
            let of = |id| {
                state
                    .task(id)
                    .map(|entry| (entry.task.generation, entry.task.created))
            };
            of(new.task) > of(old.task)
        };
        let lane = entry.lane();
        if held.get(&lane).is_none_or(newer) {
            held.insert(lane, new);
        }
    }
    held
}

/// Returns the lanes in which a task waits for a node, with why.
fn pending(state: &State) -> BTreeMap<Lane, String> {
    let waits = state
        .tasks()
        .filter(|entry| entry.task.binding.is_none() && !entry.task.observed.state.is_terminal());
    waits
        .map(|entry| (entry.lane(), entry.task.observed.message.clone()))
        .collect()
}

impl Before {
    pub(super) fn of(state: &State) -> Self {
        let known = |service: &Service| (service.id, Known::of(state, service));
        Self {
            version: state.version(),
            held: bindings(state),
            pending: pending(state).into_keys().collect(),
            services: state.services().map(known).collect(),
            nodes: state
                .nodes()
                .map(|entry| (entry.node.id, entry.node.description.name.clone()))
                .collect(),
        }
    }

    /// Returns which nodes would take a task of each service that the command made or changed.
    pub(super) fn asked(&self, future: &Future) -> BTreeMap<ServiceId, PendingView> {
        let scheduler = future.reconciler.scheduler();
        let changed = future.state.services().filter(|service| {
            let before = self.services.get(&service.id);
            !service.removing && before.map(|known| known.template) != Some(service.template)
        });
        changed
            .map(|service| {
                let peers = peers(&future.state, service);
                let request = Request::of(service.id, &service.spec).among(&peers);
                let answer = scheduler.explain(&request);
                (service.id, explained(scheduler, &request, &answer))
            })
            .collect()
    }

    /// Returns what differs now.
    pub(super) fn view(
        &self,
        future: &Future,
        at_once: &BTreeMap<Lane, Held>,
        mut nodes: BTreeMap<ServiceId, PendingView>,
        complete: bool,
    ) -> PlanView {
        let state = &future.state;
        let after = bindings(state);
        let waiting = pending(state);
        let mut services: BTreeMap<ServiceId, ServicePlan> = BTreeMap::new();
        for (id, known) in self.all_services(state) {
            let plan = self.service_plan(id, &known, state);
            if plan.action != ServiceAction::Keep {
                services.insert(id, plan);
            }
        }
        let concerned: BTreeSet<ServiceId> = services.keys().copied().collect();
        let mut view = PlanView {
            version: self.version,
            fits: true,
            complete,
            services: Vec::new(),
            changes: Vec::new(),
            pending: Vec::new(),
        };
        for lane in &future.touched {
            let (old, new) = (self.held.get(lane), after.get(lane));
            let Some(change) = self.change(*lane, old, new, at_once.get(lane), future) else {
                continue;
            };
            let plan = self.plan_of(lane.service, state, &mut services);
            match change.action {
                TaskAction::Start => plan.start += 1,
                TaskAction::Stop => plan.stop += 1,
                TaskAction::Replace => plan.replace += 1,
                TaskAction::Move => plan.r#move += 1,
            }
            view.changes.push(change);
        }
        for (lane, why) in waiting {
            // What waited before and has nothing to do with it is no part of what would change.
            if self.pending.contains(&lane) && !concerned.contains(&lane.service) {
                continue;
            }
            let plan = self.plan_of(lane.service, state, &mut services);
            plan.pending += 1;
            view.fits = false;
            view.pending.push(PlannedPending {
                service: plan.name.clone(),
                slot: lane.slot,
                stays: after.get(&lane).map(|held| self.node(held.node)),
                why,
            });
        }
        for (id, plan) in &mut services {
            plan.nodes = nodes.remove(id);
        }
        view.services = services.into_values().collect();
        view.services.sort_by(|a, b| a.name.cmp(&b.name));
        view.changes
            .sort_by(|a, b| (&a.service, a.slot, &a.to).cmp(&(&b.service, b.slot, &b.to)));
        view.pending
            .sort_by(|a, b| (&a.service, a.slot).cmp(&(&b.service, b.slot)));
        view
    }

    fn node(&self, id: NodeId) -> String {
        self.nodes
            .get(&id)
            .cloned()
            .unwrap_or_else(|| id.to_string())
    }

    /// Returns every service of before and after, as it was if it was there.
    fn all_services(&self, state: &State) -> BTreeMap<ServiceId, Known> {
        let new = state
            .services()
            .map(|service| (service.id, Known::of(state, service)));
        let mut all: BTreeMap<ServiceId, Known> = new.collect();
        all.extend(self.services.clone());
        all
    }

    fn plan_of<'a>(
        &self,
        id: ServiceId,
        state: &State,
        services: &'a mut BTreeMap<ServiceId, ServicePlan>,
    ) -> &'a mut ServicePlan {
        services.entry(id).or_insert_with(|| {
            let now = state.service(id).map(|service| Known::of(state, service));
            let known = self.services.get(&id).cloned().or(now);
            let known = known.unwrap_or_else(|| Known {
                name: id.to_string(),
                generation: Generation(0),
                template: Generation(0),
                removing: true,
                replicas: 0,
            });
            self.service_plan(id, &known, state)
        })
    }

    fn service_plan(&self, id: ServiceId, known: &Known, state: &State) -> ServicePlan {
        let before = self.services.get(&id);
        let after = state
            .service(id)
            .map(|service| Known::of(state, service))
            .filter(|after| !after.removing);
        let action = match (before.filter(|before| !before.removing), &after) {
            (None, Some(_)) => ServiceAction::Create,
            (Some(_), None) => ServiceAction::Remove,
            (Some(before), Some(after)) if before.template != after.template => {
                ServiceAction::Update
            }
            (Some(before), Some(after)) if before.generation != after.generation => {
                ServiceAction::Adjust
            }
            _ => ServiceAction::Keep,
        };
        ServicePlan {
            name: known.name.clone(),
            action,
            replicas_before: before.map_or(0, |before| before.replicas),
            replicas_after: after.map_or(0, |after| after.replicas),
            start: 0,
            stop: 0,
            replace: 0,
            r#move: 0,
            pending: 0,
            nodes: None,
        }
    }

    fn change(
        &self,
        lane: Lane,
        old: Option<&Held>,
        new: Option<&Held>,
        at_once: Option<&Held>,
        future: &Future,
    ) -> Option<TaskChange> {
        let action = match (old, new) {
            (None, None) => return None,
            (None, Some(_)) => TaskAction::Start,
            (Some(_), None) => TaskAction::Stop,
            (Some(old), Some(new)) if old.assignment == new.assignment => return None,
            (Some(old), Some(new)) if old.generation == new.generation => TaskAction::Move,
            (Some(_), Some(_)) => TaskAction::Replace,
        };
        let now = at_once.map(|held| held.assignment) != old.map(|held| held.assignment);
        let reason = old.and_then(|old| future.reasons.get(&old.task)).cloned();
        let why = match (reason, action) {
            (Some(reason), _) if !reason.is_empty() => reason,
            (_, TaskAction::Start) if self.pending.contains(&lane) => {
                "there is room for it".to_owned()
            }
            (_, TaskAction::Start) => "its place is empty".to_owned(),
            _ => String::new(),
        };
        let state = &future.state;
        let name = self
            .services
            .get(&lane.service)
            .map(|known| known.name.clone());
        let name = name.or_else(|| Some(state.service(lane.service)?.spec.name.clone()));
        Some(TaskChange {
            service: name.unwrap_or_else(|| lane.service.to_string()),
            slot: lane.slot,
            action,
            from: old.map(|held| self.node(held.node)),
            to: new.map(|held| self.node(held.node)),
            when: if now { PlanWhen::Now } else { PlanWhen::Later },
            why,
        })
    }
}
