//! Whether one side is really slower than the other, or it only looks so.
//!
//! - [`compare`]: reports on each side; single runs by blocks of their series, several runs by
//!   their figures
//! - [`ab`]: interleaves the two sides by itself until it knows
//! - [`args`]: both on the command line
//!
//! Percentiles are compared on a logarithmic scale: a shift is a ratio. Figures that are tested
//! together are corrected together (Holm), so that the chance of any false alarm is 5 %, not 5 %
//! for each. ADR 0015 tells why these tests.

pub mod ab;
pub mod args;
mod blocks;
mod stats;
mod table;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use crate::report::{Report, Verdict};
use stats::{Shift, holm, mann_whitney, median, welch};

/// The chance of any false alarm.
pub const ALPHA: f64 = 0.05;
/// Runs of each side from which ranks alone can tell sides apart, with several figures at once:
/// with four and four runs even complete separation happens by chance in 3 of 100.
pub const RANKED_RUNS: usize = 5;
/// What two single runs of the same thing differ by on a quiet machine, as a standard deviation of
/// the logarithm: nothing within a run shows it (addresses, core, state of the caches).
const RUN_TO_RUN: f64 = 0.004;

/// Figures in the order of [`Figure::ALL`].
type Values = [f64; Figure::ALL.len()];

/// One figure of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Figure {
    /// Requests a second.
    Rate,
    /// Median latency.
    P50,
    /// Latency at 90 %.
    P90,
    /// Latency at 99 %.
    P99,
    /// Latency at 99.9 %.
    P999,
    /// Failed requests as a share of all.
    Errors,
}

impl Figure {
    /// Every figure, in the order of tables.
    pub const ALL: [Self; 6] = [
        Self::Rate,
        Self::P50,
        Self::P90,
        Self::P99,
        Self::P999,
        Self::Errors,
    ];

    /// Returns the name that tables use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::P50 => "p50",
            Self::P90 => "p90",
            Self::P99 => "p99",
            Self::P999 => "p99.9",
            Self::Errors => "errors",
        }
    }

    /// Returns its unit.
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Rate => "/s",
            Self::Errors => "%",
            _ => "ms",
        }
    }

    const fn quantile(self) -> Option<f64> {
        match self {
            Self::P50 => Some(0.5),
            Self::P90 => Some(0.9),
            Self::P99 => Some(0.99),
            Self::P999 => Some(0.999),
            Self::Rate | Self::Errors => None,
        }
    }

    /// Returns whether it is tested. What a schedule gives is no figure of the target; p99.9 of
    /// short runs hangs on a few requests; errors are too few to be tested, and are shown.
    const fn is_tested(self, open_loop: bool) -> bool {
        match self {
            Self::Rate => !open_loop,
            Self::P50 | Self::P90 | Self::P99 => true,
            Self::P999 | Self::Errors => false,
        }
    }

    /// Returns the value of each figure in `report`, in [`Figure::unit`] and the order of
    /// [`Figure::ALL`].
    pub fn values(report: &Report) -> [f64; Self::ALL.len()] {
        let latency = report.histogram("latency");
        Self::ALL.map(|figure| match (figure, figure.quantile()) {
            (_, Some(quantile)) => {
                let latency = latency.as_ref();
                latency.map_or(0.0, |it| it.value_at_quantile(quantile) as f64 / 1e6)
            }
            (Self::Rate, _) => report.achieved_rate,
            _ => report.failed() as f64 / report.requests.max(1) as f64 * 100.0,
        })
    }

    /// Returns whether more of it is worse.
    const fn more_is_worse(self) -> bool {
        !matches!(self, Self::Rate)
    }
}

/// What came of a figure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Compared {
    /// Which.
    pub figure: Figure,
    /// Its unit.
    pub unit: String,
    /// Median over the runs of A.
    pub a: f64,
    /// Median over the runs of B.
    pub b: f64,
    /// From A to B, in percent; none if it was not tested, like the next four.
    pub change_percent: Option<f64>,
    /// Lower end of the interval of 95 % around it.
    pub low_percent: Option<f64>,
    /// Upper end.
    pub high_percent: Option<f64>,
    /// The chance of a change at least as large if there were none.
    pub p: Option<f64>,
    /// The same, corrected for all figures that were tested.
    pub p_corrected: Option<f64>,
    /// What to make of it.
    pub verdict: Change,
}

/// What to make of a figure, or of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// No difference was found; the interval says how large one may be.
    None,
    /// B is better.
    Better,
    /// B is worse.
    Worse,
    /// Of all figures: some are better, some worse.
    Mixed,
    /// It was not tested.
    Untested,
}

