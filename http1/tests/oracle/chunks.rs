//! A chunked body, decoded in one go: lines split off, each looked at as a whole.

use ballast_http1::Limits;
use ballast_http1::limits::CHUNK_EXCESS_BYTES;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Whole { payload: Vec<u8>, length: usize },
    Unfinished,
    Refused,
}

/// A line: its bytes and what follows its end. Some(None): it has not ended.
type Line<'a> = Option<(&'a [u8], &'a [u8])>;

fn line(bytes: &[u8]) -> Result<Line<'_>, ()> {
    let Some(end) = bytes.iter().position(|&b| b == b'\r' || b == b'\n') else {
        return Ok(None);
    };
    match &bytes[end..] {
        [b'\r'] => Ok(None),
        [b'\r', b'\n', rest @ ..] => Ok(Some((&bytes[..end], rest))),
        _ => Err(()),
    }
}

/// The bytes before the first that ends a line: what is known of a line that has not ended.
fn unfinished(bytes: &[u8]) -> &[u8] {
    bytes.strip_suffix(b"\r").unwrap_or(bytes)
}

pub fn decode(bytes: &[u8]) -> Verdict {
    let limits = Limits::default();
    let mut payload = Vec::new();
    let mut rest = bytes;
    let mut excess = 0_i64;
    loop {
        let (text, after) = match line(rest) {
            Err(()) => return Verdict::Refused,
            Ok(None) => {
                let text = unfinished(rest);
                let is_whole = text.len() < rest.len();
                let fits = rest.len() <= limits.chunk_line_bytes;
                let good = fits && (is_prefix(text) && !is_whole || size(text).is_some());
                return if good {
                    Verdict::Unfinished
                } else {
                    Verdict::Refused
                };
            }
            Ok(Some(line)) => line,
        };
        let Some(size) = size(text) else {
            return Verdict::Refused;
        };
        let line_bytes = text.len() + 2;
        excess = excess + i64::try_from(line_bytes).unwrap() + 2 - 16;
        excess = excess
            .saturating_sub(i64::try_from(size).unwrap().saturating_mul(2))
            .max(0);
        if line_bytes > limits.chunk_line_bytes || excess > i64::from(CHUNK_EXCESS_BYTES) {
            return Verdict::Refused;
        }
        if size == 0 {
            return trailer(bytes, after, payload, &limits);
        }
        let size = usize::try_from(size).unwrap();
        if after.len() <= size {
            return Verdict::Unfinished;
        }
        payload.extend_from_slice(&after[..size]);
        rest = match &after[size..] {
            [b'\r'] => return Verdict::Unfinished,
            [b'\r', b'\n', rest @ ..] => rest,
            _ => return Verdict::Refused,
        };
    }
}

/// The size that a chunk's line tells, if all of the line is as it should be.
fn size(text: &[u8]) -> Option<u64> {
    let text = latin(text);
    let (digits, extensions) = text
        .split_once(';')
        .map_or((text.as_str(), None), |(a, b)| (a, Some(b)));
    let size = hex(digits)?;
    extensions.is_none_or(are_extensions).then_some(size)
}

fn hex(digits: &str) -> Option<u64> {
    if digits.is_empty() || digits.len() > 16 || !digits.chars().all(|c| c.is_ascii_hexdigit()) {
        return None;
    }
    let size = u64::from_str_radix(digits, 16).ok()?;
    i64::try_from(size).ok().map(|_| size)
}

/// Each byte its own character, so that nothing is lost.
fn latin(bytes: &[u8]) -> String {
    bytes.iter().map(|&b| char::from(b)).collect()
}

fn is_token(text: &str) -> bool {
    let may = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    !text.is_empty() && text.chars().all(may)
}

/// What follows the first `;`: names, and values that are tokens or quoted.
fn are_extensions(mut text: &str) -> bool {
    loop {
        let end = text.find(['=', ';']).unwrap_or(text.len());
        if !is_token(&text[..end]) {
            return false;
        }
        text = &text[end..];
        if let Some(value) = text.strip_prefix('=') {
            text = match value.strip_prefix('"') {
                Some(quoted) => match after_quoted(quoted) {
                    Some(rest) => rest,
                    None => return false,
                },
                None => {
                    let end = value.find(';').unwrap_or(value.len());
                    if !is_token(&value[..end]) {
                        return false;
                    }
                    &value[end..]
                }
            };
        }
        match text.strip_prefix(';') {
            Some(rest) => text = rest,
            None => return text.is_empty(),
        }
    }
}

fn after_quoted(text: &str) -> Option<&str> {
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some(&text[at + 1..]),
            '\\' => {
                let (_, escaped) = chars.next()?;
                printable(escaped).then_some(())?;
            }
            c => printable(c).then_some(())?,
        }
    }
    None
}

fn printable(c: char) -> bool {
    c == '\t' || !c.is_ascii_control()
}

/// Whether a line that begins so may still become a good one: some ending makes it one.
fn is_prefix(text: &[u8]) -> bool {
    let endings: [&[u8]; 8] = [b"", b"0", b"a", b"=a", b"\"", b"a\"", b";a", b"0;a"];
    endings.iter().any(|ending| {
        let mut whole = text.to_vec();
        whole.extend_from_slice(ending);
        size(&whole).is_some()
    })
}

fn trailer(bytes: &[u8], start: &[u8], payload: Vec<u8>, limits: &Limits) -> Verdict {
    let mut rest = start;
    let mut fields = 0;
    loop {
        let (text, after) = match line(rest) {
            Err(()) => return Verdict::Refused,
            Ok(None) => {
                let text = unfinished(rest);
                let ended = text.len() < rest.len();
                let count = fields + usize::from(!text.is_empty());
                let read = start.len();
                let fits = read <= limits.trailer_bytes || (ended && text.is_empty());
                let good = (text.is_empty() || begins_field(text, ended)) && count <= limits.fields;
                return if good && fits {
                    Verdict::Unfinished
                } else {
                    Verdict::Refused
                };
            }
            Ok(Some(line)) => line,
        };
        if text.is_empty() {
            let length = bytes.len() - after.len();
            return Verdict::Whole { payload, length };
        }
        fields += 1;
        let read = start.len() - after.len();
        if fields > limits.fields || read > limits.trailer_bytes || !begins_field(text, true) {
            return Verdict::Refused;
        }
        rest = after;
    }
}

/// Whether a trailer field begins with this text, or, if it has ended, is it.
fn begins_field(text: &[u8], ended: bool) -> bool {
    let text = latin(text);
    match text.split_once(':') {
        None => !ended && is_token(&text),
        Some((name, value)) => {
            is_token(name) && !is_forbidden(name) && value.chars().all(printable)
        }
    }
}

fn is_forbidden(name: &str) -> bool {
    const FORBIDDEN: &str = " authorization cache-control connection content-encoding \
        content-length content-range content-type cookie expect forwarded host http2-settings \
        keep-alive location max-forwards proxy-authenticate proxy-authorization proxy-connection \
        range set-cookie te trailer transfer-encoding upgrade vary x-forwarded-for \
        x-forwarded-host x-forwarded-port x-forwarded-proto x-real-ip ";
    FORBIDDEN.contains(&format!(" {} ", name.to_ascii_lowercase()))
}
