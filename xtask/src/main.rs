//! `cargo xtask`: every task around the code, in Rust, so that a fresh machine needs cargo alone.
//!
//! It depends on little and builds in seconds. What it runs is shown before it runs. Whatever
//! drives clusters lives in `tests/`; here it is only built and started.

mod bench;
mod demo;
mod ebpf;
mod fuzz;
mod gate;
mod instructions;
mod progress;
mod readme;
mod setup;
mod shell;
mod tests_run;
mod tidy;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask COMMAND

  setup [test|demo|bench]    install the system packages that it needs (all without a name)
  ebpf [--check | --setup | --bench]
                             build the object for the kernel and keep it, or compare it,
                             install the tools alone (under target/bpf), or build what measures it
  tidy                       layers, file sizes, docs: what compilers do not check
  fmt                        format the code
  fix                        format, and apply what clippy can
  test [FILTER]              every test: unit, property, golden, simulation, cluster
  fuzz [TARGET…] [SECONDS]   libFuzzer against every decoder, or some, a minute each
  verify                     format check, tidy, clippy, docs, dependencies, tests; writes nothing
  demo [--json FILE]         a cluster on this machine, under load, with faults
  bench NAME [--json FILE] [--keep FOLDER | --no-keep] [--only CASE] [--runs N] [--pairs N]
             [--wait SECONDS] [--tiny]
                             scheduler, loadgen, l7, l4, autoscale, failover, scale, durable, fleet,
                             all; a whole run is kept in bench/runs and its figures go into the
                             README. Status 0 measured, 1 failed, 4 nothing could be measured
  bench readme               the README's measured part from the runs that are kept
  bench instructions [--bless | --profile NAME]
                             instructions of hot paths, held to bench/instructions.json
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["setup"] => setup::run(setup::Purpose::Bench),
        ["setup", name] => setup::Purpose::named(name).and_then(setup::run),
        ["ebpf", rest @ ..] => ebpf::run(rest),
        ["fuzz", rest @ ..] => fuzz::run(rest),
        ["tidy"] => tidy::run(),
        ["fmt"] => gate::fmt(),
        ["fix"] => gate::fix(),
        ["test", rest @ ..] => tests_run::run(rest),
        ["verify"] => gate::verify(),
        ["demo", rest @ ..] => demo::run(rest),
        ["bench", name, rest @ ..] => match bench::run(name, rest) {
            Ok(status) => return ExitCode::from(status),
            Err(error) => Err(error),
        },
        ["help" | "--help" | "-h"] => {
            print!("{USAGE}");
            Ok(())
        }
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
