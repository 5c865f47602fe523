//! Proves a spec: every field in its bounds, every reference to something that exists.

use std::collections::BTreeSet;

use super::{
    Constraint, Mode, Placement, PortSpec, ProbeKind, Protocol, ServiceSpec, Target, TaskTemplate,
    TopologyKey, contradiction,
};
use crate::{Millis, limits};

/// A field that cannot be accepted, and the nearest value that can.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}{}", nearest.as_ref().map(|n| format!("; nearest valid: {n}")).unwrap_or_default())]
pub struct InvalidSpec {
    /// Path of the field in the JSON body, such as `task.resources.memory`.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
    /// The nearest value that would be accepted, where there is one.
    pub nearest: Option<String>,
}

impl InvalidSpec {
    /// Names the field, what is wrong, and what would be right.
    pub fn new(field: impl Into<String>, reason: impl Into<String>, nearest: Option<&str>) -> Self {
        Self {
            field: field.into(),
            reason: reason.into(),
            nearest: nearest.map(ToOwned::to_owned),
        }
    }
}

/// Proves that a name is one DNS label.
///
/// # Errors
/// With the nearest valid name: lowercased, other characters as `-`, cut to length.
pub fn validate_name(field: &str, name: &str) -> Result<(), InvalidSpec> {
    let ok = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() {
        return Err(InvalidSpec::new(field, "must not be empty", None));
    }
    if name.len() <= limits::NAME_CHARS
        && name.chars().all(ok)
        && !name.starts_with('-')
        && !name.ends_with('-')
    {
        return Ok(());
    }
    let mapped: String = name
        .chars()
        .map(|c| c.to_ascii_lowercase())
        .map(|c| if ok(c) { c } else { '-' })
        .take(limits::NAME_CHARS)
        .collect();
    let nearest = mapped.trim_matches('-');
    let reason = if name.len() > limits::NAME_CHARS {
        format!(
            "has {} characters, at most {} are allowed",
            name.len(),
            limits::NAME_CHARS
        )
    } else {
        "may hold a-z, 0-9 and -, and neither begins nor ends with -".to_owned()
    };
    Err(InvalidSpec::new(
        field,
        reason,
        (!nearest.is_empty()).then_some(nearest),
    ))
}

/// Proves a whole spec; returns the first field that is wrong.
///
/// What depends on the rest of the cluster (a name or published port that is taken) is checked by
/// the manager.
///
/// # Errors
/// The field, the reason and the nearest valid value.
pub fn validate(spec: &ServiceSpec) -> Result<(), InvalidSpec> {
    validate_name("name", &spec.name)?;
    if let Some(stack) = &spec.stack {
        validate_name("stack", stack)?;
    }
    validate_mode(spec.mode)?;
    validate_labels("labels", &spec.labels)?;
    validate_task(&spec.task)?;
    validate_constraints(&spec.placement.constraints)?;
    validate_placement(&spec.placement)?;
    if spec.placement.gang && matches!(spec.mode, Mode::Global {}) {
        let reason = "a global service has one task on each node: there is no gang of them";
        return Err(InvalidSpec::new("placement.gang", reason, Some("false")));
    }
    validate_ports(spec)?;
    validate_routes(spec)?;
    validate_health(spec)?;
    validate_span("update.delay", spec.update.delay)
}

