//! How fast a failure leaves the table, how fast it is replaced, and what requests notice of it.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ballast_loadgen::{Method, Outcome, Record};
use serde_json::{Value, json};

use super::figures::{Figure, Stat};
use super::haproxy::{self, HaProxy};
use super::rig::{self, Fault, HEALS_WITHIN, Harm, PUBLISHED, Rig, ms};
use super::{Bench, Options};
use crate::cluster::Signal;

/// Replicas, and HAProxy's backends.
const REPLICAS: u16 = 5;
/// How long the manager is away.
const MANAGER_AWAY: Duration = Duration::from_secs(10);
/// Between two faults.
const PAUSE: Duration = Duration::from_millis(250);

/// How much of everything.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    /// Blocks in which we and HAProxy take turns.
    blocks: usize,
    /// Of our replicas, per block.
    kills: usize,
    /// Of our replicas, per block.
    hangs: usize,
    /// Of HAProxy's backends, of each kind, per block.
    peer_faults: usize,
    /// Nodes lost.
    nodes: usize,
    /// How long the manager is away.
    away: Duration,
}

impl Sizes {
    fn of(options: &Options) -> Self {
        let published = Self {
            blocks: options.runs.unwrap_or(5),
            kills: 10,
            hangs: 4,
            peer_faults: 4,
            nodes: 5,
            away: MANAGER_AWAY,
        };
        let tiny = Self {
            blocks: 1,
            kills: 1,
            hangs: 1,
            peer_faults: 1,
            nodes: 1,
            away: Duration::from_secs(2),
        };
        options.size(published, tiny)
    }
}

/// Faults of one kind to one subject, with what they did.
#[derive(Debug, Default)]
struct Series(Vec<(Fault, Harm)>);

impl Series {
    fn add(&mut self, zero: Instant, outcome: &Outcome, faults: Vec<Fault>) {
        let harm = |fault: Fault| {
            let harm = fault.harm(zero, &outcome.records);
            (fault, harm)
        };
        self.0.extend(faults.into_iter().map(harm));
    }

    fn times(&self, of: impl Fn(&Fault) -> Option<Duration>) -> Vec<f64> {
        // What did not happen in time counts as the whole wait: it must not vanish.
        self.0
            .iter()
            .map(|(fault, _)| ms(of(fault).unwrap_or(HEALS_WITHIN)))
            .collect()
    }

    fn counts(&self, of: impl Fn(&Harm) -> usize) -> Vec<f64> {
        self.0.iter().map(|(_, harm)| of(harm) as f64).collect()
    }

    fn slowest(&self) -> Vec<f64> {
        self.0.iter().map(|(_, harm)| ms(harm.slowest)).collect()
    }

    fn to_json(&self) -> Value {
        self.0
            .iter()
            .map(|(fault, harm)| fault.to_json(*harm))
            .collect()
    }
}

/// Measures it.
///
/// # Errors
/// If the cluster does not come up, or a fault cannot be done to it.
pub fn run(bench: &mut Bench, options: &Options) -> Result<()> {
    let sizes = Sizes::of(options);
    let rig = Rig::start(REPLICAS.into())?;
    bench.case("kill and hang", options, |bench| blocks(&rig, bench, sizes));
    bench.case("node lost", options, |bench| {
        nodes(&rig, bench, sizes.nodes)
    });
    bench.case("manager away", options, |bench| {
        manager(&rig, bench, sizes.away)
    });
    let Rig { cluster, watch, .. } = rig;
    drop(watch);
    cluster.finish();
    Ok(())
}

