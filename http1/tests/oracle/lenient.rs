//! Servers behind a proxy read more than they should. Here is one with every leniency that request
//! smuggling was ever done with, each to be had alone: of a message that we take, none of them may
//! find another end.

use ballast_http1::BodyLength;

/// What a lenient reader lets pass.
#[derive(Debug, Clone, Copy)]
struct Leniency(u8);

impl Leniency {
    /// A line ends at a line feed, whatever comes before it.
    fn bare_line_feed(self) -> bool {
        self.0 & 1 != 0
    }
    /// A line ends at a carriage return.
    fn bare_return(self) -> bool {
        self.0 & 2 != 0
    }
    /// Blanks and controls before the colon, and around values, do not count.
    fn trims_more(self) -> bool {
        self.0 & 4 != 0
    }
    /// An underscore is a hyphen.
    fn underscores(self) -> bool {
        self.0 & 8 != 0
    }
    /// Of several lengths the last one counts, not the first.
    fn last_length(self) -> bool {
        self.0 & 16 != 0
    }
    /// Transfer-Encoding counts if it holds the word anywhere; otherwise only if it is the word.
    fn chunked_anywhere(self) -> bool {
        self.0 & 32 != 0
    }
    /// Content-Length wins over Transfer-Encoding.
    fn length_wins(self) -> bool {
        self.0 & 64 != 0
    }
    /// A number is read as C does: base by prefix, up to the first other character.
    fn numbers_to_the_first_other(self) -> bool {
        self.0 & 128 != 0
    }
}

/// Holds every mixture of leniencies against the end that we found.
pub fn hold(bytes: &[u8], head: usize, body: BodyLength) {
    for mixture in 0..=255 {
        let lenient = Leniency(mixture);
        let read = read(bytes, lenient);
        assert_eq!(read, Some((head, body)), "{lenient:?}");
    }
}

/// Where the head ends, and where the body does.
fn read(bytes: &[u8], lenient: Leniency) -> Option<(usize, BodyLength)> {
    let mut lines = Vec::new();
    let mut at = 0;
    loop {
        let (line, next) = line(bytes, at, lenient)?;
        at = next;
        if !line.is_empty() {
            lines.push(line);
        } else if !lines.is_empty() {
            break;
        }
    }
    let (mut lengths, mut codings) = (Vec::new(), Vec::new());
    for line in &lines[1..] {
        let Some(colon) = line.iter().position(|&b| b == b':') else {
            continue;
        };
        let (mut name, mut value) = (
            line[..colon].to_ascii_lowercase(),
            line[colon + 1..].to_vec(),
        );
        let junk = |b: u8| {
            if lenient.trims_more() {
                b <= b' ' || b == 0x7f
            } else {
                b == b' ' || b == b'\t'
            }
        };
        value = trim(value, junk);
        if lenient.trims_more() {
            name = trim(name, junk);
        }
        if lenient.underscores() {
            name.iter_mut()
                .filter(|b| **b == b'_')
                .for_each(|b| *b = b'-');
        }
        match name.as_slice() {
            b"content-length" => lengths.push(value),
            b"transfer-encoding" => codings.push(value.to_ascii_lowercase()),
            _ => {}
        }
    }
    let is_chunked = |coding: &Vec<u8>| {
        let anywhere = coding.windows(7).any(|word| word == b"chunked");
        coding == b"chunked" || (lenient.chunked_anywhere() && anywhere)
    };
    let length = if lenient.last_length() {
        lengths.last()
    } else {
        lengths.first()
    };
    let length = length.map(|length| number(length, lenient));
    let chunked = codings.iter().any(is_chunked);
    let body = match (length, chunked) {
        (Some(length), true) if lenient.length_wins() => BodyLength::Length(length?),
        (_, true) => BodyLength::Chunked,
        (Some(length), false) => BodyLength::Length(length?),
        (None, false) => BodyLength::None,
    };
    Some((at, body))
}

fn line(bytes: &[u8], start: usize, lenient: Leniency) -> Option<(&[u8], usize)> {
    let mut at = start;
    loop {
        match bytes.get(at..)? {
            [b'\r', b'\n', ..] => return Some((&bytes[start..at], at + 2)),
            [b'\n', ..] if lenient.bare_line_feed() => return Some((&bytes[start..at], at + 1)),
            [b'\r', ..] if lenient.bare_return() => return Some((&bytes[start..at], at + 1)),
            [] => return None,
            _ => at += 1,
        }
    }
}

fn trim(mut bytes: Vec<u8>, junk: impl Fn(u8) -> bool) -> Vec<u8> {
    while bytes.last().is_some_and(|&b| junk(b)) {
        bytes.pop();
    }
    let start = bytes.iter().position(|&b| !junk(b)).unwrap_or(bytes.len());
    bytes.split_off(start)
}

/// As `strtol` reads it: a prefix tells the base, and it ends at the first other character.
fn number(text: &[u8], lenient: Leniency) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    if !lenient.numbers_to_the_first_other() {
        return text.parse().ok();
    }
    let text = text.trim_start_matches('+');
    let (digits, base) = match text.as_bytes() {
        [b'0', b'x', ..] => (&text[2..], 16),
        [b'0', _, ..] => (&text[1..], 8),
        _ => (text, 10),
    };
    let end = digits
        .find(|c: char| !c.is_digit(base))
        .unwrap_or(digits.len());
    u64::from_str_radix(&digits[..end], base).ok()
}
