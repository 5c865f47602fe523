//! `compare` and the flags of `ab` on the command line.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize as _;

use super::{CompareError, Comparison, Side, ab, compare};
use crate::report::Report;

/// Most runs of one side.
const MAX_RUNS: usize = 10_000;

/// Compare the reports of earlier runs: the first side with each other one
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
A side is a file of --json with one report or several, a folder of such files, or several files
joined by commas. With five runs or more on each side, made in turn, the verdict is by ranks and
exact; with a single run it is by blocks of its series.

Exit status 0: nothing is worse; 1: something is; 2: they cannot be compared.")]
pub struct CompareArgs {
    /// Sides: FILE, FOLDER or FILE,FILE,…
    #[arg(required = true, num_args = 2.., value_name = "SIDE")]
    pub sides: Vec<String>,
    /// Take runs that are INVALID, too
    #[arg(long)]
    pub take_invalid: bool,
    /// Write the comparison as JSON to a file, or to standard output with `-`
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// The flags of `ab`, beside those of a run and two URLs.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Turns")]
pub struct AbArgs {
    /// How long one turn takes
    #[arg(long, default_value = "2s", value_parser = duration)]
    pub turn: Duration,
    /// How long each target is driven before anything is measured
    #[arg(long, default_value = "2s", value_parser = duration)]
    pub warm_up: Duration,
    /// When to end, whatever is known; eight blocks of four turns are made all the same
    #[arg(long, default_value = "5m", value_parser = duration)]
    pub at_most: Duration,
    /// The change at the median that is to be told from none, such as 1%
    #[arg(long, default_value = "1%", value_parser = share)]
    pub precision: f64,
}

impl AbArgs {
    /// Returns what [`ab::run`] needs.
    pub fn options(&self) -> ab::Options {
        ab::Options {
            turn: self.turn,
            warm_up: self.warm_up,
            at_most: self.at_most,
            precision: self.precision,
        }
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    crate::slo::duration(text)
        .filter(|span| !span.is_zero())
        .ok_or_else(|| format!("`{text}` is not a duration such as 10s or 500ms"))
}

fn share(text: &str) -> Result<f64, String> {
    let percent = text.strip_suffix('%').and_then(|text| text.parse().ok());
    percent
        .filter(|percent: &f64| *percent > 0.0 && *percent <= 100.0)
        .map(|percent| percent / 100.0)
        .ok_or_else(|| format!("`{text}` is not a share such as 1% or 0.5%"))
}

/// Files that could not be compared.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A file or folder could not be read.
    #[error("cannot read {path}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file holds something else.
    #[error("{path} is no report of ballast-loadgen --json")]
    NoReport {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A folder without a report, or more runs than anybody makes.
    #[error("{0}: between 1 and {MAX_RUNS} reports are needed")]
    Count(String),
    /// They were read, and say too little.
    #[error(transparent)]
    Compare(#[from] CompareError),
}

impl CompareArgs {
    /// Reads the sides and compares the first with each other one.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn compare(&self) -> Result<Vec<Comparison>, ReadError> {
        let sides = self.sides.iter().map(|name| side(name));
        let sides = sides.collect::<Result<Vec<_>, _>>()?;
        let Some((first, others)) = sides.split_first() else {
            return Ok(Vec::new());
        };
        let compared = others
            .iter()
            .map(|other| compare(first, other, self.take_invalid));
        Ok(compared.collect::<Result<_, _>>()?)
    }
}

/// Returns the runs that `name` stands for: a file, a folder, or files joined by commas.
///
/// # Errors
/// [`ReadError`].
pub fn side(name: &str) -> Result<Side, ReadError> {
    let mut runs = Vec::new();
    let whole = Path::new(name);
    if whole.exists() {
        read(whole, &mut runs)?;
    } else {
        for path in name.split(',') {
            read(Path::new(path), &mut runs)?;
        }
    }
    if runs.is_empty() || runs.len() > MAX_RUNS {
        return Err(ReadError::Count(name.to_owned()));
    }
    Ok(Side {
        name: name.to_owned(),
        runs,
    })
}

fn read(path: &Path, runs: &mut Vec<Report>) -> Result<(), ReadError> {
    let io = |source| ReadError::Io {
        path: path.to_owned(),
        source,
    };
    if path.is_dir() {
        let entries = std::fs::read_dir(path).map_err(io)?;
        let paths = entries.map(|entry| entry.map(|entry| entry.path()));
        let mut paths = paths.collect::<Result<Vec<_>, _>>().map_err(io)?;
        paths.retain(|path| path.extension().is_some_and(|end| end == "json") && path.is_file());
        paths.sort();
        return paths.iter().try_for_each(|path| read(path, runs));
    }
    let bytes = std::fs::read(path).map_err(io)?;
    let no_report = |source| ReadError::NoReport {
        path: path.to_owned(),
        source,
    };
    for document in serde_json::Deserializer::from_slice(&bytes).into_iter() {
        let document: serde_json::Value = document.map_err(no_report)?;
        let reports = match document {
            serde_json::Value::Array(reports) => reports,
            report => vec![report],
        };
        for report in reports {
            runs.push(Report::deserialize(report).map_err(no_report)?);
        }
    }
    Ok(())
}
