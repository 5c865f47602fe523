//! Where results go: first what is printed, then what is written, so that a full disk loses
//! nothing that was seen.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use ballast_loadgen::Report;
use ballast_loadgen::report::{hlog, html};
use serde::Serialize;

use super::args::OutArgs;

/// What could not be written; empty if all was.
#[derive(Debug, Default)]
pub struct Losses(Vec<String>);

impl Losses {
    /// Returns whether nothing was lost.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Notes how writing to `place` went, and says so if it failed.
    pub fn note(&mut self, place: &str, result: io::Result<()>) {
        if let Err(error) = result {
            let loss = format!("cannot write {place}: {error}");
            eprintln!("ballast-loadgen: {loss}");
            self.0.push(loss);
        }
    }
}

/// Refuses places that nothing can be written to, before the run instead of after it.
pub fn check(out: &OutArgs) -> Result<()> {
    for (flag, path) in files(out) {
        if path.as_os_str() == "-" {
            continue;
        }
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        ensure!(
            folder.is_dir(),
            "{flag}: there is no folder {}",
            folder.display()
        );
        ensure!(!path.is_dir(), "{flag}: {} is a folder", path.display());
    }
    let to_stdout = files(out)
        .filter(|(_, path)| path.as_os_str() == "-")
        .count();
    ensure!(to_stdout <= 1, "only one result can go to standard output");
    Ok(())
}

/// Returns whether standard output belongs to a file's content, and not to people.
pub fn takes_stdout(out: &OutArgs) -> bool {
    files(out).any(|(_, path)| path.as_os_str() == "-")
}

fn files(out: &OutArgs) -> impl Iterator<Item = (&'static str, &PathBuf)> {
    [
        ("--json", &out.json),
        ("--csv", &out.csv),
        ("--hlog", &out.hlog),
        ("--html", &out.html),
    ]
    .into_iter()
    .filter_map(|(flag, path)| Some((flag, path.as_ref()?)))
}

/// Prints to standard output, all or an error.
pub fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Writes `bytes` to `path`, or to standard output for `-`.
///
/// Not by way of another file and a rename: the place may be `/dev/stderr` or a pipe.
pub fn write(path: &Path, bytes: &[u8], losses: &mut Losses) {
    if path.as_os_str() == "-" {
        let mut stdout = io::stdout().lock();
        let written = stdout.write_all(bytes).and_then(|()| stdout.flush());
        losses.note("standard output", written);
        return;
    }
    let written = std::fs::File::create(path).and_then(|mut file| {
        file.write_all(bytes)?;
        // A disk that is full, or gone, may say so only now.
        match file.sync_all() {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
            other => other,
        }
    });
    losses.note(&path.display().to_string(), written);
}

/// Writes `value` as JSON to `path`.
pub fn write_json(path: &Path, value: &impl Serialize, losses: &mut Losses) {
    match serde_json::to_vec_pretty(value) {
        Ok(mut json) => {
            json.push(b'\n');
            write(path, &json, losses);
        }
        Err(error) => losses.note(&path.display().to_string(), Err(error.into())),
    }
}

/// Writes everything that was asked for of one run. What cannot be written keeps nothing else from
/// being.
pub fn write_all(out: &OutArgs, report: &Report, losses: &mut Losses) {
    if let Some(path) = &out.json {
        write_json(path, report, losses);
    }
    if let Some(path) = &out.csv {
        write(path, report.series.csv().as_bytes(), losses);
    }
    if let Some(path) = &out.html {
        write(path, html::page(report).as_bytes(), losses);
    }
    if let Some(path) = &out.hlog {
        let mut log = Vec::new();
        match hlog::write(&mut log, report) {
            Ok(()) => write(path, &log, losses),
            Err(error) => losses.note(&path.display().to_string(), Err(error)),
        }
    }
}
