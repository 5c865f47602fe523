//! Which services the names in placements mean, and who keeps away from whom.

use std::collections::BTreeMap;

use ballast_model::{ServiceId, ServiceSpec};
use ballast_scheduler::{Peers, Repelling};

use crate::state::{Service, State};

/// The services that are required to keep away from others, by the service they keep away from.
#[derive(Debug, Default)]
pub(super) struct Affinities {
    repelling: BTreeMap<ServiceId, Vec<Repelling>>,
    /// Whether a placed task may be what others wait for: to be near to it, or to even out what
    /// they are spread over.
    pub(super) wait_for_others: bool,
}

impl Affinities {
    /// Returns those of all services.
    ///
    /// # Complexity
    /// One pass over the services.
    pub(super) fn of(state: &State) -> Self {
        let mut repelling: BTreeMap<ServiceId, Vec<Repelling>> = BTreeMap::new();
        let mut wait_for_others = false;
        for service in state.services().filter(|service| !service.removing) {
            let placement = &service.spec.placement;
            wait_for_others |= placement.services.iter().any(|rule| rule.required);
            wait_for_others |= placement.spread.iter().any(|rule| rule.max_skew > 0);
            let rules = service.spec.placement.services.iter();
            for rule in rules.filter(|rule| rule.required && rule.weight < 0) {
                // From itself it keeps away by its own rule.
                let Some(other) = resolve(state, &rule.service).filter(|id| *id != service.id)
                else {
                    continue;
                };
                repelling.entry(other).or_default().push(Repelling {
                    service: service.id,
                    name: service.spec.name.clone(),
                    over: rule.over.clone(),
                });
            }
        }
        Self {
            repelling,
            wait_for_others,
        }
    }

    /// Returns what the names in a service's placement mean.
    pub(super) fn peers(&self, state: &State, id: ServiceId, spec: &ServiceSpec) -> Peers {
        let rules = spec.placement.services.iter();
        let services = rules.map(|rule| {
            if rule.is_own() || rule.service == spec.name {
                Some(id)
            } else {
                resolve(state, &rule.service)
            }
        });
        Peers {
            services: services.collect(),
            repelling: self.repelling.get(&id).cloned().unwrap_or_default(),
        }
    }
}

/// Returns what the names in one service's placement mean.
///
/// # Complexity
/// One pass over the services; [`Affinities`] is for many.
pub(crate) fn peers(state: &State, service: &Service) -> Peers {
    Affinities::of(state).peers(state, service.id, &service.spec)
}

fn resolve(state: &State, name: &str) -> Option<ServiceId> {
    let service = state.service_named(name)?;
    (!service.removing).then_some(service.id)
}
