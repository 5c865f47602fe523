//! The highest rate that meets the objectives: doubling until one is missed, then bisection, then
//! a longer run that confirms.
//!
//! The search itself ([`Search`]) makes no run: it is told what became of each rate.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use ballast_loadgen::plan::{Pacing, Plan};
use ballast_loadgen::{Report, Verdict};
use serde::Serialize;

use super::args::RunArgs;
use super::build::level;
use super::drive::Driver;
use super::outputs::{self, Losses};
use super::run::LOST;

/// Where the search begins when nothing says so, in requests a second.
const BEGIN: f64 = 1_000.0;
/// How close the search goes: the part of the rate that may be left between a rate that met the
/// objectives and one that did not.
const CLOSE: f64 = 0.02;
/// The most runs of one search: 27 doublings reach the highest rate there is, as many halvings the
/// lowest, and 6 the closeness.
const RUNS: usize = 64;
/// How often a rate is tried whose runs are INVALID: what disturbed the generator may pass.
const TRIES: u32 = 2;
/// The shortest run that says something.
const SHORTEST: Duration = Duration::from_secs(1);

/// What became of one rate.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    /// Requests a second that were asked for.
    pub rate: f64,
    /// How long.
    pub seconds: f64,
    /// Whether it was the longer run that confirms.
    pub confirming: bool,
    /// Whether the objectives were met, and the run was valid.
    pub met: bool,
    /// Whether it was INVALID: what it shows is the generator's.
    pub invalid: bool,
    /// Why not; empty if they were.
    pub reason: String,
    /// Requests done a second.
    pub achieved_rate: f64,
    /// 99 % of latencies, in microseconds.
    pub p99_us: u64,
    /// Failed requests.
    pub failed: u64,
}

/// The result of a search: the JSON of `--find-max --json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Found {
    /// The highest rate that met the objectives, confirmed; none if none did.
    max_rate: Option<f64>,
    /// The lowest rate that did not.
    first_missed_rate: Option<f64>,
    /// Whether it was the generator that could not make that rate: the target may do more.
    limited_by_generator: bool,
    /// Whether the search ended by itself.
    complete: bool,
    /// Every run, in order.
    steps: Vec<Step>,
}

/// What to try next.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Next {
    /// A run at this rate.
    Run {
        /// Requests a second.
        rate: f64,
        /// Whether it is a longer one, which is believed.
        long: bool,
    },
    /// Nothing: this is the highest rate that met the objectives, if any did.
    Done(Option<f64>),
}

/// The search: doubling, bisection, confirmation.
///
/// A rate that a short run met and the longer one refutes (a queue that grows slowly, a quota)
/// says that short runs cannot be believed here: all are forgotten, and only longer ones follow.
#[derive(Debug, Clone, PartialEq)]
pub struct Search {
    begin: f64,
    met: Option<f64>,
    missed: Option<f64>,
    /// Only longer runs are made.
    careful: bool,
    next: Next,
    runs: usize,
}

impl Search {
    /// Returns a search that begins at `begin` requests a second.
    pub fn new(begin: f64) -> Self {
        Self {
            begin,
            met: None,
            missed: None,
            careful: false,
            next: Next::Run {
                rate: begin,
                long: false,
            },
            runs: 0,
        }
    }

    /// Returns what to try next.
    pub fn next(&self) -> Next {
        self.next
    }

    /// Returns the lowest rate that missed an objective.
    pub fn missed(&self) -> Option<f64> {
        self.missed
    }

    /// Takes whether the rate of [`Search::next`] met the objectives.
    pub fn told(&mut self, met: bool) {
        let Next::Run { rate, long } = self.next else {
            return;
        };
        self.runs += 1;
        if met && long && !self.careful {
            self.next = Next::Done(Some(rate));
            return;
        }
        if met {
            self.met = Some(rate);
        } else {
            self.missed = Some(self.missed.map_or(rate, |missed| missed.min(rate)));
            if long && !self.careful {
                self.careful = true;
                self.met = None;
            }
        }
        self.next = self.choose();
    }

