//! The bad habits that tests ask for.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context;

/// Set in the environment of the children that `HELLO_FORK` starts.
pub const CHILD_MARK: &str = "HELLO_CHILD";

/// How often lines are written: often enough for a rate of 100,000 a second to be even.
const LOG_TICK: Duration = Duration::from_millis(10);

/// Sleeps for ever: what a child of `HELLO_FORK` does.
pub fn be_a_child() -> ! {
    loop {
        std::thread::park();
    }
}

/// Starts what the environment asks for.
///
/// # Errors
/// Names the variable that does not parse.
pub fn start() -> anyhow::Result<()> {
    fork_children()?;
    if let Some(after) = crate::duration_from_env("HELLO_EXIT_AFTER")? {
        let status = std::env::var("HELLO_EXIT_STATUS")
            .map_or(Ok(1), |text| text.parse())
            .context("HELLO_EXIT_STATUS is not a number")?;
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            std::process::exit(status);
        });
    }
    if let Ok(text) = std::env::var("HELLO_LOG_RATE") {
        let rate = text
            .parse()
            .with_context(|| format!("HELLO_LOG_RATE={text}"))?;
        std::thread::spawn(move || log_lines(rate));
    }
    Ok(())
}

/// Returns whether SIGTERM is to be ignored.
pub fn ignores_term() -> bool {
    std::env::var_os("HELLO_IGNORE_TERM").is_some_and(|value| value != "0")
}

fn fork_children() -> anyhow::Result<()> {
    let Ok(text) = std::env::var("HELLO_FORK") else {
        return Ok(());
    };
    let count: u32 = text.parse().with_context(|| format!("HELLO_FORK={text}"))?;
    let program = std::env::current_exe().context("cannot find my own program")?;
    for _ in 0..count {
        // Nobody waits for them: leaving them behind is the point.
        Command::new(&program)
            .env(CHILD_MARK, "1")
            .stdin(Stdio::null())
            .spawn()
            .context("cannot start a child")?;
    }
    Ok(())
}

/// Writes `rate` lines a second to standard output until that fails.
fn log_lines(rate: u64) {
    let started = std::time::Instant::now();
    let mut written: u64 = 0;
    let mut batch = Vec::new();
    loop {
        let due = u64::try_from(started.elapsed().as_millis())
            .unwrap_or(u64::MAX)
            .saturating_mul(rate)
            / 1000;
        batch.clear();
        while written < due {
            written += 1;
            if writeln!(batch, "line {written} of ballast-hello").is_err() {
                return;
            }
        }
        if std::io::stdout().write_all(&batch).is_err() {
            return;
        }
        std::thread::sleep(LOG_TICK);
    }
}
