//! Text with places that are filled in for each request.
//!
//! ```text
//! /users/{{random:1..100}}?n={{counter}}&key={{letters:8}}
//! ```
//!
//! A place is `{{name}}` or `{{name:argument}}`. A backslash counts only before `{{`: `\{{` is two
//! braces, `\\{{` a backslash and then a place; any other one is sent as it is, so that JSON need
//! not be escaped twice.

use std::fmt;

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

/// Random letters of one place. A body that is larger belongs in a file.
pub const LETTERS: usize = 1 << 20;
/// What [`Part::Letters`] draws from: 64 of them, so that six random bits are one of them.
const ALPHABET: &[u8; 64] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789aA";
/// The names that places have.
const NAMES: [&str; 3] = ["counter", "random", "letters"];

/// Text with places that are filled in for each request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Template {
    /// Literal bytes and places, in order.
    pub parts: Vec<Part>,
}

/// A part of a [`Template`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Part {
    /// Sent as it is.
    Literal(Vec<u8>),
    /// The request's number, unique in the run.
    Counter,
    /// A uniform random number of this range, both ends included.
    Random {
        /// Smallest.
        from: u64,
        /// Largest.
        to: u64,
    },
    /// This many random letters and digits.
    Letters(usize),
}

impl fmt::Display for Template {
    /// Writes it as it may have been written; bytes that are no UTF-8 are lost.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.parts {
            match part {
                Part::Literal(bytes) => write!(f, "{}", String::from_utf8_lossy(bytes))?,
                Part::Counter => write!(f, "{{{{counter}}}}")?,
                Part::Random { from, to } => write!(f, "{{{{random:{from}..{to}}}}}")?,
                Part::Letters(count) => write!(f, "{{{{letters:{count}}}}}")?,
            }
        }
        Ok(())
    }
}

/// A template that does not parse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: {problem}")]
pub struct TemplateError {
    /// Where, in characters from 1.
    pub column: usize,
    /// What is wrong there.
    pub problem: TemplateProblem,
}

/// What is wrong with a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateProblem {
    /// The end of a place is missing.
    #[error("`{{{{` without its `}}}}` (write `\\{{{{` to send two braces)")]
    Unclosed,
    /// No place has this name.
    #[error("`{name}` is no place; there are counter, random:FROM..TO and letters:N{hint}")]
    Unknown {
        /// As it was written.
        name: String,
        /// The nearest that there is, as the end of a sentence; may be empty.
        hint: String,
    },
    /// A place has an argument that it does not take.
    #[error("`counter` takes no argument")]
    CounterArgument,
    /// Not a range.
    #[error("`{0}` is no range such as 1..100")]
    Range(String),
    /// A range without a number in it.
    #[error("the range {0}..{1} is empty: its first number is the larger one")]
    EmptyRange(u64, u64),
    /// Not a number of letters.
    #[error("`{0}` is no number of letters from 1 to {LETTERS}")]
    Letters(String),
}

impl Template {
    /// Returns a template without places.
    pub fn literal(bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            parts: vec![Part::Literal(bytes.into())],
        }
    }

    /// Returns the template that `text` describes.
    ///
    /// # Errors
    /// [`TemplateError`] with the column of the place that does not parse.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut literal = Vec::new();
        let mut at = 0;
        while let Some(found) = text[at..].find("{{") {
            let open = at + found;
            let slashes = text[at..open]
                .bytes()
                .rev()
                .take_while(|b| *b == b'\\')
                .count();
            let keep = open - slashes.min(1);
            literal.extend_from_slice(&text.as_bytes()[at..keep]);
            if slashes == 1 {
                literal.extend_from_slice(b"{{");
                at = open + 2;
                continue;
            }
            let error = |problem| TemplateError {
                column: text[..open].chars().count() + 1,
                problem,
            };
            let length = text[open + 2..]
                .find("}}")
                .ok_or_else(|| error(TemplateProblem::Unclosed))?;
            let inside = &text[open + 2..open + 2 + length];
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal)));
            }
            parts.push(place(inside).map_err(error)?);
            at = open + 2 + length + 2;
        }
        literal.extend_from_slice(&text.as_bytes()[at..]);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        Ok(Self { parts })
    }

    /// Returns whether nothing in it changes from request to request.
    pub fn is_literal(&self) -> bool {
        self.parts
            .iter()
            .all(|part| matches!(part, Part::Literal(_)))
    }

    /// Returns whether it renders to nothing at all.
    pub fn is_empty(&self) -> bool {
        self.parts
            .iter()
            .all(|part| matches!(part, Part::Literal(bytes) if bytes.is_empty()))
    }

    /// Appends the text of request `number` to `out`; allocates only where `out` has to grow.
    pub fn render(&self, number: u64, rng: &mut impl Rng, out: &mut Vec<u8>) {
        for part in &self.parts {
            match part {
                Part::Literal(bytes) => out.extend_from_slice(bytes),
                Part::Counter => decimal(number, out),
                Part::Random { from, to } => decimal(rng.random_range(*from..=*to), out),
                Part::Letters(count) => letters(*count, rng, out),
            }
        }
    }

    /// Returns the text that does not change from request to request, for checks of its bytes.
    pub(crate) fn literals(&self) -> impl Iterator<Item = &[u8]> {
        self.parts.iter().filter_map(|part| match part {
            Part::Literal(bytes) => Some(bytes.as_slice()),
            _ => None,
        })
    }
}

