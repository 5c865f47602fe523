//! The roles: manager, agent, ingress, and all of them in one process.

use crate::Failure;
use crate::args::{AgentArgs, DevArgs, Global, IngressArgs, ManagerArgs};

fn absent(role: &str) -> Result<(), Failure> {
    Err(Failure::Failed(format!(
        "this build cannot run `{role}` yet"
    )))
}

/// Runs manager, agent and ingress in this process.
///
/// # Errors
/// If one of them fails.
pub fn dev(_global: &Global, _args: DevArgs) -> Result<(), Failure> {
    absent("dev")
}

/// Runs a manager.
///
/// # Errors
/// If it fails.
pub fn manager(_global: &Global, _args: ManagerArgs) -> Result<(), Failure> {
    absent("manager")
}

/// Runs an agent.
///
/// # Errors
/// If it fails.
pub fn agent(_global: &Global, _args: AgentArgs) -> Result<(), Failure> {
    absent("agent")
}

/// Runs an ingress.
///
/// # Errors
/// If it fails.
pub fn ingress(_global: &Global, _args: IngressArgs) -> Result<(), Failure> {
    absent("ingress")
}
