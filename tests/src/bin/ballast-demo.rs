//! What `cargo xtask demo` runs. Exit status 0: no request failed and every fault healed.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use ballast_tests::demo;

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<bool> {
    let json = arguments()?;
    let report = demo::run(&demo::example()?)?;
    println!("\n{report}\n");
    println!(
        "{}",
        if report.is_good() {
            "no request failed, every fault healed"
        } else {
            "NOT as promised: see above"
        }
    );
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(&report.to_json()).context("the report")?;
        std::fs::write(&path, text + "\n").with_context(|| path.display().to_string())?;
    }
    Ok(report.is_good())
}

fn arguments() -> Result<Option<PathBuf>> {
    let mut args = std::env::args().skip(1);
    match (args.next().as_deref(), args.next(), args.next()) {
        (None, ..) => Ok(None),
        (Some("--json"), Some(path), None) => Ok(Some(path.into())),
        _ => bail!("usage: ballast-demo [--json FILE]"),
    }
}
