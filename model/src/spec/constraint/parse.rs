//! Reads a constraint, and says where and why it cannot.

use std::str::FromStr;

use super::{CompareOp, Condition, Constraint, NodeKey, Version, VersionBound};
use crate::limits;

/// Characters of the given text that an error repeats.
const SHOWN: usize = 128;
/// Characters of one word of it that a reason repeats.
const SHOWN_WORD: usize = 32;

/// A constraint that does not parse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a constraint: at character {at}: {reason}; write {right}")]
pub struct InvalidConstraint {
    /// What was given, cut to 128 characters.
    pub text: String,
    /// The character at which it goes wrong, counted from 1.
    pub at: usize,
    /// What is wrong with it.
    pub reason: String,
    /// What would be right.
    pub right: String,
}

/// What would be right if nothing is.
const ANY: &str = "a property (node.labels.KEY, node.attributes.KEY, node.name or node.id), then \
    ==VALUE, !=VALUE, in (A,B), not in (A,B), exists, !exists, >NUMBER or version >=A,<B";

/// What is wrong, where in the text (in bytes), and what would be right.
struct Wrong {
    at: usize,
    reason: String,
    right: String,
}

/// The text and how much of it is read.
struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn skip_space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    /// Takes the characters up to the first that ends it.
    fn take_until(&mut self, ends: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let end = rest.find(ends).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    /// Takes this text and the space after it, if it comes next.
    fn take(&mut self, text: &str) -> bool {
        let found = self.rest().starts_with(text);
        if found {
            self.at += text.len();
            self.skip_space();
        }
        found
    }

    fn wrong(&self, reason: impl Into<String>, right: impl Into<String>) -> Wrong {
        Wrong {
            at: self.at,
            reason: reason.into(),
            right: right.into(),
        }
    }

    /// Takes all that is left, which must be something.
    fn value(&mut self, key: &NodeKey, op: &str) -> Result<String, Wrong> {
        let value = self.rest().trim();
        if value.is_empty() {
            let right = format!("{}{op}VALUE", show_key(key));
            return Err(self.wrong("nothing to compare with", right));
        }
        Ok(value.to_owned())
    }

    fn end(&self, condition: Condition) -> Result<Condition, Wrong> {
        let rest = self.rest().trim();
        if rest.is_empty() {
            return Ok(condition);
        }
        let reason = format!("`{}` follows where the constraint ends", cut(rest));
        Err(self.wrong(reason, "one constraint each, all of which must hold"))
    }
}

impl FromStr for Constraint {
    type Err = InvalidConstraint;

    fn from_str(text: &str) -> Result<Self, InvalidConstraint> {
        read(text).map_err(|wrong| InvalidConstraint {
            text: text.chars().take(SHOWN).collect(),
            at: text[..wrong.at].chars().count() + 1,
            reason: wrong.reason,
            right: wrong.right,
        })
    }
}

fn read(text: &str) -> Result<Constraint, Wrong> {
    let mut cursor = Cursor { text, at: 0 };
    if text.len() > limits::CONSTRAINT_BYTES {
        let most = limits::CONSTRAINT_BYTES;
        let reason = format!("it has {} bytes", text.len());
        return Err(cursor.wrong(reason, format!("at most {most} bytes")));
    }
    cursor.skip_space();
    let start = cursor.at;
    let key = cursor.take_until(|c| c.is_whitespace() || "=!<>(),".contains(c));
    let key = read_key(key).map_err(|(reason, right)| Wrong {
        at: start,
        reason,
        right,
    })?;
    cursor.skip_space();
    let condition = read_condition(&mut cursor, &key)?;
    Ok(Constraint { key, condition })
}

