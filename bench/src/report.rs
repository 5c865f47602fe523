//! What a bench found.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use serde_json::{Value, json};

use crate::figures::{Figure, Figures};
use crate::fitness::{Fitness, Steal};
use crate::machine;
use crate::options::Options;

/// Exit status of a bench that could measure nothing at all.
const NOTHING_MEASURED: u8 = 4;

/// What a bench found.
#[derive(Debug)]
pub struct Bench {
    /// Its name.
    pub name: &'static str,
    /// What it measured.
    pub figures: Figures,
    /// What the figures were made of.
    pub raw: Value,
    /// What it could not measure, and why.
    pub missing: Vec<String>,
    /// Cases that failed, and how.
    pub failed: Vec<String>,
    machine: Value,
    fitness: Option<Fitness>,
    steal: Steal,
    steal_percent: f64,
    began: Instant,
    seconds: f64,
}

impl Bench {
    /// Returns a bench that found nothing yet.
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            figures: Figures::default(),
            raw: json!({}),
            missing: Vec::new(),
            failed: Vec::new(),
            machine: machine::describe(),
            fitness: None,
            steal: Steal::watch(),
            steal_percent: 0.0,
            began: Instant::now(),
            seconds: 0.0,
        }
    }

    /// Runs `measure` once the machine is fit, or patience has run out; returns all that it found,
    /// also if it failed half-way.
    pub fn measure(
        name: &'static str,
        options: &Options,
        measure: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Self {
        eprintln!("==> {name}");
        let fitness = Fitness::wait(options.patience());
        for complaint in fitness.complaints() {
            eprintln!("    not fit to measure: {complaint}");
        }
        let mut bench = Self::new(name);
        bench.fitness = Some(fitness);
        if let Err(error) = measure(&mut bench) {
            bench.fail(name, &error);
        }
        bench.steal_percent = bench.steal.percent();
        bench.seconds = bench.began.elapsed().as_secs_f64();
        bench
    }

    /// Runs one case. One that fails is noted, and the rest goes on.
    pub fn case(
        &mut self,
        name: &str,
        options: &Options,
        measure: impl FnOnce(&mut Self) -> Result<()>,
    ) {
        if !options.wants(name) {
            return;
        }
        eprintln!("    {}: {name}", self.name);
        if let Err(error) = measure(self) {
            self.fail(name, &error);
        }
    }

    /// Adds a figure.
    pub fn push(&mut self, figure: Figure) {
        self.figures.push(figure);
    }

    /// Adds figures.
    pub fn extend(&mut self, figures: impl IntoIterator<Item = Figure>) {
        for figure in figures {
            self.push(figure);
        }
    }

    /// Notes what cannot be measured here, once.
    pub fn missing(&mut self, what: impl Into<String>) {
        let what = what.into();
        if !self.missing.contains(&what) {
            eprintln!("    not measured: {what}");
            self.missing.push(what);
        }
    }

    fn fail(&mut self, name: &str, error: &anyhow::Error) {
        eprintln!("    FAILED {name}: {error:#}");
        self.failed.push(format!("{name}: {error:#}"));
    }

    /// Returns the exit status that says how it went: 0 measured, 1 a case failed, 4 there was
    /// nothing that could be measured.
    pub fn status(benches: &[Self]) -> ExitCode {
        if benches.iter().any(|bench| !bench.failed.is_empty()) {
            ExitCode::FAILURE
        } else if benches.iter().all(|bench| bench.figures.is_empty()) {
            ExitCode::from(NOTHING_MEASURED)
        } else {
            ExitCode::SUCCESS
        }
    }

    /// Returns everything, with the machine and the commit, for `bench/runs/`.
    pub fn to_json(&self, command: &str) -> Value {
        json!({
            "bench": self.name,
            "command": command,
            "commit": machine::commit(),
            "machine": self.machine,
            "fitness": self.fitness.as_ref().map(Fitness::to_json),
            "steal_percent": self.steal_percent,
            "seconds": self.seconds,
            "figures": self.figures.to_json(),
            "not_measured": self.missing,
            "failed": self.failed,
            "raw": self.raw,
        })
    }
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    #[test]
    fn case_that_fails_is_noted_and_the_rest_goes_on() {
        let options = Options {
            tiny: true,
            ..Options::default()
        };
        let bench = Bench::measure("some", &options, |bench| {
            bench.case("first", &options, |_| bail!("no such thing"));
            bench.case("second", &options, |bench| {
                bench.push(Figure::new(("second", "ballast"), "time", "ms").values([1.0]));
                Ok(())
            });
            Ok(())
        });
        assert_eq!(bench.failed, ["first: no such thing"]);
        let json = bench.to_json("cargo xtask bench some");
        assert_eq!(json["figures"].as_array().map(Vec::len), Some(1));
        assert!(json["fitness"]["fit"].is_boolean());
        assert_eq!(Bench::status(&[bench]), ExitCode::FAILURE);
    }

    #[test]
    fn bench_without_a_figure_has_an_exit_status_of_its_own() {
        let nothing = Bench::new("l4");
        assert_eq!(Bench::status(&[nothing]), ExitCode::from(NOTHING_MEASURED));
    }
}
