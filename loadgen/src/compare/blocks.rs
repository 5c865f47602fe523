//! A single run as several measurements.
//!
//! Seconds that follow each other are alike (a garbage collection, a neighbour, a cache that
//! fills), so that sixty of them say less than sixty runs. Means of blocks that are long against
//! such episodes are nearly independent, and few of them make a t-test wide by themselves.

use super::{CompareError, Figure, log};
use crate::recorder::Cells;
use crate::report::{Report, TimelinePoint};

/// Blocks that a run is cut into, if it is long enough: with fewer the interval is wider than it
/// need be, with more the blocks are too short to be independent.
const BLOCKS: usize = 10;
/// Fewest blocks that a run is compared by.
const FEWEST: usize = 5;
/// The shortest block, in points: what follows each other at once is most alike.
const SHORTEST: usize = 2;

/// The blocks of the runs of one side.
pub(super) struct Cut {
    blocks: Vec<Block>,
    /// Points in a block.
    pub length: usize,
}

struct Block {
    cells: Cells,
    requests: u64,
    seconds: f64,
}

/// Cuts each of `runs` into blocks.
pub(super) fn cut(name: &str, runs: &[&Report]) -> Result<Cut, CompareError> {
    let mut blocks = Vec::new();
    let mut length = 0;
    for run in runs {
        let points = whole_points(run);
        length = (points.len() / BLOCKS).max(SHORTEST);
        if points.len() / length < FEWEST {
            return Err(CompareError::TooShort {
                name: name.to_owned(),
                points: points.len(),
                needed: FEWEST * SHORTEST,
            });
        }
        blocks.extend(points.chunks_exact(length).map(Block::of));
    }
    Ok(Cut { blocks, length })
}

/// Returns the points of a run without the first, in which it warms up, and without what is left
/// of a second at its end.
fn whole_points(run: &Report) -> &[TimelinePoint] {
    let span = run.series.span_seconds as f64;
    let points = &run.series.points;
    let last = points
        .iter()
        .rposition(|point| {
            point.seconds >= span * 0.999 && point.start + span <= run.duration_seconds + 0.001
        })
        .map_or(0, |last| last + 1);
    &points[1.min(last)..last]
}

impl Block {
    fn of(points: &[TimelinePoint]) -> Self {
        let mut cells = Cells::default();
        for point in points {
            cells.merge(&point.cells);
        }
        Self {
            cells,
            requests: points.iter().map(|point| point.requests).sum(),
            seconds: points.iter().map(|point| point.seconds).sum(),
        }
    }
}

impl Cut {
    /// Returns how many blocks there are.
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Returns the logarithm of a figure, block by block.
    pub fn logs(&self, figure: Figure) -> Vec<f64> {
        let of = |block: &Block| match figure.quantile() {
            Some(quantile) => block.cells.quantile(quantile) / 1e6,
            None => block.requests as f64 / block.seconds.max(f64::MIN_POSITIVE),
        };
        self.blocks.iter().map(|block| log(of(block))).collect()
    }
}
