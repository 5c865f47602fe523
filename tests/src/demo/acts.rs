//! The faults and changes, each with how it healed.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ballast_model::view::TaskView;

use super::report::Act;
use super::stage::{SERVICE, Stage, ms};
use super::story::Story;
use super::{FEWER, MORE};
use crate::cluster::{Signal, kill_pid, signal_pid};
use crate::watch::Window;

/// For a fault to heal. Far above what is aimed at: the table shows how long it took.
const HEALS_WITHIN: Duration = Duration::from_secs(15);
/// What belongs to an act after it has healed: requests that were due before may still fail.
const AFTERMATH: Duration = Duration::from_millis(500);

/// When a fault was out of the table, and when all was as before.
struct Healed {
    deregistered: Option<Instant>,
    replaced: Option<Instant>,
}

/// Runs one act; what goes wrong is part of its result.
fn act(name: &str, story: &Story, play: impl FnOnce(&mut Instant) -> Result<Healed>) -> Act {
    let mut began = Instant::now();
    let result = play(&mut began);
    let since = |at: Option<Instant>| at.map(|at| at.saturating_duration_since(began));
    let (deregister, replace, trouble) = match result {
        Ok(healed) => (since(healed.deregistered), since(healed.replaced), None),
        Err(error) => {
            story.note(&format!("NOT HEALED: {error:#}"));
            (None, None, Some(format!("{error:#}")))
        }
    };
    for (what, span) in [
        ("out of the table", deregister),
        ("as wanted again", replace),
    ] {
        if let Some(span) = span {
            story.note(&format!("{what} after {:.1} ms", ms(span)));
        }
    }
    Act {
        name: name.to_owned(),
        deregister,
        replace,
        trouble,
        window: Window {
            from: began,
            to: Instant::now() + AFTERMATH,
        },
    }
}

fn victim(stage: &Stage) -> Result<(TaskView, u32)> {
    let task = stage
        .healthy()?
        .into_iter()
        .next()
        .context("no task is healthy")?;
    let pid = task.pid.context("the task has no pid")?;
    Ok((task, pid))
}

fn of(task: &TaskView) -> String {
    let node = task.node.as_deref().unwrap_or("?");
    format!(
        "{}.{} on {node} (pid {})",
        task.service,
        task.slot,
        task.pid.unwrap_or_default()
    )
}

pub fn kill_a_replica(stage: &Stage, story: &Story) -> Act {
    act("replica killed (SIGKILL)", story, |began| {
        let (task, pid) = victim(stage)?;
        story.say(&format!("kill -9: {}", of(&task)));
        *began = Instant::now();
        kill_pid(pid)?;
        heal_replica(stage, *began, &task)
    })
}

pub fn hang_a_replica(stage: &Stage, story: &Story) -> Act {
    act("replica hung (SIGSTOP)", story, |began| {
        let (task, pid) = victim(stage)?;
        story.say(&format!("kill -STOP: {}", of(&task)));
        *began = Instant::now();
        signal_pid(pid, Signal::STOP)?;
        heal_replica(stage, *began, &task)
    })
}

/// Waits until the ingress has taken a task out, and holds as many ready as before with another
/// process in the slot.
fn heal_replica(stage: &Stage, began: Instant, task: &TaskView) -> Result<Healed> {
    let before = stage.watch.at(began);
    let deregistered = stage
        .watch
        .wait(began, HEALS_WITHIN, |ready| ready < before);
    let from = deregistered.context("the ingress never took it out of its table")?;
    let replaced = stage
        .watch
        .wait(from, HEALS_WITHIN, |ready| ready >= before);
    let replaced = replaced.context("the ingress never got a replacement")?;
    stage
        .cluster
        .wait_until("the slot has a new, healthy task", HEALS_WITHIN, |_| {
            stage.healthy().is_ok_and(|tasks| {
                tasks.len() >= before as usize
                    && tasks
                        .iter()
                        .any(|now| now.slot == task.slot && now.pid != task.pid)
            })
        })
        .with_context(|| stage.cluster.describe(SERVICE))?;
    Ok(Healed {
        deregistered: Some(from),
        replaced: Some(replaced),
    })
}

pub fn kill_a_node(stage: &Stage, story: &Story) -> Act {
    act("node lost (agent and tasks)", story, |began| {
        let tasks = stage.healthy()?;
        let name = tasks
            .iter()
            .find_map(|task| task.node.clone())
            .context("no task has a node")?;
        let all = u32::try_from(tasks.len()).context("few tasks")?;
        let lost = tasks
            .iter()
            .filter(|task| task.node.as_ref() == Some(&name))
            .count();
        let lost = u32::try_from(lost).context("few tasks")?;
        story.say(&format!(
            "{name} loses power, with {lost} of {all} replicas"
        ));
        let host = stage.cluster.host_named(&name)?;
        *began = Instant::now();
        host.kill_node()?;
        let off = stage
            .watch
            .wait(*began, HEALS_WITHIN, |ready| ready <= all - lost);
        let off = off.context("the ingress kept the node's endpoints")?;
        let replaced = stage.watch.wait(off, HEALS_WITHIN, |ready| ready >= all);
        let replaced = replaced.context("the replicas were not replaced elsewhere")?;
        stage.cluster.wait_healthy(SERVICE, all, HEALS_WITHIN)?;
        ensure!(
            stage
                .healthy()?
                .iter()
                .all(|task| task.node.as_ref() != Some(&name)),
            "a task is said to run on the lost node"
        );
        Ok(Healed {
            deregistered: Some(off),
            replaced: Some(replaced),
        })
    })
}

pub fn scale_up(stage: &Stage, story: &Story) -> Act {
    scale(stage, story, "scaled up", MORE)
}

pub fn scale_down(stage: &Stage, story: &Story) -> Act {
    scale(stage, story, "scaled down", FEWER)
}

fn scale(stage: &Stage, story: &Story, name: &str, to: u32) -> Act {
    let name = format!("{name} to {to}");
    act(&name, story, |began| {
        story.say(&format!("ballast service scale {SERVICE}={to}"));
        *began = Instant::now();
        stage
            .cluster
            .cli(&["service", "scale", &format!("{SERVICE}={to}"), "--detach"])?;
        let reached = stage.watch.wait(*began, HEALS_WITHIN, |ready| ready == to);
        stage.cluster.wait_healthy(SERVICE, to, HEALS_WITHIN)?;
        let Some(reached) = reached else {
            bail!(
                "the ingress holds {} ready instead of {to}",
                stage.watch.now()
            );
        };
        Ok(Healed {
            deregistered: None,
            replaced: Some(reached),
        })
    })
}
