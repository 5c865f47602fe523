//! The roles: manager, agent, ingress, each in a process of its own or all in one.
//!
//! Flags are written over what the configuration file says; the role's crate proves the result.

mod agent;
mod dev;
mod ingress;
mod logging;
mod manager;
mod process;

use std::path::Path;

use crate::Failure;

pub use agent::agent;
pub use dev::dev;
pub use ingress::ingress;
pub use manager::manager;

/// Bytes of a configuration file: an ingress of ten thousand services alone has three million.
const MAX_CONFIG: u64 = 64 << 20;

/// Reads a role's configuration file; empty if there is none.
fn read_config(path: Option<&Path>) -> Result<String, Failure> {
    let Some(path) = path else {
        return Ok(String::new());
    };
    let failed = |error: &dyn std::fmt::Display| {
        Failure::while_doing(&format!("cannot read {}", path.display()), error)
    };
    let length = std::fs::metadata(path).map_err(|e| failed(&e))?.len();
    if length > MAX_CONFIG {
        return Err(failed(&format!("it is longer than {MAX_CONFIG} bytes")));
    }
    std::fs::read_to_string(path).map_err(|e| failed(&e))
}

/// Returns an error with its causes, which the roles' errors tell apart.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        // Some errors say their cause themselves.
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = error.source();
    }
    text
}