/// Returns the property, or what is wrong and what would be right.
fn read_key(key: &str) -> Result<NodeKey, (String, String)> {
    match key {
        "" => return Err(("no property is named".to_owned(), ANY.to_owned())),
        "node.id" => return Ok(NodeKey::Id),
        "node.name" | "node.hostname" => return Ok(NodeKey::Name),
        "node.platform.os" => return Ok(NodeKey::Attribute("os".to_owned())),
        "node.platform.arch" => return Ok(NodeKey::Attribute("arch".to_owned())),
        _ => {}
    }
    let part = |prefix| {
        key.strip_prefix(prefix)
            .filter(|rest: &&str| !rest.is_empty())
    };
    if let Some(label) = part("node.labels.") {
        return Ok(NodeKey::Label(label.to_owned()));
    }
    if let Some(attribute) = part("node.attributes.") {
        return Ok(NodeKey::Attribute(attribute.to_owned()));
    }
    let known = ["node.labels", "node.attributes", "node.id", "node.name"];
    // Of `node.label.zone` the last part is the user's own.
    let (head, tail) = match key.rsplit_once('.') {
        Some((head, "")) => (head, String::new()),
        Some((head, tail)) if head.contains('.') => (head, format!(".{}", cut(tail))),
        _ => (key, String::new()),
    };
    let right = match crate::nearest(head, known) {
        Some(near @ ("node.labels" | "node.attributes")) if tail.is_empty() => {
            format!("{near}.KEY")
        }
        Some(near @ ("node.labels" | "node.attributes")) => format!("{near}{tail}"),
        Some(near) => near.to_owned(),
        None if !key.contains('.') => {
            format!("node.labels.{0}==VALUE if `{0}` is a label", cut(key))
        }
        None => "node.labels.KEY, node.attributes.KEY, node.name or node.id".to_owned(),
    };
    Err((format!("a node has no property `{}`", cut(key)), right))
}

fn read_condition(cursor: &mut Cursor<'_>, key: &NodeKey) -> Result<Condition, Wrong> {
    if cursor.take("==") {
        return cursor.value(key, "==").map(Condition::Equal);
    }
    if cursor.take("!=") {
        return cursor.value(key, "!=").map(Condition::NotEqual);
    }
    if cursor.take("!exists") {
        return cursor.end(Condition::Absent);
    }
    if let Some(op) = take_op(cursor) {
        let value = cursor.value(key, op.as_str())?;
        return match value.parse() {
            Ok(bound) => Ok(Condition::Compare(op, bound)),
            Err(error) => {
                let reason = format!("`{}` is not a number: {error}", cut(&value));
                let right = format!("{}{}4", show_key(key), op.as_str());
                Err(cursor.wrong(reason, right))
            }
        };
    }
    let before = cursor.at;
    let word = cursor.take_until(|c| !c.is_ascii_alphabetic());
    cursor.skip_space();
    match word {
        "exists" => cursor.end(Condition::Exists),
        "in" => read_list(cursor).map(Condition::In),
        "not" if cursor.take("in") => read_list(cursor).map(Condition::NotIn),
        "not" if cursor.take("exists") => cursor.end(Condition::Absent),
        "version" => read_versions(cursor).map(Condition::Version),
        _ => Err(no_operator(cursor, before, key)),
    }
}

/// Returns what is wrong where an operator should be.
fn no_operator(cursor: &Cursor<'_>, at: usize, key: &NodeKey) -> Wrong {
    let key = show_key(key);
    let rest = cursor.text[at..].trim();
    let word = rest.split(char::is_whitespace).next().unwrap_or(rest);
    let known = ["exists", "in", "not in", "version", "!exists"];
    let (reason, right) = if rest.is_empty() {
        let reason = format!("it says nothing about {key}");
        (reason, format!("{key}==VALUE or {key} exists"))
    } else if let Some(value) = rest.strip_prefix('=') {
        let right = format!("{key}=={}", cut(value.trim()));
        ("`=` alone compares nothing".to_owned(), right)
    } else {
        // Of one or two characters anything would be near.
        let near = crate::nearest(word, known).filter(|_| word.len() > 2);
        let right = match near {
            Some(near) => format!("{key} {near}"),
            None => {
                "==, !=, in (A,B), not in (A,B), exists, !exists, >, >=, <, <= or version there"
                    .to_owned()
            }
        };
        (format!("`{}` is no operator", cut(word)), right)
    };
    Wrong { at, reason, right }
}

fn take_op(cursor: &mut Cursor<'_>) -> Option<CompareOp> {
    // The longer ones first: `>=` begins as `>` does.
    let ops = [
        CompareOp::AtLeast,
        CompareOp::AtMost,
        CompareOp::Above,
        CompareOp::Below,
    ];
    ops.into_iter().find(|op| cursor.take(op.as_str()))
}

