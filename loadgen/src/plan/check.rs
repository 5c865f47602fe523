//! What a response must be like, and whether one was.

use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::record::ErrorClass;

/// Statuses that can be told apart: three digits.
const STATUSES: u16 = 1000;

/// What a response must be like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Check {
    /// Its status is one of these; without such a check, below 400.
    Status(Vec<u16>),
    /// Its body contains these bytes.
    BodyContains(Vec<u8>),
    /// It has this header (lowercase), containing this value.
    Header {
        /// Its name, lowercase.
        name: String,
        /// What its value contains; empty asks only that it is there.
        contains: String,
    },
    /// Its body has this many bytes.
    BodyBytes(u64),
}

/// A check that does not parse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCheck {
    /// None of the forms.
    #[error(
        "`{0}` is no check: write statuses (200,204,3xx), body~TEXT, header:NAME, \
         header:NAME~TEXT or bytes=N"
    )]
    Form(String),
    /// Not a status.
    #[error("`{0}` is no status such as 200 or 3xx")]
    Status(String),
    /// No name, or one that no header can have.
    #[error("`{0}` is no header name")]
    Header(String),
    /// Not a number of bytes.
    #[error("`{0}` is no number of bytes")]
    Bytes(String),
    /// Every body contains it.
    #[error("body~ needs the text that the body is to contain")]
    EmptyBody,
}

impl FromStr for Check {
    type Err = InvalidCheck;

    fn from_str(text: &str) -> Result<Self, InvalidCheck> {
        if let Some(needle) = text.strip_prefix("body~") {
            if needle.is_empty() {
                return Err(InvalidCheck::EmptyBody);
            }
            return Ok(Self::BodyContains(needle.into()));
        }
        if let Some(header) = text.strip_prefix("header:") {
            let (name, contains) = header.split_once('~').unwrap_or((header, ""));
            let name: http::HeaderName = name
                .trim()
                .parse()
                .map_err(|_| InvalidCheck::Header(name.to_owned()))?;
            return Ok(Self::Header {
                name: name.as_str().to_owned(),
                contains: contains.to_owned(),
            });
        }
        if let Some(bytes) = text.strip_prefix("bytes=") {
            return match bytes.parse() {
                Ok(bytes) => Ok(Self::BodyBytes(bytes)),
                Err(_) => Err(InvalidCheck::Bytes(bytes.to_owned())),
            };
        }
        let statuses = text.strip_prefix("status=").unwrap_or(text);
        if !statuses.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(InvalidCheck::Form(text.to_owned()));
        }
        let mut all = Vec::new();
        for one in statuses.split(',') {
            all.extend(status_range(one.trim())?);
        }
        Ok(Self::Status(all))
    }
}

fn status_range(text: &str) -> Result<std::ops::RangeInclusive<u16>, InvalidCheck> {
    let bad = || InvalidCheck::Status(text.to_owned());
    if text.len() != 3 {
        return Err(bad());
    }
    let range = if let Some(first) = text.strip_suffix("xx") {
        let first: u16 = first.parse().map_err(|_| bad())?;
        first * 100..=first * 100 + 99
    } else {
        let status = text.parse().map_err(|_| bad())?;
        status..=status
    };
    if *range.start() < 100 {
        return Err(bad());
    }
    Ok(range)
}

/// Holds the checks against one response at a time; each connection or stream has a clone.
///
/// For each response: [`Checker::begin`], [`Checker::body`] for each piece, [`Checker::end`].
#[derive(Debug, Clone)]
pub struct Checker {
    rules: Arc<Rules>,
    status: u16,
    headers_hold: bool,
    body_bytes: u64,
    /// How much of each needle the body seen so far ends with; all of it once it was found.
    matched: Vec<usize>,
}

#[derive(Debug)]
struct Rules {
    /// A bit for each status that is taken.
    statuses: [u64; STATUSES.div_ceil(64) as usize],
    headers: Vec<(String, String)>,
    needles: Vec<Needle>,
    body_bytes: Option<u64>,
    /// Two checks that no body meets both.
    impossible: bool,
}

/// Bytes to find in a stream, after Knuth, Morris and Pratt: no byte is looked at twice, nothing
/// is kept between pieces but one number.
#[derive(Debug)]
struct Needle {
    bytes: Vec<u8>,
    /// For each prefix, the length of its longest proper prefix that is a suffix, too.
    borders: Vec<usize>,
}

impl Needle {
    fn new(bytes: &[u8]) -> Self {
        let mut borders = vec![0; bytes.len()];
        let mut border = 0;
        for at in 1..bytes.len() {
            while border > 0 && bytes[at] != bytes[border] {
                border = borders[border - 1];
            }
            border += usize::from(bytes[at] == bytes[border]);
            borders[at] = border;
        }
        Self {
            bytes: bytes.to_vec(),
            borders,
        }
    }

    fn advance(&self, matched: usize, piece: &[u8]) -> usize {
        let mut matched = matched;
        for byte in piece {
            if matched == self.bytes.len() {
                break;
            }
            while matched > 0 && *byte != self.bytes[matched] {
                matched = self.borders[matched - 1];
            }
            matched += usize::from(*byte == self.bytes[matched]);
        }
        matched
    }
}

