//! Flags of `service create` and `service update` → spec. What is not given stays as it is.

use ballast_model::{HealthCheck, Mode, PortSpec, ProbeKind, Protocol, ServiceSpec};

use crate::Failure;
use crate::args::{HealthArgs, SpecArgs, SpreadArg};

/// Changes a spec as the flags say.
///
/// # Errors
/// [`Failure::Usage`] if they contradict each other or the spec.
pub(super) fn apply(spec: &mut ServiceSpec, args: &SpecArgs) -> Result<(), Failure> {
    if let Some(image) = &args.image {
        return Err(Failure::Failed(format!(
            "`--image {image}` needs the docker driver, which this version does not have yet; \
             give a program of the node instead: ballast service create {} -- PROGRAM ARGUMENTS",
            spec.name
        )));
    }
    apply_mode(&mut spec.mode, args)?;
    for port in &args.publish {
        publish(&mut spec.ports, port.clone());
    }
    for route in &args.route {
        if !spec.routes.contains(&route.0) {
            spec.routes.push(route.0.clone());
        }
    }
    for label in &args.label {
        spec.labels.insert(label.key.clone(), label.value.clone());
    }
    apply_task(spec, args);
    apply_placement(spec, args);
    let update = &mut spec.update;
    set(&mut update.order, args.update_order.map(Into::into));
    set(&mut update.parallelism, args.update_parallelism);
    set(&mut update.delay, args.update_delay);
    apply_health(spec, &args.health)
}

fn set<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

fn apply_mode(mode: &mut Mode, args: &SpecArgs) -> Result<(), Failure> {
    if args.global {
        *mode = Mode::Global {};
    } else if args.job {
        let completions = args.replicas.unwrap_or(1);
        *mode = Mode::Job {
            completions,
            parallelism: args.parallelism.unwrap_or(completions),
        };
    } else if let Some(wanted) = args.replicas {
        match mode {
            Mode::Replicated { replicas } => *replicas = wanted,
            Mode::Job { completions, .. } => *completions = wanted,
            Mode::Global {} => {
                return Err(Failure::Usage(
                    "a global service has one task on each node; --replicas has no meaning for it"
                        .to_owned(),
                ));
            }
        }
    }
    Ok(())
}

/// Adds a port, in place of the one of the same name.
fn publish(ports: &mut Vec<PortSpec>, port: PortSpec) {
    match ports.iter_mut().find(|known| known.name == port.name) {
        Some(known) => *known = port,
        None => ports.push(port),
    }
}

fn apply_task(spec: &mut ServiceSpec, args: &SpecArgs) {
    let task = &mut spec.task;
    if !args.command.is_empty() {
        task.command.clone_from(&args.command);
    }
    for env in &args.env {
        let value = env
            .value
            .clone()
            .or_else(|| std::env::var(&env.key).ok())
            .unwrap_or_default();
        task.env.insert(env.key.clone(), value);
    }
    if let Some(dir) = &args.workdir {
        task.working_dir = Some(dir.clone());
    }
    if let Some(user) = &args.user {
        task.user = Some(user.clone());
    }
    set(&mut task.resources.cpu, args.cpu);
    set(&mut task.resources.memory, args.memory);
    args.rules.reserve(&mut task.resources);
    for ulimit in &args.ulimit {
        task.ulimits.insert(ulimit.name.clone(), ulimit.limit);
    }
    let restart = &mut task.restart;
    set(&mut restart.condition, args.restart.map(Into::into));
    set(&mut restart.delay, args.restart_delay);
    set(&mut restart.max_attempts, args.restart_attempts);
    set(&mut restart.window, args.restart_window);
    let stop = &mut task.stop;
    set(&mut stop.grace, args.stop_grace);
    set(&mut stop.drain, args.drain);
    set(&mut stop.signal, args.stop_signal.clone());
}

fn apply_placement(spec: &mut ServiceSpec, args: &SpecArgs) {
    let placement = &mut spec.placement;
    for constraint in &args.constraint {
        if !placement.constraints.contains(constraint) {
            placement.constraints.push(constraint.clone());
        }
    }
    if !args.spread.is_empty() {
        let rules = args
            .spread
            .iter()
            .filter_map(|SpreadArg(rule)| rule.clone());
        placement.spread = rules.collect();
    }
    args.rules.apply(placement);
    set(&mut placement.max_replicas_per_node, args.max_per_node);
}

fn apply_health(spec: &mut ServiceSpec, args: &HealthArgs) -> Result<(), Failure> {
    let first = |wanted: Option<Protocol>, flag: &str| {
        spec.ports
            .iter()
            .find(|port| wanted.is_none_or(|wanted| port.protocol == wanted))
            .map(|port| port.name.clone())
            .ok_or_else(|| {
                let hint = "such as `--publish 8080:http`";
                Failure::Usage(format!("{flag} needs a port to ask: {hint}"))
            })
    };
    let probe = if let Some(path) = &args.health_http {
        Some(ProbeKind::Http {
            port: first(Some(Protocol::Http), "--health-http")?,
            path: path.clone(),
            status: (200, 399),
        })
    } else if args.health_tcp {
        Some(ProbeKind::Tcp {
            port: first(None, "--health-tcp")?,
        })
    } else {
        args.health_cmd.as_ref().map(|command| ProbeKind::Command {
            argv: ["/bin/sh", "-c", command].map(str::to_owned).to_vec(),
        })
    };
    if let Some(probe) = probe {
        match &mut spec.task.health {
            Some(health) => health.probe = probe,
            None => spec.task.health = Some(HealthCheck::with_defaults(probe)),
        }
    }
    let tuned = args.health_interval.is_some()
        || args.health_timeout.is_some()
        || args.health_retries.is_some()
        || args.health_start_period.is_some();
    match &mut spec.task.health {
        Some(health) => {
            set(&mut health.interval, args.health_interval);
            set(&mut health.timeout, args.health_timeout);
            set(&mut health.failure_threshold, args.health_retries);
            set(&mut health.start_period, args.health_start_period);
            Ok(())
        }
        None if tuned => Err(Failure::Usage(
            "there is no health check to tune; give --health-http, --health-tcp or --health-cmd"
                .to_owned(),
        )),
        None => Ok(()),
    }
}
