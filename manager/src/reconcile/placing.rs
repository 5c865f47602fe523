//! Where waiting tasks go.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use ballast_model::view::{PendingView, SuggestionView};
use ballast_model::{AssignmentId, Binding, Generation, ServiceId, Slot, TaskId, Timestamp};
use ballast_scheduler::{Placed, Refusal, Request, Scheduler};
use ballast_wire::log::Placement;
use rand::Rng;

use super::affinity::Affinities;
use super::lane::refused_on;
use super::plan::Plan;
use super::preempting::Victims;
use super::{LANES_PER_STEP, REASON_INTERVAL, Reconciler, Timer};
use crate::state::{Lane, Service, State};
use crate::views;

/// A task to place: made in this step, or waiting since an earlier one.
struct Candidate {
    task: TaskId,
    lane: Lane,
    generation: Generation,
    waited: bool,
}

/// What one round of placing has found out.
#[derive(Debug, Default)]
struct Round {
    /// Tasks of one service ask for the same: what was refused once is refused to all.
    refused: BTreeMap<ServiceId, String>,
    gangs: BTreeSet<ServiceId>,
    victims: Option<Victims>,
}

/// Returns why a request is refused and what would help, as the API shows it.
pub(crate) fn explained(
    scheduler: &Scheduler,
    request: &Request<'_>,
    refusal: &Refusal,
) -> PendingView {
    let mut view = views::pending_view(refusal);
    let suggestions = scheduler.suggest(request, refusal).into_iter();
    view.suggestions = suggestions
        .map(|suggestion| SuggestionView {
            change: suggestion.change.to_string(),
            nodes: suggestion.nodes,
            node: suggestion.node,
        })
        .collect();
    view
}

