//! Whether a second of a lane was the generator's fault.

use super::series::Point;

/// Mean lag over a second below which a generator is in time, in nanoseconds: ten times what
/// pacing on timers costs, and less than any latency that a tail is judged by.
pub(crate) const LATE_NS: f64 = 1_000_000.0;
/// The part of a second's mean latency that may be the generator's own lag. While a target
/// stalls, whatever lag there is hides behind latencies a hundred times longer.
pub(crate) const LATE_SHARE: f64 = 0.25;
/// Share of its core, in thousandths, at which a thread has no more to give. Not 1,000: the
/// kernel's own work on the core (interrupts, the network) is not in a thread's CPU time.
pub(crate) const CORE_FULL_PERMILLE: u16 = 950;
/// Share of a second for which a thread must have waited for a core to be called starved. Two
/// threads that meet on a core now and then wait for 1 to 2 %.
pub(crate) const STARVED_SHARE: f64 = 0.05;
/// In a closed loop, where nothing is due: waited for a core this share of the time, and longer
/// than it ran, so that every figure is at least half the scheduler's.
pub(crate) const STARVED_CLOSED_SHARE: f64 = 0.10;
/// Seconds shorter than this (the first, the last) are too short to judge, in nanoseconds.
pub(crate) const SHORTEST_JUDGED_NS: u64 = 500_000_000;
/// Answers in a second, as a share of what came due, from which connections turn over: below it
/// the target stalls, and requests that wait say nothing of the number of connections.
const TURNING_SHARE: f64 = 0.10;

/// Sets the marks of `point`, a second of one lane that has `capacity` requests in flight at most.
pub(crate) fn judge(point: &mut Point, capacity: u64) {
    let permille = point.cpu_ns.saturating_mul(1000) / point.wall_ns.max(1);
    point.peak_cpu_permille = u16::try_from(permille.min(1000)).unwrap_or(1000);
    if point.wall_ns < SHORTEST_JUDGED_NS {
        return;
    }
    point.lane_seconds = 1;
    let full = point.peak_cpu_permille >= CORE_FULL_PERMILLE;
    let waited = point.wait_ns as f64 / point.wall_ns as f64;
    if point.released == 0 {
        point.saturated = u32::from(full && point.done > 0);
        let starved = waited >= STARVED_CLOSED_SHARE && point.wait_ns > point.cpu_ns;
        point.starved = u32::from(starved && point.done > 0);
        return;
    }
    let lag = point.mean_lag_ns();
    let late = lag > LATE_NS && lag > point.mean_latency_ns() * LATE_SHARE;
    point.saturated = u32::from(late && full);
    point.starved = u32::from(late && !full && waited >= STARVED_SHARE);
    let turning = point.done as f64 >= point.released as f64 * TURNING_SHARE;
    point.crowded = u32::from(turning && point.in_flight > capacity);
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn second(lag_ms: u64, latency_ms: u64, cpu_ms: u64, wait_ms: u64) -> Point {
        Point {
            released: 1000,
            done: 1000,
            lag_sum_ns: 1000 * lag_ms * MS,
            latency_sum_ns: 1000 * latency_ms * MS,
            cpu_ns: cpu_ms * MS,
            wait_ns: wait_ms * MS,
            wall_ns: 1000 * MS,
            ..Point::default()
        }
    }

    #[test]
    fn lane_is_at_fault_only_where_it_was_late() {
        for (lag, latency, cpu, wait, saturated, starved, why) in [
            (0, 1, 500, 0, 0, 0, "idle and in time"),
            (0, 1, 990, 0, 0, 0, "busy, but in time"),
            (0, 1, 400, 300, 0, 0, "waited, but in time"),
            (5, 6, 990, 0, 1, 0, "busy and late"),
            (5, 6, 400, 300, 0, 1, "kept from running and late"),
            (5, 6, 400, 10, 0, 0, "late for another reason"),
            (
                5,
                900,
                990,
                0,
                0,
                0,
                "catching up with a stall of the target",
            ),
        ] {
            let mut point = second(lag, latency, cpu, wait);
            judge(&mut point, 64);
            assert_eq!(
                (point.saturated, point.starved),
                (saturated, starved),
                "{why}"
            );
        }
    }

    #[test]
    fn closed_loop_is_judged_by_its_core_alone() {
        for (cpu, wait, saturated, starved) in [
            (500, 50, 0, 0),
            (990, 0, 1, 0),
            (300, 200, 0, 0),
            (300, 400, 0, 1),
        ] {
            let mut point = Point {
                released: 0,
                ..second(0, 1, cpu, wait)
            };
            judge(&mut point, 64);
            assert_eq!(
                (point.saturated, point.starved),
                (saturated, starved),
                "{cpu} {wait}"
            );
        }
    }

    #[test]
    fn requests_that_wait_while_answers_come_are_a_crowd_and_a_stall_is_none() {
        for (done, in_flight, crowded) in [(1000, 64, 0), (500, 900, 1), (20, 900, 0)] {
            let mut point = Point {
                done,
                in_flight,
                ..second(0, 1, 100, 0)
            };
            judge(&mut point, 64);
            assert_eq!(point.crowded, crowded, "{done} {in_flight}");
        }
    }

    #[test]
    fn part_of_a_second_is_not_judged() {
        let mut point = Point {
            wall_ns: 100 * MS,
            ..second(5, 6, 100, 100)
        };
        judge(&mut point, 64);
        assert_eq!(
            (point.lane_seconds, point.saturated, point.starved),
            (0, 0, 0)
        );
    }
}
