//! The flags.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use ballast_loadgen::Slo;
use ballast_loadgen::compare::args::CompareArgs;
use ballast_loadgen::plan::profile_file::Interpolation;
use ballast_loadgen::plan::units::{self, Cores};
use ballast_loadgen::plan::{Check, EngineChoice, Think, Wave};

use super::compare::AbCommand;
use super::target::{HeaderLine, TargetSpec};

/// Exit status, as `--help` tells.
const AFTER_HELP: &str = "\
Exit status: 0 valid and within the objectives; 1 an objective missed; 2 usage, or the run could \
not be made; 3 INVALID: the figures are the generator's, not the target's; 4 measured and printed, \
but a result could not be written.

Examples:
  ballast-loadgen --rate 20k --duration 30s --slo 'p99<20ms' http://10.0.0.1:8080/
  ballast-loadgen --rate 500 --arrivals poisson --json run.json --html run.html https://host/a
  ballast-loadgen --profile sawtooth:100..2000/10s --duration 1m http://host/
  ballast-loadgen --replay access.log --speed 2 http://host/
  ballast-loadgen --find-max --slo 'p99<20ms' --slo 'errors<0.1%' http://host/
  ballast-loadgen --rate 100k --workers 10.0.0.2:7000,10.0.0.3:7000 http://host/";

/// Drives URLs and measures them from the times at which requests were due
///
/// With a rate (or a profile, or a log) it is an open loop: requests are made when they are due,
/// answered or not. Without, each connection asks as fast as it is answered.
#[derive(Debug, Parser)]
#[command(
    name = "ballast-loadgen",
    version,
    after_help = AFTER_HELP,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
pub struct Cli {
    /// Something other than one run.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// One run.
    #[command(flatten)]
    pub run: RunArgs,
}

/// Something other than one run.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Compare the reports of earlier runs: the first side with each other one
    Compare(CompareArgs),
    /// Drive two URLs in turn until it is known how they differ
    Ab(Box<AbCommand>),
    /// Wait for plans of a coordinator on other hosts, and run them
    Worker(WorkerArgs),
    /// Run one plan on several workers and merge what they measure
    Coordinate(Box<RunArgs>),
}

/// One run.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// What is asked.
    #[command(flatten)]
    pub ask: AskArgs,
    /// What is spoken.
    #[command(flatten)]
    pub speak: SpeakArgs,
    /// When.
    #[command(flatten)]
    pub load: LoadArgs,
    /// Over which connections.
    #[command(flatten)]
    pub wire: WireArgs,
    /// With what.
    #[command(flatten)]
    pub machine: MachineArgs,
    /// Judged how.
    #[command(flatten)]
    pub judge: JudgeArgs,
    /// Written where.
    #[command(flatten)]
    pub out: OutArgs,
}

/// What is asked.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "What is asked")]
pub struct AskArgs {
    /// What to drive, such as http://HOST:PORT/PATH; several share the requests. Also https, h2c,
    /// grpc, grpcs, ws, wss, tcp, udp. The path may have {{counter}}, {{random:1..100}} and
    /// {{letters:8}} in it
    #[arg(value_name = "URL")]
    pub urls: Vec<String>,
    /// A target with its share of the requests: 'weight=3,url=http://host/'
    #[arg(long = "target", value_name = "weight=N,url=URL")]
    pub targets: Vec<TargetSpec>,
    /// The method; GET without a body, POST with one
    #[arg(long, value_name = "METHOD")]
    pub method: Option<http::Method>,
    /// The body; may have places, as the path
    #[arg(long, value_name = "TEXT", conflicts_with = "body_file")]
    pub body: Option<String>,
    /// The body, as it is in a file
    #[arg(long, value_name = "FILE")]
    pub body_file: Option<PathBuf>,
    /// Add a header, such as 'Host: example.test'; the value may have places
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE")]
    pub headers: Vec<HeaderLine>,
    /// Share of requests that are POSTs, from 0 to 1
    #[arg(long, value_name = "SHARE", value_parser = units::share, conflicts_with = "method")]
    pub post_ratio: Option<f64>,
    /// Bytes in the body of a POST that has no --body
    #[arg(long, value_name = "N", conflicts_with_all = ["body", "body_file"])]
    pub body_bytes: Option<usize>,
    /// Give each request an X-Request-Id of its own
    #[arg(long)]
    pub request_ids: bool,
}

