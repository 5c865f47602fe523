//! Sees endpoints that stall: requests in flight, no bytes, peers answering.
//!
//! One task looks at every pool that has something in flight, every [`LOOK`]; while nothing is in
//! flight anywhere it sleeps. So a hung program is found within tens of milliseconds of its
//! traffic, and nothing is paid per request but a stored moment.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ballast_model::Protocol;
use tokio_util::sync::CancellationToken;

use crate::hub::Hub;
use crate::policy::PoolState;
use crate::table::{Backend, Moment, Pool};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(4);
/// Silence that is never a stall.
const STALL_MIN: Duration = Duration::from_millis(20);
/// Silence that always is one, however slow the pool usually is: asking costs little.
const STALL_MAX: Duration = Duration::from_secs(2);
/// A stall is silence for this many times the pool's usual latency.
const STALL_FACTOR: u32 = 4;
/// The shortest time an asked-for probe is given.
const PROBE_MIN: Duration = Duration::from_millis(15);
/// The longest.
const PROBE_MAX: Duration = Duration::from_secs(1);

/// How much later this task wakes than it asked to says how starved the machine is; an endpoint on
/// it is given this many times that longer. Without it a busy machine takes live endpoints out.
const STRAIN_FACTOR: u32 = 2;
/// The strain seen fades by one part in this many with each look.
const STRAIN_DECAY: u32 = 4;
/// Lateness that is none: a timer wakes at the next millisecond, and the task in turn.
const STRAIN_SLACK: Duration = Duration::from_millis(2);
/// The strain that counts at most: past it, finding a hung program late costs more.
const STRAIN_MAX: Duration = Duration::from_millis(20);

/// Watches until `stop`.
pub async fn watch(hub: Arc<Hub>, stop: CancellationToken) {
    let mut strain = Duration::ZERO;
    let busy = Arc::clone(hub.feed().busy());
    let mut watched: Vec<Arc<PoolState>> = Vec::new();
    loop {
        if !hub.is_active() {
            tokio::select! {
                () = hub.busy.notified() => {}
                () = stop.cancelled() => return,
            }
        }
        let asleep = Instant::now();
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = stop.cancelled() => return,
        }
        let late = asleep.elapsed().saturating_sub(LOOK + STRAIN_SLACK);
        strain = late
            .min(STRAIN_MAX)
            .max(strain.saturating_sub(strain / STRAIN_DECAY));
        let table = hub.table();
        let now = hub.now();
        watched.extend(busy.take());
        watched.retain(|state| {
            let pool = state.key().and_then(|key| table.pool(key));
            let stalled = pool.map(|pool| stalled(pool, now, strain * STRAIN_FACTOR));
            for (backend, timeout) in stalled.into_iter().flatten() {
                hub.ask_probe(backend, timeout);
            }
            let has_requests = || pool.is_some_and(|pool| is_busy(pool));
            if has_requests() {
                return true;
            }
            state.idled();
            // One may have begun just before: then nobody lists the pool but this.
            has_requests() && state.relist()
        });
    }
}

/// Whether a pool has anything in flight.
fn is_busy(pool: &Pool) -> bool {
    pool.open().iter().any(|backend| backend.in_flight() > 0)
}

