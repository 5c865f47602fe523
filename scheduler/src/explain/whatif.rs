//! The smallest changes that would make a task fit.
//!
//! Each part of a request is taken back on its own, and the nodes that fit then are counted. What
//! needs two changes at once is not suggested: the nearest miss tells it.

use ballast_model::{
    Availability, Bytes, MilliCpu, NodeStatus, Placement, PortSpec, Resources, Target, Toleration,
};

use super::count::Part;
use super::{Question, told_by_classes};
use crate::digest::Facts;
use crate::fleet::{Entry, Fleet};
use crate::refusal::{Change, Reason, Refusal, Suggestion};
use crate::request::Request;
use crate::rules::{Census, Judged, Rules};

/// Suggestions that are given at most.
const SUGGESTIONS: usize = 8;
/// Paused and drained nodes that are looked at for one to be activated.
const ACTIVATED: usize = 64;
/// How great a change is that takes a rule back, beside lowering an amount by so many thousandths.
const RULE: u64 = 400;
/// How great a change is that only asks the operator.
const OPERATOR: u64 = 100;

/// A node that would fit after a change, and what it has free.
type Fitting<'a> = (&'a Entry, Facts);

/// Returns what would make a refused request fit, the smallest change first.
pub(crate) fn suggest(
    fleet: &Fleet,
    census: &Census,
    request: &Request<'_>,
    refusal: &Refusal,
) -> Vec<Suggestion> {
    if request.node.is_some() || refusal.fit > 0 || refusal.nodes == 0 {
        return Vec::new();
    }
    let ask = Ask {
        fleet,
        census,
        request,
    };
    let mut found: Vec<(u64, Suggestion)> = Vec::new();
    ask.amounts(refusal, &mut found);
    ask.rules(&mut found);
    ask.taints(refusal, &mut found);
    ask.operator(refusal, &mut found);
    found.sort_by(|(a, one), (b, two)| (a, two.nodes).cmp(&(b, one.nodes)));
    found.truncate(SUGGESTIONS);
    found.into_iter().map(|(_, one)| one).collect()
}

struct Ask<'a> {
    fleet: &'a Fleet,
    census: &'a Census,
    request: &'a Request<'a>,
}

