//! Changes of a header.

use ballast_model::HeaderEdits;

/// Changes of a header, ready to be applied to fields as they pass.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edits {
    /// Lower case; the fields that are dropped or replaced.
    dropped: Vec<String>,
    added: Vec<(String, String)>,
}

impl Edits {
    /// Makes them of a spec.
    pub fn new(spec: &HeaderEdits) -> Self {
        let dropped = spec.remove.iter().chain(spec.set.keys());
        let added = spec.set.iter().chain(&spec.add);
        Self {
            dropped: dropped.map(|name| name.to_ascii_lowercase()).collect(),
            added: added
                .map(|(name, value)| (name.to_ascii_lowercase(), value.clone()))
                .collect(),
        }
    }

    /// Sets one more field.
    pub fn set(&mut self, name: &str, value: &str) {
        self.dropped.push(name.to_ascii_lowercase());
        self.added
            .push((name.to_ascii_lowercase(), value.to_owned()));
    }

    /// Drops one more field.
    pub fn drop(&mut self, name: &str) {
        self.dropped.push(name.to_ascii_lowercase());
    }

    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.dropped.is_empty() && self.added.is_empty()
    }

    /// Whether a field that came is passed on.
    pub fn keeps(&self, name: &[u8]) -> bool {
        !self
            .dropped
            .iter()
            .any(|one| one.as_bytes().eq_ignore_ascii_case(name))
    }

    /// Returns the names of fields that are not passed on, in lower case.
    pub fn dropped(&self) -> impl Iterator<Item = &str> {
        self.dropped.iter().map(String::as_str)
    }

    /// Returns the fields that are written after those that are passed on.
    pub fn added(&self) -> impl Iterator<Item = (&str, &str)> {
        self.added
            .iter()
            .map(|(name, value)| (&name[..], &value[..]))
    }
}
