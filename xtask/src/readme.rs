//! The measured part of the README, made from what benches have kept: no figure there is typed.
//!
//! `bench/measured.md` is the text, with places such as
//! `{{failover; kill one of 5; ballast; replacement answering; p99; .1}}`: bench, case, subject,
//! figure, statistic, and optionally how it is written. Each place is filled from the newest run in
//! `bench/runs` that has that figure; `–` says that none has. A case that ends in `*` is every case
//! that begins so, and the statistic `mean` the mean of their medians. `{{runs}}` lists the runs
//! that were used.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::shell;

const README: &str = "README.md";
const TEMPLATE: &str = "bench/measured.md";
const RUNS: &str = "bench/runs";
const BEGIN: &str = "<!-- measured: made by `cargo xtask bench readme` from bench/measured.md -->";
const END: &str = "<!-- end of measured -->";
/// What stands where nothing was measured.
const NOTHING: &str = "–";

/// Writes the measured part anew.
///
/// # Errors
/// A file cannot be read or written, or a place in the text is not one.
pub fn write() -> Result<()> {
    let path = shell::root().join(README);
    let readme = std::fs::read_to_string(&path).context(README)?;
    let fresh = refreshed(&readme, &shell::root())?;
    if fresh != readme {
        std::fs::write(&path, fresh).context(README)?;
        eprintln!("    {README}: the measured part is new");
    }
    Ok(())
}

/// Returns what is wrong with the measured part: it must say what the runs say.
pub fn check() -> Vec<String> {
    let root = shell::root();
    let readme = std::fs::read_to_string(root.join(README)).unwrap_or_default();
    match refreshed(&readme, &root) {
        Ok(fresh) if fresh == readme => Vec::new(),
        Ok(_) => vec![format!(
            "{README}: its measured part is not what the runs say; run `cargo xtask bench readme`"
        )],
        Err(error) => vec![format!("{README}: {error:#}")],
    }
}

fn refreshed(readme: &str, root: &Path) -> Result<String> {
    let (before, rest) = readme
        .split_once(BEGIN)
        .context("it has no measured part")?;
    let (_, after) = rest
        .split_once(END)
        .context("its measured part has no end")?;
    let template = std::fs::read_to_string(root.join(TEMPLATE)).context(TEMPLATE)?;
    let runs = Runs::read(&root.join(RUNS))?;
    let block = render(template.trim(), &runs).context(TEMPLATE)?;
    Ok(format!("{before}{BEGIN}\n\n{block}\n\n{END}{after}"))
}

/// One file of a kept run.
struct Run {
    bench: String,
    /// Relative to the root.
    path: String,
    /// Sorts runs by age.
    age: (String, String),
    figures: Vec<Value>,
}

/// Every run that was kept, the newest first.
struct Runs(Vec<Run>);

impl Runs {
    fn read(folder: &Path) -> Result<Self> {
        let mut runs = Vec::new();
        for day in entries(folder)? {
            let name = file_name(&day);
            // Such as 2026-11-22-scheduler.
            let Some(bench) = name.splitn(4, '-').nth(3).filter(|_| day.is_dir()) else {
                continue;
            };
            for file in entries(&day)? {
                if file.extension().is_none_or(|it| it != "json") {
                    continue;
                }
                let text = std::fs::read_to_string(&file).context(name.clone())?;
                let json: Value = serde_json::from_str(&text).context(name.clone())?;
                let at = json["at"].as_str().unwrap_or_default();
                // The first runs were kept as bare arrays of figures.
                let figures = json.as_array().or_else(|| json["figures"].as_array());
                runs.push(Run {
                    bench: bench.to_owned(),
                    path: format!("{RUNS}/{name}/{}", file_name(&file)),
                    age: (name.clone(), at.to_owned()),
                    figures: figures.cloned().unwrap_or_default(),
                });
            }
        }
        runs.sort_by(|one, other| (&other.age, &other.path).cmp(&(&one.age, &one.path)));
        Ok(Self(runs))
    }