/// Two sides and how they differ: the JSON of `ballast-loadgen compare --json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The name of the side that is compared with.
    pub a: String,
    /// The name of the other.
    pub b: String,
    /// Runs, or blocks of runs, of A.
    pub runs_a: usize,
    /// Of B.
    pub runs_b: usize,
    /// The verdict over all figures.
    pub verdict: Change,
    /// The test, and what it was made of.
    pub test: String,
    /// Each figure.
    pub figures: Vec<Compared>,
    /// What to know when reading it.
    pub notes: Vec<String>,
}

/// One side: a name and its runs.
#[derive(Debug, Clone)]
pub struct Side {
    /// As the user named it.
    pub name: String,
    /// At least one.
    pub runs: Vec<Report>,
}

/// Sides that cannot be compared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompareError {
    /// There is nothing on a side.
    #[error("{0} has no run that is valid")]
    NoRun(String),
    /// One run cannot be cut into enough blocks.
    #[error(
        "{name} is a single run of {points} points: at least {needed} are needed, or more runs"
    )]
    TooShort {
        /// The side.
        name: String,
        /// Whole points of its series.
        points: usize,
        /// What it takes.
        needed: usize,
    },
    /// One side is an open loop, the other a closed one.
    #[error("{a} and {b} were not asked alike: one is an open loop, the other a closed one")]
    NotAlike {
        /// One side.
        a: String,
        /// The other.
        b: String,
    },
}

/// Returns how `b` differs from `a`. Invalid runs are left out, unless `take_invalid`.
///
/// # Errors
/// [`CompareError`] where there is too little to say anything.
pub fn compare(a: &Side, b: &Side, take_invalid: bool) -> Result<Comparison, CompareError> {
    let mut notes = Vec::new();
    let (runs_a, runs_b) = (
        valid(a, take_invalid, &mut notes)?,
        valid(b, take_invalid, &mut notes)?,
    );
    let open_loop = |runs: &[&Report]| runs.iter().any(|run| run.asked_rate.is_some());
    if open_loop(&runs_a) != open_loop(&runs_b) {
        return Err(CompareError::NotAlike {
            a: a.name.clone(),
            b: b.name.clone(),
        });
    }
    let open_loop = open_loop(&runs_a);
    let [values_a, values_b] = [&runs_a, &runs_b].map(|runs| {
        runs.iter()
            .map(|run| Figure::values(run))
            .collect::<Vec<_>>()
    });
    let fewest = runs_a.len().min(runs_b.len());
    let tested: Vec<Figure> = Figure::ALL
        .into_iter()
        .filter(|figure| figure.is_tested(open_loop))
        .collect();
    let (test, shifts) = match fewest {
        1 => {
            notes.push(
                "one run of a side: what differs from run to run was assumed, not measured; \
                 compare several runs"
                    .to_owned(),
            );
            single(a, &runs_a, b, &runs_b, &tested)?
        }
        _ => repeated(&values_a, &values_b, &tested),
    };
    if fewest > 1 && !interleaved(&runs_a, &runs_b) {
        notes.push(
            "the runs of the sides were not interleaved: what changed on the machines meanwhile \
             counts as a difference"
                .to_owned(),
        );
    }
    let figures = figures(&values_a, &values_b, &tested, &shifts);
    Ok(Comparison {
        a: a.name.clone(),
        b: b.name.clone(),
        runs_a: runs_a.len(),
        runs_b: runs_b.len(),
        verdict: overall(&figures),
        test,
        figures,
        notes,
    })
}

fn valid<'a>(
    side: &'a Side,
    take_invalid: bool,
    notes: &mut Vec<String>,
) -> Result<Vec<&'a Report>, CompareError> {
    let runs: Vec<_> = side
        .runs
        .iter()
        .filter(|run| take_invalid || run.verdict == Verdict::Valid)
        .collect();
    let invalid = side.runs.len() - runs.len();
    if invalid > 0 {
        notes.push(format!(
            "{invalid} invalid runs of {} were left out",
            side.name
        ));
    }
    if runs.is_empty() {
        return Err(CompareError::NoRun(side.name.clone()));
    }
    Ok(runs)
}

/// Returns whether runs of each side began between those of the other.
fn interleaved(a: &[&Report], b: &[&Report]) -> bool {
    let range = |runs: &[&Report]| {
        let begins = runs.iter().map(|run| run.started.clone());
        (begins.clone().min(), begins.max())
    };
    let ((a_first, a_last), (b_first, b_last)) = (range(a), range(b));
    a_first < b_last && b_first < a_last
}

