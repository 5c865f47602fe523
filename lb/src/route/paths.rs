//! The routes of one host, by path.

use std::collections::HashMap;
use std::sync::Arc;

use ballast_model::{PathTemplate, RouteRule};

use super::conditions::Conditions;
use super::{RequestView, Route};

/// One route for one path.
#[derive(Debug, PartialEq)]
pub(super) struct Candidate {
    pub conditions: Conditions,
    pub route: Arc<Route>,
    /// The place of its own pool.
    pub place: usize,
    /// Cumulated weights and places, if requests are shared out.
    pub split: Vec<(u32, usize)>,
    /// The place of the pool that gets copies.
    pub mirror: Option<usize>,
}

/// Those for the same path, the one with the most conditions first.
type Candidates = Vec<Candidate>;

/// The routes of one host: the whole path wins, then the template with the most literal segments,
/// then the longest prefix.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Paths {
    exact: HashMap<String, Candidates>,
    templates: Vec<(PathTemplate, Candidates)>,
    /// Without the slash at their ends.
    prefixes: HashMap<String, Candidates>,
    root: Candidates,
    /// Slashes in the prefix that has the most: deeper ones are not looked for.
    deepest: usize,
}

impl Paths {
    /// Adds a route; `false` if there is one that matches the same requests.
    pub fn add(&mut self, rule: &RouteRule, candidate: Candidate) -> bool {
        let template = rule
            .when
            .path
            .as_ref()
            .and_then(|text| text.parse::<PathTemplate>().ok());
        let list = match (template, &rule.when.path) {
            (Some(template), Some(path)) if template.is_literal() => {
                self.exact.entry(path.clone()).or_default()
            }
            (Some(template), _) => self.of_template(template),
            (None, _) => self.of_prefix(&rule.path_prefix),
        };
        if list
            .iter()
            .any(|other| other.conditions == candidate.conditions)
        {
            return false;
        }
        let count = candidate.conditions.count();
        let at = list.partition_point(|other| other.conditions.count() >= count);
        list.insert(at, candidate);
        true
    }

    fn of_template(&mut self, template: PathTemplate) -> &mut Candidates {
        let known = self.templates.iter().position(|(one, _)| *one == template);
        let at = known.unwrap_or_else(|| {
            let literals = template.literals();
            let at = self
                .templates
                .partition_point(|(one, _)| one.literals() >= literals);
            self.templates.insert(at, (template, Vec::new()));
            at
        });
        &mut self.templates[at].1
    }

    fn of_prefix(&mut self, prefix: &str) -> &mut Candidates {
        let prefix = prefix.trim_end_matches('/');
        if prefix.is_empty() {
            return &mut self.root;
        }
        self.deepest = self.deepest.max(prefix.matches('/').count());
        self.prefixes.entry(prefix.to_owned()).or_default()
    }

    /// Returns the route of a request with this path.
    ///
    /// # Complexity
    /// Linear in the path and in the host's templates; a look-up for each segment of the path that
    /// the deepest prefix has.
    pub fn find(&self, path: &str, request: &RequestView<'_>) -> Option<&Candidate> {
        let first = |list: &'_ Candidates| -> Option<usize> {
            list.iter().position(|one| one.conditions.hold(request))
        };
        if !self.exact.is_empty()
            && let Some(list) = self.exact.get(path)
            && let Some(at) = first(list)
        {
            return Some(&list[at]);
        }
        for (template, list) in &self.templates {
            if template.matches(path)
                && let Some(at) = first(list)
            {
                return Some(&list[at]);
            }
        }
        let mut end = self.longest(path);
        while end > 0 {
            if let Some(list) = self.prefixes.get(&path[..end])
                && let Some(at) = first(list)
            {
                return Some(&list[at]);
            }
            end = path[..end].rfind('/').unwrap_or(0);
        }
        first(&self.root).map(|at| &self.root[at])
    }

    /// Where the longest prefix ends that may be known.
    fn longest(&self, path: &str) -> usize {
        if self.deepest == 0 {
            return 0;
        }
        let mut slashes = path.match_indices('/').map(|(at, _)| at);
        slashes.nth(self.deepest).unwrap_or(path.len())
    }

    /// Calls `visit` with every route.
    pub fn each_mut(&mut self, visit: &mut dyn FnMut(&mut Candidate)) {
        let exact = self.exact.values_mut();
        let templates = self.templates.iter_mut().map(|(_, list)| list);
        let prefixes = self.prefixes.values_mut();
        let lists = exact.chain(templates).chain(prefixes);
        for one in lists.chain([&mut self.root]).flatten() {
            visit(one);
        }
    }
}
