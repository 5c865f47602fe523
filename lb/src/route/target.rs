//! Rewritten targets and the places that redirects lead to.

use ballast_model::{PathTemplate, Redirect, fill};
use bytes::Bytes;

use super::{Answer, RequestView};

/// How a path becomes another one.
#[derive(Debug)]
pub(super) enum NewPath {
    /// The matched prefix, of so many bytes, is replaced.
    Prefix(usize, String),
    /// The whole path is replaced.
    Whole(String),
    /// The whole path is replaced, with what the template matched in its places.
    Filled(PathTemplate, String),
}

impl NewPath {
    /// Makes one, if a spec wants one.
    pub fn new(
        matched: &str,
        template: Option<&PathTemplate>,
        prefix: Option<&String>,
        path: Option<&String>,
    ) -> Option<Self> {
        if let Some(prefix) = prefix {
            let old = matched.trim_end_matches('/').len();
            return Some(Self::Prefix(old, prefix.trim_end_matches('/').to_owned()));
        }
        let path = path?.clone();
        Some(match template {
            Some(template) if !template.is_literal() => Self::Filled(template.clone(), path),
            _ => Self::Whole(path),
        })
    }

    /// Returns the new path.
    pub fn of(&self, path: &str) -> String {
        match self {
            Self::Prefix(old, new) => {
                let rest = path.get(*old..).unwrap_or("");
                match (new.as_str(), rest) {
                    ("", "") => "/".to_owned(),
                    _ => format!("{new}{rest}"),
                }
            }
            Self::Whole(new) => new.clone(),
            Self::Filled(template, new) => {
                let values = template.captures(path).unwrap_or_default();
                fill(new, &values).unwrap_or_else(|| path.to_owned())
            }
        }
    }
}

/// Returns a path with its query.
pub(super) fn with_query(mut path: String, query: Option<&str>) -> String {
    // A path of the spec's own may have one.
    if let Some(query) = query.filter(|query| !query.is_empty()) {
        path.push(if path.contains('?') { '&' } else { '?' });
        path.push_str(query);
    }
    path
}

/// A redirect, ready for use.
#[derive(Debug)]
pub(super) struct Elsewhere {
    spec: Redirect,
    path: Option<NewPath>,
}

impl Elsewhere {
    pub fn new(spec: &Redirect, matched: &str, template: Option<&PathTemplate>) -> Self {
        Self {
            path: NewPath::new(matched, template, spec.prefix.as_ref(), spec.path.as_ref()),
            spec: spec.clone(),
        }
    }

    /// Returns the answer to a request whose path is read as `path`.
    pub fn answer(&self, request: &RequestView<'_>, path: &str) -> Answer {
        let asked = if request.tls { "https" } else { "http" };
        let scheme = self.spec.scheme.as_deref().unwrap_or(asked);
        let mut location = format!("{scheme}://{}", self.authority(request, scheme == asked));
        let path = match &self.path {
            Some(new) => new.of(path),
            None => request.path.to_owned(),
        };
        location.push_str(&with_query(path, request.query));
        if location.bytes().any(|byte| byte <= b' ' || byte == 127) {
            let title = "the target holds what a redirect cannot";
            return Answer::problem(400, "bad-request", title);
        }
        Answer {
            status: self.spec.status,
            fields: vec![("location".to_owned(), location)],
            body: Bytes::new(),
        }
    }

    fn authority(&self, request: &RequestView<'_>, same_scheme: bool) -> String {
        let asked = request.host;
        let colon = asked.rfind(':').filter(|&at| !asked[at..].contains(']'));
        let (name, port) = match colon {
            Some(at) => (&asked[..at], Some(&asked[at + 1..])),
            None => (asked, None),
        };
        let name = self.spec.host.as_deref().unwrap_or(name);
        match (self.spec.port, port) {
            (Some(port), _) => format!("{name}:{port}"),
            (None, Some(port)) if same_scheme && self.spec.host.is_none() => {
                format!("{name}:{port}")
            }
            _ => name.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_is_replaced_without_doubled_or_lost_slashes() {
        for (matched, new, path, expected) in [
            ("/api", "/v2", "/api/x", "/v2/x"),
            ("/api", "/v2", "/api", "/v2"),
            ("/api/", "/v2/", "/api/", "/v2/"),
            ("/api", "/", "/api/x", "/x"),
            ("/api", "/", "/api", "/"),
            ("/", "/v2", "/x", "/v2/x"),
            ("/", "/v2", "/", "/v2/"),
        ] {
            let rule = NewPath::new(matched, None, Some(&new.to_owned()), None).expect("wanted");
            assert_eq!(rule.of(path), expected, "{matched} {new} {path}");
        }
    }

    #[test]
    fn template_fills_the_new_path() {
        let template: PathTemplate = "/users/{id}/{rest*}".parse().expect("a template");
        let new = "/accounts/{id}?part={rest}".to_owned();
        let rule = NewPath::new("/", Some(&template), None, Some(&new)).expect("wanted");
        let path = rule.of("/users/7/a/b");
        assert_eq!(path, "/accounts/7?part=a/b");
        assert_eq!(with_query(path, Some("q=1")), "/accounts/7?part=a/b&q=1");
    }
}
