//! What the user sees: tables for people, fixed JSON for programs.

mod dump;
mod l4;
mod plan;
mod simulation;
mod style;
mod tables;

use std::io::Write;

use serde::Serialize;

use crate::Failure;

pub use dump::{DumpedEndpoint, DumpedPool, DumpedRoute, dump};
pub use l4::{DumpedL4, DumpedReal, l4};
pub use plan::{plan, suggestions};
pub use simulation::simulation;
pub use style::Style;
pub use tables::{age, event_line, nodes, pools, services, stacks, tasks};

/// Prints a value as JSON, indented, with a line end.
///
/// # Errors
/// If standard output cannot be written.
pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::while_doing("cannot encode the result", error))?;
    line(&text)
}

/// Prints a value as one line of JSON.
///
/// # Errors
/// If standard output cannot be written.
pub fn json_line<T: Serialize + ?Sized>(value: &T) -> Result<(), Failure> {
    let text = serde_json::to_string(value)
        .map_err(|error| Failure::while_doing("cannot encode the result", error))?;
    line(&text)
}

/// Prints one line.
///
/// # Errors
/// If standard output cannot be written; [`Failure::OutputClosed`] if nobody reads it.
pub fn line(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()?;
    Ok(())
}
