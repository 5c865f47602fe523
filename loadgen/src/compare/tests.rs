//! Error rates by simulation, with fixed seeds: what the tests promise they keep.
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "simulated spans are positive and far from the ends"
)]

use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::ab::{AbError, FEWEST_BLOCKS, Options, Turn};
use super::*;
use crate::record::ErrorClass;
use crate::recorder::Recorder;
use crate::report::About;
use crate::sample::Sample;

const PAIRS: usize = 200;
/// 5 % of [`PAIRS`].
const ALARMS: usize = 10;
/// 95 % of [`PAIRS`].
const FOUND: usize = 190;
const SHIFT: f64 = 1.03;

fn normal(rng: &mut StdRng) -> f64 {
    let (u, v): (f64, f64) = (rng.random(), rng.random());
    (-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

/// Noise in which what follows is like what was: the weight of the past is `memory`.
struct Noise {
    memory: f64,
    size: f64,
    now: f64,
}

impl Noise {
    fn new(memory: f64, size: f64, rng: &mut StdRng) -> Self {
        let now = normal(rng) * size;
        Self { memory, size, now }
    }

    fn next(&mut self, rng: &mut StdRng) -> f64 {
        let fresh = (1.0 - self.memory * self.memory).sqrt() * self.size;
        self.now = self.memory * self.now + fresh * normal(rng);
        self.now
    }
}

/// Returns the report of a closed loop of `seconds`, whose latencies are about `scale` × 1 ms,
/// from second to second with `noise`.
fn report(seconds: u64, scale: f64, noise: &mut Noise, rng: &mut StdRng) -> Report {
    let mut recorder = Recorder::new();
    let mut done_ns = 0;
    for second in 0..seconds {
        let scale = scale * noise.next(rng).exp() * 1e6;
        let each = (scale * 4.0) as u64;
        for _ in 0..1_000_000_000 / each {
            done_ns += each;
            let latency_ns = (scale * (0.3 * normal(rng)).exp()) as u64;
            let due_ns = done_ns.saturating_sub(latency_ns);
            recorder.done(&Sample {
                number: 0,
                target: 0,
                request: 0,
                due_ns,
                sent_ns: due_ns,
                first_byte_ns: done_ns,
                done_ns,
                received_bytes: 0,
                sent_bytes: 0,
                outcome: Ok(200),
            });
        }
        done_ns = done_ns.max((second + 1) * 1_000_000_000 - 1);
    }
    let about = About {
        engine: String::new(),
        expected: None,
        duration: Duration::from_secs(seconds),
        connections: 1,
        targets: Vec::new(),
        started: SystemTime::UNIX_EPOCH,
        command: Vec::new(),
        host: String::new(),
        seed: 0,
        notes: Vec::new(),
    };
    Report::new(&about, &recorder)
}

/// Returns how many of [`PAIRS`] comparisons of single runs find a difference.
fn found_in_single_runs(shift: f64, memory: f64) -> usize {
    let mut rng = StdRng::seed_from_u64(4);
    let mut side = |name: &str, scale: f64| {
        // What differs from run to run, and what differs within one.
        let scale = scale * (0.003 * normal(&mut rng)).exp();
        let mut noise = Noise::new(memory, 0.01, &mut rng);
        Side {
            name: name.to_owned(),
            runs: vec![report(31, scale, &mut noise, &mut rng)],
        }
    };
    (0..PAIRS)
        .filter(|_| {
            let (a, b) = (side("a", 1.0), side("b", shift));
            let compared = compare(&a, &b, false).expect("can be compared");
            compared.verdict != Change::None
        })
        .count()
}

#[test]
fn single_runs_of_the_same_thing_rarely_differ() {
    for memory in [0.0, 0.6] {
        let alarms = found_in_single_runs(1.0, memory);
        assert!(
            alarms <= ALARMS,
            "{alarms} of {PAIRS} with a memory of {memory}"
        );
    }
}

#[test]
fn shift_of_three_percent_is_found_in_single_runs() {
    let found = found_in_single_runs(SHIFT, 0.3);
    assert!(found >= FOUND, "{found} of {PAIRS}");
}

/// Returns how many of [`PAIRS`] comparisons of `runs` runs find a difference in three figures of
/// which each hangs on the others.
fn found_in_runs(runs: usize, shift: f64, spread: f64) -> usize {
    let mut rng = StdRng::seed_from_u64(11);
    let mut figures = |shift: f64| -> Vec<[f64; 3]> {
        let run = |_| {
            let common = normal(&mut rng) * spread;
            [1.0, 1.0, 2.0].map(|tail| shift.ln() + common + tail * 0.3 * spread * normal(&mut rng))
        };
        (0..runs).map(run).collect()
    };
    (0..PAIRS)
        .filter(|_| {
            let (a, b) = (figures(1.0), figures(shift));
            let p: Vec<f64> = (0..3)
                .map(|figure| {
                    let of =
                        |side: &[[f64; 3]]| side.iter().map(|run| run[figure]).collect::<Vec<_>>();
                    of_runs(&of(&a), &of(&b)).p
                })
                .collect();
            holm(&p).iter().any(|p| *p <= ALPHA)
        })
        .count()
}

#[test]
fn repeated_runs_of_the_same_thing_rarely_differ() {
    for runs in [2, 3, 4, 5, 6, 8, 35] {
        let alarms = found_in_runs(runs, 1.0, 0.02);
        assert!(alarms <= ALARMS, "{alarms} of {PAIRS} with {runs} runs");
    }
}

#[test]
fn shift_of_three_percent_is_found_in_repeated_runs() {
    for (runs, spread) in [(5, 0.006), (10, 0.013)] {
        let found = found_in_runs(runs, SHIFT, spread);
        assert!(found >= FOUND, "{found} of {PAIRS} with {runs} runs");
    }
}

#[test]
fn few_runs_give_no_certainty() {
    let rng = &mut StdRng::seed_from_u64(1);
    let mut values = || vec![normal(rng), normal(rng)];
    let (a, b) = (values(), values());
    let shift = of_runs(&a, &b);
    assert!(shift.high - shift.low > 2.0, "{shift:?}");
}

fn options(precision: f64, at_most: u64) -> Options {
    Options {
        turn: Duration::from_secs(1),
        warm_up: Duration::from_secs(1),
        at_most: Duration::from_secs(at_most),
        precision,
    }
}

static NOTHING: LazyLock<Report> = LazyLock::new(|| {
    let mut rng = StdRng::seed_from_u64(1);
    report(0, 1.0, &mut Noise::new(0.0, 0.0, &mut rng), &mut rng)
});

/// Returns the report of a turn with one latency, in ms.
fn turn(latency_ms: f64) -> Report {
    let mut histogram = crate::recorder::histogram();
    histogram.saturating_record_n((latency_ms * 1e6) as u64, 10);
    let mut report = NOTHING.clone();
    report.asked_rate = Some(10.0);
    report.verdict = Verdict::Valid;
    let text = crate::recorder::histogram_to_text(&histogram);
    report.histograms.insert("latency".to_owned(), text);
    report
}

/// A machine that slows down evenly, by a percent a turn, and by twice as much noise.
fn found_in_turns(shift: f64) -> usize {
    let mut rng = StdRng::seed_from_u64(5);
    (0..PAIRS)
        .filter(|_| {
            let mut drift = 0.0;
            let drive = |side: Turn, _| -> Result<Report, std::io::Error> {
                drift += 0.01;
                let shift = if side == Turn::B { shift } else { 1.0 };
                Ok(turn(shift * (drift + 0.01 * normal(&mut rng)).exp()))
            };
            let compared = ab::run(&options(0.001, 40), ["a", "b"], drive, |_| {}, || false);
            compared.expect("compares").verdict != Change::None
        })
        .count()
}

#[test]
fn turns_are_blind_to_drift_and_see_three_percent() {
    let alarms = found_in_turns(1.0);
    assert!(alarms <= ALARMS, "{alarms} of {PAIRS}");
    let found = found_in_turns(SHIFT);
    assert!(found >= FOUND, "{found} of {PAIRS}");
}

#[test]
fn ab_ends_when_it_knows_or_when_the_time_is_over() {
    let mut rng = StdRng::seed_from_u64(2);
    let mut blocks_until = |precision: f64| {
        let drive = |_, _| Ok::<_, std::io::Error>(turn((0.05 * normal(&mut rng)).exp()));
        let mut blocks = 0;
        let compared = ab::run(
            &options(precision, 100),
            ["a", "b"],
            drive,
            |_| blocks += 1,
            || false,
        );
        (compared.expect("compares"), blocks)
    };
    let (wide, blocks) = blocks_until(0.5);
    assert_eq!(
        (blocks, wide.runs_a),
        (FEWEST_BLOCKS - 1, FEWEST_BLOCKS * 2)
    );
    let (_, blocks) = blocks_until(1e-9);
    assert_eq!(
        blocks, 24,
        "of 25 blocks of four seconds the first tells nothing yet"
    );
}

#[test]
fn ab_that_is_interrupted_or_invalid_says_so() {
    let fine = |_, _| Ok::<_, std::io::Error>(turn(1.0));
    let interrupted = ab::run(&options(0.1, 100), ["a", "b"], fine, |_| {}, || true);
    assert!(matches!(interrupted, Err(AbError::TooFew(0))));
    let turns = std::cell::Cell::new(0);
    let invalid = |_, _| {
        turns.set(turns.get() + 1);
        let reason = "late".to_owned();
        Ok::<_, std::io::Error>(Report {
            verdict: Verdict::Invalid,
            reason,
            ..turn(1.0)
        })
    };
    let invalid = ab::run(&options(0.1, 100), ["a", "b"], invalid, |_| {}, || false);
    assert!(matches!(invalid, Err(AbError::Invalid(why)) if why == "late"));
    assert!(turns.get() <= 4 * ab::HOPELESS + 2, "{} turns", turns.get());
}

#[test]
fn what_cannot_be_compared_says_why() {
    let side = |name: &str, runs| Side {
        name: name.to_owned(),
        runs,
    };
    let error = compare(
        &side("a", vec![turn(1.0)]),
        &side("b", vec![turn(1.0)]),
        false,
    );
    assert!(
        matches!(error, Err(CompareError::TooShort { .. })),
        "{error:?}"
    );
    let invalid = Report {
        verdict: Verdict::Invalid,
        ..turn(1.0)
    };
    let error = compare(
        &side("a", vec![invalid]),
        &side("b", vec![turn(1.0)]),
        false,
    );
    assert_eq!(error, Err(CompareError::NoRun("a".to_owned())));
    let closed = Report {
        asked_rate: None,
        ..turn(1.0)
    };
    let error = compare(&side("a", vec![closed]), &side("b", vec![turn(1.0)]), false);
    assert!(matches!(error, Err(CompareError::NotAlike { .. })));
}

#[test]
fn table_and_json_name_the_test_and_what_is_worse() {
    let side = |name: &str, scale: f64| Side {
        name: name.to_owned(),
        runs: (0..5)
            .map(|run| turn(scale + f64::from(run) / 1e3))
            .collect(),
    };
    let compared = compare(&side("a", 1.0), &side("b", 1.1), false).expect("compares");
    assert_eq!(
        (compared.verdict, compared.exit_status()),
        (Change::Worse, 1)
    );
    let text = compared.to_string();
    assert!(
        text.contains("Mann–Whitney U test, exact, on the figures of 5 and 5 runs"),
        "{text}"
    );
    assert!(text.contains("B is WORSE: p50, p90, p99"), "{text}");
    let better = compare(&side("a", 1.1), &side("b", 1.0), false).expect("compares");
    assert_eq!((better.verdict, better.exit_status()), (Change::Better, 0));
    let json = serde_json::to_value(&compared).expect("serializes");
    assert_eq!(json["figures"][1]["figure"], "p50");
    assert_eq!(json["figures"][1]["verdict"], "worse");
    assert!(
        json["figures"][1]["p_corrected"]
            .as_f64()
            .expect("is tested")
            <= ALPHA
    );
    assert!(
        json["figures"][0]["p"].is_null(),
        "the rate of an open loop is not tested"
    );
}

#[test]
fn sides_are_files_folders_and_lists() {
    let folder = tempfile::tempdir().expect("makes a folder");
    let path = |name: &str| folder.path().join(name);
    let json = serde_json::to_string(&turn(1.0)).expect("serializes");
    std::fs::write(path("one.json"), &json).expect("writes");
    std::fs::write(path("many.json"), format!("[{json},{json}]\n{json}")).expect("writes");
    std::fs::write(path("other.txt"), "text").expect("writes");
    let count = |name: String| args::side(&name).map(|side| side.runs.len());
    let (one, many) = (
        path("one.json").display().to_string(),
        path("many.json").display().to_string(),
    );
    assert_eq!(count(one.clone()).expect("reads"), 1);
    assert_eq!(count(many.clone()).expect("reads"), 3);
    assert_eq!(count(format!("{one},{many}")).expect("reads"), 4);
    assert_eq!(
        count(folder.path().display().to_string()).expect("reads"),
        4
    );
    let error = count(path("other.txt").display().to_string()).expect_err("is no report");
    assert!(error.to_string().contains("is no report"), "{error}");
    assert!(count(path("none.json").display().to_string()).is_err());
}

#[test]
fn failures_are_shown() {
    let mut report = turn(1.0);
    report
        .errors
        .insert(ErrorClass::Timeout.name().to_owned(), 5);
    report.requests = 10;
    assert!((Figure::values(&report)[Figure::Errors as usize] - 50.0).abs() < 1e-9);
}
