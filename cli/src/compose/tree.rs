//! YAML as a tree in which everything knows its place.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};

use super::Position;

/// Nested collections: real files have about 8.
const MAX_DEPTH: usize = 32;
/// Scalars and collections, aliases expanded: real files have a few hundred.
const MAX_NODES: usize = 50_000;
/// Aliases.
const MAX_ALIASES: usize = 1_000;
/// Events injected by aliases: what a YAML bomb multiplies.
const MAX_REPLAYED: usize = 50_000;
/// Bytes of all scalars, aliases expanded.
const MAX_SCALAR_BYTES: usize = 4 << 20;

/// A value and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    pub at: Position,
    pub value: Value,
}

/// Scalars are texts: what a number or a switch means is up to the key that it stands behind, and
/// a variable that is put in later has no other type than text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Null,
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A key of a map and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    pub at: Position,
    pub text: String,
}

impl Value {
    /// Returns what it is, for messages.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Scalar(_) => "a single value",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }
}

/// Reads one document.
///
/// # Errors
/// The place and what is wrong there; also if a limit is reached.
pub(super) fn parse(text: &str) -> Result<Node, (Position, String)> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            max_nodes: MAX_NODES,
            max_events: MAX_NODES * 2,
            max_aliases: MAX_ALIASES,
            max_anchors: MAX_ALIASES,
            max_recorded_anchor_events: MAX_NODES,
            max_total_scalar_bytes: MAX_SCALAR_BYTES,
            max_merge_keys: MAX_ALIASES,
            max_documents: 1,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: MAX_REPLAYED,
            max_replay_stack_depth: MAX_DEPTH,
        },
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        strict_booleans: true,
        with_snippet: false,
    };
    let raw: Raw = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let at = error.location().map_or(Position::default(), position);
        (at, message(&error))
    })?;
    Ok(raw.into_node(text))
}

/// Returns an error's words without the place, which is told apart.
fn message(error: &serde_saphyr::Error) -> String {
    let text = error.without_snippet().to_string();
    let first = text.lines().next().unwrap_or("not a YAML document");
    match first.rfind(" at line ") {
        Some(end) => first[..end].trim_end_matches([',', ':']).to_owned(),
        None => first.to_owned(),
    }
}

fn position(location: Location) -> Position {
    Position {
        line: location.line(),
        column: location.column(),
    }
}

/// What the YAML library hands out, before floating-point numbers get their text back.
struct Raw(Spanned<RawValue>);

enum RawValue {
    Null,
    Scalar(String),
    /// Its text is in the file: `1.10` is not `1.1` to whoever wrote a version.
    Float(f64),
    List(Vec<Raw>),
    Map(Vec<(Spanned<String>, Raw)>),
}

impl Raw {
    fn into_node(self, source: &str) -> Node {
        let Spanned { value, defined, .. } = self.0;
        let value = match value {
            RawValue::Null => Value::Null,
            RawValue::Scalar(text) => Value::Scalar(text),
            RawValue::Float(float) => Value::Scalar(float_text(float, defined, source)),
            RawValue::List(items) => Value::List(
                items
                    .into_iter()
                    .map(|item| item.into_node(source))
                    .collect(),
            ),
            RawValue::Map(entries) => Value::Map(
                entries
                    .into_iter()
                    .map(|(key, value)| {
                        let key = Key {
                            at: position(key.defined),
                            text: key.value,
                        };
                        (key, value.into_node(source))
                    })
                    .collect(),
            ),
        };
        Node {
            at: position(defined),
            value,
        }
    }
}

fn float_text(float: f64, at: Location, source: &str) -> String {
    let span = at.span();
    let written = span
        .byte_offset()
        .zip(span.byte_len())
        .and_then(|(from, len)| {
            let from = usize::try_from(from).ok()?;
            let to = from.checked_add(usize::try_from(len).ok()?)?;
            source.get(from..to)
        });
    match written.map(str::trim) {
        Some(text) if text.parse() == Ok(float) => text.to_owned(),
        _ => float.to_string(),
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Spanned::deserialize(deserializer).map(Raw)
    }
}

