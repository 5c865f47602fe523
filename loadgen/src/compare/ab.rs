//! Two targets in turn, until it is known how they differ.
//!
//! A machine drifts: it heats up, a neighbour wakes, a cache fills. Turns in the order A B B A
//! cancel whatever grows evenly over them; the four together are one pair of measurements, and
//! Wilcoxon's signed-rank test says what many pairs show. The end is decided by the width of the
//! interval, never by the chance found so far: who stops when the difference looks real finds one
//! that is not there.

use std::time::Duration;

use super::stats::{Shift, mean, median, signed_rank};
use super::{ALPHA, Change, Comparison, Figure, compared, log, overall};
use crate::compare::stats::holm;
use crate::report::{Report, Verdict};

/// Fewest blocks of four turns: with seven, not even all in one direction would be beyond chance
/// with four figures at once.
pub const FEWEST_BLOCKS: usize = 8;
/// Blocks with an invalid turn, and none without, after which it is given up: what is wrong with the
/// generator will not pass.
pub const HOPELESS: usize = 3;
/// Most blocks of four turns: at two seconds a turn it is an hour.
pub const MOST_BLOCKS: usize = 450;

/// How long, and how exactly.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// Of one turn.
    pub turn: Duration,
    /// For each target before the first turn; nothing of it is measured.
    pub warm_up: Duration,
    /// Of all turns together; at least [`FEWEST_BLOCKS`] blocks are made all the same.
    pub at_most: Duration,
    /// Half of the width of the interval at which it is enough, as a share: 0.01 is ±1 %.
    pub precision: f64,
}

/// Whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// That of the target that is compared with.
    A,
    /// That of the other.
    B,
}

const BLOCK: [Turn; 4] = [Turn::A, Turn::B, Turn::B, Turn::A];

/// Two targets that could not be compared.
#[derive(Debug, thiserror::Error)]
pub enum AbError<E: std::error::Error + 'static> {
    /// A turn could not be made.
    #[error("a turn could not be made")]
    Turn(#[source] E),
    /// No block was without an invalid turn.
    #[error("no turns were valid: {0}")]
    Invalid(String),
    /// Interrupted before there were enough blocks.
    #[error("ended after {0} blocks of four turns; {FEWEST_BLOCKS} are needed")]
    TooFew(usize),
}

/// What was measured in the blocks so far.
struct Blocks {
    figures: Vec<Figure>,
    /// By figure, the shift of each block.
    shifts: Vec<Vec<f64>>,
    /// By figure of [`Figure::ALL`], every turn of A and of B.
    values: Vec<(Vec<f64>, Vec<f64>)>,
    invalid: usize,
    why: String,
}

/// Compares two targets; `drive` makes one turn and `heard` is told after each block. Ends when
/// it knows, when the time is over, or when `stopped` says so.
///
/// # Errors
/// [`AbError`].
pub fn run<E: std::error::Error + 'static>(
    options: &Options,
    names: [&str; 2],
    mut drive: impl FnMut(Turn, Duration) -> Result<Report, E>,
    mut heard: impl FnMut(&Comparison),
    stopped: impl Fn() -> bool,
) -> Result<Comparison, AbError<E>> {
    for turn in [Turn::A, Turn::B] {
        if !options.warm_up.is_zero() {
            drive(turn, options.warm_up).map_err(AbError::Turn)?;
        }
    }
    let mut blocks = Blocks::new();
    let mut spent = Duration::ZERO;
    for made in 0.. {
        if stopped() {
            break;
        }
        let mut turns = Vec::with_capacity(BLOCK.len());
        for turn in BLOCK {
            turns.push(drive(turn, options.turn).map_err(AbError::Turn)?);
        }
        if stopped() {
            break;
        }
        spent += options.turn * 4;
        blocks.add(&turns);
        let enough = blocks.len() >= FEWEST_BLOCKS && blocks.precision() <= options.precision;
        if blocks.len() > 1 {
            heard(&blocks.comparison(names));
        }
        let hopeless = blocks.len() == 0 && blocks.invalid >= HOPELESS;
        let over = spent >= options.at_most && made + 1 >= FEWEST_BLOCKS;
        if enough || over || hopeless || made + 1 >= MOST_BLOCKS {
            break;
        }
    }
    match blocks.len() {
        0 if blocks.invalid > 0 => Err(AbError::Invalid(blocks.why)),
        few if few < FEWEST_BLOCKS => Err(AbError::TooFew(few)),
        _ => Ok(blocks.comparison(names)),
    }
}

