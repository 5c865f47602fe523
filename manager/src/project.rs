//! What agents and ingresses are sent: projections of the state, each with the state's version at
//! which it last changed.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use ballast_model::{
    AssignmentId, Endpoint, Generation, Health, NodeId, PortTable, Protocol, RouteRule, RouteSpec,
    ServiceId, ServiceSpec, ServiceTable, Weight, ZONE_LABEL,
};
use ballast_wire::agent::{
    AssignedTemplate, Assignment, AssignmentChanges, AssignmentSet, IngressAddress,
};

use crate::state::{PublishedPort, Service, State, TaskEntry};

/// Returns all that a node shall run; empty for a node that is not known.
pub fn assignment_set(state: &State, node: NodeId) -> AssignmentSet {
    let Some(entry) = state.node(node) else {
        return AssignmentSet {
            generation: state.version(),
            ..AssignmentSet::default()
        };
    };
    let mut templates = BTreeSet::new();
    let of_node = entry.assignments.iter();
    let assignments = of_node
        .filter_map(|id| assignment(state, node, *id, &mut templates))
        .collect();
    AssignmentSet {
        generation: entry.version,
        templates: all_templates(state, templates),
        assignments,
    }
}

/// Returns what makes of a node's set of the generation `base` the one of now, if nothing but these
/// bindings is different.
pub fn assignment_changes(
    state: &State,
    node: NodeId,
    base: Generation,
    bindings: &BTreeSet<AssignmentId>,
) -> AssignmentChanges {
    let mut templates = BTreeSet::new();
    let mut assignments = Vec::with_capacity(bindings.len());
    let mut removed = Vec::new();
    for id in bindings {
        match assignment(state, node, *id, &mut templates) {
            Some(assignment) => assignments.push(assignment),
            None => removed.push(*id),
        }
    }
    let version = state.node(node).map(|entry| entry.version);
    AssignmentChanges {
        base,
        generation: version.unwrap_or(state.version()),
        templates: all_templates(state, templates),
        assignments,
        removed,
    }
}

/// Returns a binding as its agent is told of it; none if it is not, or no longer, on that node.
fn assignment(
    state: &State,
    node: NodeId,
    id: AssignmentId,
    templates: &mut BTreeSet<(ServiceId, Generation)>,
) -> Option<Assignment> {
    let task = &state.task(state.assignment(id)?.task)?.task;
    let binding = task
        .binding
        .as_ref()
        .filter(|binding| binding.node == node)?;
    templates.insert((task.service, task.generation));
    Some(Assignment {
        assignment: id,
        task: task.id,
        restarts: binding.restarts,
        service: task.service,
        generation: task.generation,
        slot: task.slot,
        ports: binding.ports.clone(),
        claim: binding.claim.clone(),
        desired: task.desired,
    })
}

fn all_templates(state: &State, named: BTreeSet<(ServiceId, Generation)>) -> Vec<AssignedTemplate> {
    let found = named
        .into_iter()
        .filter_map(|(service, generation)| template(state, service, generation));
    found.collect()
}

fn template(state: &State, service: ServiceId, generation: Generation) -> Option<AssignedTemplate> {
    let template = state.template(service, generation)?;
    Some(AssignedTemplate {
        service,
        name: template.name.clone(),
        generation,
        task: template.task.clone(),
        ports: template.ports.clone(),
        job: template.job,
    })
}

/// Returns what an ingress needs to route to a service; none if it has neither a published port
/// nor a route, or is gone: an ingress is to forget it then.
///
/// While a service is being removed its table stays, so that its last requests drain, but a port
/// or route that another service has taken since is left out.
pub fn service_table(state: &State, service: ServiceId) -> Option<ServiceTable> {
    let service = state.service(service)?;
    let ports: Vec<PortTable> = service
        .spec
        .ports
        .iter()
        .filter_map(|port| {
            let published = PublishedPort::of(port)
                .filter(|port| {
                    state
                        .publisher(*port)
                        .is_none_or(|owner| owner == service.id)
                })
                .map(|port| port.number);
            let routes = routes_to(state, service, &port.name);
            if published.is_none() && routes.is_empty() {
                return None;
            }
            Some(PortTable {
                name: port.name.clone(),
                protocol: port.protocol,
                published,
                routes,
                endpoints: endpoints(state, service.id, &port.name),
                balance: port.balance.clone(),
                upstream: port.upstream.clone(),
            })
        })
        .collect();
    (!ports.is_empty()).then(|| ServiceTable {
        service: service.id,
        name: service.spec.name.clone(),
        generation: service.table,
        ports,
    })
}

/// Returns the tables of every service that has one.
pub fn service_tables(state: &State) -> Vec<ServiceTable> {
    state
        .services()
        .filter_map(|service| service_table(state, service.id))
        .collect()
}

/// Returns where agents push health to.
pub fn ingress_addresses(state: &State) -> Vec<IngressAddress> {
    state
        .ingresses()
        .map(|ingress| IngressAddress {
            ingress: ingress.id,
            address: ingress.feed,
        })
        .collect()
}

fn routes_to(state: &State, service: &Service, port: &str) -> Vec<RouteRule> {
    service
        .spec
        .routes
        .iter()
        .filter(|route| route_port(&service.spec, route) == Some(port))
        .filter(|route| {
            let owner = state.route_owner(&crate::state::RouteKey::of(route));
            owner.is_none_or(|owner| owner == service.id)
        })
        .map(|route| RouteRule {
            host: route.host.clone(),
            path_prefix: route.path_prefix.clone(),
            when: route.when.clone(),
            then: route.then.clone(),
        })
        .collect()
}

/// Returns the port that a route leads to: the one it names, else the first HTTP port.
fn route_port<'a>(spec: &'a ServiceSpec, route: &'a RouteSpec) -> Option<&'a str> {
    let http = || {
        spec.ports
            .iter()
            .find(|port| port.protocol == Protocol::Http)
    };
    match &route.port {
        Some(name) => Some(name),
        None => http().map(|port| port.name.as_str()),
    }
}

fn endpoints(state: &State, service: ServiceId, port: &str) -> Vec<Endpoint> {
    state
        .tasks_of(service)
        .filter(|entry| state.occupies(entry))
        .filter_map(|entry| endpoint(state, entry, port))
        .collect()
}

fn endpoint(state: &State, entry: &TaskEntry, port: &str) -> Option<Endpoint> {
    let binding = entry.task.binding.as_ref()?;
    let node = state.node(binding.node)?;
    let number = binding.ports.iter().find(|bound| bound.name == port)?.port;
    // What has ended answers nobody, whatever was last heard of it.
    let health = if entry.task.observed.state.is_terminal() {
        Health::Unhealthy
    } else {
        entry.task.observed.health
    };
    Some(Endpoint {
        assignment: binding.assignment,
        node: binding.node,
        address: SocketAddr::new(node.node.description.address, number),
        health,
        weight: Weight::DEFAULT,
        zone: node.node.label(ZONE_LABEL).map(str::to_owned),
    })
}