impl<'de> Deserialize<'de> for RawValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = RawValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value, a list or a map")
    }

    fn visit_unit<E>(self) -> Result<RawValue, E> {
        Ok(RawValue::Null)
    }

    fn visit_none<E>(self) -> Result<RawValue, E> {
        Ok(RawValue::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<RawValue, D::Error> {
        RawValue::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<RawValue, E> {
        Ok(RawValue::Scalar(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<RawValue, E> {
        Ok(RawValue::Scalar(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<RawValue, E> {
        Ok(RawValue::Scalar(value.to_string()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<RawValue, E> {
        Ok(RawValue::Scalar(value.to_string()))
    }

    fn visit_u128<E>(self, value: u128) -> Result<RawValue, E> {
        Ok(RawValue::Scalar(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<RawValue, E> {
        Ok(RawValue::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<RawValue, E> {
        Ok(RawValue::Scalar(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<RawValue, E> {
        Ok(RawValue::Scalar(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<RawValue, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(RawValue::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawValue, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(RawValue::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fmt::Write as _;
    use std::time::{Duration, Instant};

    fn entry<'a>(node: &'a Node, key: &str) -> (&'a Key, &'a Node) {
        let Value::Map(entries) = &node.value else {
            panic!("not a map: {node:?}");
        };
        let found = entries.iter().find(|(known, _)| known.text == key);
        let (key, node) = found.unwrap_or_else(|| panic!("no `{key}` in {node:?}"));
        (key, node)
    }

    #[test]
    fn keys_and_values_know_their_places() {
        let root =
            parse("services:\n  web:\n    replicas: 3\n    list: [a, 1.10]\n").expect("reads");
        let (_, services) = entry(&root, "services");
        let (key, web) = entry(services, "web");
        assert_eq!(key.at, Position { line: 2, column: 3 });
        let (key, replicas) = entry(web, "replicas");
        assert_eq!(key.at, Position { line: 3, column: 5 });
        assert_eq!(
            replicas.at,
            Position {
                line: 3,
                column: 15
            }
        );
        assert_eq!(replicas.value, Value::Scalar("3".to_owned()));
        let (_, list) = entry(web, "list");
        let Value::List(items) = &list.value else {
            panic!("not a list");
        };
        assert_eq!(items[1].value, Value::Scalar("1.10".to_owned()));
    }

    #[test]
    fn merge_keys_and_anchors_are_expanded() {
        let root = parse("base: &b {a: 1, b: 2}\nuse:\n  <<: *b\n  b: 3\n").expect("reads");
        let (_, used) = entry(&root, "use");
        assert_eq!(entry(used, "a").1.value, Value::Scalar("1".to_owned()));
        assert_eq!(entry(used, "b").1.value, Value::Scalar("3".to_owned()));
    }

    #[test]
    fn bombs_are_refused_quickly() {
        let mut laughs = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
        for level in 1..10 {
            let before = level - 1;
            let refs = vec![format!("*a{before}"); 9].join(", ");
            let _ = writeln!(laughs, "a{level}: &a{level} [{refs}]");
        }
        let deep = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
        let blocks: Vec<String> = (0..5_000)
            .map(|n| format!("{}k:\n", " ".repeat(n % 900)))
            .collect();
        let blocks = blocks.concat();
        let wide = "- x\n".repeat(200_000);
        for bomb in [laughs, deep, blocks, wide, "&a [*a]".to_owned()] {
            let started = Instant::now();
            assert!(parse(&bomb).is_err(), "{bomb:.40}");
            assert!(started.elapsed() < Duration::from_secs(2), "{bomb:.40}");
        }
    }

    #[test]
    fn duplicate_keys_and_broken_yaml_are_errors_with_a_place() {
        for (text, line) in [
            ("a: 1\na: 2\n", 2),
            ("a: [1\nb: 2\n", 2),
            ("a:\n\tb: 1\n", 2),
        ] {
            let (at, message) = parse(text).expect_err(text);
            assert_eq!(at.line, line, "{text}: {message}");
            assert!(!message.contains(" line "), "{message}");
        }
    }

    proptest! {
        #[test]
        fn prop_garbage_never_panics(text in "[ \\n\\t:\\-\\[\\]{}&*!|>'\"%@`a-c0-2<,?#]{0,80}") {
            let _ = parse(&text);
        }
    }
}