impl<'a> Ask<'a> {
    /// Returns the nodes that fit an altered request.
    fn fitting(&self, altered: &Request<'_>) -> Vec<Fitting<'a>> {
        let judged = |entry: &'a Entry, rules: &Rules<'_>| {
            let judged = rules.judge(&entry.node);
            judged.is_ok() && entry.judge_room(altered).is_ok()
        };
        if !told_by_classes(self.fleet, altered) {
            let rules = Rules::new(altered, self.census, &Judged(self.fleet));
            let entries = self.fleet.iter().filter(|entry| judged(entry, &rules));
            return entries.map(|entry| (entry, Facts::of(entry))).collect();
        }
        self.fleet.ask(|digest| {
            let question = Question::new(self.fleet, self.census, altered, digest);
            let mut found = Vec::new();
            for (group, apart) in digest.groups.iter().zip(&question.apart) {
                let Some(&first) = group.ats.first() else {
                    continue;
                };
                let node = &self.fleet.entry(first).node;
                if question.rules.judge_class(node).is_err() {
                    continue;
                }
                let singled = apart.singled.iter().filter_map(|at| digest.place(*at));
                let singled = singled.map(|place| (place.place, false));
                let alike = question.plain && !question.needs_company();
                let hidden = &apart.hidden;
                let others = Part { group, hidden };
                let others = others.fitting(&question.need).map(|place| (place, alike));
                for (place, judged_alike) in singled.chain(others) {
                    let facts = group.facts(place);
                    let entry = self.fleet.entry(group.ats[place]);
                    if judged_alike || judged(entry, &question.rules) {
                        found.push((entry, facts));
                    }
                }
            }
            found
        })
    }

    /// Counts the nodes that fit an altered request, and suggests the change if there are any.
    fn offer(
        &self,
        altered: &Request<'_>,
        change: Change,
        weight: u64,
        found: &mut Vec<(u64, Suggestion)>,
    ) {
        let fitting = self.fitting(altered);
        if fitting.is_empty() {
            return;
        }
        let first = fitting
            .iter()
            .map(|(entry, _)| &entry.node)
            .min_by_key(|node| node.id);
        let suggestion = Suggestion {
            change,
            nodes: u32::try_from(fitting.len()).unwrap_or(u32::MAX),
            node: first.map(|node| node.description.name.clone()),
        };
        found.push((weight, suggestion));
    }

    /// Lowers each amount to the most that a node which fits otherwise has.
    fn amounts(&self, refusal: &Refusal, found: &mut Vec<(u64, Suggestion)>) {
        let wanted = self.request.resources;
        let short =
            |reason: fn(&Reason) -> bool| refusal.excluded.iter().any(|e| reason(&e.reason));
        if short(|reason| matches!(reason, Reason::Cpu(_))) {
            let without = Resources {
                cpu: MilliCpu(0),
                ..wanted.clone()
            };
            let free = |(_, facts): &Fitting<'_>| u64::try_from(facts.cpu).unwrap_or(0);
            if let Some((most, weight, nodes, node)) =
                self.most(&without, wanted.cpu.0.into(), free)
            {
                let to = MilliCpu(u32::try_from(most).unwrap_or(u32::MAX));
                let change = Change::Cpu {
                    from: wanted.cpu,
                    to,
                };
                found.push((
                    weight,
                    Suggestion {
                        change,
                        nodes,
                        node,
                    },
                ));
            }
        }
        if short(|reason| matches!(reason, Reason::Memory(_))) {
            let without = Resources {
                memory: Bytes(0),
                ..wanted.clone()
            };
            let free = |(_, facts): &Fitting<'_>| u64::try_from(facts.memory.bytes()).unwrap_or(0);
            if let Some((most, weight, nodes, node)) = self.most(&without, wanted.memory.0, free) {
                let change = Change::Memory {
                    from: wanted.memory,
                    to: Bytes(most),
                };
                found.push((
                    weight,
                    Suggestion {
                        change,
                        nodes,
                        node,
                    },
                ));
            }
        }
        if short(|reason| matches!(reason, Reason::Devices { .. })) {
            self.devices(found);
        }
    }

    /// Returns the most that a node has of what an altered request leaves out, how great a change
    /// that is, and how many nodes have as much.
    fn most(
        &self,
        without: &Resources,
        wanted: u64,
        free: impl Fn(&Fitting<'_>) -> u64,
    ) -> Option<(u64, u64, u32, Option<String>)> {
        let altered = Request {
            resources: without,
            ..*self.request
        };
        let fitting = self.fitting(&altered);
        let most = fitting.iter().map(&free).max().filter(|most| *most > 0)?;
        let as_much = fitting.iter().filter(|one| free(one) == most);
        let nodes = u32::try_from(as_much.clone().count()).unwrap_or(u32::MAX);
        let first = as_much
            .map(|(entry, _)| &entry.node)
            .min_by_key(|node| node.id);
        let weight = wanted.saturating_sub(most).saturating_mul(1000) / wanted.max(1);
        Some((
            most,
            weight,
            nodes,
            first.map(|node| node.description.name.clone()),
        ))
    }

    /// Asks for fewer devices.
    fn devices(&self, found: &mut Vec<(u64, Suggestion)>) {
        let wanted = &self.request.resources.devices;
        for count in (0..wanted.count).rev() {
            let mut fewer = self.request.resources.clone();
            fewer.devices.count = count;
            let altered = Request {
                resources: &fewer,
                ..*self.request
            };
            let before = found.len();
            let change = Change::Devices {
                kind: wanted.kind.clone(),
                from: wanted.count,
                to: count,
            };
            let less = u64::from(wanted.count - count) * 1000 / u64::from(wanted.count);
            self.offer(&altered, change, less, found);
            if found.len() > before {
                return;
            }
        }
    }

    /// Takes each rule back.
    fn rules(&self, found: &mut Vec<(u64, Suggestion)>) {
        let placement = self.request.placement;
        let mut without: Vec<(Change, Placement)> = Vec::new();
        for (place, constraint) in placement.constraints.iter().enumerate() {
            let mut altered = placement.clone();
            altered.constraints.remove(place);
            without.push((Change::Constraint(constraint.to_string()), altered));
        }
        for (place, rule) in placement.spread.iter().enumerate() {
            if rule.max_skew > 0 {
                let mut altered = placement.clone();
                altered.spread[place].max_skew = 0;
                without.push((Change::Skew(rule.over.to_string()), altered));
            }
        }
        for (place, rule) in placement.services.iter().enumerate() {
            if rule.required {
                let mut altered = placement.clone();
                altered.services[place].required = false;
                without.push((Change::Affinity(rule.service.clone()), altered));
            }
        }
        if placement.max_replicas_per_node > 0 {
            let mut altered = placement.clone();
            altered.max_replicas_per_node += 1;
            let to = altered.max_replicas_per_node;
            without.push((Change::MaxReplicas { to }, altered));
        }
        for (change, placement) in &without {
            let altered = Request {
                placement,
                ..*self.request
            };
            self.offer(&altered, change.clone(), RULE, found);
        }
        for (place, port) in self.request.ports.iter().enumerate() {
            if let Target::Fixed(number) = port.target {
                let mut ports: Vec<PortSpec> = self.request.ports.to_vec();
                ports[place].target = Target::Dynamic;
                let altered = Request {
                    ports: &ports,
                    ..*self.request
                };
                self.offer(&altered, Change::Port(number), RULE, found);
            }
        }
    }

    /// Bears each taint that excludes nodes.
    fn taints(&self, refusal: &Refusal, found: &mut Vec<(u64, Suggestion)>) {
        for excluded in &refusal.excluded {
            let Reason::Taint(text) = &excluded.reason else {
                continue;
            };
            let nodes = self.fleet.classes().specimens();
            let taint = nodes
                .flat_map(|node| &node.taints)
                .find(|taint| taint.to_string() == *text);
            let Some(taint) = taint else { continue };
            let mut placement = self.request.placement.clone();
            placement.tolerations.push(Toleration {
                key: taint.key.clone(),
                value: Some(taint.value.clone()),
                effect: Some(taint.effect),
            });
            let altered = Request {
                placement: &placement,
                ..*self.request
            };
            self.offer(&altered, Change::Tolerate(text.clone()), RULE, found);
        }
    }

    /// Takes a paused or drained node back into use.
    fn operator(&self, refusal: &Refusal, found: &mut Vec<(u64, Suggestion)>) {
        let idle = |reason: &Reason| matches!(reason, Reason::Paused | Reason::Drained);
        if !refusal
            .excluded
            .iter()
            .any(|excluded| idle(&excluded.reason))
        {
            return;
        }
        let rules = Rules::new(self.request, self.census, &Judged(self.fleet));
        let closed = self.fleet.iter().filter(|entry| {
            entry.node.status == NodeStatus::Ready
                && entry.node.availability != Availability::Active
        });
        for entry in closed.take(ACTIVATED) {
            let mut node = entry.node.clone();
            node.availability = Availability::Active;
            if rules.judge(&node).is_ok() && entry.judge_room(self.request).is_ok() {
                let name = node.description.name;
                let suggestion = Suggestion {
                    change: Change::Activate(name.clone()),
                    nodes: 1,
                    node: Some(name),
                };
                found.push((OPERATOR, suggestion));
                return;
            }
        }
    }
}
