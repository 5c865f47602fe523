//! The binary `ballast-loadgen`.
//!
//! Exit status 0: valid and within the asserted objectives; 1: an objective missed; 2: usage, or
//! the run could not be made; 3: invalid, the generator or the number of connections was the limit.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use ballast_loadgen::{Arrivals, Load, Slo, Target, Verdict, slo};
use clap::Parser;

/// Drives a URL and measures it from the times at which requests were due.
#[derive(Debug, Parser)]
#[command(name = "ballast-loadgen", version)]
struct Args {
    /// What to drive: http://HOST[:PORT]/PATH
    url: Target,
    /// Requests a second (an open loop); without it each connection asks as fast as it is answered
    #[arg(long)]
    rate: Option<f64>,
    /// How long
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    duration: Duration,
    /// Connections kept open
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// How requests are spread over time; needs --rate
    #[arg(long, value_enum, default_value_t)]
    arrivals: Arrivals,
    /// Share of requests that are POSTs
    #[arg(long, default_value_t = 0.0)]
    post_ratio: f64,
    /// Bytes in the body of a POST
    #[arg(long, default_value_t = 16)]
    body_bytes: usize,
    /// Give each request an X-Request-Id of its own
    #[arg(long)]
    request_ids: bool,
    /// Add a header, such as 'Host: example.test'
    #[arg(long = "header", short = 'H', value_name = "LINE", value_parser = parse_header)]
    headers: Vec<String>,
    /// Give a request up after this long
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    timeout: Duration,
    /// Assert an objective: p50|p90|p99|p999|max=DURATION or errors=NUMBER
    #[arg(long, value_name = "FIGURE=LIMIT")]
    slo: Vec<Slo>,
    /// Seed of the arrival gaps and of the choice of methods
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write the report as JSON to a file, or to standard output with `-`
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Speak HTTP/2
    #[arg(long)]
    http2: bool,
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    slo::duration(text).ok_or_else(|| format!("`{text}` is not a duration such as 10s or 500ms"))
}

fn parse_header(line: &str) -> Result<String, String> {
    let whole = line
        .split_once(':')
        .is_some_and(|(name, _)| !name.is_empty());
    if whole && !line.contains(['\r', '\n']) {
        Ok(line.to_owned())
    } else {
        Err(format!("`{line}` is not NAME: VALUE"))
    }
}

impl Args {
    fn load(&self) -> Load {
        Load {
            rate: self.rate,
            duration: self.duration,
            connections: self.connections,
            arrivals: self.arrivals,
            post_ratio: self.post_ratio,
            body_bytes: self.body_bytes,
            request_ids: self
                .request_ids
                .then(|| format!("{:x}", std::process::id())),
            headers: self.headers.clone(),
            timeout: self.timeout,
            seed: self.seed,
            ..Load::new(self.url.clone())
        }
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("ballast-loadgen: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &Args) -> anyhow::Result<u8> {
    anyhow::ensure!(
        !args.http2,
        "--http2 is not built yet; only HTTP/1.1 is spoken"
    );
    anyhow::ensure!(
        args.rate.is_some() || args.arrivals == Arrivals::Constant,
        "--arrivals needs --rate: a closed loop has no schedule"
    );
    let report = ballast_loadgen::start(args.load())?.join()?.report;
    let to_stdout = args
        .json
        .as_ref()
        .is_some_and(|path| path.as_os_str() == "-");
    if let Some(path) = &args.json {
        let mut json = serde_json::to_string_pretty(&report)?;
        json.push('\n');
        if to_stdout {
            print!("{json}");
        } else {
            std::fs::write(path, json)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    if !to_stdout {
        print!("{report}");
    }
    let misses: Vec<_> = args
        .slo
        .iter()
        .filter_map(|slo| slo.miss(&report))
        .collect();
    for miss in &misses {
        eprintln!("SLO missed: {miss}");
    }
    Ok(match (report.verdict, misses.is_empty()) {
        (Verdict::Invalid, _) => 3,
        (Verdict::Valid, false) => 1,
        (Verdict::Valid, true) => 0,
    })
}
