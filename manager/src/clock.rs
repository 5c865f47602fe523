//! The time that commands carry, read before they are proposed and never in `apply`.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use ballast_model::Timestamp;

/// Wall clock and monotonic clock at the same moment.
static ANCHOR: OnceLock<(SystemTime, Instant)> = OnceLock::new();

/// Returns a moment as commands carry it; before 1970 it is 0.
pub fn timestamp(now: SystemTime) -> Timestamp {
    let micros = now
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_micros());
    Timestamp(u64::try_from(micros).unwrap_or(u64::MAX))
}

/// Returns the present moment: the wall clock as it was when this process first asked, and the
/// monotonic time since. So restart delays and windows, which are reckoned in these moments, do not
/// change when the wall clock jumps.
pub fn now() -> Timestamp {
    let (wall, start) = ANCHOR.get_or_init(|| (SystemTime::now(), Instant::now()));
    timestamp(*wall + start.elapsed())
}
