//! Variables in values: `$NAME`, `${NAME}`, `${NAME:-default}`, `${NAME-default}`,
//! `${NAME:?error}`, `${NAME?error}`, `${NAME:+instead}`, `${NAME+instead}`; `$$` is a dollar sign.
//!
//! `$PORT` and `$BALLAST_…` are left as they are: they are the task's, and its agent knows them.

use super::finding::Report;
use super::tree::{Node, Value};
use std::fmt::Write as _;

/// Bytes of one value with its variables put in: what a whole command line may have.
const MAX_VALUE: usize = ballast_model::limits::COMMAND_BYTES;
/// Defaults within defaults.
const MAX_NESTING: usize = 16;

/// Puts variables into every value of the tree; keys stay as they are.
pub(super) fn expand_tree(
    node: &mut Node,
    variable: &dyn Fn(&str) -> Option<String>,
    report: &mut Report,
) {
    match &mut node.value {
        Value::Null => {}
        Value::Scalar(text) => {
            if !text.contains('$') {
                return;
            }
            match expand(text, variable) {
                Ok(expanded) => {
                    for name in expanded.unset {
                        let message = format!("the variable `{name}` is not set; it is left empty");
                        report.warn(node.at, "", message);
                    }
                    *text = expanded.text;
                }
                Err(message) => report.error(node.at, "", message),
            }
        }
        Value::List(items) => {
            for item in items {
                expand_tree(item, variable, report);
            }
        }
        Value::Map(entries) => {
            for (_, value) in entries {
                expand_tree(value, variable, report);
            }
        }
    }
}

/// A value with its variables put in.
#[derive(Debug, PartialEq, Eq)]
struct Expanded {
    text: String,
    /// Variables that have neither a value nor a default.
    unset: Vec<String>,
}

fn expand(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<Expanded, String> {
    let mut out = Expanded {
        text: String::new(),
        unset: Vec::new(),
    };
    expand_into(&mut out, text, variable, 0)?;
    Ok(out)
}

fn expand_into(
    out: &mut Expanded,
    text: &str,
    variable: &dyn Fn(&str) -> Option<String>,
    nesting: usize,
) -> Result<(), String> {
    if nesting > MAX_NESTING {
        return Err(format!("more than {MAX_NESTING} defaults within defaults"));
    }
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.text.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.text.push('$');
            rest = after;
        } else if let Some(after) = rest.strip_prefix('{') {
            let end = closing(after)
                .ok_or_else(|| format!("`${{{}` has no closing brace", cut(after)))?;
            expand_braced(out, &after[..end], variable, nesting)?;
            rest = &after[end + 1..];
        } else {
            let end = name_end(rest);
            if end == 0 {
                return Err(format!(
                    "`${}` is not a variable; write `$$` for a dollar sign",
                    cut(rest)
                ));
            }
            let name = &rest[..end];
            if belongs_to_task(name) {
                out.text.push('$');
                out.text.push_str(name);
            } else {
                put(out, name, variable(name));
            }
            rest = &rest[end..];
        }
        if out.text.len() > MAX_VALUE {
            return Err(format!("longer than {MAX_VALUE} bytes with its variables"));
        }
    }
    out.text.push_str(rest);
    Ok(())
}