impl Blocks {
    fn new() -> Self {
        Self {
            figures: Vec::new(),
            shifts: Vec::new(),
            values: vec![(Vec::new(), Vec::new()); Figure::ALL.len()],
            invalid: 0,
            why: String::new(),
        }
    }

    fn len(&self) -> usize {
        self.shifts.first().map_or(0, Vec::len)
    }

    fn add(&mut self, turns: &[Report]) {
        if let Some(bad) = turns.iter().find(|turn| turn.verdict == Verdict::Invalid) {
            self.invalid += 1;
            self.why.clone_from(&bad.reason);
            return;
        }
        if self.figures.is_empty() {
            let open_loop = turns.iter().any(|turn| turn.asked_rate.is_some());
            let tested = Figure::ALL.into_iter().filter(|f| f.is_tested(open_loop));
            self.figures = tested.collect();
            self.shifts = vec![Vec::new(); self.figures.len()];
        }
        let values: Vec<_> = turns.iter().map(Figure::values).collect();
        let of = |figure: Figure, side: Turn| -> Vec<f64> {
            let mine = BLOCK.iter().zip(&values).filter(|(turn, _)| **turn == side);
            mine.map(|(_, values)| values[figure as usize]).collect()
        };
        for (figure, (a, b)) in Figure::ALL.into_iter().zip(&mut self.values) {
            a.extend(of(figure, Turn::A));
            b.extend(of(figure, Turn::B));
        }
        for (figure, shifts) in self.figures.iter().zip(&mut self.shifts) {
            let logs = |side| of(*figure, side).into_iter().map(log).collect::<Vec<_>>();
            shifts.push(mean(&logs(Turn::B)) - mean(&logs(Turn::A)));
        }
    }

    fn results(&self) -> Vec<Shift> {
        self.shifts
            .iter()
            .map(|shifts| signed_rank(shifts, ALPHA))
            .collect()
    }

    /// Returns half of the width of the interval of the median (and of the rate of a closed loop):
    /// the tail of short turns would take for ever.
    fn precision(&self) -> f64 {
        let results = self.figures.iter().zip(self.results());
        results
            .filter(|(figure, _)| matches!(figure, Figure::P50 | Figure::Rate))
            .map(|(_, shift)| (shift.high - shift.low) / 2.0)
            .fold(0.0, f64::max)
    }

    fn comparison(&self, [a, b]: [&str; 2]) -> Comparison {
        let shifts = self.results();
        let corrected = holm(&shifts.iter().map(|shift| shift.p).collect::<Vec<_>>());
        let figures = Figure::ALL.into_iter().zip(&self.values);
        let figures: Vec<_> = figures
            .map(|(figure, (a, b))| {
                let place = self.figures.iter().position(|tested| *tested == figure);
                let shift = place.map(|place| (&shifts[place], corrected[place]));
                compared(figure, median(a), median(b), shift)
            })
            .collect();
        let (runs_a, runs_b) = (self.values[0].0.len(), self.values[0].1.len());
        let mut notes = Vec::new();
        if self.invalid > 0 {
            notes.push(format!(
                "{} blocks with an invalid turn were left out ({})",
                self.invalid, self.why
            ));
        }
        if self.len() < FEWEST_BLOCKS {
            notes.push(format!("{} of at least {FEWEST_BLOCKS} blocks", self.len()));
        }
        Comparison {
            a: a.to_owned(),
            b: b.to_owned(),
            runs_a,
            runs_b,
            verdict: match overall(&figures) {
                _ if self.len() < FEWEST_BLOCKS => Change::Untested,
                verdict => verdict,
            },
            test: format!(
                "Wilcoxon's signed-rank test, exact, on {} blocks of turns A B B A; Holm's \
                 correction for {} figures",
                self.len(),
                self.figures.len()
            ),
            figures,
            notes,
        }
    }
}
