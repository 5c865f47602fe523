//! When endpoints left an ingress's table, by its own log.

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ballast_model::Timestamp;

/// The message that the ingress logs; its fields give the moment with microseconds.
const MESSAGE: &str = "endpoint out of the table";
/// Between two looks at the log.
const POLL: Duration = Duration::from_millis(2);

/// Reads one ingress's log.
#[derive(Debug)]
pub struct IngressLog {
    path: PathBuf,
}

/// An endpoint that left the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Departure {
    /// When its agent saw the failure, microseconds since the epoch.
    pub seen_us: u64,
    /// When it was out.
    pub out_us: u64,
}

impl IngressLog {
    /// Returns a reader of the log at `path`.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Returns the first departure of `assignment` at or after `from_us`, if it comes in time.
    pub fn wait(&self, assignment: &str, from_us: u64, deadline: Duration) -> Option<Departure> {
        let start = Instant::now();
        loop {
            let text = std::fs::read(&self.path).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let found = text
                .lines()
                .filter(|line| line.contains(assignment))
                .filter_map(departure)
                .find(|departure| departure.out_us >= from_us);
            if found.is_some() || start.elapsed() > deadline {
                return found;
            }
            std::thread::sleep(POLL);
        }
    }
}

fn departure(line: &str) -> Option<Departure> {
    if !line.contains(MESSAGE) {
        return None;
    }
    let field = |name: &str| {
        let (_, rest) = line.split_once(name)?;
        rest.split([' ', '"', ',', '}'])
            .find(|word| !word.is_empty())
    };
    let seen: Timestamp = field("seen=")?.parse().ok()?;
    let elapsed: u64 = field("elapsed_us=")?.parse().ok()?;
    Some(Departure {
        seen_us: seen.0,
        out_us: seen.0 + elapsed,
    })
}

/// Returns the wall clock in microseconds since the epoch, as the log has it.
pub fn wall_us() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn departure_is_read_from_a_line_of_the_log() {
        let line = "2026-01-31T12:00:00.000900Z DEBUG ballast_lb::hub: endpoint out of the table \
                    assignment_id=asg-1 seen=2026-01-31T12:00:00.000100Z elapsed_us=750";
        let departure = departure(line).expect("reads");
        assert_eq!(departure.out_us - departure.seen_us, 750);
        assert_eq!(super::departure("something else elapsed_us=1"), None);
    }
}
