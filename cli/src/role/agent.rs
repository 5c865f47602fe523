//! `ballast agent`

use ballast_agent::RawConfig;

use super::{chain, logging, process, read_config};
use crate::Failure;
use crate::args::{AgentArgs, Global};

/// Runs an agent until it is told to end; its tasks go on unless told otherwise.
///
/// # Errors
/// If its configuration is wrong, or it cannot start.
pub fn agent(global: &Global, args: AgentArgs) -> Result<(), Failure> {
    logging::start(global.log, logging::ROLE);
    let text = read_config(args.config.as_deref())?;
    let file = if text.trim().is_empty() {
        RawConfig::default()
    } else {
        RawConfig::from_yaml(&text).map_err(|error| Failure::Failed(chain(&error)))?
    };
    let config = over(file, args)?
        .validate()
        .map_err(|error| Failure::Failed(chain(&error)))?;
    process::run(|shutdown| async move {
        ballast_agent::run(config, shutdown)
            .await
            .map_err(|error| Failure::Failed(chain(&error)))
    })
}

/// Writes the flags over what the file says.
fn over(mut file: RawConfig, args: AgentArgs) -> Result<RawConfig, Failure> {
    fn unit<T>(flag: &str, text: Option<&String>) -> Result<Option<T>, Failure>
    where
        T: std::str::FromStr,
        T::Err: std::fmt::Display,
    {
        let wrong = |error: T::Err| Failure::Usage(format!("{flag}: {error}"));
        text.map(|text| text.parse().map_err(wrong)).transpose()
    }
    let cpu = unit("--cpu", args.cpu.as_ref())?;
    let memory = unit("--memory", args.memory.as_ref())?;
    let disk = unit("--disk", args.disk.as_ref())?;
    for resource in args.resources {
        file.resources.insert(resource.name, resource.units);
    }
    if !args.devices.is_empty() {
        file.devices = args.devices;
    }
    if !args.sockets.is_empty() {
        file.sockets = args.sockets;
    }
    if !args.managers.is_empty() {
        file.managers = args.managers;
    }
    for label in args.labels {
        file.labels.insert(label.key, label.value);
    }
    Ok(RawConfig {
        join: args.join.or(file.join),
        name: args.name.or(file.name),
        address: args.address.or(file.address),
        data_dir: args.data_dir.or(file.data_dir),
        ports: args.ports.or(file.ports),
        cpu: cpu.or(file.cpu),
        memory: memory.or(file.memory),
        disk: disk.or(file.disk),
        pool: args.pool.or(file.pool),
        admin: args.admin.or(file.admin),
        stop_tasks_on_exit: args.stop_tasks_on_exit || file.stop_tasks_on_exit,
        ..file
    })
}
