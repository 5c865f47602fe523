//! What `cargo xtask bench` runs: `ballast-bench NAME [--json FILE] [--keep FOLDER]`.
//!
//! `--json` writes the figures as an array; `--keep` writes everything to
//! `FOLDER/<date>-<name>/run.json`, as published figures need it.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use ballast_tests::bench::{self, Bench};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let (name, json, keep) = arguments()?;
    let benches = bench::run(&name)?;
    for bench in &benches {
        println!("\n{}", bench.figures);
        for missing in &bench.missing {
            println!("not measured: {missing}");
        }
        if let Some(folder) = &keep {
            write_run(bench, folder)?;
        }
    }
    if let Some(path) = json {
        let figures: Vec<_> = benches
            .iter()
            .flat_map(|bench| bench.figures.to_json())
            .collect();
        let text = serde_json::to_string_pretty(&figures).context("the figures")?;
        std::fs::write(&path, text + "\n").with_context(|| path.display().to_string())?;
    }
    Ok(())
}

fn write_run(bench: &Bench, folder: &Path) -> Result<()> {
    let date = Command::new("date")
        .args(["-u", "+%Y-%m-%d"])
        .output()
        .context("date")?;
    let date = String::from_utf8_lossy(&date.stdout).trim().to_owned();
    let folder = folder.join(format!("{date}-{}", bench.name));
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let text = serde_json::to_string_pretty(&bench.to_json()).context("the run")?;
    std::fs::write(folder.join("run.json"), text + "\n").context("run.json")?;
    println!("written to {}", folder.display());
    Ok(())
}

fn arguments() -> Result<(String, Option<PathBuf>, Option<PathBuf>)> {
    let mut args = std::env::args().skip(1);
    let usage = "usage: ballast-bench NAME [--json FILE] [--keep FOLDER]";
    let name = args.next().context(usage)?;
    let (mut json, mut keep) = (None, None);
    while let Some(flag) = args.next() {
        let value = args.next().context(usage)?;
        match flag.as_str() {
            "--json" => json = Some(value.into()),
            "--keep" => keep = Some(value.into()),
            _ => bail!(usage),
        }
    }
    Ok((name, json, keep))
}