/// Reads `(A,B)`.
fn read_list(cursor: &mut Cursor<'_>) -> Result<Vec<String>, Wrong> {
    let right = "the values as (A,B)";
    if !cursor.take("(") {
        return Err(cursor.wrong("a list begins with `(`", right));
    }
    let mut values = Vec::new();
    loop {
        let value = cursor.take_until(|c| ",()".contains(c)).trim();
        if value.is_empty() {
            return Err(cursor.wrong("a value is missing", right));
        }
        values.push(value.to_owned());
        if cursor.take(")") {
            break;
        }
        if !cursor.take(",") {
            let reason = match cursor.rest().chars().next() {
                None => "the list is not closed",
                Some(_) => "a value in a list holds no parenthesis",
            };
            return Err(cursor.wrong(reason, right));
        }
    }
    cursor.end(Condition::Exists).map(|_| values)
}

/// Reads `>=A,<B`.
fn read_versions(cursor: &mut Cursor<'_>) -> Result<Vec<VersionBound>, Wrong> {
    let mut bounds = Vec::new();
    loop {
        let equal = [CompareOp::Is, CompareOp::IsNot];
        let op = take_op(cursor).or_else(|| equal.into_iter().find(|op| cursor.take(op.as_str())));
        let start = cursor.at;
        let text = cursor.take_until(|c| c == ',').trim();
        let wrong = |reason: String, right: String| Wrong {
            at: start,
            reason,
            right,
        };
        let Some(op) = op else {
            let reason = "a version is compared by >=, >, <=, <, == or !=".to_owned();
            let shown = if text.is_empty() { "6.1" } else { text };
            return Err(wrong(reason, format!("`version >={}`", cut(shown))));
        };
        let version: Version = text.parse().map_err(|error| {
            let reason = format!("`{}` is not a version: {error}", cut(text));
            wrong(reason, format!("`version {}6.1`", op.as_str()))
        })?;
        bounds.push(VersionBound { op, version });
        if !cursor.take(",") {
            return Ok(bounds);
        }
    }
}

fn cut(text: &str) -> String {
    text.chars().take(SHOWN_WORD).collect()
}

