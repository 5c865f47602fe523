//! Services: made, updated, rolled back, removed.

use std::collections::{BTreeMap, BTreeSet};

use ballast_model::{
    EventKind, Generation, Health, Mode, PortSpec, ServiceId, ServiceSpec, Slot, TaskId, TaskState,
    Timestamp, limits,
};
use ballast_wire::log::Command;

use super::{
    About, Changes, Lane, PublishedPort, Rejection, RejectionKind, Response, RouteKey, Service,
    State, Template, Update, cut,
};

impl State {
    pub(super) fn apply_service(
        &mut self,
        command: &Command,
        out: &mut Changes,
    ) -> Result<Response, Rejection> {
        match command {
            Command::CreateService {
                service,
                spec,
                time,
            } => {
                self.check_create(*service, spec)?;
                self.check_exclusive(spec, &BTreeSet::new(), "")?;
                self.check_affinities([(spec, String::new())], &BTreeSet::new())?;
                Ok(self.insert_service(*service, spec, *time, out))
            }
            Command::UpdateService {
                service,
                expected,
                spec,
                time,
            } => {
                let current = self.living(*service, *expected)?;
                if current.spec.name != spec.name {
                    let reason = "a service keeps its name";
                    return Err(Rejection::new(RejectionKind::Invalid, reason)
                        .at("name")
                        .nearest(Some(current.spec.name.clone())));
                }
                let own = BTreeSet::from([*service]);
                self.check_exclusive(spec, &own, "")?;
                self.check_affinities([(spec, String::new())], &own)?;
                Ok(self.change_spec(*service, spec, *time, false, out))
            }
            Command::RollbackService {
                service,
                expected,
                automatic,
                time,
            } => self.rollback(*service, *expected, automatic.as_deref(), *time, out),
            Command::RemoveService { service, time } => {
                self.living(*service, None)?;
                self.remove_service(*service, *time, out);
                Ok(Response::Done)
            }
            Command::CompleteUpdate {
                service,
                generation,
                time,
            } => {
                self.end_update(*service, *generation, Update::Completed, *time, out);
                Ok(Response::Done)
            }
            Command::PauseUpdate {
                service,
                generation,
                reason,
                time,
            } => {
                let reason = cut(reason);
                self.end_update(*service, *generation, Update::Paused { reason }, *time, out);
                Ok(Response::Done)
            }
            _ => unreachable!("dispatch sends only the services' commands here"),
        }
    }

    /// Returns a service that is not being removed, if it is still what its reader saw.
    fn living(&self, id: ServiceId, expected: Option<Generation>) -> Result<&Service, Rejection> {
        let entry = self.services.get(&id).filter(|entry| !entry.removing);
        let entry = entry.ok_or_else(|| {
            Rejection::new(RejectionKind::NotFound, format!("there is no service {id}"))
        })?;
        match expected {
            Some(expected) if expected != entry.generation => {
                let reason = format!(
                    "service `{}` is at generation {} now, not {expected}; read it again",
                    entry.spec.name, entry.generation
                );
                Err(Rejection::new(RejectionKind::Stale, reason))
            }
            _ => Ok(entry),
        }
    }

    pub(super) fn check_create(&self, id: ServiceId, spec: &ServiceSpec) -> Result<(), Rejection> {
        if let Some(other) = self.service_named(&spec.name)
            && !other.removing
        {
            let nearest = free_name(&spec.name, |name| self.names.contains_key(name));
            let reason = format!("there is a service `{}` already", spec.name);
            return Err(Rejection::new(RejectionKind::Conflict, reason)
                .at("name")
                .nearest(Some(nearest)));
        }
        if self.services.contains_key(&id) {
            let reason = format!("the id {id} is taken");
            return Err(Rejection::new(RejectionKind::Conflict, reason));
        }
        if self.services.len() >= limits::SERVICES {
            let reason = format!("a cluster has at most {} services", limits::SERVICES);
            return Err(Rejection::new(RejectionKind::Limit, reason));
        }
        Ok(())
    }