    fn choose(&self) -> Next {
        let run = |rate| Next::Run {
            rate,
            long: self.careful,
        };
        let settled = |rate| {
            if self.careful {
                Next::Done(Some(rate))
            } else {
                Next::Run { rate, long: true }
            }
        };
        if self.runs >= RUNS {
            return Next::Done(self.met.filter(|_| self.careful));
        }
        match (self.met, self.missed) {
            (Some(met), None) if met * 2.0 > ballast_loadgen::plan::RATE => settled(met),
            (Some(met), None) => run(met * 2.0),
            (Some(met), Some(missed)) if missed / met - 1.0 > CLOSE => {
                run(f64::midpoint(met, missed))
            }
            (Some(met), Some(_)) => settled(met),
            // Below the beginning: down by halves, to a request a second.
            (None, Some(missed)) if missed / 2.0 >= 1.0_f64.min(self.begin) => run(missed / 2.0),
            (None, _) => Next::Done(None),
        }
    }
}

/// Searches, prints each step, writes the JSON; returns the exit status.
pub fn run(args: &RunArgs, plan: &Plan, driver: &Driver) -> Result<u8> {
    ensure!(
        plan.duration >= SHORTEST,
        "--find-max needs runs of at least a second: --duration is that of the run that confirms"
    );
    let short = (plan.duration / 4).max(SHORTEST);
    let mut losses = Losses::default();
    let mut search = Search::new(args.load.rate.unwrap_or(BEGIN));
    let mut steps: Vec<Step> = Vec::new();
    let mut tries = 0;
    let quiet = outputs::takes_stdout(&args.out);
    let say = |losses: &mut Losses, text: &str| {
        if !quiet && losses.is_empty() {
            losses.note("standard output", outputs::print(text));
        }
    };
    let max_rate = loop {
        let (rate, confirming) = match search.next() {
            Next::Run { rate, long } => (rate, long),
            Next::Done(rate) => break rate,
        };
        let duration = if confirming { plan.duration } else { short };
        let trial = Plan {
            pacing: Pacing::Open(Arc::new(level(rate, &args.load))),
            duration,
            ..plan.clone()
        };
        let mut report = driver.drive(trial)?.report;
        report.assert(&args.judge.slo);
        if driver.interrupts.count() > 0 {
            break None;
        }
        let step = step(rate, duration, confirming, &report);
        tries += 1;
        let again = step.invalid && tries < TRIES;
        say(&mut losses, &line(&step, again));
        steps.push(step);
        if again {
            continue;
        }
        tries = 0;
        search.told(steps.last().is_some_and(|step| step.met));
    };
    let first_missed_rate = search.missed();
    let found = Found {
        max_rate,
        limited_by_generator: first_missed_rate
            .is_some_and(|missed| generator_missed(&steps, missed)),
        first_missed_rate,
        complete: driver.interrupts.count() == 0,
        steps,
    };
    say(&mut losses, &summary(&found));
    if let Some(path) = &args.out.json {
        outputs::write_json(path, &found, &mut losses);
    }
    Ok(match found.max_rate {
        _ if !losses.is_empty() => LOST,
        _ if found.complete && found.limited_by_generator => 3,
        Some(_) => 0,
        None if found.complete => 1,
        None => 3,
    })
}

/// Returns whether the last runs at `rate` that did not meet the objectives were INVALID.
fn generator_missed(steps: &[Step], rate: f64) -> bool {
    let mut at_rate = steps.iter().rev().filter(|step| {
        // The rates are the very ones that were asked for.
        (step.rate - rate).abs() < f64::EPSILON * rate
    });
    at_rate
        .find(|step| !step.met)
        .is_some_and(|step| step.invalid)
}

fn step(rate: f64, span: Duration, confirming: bool, report: &Report) -> Step {
    let missed = report.slos.iter().filter(|slo| !slo.met);
    let mut reasons: Vec<String> = missed.map(|slo| slo.miss.clone()).collect();
    if report.verdict == Verdict::Invalid {
        reasons.insert(0, format!("INVALID: {}", report.reason));
    }
    Step {
        rate,
        seconds: span.as_secs_f64(),
        confirming,
        met: reasons.is_empty(),
        invalid: report.verdict == Verdict::Invalid,
        reason: reasons.join("; "),
        achieved_rate: report.achieved_rate,
        p99_us: report.latency_us.p99,
        failed: report.failed(),
    }
}