/// What is spoken.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "What is spoken (by the URL's scheme, or)")]
pub struct SpeakArgs {
    /// HTTP/2
    #[arg(long, group = "protocol")]
    pub http2: bool,
    /// gRPC unary calls: the path is /package.Service/Method, the body the message
    #[arg(long, group = "protocol")]
    pub grpc: bool,
    /// WebSocket: the body is sent and must come back
    #[arg(long, group = "protocol")]
    pub websocket: bool,
    /// Open and close a TCP connection for each request
    #[arg(long, group = "protocol")]
    pub tcp_connect: bool,
    /// Send the body on a TCP connection; it must come back
    #[arg(long, group = "protocol")]
    pub tcp_echo: bool,
    /// Send the body as a datagram; it must come back
    #[arg(long, group = "protocol")]
    pub udp_echo: bool,
    /// HTTP/1.1 requests in flight on one connection
    #[arg(long, value_name = "N")]
    pub pipeline: Option<u32>,
    /// HTTP/2 and gRPC requests in flight on one connection
    #[arg(long, value_name = "N")]
    pub streams: Option<u32>,
    /// Trust the certificates in this PEM file, too
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Take any certificate
    #[arg(long)]
    pub insecure: bool,
    /// The name that TLS asks for and checks, instead of the URL's host
    #[arg(long, value_name = "NAME")]
    pub server_name: Option<String>,
}

/// How gaps are, and the one shape that has a name of old.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Arrivals {
    /// The same gap between any two
    Constant,
    /// Exponential gaps, as from many independent users
    Poisson,
    /// Gaps drawn evenly from 0 to twice their mean
    Uniform,
    /// From --ramp-from to --rate, evenly over the duration
    Ramp,
}

/// When.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "When")]
pub struct LoadArgs {
    /// Requests a second (an open loop), such as 500, 20k or 1.5M
    #[arg(long, value_name = "N", value_parser = units::rate, allow_hyphen_values = true)]
    pub rate: Option<f64>,
    /// How long, such as 10s or 5m [default: 10s; of a file or log: its length]
    #[arg(long, value_name = "TIME", value_parser = units::span, allow_hyphen_values = true)]
    pub duration: Option<Duration>,
    /// How requests are spread over time [default: constant]
    #[arg(long, value_enum, value_name = "HOW")]
    pub arrivals: Option<Arrivals>,
    /// The rate at the start of a ramp
    #[arg(long, value_name = "N", value_parser = units::rate_or_zero)]
    pub ramp_from: Option<f64>,
    /// A rate that changes: ramp:0..1000, step:100,200/5s,400, spike:5000@3s+500ms (from --rate),
    /// sawtooth:100..1000/5s
    #[arg(long, value_name = "SHAPE", conflicts_with_all = ["profile_file", "replay"])]
    pub profile: Option<Wave>,
    /// A rate over time from a file: CSV lines TIME,RATE or YAML
    #[arg(long, value_name = "FILE", conflicts_with_all = ["replay", "rate"])]
    pub profile_file: Option<PathBuf>,
    /// Between the points of a profile file
    #[arg(long, value_enum, value_name = "HOW", requires = "profile_file")]
    pub interpolate: Option<Interpolation>,
    /// Ask again what an access log tells of, with its own timing: combined format, or lines TIME
    /// METHOD PATH
    #[arg(long, value_name = "FILE", conflicts_with_all = ["rate", "arrivals", "method", "post_ratio", "targets"])]
    pub replay: Option<PathBuf>,
    /// How many times as fast as the log
    #[arg(
        long,
        value_name = "N",
        requires = "replay",
        allow_hyphen_values = true
    )]
    pub speed: Option<f64>,
    /// Leave out what does not parse in a log, and sort it, and count both
    #[arg(long, requires = "replay")]
    pub replay_lenient: bool,
    /// Pause of a closed loop between an answer and the next request: 10ms, or exp:10ms for
    /// exponential ones of that mean
    #[arg(long, value_name = "TIME", value_parser = super::target::think)]
    pub think: Option<Think>,
    /// Seed of every random draw
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
}