    /// Refuses a published port or route that a service besides `own` has.
    pub(super) fn check_exclusive(
        &self,
        spec: &ServiceSpec,
        own: &BTreeSet<ServiceId>,
        prefix: &str,
    ) -> Result<(), Rejection> {
        let other = |holder: Option<&ServiceId>| {
            let id = holder.filter(|id| !own.contains(id))?;
            self.services.get(id).map(|entry| entry.spec.name.as_str())
        };
        for (place, port) in spec.ports.iter().enumerate() {
            let Some(published) = PublishedPort::of(port) else {
                continue;
            };
            if let Some(name) = other(self.published.get(&published)) {
                let reason = format!("{} is published by service `{name}`", published.number);
                return Err(Rejection::new(RejectionKind::Conflict, reason)
                    .at(format!("{prefix}ports[{place}].published"))
                    .nearest(self.free_port(spec, published)));
            }
        }
        for (place, route) in spec.routes.iter().enumerate() {
            if let Some(name) = other(self.routes.get(&RouteKey::of(route))) {
                let host = route.host.as_deref().unwrap_or("any host");
                let reason = format!("{host}{} leads to service `{name}`", route.path_prefix);
                return Err(Rejection::new(RejectionKind::Conflict, reason)
                    .at(format!("{prefix}routes[{place}]")));
            }
        }
        Ok(())
    }

    /// Returns the number next to a taken one that nobody publishes, the spec itself included.
    fn free_port(&self, spec: &ServiceSpec, taken: PublishedPort) -> Option<String> {
        let own: BTreeSet<PublishedPort> =
            spec.ports.iter().filter_map(PublishedPort::of).collect();
        let above = taken.number..=u16::MAX;
        above
            .chain((1..taken.number).rev())
            .find(|&number| {
                let port = PublishedPort { number, ..taken };
                !self.published.contains_key(&port) && !own.contains(&port)
            })
            .map(|number| number.to_string())
    }

    pub(super) fn insert_service(
        &mut self,
        id: ServiceId,
        spec: &ServiceSpec,
        time: Timestamp,
        out: &mut Changes,
    ) -> Response {
        let generation = Generation(1);
        let mut service = Service {
            id,
            spec: spec.clone(),
            previous: None,
            generation,
            template: generation,
            slots: BTreeSet::new(),
            update: Update::Completed,
            removing: false,
            live: 0,
            table: Generation(0),
            created: time,
            updated: time,
        };
        service.slots = wanted_slots(spec.mode, BTreeSet::new(), |_| 0);
        self.names.insert(spec.name.clone(), id);
        self.hold_exclusive(id, spec);
        self.services.insert(id, service);
        self.store_template(id, generation, spec);
        out.specs.insert(id);
        self.table_changed(id, out);
        self.note(EventKind::ServiceCreated, time, of_service(id), "");
        Response::Service {
            service: id,
            generation,
        }
    }

    fn store_template(&mut self, id: ServiceId, generation: Generation, spec: &ServiceSpec) {
        let template = Template {
            name: spec.name.clone(),
            task: spec.task.clone(),
            ports: spec.ports.clone(),
            job: matches!(spec.mode, Mode::Job { .. }),
            live: 0,
        };
        self.templates.insert((id, generation), template);
    }

    pub(super) fn hold_exclusive(&mut self, id: ServiceId, spec: &ServiceSpec) {
        for port in spec.ports.iter().filter_map(PublishedPort::of) {
            self.published.insert(port, id);
        }
        for route in &spec.routes {
            self.routes.insert(RouteKey::of(route), id);
        }
    }

    pub(super) fn free_exclusive(&mut self, id: ServiceId) {
        let Some(entry) = self.services.get(&id) else {
            return;
        };
        for port in entry.spec.ports.iter().filter_map(PublishedPort::of) {
            if self.published.get(&port) == Some(&id) {
                self.published.remove(&port);
            }
        }
        for route in entry.spec.routes.iter().map(RouteKey::of) {
            if self.routes.get(&route) == Some(&id) {
                self.routes.remove(&route);
            }
        }
    }