fn line(step: &Step, again: bool) -> String {
    let mut line = format!(
        "{:>10.0}/s for {:>4.1} s  p99 {:>9.3} ms  failed {:>6}  {}",
        step.rate,
        step.seconds,
        step.p99_us as f64 / 1e3,
        step.failed,
        match (step.met, step.confirming) {
            _ if again => "again",
            (true, true) => "confirmed",
            (true, false) => "met",
            (false, true) => "refuted",
            (false, false) => "missed",
        }
    );
    if !step.reason.is_empty() {
        // Writing to a string does not fail.
        let _ = write!(line, ": {}", step.reason);
    }
    line.push('\n');
    line
}

fn summary(found: &Found) -> String {
    match (found.max_rate, found.first_missed_rate) {
        _ if !found.complete => "ended before the search was done\n".to_owned(),
        (Some(rate), Some(missed)) if found.limited_by_generator => format!(
            "the target met the objectives at {rate:.0}/s\nINVALID: at {missed:.0}/s the generator was \
             the limit; how much more the target can do is not known\n"
        ),
        (None, Some(missed)) if found.limited_by_generator => {
            format!("INVALID: already at {missed:.0}/s the generator was the limit\n")
        }
        (Some(rate), Some(missed)) => {
            format!("highest rate within the objectives: {rate:.0}/s ({missed:.0}/s was not)\n")
        }
        (Some(rate), None) => format!("highest rate within the objectives: {rate:.0}/s\n"),
        (None, _) => "no rate met the objectives\n".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a search against a target that holds up to `limit`; returns what it found, and in how
    /// many runs.
    fn search(begin: f64, mut holds: impl FnMut(f64, bool) -> bool) -> (Option<f64>, usize) {
        let mut search = Search::new(begin);
        loop {
            match search.next() {
                Next::Run { rate, long } => search.told(holds(rate, long)),
                Next::Done(rate) => return (rate, search.runs),
            }
        }
    }

    fn tried(rate: f64, met: bool, invalid: bool) -> Step {
        Step {
            rate,
            seconds: 1.0,
            confirming: false,
            met,
            invalid,
            reason: String::new(),
            achieved_rate: rate,
            p99_us: 1,
            failed: 0,
        }
    }

    #[test]
    fn rate_that_only_the_generator_missed_is_not_called_the_targets() {
        let steps = [
            tried(500.0, true, false),
            tried(1000.0, false, true),
            tried(1000.0, false, true),
            tried(750.0, false, false),
        ];
        assert!(generator_missed(&steps, 1000.0));
        assert!(!generator_missed(&steps, 750.0));
        let found = |limited_by_generator| Found {
            max_rate: Some(500.0),
            first_missed_rate: Some(750.0),
            limited_by_generator,
            complete: true,
            steps: Vec::new(),
        };
        assert!(summary(&found(true)).contains("INVALID"));
        assert!(summary(&found(false)).starts_with("highest rate within"));
    }

    #[test]
    fn search_ends_just_below_the_limit() {
        for limit in [3.0, 950.0, 1_000.0, 1_001.0, 47_113.0, 5e6] {
            let (found, runs) = search(1_000.0, |rate, _| rate <= limit);
            let found = found.expect("found");
            assert!(found <= limit && found > limit * 0.97, "{limit}: {found}");
            assert!(runs < 25, "{limit}: {runs} runs");
        }
    }

    #[test]
    fn target_that_holds_nothing_ends_the_search() {
        let (found, runs) = search(1_000.0, |_, _| false);
        assert_eq!(found, None);
        assert!(runs <= 11, "{runs}");
    }

    #[test]
    fn target_that_holds_everything_ends_at_the_highest_rate() {
        let (found, _) = search(1_000.0, |_, _| true);
        assert!(found.expect("found") * 2.0 > ballast_loadgen::plan::RATE);
    }

    #[test]
    fn rate_that_a_longer_run_refutes_is_not_the_result() {
        let (found, _) = search(1_000.0, |rate, long| {
            rate <= if long { 5_000.0 } else { 9_000.0 }
        });
        assert!(
            found.is_some_and(|found| found <= 5_000.0 && found > 4_850.0),
            "{found:?}"
        );
        let (found, runs) = search(1_000.0, |_, long| !long);
        assert_eq!(found, None);
        assert!(runs <= RUNS, "{runs}");
    }
}
