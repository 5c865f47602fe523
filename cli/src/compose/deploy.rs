//! `deploy`, and its older forms beside it (`restart`, `scale`, `cpus`, `mem_limit`).

use std::str::FromStr;

use ballast_model::{
    Bytes, DeviceRequest, MilliCpu, Millis, Mode, Resources, RestartCondition, ServiceSpec,
    UpdateFailureAction, UpdateOrder, limits,
};

use super::field::{Field, Section};
use super::finding::Report;
use super::keys;
use crate::args::SpreadArg;

/// Reads all of it.
pub(super) fn read(spec: &mut ServiceSpec, service: &Section<'_>, report: &mut Report) {
    old_forms(spec, service, report);
    let Some(deploy) = service.get("deploy") else {
        return;
    };
    let section = deploy.section(report, keys::DEPLOY);
    mode(spec, &section, report);
    if let Some(resources) = section.get("resources") {
        self::resources(spec, resources, report);
    }
    if let Some(policy) = section.get("restart_policy") {
        restart_policy(spec, policy, report);
    }
    if let Some(placement) = section.get("placement") {
        self::placement(spec, placement, report);
    }
    if let Some(update) = section.get("update_config") {
        self::update(spec, update, report);
    }
    if let Some(labels) = section.get("labels") {
        for (key, value) in labels.pairs(report) {
            spec.labels.insert(key, value.unwrap_or_default());
        }
    }
    if let Some(mode) = section.get("endpoint_mode")
        && mode.text(report).is_some_and(|mode| mode != "vip")
    {
        mode.error(
            report,
            "only `vip` is supported: ingresses balance over the replicas",
        );
    }
}