/// Returns the natural logarithm, of nothing that of a nanosecond in milliseconds.
fn log(value: f64) -> f64 {
    value.max(1e-6).ln()
}

fn repeated(a: &[Values], b: &[Values], tested: &[Figure]) -> (String, Vec<Shift>) {
    let logs = |runs: &[Values], figure: &Figure| -> Vec<f64> {
        runs.iter().map(|run| log(run[*figure as usize])).collect()
    };
    let ranked = a.len().min(b.len()) >= RANKED_RUNS;
    let shifts = tested.iter().map(|figure| {
        let (a, b) = (logs(a, figure), logs(b, figure));
        of_runs(&a, &b)
    });
    let name = if ranked {
        "Mann–Whitney U test, exact"
    } else {
        "Welch's t-test"
    };
    let test = format!(
        "{name}, on the figures of {} and {} runs; Holm's correction for {} figures",
        a.len(),
        b.len(),
        tested.len()
    );
    (test, shifts.collect())
}

/// Returns the shift between runs of which each gave one number; at least two of each.
fn of_runs(a: &[f64], b: &[f64]) -> Shift {
    if a.len().min(b.len()) >= RANKED_RUNS {
        mann_whitney(a, b, ALPHA)
    } else {
        welch(a, b, 0.0, ALPHA)
    }
}

fn single(
    a: &Side,
    runs_a: &[&Report],
    b: &Side,
    runs_b: &[&Report],
    tested: &[Figure],
) -> Result<(String, Vec<Shift>), CompareError> {
    let (cut_a, cut_b) = (blocks::cut(&a.name, runs_a)?, blocks::cut(&b.name, runs_b)?);
    let floor = RUN_TO_RUN.powi(2) * (1.0 / runs_a.len() as f64 + 1.0 / runs_b.len() as f64);
    let shifts = tested.iter().map(|figure| {
        let (a, b) = (cut_a.logs(*figure), cut_b.logs(*figure));
        welch(&a, &b, floor, ALPHA)
    });
    let test = format!(
        "Welch's t-test on blocks of {} and {} points ({} and {} of them); Holm's correction for \
         {} figures",
        cut_a.length,
        cut_b.length,
        cut_a.len(),
        cut_b.len(),
        tested.len()
    );
    Ok((test, shifts.collect()))
}

fn figures(a: &[Values], b: &[Values], tested: &[Figure], shifts: &[Shift]) -> Vec<Compared> {
    let corrected = holm(&shifts.iter().map(|shift| shift.p).collect::<Vec<_>>());
    let middle = |runs: &[Values], figure: Figure| {
        let values = runs.iter().map(|run| run[figure as usize]);
        median(&values.collect::<Vec<_>>())
    };
    let all = Figure::ALL.into_iter().map(|figure| {
        let place = tested.iter().position(|tested| *tested == figure);
        let shift = place.map(|place| (&shifts[place], corrected[place]));
        compared(figure, middle(a, figure), middle(b, figure), shift)
    });
    all.collect()
}

fn compared(figure: Figure, a: f64, b: f64, shift: Option<(&Shift, f64)>) -> Compared {
    let percent = |log: f64| log.exp_m1() * 100.0;
    let verdict = match shift {
        None => Change::Untested,
        Some((_, corrected)) if corrected > ALPHA => Change::None,
        Some((shift, _)) if (shift.estimate > 0.0) == figure.more_is_worse() => Change::Worse,
        Some(_) => Change::Better,
    };
    Compared {
        figure,
        unit: figure.unit().to_owned(),
        a,
        b,
        change_percent: shift.map(|(shift, _)| percent(shift.estimate)),
        low_percent: shift.map(|(shift, _)| percent(shift.low)),
        high_percent: shift.map(|(shift, _)| percent(shift.high)),
        p: shift.map(|(shift, _)| shift.p),
        p_corrected: shift.map(|(_, corrected)| corrected),
        verdict,
    }
}

fn overall(figures: &[Compared]) -> Change {
    let any = |change: Change| figures.iter().any(|figure| figure.verdict == change);
    match (any(Change::Better), any(Change::Worse)) {
        (false, false) => Change::None,
        (true, false) => Change::Better,
        (false, true) => Change::Worse,
        (true, true) => Change::Mixed,
    }
}

impl Comparison {
    /// Returns the exit status: 1 if B is worse in anything, 0 otherwise.
    pub fn exit_status(&self) -> u8 {
        u8::from(matches!(self.verdict, Change::Worse | Change::Mixed))
    }
}
