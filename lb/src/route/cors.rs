//! Cross-origin requests: what browsers are told (the Fetch standard, 3.2).

use ballast_model::Cors;

use super::{Answer, RequestView};

/// What scripts of other origins may do.
#[derive(Debug)]
pub(super) struct CorsRules {
    any: bool,
    exact: Vec<String>,
    /// What stands before and after the star.
    wild: Vec<(String, String)>,
    /// Fields of every response that an origin may read.
    fields: Vec<(&'static str, String)>,
    /// Fields of the answer to a preflight, besides.
    preflight: Vec<(&'static str, String)>,
    /// Whether whatever a script asks to send is allowed.
    any_header: bool,
}

/// What a request is to these rules.
#[derive(Debug)]
pub(super) enum Crossing {
    /// None of their business.
    Not,
    /// A request of an origin that may read the response.
    Allowed(String),
    /// The browser asks whether it may ask.
    Preflight(Answer),
}

impl CorsRules {
    pub fn new(spec: &Cors) -> Self {
        let lower = |text: &String| text.to_ascii_lowercase();
        let stars = |origin: &&String| origin.contains("://*.");
        let origins = || spec.origins.iter().filter(|origin| *origin != "*");
        let mut fields = Vec::new();
        if spec.credentials {
            fields.push(("access-control-allow-credentials", "true".to_owned()));
        }
        if !spec.expose.is_empty() {
            fields.push(("access-control-expose-headers", spec.expose.join(", ")));
        }
        let methods = ["GET", "HEAD", "POST"].into_iter();
        let methods: Vec<&str> = methods
            .chain(spec.methods.iter().map(String::as_str))
            .collect();
        let mut preflight = vec![("access-control-allow-methods", methods.join(", "))];
        if !spec.headers.is_empty() {
            preflight.push(("access-control-allow-headers", spec.headers.join(", ")));
        }
        if let Some(age) = spec.max_age {
            preflight.push(("access-control-max-age", (age.0 / 1000).to_string()));
        }
        Self {
            any: spec.origins.iter().any(|origin| origin == "*"),
            exact: origins().filter(|o| !stars(o)).map(lower).collect(),
            wild: origins()
                .filter(stars)
                .filter_map(|origin| {
                    let (before, after) = origin.split_once('*')?;
                    Some((before.to_ascii_lowercase(), after.to_ascii_lowercase()))
                })
                .collect(),
            fields,
            preflight,
            any_header: spec.headers.is_empty(),
        }
    }

    /// Judges a request.
    pub fn judge(&self, request: &RequestView<'_>) -> Crossing {
        let text = |name| {
            let value = request.fields.get(name)?;
            std::str::from_utf8(value).ok()
        };
        let Some(origin) = text("origin") else {
            return Crossing::Not;
        };
        let allowed = self.allows(origin);
        if request.method != "OPTIONS" || text("access-control-request-method").is_none() {
            return if allowed {
                Crossing::Allowed(origin.to_owned())
            } else {
                Crossing::Not
            };
        }
        if !allowed {
            let title = "scripts of this origin may not ask";
            let answer = Answer::problem(403, "origin-not-allowed", title);
            return Crossing::Preflight(answer.with("vary", "origin"));
        }
        let mut answer = Answer {
            status: 204,
            fields: Vec::new(),
            body: bytes::Bytes::new(),
        };
        let mut add = |name: &str, value: &str| {
            answer.fields.push((name.to_owned(), value.to_owned()));
        };
        self.fields(Some(origin), &mut add);
        for (name, value) in &self.preflight {
            add(name, value);
        }
        if self.any_header
            && let Some(asked) = text("access-control-request-headers")
        {
            add("access-control-allow-headers", asked);
        }
        Crossing::Preflight(answer)
    }

    fn allows(&self, origin: &str) -> bool {
        if self.any {
            return true;
        }
        let origin = origin.to_ascii_lowercase();
        self.exact.contains(&origin)
            || self.wild.iter().any(|(before, after)| {
                let middle = origin
                    .strip_prefix(before.as_str())
                    .and_then(|rest| rest.strip_suffix(after.as_str()));
                let label = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
                middle.is_some_and(|part| !part.is_empty() && part.chars().all(label))
            })
    }

    /// Gives the fields of a response that goes to `origin`.
    pub fn fields(&self, origin: Option<&str>, add: &mut dyn FnMut(&str, &str)) {
        if !self.any {
            // What is said depends on who asked: caches must know.
            add("vary", "origin");
        }
        let Some(origin) = origin else {
            return;
        };
        let shown = if self.any { "*" } else { origin };
        add("access-control-allow-origin", shown);
        for (name, value) in &self.fields {
            add(name, value);
        }
    }

    /// Whether a field of the endpoint's response is passed on: what it says itself of
    /// cross-origin requests is not.
    pub fn keeps(name: &[u8]) -> bool {
        const OURS: &[u8] = b"access-control-";
        name.len() < OURS.len() || !name[..OURS.len()].eq_ignore_ascii_case(OURS)
    }
}
