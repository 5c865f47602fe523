//! What a bench is told on its command line, and where its figures go.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::report::Bench;

const USAGE: &str = "usage: bench [--json FILE] [--keep FOLDER] [--only CASE] [--runs N] \
                     [--pairs N] [--wait SECONDS] [--tiny]";
/// How long a machine that is not fit is waited for, unless the user says otherwise. The load of
/// the last minute must have forgotten the build before it.
const PATIENCE: Duration = Duration::from_mins(2);

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
    /// Pairs of runs that a comparison is judged by.
    pub pairs: Option<usize>,
    /// How long a machine that is not fit is waited for.
    pub wait: Option<Duration>,
    /// Every case in a few seconds: shows that it works, and nothing else.
    pub tiny: bool,
    /// How the user started it, for the record.
    pub line: String,
}

impl Options {
    /// Returns what the arguments say.
    ///
    /// # Errors
    /// One is not known, or lacks its value.
    pub fn parse(args: impl Iterator<Item = String>) -> Result<Self> {
        let args: Vec<String> = args.collect();
        let mut options = Self {
            line: recorded(&args),
            ..Self::default()
        };
        let mut args = args.into_iter();
        while let Some(flag) = args.next() {
            if flag == "--tiny" {
                options.tiny = true;
                continue;
            }
            let value = args.next().context(USAGE)?;
            let number = || value.parse::<usize>().context(USAGE);
            match flag.as_str() {
                "--json" => options.json = Some(value.into()),
                "--keep" => options.keep = Some(value.into()),
                "--only" => options.only = Some(value),
                "--runs" => options.runs = Some(number()?),
                "--pairs" => options.pairs = Some(number()?),
                "--wait" => options.wait = Some(Duration::from_secs(number()? as u64)),
                _ => bail!(USAGE),
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

    /// Returns how long a machine that is not fit is waited for.
    pub fn patience(&self) -> Duration {
        let default = if self.tiny { Duration::ZERO } else { PATIENCE };
        self.wait.unwrap_or(default)
    }

    /// Returns `published`, or `tiny` if only that it works is to be shown.
    pub fn size<T>(&self, published: T, tiny: T) -> T {
        if self.tiny { tiny } else { published }
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
            for failed in &bench.failed {
                println!("FAILED: {failed}");
            }
            if let Some(folder) = &self.keep {
                self.write_run(bench, folder)?;
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

    fn write_run(&self, bench: &Bench, folder: &Path) -> Result<()> {
        if bench.figures.is_empty() {
            return Ok(());
        }
        let now = Command::new("date")
            .args(["-u", "+%Y-%m-%dT%H:%M:%SZ"])
            .output()
            .context("date")?;
        let now = String::from_utf8_lossy(&now.stdout).trim().to_owned();
        let day = now.split('T').next().unwrap_or_default();
        let folder = folder.join(format!("{day}-{}", bench.name));
        std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let command = format!("cargo xtask bench {}{}", bench.name, self.line);
        let mut run = bench.to_json(&command);
        run["at"] = now.into();
        let text = serde_json::to_string_pretty(&run).context("the run")?;
        std::fs::write(folder.join("run.json"), text + "\n").context("run.json")?;
        println!("written to {}", folder.display());
        Ok(())
    }
}

/// Returns the flags that decide what is measured, as they stand in the record. Where results went
/// is nobody's business.
fn recorded(args: &[String]) -> String {
    let mut line = String::new();
    let mut args = args.iter();
    while let Some(flag) = args.next() {
        let value = (flag != "--tiny").then(|| args.next()).flatten();
        if matches!(flag.as_str(), "--json" | "--keep" | "--wait") {
            continue;
        }
        let value = value.map_or("", String::as_str);
        let quote = if value.contains(' ') { "\"" } else { "" };
        let blank = if value.is_empty() { "" } else { " " };
        line.extend([" ", flag, blank, quote, value, quote]);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options> {
        Options::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn record_has_the_flags_that_decide_and_not_where_results_went() {
        let options = parse("--json a.json --only cost --tiny --runs 3").expect("parses");
        assert_eq!(options.line, " --only cost --tiny --runs 3");
        assert!(options.tiny && options.wants("cost c64") && !options.wants("truth"));
        assert_eq!(options.runs, Some(3));
        assert_eq!(options.patience(), Duration::ZERO);
        assert_eq!(parse("").expect("parses").patience(), PATIENCE);
    }

    #[test]
    fn unknown_flags_and_missing_values_are_refused() {
        for bad in ["--fast yes", "--runs", "--runs many"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
