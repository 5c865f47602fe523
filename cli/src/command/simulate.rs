//! `ballast simulate`: the scheduler on traces, in this process.

use std::io::{IsTerminal, Read as _};
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use ballast_model::Policy;
use ballast_simulate::trace::{
    Generated, TraceError, TraceNode, TraceTasks, Uniform, read_nodes, read_tasks,
};
use ballast_simulate::{
    Fleet, Options, Progress, Protocol, Simulated, Workload, picture, simulate,
};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::Failure;
use crate::args::{Output, PolicyArg, ProtocolArg, SimulateArgs};
use crate::render::{self, Style};

/// Bytes of one list: past it a trace is not held in memory.
const TRACE_BYTES: u64 = 4 << 30;
/// Steps of the progress bar.
const STEPS: u64 = 1000;
/// Nothing is drawn of what ends before.
const DRAW_AFTER: Duration = Duration::from_millis(300);
/// Seeds of a protocol with random draws.
const FGD_SEEDS: u64 = 10;

/// Simulates, prints the figures and draws the picture.
///
/// # Errors
/// What is wrong with the lists, or why the protocol cannot be run with them.
pub fn run(args: &SimulateArgs, output: Output) -> Result<(), Failure> {
    let options = options(args)?;
    let nodes = nodes(&args.nodes)?;
    let tasks = tasks(&args.tasks)?;
    if tasks.jumps.rows > 0 {
        eprintln!(
            "warning: {}: times go backwards in {} rows, by up to {}, first in line {}; tasks are \
             taken in the order of their times in a replay",
            args.tasks, tasks.jumps.rows, tasks.jumps.farthest, tasks.jumps.first_line
        );
    }
    let fleet = Fleet::new(&nodes);
    let workload = Workload::new(&tasks, policy(args.policy))
        .map_err(|error| Failure::Failed(format!("{}: {error}", args.tasks)))?;
    let bar = Bar::new(args.quiet, options);
    let simulated = simulate(&fleet, &workload, options, &|progress| bar.show(progress))
        .map_err(|error| Failure::Failed(error.to_string()))?;
    bar.finish();
    if let Some(file) = &args.svg {
        draw(file, args, &simulated)?;
    }
    match output {
        Output::Json => render::json(&simulated.report),
        Output::Table => render::line(&render::simulation(&simulated.report, Style::detect())),
    }
}

fn options(args: &SimulateArgs) -> Result<Options, Failure> {
    let protocol = match args.protocol {
        ProtocolArg::Once => Protocol::Once,
        ProtocolArg::Fgd => Protocol::Fgd,
        ProtocolArg::Replay => Protocol::Replay,
    };
    if args.migrate_percent_per_hour != 0.0 && protocol != Protocol::Replay {
        return Err(Failure::Usage(format!(
            "`--migrate-percent-per-hour` needs time to pass: use it with `--protocol replay`, \
             not `{protocol}`"
        )));
    }
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    Ok(Options {
        protocol,
        seeds: args.seeds.unwrap_or(match protocol {
            Protocol::Fgd => FGD_SEEDS,
            Protocol::Once | Protocol::Replay => 1,
        }),
        threads: args.threads.unwrap_or_else(cores).max(1),
        migrate_percent_per_hour: args.migrate_percent_per_hour,
    })
}

const fn policy(arg: PolicyArg) -> Policy {
    match arg {
        PolicyArg::Auto => Policy::Auto,
        PolicyArg::Binpack => Policy::Binpack,
        PolicyArg::Spread => Policy::Spread,
        PolicyArg::Fgd => Policy::Fgd,
    }
}

fn nodes(given: &str) -> Result<Vec<TraceNode>, Failure> {
    if given.starts_with("uniform:") {
        let uniform: Uniform = given.parse().map_err(|error| usage("--nodes", error))?;
        return Ok(uniform.nodes());
    }
    read(given, read_nodes)
}

fn tasks(given: &str) -> Result<TraceTasks, Failure> {
    if given.starts_with("generated:") {
        let generated: Generated = given.parse().map_err(|error| usage("--tasks", error))?;
        return Ok(generated.tasks());
    }
    read(given, read_tasks)
}

fn usage(flag: &str, error: impl std::fmt::Display) -> Failure {
    Failure::Usage(format!("{flag}: {error}"))
}

fn read<T>(file: &str, list: fn(&[u8]) -> Result<T, TraceError>) -> Result<T, Failure> {
    let doing = format!("cannot read {file}");
    let failed = |error: std::io::Error| Failure::while_doing(&doing, error);
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(file).map_err(failed)?;
    let mut limited = opened.take(TRACE_BYTES + 1);
    limited.read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > TRACE_BYTES {
        return Err(Failure::while_doing(&doing, "it has more than 4 GiB"));
    }
    list(&bytes).map_err(|error| Failure::Failed(format!("{file}: {error}")))
}

fn draw(file: &Path, args: &SimulateArgs, simulated: &Simulated) -> Result<(), Failure> {
    let report = &simulated.report;
    let title = format!("{} on {}", name(&args.tasks), name(&args.nodes));
    let run = &report.runs[0];
    let subtitle = format!(
        "policy {}, protocol {}: {} tasks placed, {} not; {} nodes, at most {} in use",
        report.policy, report.protocol, run.placed, run.unplaced, report.nodes, run.nodes_used_peak
    );
    let svg = picture::draw(&simulated.timeline, &title, &subtitle);
    std::fs::write(file, svg)
        .map_err(|error| Failure::while_doing(&format!("cannot write {}", file.display()), error))
}

/// Returns what a title calls a list: its file's name without folder and ending.
fn name(given: &str) -> String {
    let path = Path::new(given);
    match path.file_stem() {
        Some(stem) if !given.contains(':') => stem.to_string_lossy().into_owned(),
        _ => given.to_owned(),
    }
}

/// Progress over all runs, on standard error; nothing if that is no terminal.
struct Bar {
    bar: ProgressBar,
    /// How much of each run is done.
    done: Mutex<Vec<f64>>,
}

impl Bar {
    fn new(quiet: bool, options: Options) -> Self {
        let target = if quiet || !std::io::stderr().is_terminal() {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr_with_hz(10)
        };
        let style = ProgressStyle::with_template("{msg} [{bar:40}] {percent} % {eta} left")
            .expect("a template that is part of the program");
        let bar = ProgressBar::with_draw_target(Some(STEPS), target);
        let runs = match options.protocol {
            Protocol::Fgd => options.seeds,
            Protocol::Once | Protocol::Replay => 1,
        };
        Self {
            bar: bar
                .with_style(style.progress_chars("=> "))
                .with_message("simulating"),
            done: Mutex::new(vec![0.0; usize::try_from(runs).unwrap_or(1)]),
        }
    }

    fn show(&self, progress: Progress) {
        if self.bar.is_hidden() || self.bar.elapsed() < DRAW_AFTER {
            return;
        }
        let Ok(mut done) = self.done.lock() else {
            return;
        };
        let run = usize::try_from(progress.seed)
            .unwrap_or(1)
            .saturating_sub(1);
        if let Some(of_run) = done.get_mut(run) {
            *of_run = progress.done;
        }
        let mean = done.iter().sum::<f64>() / done.len() as f64;
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of STEPS"
        )]
        self.bar.set_position((mean * STEPS as f64) as u64);
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