/// Puts in what stands between `${` and `}`.
fn expand_braced(
    out: &mut Expanded,
    inner: &str,
    variable: &dyn Fn(&str) -> Option<String>,
    nesting: usize,
) -> Result<(), String> {
    let (name, rest) = inner.split_at(name_end(inner));
    if name.is_empty() {
        return Err(format!("`${{{}}}` names no variable", cut(inner)));
    }
    if belongs_to_task(name) && rest.is_empty() {
        let _ = write!(out.text, "${{{name}}}");
        return Ok(());
    }
    let value = variable(name);
    let (empty_counts, rest) = match rest.strip_prefix(':') {
        Some(rest) => (false, rest),
        None => (true, rest),
    };
    let present = value
        .clone()
        .filter(|value| empty_counts || !value.is_empty());
    let mut forms = rest.chars();
    match (forms.next(), forms.as_str()) {
        (None, _) if empty_counts => put(out, name, value),
        (Some('-'), default) => match present {
            Some(value) => out.text.push_str(&value),
            None => expand_into(out, default, variable, nesting + 1)?,
        },
        (Some('?'), message) => match present {
            Some(value) => out.text.push_str(&value),
            None if message.is_empty() => return Err(format!("the variable `{name}` is not set")),
            None => return Err(format!("the variable `{name}` is not set: {message}")),
        },
        (Some('+'), instead) => {
            if present.is_some() {
                expand_into(out, instead, variable, nesting + 1)?;
            }
        }
        _ => {
            return Err(format!(
                "`${{{}}}` is not understood; write ${{NAME}}, ${{NAME:-default}}, ${{NAME:?message}} or ${{NAME:+instead}}",
                cut(inner)
            ));
        }
    }
    Ok(())
}

fn put(out: &mut Expanded, name: &str, value: Option<String>) {
    match value {
        Some(value) => out.text.push_str(&value),
        None => out.unset.push(name.to_owned()),
    }
}

/// Returns whether the agent puts this one in, when it starts the task.
fn belongs_to_task(name: &str) -> bool {
    name == "PORT" || name.starts_with("BALLAST_")
}

fn name_end(text: &str) -> usize {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return 0;
    }
    text.find(|c| !is_part(c)).unwrap_or(text.len())
}

/// Returns where the brace that was open at the start is closed.
fn closing(text: &str) -> Option<usize> {
    let mut open = 1usize;
    let mut before = ' ';
    for (at, c) in text.char_indices() {
        match c {
            '{' if before == '$' => open += 1,
            '}' => open -= 1,
            _ => {}
        }
        if open == 0 {
            return Some(at);
        }
        before = c;
    }
    None
}

fn cut(text: &str) -> String {
    text.chars().take(32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn variable(name: &str) -> Option<String> {
        match name {
            "SET" => Some("value".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    #[test]
    fn every_form_is_honoured() {
        for (text, expected) in [
            ("plain", "plain"),
            ("$SET-${SET}", "value-value"),
            ("${NONE:-default}", "default"),
            ("${NONE-default}", "default"),
            ("${EMPTY:-default}|${EMPTY-default}", "default|"),
            ("${NONE:-${SET}}", "value"),
            ("${NONE:-${OTHER:-deep}}!", "deep!"),
            ("${SET:+yes}${NONE:+no}${EMPTY+there}", "yesthere"),
            ("${SET:?must be set}", "value"),
            ("costs $$5 and $$$$", "costs $5 and $$"),
            (
                "--port $PORT ${BALLAST_SLOT}",
                "--port $PORT ${BALLAST_SLOT}",
            ),
        ] {
            let expanded = expand(text, &variable).expect(text);
            assert_eq!(
                (expanded.text.as_str(), expanded.unset.len()),
                (expected, 0)
            );
        }
    }

    #[test]
    fn unset_variables_are_named() {
        let expanded = expand("a${NONE}b$OTHER", &variable).expect("reads");
        assert_eq!(expanded.text, "ab");
        assert_eq!(expanded.unset, ["NONE", "OTHER"]);
    }

    #[test]
    fn broken_and_missing_ones_are_errors() {
        for text in [
            "${SET",
            "$ 5",
            "${}",
            "${SET!x}",
            "${NONE:?no database}",
            "$1",
            "${SET:}",
        ] {
            assert!(expand(text, &variable).is_err(), "{text}");
        }
        let error = expand("${NONE:?no database}", &variable).expect_err("required");
        assert!(error.ends_with("no database"), "{error}");
    }

    proptest! {
        #[test]
        fn prop_garbage_never_panics(text in "[$\\{\\}A-C:?+\\- é]{0,40}") {
            let _ = expand(&text, &variable);
        }
    }
}
