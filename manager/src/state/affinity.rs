//! Required affinities between services that can never all be met.

use std::collections::{BTreeMap, BTreeSet};

use ballast_model::{ServiceId, ServiceSpec, TopologyKey};

use super::{Rejection, RejectionKind, State};

/// Services by name, as they are to be.
type Specs<'a> = BTreeMap<&'a str, &'a ServiceSpec>;

impl State {
    /// Refuses a spec that has to be near to a service which, perhaps over others, has to be near
    /// to it: none of them could ever be the first. Refuses one, too, that has to be near to a
    /// service that has to keep away from it, and the other way round.
    ///
    /// `own` are services that are replaced by `specs` or removed.
    pub(super) fn check_affinities<'a>(
        &'a self,
        specs: impl IntoIterator<Item = (&'a ServiceSpec, String)>,
        own: &BTreeSet<ServiceId>,
    ) -> Result<(), Rejection> {
        let specs: Vec<_> = specs.into_iter().collect();
        let others = self.services.values();
        let others = others.filter(|entry| !entry.removing && !own.contains(&entry.id));
        let mut all: Specs<'_> = others
            .map(|entry| (entry.spec.name.as_str(), &entry.spec))
            .collect();
        all.extend(specs.iter().map(|(spec, _)| (spec.name.as_str(), *spec)));
        for (spec, prefix) in &specs {
            let found = circle(&all, spec).or_else(|| quarrel(&all, spec));
            if let Some(reason) = found {
                return Err(Rejection::new(RejectionKind::Invalid, reason)
                    .at(format!("{prefix}placement.services")));
            }
        }
        Ok(())
    }
}

/// Returns the names of the services that one has to be near to, itself aside.
fn needs(spec: &ServiceSpec) -> impl Iterator<Item = (&str, &TopologyKey)> {
    required(spec, true)
}

fn required(spec: &ServiceSpec, near: bool) -> impl Iterator<Item = (&str, &TopologyKey)> {
    let rules = spec.placement.services.iter();
    rules
        .filter(move |rule| rule.required && (rule.weight > 0) == near)
        .filter(|rule| !rule.is_own() && rule.service != spec.name)
        .map(|rule| (rule.service.as_str(), &rule.over))
}

/// Returns what is wrong if a walk along what has to be near comes back to where it began.
fn circle(all: &Specs<'_>, start: &ServiceSpec) -> Option<String> {
    let mut seen = BTreeSet::new();
    let mut paths: Vec<Vec<&str>> = vec![vec![&start.name]];
    while let Some(path) = paths.pop() {
        let last = path.last().copied().unwrap_or_default();
        let Some(spec) = all.get(last) else {
            continue;
        };
        for (next, _) in needs(spec) {
            let mut path = path.clone();
            path.push(next);
            if next == start.name {
                let circle = path.join(" → ");
                return Some(format!(
                    "each has to be near to the next, and none can be the first: {circle}"
                ));
            }
            if seen.insert(next) {
                paths.push(path);
            }
        }
    }
    None
}

/// Returns what is wrong if one has to be near to another that has to keep away from it.
fn quarrel(all: &Specs<'_>, spec: &ServiceSpec) -> Option<String> {
    // Tasks on one node are in one place of every kind.
    let clash =
        |near: &TopologyKey, apart: &TopologyKey| near == apart || *near == TopologyKey::Node;
    let words = |near: &str, apart: &str| {
        format!("`{near}` has to be near to `{apart}`, which has to keep away from `{near}`")
    };
    for (other, near) in needs(spec) {
        let away = all.get(other).into_iter().flat_map(|o| required(o, false));
        if away
            .into_iter()
            .any(|(name, apart)| name == spec.name && clash(near, apart))
        {
            return Some(words(&spec.name, other));
        }
    }
    for (other, apart) in required(spec, false) {
        let nears = all.get(other).into_iter().flat_map(|o| needs(o));
        if nears
            .into_iter()
            .any(|(name, near)| name == spec.name && clash(near, apart))
        {
            return Some(words(other, &spec.name));
        }
    }
    None
}
