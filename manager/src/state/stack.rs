//! Stacks: a set of services that changes in one step, or not at all.

use std::collections::{BTreeMap, BTreeSet};

use ballast_model::view::StackResult;
use ballast_model::{ServiceId, Timestamp, limits};
use ballast_wire::log::StackService;

use super::{Changes, PublishedPort, Rejection, RejectionKind, Response, RouteKey, State};

impl State {
    pub(super) fn deploy_stack(
        &mut self,
        stack: &str,
        wanted: &[StackService],
        time: Timestamp,
        out: &mut Changes,
    ) -> Result<Response, Rejection> {
        let present = self.stack_services(stack);
        self.check_stack(stack, wanted, &present)?;
        let mut result = StackResult::default();
        let kept: BTreeSet<&str> = wanted.iter().map(|s| s.spec.name.as_str()).collect();
        for (name, id) in &present {
            if !kept.contains(name.as_str()) {
                self.remove_service(*id, time, out);
                result.removed.push(name.clone());
            }
        }
        // All ports are let go before any is taken: two services may swap theirs.
        for id in present.values() {
            self.free_exclusive(*id);
        }
        for StackService { id, spec } in wanted {
            let Some(known) = present.get(&spec.name) else {
                self.insert_service(*id, spec, time, out);
                result.created.push(spec.name.clone());
                continue;
            };
            if self.services[known].spec == *spec {
                self.hold_exclusive(*known, spec);
                result.unchanged.push(spec.name.clone());
            } else {
                self.change_spec(*known, spec, time, false, out);
                result.updated.push(spec.name.clone());
            }
        }
        Ok(Response::Stack(result))
    }

    fn stack_services(&self, stack: &str) -> BTreeMap<String, ServiceId> {
        self.services
            .values()
            .filter(|entry| !entry.removing && entry.spec.stack.as_deref() == Some(stack))
            .map(|entry| (entry.spec.name.clone(), entry.id))
            .collect()
    }

    /// Proves that every service can be made or changed, before the first one is.
    fn check_stack(
        &self,
        stack: &str,
        wanted: &[StackService],
        present: &BTreeMap<String, ServiceId>,
    ) -> Result<(), Rejection> {
        let own: BTreeSet<ServiceId> = present.values().copied().collect();
        let (mut names, mut ids) = (BTreeSet::new(), BTreeSet::new());
        let (mut ports, mut routes) = (BTreeSet::new(), BTreeSet::new());
        let mut made = 0;
        for (place, StackService { id, spec }) in wanted.iter().enumerate() {
            let prefix = format!("services[{place}].");
            let conflict = |field: String, reason: String| {
                Err(Rejection::new(RejectionKind::Conflict, reason).at(field))
            };
            if spec.stack.as_deref() != Some(stack) {
                let reason = format!("must be `{stack}`, the stack that is deployed");
                return Err(Rejection::new(RejectionKind::Invalid, reason)
                    .at(format!("{prefix}stack"))
                    .nearest(Some(stack.to_owned())));
            }
            if !names.insert(&spec.name) || !ids.insert(id) {
                let reason = format!("`{}` is twice in this stack", spec.name);
                return conflict(format!("{prefix}name"), reason);
            }
            if !present.contains_key(&spec.name) {
                made += 1;
                self.check_create(*id, spec).map_err(|mut rejection| {
                    rejection.field = rejection.field.map(|field| format!("{prefix}{field}"));
                    rejection
                })?;
            }
            self.check_exclusive(spec, &own, &prefix)?;
            for (nth, port) in spec.ports.iter().enumerate() {
                if let Some(port) = PublishedPort::of(port)
                    && !ports.insert(port)
                {
                    let reason = format!("{} is published twice by this stack", port.number);
                    return conflict(format!("{prefix}ports[{nth}].published"), reason);
                }
            }
            for (nth, route) in spec.routes.iter().enumerate() {
                if !routes.insert(RouteKey::of(route)) {
                    let reason = "leads to two services of this stack".to_owned();
                    return conflict(format!("{prefix}routes[{nth}]"), reason);
                }
            }
        }
        let specs = wanted.iter().enumerate();
        let specs = specs.map(|(place, wanted)| (&wanted.spec, format!("services[{place}].")));
        self.check_affinities(specs, &own)?;
        if self.services.len() + made > limits::SERVICES {
            let reason = format!("a cluster has at most {} services", limits::SERVICES);
            return Err(Rejection::new(RejectionKind::Limit, reason));
        }
        Ok(())
    }
}
