//! Scans the head of an HTTP/1.x response where it lies, for what decides how its body ends.
//!
//! httparse would fill a table of all headers; of these only three matter here, and the rest is
//! looked at again only if the plan checks headers.

use super::fault::Fault;

/// Header lines of one response; past it the answer is a fault.
pub const HEADERS: usize = 256;
/// Bytes of a head that is remembered.
const MEMO_BYTES: usize = 4096;
/// Bytes of a header's name.
const NAME_BYTES: usize = 1024;
/// What every head begins with, the digit after it aside.
const VERSION: &[u8] = b"HTTP/1.";
/// Bytes of the status line up to the end of the code.
const CODE_END: usize = 12;

/// How a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// After this many bytes.
    Length(u64),
    /// With the last chunk.
    Chunked,
    /// With the connection.
    UntilClose,
}

/// What a head says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Its bytes, the empty line included.
    pub bytes: usize,
    /// The status.
    pub status: u16,
    /// How the body ends, if there may be one.
    pub framing: Framing,
    /// Whether the peer keeps the connection open.
    pub keep_alive: bool,
}

/// A scan under way; it goes on where it stopped, so that a head that drips in does not cost the
/// square of its length.
#[derive(Debug, Clone, Copy)]
pub struct Scan {
    /// Where the next line begins; 0 before the status line.
    at: usize,
    lines: usize,
    status: u16,
    length: Option<u64>,
    chunked: bool,
    other_coding: bool,
    keep_alive: bool,
}

impl Scan {
    /// Returns a scan of nothing yet.
    pub const fn new() -> Self {
        Self {
            at: 0,
            lines: 0,
            status: 0,
            length: None,
            chunked: false,
            other_coding: false,
            keep_alive: true,
        }
    }

    /// Returns the head that `bytes` begin with; none if more bytes are needed. They begin with
    /// those of the calls before.
    ///
    /// # Errors
    /// [`Fault`] if these bytes, whatever follows, begin no response.
    pub fn advance(&mut self, bytes: &[u8]) -> Result<Option<Head>, Fault> {
        if self.at == 0 {
            let Some((minor, status)) = status_line(bytes)? else {
                return Ok(None);
            };
            let Some(end) = memchr::memchr(b'\n', &bytes[CODE_END..]) else {
                return Ok(None);
            };
            (self.status, self.keep_alive) = (status, minor == b'1');
            self.at = CODE_END + end + 1;
        }
        loop {
            match bytes.get(self.at) {
                None => return Ok(None),
                Some(b'\n') => return self.head(self.at + 1).map(Some),
                Some(b'\r') => match bytes.get(self.at + 1) {
                    None => return Ok(None),
                    Some(b'\n') => return self.head(self.at + 2).map(Some),
                    Some(_) => return Err(Fault::HeaderLine),
                },
                Some(_) => {}
            }
            let Some(length) = self.line(&bytes[self.at..])? else {
                return Ok(None);
            };
            self.at += length;
            self.lines += 1;
            if self.lines > HEADERS {
                return Err(Fault::TooManyHeaders);
            }
        }
    }

    /// Takes the line that `bytes` begin with; returns its length, none if it is not whole.
    fn line(&mut self, bytes: &[u8]) -> Result<Option<usize>, Fault> {
        let name = bytes[..bytes.len().min(NAME_BYTES + 1)]
            .iter()
            .position(|byte| !IS_TOKEN[usize::from(*byte)])
            .unwrap_or(bytes.len());
        if name > NAME_BYTES {
            return Err(Fault::HeaderLine);
        }
        match bytes.get(name) {
            None => return Ok(None),
            Some(b':') if name > 0 => {}
            Some(_) => return Err(Fault::HeaderLine),
        }
        let rest = &bytes[name + 1..];
        let Some(end) = memchr::memchr(b'\n', rest) else {
            return Ok(None);
        };
        // The length alone tells nearly all names apart from the three that matter.
        if let 10 | 14 | 17 = name {
            self.field(&bytes[..name], rest[..end].trim_ascii())?;
        }
        Ok(Some(name + 1 + end + 1))
    }

