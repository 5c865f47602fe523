//! `ports`, short and long.

use ballast_model::{PortSpec, Protocol, Target, limits};

use super::field::Field;
use super::finding::Report;
use super::keys;

/// Reads the list.
pub(super) fn read(field: &Field<'_>, report: &mut Report) -> Vec<PortSpec> {
    let mut ports: Vec<PortSpec> = Vec::new();
    for item in field.items(report) {
        let read = if item.is_scalar() {
            short(&item, report)
        } else {
            long(&item, report).into_iter().collect()
        };
        for port in read {
            let taken = ports.iter().any(|known| known.name == port.name);
            let mut port = port;
            if taken {
                // `53:53/tcp` and `53:53/udp` are usual beside each other.
                port.name = format!("{}-{}", port.name, port.protocol);
            }
            ports.push(port);
        }
    }
    ports
}

/// `PUBLISHED:NAME`, `PUBLISHED:TARGET`, `TARGET`, with `/PROTOCOL`; numbers may be ranges.
fn short(field: &Field<'_>, report: &mut Report) -> Vec<PortSpec> {
    let Some(text) = field.text(report) else {
        return Vec::new();
    };
    if let Ok(port) = text.parse::<PortSpec>() {
        return vec![port];
    }
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "http" => Protocol::Http,
        _ => return wrong(field, text, report),
    };
    let parts: Vec<&str> = ports.rsplitn(3, ':').collect();
    let (published, target) = match parts.as_slice() {
        [target] => (None, *target),
        [target, published] => (Some(*published), *target),
        _ => {
            field.error(
                report,
                "an address before the ports is not supported: the ingress's --bind says on which address ports are published",
            );
            return Vec::new();
        }
    };
    let Some(targets) = range(target) else {
        return wrong(field, text, report);
    };
    let Some(published) = published else {
        let message = "is not published: say on which port, such as `8080:80`";
        field.warn(report, message);
        return targets
            .map(|target| fixed(target, None, protocol))
            .collect();
    };
    match range(published) {
        Some(published) if published.len() == targets.len() => published
            .zip(targets)
            .map(|(published, target)| fixed(target, Some(published), protocol))
            .collect(),
        _ => wrong(field, text, report),
    }
}

fn fixed(target: u16, published: Option<u16>, protocol: Protocol) -> PortSpec {
    PortSpec {
        name: format!("p{target}"),
        target: Target::Fixed(target),
        published,
        protocol,
        balance: None,
        upstream: None,
    }
}

fn range(text: &str) -> Option<std::ops::RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
    let count = usize::from(last.checked_sub(first)?) + 1;
    (first > 0 && count <= limits::PORTS_PER_SERVICE).then_some(first..=last)
}

fn wrong(field: &Field<'_>, text: &str, report: &mut Report) -> Vec<PortSpec> {
    let shown: String = text.chars().take(64).collect();
    field.error(
        report,
        format!("`{shown}` is not a port; write PUBLISHED:NAME or PUBLISHED:TARGET, such as `8080:http`, `8080:80` or `53:53/udp`"),
    );
    Vec::new()
}

fn long(field: &Field<'_>, report: &mut Report) -> Option<PortSpec> {
    let section = field.section(report, keys::PORT);
    if let Some(mode) = section.get("mode")
        && mode.text(report)? != "ingress"
    {
        mode.error(
            report,
            "only `ingress` is supported: every ingress listens on the port",
        );
        return None;
    }
    let Some(target) = section.get("target") else {
        field.error(
            report,
            "has no `target`; give the task's port, or a name to get one in $PORT",
        );
        return None;
    };
    let target_text = target.text(report)?;
    let (target, mut name) = match target_text.parse::<u16>() {
        Ok(_) => {
            let number = target.number(report, 1, u16::MAX)?;
            (Target::Fixed(number), format!("p{number}"))
        }
        Err(_) => (Target::Dynamic, target_text.to_owned()),
    };
    if let Some(given) = section.get("name") {
        given.text(report)?.clone_into(&mut name);
    }
    let published = match section.get("published") {
        Some(field) => Some(field.number(report, 1, u16::MAX)?),
        None => None,
    };
    let transport = match section.get("protocol") {
        Some(field) => field.choice(
            report,
            &[
                ("tcp", Protocol::Tcp),
                ("udp", Protocol::Udp),
                ("http", Protocol::Http),
            ],
        )?,
        None if name.starts_with("http") => Protocol::Http,
        None => Protocol::Tcp,
    };
    let app = section
        .get("app_protocol")
        .and_then(|field| field.text(report));
    let over_http = app.is_some_and(|app| app.starts_with("http") || app == "grpc");
    let protocol = match transport {
        Protocol::Tcp if over_http => Protocol::Http,
        other => other,
    };
    Some(PortSpec {
        name,
        target,
        published,
        protocol,
        balance: None,
        upstream: None,
    })
}