fn validate_placement(placement: &Placement) -> Result<(), InvalidSpec> {
    let most = limits::PLACEMENT_RULES;
    for (field, count, most) in [
        (
            "constraints",
            placement.constraints.len(),
            limits::CONSTRAINTS,
        ),
        ("affinities", placement.affinities.len(), most),
        ("services", placement.services.len(), most),
        ("spread", placement.spread.len(), most),
        ("tolerations", placement.tolerations.len(), most),
    ] {
        if count > most {
            return Err(too_many(&format!("placement.{field}"), most));
        }
    }
    let affinities = placement.affinities.iter().map(|a| a.weight).enumerate();
    let services = placement.services.iter().map(|s| s.weight).enumerate();
    let weights = affinities
        .map(|(place, weight)| (format!("placement.affinities[{place}].weight"), weight))
        .chain(
            services.map(|(place, weight)| (format!("placement.services[{place}].weight"), weight)),
        );
    for (field, weight) in weights {
        if weight == 0 || !(-100..=100).contains(&weight) {
            let nearest = if weight < 0 { "-100" } else { "100" };
            let reason = "a weight is -100 to 100, and not 0";
            return Err(InvalidSpec::new(field, reason, Some(nearest)));
        }
    }
    if usize::from(placement.sockets) > limits::SOCKETS_PER_NODE {
        let most = limits::SOCKETS_PER_NODE;
        let reason = format!("no node has more than {most} sockets");
        let most = most.to_string();
        return Err(InvalidSpec::new("placement.sockets", reason, Some(&most)));
    }
    validate_places(placement)
}

/// Proves what rules are about: labels that can be, and no service both near and apart.
fn validate_places(placement: &Placement) -> Result<(), InvalidSpec> {
    let spread = placement.spread.iter().map(|rule| &rule.over).enumerate();
    let spread = spread.map(|(place, over)| (format!("placement.spread[{place}].over"), over));
    let near = placement.services.iter().map(|rule| &rule.over).enumerate();
    let near = near.map(|(place, over)| (format!("placement.services[{place}].over"), over));
    for (field, over) in spread.chain(near) {
        let TopologyKey::Label(key) = over else {
            continue;
        };
        if key.is_empty() || key.len() > limits::LABEL_BYTES {
            let reason = format!("a label's key has 1 to {} bytes", limits::LABEL_BYTES);
            return Err(InvalidSpec::new(field, reason, Some("node")));
        }
    }
    for (place, rule) in placement.services.iter().enumerate() {
        let before = placement.services[..place].iter();
        let mut alike = before.filter(|other| {
            let same = other.service == rule.service || other.is_own() && rule.is_own();
            same && other.over == rule.over && other.required && rule.required
        });
        if alike.any(|other| (other.weight > 0) != (rule.weight > 0)) {
            let reason = "the same service is required to be near and to be apart";
            let field = format!("placement.services[{place}]");
            return Err(InvalidSpec::new(field, reason, None));
        }
    }
    Ok(())
}

pub(super) fn too_many(field: &str, most: usize) -> InvalidSpec {
    InvalidSpec::new(
        field,
        format!("at most {most} are allowed"),
        Some(&most.to_string()),
    )
}

fn validate_mode(mode: Mode) -> Result<(), InvalidSpec> {
    let most = limits::REPLICAS_PER_SERVICE;
    let bounded = |field: &str, count: u32, least: u32| {
        if count < least {
            return Err(InvalidSpec::new(
                field,
                format!("must be at least {least}"),
                Some("1"),
            ));
        }
        if count > most {
            let reason = format!("{count} is more than the limit of {most}");
            return Err(InvalidSpec::new(field, reason, Some(&most.to_string())));
        }
        Ok(())
    };
    match mode {
        Mode::Replicated { replicas } => bounded("mode.replicated.replicas", replicas, 0),
        Mode::Global {} => Ok(()),
        Mode::Job {
            completions,
            parallelism,
        } => {
            bounded("mode.job.completions", completions, 1)?;
            bounded("mode.job.parallelism", parallelism, 1)
        }
    }
}

fn validate_labels(
    field: &str,
    labels: &std::collections::BTreeMap<String, String>,
) -> Result<(), InvalidSpec> {
    if labels.len() > limits::LABELS {
        return Err(too_many(field, limits::LABELS));
    }
    for (key, value) in labels {
        if key.is_empty() || key.len() > limits::LABEL_BYTES || value.len() > limits::LABEL_BYTES {
            let shown: String = key.chars().take(32).collect();
            let reason = format!(
                "keys have 1 to {0} bytes, values up to {0}",
                limits::LABEL_BYTES
            );
            return Err(InvalidSpec::new(format!("{field}.{shown}"), reason, None));
        }
    }
    Ok(())
}

