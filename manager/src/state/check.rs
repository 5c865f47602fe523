//! The invariants of the state, computed anew: for tests and simulations, not for every command.

use std::collections::{BTreeMap, BTreeSet};

use ballast_model::{Allocation, limits};

use super::{Lane, PublishedPort, RouteKey, State};

macro_rules! ensure {
    ($condition:expr, $($text:tt)*) => {
        if !$condition {
            return Err(format!($($text)*));
        }
    };
}

impl State {
    /// Proves that what is kept incrementally equals what follows from the tasks and specs.
    ///
    /// # Errors
    /// The first invariant that does not hold, in words.
    pub fn check_invariants(&self) -> Result<(), String> {
        self.check_lanes()?;
        self.check_bindings()?;
        self.check_services()
    }

    fn check_lanes(&self) -> Result<(), String> {
        let mut lanes: BTreeMap<Lane, usize> = BTreeMap::new();
        for (id, entry) in &self.tasks {
            ensure!(*id == entry.task.id, "task {id} is stored under another id");
            let lane = entry.lane();
            *lanes.entry(lane).or_default() += 1;
            let known = self.lanes.get(&lane).is_some_and(|l| l.tasks.contains(id));
            ensure!(known, "task {id} is not in its lane");
            let service = self.services.contains_key(&entry.task.service);
            ensure!(service, "task {id} belongs to no service");
        }
        for (lane, entry) in &self.lanes {
            let count = lanes.get(lane).copied().unwrap_or(0);
            ensure!(
                count == entry.tasks.len(),
                "{lane:?} has {count} tasks, not {entry:?}"
            );
            ensure!(count > 0, "{lane:?} is empty");
            let ended = self.lane(*lane).filter(|task| !self.occupies(task)).count();
            let most = limits::TASK_HISTORY_PER_SLOT;
            ensure!(ended <= most, "{lane:?} keeps {ended} ended tasks");
        }
        Ok(())
    }

    fn check_bindings(&self) -> Result<(), String> {
        let mut taken: BTreeMap<_, Allocation> = BTreeMap::new();
        let mut held: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for (id, assignment) in &self.assignments {
            let entry = self.tasks.get(&assignment.task);
            let entry = entry.ok_or_else(|| format!("binding {id} has no task"))?;
            let binding = entry.task.binding.as_ref();
            let binding = binding.ok_or_else(|| format!("the task of {id} is not bound"))?;
            ensure!(
                binding.assignment == *id,
                "the task of {id} is bound elsewhere"
            );
            let ended = entry.task.observed.state.is_terminal();
            ensure!(
                ended == assignment.restarting,
                "binding {id} outlives its task"
            );
            taken.entry(binding.node).or_default().add(&binding.claim);
            held.entry(binding.node).or_default().insert(*id);
        }
        for entry in self.tasks.values() {
            let bound = entry.task.binding.as_ref();
            let holds = entry.task.holds_claim();
            let kept = bound.is_some_and(|b| self.assignments.contains_key(&b.assignment));
            ensure!(
                !holds || kept,
                "task {} lives without its binding",
                entry.task.id
            );
        }
        for (id, node) in &self.nodes {
            let sum = taken.remove(id).unwrap_or_default();
            ensure!(
                node.allocation == sum,
                "node {id}: {:?}, not {sum:?}",
                node.allocation
            );
            let bindings = held.remove(id).unwrap_or_default();
            ensure!(node.assignments == bindings, "node {id} misses bindings");
        }
        ensure!(
            taken.is_empty(),
            "bindings to nodes that are gone: {taken:?}"
        );
        Ok(())
    }

    /// Proves that no node has given more than it has. Apart from the others: an agent that comes
    /// back with less capacity keeps what runs there.
    ///
    /// # Errors
    /// The node.
    pub fn check_capacity(&self) -> Result<(), String> {
        for (id, node) in &self.nodes {
            let (has, gave) = (&node.node.offered, &node.allocation);
            let within = gave.cpu <= u64::from(has.cpu.0)
                && gave.memory <= has.memory.0
                && gave.tasks <= has.task_slots;
            ensure!(within, "node {id} has {has:?} and gave {gave:?}");
        }
        Ok(())
    }

    fn check_services(&self) -> Result<(), String> {
        let mut ports = BTreeMap::new();
        let mut routes = BTreeMap::new();
        for (id, service) in &self.services {
            let occupants = self
                .tasks_of(*id)
                .filter(|task| self.occupies(task))
                .count();
            ensure!(
                occupants == service.live as usize,
                "service {id} counts {} occupants of {occupants}",
                service.live
            );
            ensure!(
                !service.removing || occupants > 0,
                "service {id} is not forgotten"
            );
            let template = self.templates.contains_key(&(*id, service.template));
            ensure!(template, "service {id} has no template");
            if service.removing {
                continue;
            }
            let named = self.names.get(&service.spec.name) == Some(id);
            ensure!(named, "service {id} is not found by its name");
            ports.extend(
                service
                    .spec
                    .ports
                    .iter()
                    .filter_map(|p| Some((PublishedPort::of(p)?, *id))),
            );
            routes.extend(service.spec.routes.iter().map(|r| (RouteKey::of(r), *id)));
        }
        ensure!(
            ports == self.published,
            "published ports: {:?}",
            self.published
        );
        ensure!(routes == self.routes, "routes: {:?}", self.routes);
        let mut users: BTreeMap<_, u32> = BTreeMap::new();
        for assignment in self.assignments.values() {
            let task = &self.tasks[&assignment.task].task;
            *users.entry((task.service, task.generation)).or_default() += 1;
        }
        for (key, template) in &self.templates {
            let used = users.remove(key).unwrap_or(0);
            ensure!(
                template.live == used,
                "template {key:?} counts {} of {used}",
                template.live
            );
            let current = self.services.get(&key.0).map(|s| s.template) == Some(key.1);
            ensure!(used > 0 || current, "template {key:?} is left over");
        }
        ensure!(users.is_empty(), "bindings without template: {users:?}");
        Ok(())
    }
}
