//! What a bench is told on its command line, and where its figures go.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::report::Bench;

/// Flags that all benches take.
#[derive(Debug, Default)]
pub struct Options {
    /// The figures go here, as an array.
    pub json: Option<PathBuf>,
    /// Everything goes to `FOLDER/<date>-<name>/run.json`, as published figures need it.
    pub keep: Option<PathBuf>,
    /// Only cases whose name holds this.
    pub only: Option<String>,
    /// How often each case is measured, where it is for the user to say.
    pub runs: Option<usize>,
}

impl Options {
    /// Returns what the arguments say.
    ///
    /// # Errors
    /// One is not known, or lacks its value.
    pub fn parse(mut args: impl Iterator<Item = String>) -> Result<Self> {
        let usage = "usage: bench [--json FILE] [--keep FOLDER] [--only CASE] [--runs N]";
        let mut options = Self::default();
        while let Some(flag) = args.next() {
            let value = args.next().context(usage)?;
            match flag.as_str() {
                "--json" => options.json = Some(value.into()),
                "--keep" => options.keep = Some(value.into()),
                "--only" => options.only = Some(value),
                "--runs" => options.runs = Some(value.parse().context(usage)?),
                _ => bail!(usage),
            }
        }
        Ok(options)
    }

    /// Returns whether a case is to be measured.
    pub fn wants(&self, case: &str) -> bool {
        self.only
            .as_ref()
            .is_none_or(|only| case.contains(only.as_str()))
    }

    /// Prints what benches found and writes it where the options say.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn report(&self, benches: &[Bench]) -> Result<()> {
        for bench in benches {
            println!("\n{}", bench.figures);
            for missing in &bench.missing {
                println!("not measured: {missing}");
            }
            if let Some(folder) = &self.keep {
                write_run(bench, folder)?;
            }
        }
        if let Some(path) = &self.json {
            let all = benches.iter().flat_map(|bench| bench.figures.to_json());
            let figures: Vec<_> = all.collect();
            let text = serde_json::to_string_pretty(&figures).context("the figures")?;
            std::fs::write(path, text + "\n").with_context(|| path.display().to_string())?;
        }
        Ok(())
    }
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
