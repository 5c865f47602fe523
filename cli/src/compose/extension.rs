//! `x-ballast`: what Compose has no words for.

use ballast_model::{HealthCheck, PortSpec, ProbeKind, Protocol, RouteSpec, ServiceSpec, Target};

use super::field::{Field, Section};
use super::finding::Report;
use super::{balance, health, keys, rules, service};
use crate::args::{RouteArg, SpreadArg};

/// Reads it; what it says wins over what the rest of the service says.
pub(super) fn read(spec: &mut ServiceSpec, field: &Field<'_>, report: &mut Report) {
    let section = field.section(report, keys::EXTENSION);
    if let Some(ports) = section.get("ports") {
        for item in ports.items(report) {
            if let Some(port) = port(&item, report) {
                add_port(&mut spec.ports, port);
            }
        }
    }
    if let Some(field) = section.get("balance")
        && let Some(balance) = balance::read(field, report)
    {
        for port in &mut spec.ports {
            port.balance.get_or_insert_with(|| balance.clone());
        }
    }
    if let Some(routes) = section.get("routes") {
        for item in routes.items(report) {
            spec.routes.extend(route(&item, report));
        }
    }
    if let Some(drain) = section.get("drain").and_then(|f| f.parse(report)) {
        spec.task.stop.drain = drain;
    }
    if let Some(SpreadArg(over)) = section.get("spread").and_then(|f| f.parse(report)) {
        spec.placement.spread = over.into_iter().collect();
    }
    if let Some(field) = section.get("placement") {
        rules::placement(&mut spec.placement, field, report);
    }
    if let Some(field) = section.get("resources") {
        rules::resources(&mut spec.task.resources, field, report);
    }
    if let Some(most) = section
        .get("restart_max_delay")
        .and_then(|f| f.parse(report))
    {
        spec.task.restart.max_delay = most;
    }
    if let Some(field) = section.get("health")
        && let Some(check) = check(&spec.ports, field, report)
    {
        spec.task.health = Some(check);
    }
}

/// Adds a port, in place of one with the same name or the same published number.
fn add_port(ports: &mut Vec<PortSpec>, port: PortSpec) {
    let same = |known: &PortSpec| {
        known.name == port.name || known.published.is_some() && known.published == port.published
    };
    match ports.iter_mut().find(|known| same(known)) {
        Some(known) => *known = port,
        None => ports.push(port),
    }
}

fn port(field: &Field<'_>, report: &mut Report) -> Option<PortSpec> {
    if field.is_scalar() {
        return field.parse(report);
    }
    let section = field.section(report, keys::EXTENSION_PORT);
    let name = if let Some(name) = section.get("name") {
        name.text(report)?.to_owned()
    } else {
        field.error(report, "a port needs a `name`");
        return None;
    };
    let target = match section.get("target") {
        None => Target::Dynamic,
        Some(target) if target.text(report)? == "dynamic" => Target::Dynamic,
        Some(target) => Target::Fixed(target.number(report, 1, u16::MAX)?),
    };
    let published = match section.get("published") {
        Some(published) => Some(published.number(report, 1, u16::MAX)?),
        None => None,
    };
    let protocols = [
        ("http", Protocol::Http),
        ("tcp", Protocol::Tcp),
        ("udp", Protocol::Udp),
    ];
    let protocol = match section.get("protocol") {
        Some(protocol) => protocol.choice(report, &protocols)?,
        None if name.starts_with("http") => Protocol::Http,
        None => Protocol::Tcp,
    };
    let balance = section.get("balance");
    let balance = balance.and_then(|field| balance::read(field, report));
    Some(PortSpec {
        name,
        target,
        published,
        protocol,
        balance,
        upstream: None,
    })
}

fn route(field: &Field<'_>, report: &mut Report) -> Option<RouteSpec> {
    if field.is_scalar() {
        return field.parse::<RouteArg>(report).map(|route| route.0);
    }
    let section = field.section(report, keys::EXTENSION_ROUTE);
    let text = |key: &str, report: &mut Report| {
        let field = section.get(key)?;
        field.text(report).map(str::to_owned)
    };
    let prefix = text("path", report).unwrap_or_else(|| "/".to_owned());
    Some(RouteSpec {
        port: text("port", report),
        ..RouteSpec::new(text("host", report), prefix)
    })
}

fn check(ports: &[PortSpec], field: &Field<'_>, report: &mut Report) -> Option<HealthCheck> {
    let section = field.section(report, keys::EXTENSION_HEALTH);
    let mut check = HealthCheck::with_defaults(probe(ports, field, &section, report)?);
    health::tune(&mut check, &section, report);
    Some(check)
}

fn probe(
    ports: &[PortSpec],
    field: &Field<'_>,
    section: &Section<'_>,
    report: &mut Report,
) -> Option<ProbeKind> {
    let kinds = ["http", "tcp", "command"].map(|kind| section.get(kind));
    if kinds.iter().flatten().count() != 1 {
        field.error(
            report,
            "needs one of `http: PATH`, `tcp: PORT-NAME`, `command: [program…]`",
        );
        return None;
    }
    let [http, tcp, command] = kinds;
    if let Some(http) = http {
        let first = ports.iter().find(|port| port.protocol == Protocol::Http);
        let port = match (section.get("port"), first) {
            (Some(port), _) => port.text(report)?.to_owned(),
            (None, Some(first)) => first.name.clone(),
            (None, None) => {
                http.error(report, "the service has no HTTP port to ask");
                return None;
            }
        };
        return Some(ProbeKind::Http {
            port,
            path: http.text(report)?.to_owned(),
            status: status(section, report)?,
        });
    }
    if let Some(tcp) = tcp {
        let port = tcp.text(report)?.to_owned();
        return Some(ProbeKind::Tcp { port });
    }
    let words = command.map(|command| command.texts(report))?;
    let argv = words.iter().map(|word| service::for_agent(word)).collect();
    Some(ProbeKind::Command { argv })
}

fn status(section: &Section<'_>, report: &mut Report) -> Option<(u16, u16)> {
    let Some(field) = section.get("status") else {
        return Some((200, 399));
    };
    let bounds: Vec<u16> = field
        .items(report)
        .iter()
        .filter_map(|item| item.number(report, 100, 599))
        .collect();
    if let [lowest, highest] = bounds.as_slice() {
        Some((*lowest, *highest))
    } else {
        field.error(
            report,
            "is a list of the lowest and the highest status, such as [200, 399]",
        );
        None
    }
}