    fn field(&mut self, name: &[u8], value: &[u8]) -> Result<(), Fault> {
        if is(name, b"content-length") {
            let length = decimal(value).ok_or(Fault::ContentLength)?;
            if self.length.is_some_and(|before| before != length) {
                return Err(Fault::ContentLength);
            }
            self.length = Some(length);
        } else if is(name, b"transfer-encoding") {
            let last = tokens(value).last().unwrap_or_default();
            self.chunked = last.eq_ignore_ascii_case(b"chunked");
            self.other_coding = !self.chunked;
        } else if is(name, b"connection") {
            for token in tokens(value) {
                if token.eq_ignore_ascii_case(b"close") {
                    self.keep_alive = false;
                } else if token.eq_ignore_ascii_case(b"keep-alive") {
                    self.keep_alive = true;
                }
            }
        }
        Ok(())
    }

    fn head(&self, bytes: usize) -> Result<Head, Fault> {
        let framing = if self.chunked {
            Framing::Chunked
        } else if let (Some(length), false) = (self.length, self.other_coding) {
            Framing::Length(length)
        } else {
            Framing::UntilClose
        };
        if self.status == 101 {
            // Nobody asked for another protocol.
            return Err(Fault::Upgrade);
        }
        Ok(Head {
            bytes,
            status: self.status,
            framing,
            keep_alive: self.keep_alive,
        })
    }
}

/// Returns the minor version's digit and the code.
fn status_line(bytes: &[u8]) -> Result<Option<(u8, u16)>, Fault> {
    let known = bytes.len().min(VERSION.len());
    if bytes[..known] != VERSION[..known] {
        return Err(Fault::NotHttp);
    }
    let Some(&[minor @ (b'0' | b'1'), b' ', a, b, c, end]) = bytes.get(VERSION.len()..=CODE_END)
    else {
        // What is there of the line must not be wrong already: garbage is told at once.
        return if bytes.len() > CODE_END {
            Err(Fault::StatusLine)
        } else {
            Ok(None)
        };
    };
    let digits = [a, b, c];
    if !digits.iter().all(u8::is_ascii_digit) || a == b'0' || !matches!(end, b' ' | b'\r' | b'\n') {
        return Err(Fault::StatusLine);
    }
    let status = digits
        .iter()
        .fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
    Ok(Some((minor, status)))
}

/// Returns whether a token is this one, in whatever case. The bit makes letters lowercase, and no
/// other byte of a token a letter or a hyphen.
fn is<const N: usize>(name: &[u8], lowercase: &[u8; N]) -> bool {
    <&[u8; N]>::try_from(name).is_ok_and(|name| name.map(|byte| byte | 0x20) == *lowercase)
}

/// The head that came last: a server that is asked the same thing answers with the same head, byte
/// by byte, as long as its clock shows the same second. Comparing costs a tenth of scanning.
#[derive(Debug, Default)]
pub struct Memo {
    bytes: Vec<u8>,
    head: Option<Head>,
}

impl Memo {
    /// Returns the head that `bytes` begin with if it is the one that came last.
    #[inline]
    pub fn get(&self, bytes: &[u8]) -> Option<Head> {
        self.head.filter(|_| bytes.starts_with(&self.bytes))
    }

    /// Keeps the head that `bytes` are.
    pub fn put(&mut self, bytes: &[u8], head: Head) {
        if bytes.len() <= MEMO_BYTES {
            self.bytes.clear();
            self.bytes.extend_from_slice(bytes);
            self.head = Some(head);
        }
    }
}

fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// The header lines of a whole head, for checks.
#[derive(Debug, Clone)]
pub struct Headers<'a>(&'a [u8]);

impl<'a> Headers<'a> {
    /// Returns those of a head that a [`Scan`] has taken.
    pub fn of(head: &'a [u8]) -> Self {
        let line = memchr::memchr(b'\n', head).map_or(head.len(), |end| end + 1);
        Self(&head[line..])
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a str, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let end = memchr::memchr(b'\n', self.0)?;
        let (line, rest) = self.0.split_at(end + 1);
        let colon = memchr::memchr(b':', line)?;
        self.0 = rest;
        // Names are tokens, which are ASCII.
        let name = std::str::from_utf8(&line[..colon]).unwrap_or_default();
        Some((name, line[colon + 1..].trim_ascii()))
    }
}

