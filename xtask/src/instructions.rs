//! Holds the instructions of hot paths to limits that are kept in the repository.
//!
//! Time is noisy where tests run; the number of instructions is not. Each case of
//! `bench/benches/instructions.rs` runs twice under callgrind, with different counts of its
//! operation: the difference is what one operation costs, without set-up. A case that got dearer
//! than its limit fails; one that got cheaper is only said, so that limits are tightened on
//! purpose.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::progress::step;
use crate::setup::{self, Purpose};
use crate::shell;

const LIMITS: &str = "bench/instructions.json";
/// The case that is no single operation: see [`whole_request`].
const WHOLE: &str = "lb/whole-request";
/// The profile of the tests: nothing is built twice, and the gate takes seconds. Dependencies are
/// optimised in it and our own code hardly, so the counts tell how much work a path does, and what
/// a change adds to it, not what it costs in a release.
const PROFILE: &str = "dev";
/// By how much a case may be dearer than its limit, in percent: another processor has other
/// variants of `memchr` and the like, another compiler other code.
const TOLERANCE_PERCENT: f64 = 4.0;
/// How often each operation is done: enough that one that is rare shows, and few for callgrind,
/// which is fifty times slower than the processor.
const COUNTS: [u64; 2] = [1_000, 5_000];

/// What is asked for on the command line.
#[derive(Debug, PartialEq, Eq)]
enum Wanted<'a> {
    /// The counts held to the limits.
    Check,
    /// The counts written as limits.
    Bless,
    /// The counts of another profile, shown only.
    Show(&'a str),
}

/// Counts, and compares with the limits; `--bless` writes them, `--profile NAME` shows the counts
/// of another profile.
///
/// # Errors
/// A case is dearer than its limit, or nothing can be counted.
pub fn run(args: &[&str]) -> Result<()> {
    let wanted = match args {
        [] => Wanted::Check,
        ["--bless"] => Wanted::Bless,
        ["--profile", name] => Wanted::Show(name),
        _ => bail!("usage: cargo xtask bench instructions [--bless | --profile NAME]"),
    };
    step("setup", || setup::run(Purpose::Test))?;
    ensure!(shell::has("valgrind"), "valgrind is not installed");
    let profile = if let Wanted::Show(name) = wanted {
        name
    } else {
        PROFILE
    };
    let counted = step("instructions", || count(profile))?;
    let path = shell::root().join(LIMITS);
    match wanted {
        Wanted::Show(_) => return Ok(()),
        Wanted::Bless => {
            let file = json!({"tolerance_percent": TOLERANCE_PERCENT, "instructions": counted});
            let text = serde_json::to_string_pretty(&file).context("the limits")?;
            std::fs::write(&path, text + "\n").context(LIMITS)?;
            eprintln!("    {LIMITS}: written");
            return Ok(());
        }
        Wanted::Check => {}
    }
    let text = std::fs::read_to_string(&path).context(LIMITS)?;
    let limits: Value = serde_json::from_str(&text).context(LIMITS)?;
    let complaints = compare(&counted, &limits);
    for complaint in &complaints {
        eprintln!("    {complaint}");
    }
    ensure!(complaints.is_empty(), "hot paths got dearer");
    Ok(())
}

/// Holds the limits as a part of the tests; without valgrind it says that it does not.
///
/// # Errors
/// A case is dearer than its limit, or does not run.
pub fn gate() -> Result<()> {
    if !shell::has("valgrind") {
        eprintln!("    SKIP: valgrind is not installed: instructions are not counted");
        return Ok(());
    }
    if !shell::root().join(LIMITS).is_file() {
        eprintln!(
            "    SKIP: there are no limits; `cargo xtask bench instructions --bless` writes them"
        );
        return Ok(());
    }
    run(&[])
}

/// Returns instructions per operation of each case.
fn count(profile: &str) -> Result<BTreeMap<String, u64>> {
    let program = build(profile)?;
    let list = shell::output(shell::command(&program).arg("list"))?;
    let mut counted = BTreeMap::new();
    for name in list.lines() {
        let [few, many] = COUNTS;
        let spent =
            instructions(&program, name, many)?.saturating_sub(instructions(&program, name, few)?);
        let each = spent / (many - few);
        eprintln!("    {each:>10}  {name}");
        counted.insert(name.to_owned(), each);
    }
    ensure!(!counted.is_empty(), "there is no case");
    let each = whole_request(&program, profile)?;
    eprintln!("    {each:>10}  {WHOLE}");
    counted.insert(WHOLE.to_owned(), each);
    Ok(counted)
}

