//! Starts one run.

use anyhow::{Result, ensure};
use ballast_loadgen::plan::{Pacing, Part, Plan, Profile, Protocol, Template};
use ballast_loadgen::{Arrivals, Load, LoadError, Outcome, Target};

/// A run under way.
pub struct Running(ballast_loadgen::Running);

impl Running {
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }

    pub fn stop(&self) {
        self.0.stop();
    }

    pub fn abort(&self) {
        self.0.stop();
    }

    pub fn join(self) -> Result<Outcome, LoadError> {
        self.0.join()
    }
}

/// Starts a run of `plan` on this machine.
pub fn start(plan: Plan) -> Result<Running> {
    Ok(Running(ballast_loadgen::start(load(&plan)?)?))
}

fn text(template: &Template) -> Result<String> {
    match &template.parts[..] {
        [] => Ok(String::new()),
        [Part::Literal(bytes)] => Ok(String::from_utf8_lossy(bytes).into_owned()),
        _ => anyhow::bail!("this engine fills in no templates"),
    }
}

/// The engine of old takes a small part of what a plan can say.
fn load(plan: &Plan) -> Result<Load> {
    let [target] = &plan.targets[..] else {
        anyhow::bail!("this engine drives one target");
    };
    ensure!(
        plan.protocol == Protocol::Http1 { pipeline: 1 }
            && target.tls.is_none()
            && plan.checks.is_empty()
            && plan.replay.is_none(),
        "this engine speaks plain HTTP/1.1 only, without checks"
    );
    let first = &target.requests[0];
    let posts: u32 = target
        .requests
        .iter()
        .filter(|it| it.method == "POST")
        .map(|it| it.weight)
        .sum();
    let all: u32 = target.requests.iter().map(|it| it.weight).sum();
    let (rate, arrivals) = match &plan.pacing {
        Pacing::Closed { .. } => (None, Arrivals::Constant),
        Pacing::Open(profile) => match **profile {
            Profile::Constant { rate } => (Some(rate), Arrivals::Constant),
            Profile::Poisson { rate } => (Some(rate), Arrivals::Poisson),
            Profile::Ramp { to, .. } => (Some(to), Arrivals::Ramp),
            _ => anyhow::bail!("this engine has no such profile"),
        },
    };
    let headers = first
        .headers
        .iter()
        .map(|(name, value)| Ok(format!("{name}: {}", text(value)?)));
    let mut body = target
        .requests
        .iter()
        .map(|it| text(&it.body).map(|it| it.len()));
    Ok(Load {
        rate,
        duration: plan.duration,
        connections: plan.connections,
        arrivals,
        post_ratio: f64::from(posts) / f64::from(all),
        body_bytes: body.next_back().transpose()?.unwrap_or_default(),
        request_ids: plan.request_ids.clone(),
        headers: headers.collect::<Result<_>>()?,
        timeout: plan.timeouts.request,
        records: plan.records,
        seed: plan.seed,
        ..Load::new(Target {
            address: target.addresses[0],
            authority: target.authority.clone(),
            path: text(&first.path)?,
        })
    })
}