    /// Returns the newest run with that figure, and the figure.
    fn find(&self, bench: &str, case: &str, subject: &str, name: &str) -> Option<(&Run, &Value)> {
        self.0
            .iter()
            .filter(|run| run.bench == bench)
            .find_map(|run| {
                let figure = run.figures.iter().find(|figure| {
                    figure["case"] == case
                        && figure["subject"] == subject
                        && figure["figure"] == name
                })?;
                Some((run, figure))
            })
    }
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    Ok(entries.flatten().map(|entry| entry.path()).collect())
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

fn render(template: &str, runs: &Runs) -> Result<String> {
    let mut text = String::new();
    let mut used = BTreeSet::new();
    // The list is known when all the others are filled in.
    const LIST: &str = "{{runs}}";
    let mut rest = template;
    while let Some((before, from)) = rest.split_once("{{") {
        let (place, after) = from.split_once("}}").context("a place has no end")?;
        text += before;
        if place == "runs" {
            text += LIST;
        } else {
            text += &fill(place, runs, &mut used).with_context(|| format!("{{{{{place}}}}}"))?;
        }
        rest = after;
    }
    text += rest;
    let links: Vec<String> = used
        .iter()
        .map(|path| {
            let name = path.trim_start_matches(RUNS).trim_matches('/');
            format!("[{}]({path})", name.trim_end_matches("/run.json"))
        })
        .collect();
    Ok(text.replace(LIST, &links.join(", ")))
}

fn fill(place: &str, runs: &Runs, used: &mut BTreeSet<String>) -> Result<String> {
    let parts: Vec<&str> = place.split(';').map(str::trim).collect();
    let (bench, case, subject, name, stat, format) = match parts.as_slice() {
        [bench, case, subject, name, stat] => (*bench, *case, *subject, *name, *stat, ""),
        [bench, case, subject, name, stat, format] => {
            (*bench, *case, *subject, *name, *stat, *format)
        }
        _ => bail!("wants bench; case; subject; figure; statistic[; format]"),
    };
    if let Some(prefix) = case.strip_suffix('*') {
        ensure!(stat == "mean", "over several cases there is only the mean");
        return mean(runs, bench, prefix, (subject, name), used)
            .map_or(Ok(NOTHING.to_owned()), |mean| written(mean, format));
    }
    let Some((run, figure)) = runs.find(bench, case, subject, name) else {
        return Ok(NOTHING.to_owned());
    };
    used.insert(run.path.clone());
    if stat == "goals" {
        return Ok(goals(figure));
    }
    let key = if stat == "p50" { "median" } else { stat };
    ensure!(
        ["median", "p99", "min", "max", "sum", "runs"].contains(&key),
        "there is no statistic `{stat}`"
    );
    // A figure without values has none; JSON knows no NaN.
    figure[key]
        .as_f64()
        .map_or(Ok(NOTHING.to_owned()), |value| written(value, format))
}

/// Returns the mean of the medians of all cases that begin with `prefix`; none without any.
fn mean(
    runs: &Runs,
    bench: &str,
    prefix: &str,
    (subject, name): (&str, &str),
    used: &mut BTreeSet<String>,
) -> Option<f64> {
    let all = runs.0.iter().flat_map(|run| &run.figures);
    let cases: BTreeSet<&str> = all
        .filter_map(|figure| figure["case"].as_str())
        .filter(|case| case.starts_with(prefix))
        .collect();
    let medians: Vec<f64> = cases
        .into_iter()
        .filter_map(|case| runs.find(bench, case, subject, name))
        .filter_map(|(run, figure)| {
            used.insert(run.path.clone());
            figure["median"].as_f64()
        })
        .collect();
    (!medians.is_empty()).then(|| medians.iter().sum::<f64>() / medians.len() as f64)
}

/// Returns how the figure does by its goals, such as `≤ 8: met`.
fn goals(figure: &Value) -> String {
    let goals = figure["goals"].as_array().into_iter().flatten();
    let goals: Vec<String> = goals
        .map(|goal| {
            let sign = if goal["at_least"] == true {
                "≥"
            } else {
                "≤"
            };
            let limit = goal["limit"].as_f64().unwrap_or_default();
            let met = if goal["met"] == true {
                "met"
            } else {
                "**missed**"
            };
            format!("{sign} {}: {met}", significant(limit))
        })
        .collect();
    if goals.is_empty() {
        NOTHING.to_owned()
    } else {
        goals.join(", ")
    }
}

/// Returns `value` by a format such as `.2` (decimals) and `/1000` (divided first), both optional,
/// separated by a blank.
fn written(value: f64, format: &str) -> Result<String> {
    let mut value = value;
    let mut decimals = None;
    for word in format.split_whitespace() {
        if let Some(by) = word.strip_prefix('/') {
            value /= by.parse::<f64>().context("what to divide by")?;
        } else if let Some(places) = word.strip_prefix('.') {
            decimals = Some(places.parse::<usize>().context("decimals")?);
        } else {
            bail!("`{word}` is no format; there are .DECIMALS and /DIVISOR");
        }
    }
    Ok(match decimals {
        Some(places) => thousands(&format!("{value:.places$}")),
        None => significant(value),
    })
}

/// Returns three significant digits, and all of those before the point.
fn significant(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return "0".to_owned();
    }
    // A decimal more for each power of ten that is missing from three digits.
    let places = [100.0, 10.0, 1.0, 0.1, 0.01, 0.001]
        .iter()
        .position(|least| value.abs() >= *least)
        .unwrap_or(6);
    let text = format!("{value:.places$}");
    let text = if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        &text
    };
    thousands(text)
}

