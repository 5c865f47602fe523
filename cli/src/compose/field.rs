//! A value with its path in the document, and typed ways to read it that report what is wrong.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fmt::Write as _;
use std::str::FromStr;

use super::Position;
use super::finding::Report;
use super::keys::{Keys, Verdict};
use super::tree::{Key, Node, Value};

/// A value and its path.
#[derive(Debug, Clone)]
pub(super) struct Field<'a> {
    pub node: &'a Node,
    /// Where its key is; the value itself where it has none.
    pub at: Position,
    pub path: String,
}

/// The honoured keys of a map.
#[derive(Debug, Default)]
pub(super) struct Section<'a> {
    fields: BTreeMap<&'a str, Field<'a>>,
}

impl<'a> Section<'a> {
    /// Returns the field of a key; none if it is not given or empty.
    pub(super) fn get(&self, key: &str) -> Option<&Field<'a>> {
        self.fields.get(key)
    }
}

impl<'a> Field<'a> {
    pub(super) fn root(node: &'a Node) -> Self {
        Self {
            node,
            at: node.at,
            path: String::new(),
        }
    }

    fn child(&self, key: &'a Key, node: &'a Node) -> Self {
        Self {
            node,
            at: key.at,
            path: join(&self.path, &key.text),
        }
    }

    pub(super) fn error(&self, report: &mut Report, message: impl AsRef<str>) {
        report.error(self.at, &self.path, message.as_ref());
    }

    pub(super) fn warn(&self, report: &mut Report, message: impl AsRef<str>) {
        report.warn(self.at, &self.path, message.as_ref());
    }

    fn wrong_kind(&self, report: &mut Report, expected: &str) {
        self.error(
            report,
            format!("is {}, not {expected}", self.node.value.kind()),
        );
    }

    /// Returns the entries of a map whose keys are the user's; of `null`, none.
    pub(super) fn entries(&self, report: &mut Report) -> Vec<(&'a str, Field<'a>)> {
        match &self.node.value {
            Value::Null => Vec::new(),
            Value::Map(entries) => entries
                .iter()
                .map(|(key, node)| (key.text.as_str(), self.child(key, node)))
                .collect(),
            _ => {
                self.wrong_kind(report, "a map");
                Vec::new()
            }
        }
    }

    /// Returns the honoured entries of a map whose keys are Compose's; reports the others.
    pub(super) fn section(&self, report: &mut Report, keys: Keys) -> Section<'a> {
        let mut fields = BTreeMap::new();
        for (key, field) in self.entries(report) {
            match keys.verdict(key) {
                Some(Verdict::Honoured) => {
                    if field.node.value != Value::Null {
                        fields.insert(key, field);
                    }
                }
                Some(Verdict::Skipped(reason)) => {
                    field.warn(report, format!("is not honoured: {reason}"));
                }
                Some(Verdict::Refused(reason)) => {
                    field.error(report, format!("is not supported: {reason}"));
                }
                None if key.starts_with("x-") => {
                    if let Some(near) = ballast_model::nearest(key, ["x-ballast"]) {
                        field.warn(report, format!("is ignored; did you mean `{near}`?"));
                    }
                }
                None => {
                    let known = ballast_model::nearest(key, keys.names());
                    let hint = known.map_or_else(
                        || format!("known are: {}", keys.list()),
                        |known| format!("did you mean `{known}`?"),
                    );
                    field.error(report, format!("unknown key; {hint}"));
                }
            }
        }
        Section { fields }
    }

    /// Returns the text of a single value.
    pub(super) fn text(&self, report: &mut Report) -> Option<&'a str> {
        if let Value::Scalar(text) = &self.node.value {
            Some(text)
        } else {
            self.wrong_kind(report, "a single value");
            None
        }
    }

    /// Returns a single value as what it is to be.
    pub(super) fn parse<T>(&self, report: &mut Report) -> Option<T>
    where
        T: FromStr,
        T::Err: Display,
    {
        let text = self.text(report)?;
        match text.trim().parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.error(report, error.to_string());
                None
            }
        }
    }

    /// Returns a whole number within bounds.
    pub(super) fn number<T>(&self, report: &mut Report, least: T, most: T) -> Option<T>
    where
        T: FromStr + PartialOrd + Display + Copy,
    {
        let text = self.text(report)?.trim();
        match text.parse::<T>() {
            Ok(value) if value >= least && value <= most => Some(value),
            _ => {
                let shown: String = text.chars().take(32).collect();
                self.error(
                    report,
                    format!("`{shown}` is not a number from {least} to {most}"),
                );
                None
            }
        }
    }

    /// Returns a switch.
    pub(super) fn switch(&self, report: &mut Report) -> Option<bool> {
        match self.text(report)? {
            "true" => Some(true),
            "false" => Some(false),
            other => {
                let shown: String = other.chars().take(32).collect();
                self.error(report, format!("`{shown}` is neither true nor false"));
                None
            }
        }
    }

    /// Returns one of a few words.
    pub(super) fn choice<T: Copy>(&self, report: &mut Report, words: &[(&str, T)]) -> Option<T> {
        let text = self.text(report)?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let shown: String = text.chars().take(32).collect();
        let mut message = format!("`{shown}` is not one of {}", names.join(", "));
        if let Some(near) = ballast_model::nearest(text, names.iter().copied()) {
            let _ = write!(message, "; did you mean `{near}`?");
        }
        self.error(report, message);
        None
    }

    /// Returns the items of a list; of `null`, none.
    pub(super) fn items(&self, report: &mut Report) -> Vec<Field<'a>> {
        match &self.node.value {
            Value::Null => Vec::new(),
            Value::List(items) => items
                .iter()
                .enumerate()
                .map(|(place, node)| Self {
                    node,
                    at: node.at,
                    path: format!("{}[{place}]", self.path),
                })
                .collect(),
            _ => {
                self.wrong_kind(report, "a list");
                Vec::new()
            }
        }
    }

    /// Returns the texts of a list.
    pub(super) fn texts(&self, report: &mut Report) -> Vec<String> {
        self.items(report)
            .iter()
            .filter_map(|item| item.text(report).map(str::to_owned))
            .collect()
    }

    /// Returns a map, or a list of `KEY=VALUE`; a key without a value has none.
    pub(super) fn pairs(&self, report: &mut Report) -> Vec<(String, Option<String>)> {
        if let Value::List(_) = &self.node.value {
            let split = |text: String| match text.split_once('=') {
                Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                None => (text, None),
            };
            return self.texts(report).into_iter().map(split).collect();
        }
        let mut pairs = Vec::new();
        for (key, field) in self.entries(report) {
            let value = match &field.node.value {
                Value::Null => None,
                _ => match field.text(report) {
                    Some(text) => Some(text.to_owned()),
                    None => continue,
                },
            };
            pairs.push((key.to_owned(), value));
        }
        pairs
    }

    pub(super) const fn is_scalar(&self) -> bool {
        matches!(self.node.value, Value::Scalar(_))
    }

    pub(super) const fn is_list(&self) -> bool {
        matches!(self.node.value, Value::List(_))
    }
}

fn join(path: &str, key: &str) -> String {
    let shown: String = key.chars().take(64).collect();
    if path.is_empty() {
        shown
    } else {
        format!("{path}.{shown}")
    }
}