fn show_key(key: &NodeKey) -> String {
    key.to_string().chars().take(2 * SHOWN_WORD).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn constraints_print_as_they_are_read() {
        for text in [
            "node.labels.zone==b",
            "node.name!=n1",
            "node.attributes.os==linux",
            "node.labels.zone in (a,b)",
            "node.labels.zone not in (a)",
            "node.labels.gpu exists",
            "node.labels.gpu !exists",
            "node.labels.disk>=64GiB",
            "node.labels.n<-0.5",
            "node.attributes.kernel version >=5.10,<6.2,!=6.0",
        ] {
            assert_eq!(
                text.parse::<Constraint>().map(|c| c.to_string()),
                Ok(text.to_owned())
            );
        }
    }

    #[test]
    fn space_and_other_words_for_the_same_do_not_matter() {
        for (text, same) in [
            (" node.hostname == n1 ", "node.name==n1"),
            ("node.platform.arch!=x86", "node.attributes.arch!=x86"),
            ("node.labels.a in( x , y )", "node.labels.a in (x,y)"),
            ("node.labels.a not  in (x)", "node.labels.a not in (x)"),
            ("node.labels.a not exists", "node.labels.a !exists"),
            ("node.labels.a!exists", "node.labels.a !exists"),
            ("node.labels.a > 5", "node.labels.a>5"),
            (
                "node.labels.a version >= 1 , < 2",
                "node.labels.a version >=1,<2",
            ),
            ("node.labels.a==b in (c)", "node.labels.a==b in (c)"),
        ] {
            assert_eq!(text.parse::<Constraint>(), same.parse(), "{text}");
            assert!(same.parse::<Constraint>().is_ok(), "{same}");
        }
    }

    /// A text, the character at which it goes wrong, and words of the fault and of the remedy.
    const FAULTS: &[(&str, usize, &str, &str)] = &[
        ("", 1, "no property", "==VALUE"),
        ("zone==b", 1, "no property `zone`", "node.labels.zone"),
        (
            "node.label.zone==b",
            1,
            "`node.label.zone`",
            "node.labels.zone",
        ),
        ("node.labels.==b", 1, "`node.labels.`", "node.labels.KEY"),
        ("node.role==manager", 1, "`node.role`", "node.name"),
        (
            "node.labels.zone",
            17,
            "nothing about",
            "node.labels.zone==VALUE",
        ),
        (
            "node.labels.zone==",
            19,
            "nothing to compare",
            "node.labels.zone==VALUE",
        ),
        ("node.labels.zone=b", 17, "`=` alone", "node.labels.zone==b"),
        ("node.labels.zone! == b", 17, "`!` is no operator", "=="),
        (
            "node.labels.zone exist",
            18,
            "`exist` is no",
            "node.labels.zone exists",
        ),
        (
            "node.labels.zone exists now",
            25,
            "`now` follows",
            "one constraint",
        ),
        ("node.labels.zone in a", 21, "begins with `(`", "(A,B)"),
        ("node.labels.zone in ()", 22, "a value is missing", "(A,B)"),
        (
            "node.labels.zone in (a,,b)",
            24,
            "a value is missing",
            "(A,B)",
        ),
        ("node.labels.zone in (a", 23, "not closed", "(A,B)"),
        ("node.labels.zone in (a(b))", 23, "no parenthesis", "(A,B)"),
        (
            "node.labels.é>many",
            15,
            "`many` is not a number",
            "node.labels.é>4",
        ),
        (
            "node.labels.k version 6.1",
            23,
            "compared by",
            "`version >=6.1`",
        ),
        (
            "node.labels.k version >=x",
            25,
            "`x` is not a version",
            "`version >=6.1`",
        ),
        (
            "node.labels.k version >=1,",
            27,
            "compared by",
            "`version >=6.1`",
        ),
    ];

    #[test]
    fn errors_name_the_place_the_fault_and_the_remedy() {
        for &(text, at, reason, right) in FAULTS {
            let error = text.parse::<Constraint>().expect_err(text);
            assert_eq!(error.at, at, "{error}");
            assert!(error.reason.contains(reason), "{error}");
            assert!(error.right.contains(right), "{error}");
        }
        let endless = format!("node.labels.a=={}", "b".repeat(limits::CONSTRAINT_BYTES));
        let error = endless.parse::<Constraint>().expect_err("too long");
        assert!(error.to_string().len() < 512, "{error}");
    }

    /// Texts of every kind of condition, with values that are easily confused.
    fn constraints() -> impl Strategy<Value = String> {
        let key = prop_oneof![
            Just("node.id".to_owned()),
            "node\\.labels\\.[a-z./_-]{1,8}",
            "node\\.attributes\\.[a-zA-Z0-9é]{1,8}",
        ];
        let condition = prop_oneof![
            "(==|!=)[^\\s]{1,12}",
            " (not )?in \\([a-z0-9=!<> ]{0,4}[a-z]{1,2}(,[a-z]{1,4}){0,3}\\)",
            " !?exists",
            "(<|<=|>|>=)-?[0-9]{1,18}(\\.[0-9]{1,9})?( ?[kmgtKMGT]i?b?)?",
            " version (>=|<|==)v?[0-9]{1,18}(\\.[0-9]{1,4}){0,7}(-[a-z0-9.-]{1,8})?(,!=1)?",
        ];
        (key, condition).prop_map(|(key, condition)| key + &condition)
    }

    proptest! {
        #[test]
        fn prop_garbage_is_an_error_not_a_panic(text in ".{0,64}") {
            let _ = text.parse::<Constraint>();
        }

        #[test]
        fn prop_what_is_written_right_reads_and_prints_as_itself(text in constraints()) {
            let read = text.parse::<Constraint>();
            prop_assert!(read.is_ok(), "{:?}", read);
            let read = read.expect("checked");
            prop_assert_eq!(read.to_string().parse::<Constraint>(), Ok(read));
        }

        #[test]
        fn prop_no_value_makes_a_condition_panic(text in constraints(), value in ".{0,16}") {
            let read: Constraint = text.parse().expect("written right");
            let _ = read.condition.holds(Some(&value));
        }
    }
}
