//! One service of the file → its spec.

use std::collections::BTreeMap;

use ballast_model::{
    InvalidSpec, Mode, Placement, ServiceSpec, TaskTemplate, Ulimit, UpdatePolicy, validate_name,
};

use super::field::{Field, Section};
use super::finding::Report;
use super::{Source, deploy, env, extension, health, keys, ports, service_name, words};

/// Reads one service; none if it has no program to run.
pub(super) fn read(
    source: &Source<'_>,
    stack: &str,
    name: &str,
    field: &Field<'_>,
    report: &mut Report,
) -> Option<ServiceSpec> {
    let errors_before = report.errors();
    let section = field.section(report, keys::SERVICE);
    let mut spec = ServiceSpec {
        name: service_name(stack, &label(name, field, report)),
        stack: Some(stack.to_owned()),
        labels: BTreeMap::new(),
        mode: Mode::default(),
        task: TaskTemplate::default(),
        placement: Placement::default(),
        ports: Vec::new(),
        routes: Vec::new(),
        update: UpdatePolicy::default(),
    };
    spec.task.command = command(field, &section, report)?;
    spec.task.env = env::read(source, &section, report);
    task(&mut spec.task, &section, report);
    labels(&mut spec, &section, report);
    deploy::read(&mut spec, &section, report);
    if let Some(ports) = section.get("ports") {
        spec.ports = ports::read(ports, report);
    }
    if let Some(check) = section.get("healthcheck") {
        spec.task.health = health::read(check, report);
    }
    if let Some(extension) = section.get("x-ballast") {
        extension::read(&mut spec, extension, report);
    }
    // A field that was refused already would be reported again, by its consequence.
    if report.errors() > errors_before {
        return Some(spec);
    }
    if let Err(invalid) = ballast_model::validate(&spec) {
        report_invalid(&invalid, field, &section, report);
    }
    Some(spec)
}

/// Returns a service's name as a DNS label: names with `_` and `.` are usual in Compose.
fn label(name: &str, field: &Field<'_>, report: &mut Report) -> String {
    let Err(invalid) = validate_name("name", name) else {
        return name.to_owned();
    };
    let simple = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    match invalid.nearest {
        Some(nearest) if name.chars().all(simple) && nearest.len() == name.len() => {
            field.warn(
                report,
                format!("is named `{nearest}`: names are DNS labels"),
            );
            nearest
        }
        _ => {
            field.error(
                report,
                format!("cannot be a service's name: {}", invalid.reason),
            );
            name.to_owned()
        }
    }
}

fn command(service: &Field<'_>, section: &Section<'_>, report: &mut Report) -> Option<Vec<String>> {
    let mut argv = Vec::new();
    for key in ["entrypoint", "command"] {
        let Some(field) = section.get(key) else {
            continue;
        };
        if field.is_scalar() {
            match words::split(field.text(report)?) {
                Ok(words) => argv.extend(words),
                Err(error) => field.error(report, error),
            }
        } else {
            argv.extend(field.texts(report));
        }
    }
    let container = section.get("image").or_else(|| section.get("build"));
    for word in &mut argv {
        *word = for_agent(word);
    }
    match (argv.is_empty(), container) {
        (false, None) => {}
        (false, Some(container)) => container.warn(
            report,
            "is not honoured: the command runs on the node itself, with the node's files",
        ),
        (true, Some(container)) => {
            container.error(
                report,
                "cannot be run: there is no docker driver yet; give the program as `command`",
            );
            return None;
        }
        (true, None) => {
            service.error(report, "has no program to run; give it as `command`");
            return None;
        }
    }
    Some(argv)
}

/// Returns a word such that the program gets it as it is: the agent makes `$$` a dollar sign once
/// more, after Compose has.
pub(super) fn for_agent(word: &str) -> String {
    word.replace("$$", "$$$$")
}

fn task(task: &mut TaskTemplate, section: &Section<'_>, report: &mut Report) {
    let text = |key: &str, report: &mut Report| {
        let field = section.get(key)?;
        field.text(report).map(str::to_owned)
    };
    task.working_dir = text("working_dir", report);
    task.user = text("user", report);
    if let Some(signal) = section.get("stop_signal").and_then(|f| f.text(report)) {
        let upper = signal.to_ascii_uppercase();
        let named = upper.starts_with("SIG") || upper.parse::<u8>().is_ok();
        task.stop.signal = if named { upper } else { format!("SIG{upper}") };
    }
    if let Some(grace) = section.get("stop_grace_period") {
        task.stop.grace = grace.parse(report).unwrap_or(task.stop.grace);
    }
    if let Some(ulimits) = section.get("ulimits") {
        for (name, field) in ulimits.entries(report) {
            if let Some(limit) = ulimit(&field, report) {
                task.ulimits.insert(name.to_owned(), limit);
            }
        }
    }
}

fn ulimit(field: &Field<'_>, report: &mut Report) -> Option<Ulimit> {
    let value = |field: &Field<'_>, report: &mut Report| match field.text(report)? {
        "-1" | "unlimited" => Some(u64::MAX),
        _ => field.number(report, 0, u64::MAX),
    };
    if field.is_scalar() {
        let both = value(field, report)?;
        return Some(Ulimit {
            soft: both,
            hard: both,
        });
    }
    let section = field.section(report, keys::ULIMIT);
    let (Some(soft), Some(hard)) = (section.get("soft"), section.get("hard")) else {
        field.error(report, "needs a number, or `soft` and `hard`");
        return None;
    };
    let limit = Ulimit {
        soft: value(soft, report)?,
        hard: value(hard, report)?,
    };
    if limit.soft > limit.hard {
        soft.error(
            report,
            format!("{} is more than `hard`, {}", limit.soft, limit.hard),
        );
        return None;
    }
    Some(limit)
}

/// Labels of the container and of the service are one thing here; the service's win.
fn labels(spec: &mut ServiceSpec, section: &Section<'_>, report: &mut Report) {
    let Some(labels) = section.get("labels") else {
        return;
    };
    for (key, value) in labels.pairs(report) {
        spec.labels.insert(key, value.unwrap_or_default());
    }
}

/// Which keys of the file make which fields of the spec, so that a bound that the spec breaks is
/// reported where the file breaks it.
const ORIGINS: &[(&str, &[&str])] = &[
    ("mode", &["deploy", "scale"]),
    ("task.command", &["command", "entrypoint"]),
    ("task.env", &["environment", "env_file"]),
    ("task.resources", &["deploy", "cpus", "mem_limit"]),
    ("task.health", &["x-ballast", "healthcheck"]),
    ("task.restart", &["deploy", "restart"]),
    ("task.stop.drain", &["x-ballast"]),
    ("task.stop.grace", &["stop_grace_period"]),
    ("task.stop.signal", &["stop_signal"]),
    ("task.ulimits", &["ulimits"]),
    ("ports", &["x-ballast", "ports"]),
    ("routes", &["x-ballast"]),
    ("placement", &["deploy"]),
    ("update", &["deploy"]),
    ("labels", &["labels", "deploy"]),
];

fn report_invalid(
    invalid: &InvalidSpec,
    service: &Field<'_>,
    section: &Section<'_>,
    report: &mut Report,
) {
    let origins = ORIGINS
        .iter()
        .find(|(prefix, _)| invalid.field.starts_with(prefix));
    let origin = origins.and_then(|(_, keys)| keys.iter().find_map(|key| section.get(key)));
    origin.unwrap_or(service).error(report, invalid.to_string());
}