impl Rules {
    fn new(checks: &[Check]) -> Self {
        let mut rules = Self {
            statuses: [0; _],
            headers: Vec::new(),
            needles: Vec::new(),
            body_bytes: None,
            impossible: false,
        };
        let mut any_status = false;
        for check in checks {
            match check {
                Check::Status(statuses) => {
                    any_status = true;
                    for status in statuses {
                        rules.take(*status);
                    }
                }
                Check::BodyContains(bytes) => rules.needles.push(Needle::new(bytes)),
                Check::Header { name, contains } => {
                    rules.headers.push((name.clone(), contains.clone()));
                }
                Check::BodyBytes(bytes) => {
                    rules.impossible |= rules.body_bytes.is_some_and(|other| other != *bytes);
                    rules.body_bytes = Some(*bytes);
                }
            }
        }
        if !any_status {
            (0..400).for_each(|status| rules.take(status));
        }
        rules
    }

    fn take(&mut self, status: u16) {
        if let Some(word) = self.statuses.get_mut(usize::from(status / 64)) {
            *word |= 1 << (status % 64);
        }
    }

    fn takes(&self, status: u16) -> bool {
        self.statuses
            .get(usize::from(status / 64))
            .is_some_and(|word| word >> (status % 64) & 1 == 1)
    }
}

impl Checker {
    /// Returns a checker of `checks`; without a check of the status, it must be below 400.
    pub fn new(checks: &[Check]) -> Self {
        let rules = Rules::new(checks);
        Self {
            matched: vec![0; rules.needles.len()],
            rules: Arc::new(rules),
            status: 0,
            headers_hold: true,
            body_bytes: 0,
        }
    }

    /// Returns whether [`Checker::begin`] looks at headers: if not, it may be given none.
    pub fn wants_headers(&self) -> bool {
        !self.rules.headers.is_empty()
    }

    /// Returns whether [`Checker::body`] does anything: if not, it need not be called.
    pub fn wants_body(&self) -> bool {
        self.rules.body_bytes.is_some() || !self.rules.needles.is_empty()
    }

    /// Takes the head of a response. A name may be in any case; interim responses (1xx) are not
    /// to be given.
    pub fn begin<'a>(
        &mut self,
        status: u16,
        headers: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    ) {
        self.status = status;
        self.headers_hold = true;
        self.body_bytes = 0;
        self.matched.fill(0);
        if self.wants_headers() {
            self.headers(headers);
        }
    }

    fn headers<'a>(&mut self, headers: impl IntoIterator<Item = (&'a str, &'a [u8])>) {
        let mut held = vec![false; self.rules.headers.len()];
        for (name, value) in headers {
            for ((wanted, contains), held) in self.rules.headers.iter().zip(&mut held) {
                *held |= name.eq_ignore_ascii_case(wanted) && found(contains.as_bytes(), value);
            }
        }
        self.headers_hold = held.iter().all(|held| *held);
    }

    /// Takes the next piece of its body.
    pub fn body(&mut self, piece: &[u8]) {
        self.body_bytes += piece.len() as u64;
        for (needle, matched) in self.rules.needles.iter().zip(&mut self.matched) {
            *matched = needle.advance(*matched, piece);
        }
    }

    /// Returns which check the response did not pass, for a failure of `class`.
    pub fn why(&self, class: ErrorClass) -> Option<String> {
        let rules = &self.rules;
        match class {
            ErrorClass::Status => Some(format!("the status was {}", self.status)),
            ErrorClass::Check if !self.headers_hold => {
                let wanted = rules.headers.iter().map(|(name, _)| &name[..]);
                let wanted = wanted.collect::<Vec<_>>().join(", ");
                Some(format!("a header was missing, or not as asked ({wanted})"))
            }
            ErrorClass::Check => {
                let missing = rules.needles.iter().zip(&self.matched);
                let mut missing =
                    missing.filter(|(needle, matched)| **matched < needle.bytes.len());
                Some(match missing.next() {
                    Some((needle, _)) => format!(
                        "the body did not contain `{}`",
                        String::from_utf8_lossy(&needle.bytes)
                    ),
                    None => format!("the body had {} bytes", self.body_bytes),
                })
            }
            _ => None,
        }
    }

    /// Returns whether the response was as it must be.
    ///
    /// # Errors
    /// [`ErrorClass::Status`] for a status that is not taken, else [`ErrorClass::Check`].
    pub fn end(&self) -> Result<(), ErrorClass> {
        if !self.rules.takes(self.status) {
            return Err(ErrorClass::Status);
        }
        let rules = &self.rules;
        let bodies_hold = !rules.impossible
            && rules
                .body_bytes
                .is_none_or(|bytes| bytes == self.body_bytes)
            && rules
                .needles
                .iter()
                .zip(&self.matched)
                .all(|(needle, matched)| *matched == needle.bytes.len());
        if self.headers_hold && bodies_hold {
            Ok(())
        } else {
            Err(ErrorClass::Check)
        }
    }
}

