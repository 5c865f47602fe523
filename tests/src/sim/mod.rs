//! The deterministic simulation: one manager, its reconciler and scheduler, and many agents, in
//! virtual time, with one seeded generator.
//!
//! Real are [`ballast_manager::state`], [`ballast_manager::reconcile`], the scheduler and
//! [`ballast_agent::worker`]; modelled are the network, disks, processes and both shells. While
//! there are faults, messages are lost, late, repeated and overtake each other; agents and whole
//! machines crash and come back with what is on their disk; nodes fall silent; programs end, hang
//! and cannot be started; the leader loses its memory, and proposals are lost or applied without
//! its knowledge; and a user goes on changing what is wanted. Then the faults stop, and the cluster
//! has to come to rest.
//!
//! * [`world`]: time, the queue of what happens next, faults
//! * [`manager`]: the leader's shell
//! * [`host`]: a machine, its agent's shell and its processes
//! * [`user`]: what is asked of the cluster
//! * [`check`]: the invariants after every step, and what rest means

mod check;
mod host;
mod manager;
mod user;
mod world;

use world::World;

/// Steps that a failure shows.
const TRACE: usize = 120;

/// What a run did: so that a test can tell that faults and work happened at all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Summary {
    /// Things that happened.
    pub events: u64,
    /// Log entries applied.
    pub entries: u64,
    /// Messages that were lost or repeated.
    pub disturbed: u64,
    /// Crashes of agents, machines and leaders.
    pub crashes: u64,
    /// Programs started.
    pub starts: u64,
    /// Placements that `apply` refused.
    pub refused: u64,
    /// A hash of the final state.
    pub digest: u64,
}

/// Runs one seed to its end.
///
/// # Errors
/// The invariant that was broken or what did not come to rest, with the seed and the last steps.
pub fn run(seed: u64) -> Result<Summary, String> {
    let mut world = World::new(seed, false);
    let Err(reason) = world.run() else {
        return Ok(world.summary());
    };
    // The same again, and this time with every step in words.
    let mut world = World::new(seed, true);
    let again = world.run();
    let same = again == Err(reason.clone());
    let steps: Vec<&str> = world.trace().collect();
    let tail = steps[steps.len().saturating_sub(TRACE)..].join("\n");
    Err(format!(
        "BALLAST_SIM_SEED={seed}: {reason}{}\nlast steps:\n{tail}",
        if same {
            ""
        } else {
            " (and not the same when run again)"
        }
    ))
}