/// Returns those that stall, and how long a probe of each may take. Connections of other protocols
/// than HTTP are silent by nature. `strain` is added to every span.
///
/// # Complexity
/// Linear in the pool.
fn stalled(pool: &Pool, now: Moment, strain: Duration) -> Vec<(&Arc<Backend>, Duration)> {
    let silent = |backend: &&Arc<Backend>| backend.quiet_for(now) >= STALL_MIN;
    if pool.protocol != Protocol::Http || !pool.open().iter().any(|backend| silent(&backend)) {
        return Vec::new();
    }
    let known: Vec<Duration> = pool.open().iter().filter_map(|b| b.latency()).collect();
    let count = u32::try_from(known.len()).unwrap_or(u32::MAX);
    let usual = known.iter().sum::<Duration>().checked_div(count);
    let usual = usual.unwrap_or_default() * STALL_FACTOR;
    let limit = usual.clamp(STALL_MIN, STALL_MAX) + strain;
    // When all that are busy are silent, what all of them wait for stalls, and probes would only
    // add load. Peers without anything in flight say nothing; alone, an endpoint is asked.
    let busy = pool.open().iter().filter(|backend| backend.in_flight() > 0);
    let answering = busy.clone().any(|backend| backend.quiet_for(now) < limit);
    if !answering && busy.count() > 1 {
        return Vec::new();
    }
    let timeout = usual.clamp(PROBE_MIN, PROBE_MAX) + strain;
    let silent = pool.open().iter().filter(silent);
    silent
        .filter(|backend| backend.quiet_for(now) >= limit)
        .map(|backend| (backend, timeout))
        .collect()
}

#[cfg(test)]
mod tests {
    use ballast_model::{AssignmentId, NodeId, ServiceId};

    use super::*;
    use crate::table::{Gate, InFlight, Member, MemberState, PoolKey};

    fn pool(count: u16) -> Pool {
        let members = (0..count).map(|number| {
            let backend = Backend::new(
                AssignmentId::from_bits(number.into()),
                NodeId::from_bits(1),
                ([127, 0, 0, 1], number).into(),
            );
            backend.set_gate(Gate::Open);
            Member {
                backend: Arc::new(backend),
                state: MemberState::Ready,
            }
        });
        let key = PoolKey {
            service: ServiceId::from_bits(1),
            port: "http".into(),
        };
        Pool::new(key, "web".into(), Protocol::Http, members.collect())
    }

    fn begin(pool: &Pool, index: usize, now: Moment) -> InFlight {
        pool.members[index].backend.try_begin(now).expect("is open")
    }

    const MS: u64 = 1000;

    #[test]
    fn silent_endpoint_stalls_while_its_peers_answer() {
        let pool = pool(3);
        let _hung = begin(&pool, 0, Moment(0));
        let _live = begin(&pool, 1, Moment(0));
        assert_eq!(
            stalled(&pool, Moment(10 * MS), Duration::ZERO).len(),
            0,
            "not yet"
        );
        let live = &pool.members[1].backend;
        live.responded(Duration::from_millis(1), Moment(19 * MS));
        let found = stalled(&pool, Moment(21 * MS), Duration::ZERO);
        assert_eq!(found.len(), 1);
        assert!(Arc::ptr_eq(found[0].0, &pool.members[0].backend));
        assert_eq!(found[0].1, PROBE_MIN);
    }

    #[test]
    fn slow_pool_is_given_four_times_its_latency() {
        let pool = pool(2);
        let _slow = begin(&pool, 0, Moment(0));
        for _ in 0..100 {
            let peer = &pool.members[1].backend;
            peer.responded(Duration::from_millis(50), Moment(0));
        }
        assert_eq!(stalled(&pool, Moment(150 * MS), Duration::ZERO).len(), 0);
        assert_eq!(stalled(&pool, Moment(210 * MS), Duration::ZERO).len(), 1);
    }

    #[test]
    fn starved_machine_gives_its_endpoints_longer() {
        let pool = pool(1);
        let _hung = begin(&pool, 0, Moment(0));
        let strain = Duration::from_millis(30);
        assert!(stalled(&pool, Moment(45 * MS), strain).is_empty());
        let found = stalled(&pool, Moment(55 * MS), strain);
        assert_eq!(found[0].1, PROBE_MIN + strain);
    }

    #[test]
    fn nobody_is_asked_when_all_are_silent() {
        let pool = pool(2);
        let _one = begin(&pool, 0, Moment(0));
        let other = begin(&pool, 1, Moment(0));
        assert_eq!(stalled(&pool, Moment(100 * MS), Duration::ZERO).len(), 0);
        drop(other);
        assert_eq!(
            stalled(&pool, Moment(100 * MS), Duration::ZERO).len(),
            1,
            "alone: asked"
        );
    }
}