/// Returns a suggestion as people read it.
fn in_words(suggestion: &SuggestionView) -> String {
    let SuggestionView {
        change,
        nodes,
        node,
    } = suggestion;
    match (node, nodes) {
        (Some(node), 1) => format!("{change} ({node} fits)"),
        (_, nodes) => format!("{change} ({nodes} nodes fit)"),
    }
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
        self.nominees.tidy(state);
        let mut round = Round::default();
        for (place, candidate) in candidates.iter().enumerate() {
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
            if service.spec.placement.gang && candidate.lane.pinned.is_none() {
                if round.gangs.insert(id) {
                    let gang: Vec<&Candidate> = candidates[place..]
                        .iter()
                        .filter(|other| other.lane.service == id)
                        .filter(|other| other.generation == service.template)
                        .collect();
                    self.place_gang(state, service, &gang, (now, rng), plan);
                }
                continue;
            }
            let placed = self.place_one(state, service, candidate, &mut round, (now, rng), plan);
            if let Err(reason) = placed {
                self.wait(state, candidate, reason, now, plan);
            }
        }
        for id in round.refused.into_keys().chain(round.gangs) {
            let due = self
                .reasons
                .get(&id)
                .is_none_or(|last| now >= last.saturating_add(REASON_INTERVAL));
            if due {
                self.reasons.insert(id, now);
            }
        }
    }

    /// Finds a node for a task, or has tasks of lower priority end for it; returns why it waits
    /// otherwise.
    fn place_one(
        &mut self,
        state: &State,
        service: &Service,
        candidate: &Candidate,
        round: &mut Round,
        (now, rng): (Timestamp, &mut impl Rng),
        plan: &mut Plan,
    ) -> Result<(), String> {
        let (id, spec) = (service.id, &service.spec);
        let priority = spec.placement.priority;
        let target = self.moves.target(candidate.lane);
        let alike = candidate.lane.pinned.is_none() && target.is_none();
        if let Some(reason) = self.nominees.waits_for(state, candidate.task) {
            return Err(reason);
        }
        let known = round.refused.get(&id).filter(|_| alike).cloned();
        let mut avoid = refused_on(state, candidate.lane);
        avoid.extend(self.share.used_up(state, now));
        let kept = self.nominees.kept_from(candidate.task, priority);
        let peers = self.affinities(state).peers(state, id, spec);
        let mut request = Request::of(id, spec)
            .avoiding(&avoid)
            .keeping(&kept)
            .among(&peers);
        request.node = candidate.lane.pinned.or(target);
        let reason = match known {
            Some(reason) => reason,
            None => match self.scheduler.place(&request) {
                Ok(placed) => {
                    self.share.start(placed.node, now);
                    self.reserve(candidate, placed, rng, plan);
                    return Ok(());
                }
                // What was moved stays where it is; one that has stopped already goes elsewhere.
                Err(_) if target.is_some() && self.abandon(state, candidate.lane) => {
                    self.waiting.insert(candidate.task);
                    return Ok(());
                }
                Err(refusal) => {
                    let due = self.reasons.get(&id).is_none_or(|last| {
                        now >= last.saturating_add(REASON_INTERVAL) || *last == now
                    });
                    let mut reason = refusal.to_string();
                    if due && alike {
                        let pending = explained(&self.scheduler, &request, &refusal);
                        if let Some(best) = pending.suggestions.first() {
                            let _ = write!(reason, "; would help: {}", in_words(best));
                        }
                        self.explanations.insert(id, pending);
                    }
                    reason
                }
            },
        };
        if alike {
            round.refused.insert(id, reason.clone());
        }
        let victims = round.victims.get_or_insert_with(|| Victims::of(state));
        let who = (candidate.task, service);
        let waits = victims.look(
            state,
            &self.scheduler,
            &mut self.nominees,
            who,
            &request,
            plan,
        );
        Err(waits.unwrap_or(reason))
    }

    /// Places all missing tasks of a service, or none.
    fn place_gang(
        &mut self,
        state: &State,
        service: &Service,
        gang: &[&Candidate],
        (now, rng): (Timestamp, &mut impl Rng),
        plan: &mut Plan,
    ) {
        let reason = match self.try_gang(state, service, gang, (now, rng), plan) {
            Ok(()) => return,
            Err(reason) => reason,
        };
        for candidate in gang {
            self.wait(state, candidate, reason.clone(), now, plan);
        }
    }

    fn try_gang(
        &mut self,
        state: &State,
        service: &Service,
        gang: &[&Candidate],
        (now, rng): (Timestamp, &mut impl Rng),
        plan: &mut Plan,
    ) -> Result<(), String> {
        let bound = state.tasks_of(service.id);
        let bound = bound.filter(|entry| entry.task.binding.is_some() && state.occupies(entry));
        let slots: BTreeSet<Slot> = bound
            .map(|entry| entry.task.slot)
            .chain(gang.iter().map(|candidate| candidate.lane.slot))
            .collect();
        if !service.is_job() && slots.len() < service.slots.len() {
            let (there, all) = (slots.len(), service.slots.len());
            return Err(format!("waits for its gang: {there} of {all} are there"));
        }
        let spec = &service.spec;
        let peers = self.affinities(state).peers(state, service.id, spec);
        let avoid: Vec<_> = gang.iter().map(|c| refused_on(state, c.lane)).collect();
        let kept: Vec<_> = gang
            .iter()
            .map(|c| self.nominees.kept_from(c.task, spec.placement.priority))
            .collect();
        let request = Request::of(service.id, spec).among(&peers);
        let both = avoid.iter().zip(&kept);
        let requests: Vec<Request<'_>> = both
            .map(|(avoid, kept)| request.avoiding(avoid).keeping(kept))
            .collect();
        let placed = self.scheduler.place_gang(&requests);
        let placed = placed.map_err(|refusal| refusal.to_string())?;
        for (candidate, placed) in gang.iter().zip(placed) {
            self.share.start(placed.node, now);
            self.reserve(candidate, placed, rng, plan);
        }
        Ok(())
    }

    /// Returns who keeps away from whom, as the specs say now.
    fn affinities(&mut self, state: &State) -> &Affinities {
        self.affinities.get_or_insert_with(|| Affinities::of(state))
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
        // Who is new in a gang brings those that wait for it.
        let in_gang = |task: &ballast_wire::log::NewTask| {
            let service = state.service(task.service);
            service.is_some_and(|service| service.spec.placement.gang)
        };
        self.room |= plan.create.iter().any(in_gang);
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
        let priority = |candidate: &Candidate| {
            let service = state.service(candidate.lane.service);
            service.map_or(0, |service| service.spec.placement.priority)
        };
        candidates.sort_by_key(|candidate| Reverse(priority(candidate)));
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
        self.explanations.remove(&candidate.lane.service);
        self.waiting.remove(&candidate.task);
        self.nominees.placed(candidate.task);
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
