//! What happened when, in a bounded number of points.

use serde::{Deserialize, Serialize};

use super::cells::Cells;
use crate::record::ErrorClass;

/// Most points of a series: ten minutes of seconds. A longer run has points of 2, 4, 8 … seconds.
pub const MAX_POINTS: usize = 600;
/// Most bytes that the latencies of a series may take; past it points are made longer, too.
const MAX_CELL_BYTES: usize = 512 << 10;

/// Failed requests by [`ErrorClass::index`].
pub type Errors = [u64; ErrorClass::ALL.len()];

/// What happened in one span of time. Counts are of what ended in it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Point {
    /// Requests that became due.
    pub released: u64,
    /// Requests that ended.
    pub done: u64,
    /// Of these, failed ones.
    pub errors: Errors,
    /// Bytes of answers.
    pub received_bytes: u64,
    /// Bytes of requests.
    pub sent_bytes: u64,
    /// Latencies.
    pub cells: Cells,
    /// Of all latencies together.
    pub latency_sum_ns: u64,
    /// The longest latency, exactly.
    pub latency_max_ns: u64,
    /// Of all requests together: from when one was due to when it was taken up.
    pub lag_sum_ns: u64,
    /// The longest.
    pub lag_max_ns: u64,
    /// Requests due and not ended at the end of it.
    pub in_flight: u64,
    /// CPU time of the lanes' threads.
    pub cpu_ns: u64,
    /// Time for which the lanes' threads could have run and no core was free.
    pub wait_ns: u64,
    /// Time that passed, all lanes together: what `cpu_ns` is a share of.
    pub wall_ns: u64,
    /// The greatest share of its core that a lane's thread used, in thousandths.
    pub peak_cpu_permille: u16,
    /// Seconds of lanes that are summed up here.
    pub lane_seconds: u32,
    /// Of these: the thread had no more CPU to give, and was late.
    pub saturated: u32,
    /// Of these: the thread was kept from running, and was late.
    pub starved: u32,
    /// Of these: requests waited for a connection although answers came.
    pub crowded: u32,
}

impl Point {
    /// Returns how many requests failed.
    pub fn failed(&self) -> u64 {
        self.errors.iter().sum()
    }

    /// Returns the mean lag in nanoseconds.
    pub fn mean_lag_ns(&self) -> f64 {
        self.lag_sum_ns as f64 / self.released.max(1) as f64
    }

    /// Returns the mean latency in nanoseconds.
    pub fn mean_latency_ns(&self) -> f64 {
        self.latency_sum_ns as f64 / self.done.max(1) as f64
    }

    /// Returns the share of the lanes' time that their threads ran.
    pub fn cpu_share(&self) -> f64 {
        self.cpu_ns as f64 / self.wall_ns.max(1) as f64
    }

    fn add(&mut self, other: &Self) {
        self.released += other.released;
        self.done += other.done;
        for (sum, count) in self.errors.iter_mut().zip(other.errors) {
            *sum += count;
        }
        self.received_bytes += other.received_bytes;
        self.sent_bytes += other.sent_bytes;
        self.cells.merge(&other.cells);
        self.latency_sum_ns = self.latency_sum_ns.saturating_add(other.latency_sum_ns);
        self.latency_max_ns = self.latency_max_ns.max(other.latency_max_ns);
        self.lag_sum_ns = self.lag_sum_ns.saturating_add(other.lag_sum_ns);
        self.lag_max_ns = self.lag_max_ns.max(other.lag_max_ns);
        self.cpu_ns += other.cpu_ns;
        self.wait_ns += other.wait_ns;
        self.wall_ns += other.wall_ns;
        self.peak_cpu_permille = self.peak_cpu_permille.max(other.peak_cpu_permille);
        self.lane_seconds += other.lane_seconds;
        self.saturated += other.saturated;
        self.starved += other.starved;
        self.crowded += other.crowded;
    }

    /// Adds what another lane did in the same time.
    pub fn beside(&mut self, other: &Self) {
        self.add(other);
        self.in_flight += other.in_flight;
    }

    /// Adds what the same lanes did right afterwards.
    pub fn then(&mut self, other: &Self) {
        self.add(other);
        self.in_flight = self.in_flight.max(other.in_flight);
    }
}

/// Points of equal length from the start of a run, without a gap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Series {
    /// Seconds that a point covers: a power of two.
    span: u64,
    points: Vec<Point>,
}