/// RFC 9110, 5.6.2.
const IS_TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        #[allow(
            clippy::cast_possible_truncation,
            reason = "`u8::try_from` is not const, and the loop ends at 255"
        )]
        let is_token = (byte as u8).is_ascii_alphanumeric()
            || matches!(
                byte as u8,
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
            );
        table[byte] = is_token;
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Result<Option<Head>, Fault> {
        Scan::new().advance(text.as_bytes())
    }

    #[test]
    fn framing_is_what_the_rfc_says() {
        let framing = |lines: &str| {
            head(&format!("HTTP/1.1 200 OK\r\n{lines}\r\n"))
                .expect("scans")
                .expect("is whole")
                .framing
        };
        assert_eq!(framing("Content-Length: 12\r\n"), Framing::Length(12));
        assert_eq!(framing("content-LENGTH:12  \r\n"), Framing::Length(12));
        assert_eq!(framing(""), Framing::UntilClose);
        assert_eq!(framing("Transfer-Encoding: chunked\r\n"), Framing::Chunked);
        assert_eq!(
            framing("Content-Length: 3\r\nTransfer-Encoding: gzip, Chunked\r\n"),
            Framing::Chunked
        );
        assert_eq!(
            framing("Content-Length: 3\r\nTransfer-Encoding: gzip\r\n"),
            Framing::UntilClose
        );
        assert_eq!(framing("Content-Length: 7\nX: y\n"), Framing::Length(7));
    }

    #[test]
    fn connection_is_kept_as_version_and_header_say() {
        let kept = |version: &str, lines: &str| {
            head(&format!("HTTP/{version} 200 OK\r\n{lines}\r\n"))
                .expect("scans")
                .expect("is whole")
                .keep_alive
        };
        assert!(kept("1.1", ""));
        assert!(!kept("1.0", ""));
        assert!(kept("1.0", "Connection: Keep-Alive\r\n"));
        assert!(!kept("1.1", "connection: foo, close\r\n"));
    }

    #[test]
    fn what_is_wrong_is_told_as_soon_as_it_is_seen() {
        for (text, fault) in [
            ("SSH-2.0-Open", Fault::NotHttp),
            ("H2", Fault::NotHttp),
            ("HTTP/2.0 200 OK\r\n", Fault::NotHttp),
            ("HTTP/1.7 200 OK\r\n", Fault::StatusLine),
            ("HTTP/1.1 20 OK\r\n", Fault::StatusLine),
            ("HTTP/1.1 2000 OK", Fault::StatusLine),
            ("HTTP/1.1 200 OK\r\nno colon\r\n", Fault::HeaderLine),
            ("HTTP/1.1 200 OK\r\n: empty\r\n", Fault::HeaderLine),
            ("HTTP/1.1 200 OK\r\nA : b\r\n", Fault::HeaderLine),
            ("HTTP/1.1 200 OK\r\n\rX", Fault::HeaderLine),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n",
                Fault::ContentLength,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: \r\n",
                Fault::ContentLength,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n",
                Fault::ContentLength,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n",
                Fault::ContentLength,
            ),
            ("HTTP/1.1 101 Upgrade\r\n\r\n", Fault::Upgrade),
        ] {
            assert_eq!(head(text), Err(fault), "{text:?}");
        }
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(HEADERS + 1));
        assert_eq!(head(&many), Err(Fault::TooManyHeaders));
    }

    #[test]
    fn every_prefix_of_a_head_asks_for_more() {
        let text = "HTTP/1.1 200 OK\r\nContent-Length: 12\r\nConnection: close\r\n\r\n";
        for end in 0..text.len() {
            assert_eq!(head(&text[..end]), Ok(None), "{end}");
        }
        assert_eq!(
            head(text).expect("scans").expect("is whole").bytes,
            text.len()
        );
    }

    #[test]
    fn headers_are_given_trimmed() {
        let head = b"HTTP/1.1 200 OK\r\nA:  b c \r\nD:\r\n\r\n";
        let all: Vec<_> = Headers::of(head).collect();
        assert_eq!(all, [("A", &b"b c"[..]), ("D", b"")]);
    }
}