fn validate_span(field: &str, span: Millis) -> Result<(), InvalidSpec> {
    if span > limits::LONGEST_SPAN {
        let most = limits::LONGEST_SPAN.to_string();
        return Err(InvalidSpec::new(
            field,
            format!("{span} is longer than {most}"),
            Some(&most),
        ));
    }
    Ok(())
}

fn validate_task(task: &TaskTemplate) -> Result<(), InvalidSpec> {
    if task.command.first().is_none_or(String::is_empty) {
        let reason = "names no program; give the command after `--`";
        return Err(InvalidSpec::new("task.command", reason, None));
    }
    if task.command.len() > limits::COMMAND_ARGS {
        return Err(too_many("task.command", limits::COMMAND_ARGS));
    }
    let bytes =
        |texts: &mut dyn Iterator<Item = &String>| texts.map(|t| t.len() + 1).sum::<usize>();
    for (field, size) in [
        ("task.command", bytes(&mut task.command.iter())),
        (
            "task.env",
            bytes(&mut task.env.iter().flat_map(|(key, value)| [key, value])),
        ),
    ] {
        if size > limits::COMMAND_BYTES {
            let reason = format!(
                "has {size} bytes, at most {} are allowed",
                limits::COMMAND_BYTES
            );
            return Err(InvalidSpec::new(field, reason, None));
        }
    }
    if task.command.iter().any(|arg| arg.contains('\0')) {
        return Err(InvalidSpec::new("task.command", "holds a NUL byte", None));
    }
    if task.env.len() > limits::ENV_VARS {
        return Err(too_many("task.env", limits::ENV_VARS));
    }
    for (key, value) in &task.env {
        if key.is_empty() || key.contains(['=', '\0']) || value.contains('\0') {
            let shown: String = key.chars().take(32).collect();
            let reason = "a name is not empty and has no `=`; neither has a NUL byte";
            return Err(InvalidSpec::new(format!("task.env.{shown}"), reason, None));
        }
    }
    super::reservation::validate(&task.resources)?;
    validate_span("task.restart.delay", task.restart.delay)?;
    validate_span("task.restart.max_delay", task.restart.max_delay)?;
    validate_span("task.restart.window", task.restart.window)?;
    validate_span("task.stop.drain", task.stop.drain)?;
    validate_span("task.stop.grace", task.stop.grace)
}

fn validate_constraints(constraints: &[Constraint]) -> Result<(), InvalidSpec> {
    if constraints.len() > limits::CONSTRAINTS {
        return Err(too_many("placement.constraints", limits::CONSTRAINTS));
    }
    let Some(clash) = contradiction(constraints) else {
        return Ok(());
    };
    let last = clash.places.last().copied().unwrap_or_default();
    let field = format!("placement.constraints[{last}]");
    Err(InvalidSpec::new(field, clash.to_string(), None))
}

fn validate_ports(spec: &ServiceSpec) -> Result<(), InvalidSpec> {
    if spec.ports.len() > limits::PORTS_PER_SERVICE {
        return Err(too_many("ports", limits::PORTS_PER_SERVICE));
    }
    let mut names = BTreeSet::new();
    let mut published = BTreeSet::new();
    for (place, port) in spec.ports.iter().enumerate() {
        validate_name(&format!("ports[{place}].name"), &port.name)?;
        if !names.insert(&port.name) {
            let reason = format!("`{}` is used twice in this service", port.name);
            return Err(InvalidSpec::new(
                format!("ports[{place}].name"),
                reason,
                None,
            ));
        }
        if port.target == Target::Fixed(0) || port.published == Some(0) {
            let reason = "a port is 1 to 65535";
            return Err(InvalidSpec::new(
                format!("ports[{place}]"),
                reason,
                Some("1"),
            ));
        }
        if let Some(balance) = &port.balance {
            balance.validate(&format!("ports[{place}].balance"))?;
        }
        if let Some(upstream) = &port.upstream {
            upstream.validate(&format!("ports[{place}].upstream"))?;
        }
        let udp = port.protocol == Protocol::Udp;
        if let Some(number) = port.published
            && !published.insert((udp, number))
        {
            let reason = format!("{number} is published twice by this service");
            return Err(InvalidSpec::new(
                format!("ports[{place}].published"),
                reason,
                None,
            ));
        }
    }
    Ok(())
}

