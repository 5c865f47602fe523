//! Judges the health of one try from the results of its probes.
//!
//! | while | probes | a failure |
//! | --- | --- | --- |
//! | starting, in the start period | 2 ms apart, doubling | does not count |
//! | healthy | `interval` apart | `failure_threshold` in a row: unhealthy |
//! | healthy, an ingress asks | one at once | unhealthy; a refusal is confirmed first |
//! | unhealthy | 50 ms apart, doubling to `interval` | for `failure_threshold` × `timeout`: killed |

use std::time::{Duration, Instant};

use ballast_model::{Health, HealthCheck, Millis, ProbeKind};
use rand::Rng;

use super::ProbeFailure;

/// Before the second probe of a new try; doubles from there.
const FIRST_GAP: Duration = Duration::from_millis(2);
/// The same for command probes, each of which starts a process.
const FIRST_COMMAND_GAP: Duration = Duration::from_millis(50);
/// The longest gap until a new try has answered once: doubling alone would find a program that
/// needs three seconds to start up to three seconds late.
const LONGEST_START_GAP: Duration = Duration::from_millis(250);
/// Between the first probes of an unhealthy try; doubles from there.
const UNHEALTHY_GAP: Duration = Duration::from_millis(50);
/// Demands of ingresses that come sooner after an answered one are ignored: several ingresses see
/// the same stall.
const DEMAND_GAP: Duration = Duration::from_millis(5);

/// A probe to make now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ask {
    pub(super) timeout: Millis,
    pub(super) demand: bool,
}

/// What a result means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing changes.
    Same,
    /// It answers.
    Healthy,
    /// It does not; why.
    Unhealthy(String),
    /// And has not for so long that it is to be killed; why.
    Hopeless(String),
}

/// The health of one try.
#[derive(Debug)]
pub(super) struct Prober {
    check: HealthCheck,
    /// Whether there is anything to ask without being asked to.
    periodic: bool,
    next: Option<Instant>,
    gap: Duration,
    asked: bool,
    demanded: Option<Demand>,
    last_demand: Option<Instant>,
    answered: bool,
    grace_until: Instant,
    failures: u32,
    successes: u32,
    unhealthy_since: Option<Instant>,
}

#[derive(Debug)]
struct Demand {
    timeout: Millis,
    confirming: bool,
}

impl Prober {
    /// Judges a try that has just been started, or one that is known to have answered.
    pub(super) fn new(check: Option<&HealthCheck>, answered: bool, now: Instant) -> Self {
        let periodic = check.is_some();
        // Without a check, only the defaults' timings are used.
        let check = check.cloned().unwrap_or_else(|| {
            HealthCheck::with_defaults(ProbeKind::Tcp {
                port: String::new(),
            })
        });
        let gap = match check.probe {
            ProbeKind::Command { .. } => FIRST_COMMAND_GAP,
            _ => FIRST_GAP,
        };
        let grace_until = now + check.start_period.to_duration();
        Self {
            periodic,
            next: periodic.then_some(now),
            gap,
            asked: false,
            demanded: None,
            last_demand: None,
            answered,
            grace_until,
            failures: 0,
            successes: 0,
            unhealthy_since: None,
            check,
        }
    }

    /// Returns when [`tick`](Self::tick) is next needed.
    pub(super) fn deadline(&self) -> Option<Instant> {
        if self.asked { None } else { self.next }
    }

    /// Returns the probe that is due.
    pub(super) fn tick(&mut self, now: Instant) -> Option<Ask> {
        if self.asked || self.next.is_none_or(|at| at > now) {
            return None;
        }
        self.asked = true;
        Some(Ask {
            timeout: self.check.timeout,
            demand: false,
        })
    }

    /// Returns the probe that an ingress asks for, unless one is under way or was just answered.
    pub(super) fn demand(&mut self, timeout: Millis, health: Health, now: Instant) -> Option<Ask> {
        let just_answered = self
            .last_demand
            .is_some_and(|at| now.duration_since(at) < DEMAND_GAP);
        if self.demanded.is_some() || just_answered || health != Health::Healthy {
            return None;
        }
        let timeout = Millis(timeout.0.clamp(1, self.check.timeout.0.max(1)));
        self.demanded = Some(Demand {
            timeout,
            confirming: false,
        });
        Some(Ask {
            timeout,
            demand: true,
        })
    }

