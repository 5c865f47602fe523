//! Says what goes on, and how long it took.

use std::time::Instant;

use anyhow::Context;

/// Runs `step` between two lines of progress.
///
/// # Errors
/// The step's, with its name.
pub fn step<T>(name: &str, step: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    eprintln!("==> {name}");
    let begin = Instant::now();
    let value = step().with_context(|| format!("{name} failed"))?;
    eprintln!("    {name}: done in {:.1} s", begin.elapsed().as_secs_f64());
    Ok(value)
}