fn find_port<'a>(
    spec: &'a ServiceSpec,
    field: &str,
    name: &str,
) -> Result<&'a PortSpec, InvalidSpec> {
    spec.ports
        .iter()
        .find(|port| port.name == name)
        .ok_or_else(|| {
            let nearest = crate::nearest(name, spec.ports.iter().map(|port| port.name.as_str()));
            InvalidSpec::new(field, format!("the service has no port `{name}`"), nearest)
        })
}

fn validate_routes(spec: &ServiceSpec) -> Result<(), InvalidSpec> {
    if spec.routes.len() > limits::ROUTES_PER_SERVICE {
        return Err(too_many("routes", limits::ROUTES_PER_SERVICE));
    }
    for (place, route) in spec.routes.iter().enumerate() {
        let field = |name: &str| format!("routes[{place}].{name}");
        let place_name = format!("routes[{place}]");
        super::validate_route(&place_name, &route.path_prefix, &route.when, &route.then)?;
        if let Some(host) = &route.host {
            let rest = host.strip_prefix("*.").unwrap_or(host);
            let label = |label: &str| {
                !label.is_empty()
                    && label
                        .chars()
                        .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
            };
            if host.len() > 253 || !rest.split('.').all(label) {
                let reason = "is a host name, without a port, or `*.` and a host name";
                return Err(InvalidSpec::new(field("host"), reason, None));
            }
        }
        match &route.port {
            Some(name) if find_port(spec, &field("port"), name)?.protocol != Protocol::Http => {
                let reason = format!("port `{name}` does not speak HTTP");
                return Err(InvalidSpec::new(field("port"), reason, None));
            }
            None if !spec
                .ports
                .iter()
                .any(|port| port.protocol == Protocol::Http) =>
            {
                let reason = "a route needs an HTTP port; the service has none";
                return Err(InvalidSpec::new(field("port"), reason, None));
            }
            _ => {}
        }
    }
    Ok(())
}

fn validate_health(spec: &ServiceSpec) -> Result<(), InvalidSpec> {
    let Some(health) = &spec.task.health else {
        return Ok(());
    };
    for (field, span) in [("interval", health.interval), ("timeout", health.timeout)] {
        let field = format!("task.health.{field}");
        if span.0 == 0 {
            return Err(InvalidSpec::new(field, "must be at least 1ms", Some("1ms")));
        }
        validate_span(&field, span)?;
    }
    validate_span("task.health.start_period", health.start_period)?;
    for (field, count) in [
        ("failure_threshold", health.failure_threshold),
        ("success_threshold", health.success_threshold),
    ] {
        if count == 0 {
            let field = format!("task.health.{field}");
            return Err(InvalidSpec::new(field, "must be at least 1", Some("1")));
        }
    }
    match &health.probe {
        ProbeKind::Http { port, path, status } => {
            find_port(spec, "task.health.probe.http.port", port)?;
            if !path.starts_with('/') {
                let field = "task.health.probe.http.path";
                let nearest = format!("/{path}");
                return Err(InvalidSpec::new(
                    field,
                    "a path begins with /",
                    Some(&nearest),
                ));
            }
            if status.0 > status.1 || status.0 < 100 || status.1 > 599 {
                let field = "task.health.probe.http.status";
                let reason = "is a range of statuses between 100 and 599";
                return Err(InvalidSpec::new(field, reason, Some("[200, 399]")));
            }
        }
        ProbeKind::Tcp { port } => {
            find_port(spec, "task.health.probe.tcp.port", port)?;
        }
        ProbeKind::Command { argv } => {
            if argv.first().is_none_or(String::is_empty) {
                let field = "task.health.probe.command.argv";
                return Err(InvalidSpec::new(field, "names no program", None));
            }
        }
    }
    Ok(())
}
