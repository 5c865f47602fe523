//! Where waiting tasks go.

use std::collections::BTreeMap;

use ballast_model::{AssignmentId, Binding, Generation, ServiceId, TaskId, Timestamp};
use ballast_scheduler::{Placed, Request};
use ballast_wire::log::Placement;
use rand::Rng;

use super::lane::refused_on;
use super::plan::Plan;
use super::{LANES_PER_STEP, REASON_INTERVAL, Reconciler, Timer};
use crate::state::{Lane, State};

/// A task to place: made in this step, or waiting since an earlier one.
struct Candidate {
    task: TaskId,
    lane: Lane,
    generation: Generation,
    waited: bool,
}

impl Reconciler {
    /// Places the tasks of this step and, if there may be room, those that wait.
    pub(super) fn place(
        &mut self,
        state: &State,
        now: Timestamp,
        rng: &mut impl Rng,
        plan: &mut Plan,
    ) {
        let candidates = self.candidates(state, plan);
        // Tasks of one service ask for the same: what was refused once is refused to all.
        let mut refused: BTreeMap<ServiceId, String> = BTreeMap::new();
        for candidate in candidates {
            if plan.place.len() >= LANES_PER_STEP {
                // The rest has its turn in the next step.
                self.room = true;
                self.waiting.insert(candidate.task);
                continue;
            }
            let id = candidate.lane.service;
            let Some(service) = state.service(id) else {
                continue;
            };
            // A newer template came meanwhile: the lane is looked at again.
            if service.removing || candidate.generation != service.template {
                self.waiting.remove(&candidate.task);
                continue;
            }
            let target = self.moves.target(candidate.lane);
            let alike = candidate.lane.pinned.is_none() && target.is_none();
            if let Some(reason) = refused.get(&id).filter(|_| alike) {
                let reason = reason.clone();
                self.wait(state, &candidate, reason, now, plan);
                continue;
            }
            let mut avoid = refused_on(state, candidate.lane);
            avoid.extend(self.share.used_up(state, now));
            let mut request = Request::of(id, &service.spec).avoiding(&avoid);
            request.node = candidate.lane.pinned.or(target);
            match self.scheduler.place(&request) {
                Ok(placed) => {
                    self.share.start(placed.node, now);
                    self.reserve(&candidate, placed, rng, plan);
                }
                // What was moved stays where it is; one that has stopped already goes elsewhere.
                Err(_) if target.is_some() && self.abandon(state, candidate.lane) => {
                    self.waiting.insert(candidate.task);
                }
                Err(refusal) => {
                    let reason = refusal.to_string();
                    if alike {
                        refused.insert(id, reason.clone());
                    }
                    self.wait(state, &candidate, reason, now, plan);
                }
            }
        }
        for id in refused.into_keys() {
            let due = self
                .reasons
                .get(&id)
                .is_none_or(|last| now >= last.saturating_add(REASON_INTERVAL));
            if due {
                self.reasons.insert(id, now);
            }
        }
    }

    fn candidates(&mut self, state: &State, plan: &Plan) -> Vec<Candidate> {
        let new = plan.create.iter().map(|task| Candidate {
            task: task.id,
            lane: Lane {
                service: task.service,
                slot: task.slot,
                pinned: task.pinned,
            },
            generation: task.generation,
            waited: false,
        });
        let mut candidates = Vec::new();
        if std::mem::take(&mut self.room) {
            self.waiting.retain(|id| {
                let waits = |entry: &&crate::state::TaskEntry| {
                    entry.task.binding.is_none() && !entry.task.observed.state.is_terminal()
                };
                let Some(entry) = state.task(*id).filter(waits) else {
                    return false;
                };
                candidates.push(Candidate {
                    task: *id,
                    lane: entry.lane(),
                    generation: entry.task.generation,
                    waited: true,
                });
                true
            });
            // First come, first served; and not by ids, which a plan of the same draws anew.
            candidates.sort_by_key(|candidate| {
                let created = state.task(candidate.task).map(|entry| entry.task.created);
                (created, candidate.lane)
            });
        }
        candidates.extend(new);
        candidates
    }

    fn reserve(
        &mut self,
        candidate: &Candidate,
        placed: Placed,
        rng: &mut impl Rng,
        plan: &mut Plan,
    ) {
        let assignment = AssignmentId::from_bits(rng.next_u64());
        self.waiting.remove(&candidate.task);
        self.reservations.insert(assignment, placed.reservation);
        plan.place.push(Placement {
            task: candidate.task,
            binding: Binding {
                assignment,
                node: placed.node,
                ports: placed.ports,
                claim: placed.claim,
                restarts: 0,
            },
        });
    }

    /// Keeps a task waiting, and says why if that is news.
    fn wait(
        &mut self,
        state: &State,
        candidate: &Candidate,
        reason: String,
        now: Timestamp,
        plan: &mut Plan,
    ) {
        self.waiting.insert(candidate.task);
        let known = state
            .task(candidate.task)
            .map_or("", |entry| &entry.task.observed.message);
        if known == reason {
            return;
        }
        // The numbers in a reason move with every task that comes and goes: they are not worth a
        // log entry for each task each time.
        let last = self.reasons.get(&candidate.lane.service);
        let due = last.map(|last| last.saturating_add(REASON_INTERVAL));
        match due {
            Some(due) if candidate.waited && !known.is_empty() && now < due => {
                self.timers.insert((due, Timer::Retry));
            }
            _ => plan.pending.push((candidate.task, reason)),
        }
    }
}