/// Kills and hangs, ours and HAProxy's by turns, so that a noisy machine is noisy for both.
fn blocks(rig: &Rig, bench: &mut Bench, sizes: Sizes) -> Result<()> {
    let mut haproxy = HaProxy::start(&rig.cluster, REPLICAS)?;
    if haproxy.is_none() {
        bench.missing("HAProxy: it is not installed");
    }
    let [mut kills, mut hangs, mut peer_kills, mut peer_hangs] =
        [(); 4].map(|()| Series::default());
    for block in 0..sizes.blocks {
        eprintln!("    failover: block {} of {}", block + 1, sizes.blocks);
        // Ids of their own: a POST counts as executed twice when its id is seen twice.
        let load = rig::drive(&rig.cluster, PUBLISHED, &format!("ballast{block}"))?;
        let killed = faults(sizes.kills, |nth| rig.hurt(nth, Signal::KILL))?;
        let hung = faults(sizes.hangs, |nth| rig.hurt(nth, Signal::STOP))?;
        let (zero, outcome) = rig::finish(load)?;
        kills.add(zero, &outcome, killed);
        hangs.add(zero, &outcome, hung);
        let Some(haproxy) = &mut haproxy else {
            continue;
        };
        let load = rig::drive(&rig.cluster, haproxy::PORT, &format!("haproxy{block}"))?;
        let killed = faults(sizes.peer_faults, |nth| haproxy.hurt(nth, Signal::KILL))?;
        let hung = faults(sizes.peer_faults, |nth| haproxy.hurt(nth, Signal::STOP))?;
        let (zero, outcome) = rig::finish(load)?;
        peer_kills.add(zero, &outcome, killed);
        peer_hangs.add(zero, &outcome, hung);
    }
    let (posts, twice) = rig.posts("ballast")?;
    ensure!(
        posts > 0,
        "no POST was executed: the load did not reach the replicas"
    );
    kill_figures(bench, &kills);
    bench.figures.push(
        Figure::new(
            ("kill and hang", "ballast"),
            "POSTs executed twice",
            "requests",
        )
        .values([twice as f64])
        .goal(Stat::Sum, 0.0),
    );
    hang_figures(bench, &hangs);
    if haproxy.is_some() {
        peer_figures(bench, "kill one of 5", &peer_kills);
        peer_figures(bench, "hang one of 5", &peer_hangs);
    }
    bench.raw["kill"] = json!({"ballast": kills.to_json(), "haproxy": peer_kills.to_json()});
    bench.raw["hang"] = json!({"ballast": hangs.to_json(), "haproxy": peer_hangs.to_json()});
    Ok(())
}

fn faults(count: usize, mut hurt: impl FnMut(usize) -> Result<Fault>) -> Result<Vec<Fault>> {
    (0..count)
        .map(|nth| {
            sleep(PAUSE);
            hurt(nth)
        })
        .collect()
}

fn kill_figures(bench: &mut Bench, kills: &Series) {
    let of = ("kill one of 5", "ballast");
    let figures = &mut bench.figures;
    figures.push(
        Figure::new(of, "failure → out of the table", "ms")
            .values(kills.times(|fault| fault.out))
            .goal(Stat::P50, 1.0)
            .goal(Stat::P99, 5.0),
    );
    figures.push(
        Figure::new(of, "replacement answering", "ms")
            .values(kills.times(|fault| fault.answering))
            .goal(Stat::P50, 25.0)
            .goal(Stat::P99, 100.0),
    );
    figures.push(
        Figure::new(of, "replacement takes traffic", "ms").values(kills.times(|fault| fault.whole)),
    );
    harm_figures(bench, of, kills, true);
}

fn hang_figures(bench: &mut Bench, hangs: &Series) {
    let of = ("hang one of 5", "ballast");
    bench.figures.push(
        Figure::new(of, "failure → out of the table", "ms")
            .values(hangs.times(|fault| fault.out))
            .goal(Stat::P99, 60.0),
    );
    bench.figures.push(
        Figure::new(of, "replacement takes traffic", "ms").values(hangs.times(|fault| fault.whole)),
    );
    harm_figures(bench, of, hangs, true);
}

fn peer_figures(bench: &mut Bench, case: &'static str, faults: &Series) {
    let of = (case, "haproxy");
    bench.figures.push(
        Figure::new(of, "failure → out of the table", "ms").values(faults.times(|fault| fault.out)),
    );
    harm_figures(bench, of, faults, false);
}

fn harm_figures(
    bench: &mut Bench,
    of: (&'static str, &'static str),
    faults: &Series,
    is_ours: bool,
) {
    let gets = Figure::new(of, "failed GETs", "requests").values(faults.counts(|harm| harm.gets));
    bench.figures.push(if is_ours {
        gets.goal(Stat::Sum, 0.0)
    } else {
        gets
    });
    bench
        .figures
        .push(Figure::new(of, "failed POSTs", "requests").values(faults.counts(|harm| harm.posts)));
    bench
        .figures
        .push(Figure::new(of, "slowest request", "ms").values(faults.slowest()));
}