impl Series {
    /// Returns a series without a point.
    pub const fn new() -> Self {
        Self {
            span: 1,
            points: Vec::new(),
        }
    }

    /// Returns how many seconds each point covers.
    pub const fn span_seconds(&self) -> u64 {
        self.span
    }

    /// Returns the points from the start of the run on.
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// Adds what happened in `second`, counted from 0.
    pub fn push(&mut self, second: u64, point: &Point) {
        while second / self.span >= MAX_POINTS as u64 {
            self.coarsen();
        }
        // Below `MAX_POINTS`, so that it fits.
        let index = usize::try_from(second / self.span).unwrap_or(usize::MAX);
        if index < self.points.len() {
            self.points[index].then(point);
        } else {
            self.points.resize(index, Point::default());
            self.points.push(point.clone());
        }
        while self.cell_bytes() > MAX_CELL_BYTES && self.points.len() > 1 {
            self.coarsen();
        }
    }

    /// Adds what other lanes did in the same time.
    pub fn merge(&mut self, other: &Self) {
        let mut other = other.clone();
        while self.span < other.span {
            self.coarsen();
        }
        while other.span < self.span {
            other.coarsen();
        }
        for (index, point) in other.points.iter().enumerate() {
            match self.points.get_mut(index) {
                Some(same) => same.beside(point),
                None => self.points.push(point.clone()),
            }
        }
        while self.cell_bytes() > MAX_CELL_BYTES && self.points.len() > 1 {
            self.coarsen();
        }
    }

    fn cell_bytes(&self) -> usize {
        self.points.iter().map(|point| point.cells.bytes()).sum()
    }

    fn coarsen(&mut self) {
        self.span = self.span.saturating_mul(2);
        self.points = self
            .points
            .chunks(2)
            .map(|pair| {
                let mut sum = pair[0].clone();
                if let Some(second) = pair.get(1) {
                    sum.then(second);
                }
                sum
            })
            .collect();
    }
}

impl Default for Series {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::super::window::Window;
    use super::*;

    fn point(done: u64, latency_ns: u64) -> Point {
        let mut window = Window::new();
        (0..done).for_each(|n| window.record(latency_ns + n * 1000));
        Point {
            done,
            cells: window.cells(),
            in_flight: done,
            lane_seconds: 1,
            ..Point::default()
        }
    }

    #[test]
    fn long_run_stays_small_and_loses_nothing() {
        let mut series = Series::new();
        for second in 0..36_000 {
            series.push(second, &point(50, 1_000_000));
        }
        assert_eq!(series.span_seconds(), 64);
        assert!(series.points().len() <= MAX_POINTS);
        assert!(series.cell_bytes() <= MAX_CELL_BYTES);
        let done: u64 = series.points().iter().map(|point| point.done).sum();
        let cells: u64 = series.points().iter().map(|p| p.cells.count()).sum();
        assert_eq!((done, cells), (36_000 * 50, 36_000 * 50));
    }

    #[test]
    fn wild_latencies_make_points_longer_before_they_take_more_memory() {
        let mut series = Series::new();
        for second in 0..MAX_POINTS as u64 {
            let mut window = Window::new();
            (0..20_000_u64).for_each(|n| window.record(n * n * 1000));
            let cells = window.cells();
            series.push(
                second,
                &Point {
                    cells,
                    done: 20_000,
                    ..Point::default()
                },
            );
        }
        assert!(
            series.cell_bytes() <= MAX_CELL_BYTES,
            "{}",
            series.cell_bytes()
        );
        assert!(series.span_seconds() > 1);
    }

    #[test]
    fn jump_over_years_is_one_point_not_a_full_memory() {
        let mut series = Series::new();
        series.push(u64::MAX / 2, &point(1, 1));
        assert!(series.points().len() <= MAX_POINTS);
    }

    #[test]
    fn lanes_add_up_beside_each_other_whatever_the_length_of_their_points() {
        let (mut left, mut right) = (Series::new(), Series::new());
        (0..4).for_each(|second| left.push(second, &point(3, 1000)));
        right.push(0, &point(5, 1000));
        right.push(700, &point(5, 1000));
        left.merge(&right);
        assert_eq!(left.span_seconds(), 2);
        assert_eq!(left.points()[0].done, 11);
        assert_eq!(
            left.points()[0].in_flight,
            8,
            "a pair counts once, lanes add up"
        );
        assert_eq!(left.points()[350].done, 5);
    }
}