    /// Replaces a spec that was checked; nothing happens if it is the same.
    pub(super) fn change_spec(
        &mut self,
        id: ServiceId,
        spec: &ServiceSpec,
        time: Timestamp,
        rolled_back: bool,
        out: &mut Changes,
    ) -> Response {
        self.table_changed(id, out);
        let before = self.services[&id].spec.clone();
        if before == *spec {
            out.services.remove(&id);
            let generation = self.services[&id].generation;
            return Response::Service {
                service: id,
                generation,
            };
        }
        self.free_exclusive(id);
        self.hold_exclusive(id, spec);
        let healthy = self.slot_ranks(id);
        let slots = wanted_slots(spec.mode, self.services[&id].slots.clone(), |slot| {
            healthy.get(&slot).copied().unwrap_or(0)
        });
        let entry = self.services.get_mut(&id).expect("the caller found it");
        entry.generation = entry.generation.next();
        let (generation, stale) = (entry.generation, needs_new_tasks(&before, spec));
        let old_template = entry.template;
        remember(entry, before, spec);
        entry.spec = spec.clone();
        entry.slots = slots;
        entry.updated = time;
        let updating = stale && entry.live > 0;
        if stale {
            entry.template = generation;
            entry.update = if updating {
                Update::Running { rolled_back }
            } else {
                Update::Completed
            };
            self.store_template(id, generation, spec);
            if self
                .templates
                .get(&(id, old_template))
                .is_some_and(|old| old.live == 0)
            {
                self.templates.remove(&(id, old_template));
            }
        }
        out.specs.insert(id);
        self.table_changed(id, out);
        self.note(EventKind::ServiceUpdated, time, of_service(id), "");
        if updating {
            self.note(EventKind::UpdateStarted, time, of_service(id), "");
        }
        self.stop_unwanted(id, "no longer wanted", time, out);
        Response::Service {
            service: id,
            generation,
        }
    }

    fn rollback(
        &mut self,
        id: ServiceId,
        expected: Option<Generation>,
        automatic: Option<&str>,
        time: Timestamp,
        out: &mut Changes,
    ) -> Result<Response, Rejection> {
        let entry = self.living(id, expected)?;
        let Some(previous) = entry.previous.clone() else {
            let reason = format!(
                "service `{}` has no version before this one",
                entry.spec.name
            );
            return Err(Rejection::new(RejectionKind::Conflict, reason));
        };
        self.check_exclusive(&previous, &BTreeSet::from([id]), "")?;
        if let Some(reason) = automatic {
            let message = format!("rolls back: {reason}");
            self.note(EventKind::UpdatePaused, time, of_service(id), &message);
        }
        Ok(self.change_spec(id, &previous, time, automatic.is_some(), out))
    }

    pub(super) fn remove_service(&mut self, id: ServiceId, time: Timestamp, out: &mut Changes) {
        self.table_changed(id, out);
        self.free_exclusive(id);
        let Some(entry) = self.services.get_mut(&id) else {
            return;
        };
        entry.removing = true;
        entry.update = Update::Completed;
        entry.slots.clear();
        let live = entry.live;
        out.specs.insert(id);
        self.note(EventKind::ServiceRemoved, time, of_service(id), "");
        if live == 0 {
            self.forget_service(id, out);
        } else {
            self.stop_unwanted(id, "its service was removed", time, out);
        }
    }

    /// Forgets a removed service, of which no task is left.
    pub(super) fn forget_service(&mut self, id: ServiceId, out: &mut Changes) {
        let lanes: Vec<Lane> = self.lanes(id).map(|(lane, _)| lane).collect();
        for lane in lanes {
            for task in self.lanes.remove(&lane).unwrap_or_default().tasks {
                self.tasks.remove(&task);
            }
        }
        if let Some(entry) = self.services.remove(&id) {
            self.templates.remove(&(id, entry.template));
            if self.names.get(&entry.spec.name) == Some(&id) {
                self.names.remove(&entry.spec.name);
            }
            if entry.is_routed() {
                out.services.insert(id);
            }
        }
        out.specs.insert(id);
    }

    /// Tells the tasks of lanes that the spec does not want to end, and forgets the lanes' history.
    fn stop_unwanted(&mut self, id: ServiceId, reason: &str, time: Timestamp, out: &mut Changes) {
        let Some(entry) = self.services.get(&id) else {
            return;
        };
        let unwanted: Vec<Lane> = self
            .lanes(id)
            .map(|(lane, _)| lane)
            .filter(|lane| !entry.wants(*lane))
            .collect();
        for lane in unwanted {
            self.stop_lane(lane, reason, time, out);
            self.trim_lane(lane);
        }
    }

    pub(super) fn stop_lane(
        &mut self,
        lane: Lane,
        reason: &str,
        time: Timestamp,
        out: &mut Changes,
    ) {
        let tasks: Vec<TaskId> = self
            .lanes
            .get(&lane)
            .map_or_else(Vec::new, |entry| entry.tasks.clone());
        for task in tasks {
            self.stop_task(task, reason, time, out);
        }
    }

