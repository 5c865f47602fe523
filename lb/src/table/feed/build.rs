//! Tables out of what the manager said last: what did not change is taken over as it is.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use ballast_model::{AssignmentId, Endpoint, PortTable, Protocol, ServiceId, ServiceTable};

use super::{Effects, Feed, fails_open, set_gates};
use crate::policy::{PoolState, Settings};
use crate::route::Routing;
use crate::table::{Backend, Gate, Member, Pool, PoolKey, RouteTable};

/// Services that changed, came or went, each as it was before.
pub(super) type Before = BTreeMap<ServiceId, Option<ServiceTable>>;

impl Feed {
    /// Makes a table of what the manager said last.
    ///
    /// # Complexity
    /// Linear in the changed services' endpoints, and in the number of services; in that of routes
    /// only if ports or routes changed.
    pub(super) fn rebuild(&mut self, before: &Before) -> Effects {
        let mut effects = Effects::default();
        let old = Arc::clone(&self.table);
        let mut rest = old.pools.as_slice();
        let mut pools = Vec::with_capacity(old.pools.len() + before.len());
        for (&service, table) in &self.services {
            // Both are in order of their services.
            rest = &rest[rest.partition_point(|pool| pool.key.service < service)..];
            let (own, later) =
                rest.split_at(rest.partition_point(|pool| pool.key.service == service));
            rest = later;
            if before.contains_key(&service) {
                self.build(table, own, &mut pools, &mut effects);
            } else {
                pools.extend_from_slice(own);
            }
        }
        self.rehome(before);
        self.release(before, &pools);
        let same_shape = before.iter().all(|(service, before)| {
            let (Some(before), Some(after)) = (before, self.services.get(service)) else {
                return false;
            };
            has_same_shape(before, after)
        });
        let routing = if same_shape {
            Arc::clone(&old.routing)
        } else {
            let routing = self.routing(&pools);
            effects.routing_changed = *old.routing != routing;
            Arc::new(routing)
        };
        self.table = Arc::new(RouteTable {
            generation: self.generation,
            pools,
            routing,
        });
        effects.table = Some(Arc::clone(&self.table));
        effects
    }

    /// Makes the pools of one service; `own` are those that it has in the table before.
    fn build(
        &self,
        table: &ServiceTable,
        own: &[Arc<Pool>],
        pools: &mut Vec<Arc<Pool>>,
        effects: &mut Effects,
    ) {
        let name: Arc<str> = table.name.as_str().into();
        let stats = own.first().map(|pool| Arc::clone(&pool.stats));
        let stats = stats.unwrap_or_default();
        for port in &table.ports {
            let before = own.iter().find(|pool| *pool.key.port == *port.name);
            let key = PoolKey {
                service: table.service,
                port: port.name.as_str().into(),
            };
            let settings = port.balance.as_ref().map(Settings::from);
            let settings = settings.unwrap_or_default();
            let state = if let Some(before) = before {
                before.state().set(&settings);
                Arc::clone(before.state())
            } else {
                PoolState::watched(key.clone(), Arc::clone(&self.busy), settings)
            };
            let mut live = LiveBackends::of(before);
            let states = self.states(&port.endpoints, fails_open(port));
            let members = port.endpoints.iter().zip(states);
            let members = members.map(|(end, known)| {
                let backend = live.take(&state, end);
                let near = end.zone.is_some() && end.zone == self.zone;
                backend.place(end.weight, near);
                Member {
                    backend,
                    state: known,
                }
            });
            let members = members.collect();
            let pool = Pool::of(state, key, Arc::clone(&name), port.protocol, members)
                .counting(Arc::clone(&stats))
                .reached(Arc::new(port.upstream.clone().unwrap_or_default()));
            set_gates(&pool, &[], effects);
            pools.push(Arc::new(pool));
        }
    }

    /// Keeps where each assignment is found.
    fn rehome(&mut self, before: &Before) {
        let ends = |table: &ServiceTable| -> Vec<AssignmentId> {
            let ports = table.ports.iter().flat_map(|port| &port.endpoints);
            ports.map(|end| end.assignment).collect()
        };
        for (&service, before) in before {
            for assignment in before.as_ref().map(ends).unwrap_or_default() {
                self.homes.remove(&(assignment, service));
            }
            let after = self.services.get(&service).map(ends);
            for assignment in after.unwrap_or_default() {
                self.homes.insert((assignment, service));
            }
        }
    }

