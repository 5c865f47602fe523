//! What else a request must be like: method, header, query, cookies.

use ballast_model::{FieldMatch, RouteMatch};

use super::RequestView;
use super::key::{cookie, parameter};

/// Conditions besides host and path.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Conditions {
    methods: Vec<String>,
    headers: Vec<FieldMatch>,
    query: Vec<FieldMatch>,
    cookies: Vec<FieldMatch>,
}

impl Conditions {
    pub fn new(when: &RouteMatch) -> Self {
        let lower = |one: &FieldMatch| FieldMatch {
            name: one.name.to_ascii_lowercase(),
            ..one.clone()
        };
        Self {
            methods: when.methods.clone(),
            headers: when.headers.iter().map(lower).collect(),
            query: when.query.clone(),
            cookies: when.cookies.clone(),
        }
    }

    /// Returns how many there are: of two routes for one path, that with more is asked first.
    pub fn count(&self) -> usize {
        let methods = usize::from(!self.methods.is_empty());
        methods + self.headers.len() + self.query.len() + self.cookies.len()
    }

    /// Whether all of them hold.
    pub fn hold(&self, request: &RequestView<'_>) -> bool {
        if !self.methods.is_empty() && !self.methods.iter().any(|one| one == request.method) {
            return false;
        }
        self.headers
            .iter()
            .all(|one| holds(one, request.fields.get(&one.name)))
            && self.query.iter().all(|one| {
                let value = parameter(request.query, &one.name);
                holds(one, value.as_deref().map(str::as_bytes))
            })
            && self
                .cookies
                .iter()
                .all(|one| holds(one, cookie(request.fields, &one.name)))
    }
}

fn holds(wanted: &FieldMatch, value: Option<&[u8]>) -> bool {
    let Some(value) = value else {
        return wanted.absent;
    };
    if let Some(exact) = &wanted.exact {
        return value == exact.as_bytes();
    }
    if let Some(prefix) = &wanted.prefix {
        return value.starts_with(prefix.as_bytes());
    }
    !wanted.absent
}