/// Puts commas between thousands.
fn thousands(text: &str) -> String {
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let (sign, digits) = match whole.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", whole),
    };
    let mut out = String::from(sign);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    // Writing to a string does not fail.
    let _ = write!(out, "{rest}");
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn run(bench: &str, day: &str, figures: Value) -> Run {
        Run {
            bench: bench.to_owned(),
            path: format!("{RUNS}/{day}-{bench}/run.json"),
            age: (format!("{day}-{bench}"), String::new()),
            figures: figures.as_array().cloned().unwrap_or_default(),
        }
    }

    fn figure(name: &str, median: f64) -> Value {
        json!({
            "case": "kill", "subject": "ballast", "figure": name, "unit": "ms",
            "median": median, "p99": 2.0 * median, "runs": 5,
            "goals": [{"limit": 1.0, "met": false}],
        })
    }

    #[test]
    fn place_is_filled_from_the_newest_run_that_has_the_figure() {
        let runs = Runs(vec![
            run("failover", "2026-12-02", json!([figure("out", 0.744)])),
            run(
                "failover",
                "2026-12-01",
                json!([figure("out", 9.0), figure("in", 3.0)]),
            ),
        ]);
        let text = "out {{failover; kill; ballast; out; p50}} ms, in \
                    {{failover; kill; ballast; in; p99; .1}} ms, {{scale; a; b; c; max}}; \
                    {{failover; kill; ballast; out; goals}}; {{runs}}";
        assert_eq!(
            render(text, &runs).expect("renders"),
            "out 0.744 ms, in 6.0 ms, –; ≤ 1: **missed**; \
             [2026-12-01-failover](bench/runs/2026-12-01-failover/run.json), \
             [2026-12-02-failover](bench/runs/2026-12-02-failover/run.json)"
        );
    }

    #[test]
    fn mean_is_over_all_cases_that_begin_alike() {
        let figure = |case: &str, median| {
            let mut figure = figure("full", median);
            figure["case"] = case.into();
            figure
        };
        let figures = json!([
            figure("list a", 1.0),
            figure("list b", 2.0),
            figure("other", 9.0)
        ]);
        let runs = Runs(vec![run("pack", "2026-12-02", figures)]);
        let text = "{{pack; list *; ballast; full; mean; .2}}";
        assert_eq!(render(text, &runs).expect("renders"), "1.50");
    }

    #[test]
    fn place_that_is_none_is_an_error() {
        let runs = Runs(vec![run("a", "2026-12-02", json!([figure("out", 1.0)]))]);
        for bad in [
            "{{a; kill}}",
            "{{a; kill; ballast; out; mean}}",
            "{{a; kill; ballast; out; p50; wide}}",
            "{{a; kill; ballast; out; p50",
        ] {
            assert!(render(bad, &runs).is_err(), "{bad}");
        }
    }

    #[test]
    fn numbers_have_three_digits_that_matter_and_commas() {
        for (value, text) in [
            (0.7449, "0.745"),
            (12.0, "12"),
            (4.5, "4.5"),
            (4_700_123.0, "4,700,123"),
            (-1234.5, "-1,234"),
            (0.0, "0"),
        ] {
            assert_eq!(significant(value), text);
        }
        assert_eq!(written(4_712_000.0, "/1e6 .1").expect("a format"), "4.7");
        assert_eq!(written(16664.0, "/1024 .0").expect("a format"), "16");
    }

    #[test]
    fn only_what_stands_between_the_marks_changes() {
        let root = shell::root();
        let readme = format!("# A\n{BEGIN}\nstale words\n{END}\nrest\n");
        let fresh = refreshed(&readme, &root).expect("renders");
        assert!(fresh.starts_with("# A\n") && fresh.ends_with(&format!("{END}\nrest\n")));
        assert!(!fresh.contains("stale words"));
        assert!(refreshed("# no marks", &root).is_err());
    }
}