fn set<T: FromStr>(place: &mut T, field: Option<&Field<'_>>, report: &mut Report)
where
    T::Err: std::fmt::Display,
{
    if let Some(value) = field.and_then(|field| field.parse(report)) {
        *place = value;
    }
}

fn old_forms(spec: &mut ServiceSpec, service: &Section<'_>, report: &mut Report) {
    set(&mut spec.task.resources.cpu, service.get("cpus"), report);
    set(
        &mut spec.task.resources.memory,
        service.get("mem_limit"),
        report,
    );
    if let Some(scale) = service.get("scale")
        && let Some(replicas) = scale.number(report, 0, limits::REPLICAS_PER_SERVICE)
    {
        spec.mode = Mode::Replicated { replicas };
    }
    let Some(restart) = service.get("restart") else {
        return;
    };
    let Some(text) = restart.text(report) else {
        return;
    };
    let (word, attempts) = match text.split_once(':') {
        Some((word, attempts)) => (word, Some(attempts)),
        None => (text, None),
    };
    let policy = &mut spec.task.restart;
    policy.condition = match (word, attempts) {
        ("no" | "false", None) => RestartCondition::None,
        ("always" | "unless-stopped", None) => RestartCondition::Any,
        ("on-failure", None) => RestartCondition::OnFailure,
        ("on-failure", Some(attempts)) => {
            match attempts.parse() {
                Ok(attempts) => policy.max_attempts = attempts,
                Err(_) => restart.error(report, "`on-failure:N` needs a number of attempts"),
            }
            RestartCondition::OnFailure
        }
        _ => {
            restart.error(
                report,
                "is not one of no, always, on-failure[:N], unless-stopped",
            );
            return;
        }
    };
}

#[derive(Clone, Copy)]
enum Kind {
    Replicated,
    Global,
    Job,
    GlobalJob,
}

fn mode(spec: &mut ServiceSpec, section: &Section<'_>, report: &mut Report) {
    let kinds = [
        ("replicated", Kind::Replicated),
        ("global", Kind::Global),
        ("replicated-job", Kind::Job),
        ("global-job", Kind::GlobalJob),
    ];
    let mode = section.get("mode");
    let kind = mode.and_then(|mode| mode.choice(report, &kinds));
    let field = section.get("replicas");
    let count = field.and_then(|f| f.number(report, 0, limits::REPLICAS_PER_SERVICE));
    match (kind.unwrap_or(Kind::Replicated), count) {
        (Kind::Replicated, None) => {}
        (Kind::Replicated, Some(replicas)) => spec.mode = Mode::Replicated { replicas },
        (Kind::Global, _) => {
            spec.mode = Mode::Global {};
            if let Some(field) = field {
                field.warn(
                    report,
                    "is not honoured: a global service has one task on each node",
                );
            }
        }
        (Kind::Job, count) => {
            let completions = count.unwrap_or(1);
            spec.mode = Mode::Job {
                completions,
                parallelism: completions,
            };
        }
        (Kind::GlobalJob, _) => {
            if let Some(mode) = mode {
                mode.error(report, "`global-job` is not supported; `replicated-job` is");
            }
        }
    }
}

/// CPU and memory have one figure each here, reserved and, where cgroups can be written, the limit:
/// the file's limit, or else its reservation. Where that is not what the file says, it is told.
fn resources(spec: &mut ServiceSpec, field: &Field<'_>, report: &mut Report) {
    let section = field.section(report, keys::RESOURCES);
    let part = |key: &str, report: &mut Report| match section.get(key) {
        Some(part) => part.section(report, keys::LIMITS),
        None => Section::default(),
    };
    let limits = part("limits", report);
    let reservations = part("reservations", report);
    let cpu = one_figure::<MilliCpu>("cpus", &limits, &reservations, report);
    let memory = one_figure::<Bytes>("memory", &limits, &reservations, report);
    let resources = &mut spec.task.resources;
    resources.cpu = cpu.unwrap_or(resources.cpu);
    resources.memory = memory.unwrap_or(resources.memory);
    if let Some(field) = limits
        .get("devices")
        .or_else(|| limits.get("generic_resources"))
    {
        field.error(report, "is a reservation: give it under `reservations`");
    }
    if let Some(field) = reservations.get("devices") {
        devices(resources, field, report);
    }
    if let Some(field) = reservations.get("generic_resources") {
        generic_resources(resources, field, report);
    }
}

/// Reads devices, of which a task has one kind: the capability that names a kind of device.
fn devices(resources: &mut Resources, field: &Field<'_>, report: &mut Report) {
    for (place, item) in field.items(report).iter().enumerate() {
        if place > 0 {
            item.error(report, "a task has devices of one kind");
            return;
        }
        let section = item.section(report, keys::DEVICE);
        let kinds = section.get("capabilities").map(|f| f.items(report));
        let kind = kinds.iter().flatten().find_map(|f| f.text(report));
        let count = match section.get("count") {
            Some(count) => count.number(report, 1, u8::MAX),
            None => Some(1),
        };
        let (Some(kind), Some(count)) = (kind, count) else {
            item.error(report, "needs `capabilities`, such as [gpu]");
            return;
        };
        resources.devices = DeviceRequest {
            kind: kind.to_owned(),
            count,
            milli: 1000,
        };
    }
}

/// Reads Swarm's named resources.
fn generic_resources(resources: &mut Resources, field: &Field<'_>, report: &mut Report) {
    for item in field.items(report) {
        let section = item.section(report, keys::GENERIC);
        let Some(spec) = section.get("discrete_resource_spec") else {
            item.error(report, "needs a `discrete_resource_spec`");
            continue;
        };
        let spec = spec.section(report, keys::DISCRETE);
        let name = spec.get("kind").and_then(|f| f.text(report));
        let units = spec
            .get("value")
            .and_then(|f| f.number(report, 1, u32::MAX));
        if let (Some(name), Some(units)) = (name, units) {
            resources.custom.insert(name.to_ascii_lowercase(), units);
        }
    }
}

fn one_figure<T>(
    key: &str,
    limits: &Section<'_>,
    reservations: &Section<'_>,
    report: &mut Report,
) -> Option<T>
where
    T: FromStr + PartialEq,
    T::Err: std::fmt::Display,
{
    let limit = limits.get(key).and_then(|field| field.parse(report));
    let field = reservations.get(key);
    let reserved = field.and_then(|field| field.parse(report));
    match (&limit, &reserved, field) {
        (Some(limit), Some(reserved), Some(field)) if limit != reserved => {
            field.warn(report, "is not honoured: the limit is reserved, so that what is packed onto a node always fits there");
        }
        (None, Some(_), Some(field)) => {
            field.warn(
                report,
                "is the limit, too: give it as `limits`, as high as the task may go",
            );
        }
        _ => {}
    }
    limit.or(reserved)
}

fn restart_policy(spec: &mut ServiceSpec, field: &Field<'_>, report: &mut Report) {
    let section = field.section(report, keys::RESTART);
    let policy = &mut spec.task.restart;
    let conditions = [
        ("any", RestartCondition::Any),
        ("on-failure", RestartCondition::OnFailure),
        ("none", RestartCondition::None),
    ];
    let condition = section.get("condition");
    if let Some(condition) = condition.and_then(|f| f.choice(report, &conditions)) {
        policy.condition = condition;
    }
    set(&mut policy.delay, section.get("delay"), report);
    // The bound of the backoff must not undercut what the user wants at least.
    policy.max_delay = policy.max_delay.max(policy.delay);
    set(&mut policy.window, section.get("window"), report);
    let attempts = section.get("max_attempts");
    if let Some(attempts) = attempts.and_then(|f| f.number(report, 0, u32::MAX)) {
        policy.max_attempts = attempts;
    }
}

fn placement(spec: &mut ServiceSpec, field: &Field<'_>, report: &mut Report) {
    let section = field.section(report, keys::PLACEMENT);
    let placement = &mut spec.placement;
    if let Some(constraints) = section.get("constraints") {
        for item in constraints.items(report) {
            placement.constraints.extend(item.parse(report));
        }
    }
    let most = section.get("max_replicas_per_node");
    if let Some(most) = most.and_then(|f| f.number(report, 0, u32::MAX)) {
        placement.max_replicas_per_node = most;
    }
    let Some(preferences) = section.get("preferences") else {
        return;
    };
    for (place, item) in preferences.items(report).iter().enumerate() {
        let preference = item.section(report, keys::PREFERENCE);
        let Some(spread) = preference.get("spread") else {
            continue;
        };
        if place == 0 {
            placement.spread.clear();
        }
        if let Some(SpreadArg(rule)) = spread.parse(report) {
            placement.spread.extend(rule);
        }
    }
}

fn update(spec: &mut ServiceSpec, field: &Field<'_>, report: &mut Report) {
    let section = field.section(report, keys::UPDATE);
    let update = &mut spec.update;
    let parallelism = section.get("parallelism");
    if let Some(parallelism) = parallelism.and_then(|f| f.number(report, 0, u32::MAX)) {
        update.parallelism = parallelism;
    }
    set::<Millis>(&mut update.delay, section.get("delay"), report);
    let orders = [
        ("start-first", UpdateOrder::StartFirst),
        ("stop-first", UpdateOrder::StopFirst),
    ];
    let order = section.get("order");
    if let Some(order) = order.and_then(|f| f.choice(report, &orders)) {
        update.order = order;
    }
    let actions = [
        ("pause", UpdateFailureAction::Pause),
        ("rollback", UpdateFailureAction::Rollback),
        ("continue", UpdateFailureAction::Continue),
    ];
    let action = section.get("failure_action");
    if let Some(action) = action.and_then(|f| f.choice(report, &actions)) {
        update.failure_action = action;
    }
}