    /// Lets endpoints drain that the changed services no longer have.
    fn release(&mut self, before: &Before, pools: &[Arc<Pool>]) {
        let old = Arc::clone(&self.table);
        for &service in before.keys() {
            let kept: Vec<&Arc<Backend>> = of_service(pools, service)
                .iter()
                .flat_map(|pool| &pool.members)
                .map(|member| &member.backend)
                .collect();
            let kept: std::collections::HashSet<*const Backend> =
                kept.into_iter().map(Arc::as_ptr).collect();
            let had = of_service(&old.pools, service).iter();
            for Member { backend, .. } in had.flat_map(|pool| &pool.members) {
                if !kept.contains(&Arc::as_ptr(backend)) {
                    backend.set_gate(Gate::Draining);
                    let leaving = self.leaving.entry(backend.assignment).or_default();
                    leaving.push(Arc::clone(backend));
                }
            }
        }
    }

    /// Returns where published ports and routes lead.
    fn routing(&self, pools: &[Arc<Pool>]) -> Routing {
        let mut routing = Routing::default();
        let before = &self.table.routing;
        let ports = self.services.values();
        let ports = ports.flat_map(|table| table.ports.iter().map(move |port| (table, port)));
        for (place, (table, port)) in ports.enumerate() {
            route(&mut routing, before, table, port, place);
        }
        link(&mut routing, pools);
        routing
    }
}

/// Returns the pools of one service.
pub(super) fn of_service(pools: &[Arc<Pool>], service: ServiceId) -> &[Arc<Pool>] {
    let from = pools.partition_point(|pool| pool.key.service < service);
    let own = &pools[from..];
    &own[..own.partition_point(|pool| pool.key.service == service)]
}

/// Whether two tables of a service are reached in the same way.
fn has_same_shape(a: &ServiceTable, b: &ServiceTable) -> bool {
    let same = |(a, b): (&PortTable, &PortTable)| {
        (&a.name, a.protocol, a.published, &a.routes)
            == (&b.name, b.protocol, b.published, &b.routes)
    };
    a.name == b.name && a.ports.len() == b.ports.len() && a.ports.iter().zip(&b.ports).all(same)
}

/// Finds the services that routes name.
fn link(routing: &mut Routing, pools: &[Arc<Pool>]) {
    let mut services: HashMap<&str, usize> = HashMap::new();
    for (place, pool) in pools.iter().enumerate() {
        if pool.protocol == Protocol::Http {
            services.entry(&pool.service_name).or_insert(place);
        }
    }
    for service in routing.link(&services) {
        tracing::warn!(service, "a route names a service that is not there");
    }
}

fn route(
    routing: &mut Routing,
    before: &Routing,
    table: &ServiceTable,
    port: &PortTable,
    place: usize,
) {
    if let Some(published) = port.published
        && !routing.publish(published, port.protocol, place)
    {
        tracing::warn!(service = %table.name, port = published, "port is published twice");
    }
    for rule in &port.routes {
        if !routing.add(rule, place, before) {
            tracing::warn!(
                service = %table.name,
                host = rule.host.as_deref().unwrap_or("*"),
                path_prefix = %rule.path_prefix,
                "route exists twice"
            );
        }
    }
}

/// The live states of a pool, to be taken over into the next one.
struct LiveBackends(HashMap<(AssignmentId, SocketAddr), Arc<Backend>>);

impl LiveBackends {
    fn of(pool: Option<&Arc<Pool>>) -> Self {
        let members = pool.into_iter().flat_map(|pool| &pool.members);
        let live = members.map(|Member { backend, .. }| {
            let name = (backend.assignment, backend.address);
            (name, Arc::clone(backend))
        });
        Self(live.collect())
    }

    fn take(&mut self, state: &Arc<PoolState>, end: &Endpoint) -> Arc<Backend> {
        let known = self.0.remove(&(end.assignment, end.address));
        known
            .filter(|backend| backend.node == end.node)
            .unwrap_or_else(|| {
                let state = Arc::clone(state);
                let backend = Backend::of_pool(state, end.assignment, end.node, end.address);
                Arc::new(backend)
            })
    }
}

#[cfg(test)]
#[path = "build_tests.rs"]
mod tests;