    /// Takes a result; may ask again at once.
    pub(super) fn result(
        &mut self,
        demand: bool,
        result: Result<(), ProbeFailure>,
        health: Health,
        now: Instant,
        rng: &mut dyn Rng,
    ) -> (Verdict, Option<Ask>) {
        let demanded = if demand {
            self.last_demand = Some(now);
            self.demanded.take()
        } else {
            self.asked = false;
            None
        };
        match result {
            Ok(()) => (self.success(demand, health, now, rng), None),
            Err(failure) => match demanded {
                Some(Demand {
                    timeout,
                    confirming: false,
                }) if failure.refused => {
                    self.demanded = Some(Demand {
                        timeout,
                        confirming: true,
                    });
                    let ask = Ask {
                        timeout,
                        demand: true,
                    };
                    (Verdict::Same, Some(ask))
                }
                _ => (
                    self.failure(demand, &failure.reason, health, now, rng),
                    None,
                ),
            },
        }
    }

    fn success(
        &mut self,
        demand: bool,
        health: Health,
        now: Instant,
        rng: &mut dyn Rng,
    ) -> Verdict {
        self.failures = 0;
        self.successes = self.successes.saturating_add(1);
        let enough = !self.answered || self.successes >= self.check.success_threshold;
        if health == Health::Healthy || enough {
            self.answered = true;
            self.unhealthy_since = None;
            if !demand {
                self.next = self
                    .periodic
                    .then(|| now + jittered(self.check.interval, rng));
            }
            return if health == Health::Healthy {
                Verdict::Same
            } else {
                Verdict::Healthy
            };
        }
        self.gap = UNHEALTHY_GAP;
        self.next = Some(now + self.gap);
        Verdict::Same
    }

    fn failure(
        &mut self,
        demand: bool,
        reason: &str,
        health: Health,
        now: Instant,
        rng: &mut dyn Rng,
    ) -> Verdict {
        self.successes = 0;
        if !self.answered && now < self.grace_until {
            self.next = Some(now + self.gap.min(self.check.interval.to_duration()));
            self.gap = (self.gap * 2).min(LONGEST_START_GAP);
            return Verdict::Same;
        }
        self.failures = self.failures.saturating_add(1);
        let Some(since) = self.unhealthy_since else {
            if !demand && self.failures < self.check.failure_threshold {
                self.next = Some(now + jittered(self.check.interval, rng));
                return Verdict::Same;
            }
            self.unhealthy_since = Some(now);
            self.next = Some(now + UNHEALTHY_GAP);
            self.gap = UNHEALTHY_GAP * 2;
            return if health == Health::Unhealthy {
                Verdict::Same
            } else {
                Verdict::Unhealthy(reason.to_owned())
            };
        };
        let silent = now.duration_since(since);
        if silent >= self.patience() && self.failures >= self.check.failure_threshold {
            let silent = Millis(u64::try_from(silent.as_millis()).unwrap_or(u64::MAX));
            return Verdict::Hopeless(format!("unhealthy for {silent}: {reason}"));
        }
        self.next = Some((now + self.gap).min(since + self.patience().max(silent)));
        self.gap = (self.gap * 2).min(self.check.interval.to_duration());
        Verdict::Same
    }

    /// How long a try may be unhealthy before it is killed: as long as the failures that make a
    /// task unhealthy take. Long enough for a pause of its runtime, short enough for its users.
    fn patience(&self) -> Duration {
        let threshold = self.check.failure_threshold.max(1);
        self.check.timeout.to_duration().saturating_mul(threshold)
    }
}

/// Returns the span ±10 %, so that tasks started together are not probed together for ever.
fn jittered(span: Millis, rng: &mut dyn Rng) -> Duration {
    let micros = span.0.saturating_mul(1000);
    let spread = (micros / 5).max(1);
    Duration::from_micros(micros - micros / 10 + rng.next_u64() % spread)
}