fn found(needle: &[u8], text: &[u8]) -> bool {
    needle.is_empty() || text.windows(needle.len()).any(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_check_is_named() {
        let why = |checks: &[&str], class| {
            let mut checker = checker(checks);
            checker.begin(404, [("content-type", &b"text/plain"[..])]);
            checker.body(b"hello");
            assert_eq!(checker.end(), Err(class));
            checker.why(class).expect("is told")
        };
        let check = ErrorClass::Check;
        assert_eq!(
            why(&["404", "body~bye"], check),
            "the body did not contain `bye`"
        );
        assert_eq!(why(&["404", "bytes=4"], check), "the body had 5 bytes");
        let header = why(&["404", "header:content-type~json"], check);
        assert!(header.contains("content-type"), "{header}");
        assert_eq!(why(&["200"], ErrorClass::Status), "the status was 404");
    }

    fn checker(checks: &[&str]) -> Checker {
        let checks: Vec<Check> = checks
            .iter()
            .map(|text| text.parse().expect("parses"))
            .collect();
        Checker::new(&checks)
    }

    fn verdict(checker: &mut Checker, status: u16, body: &[&str]) -> Result<(), ErrorClass> {
        checker.begin(status, [("Server", &b"nginx/1.2"[..]), ("X-A", b"b")]);
        for piece in body {
            checker.body(piece.as_bytes());
        }
        checker.end()
    }

    #[test]
    fn without_checks_every_status_below_400_holds() {
        let mut none = checker(&[]);
        assert!(!none.wants_body() && !none.wants_headers());
        assert_eq!(verdict(&mut none, 200, &["x"]), Ok(()));
        assert_eq!(verdict(&mut none, 399, &[]), Ok(()));
        assert_eq!(verdict(&mut none, 400, &[]), Err(ErrorClass::Status));
        assert_eq!(verdict(&mut none, 65_535, &[]), Err(ErrorClass::Status));
    }

    #[test]
    fn statuses_are_lists_and_hundreds() {
        let mut some = checker(&["200,204,3xx"]);
        for (status, holds) in [
            (200, true),
            (201, false),
            (204, true),
            (300, true),
            (399, true),
            (404, false),
        ] {
            assert_eq!(verdict(&mut some, status, &[]).is_ok(), holds, "{status}");
        }
        assert_eq!(verdict(&mut checker(&["status=404"]), 404, &[]), Ok(()));
    }

    #[test]
    fn body_is_searched_across_its_pieces() {
        let mut some = checker(&["body~aab"]);
        assert_eq!(verdict(&mut some, 200, &["xa", "aa", "b"]), Ok(()));
        assert_eq!(
            verdict(&mut some, 200, &["aa", "ca", "b"]),
            Err(ErrorClass::Check)
        );
        assert_eq!(verdict(&mut some, 200, &["aab", "zzz"]), Ok(()), "forgets");
        assert_eq!(verdict(&mut some, 500, &["aab"]), Err(ErrorClass::Status));
    }

    #[test]
    fn headers_are_found_in_any_case_and_by_part_of_their_value() {
        assert_eq!(
            verdict(&mut checker(&["header:server~nginx"]), 200, &[]),
            Ok(())
        );
        assert_eq!(verdict(&mut checker(&["header:X-a"]), 200, &[]), Ok(()));
        for bad in [
            &["header:X-a~c"][..],
            &["header:X-B"],
            &["header:X-a", "header:nope"],
        ] {
            assert_eq!(
                verdict(&mut checker(bad), 200, &[]),
                Err(ErrorClass::Check),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn length_of_the_body_is_counted() {
        let mut some = checker(&["bytes=4"]);
        assert_eq!(verdict(&mut some, 200, &["ab", "cd"]), Ok(()));
        assert_eq!(verdict(&mut some, 200, &["ab"]), Err(ErrorClass::Check));
        assert!(verdict(&mut checker(&["bytes=1", "bytes=2"]), 200, &["ab"]).is_err());
    }

    #[test]
    fn what_is_no_check_is_refused_with_the_forms() {
        for bad in [
            "",
            "20",
            "2000",
            "099",
            "0xx",
            "2x0",
            "200,",
            "200,abc",
            "bytes=",
            "bytes=-1",
            "header:",
            "header:a b",
            "body~",
            "boddy~x",
        ] {
            assert!(bad.parse::<Check>().is_err(), "{bad}");
        }
        let error = "boddy~x".parse::<Check>().expect_err("refused").to_string();
        assert!(error.contains("body~TEXT"), "{error}");
    }

    proptest::proptest! {
        #[test]
        fn prop_search_in_pieces_finds_what_search_in_the_whole_finds(
            needle in "[ab]{1,5}",
            pieces in proptest::collection::vec("[ab]{0,4}", 0..8),
        ) {
            let mut checker = Checker::new(&[Check::BodyContains(needle.clone().into())]);
            checker.begin(200, []);
            for piece in &pieces {
                checker.body(piece.as_bytes());
            }
            proptest::prop_assert_eq!(checker.end().is_ok(), pieces.concat().contains(&needle));
        }
    }
}