/// Whole nodes, one after the other; each comes back before the next goes.
fn nodes(rig: &Rig, bench: &mut Bench, count: usize) -> Result<()> {
    let mut series = Series::default();
    for nth in 0..count {
        eprintln!("    failover: node {} of {count}", nth + 1);
        let load = rig::drive(&rig.cluster, PUBLISHED, "node")?;
        sleep(PAUSE);
        let tasks = rig.healthy()?;
        let name = tasks
            .get(nth % tasks.len().max(1))
            .and_then(|task| task.node.clone());
        let name = name.context("a task has a node")?;
        let lost = tasks
            .iter()
            .filter(|task| task.node.as_ref() == Some(&name))
            .count();
        let before = rig.watch.now();
        let rest = before.saturating_sub(u32::try_from(lost).context("few tasks")?);
        let host = rig.cluster.host_named(&name)?;
        let began = Instant::now();
        host.kill_node()?;
        let off = rig.watch.wait(began, HEALS_WITHIN, |ready| ready <= rest);
        let whole = off.and_then(|off| rig.watch.wait(off, HEALS_WITHIN, |now| now >= before));
        let since = |at: Instant| at.saturating_duration_since(began);
        let fault = Fault {
            out: off.map(since),
            answering: None,
            whole: whole.map(since),
            window: rig::window(began),
        };
        sleep(PAUSE);
        let (zero, outcome) = rig::finish(load)?;
        series.add(zero, &outcome, vec![fault]);
        host.revive()?;
        rig.cluster
            .wait_until("the node is ready again", HEALS_WITHIN, |cluster| {
                cluster.nodes().is_ok_and(|nodes| {
                    nodes
                        .iter()
                        .all(|node| node.status == ballast_model::NodeStatus::Ready)
                })
            })?;
    }
    let of = ("node lost (of 3)", "ballast");
    bench.figures.push(
        Figure::new(of, "traffic off", "ms")
            .values(series.times(|fault| fault.out))
            .goal(Stat::Max, 600.0),
    );
    bench.figures.push(
        Figure::new(of, "replaced elsewhere", "ms")
            .values(series.times(|fault| fault.whole))
            .goal(Stat::Max, 1500.0),
    );
    harm_figures(bench, of, &series, true);
    bench.raw["node"] = series.to_json();
    Ok(())
}

/// The manager away under load, and a replica that dies meanwhile.
fn manager(rig: &Rig, bench: &mut Bench, away: Duration) -> Result<()> {
    eprintln!("    failover: the manager is away for {away:?}");
    let load = rig::drive(&rig.cluster, PUBLISHED, "manager")?;
    sleep(PAUSE);
    let tasks = rig.healthy()?;
    let pid = tasks
        .first()
        .and_then(|task| task.pid)
        .context("a task has a pid")?;
    let before = rig.watch.now();
    rig.cluster.manager().kill()?;
    let gone = Instant::now();
    sleep(away / 2);
    let killed = Instant::now();
    crate::cluster::kill_pid(pid)?;
    let out = rig.watch.wait(killed, away / 2, |ready| ready < before);
    let from = out.unwrap_or(killed);
    let restarted = rig.watch.wait(from, away / 2, |ready| ready >= before);
    sleep(away.saturating_sub(gone.elapsed()));
    rig.cluster.manager().start()?;
    rig.cluster
        .wait_healthy(super::rig::SERVICE, REPLICAS.into(), HEALS_WITHIN)?;
    let back = gone.elapsed();
    sleep(PAUSE);
    let (_, outcome) = rig::finish(load)?;
    let case = format!("manager away for {} s", away.as_secs());
    let of = (case.as_str(), "ballast");
    // A POST in flight at the replica that is killed cannot be saved.
    for (method, name) in [(Method::Get, "failed GETs"), (Method::Post, "failed POSTs")] {
        let failed = |record: &&Record| record.method == method && record.failure().is_some();
        let count = outcome.records.iter().filter(failed).count();
        let figure = Figure::new(of, name, "requests").values([count as f64]);
        bench.figures.push(if method == Method::Get {
            figure.goal(Stat::Sum, 0.0)
        } else {
            figure
        });
    }
    let restart = restarted.map(|at| at.saturating_duration_since(killed));
    bench.figures.push(
        Figure::new(of, "killed replica takes traffic", "ms")
            .values([ms(restart.unwrap_or(HEALS_WITHIN))]),
    );
    bench.raw["manager"] = json!({
        "away_and_back_ms": ms(back),
        "restarted_meanwhile_ms": restart.map(ms),
        "load": outcome.report,
    });
    Ok(())
}