/// Over which connections.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Connections")]
pub struct WireArgs {
    /// Connections kept open
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub connections: usize,
    /// Close a connection after this many requests
    #[arg(long, value_name = "N")]
    pub requests_per_connection: Option<u64>,
    /// Close and reopen this many connections a second
    #[arg(long, value_name = "N", value_parser = units::rate)]
    pub connections_per_second: Option<f64>,
    /// Close connections with a RST, which leaves no local port waiting
    #[arg(long)]
    pub reset: bool,
    /// Give a request up after this long
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = units::span)]
    pub timeout: Duration,
    /// Give up connecting after this long, TLS included
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = units::span)]
    pub connect_timeout: Duration,
}

/// With what.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Generator")]
pub struct MachineArgs {
    /// What drives the connections
    #[arg(long, value_enum, value_name = "ENGINE", default_value_t)]
    pub engine: EngineChoice,
    /// Pin one thread to each core: all, how many, or which: 0,1 or 2-5 or 3, [default: one
    /// thread, not pinned]
    #[arg(long, value_name = "CORES")]
    pub cores: Option<Cores>,
    /// Run on these workers instead of here, and merge what they measure
    #[arg(
        long,
        value_name = "HOST:PORT,…",
        value_delimiter = ',',
        conflicts_with = "cores"
    )]
    pub workers: Vec<String>,
    /// What workers were told to ask for
    #[arg(
        long,
        value_name = "TOKEN",
        env = "BALLAST_LOADGEN_TOKEN",
        hide_env_values = true
    )]
    pub token: Option<String>,
    /// Refuse workers whose clock is not known to within this
    #[arg(long, value_name = "TIME", default_value = "5ms", value_parser = units::span)]
    pub clock_bound: Duration,
}

/// Judged how.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Judgement")]
pub struct JudgeArgs {
    /// What an answer must be like: statuses (200,204,3xx), body~TEXT, header:NAME~TEXT, bytes=N
    #[arg(long, value_name = "CHECK")]
    pub check: Vec<Check>,
    /// An objective, such as 'p99<20ms' or 'errors<0.1%'
    #[arg(long, value_name = "FIGURE<LIMIT")]
    pub slo: Vec<Slo>,
    /// Search the highest rate that meets the objectives; --rate is where to begin
    #[arg(long, requires = "slo", conflicts_with_all = ["profile", "profile_file", "replay", "think"])]
    pub find_max: bool,
}

/// Written where.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Results")]
pub struct OutArgs {
    /// Write the report as JSON to a file, or to standard output with `-`
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write what happened when as CSV, a line for each second (of a long run: several)
    #[arg(long, value_name = "FILE", conflicts_with = "find_max")]
    pub csv: Option<PathBuf>,
    /// Write the histograms as an interval log of HdrHistogram
    #[arg(long, value_name = "FILE", conflicts_with = "find_max")]
    pub hlog: Option<PathBuf>,
    /// Write one page with plots, for a browser or for paper
    #[arg(long, value_name = "FILE", conflicts_with = "find_max")]
    pub html: Option<PathBuf>,
    /// Serve /metrics for Prometheus while it runs
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "find_max", value_parser = super::target::address)]
    pub prometheus: Option<std::net::SocketAddr>,
    /// Say nothing while it runs
    #[arg(long, short)]
    pub quiet: bool,
}

/// What a worker is told.
#[derive(Debug, Args)]
pub struct WorkerArgs {
    /// Where coordinators connect
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7000", value_parser = super::target::address)]
    pub listen: std::net::SocketAddr,
    /// Take plans only of those who know this
    #[arg(
        long,
        value_name = "TOKEN",
        env = "BALLAST_LOADGEN_TOKEN",
        hide_env_values = true
    )]
    pub token: Option<String>,
    /// Pin one thread to each core: all, how many, or which: 0,1 or 2-5 or 3, [default: all]
    #[arg(long, value_name = "CORES")]
    pub cores: Option<Cores>,
    /// End after one run
    #[arg(long)]
    pub once: bool,
}