/// Returns what a request costs a whole ingress in user space, from socket to socket.
fn whole_request(program: &Path, profile: &str) -> Result<u64> {
    let mut cargo = shell::cargo();
    cargo.args([
        "build",
        "--locked",
        "--workspace",
        "--bins",
        "--profile",
        profile,
    ]);
    shell::run(&mut cargo)?;
    let folder = if profile == "dev" { "debug" } else { profile };
    let mut command = shell::command(program);
    command.arg("ingress");
    command.env("BALLAST_BIN_DIR", shell::target_dir()?.join(folder));
    let said = shell::output(&mut command)?;
    let each = said.trim().parse();
    each.with_context(|| format!("no count of a whole request: {said}"))
}

/// Builds the program with the cases; returns where it is.
fn build(profile: &str) -> Result<PathBuf> {
    let mut cargo = shell::cargo();
    // The set of packages of the tests: what was built for them is used.
    cargo.args([
        "build",
        "--locked",
        "--workspace",
        "--bench",
        "instructions",
    ]);
    cargo.args(["--profile", profile]);
    cargo.args(["--message-format", "json-render-diagnostics"]);
    eprintln!("    building");
    let messages = shell::output(&mut cargo)?;
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == "instructions")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .context("cargo built no such program")
}

fn instructions(program: &Path, name: &str, count: u64) -> Result<u64> {
    let mut valgrind = shell::command("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    valgrind.arg(program).arg(name).arg(count.to_string());
    // The layout of memory moves hashes of addresses.
    valgrind.env("GLIBC_TUNABLES", "glibc.malloc.hugetlb=0");
    let output = valgrind.output().context("valgrind")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name} under callgrind: {said}");
    collected(&said).with_context(|| format!("callgrind says no count: {said}"))
}

/// Reads `==12== Collected : 34567` out of what callgrind says.
fn collected(text: &str) -> Option<u64> {
    let (_, rest) = text.split_once("Collected : ")?;
    rest.split_whitespace().next()?.parse().ok()
}

/// Returns what got dearer, or has no limit, or no case; says what got cheaper.
fn compare(counted: &BTreeMap<String, u64>, limits: &Value) -> Vec<String> {
    let tolerance = limits["tolerance_percent"].as_f64();
    let share = tolerance.unwrap_or(TOLERANCE_PERCENT) / 100.0;
    let remedy = "if meant, run `cargo xtask bench instructions --bless`";
    let mut complaints = Vec::new();
    for (name, now) in counted {
        let Some(was) = limits["instructions"][name].as_u64() else {
            complaints.push(format!("{name}: has no limit; {remedy}"));
            continue;
        };
        // A handful is the noise of a hash table that grows.
        let limit = (was as f64 * (1.0 + share)).ceil() + 8.0;
        if *now as f64 > limit {
            complaints.push(format!(
                "{name}: was {was}, now {now} instructions; {remedy}"
            ));
        } else if (*now as f64) < was as f64 * (1.0 - share) - 8.0 {
            eprintln!("    {name}: was {was}, now {now} instructions: cheaper; {remedy}");
        }
    }
    let known = limits["instructions"].as_object();
    for name in known.into_iter().flat_map(serde_json::Map::keys) {
        if !counted.contains_key(name) {
            complaints.push(format!(
                "{name}: has a limit and is no case any more; {remedy}"
            ));
        }
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(now: u64) -> BTreeMap<String, u64> {
        BTreeMap::from([("a".to_owned(), now)])
    }

    #[test]
    fn case_that_got_dearer_is_named_with_both_counts_and_the_remedy() {
        let limits = json!({"tolerance_percent": 3.0, "instructions": {"a": 812}});
        assert_eq!(compare(&counted(830), &limits), Vec::<String>::new());
        assert_eq!(compare(&counted(300), &limits), Vec::<String>::new());
        assert_eq!(
            compare(&counted(990), &limits),
            ["a: was 812, now 990 instructions; if meant, run \
              `cargo xtask bench instructions --bless`"]
        );
    }

    #[test]
    fn case_without_limit_and_limit_without_case_are_named() {
        let limits = json!({"instructions": {"b": 1}});
        let complaints = compare(&counted(1), &limits);
        assert!(
            complaints[0].starts_with("a: has no limit"),
            "{complaints:?}"
        );
        assert!(
            complaints[1].starts_with("b: has a limit"),
            "{complaints:?}"
        );
    }

    #[test]
    fn count_is_read_out_of_what_callgrind_says() {
        let text = "==7== Events    : Ir\n==7== Collected : 123456\n==7== \n";
        assert_eq!(collected(text), Some(123_456));
        assert_eq!(collected("killed"), None);
    }
}
