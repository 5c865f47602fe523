//! Seeds of the deterministic simulation.
//!
//! `BALLAST_SIM_SEED=N` runs that seed alone and prints its last steps if it fails;
//! `BALLAST_SIM_SEEDS=N` runs that many instead of the usual number, from a random one on.

use ballast_tests::sim;

/// Seeds of each of the shards, which run side by side.
const SEEDS: u64 = 75;
const SHARDS: u64 = 4;

/// Seeds that once failed, and what for.
const REGRESSIONS: &[(u64, &str)] = &[
    (
        1_000_003,
        "a withdrawn task ran on after its agent had come back",
    ),
    (
        2_000_000,
        "what was bound late was missing in the kept index",
    ),
];

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn run_shard(shard: u64) {
    let seeds: Vec<u64> = match (number("BALLAST_SIM_SEED"), number("BALLAST_SIM_SEEDS")) {
        (Some(seed), _) => vec![seed],
        (None, Some(count)) => (0..count / SHARDS)
            .map(|n| 1_000_000 * (shard + 1) + n)
            .collect(),
        (None, None) => (0..SEEDS).map(|n| n * SHARDS + shard).collect(),
    };
    let mut total = sim::Summary::default();
    for seed in seeds {
        match sim::run(seed) {
            Err(failure) => panic!("{failure}"),
            Ok(summary) => {
                total.entries += summary.entries;
                total.disturbed += summary.disturbed;
                total.crashes += summary.crashes;
                total.starts += summary.starts;
            }
        }
    }
    assert!(
        total.entries > 0 && total.starts > 0,
        "nothing happened: {total:?}"
    );
    assert!(
        total.crashes > 0 || number("BALLAST_SIM_SEED").is_some(),
        "no faults: {total:?}"
    );
}

#[test]
fn cluster_comes_to_rest_after_faults_0() {
    run_shard(0);
}

#[test]
fn cluster_comes_to_rest_after_faults_1() {
    run_shard(1);
}

#[test]
fn cluster_comes_to_rest_after_faults_2() {
    run_shard(2);
}

#[test]
fn cluster_comes_to_rest_after_faults_3() {
    run_shard(3);
}

#[test]
fn seeds_that_failed_once_pass() {
    for (seed, was) in REGRESSIONS {
        if let Err(failure) = sim::run(*seed) {
            panic!("again ({was}): {failure}");
        }
    }
}

#[test]
fn same_seed_gives_the_same_run() {
    assert_eq!(sim::run(7), sim::run(7));
}
