//! Templates of paths: `/users/{id}/posts`, `/files/{path*}`.

use std::str::FromStr;

/// Names in one template at most: a path has few that matter.
pub const TEMPLATE_NAMES: usize = 16;

/// A path in which names stand for segments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathTemplate {
    segments: Vec<Segment>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Literal(String),
    /// One segment that is not empty.
    One(String),
    /// Everything that is left.
    Rest(String),
}

/// A template that does not parse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a path template begins with `/`, and `{{name}}` stands for a whole segment, `{{name*}}` for \
     the last ones; no name twice, at most {TEMPLATE_NAMES}"
)]
pub struct InvalidTemplate;

impl FromStr for PathTemplate {
    type Err = InvalidTemplate;

    fn from_str(text: &str) -> Result<Self, InvalidTemplate> {
        let rest = text.strip_prefix('/').ok_or(InvalidTemplate)?;
        let mut segments: Vec<Segment> = Vec::new();
        let mut names: Vec<&str> = Vec::new();
        for part in rest.split('/') {
            if matches!(segments.last(), Some(Segment::Rest(_))) {
                return Err(InvalidTemplate);
            }
            let inner = part.strip_prefix('{').and_then(|p| p.strip_suffix('}'));
            let Some(inner) = inner else {
                if part.contains(['{', '}']) {
                    return Err(InvalidTemplate);
                }
                segments.push(Segment::Literal(part.to_owned()));
                continue;
            };
            let name = inner.strip_suffix('*').unwrap_or(inner);
            let ok = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if name.is_empty() || !name.chars().all(ok) || names.contains(&name) {
                return Err(InvalidTemplate);
            }
            names.push(name);
            segments.push(if inner.ends_with('*') {
                Segment::Rest(name.to_owned())
            } else {
                Segment::One(name.to_owned())
            });
        }
        if names.len() > TEMPLATE_NAMES {
            return Err(InvalidTemplate);
        }
        Ok(Self { segments })
    }
}

impl PathTemplate {
    /// Whether no name stands in it: it matches one path.
    pub fn is_literal(&self) -> bool {
        self.literals() == self.segments.len()
    }

    /// Returns how many segments are literal: of two templates the one with more is more exact.
    pub fn literals(&self) -> usize {
        let literal = |segment: &&Segment| matches!(segment, Segment::Literal(_));
        self.segments.iter().filter(literal).count()
    }

    /// Whether a path fits.
    pub fn matches(&self, path: &str) -> bool {
        self.walk(path, &mut |_, _| {}).is_some()
    }

    /// Returns what the names stand for in a path, if it fits.
    pub fn captures<'a>(&'a self, path: &'a str) -> Option<Vec<(&'a str, &'a str)>> {
        let mut found = Vec::new();
        self.walk(path, &mut |name, value| found.push((name, value)))?;
        Some(found)
    }

    fn walk<'a>(&'a self, path: &'a str, found: &mut dyn FnMut(&'a str, &'a str)) -> Option<()> {
        let mut rest = Some(path.strip_prefix('/')?);
        for segment in &self.segments {
            let left = rest?;
            let (part, after) = match left.split_once('/') {
                Some((part, after)) => (part, Some(after)),
                None => (left, None),
            };
            match segment {
                Segment::Literal(text) if text == part => {}
                Segment::One(name) if !part.is_empty() => found(name, part),
                Segment::Rest(name) => {
                    found(name, left);
                    return Some(());
                }
                _ => return None,
            }
            rest = after;
        }
        rest.is_none().then_some(())
    }

    /// Whether every name in `text` is one of this template's.
    pub fn has_names_of(&self, text: &str) -> bool {
        let known: Vec<(&str, &str)> = self
            .segments
            .iter()
            .filter_map(|segment| match segment {
                Segment::Literal(_) => None,
                Segment::One(name) | Segment::Rest(name) => Some((name.as_str(), "")),
            })
            .collect();
        fill(text, &known).is_some()
    }
}

/// Returns a text with `{name}` replaced by what it stands for; `None` if a name is not known or a
/// brace is not closed.
pub fn fill(text: &str, values: &[(&str, &str)]) -> Option<String> {
    let mut out = String::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}')?;
        let (_, value) = values.iter().find(|(known, _)| *known == name)?;
        out.push_str(before);
        out.push_str(value);
        rest = after;
    }
    out.push_str(rest);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(text: &str) -> PathTemplate {
        text.parse().expect("is a template")
    }

    #[test]
    fn names_stand_for_whole_segments() {
        let users = template("/users/{id}/posts");
        assert_eq!(users.captures("/users/7/posts"), Some(vec![("id", "7")]));
        for other in [
            "/users//posts",
            "/users/7",
            "/users/7/posts/",
            "/users/7/8/posts",
            "",
        ] {
            assert!(!users.matches(other), "{other}");
        }
        let files = template("/files/{path*}");
        assert_eq!(files.captures("/files/a/b"), Some(vec![("path", "a/b")]));
        assert_eq!(files.captures("/files/"), Some(vec![("path", "")]));
        assert!(!files.matches("/files"));
        assert!(template("/").matches("/"));
        assert!(template("/login").is_literal() && !files.is_literal());
    }

    #[test]
    fn what_is_no_template_is_refused() {
        for bad in [
            "", "x", "/{", "/{}", "/a{b}", "/{a}/{a}", "/{a*}/b", "/{a-b}",
        ] {
            assert!(bad.parse::<PathTemplate>().is_err(), "{bad}");
        }
    }

    #[test]
    fn names_are_filled_in() {
        let users = template("/users/{id}/{rest*}");
        let values = users.captures("/users/7/a/b").expect("fits");
        assert_eq!(
            fill("/v2/{rest}?u={id}", &values).as_deref(),
            Some("/v2/a/b?u=7")
        );
        assert!(users.has_names_of("/x/{id}") && !users.has_names_of("/x/{other}"));
        assert!(!users.has_names_of("/x/{id"));
    }
}