fn place(inside: &str) -> Result<Part, TemplateProblem> {
    let (name, argument) = match inside.split_once(':') {
        Some((name, argument)) => (name.trim(), Some(argument.trim())),
        None => (inside.trim(), None),
    };
    match name {
        "counter" if argument.is_none() => Ok(Part::Counter),
        "counter" => Err(TemplateProblem::CounterArgument),
        "random" => range(argument.unwrap_or_default()),
        "letters" => {
            let text = argument.unwrap_or_default();
            match text.parse() {
                Ok(count @ 1..=LETTERS) => Ok(Part::Letters(count)),
                _ => Err(TemplateProblem::Letters(text.to_owned())),
            }
        }
        _ => Err(TemplateProblem::Unknown {
            name: name.to_owned(),
            hint: super::nearest(name, NAMES)
                .map(|near| format!("; did you mean {near}?"))
                .unwrap_or_default(),
        }),
    }
}

fn range(text: &str) -> Result<Part, TemplateProblem> {
    let bad = || TemplateProblem::Range(text.to_owned());
    let (from, to) = text.split_once("..").ok_or_else(bad)?;
    let to = to.strip_prefix('=').unwrap_or(to);
    let from: u64 = from.trim().parse().map_err(|_| bad())?;
    let to: u64 = to.trim().parse().map_err(|_| bad())?;
    if from > to {
        return Err(TemplateProblem::EmptyRange(from, to));
    }
    Ok(Part::Random { from, to })
}

fn decimal(mut number: u64, out: &mut Vec<u8>) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

fn letters(count: usize, rng: &mut impl Rng, out: &mut Vec<u8>) {
    let mut left = count;
    while left > 0 {
        let mut bits: u64 = rng.random();
        // Ten letters of six bits each fit a word.
        let now = left.min(10);
        for _ in 0..now {
            out.push(ALPHABET[(bits & 63) as usize]);
            bits >>= 6;
        }
        left -= now;
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    fn rendered(text: &str, number: u64) -> String {
        let mut out = Vec::new();
        let mut rng = SmallRng::seed_from_u64(1);
        Template::parse(text)
            .expect("parses")
            .render(number, &mut rng, &mut out);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn places_are_filled_in_for_each_request() {
        assert_eq!(rendered("/a/{{counter}}?b=1", 0), "/a/0?b=1");
        assert_eq!(rendered("{{ counter }}{{counter}}", 907), "907907");
        assert_eq!(rendered("{{counter}}", u64::MAX), "18446744073709551615");
        assert_eq!(rendered("{{random:7..7}}", 1), "7");
        assert_eq!(rendered("{{letters:23}}", 1).len(), 23);
        assert_eq!(rendered("", 1), "");
    }

    #[test]
    fn random_numbers_take_both_ends_of_their_range() {
        let template = Template::parse("{{random:1..3}}").expect("parses");
        let mut rng = SmallRng::seed_from_u64(1);
        let mut out = Vec::new();
        for number in 0..100 {
            template.render(number, &mut rng, &mut out);
        }
        for digit in b'0'..=b'9' {
            assert_eq!(out.contains(&digit), (b'1'..=b'3').contains(&digit));
        }
    }

    #[test]
    fn backslash_counts_only_before_two_braces() {
        assert_eq!(
            rendered(r#"{"a":"x\ny","b":{"c":1}}"#, 1),
            r#"{"a":"x\ny","b":{"c":1}}"#
        );
        assert_eq!(rendered(r"\{{counter}}", 5), "{{counter}}");
        assert_eq!(rendered(r"\\{{counter}}", 5), r"\5");
        assert_eq!(rendered(r"a\{b", 5), r"a\{b");
    }

    #[test]
    fn errors_name_the_column_and_what_would_be_right() {
        let error = |text: &str| Template::parse(text).expect_err(text).to_string();
        assert_eq!(
            error("/ä/{{countre}}"),
            "column 4: `countre` is no place; there are counter, random:FROM..TO and letters:N; \
             did you mean counter?"
        );
        assert_eq!(
            error("ab{{counter"),
            "column 3: `{{` without its `}}` (write `\\{{` to send two braces)"
        );
        assert_eq!(
            error("{{random:9..1}}"),
            "column 1: the range 9..1 is empty: its first number is the larger one"
        );
        assert_eq!(
            error("{{random}}"),
            "column 1: `` is no range such as 1..100"
        );
        assert!(error("{{counter}}{{letters:0}}").starts_with("column 12: `0` is no number"));
        assert!(error("{{letters:99999999999999999999}}").contains("from 1 to 1048576"));
        assert!(error("{{counter:2}}").contains("takes no argument"));
        assert!(error("{{}}").contains("is no place"));
    }

    #[test]
    fn only_templates_without_places_are_literal() {
        let parse = |text| Template::parse(text).expect("parses");
        assert!(parse("abc").is_literal() && parse("").is_literal());
        assert!(!parse("a{{counter}}").is_literal());
        assert!(parse("").is_empty() && !parse("{{counter}}").is_empty());
    }

    proptest::proptest! {
        #[test]
        fn prop_escaped_text_renders_as_it_was(text in "[a-z{}\\\\é]{0,40}") {
            // Escape as the module's doc says: a backslash in front of each pair of braces, and
            // one more for a run of backslashes before them.
            let mut escaped = String::new();
            let mut rest = text.as_str();
            while let Some(open) = rest.find("{{") {
                let slashes = rest[..open].bytes().rev().take_while(|b| *b == b'\\').count();
                proptest::prop_assume!(slashes == 0);
                escaped.push_str(&rest[..open]);
                escaped.push_str("\\{{");
                rest = &rest[open + 2..];
            }
            escaped.push_str(rest);
            proptest::prop_assert_eq!(rendered(&escaped, 1), text);
        }

        #[test]
        fn prop_no_text_makes_the_parser_panic(text in "(\\{\\{|\\}\\}|[a-z:.0-9\\\\é]){0,12}") {
            let _ = Template::parse(&text);
        }
    }
}