    /// Returns how good each slot's best task is: 2 healthy, 1 running; others are left out.
    fn slot_ranks(&self, id: ServiceId) -> BTreeMap<Slot, u8> {
        let mut ranks = BTreeMap::new();
        for entry in self.tasks_of(id) {
            let observed = &entry.task.observed;
            let rank = match (observed.state, observed.health) {
                (TaskState::Running, Health::Healthy) => 2,
                (TaskState::Running, _) => 1,
                _ => continue,
            };
            let best = ranks.entry(entry.task.slot).or_insert(rank);
            *best = rank.max(*best);
        }
        ranks
    }

    fn end_update(
        &mut self,
        id: ServiceId,
        generation: Generation,
        update: Update,
        time: Timestamp,
        out: &mut Changes,
    ) {
        let Some(entry) = self.services.get_mut(&id) else {
            return;
        };
        if entry.template != generation || !matches!(entry.update, Update::Running { .. }) {
            return;
        }
        let (kind, message) = match &update {
            Update::Paused { reason } => (EventKind::UpdatePaused, reason.clone()),
            _ => (EventKind::UpdateCompleted, String::new()),
        };
        entry.update = update;
        out.specs.insert(id);
        self.note(kind, time, of_service(id), &message);
    }
}

/// Returns a name like a taken one that is free: numbered, and cut so that it stays a name.
pub(super) fn free_name(name: &str, taken: impl Fn(&str) -> bool) -> String {
    let mut nth = 2_u64;
    loop {
        let suffix = format!("-{nth}");
        let room = limits::NAME_CHARS - suffix.len();
        let start: String = name.chars().take(room).collect();
        let free = format!("{}{suffix}", start.trim_end_matches('-'));
        if !taken(&free) {
            return free;
        }
        nth += 1;
    }
}

fn of_service(id: ServiceId) -> About {
    About {
        service: Some(id),
        ..About::default()
    }
}

/// Keeps what a rollback brings back. Scaling is no version of its own: rolling back a bad program
/// must not undo the replicas that were added since.
fn remember(entry: &mut Service, before: ServiceSpec, after: &ServiceSpec) {
    let scaled = ServiceSpec {
        mode: after.mode,
        ..before.clone()
    };
    let only_scaled = scaled == *after
        && std::mem::discriminant(&before.mode) == std::mem::discriminant(&after.mode);
    match &mut entry.previous {
        Some(previous) if only_scaled => {
            if std::mem::discriminant(&previous.mode) == std::mem::discriminant(&after.mode) {
                previous.mode = after.mode;
            }
        }
        previous => *previous = Some(before),
    }
}

/// Returns whether a running task would be another one under the new spec. Where its ports are
/// published and how many there are makes no difference to it.
fn needs_new_tasks(before: &ServiceSpec, after: &ServiceSpec) -> bool {
    let same_port = |(a, b): (&PortSpec, &PortSpec)| {
        a.name == b.name && a.target == b.target && a.protocol == b.protocol
    };
    let job = |spec: &ServiceSpec| matches!(spec.mode, Mode::Job { .. });
    before.task != after.task
        || before.placement != after.placement
        || job(before) != job(after)
        || before.ports.len() != after.ports.len()
        || !before.ports.iter().zip(&after.ports).all(same_port)
}

/// Returns the slots that a mode wants: of those there are, the unhealthy ones and then the newest
/// go first; the lowest free numbers come first.
fn wanted_slots(
    mode: Mode,
    mut slots: BTreeSet<Slot>,
    rank: impl Fn(Slot) -> u8,
) -> BTreeSet<Slot> {
    let count = match mode {
        Mode::Global {} => return BTreeSet::new(),
        Mode::Job { completions, .. } => return (1..=completions).map(Slot).collect(),
        Mode::Replicated { replicas } => replicas as usize,
    };
    if slots.len() > count {
        let mut leaving: Vec<Slot> = slots.iter().copied().collect();
        leaving.sort_by_key(|slot| (rank(*slot), std::cmp::Reverse(*slot)));
        for slot in &leaving[..slots.len() - count] {
            slots.remove(slot);
        }
    }
    let mut number = 1;
    while slots.len() < count {
        slots.insert(Slot(number));
        number += 1;
    }
    slots
}
