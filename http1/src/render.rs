//! Heads to be sent: each function appends a part of one.
//!
//! What is appended is taken as it is. Names, values and targets come from a head that was read, or
//! from a config that was validated; [`is_name`] and [`is_value`] are there to validate it.

use crate::method::Method;
use crate::scan;

/// The empty line that ends a head.
pub const END: &[u8] = b"\r\n";

/// The answer to an `Expect: 100-continue`.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Whether this is a field's name.
pub fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|&byte| scan::is_token(byte))
}

/// Whether this is a field's value: no control character but the tab, no blank at either end.
pub fn is_value(value: &[u8]) -> bool {
    value.iter().all(|&byte| scan::is_value(byte)) && scan::trim(value).len() == value.len()
}

/// Appends a request line, HTTP/1.1.
pub fn request_line(out: &mut Vec<u8>, method: Method<'_>, path: &str, query: Option<&str>) {
    out.extend_from_slice(method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(path.as_bytes());
    if let Some(query) = query {
        out.push(b'?');
        out.extend_from_slice(query.as_bytes());
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
}

/// Appends a status line, HTTP/1.1.
pub fn status_line(out: &mut Vec<u8>, status: u16, reason: &[u8]) {
    out.extend_from_slice(b"HTTP/1.1 ");
    decimal(out, u64::from(status));
    out.push(b' ');
    out.extend_from_slice(reason);
    out.extend_from_slice(b"\r\n");
}

/// Appends a field line.
pub fn field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Appends a Content-Length line.
pub fn content_length(out: &mut Vec<u8>, length: u64) {
    out.extend_from_slice(b"content-length: ");
    decimal(out, length);
    out.extend_from_slice(b"\r\n");
}

/// Appends the line that says that the body is chunked.
pub fn chunked(out: &mut Vec<u8>) {
    out.extend_from_slice(b"transfer-encoding: chunked\r\n");
}

/// Appends the line before a chunk of so many bytes (which are followed by a line end), or, of none,
/// before the trailer.
pub fn chunk_size(out: &mut Vec<u8>, size: usize) {
    let mut digits = [0; 16];
    let mut at = digits.len();
    let mut left = size;
    loop {
        at -= 1;
        digits[at] = b"0123456789abcdef"[left & 15];
        left >>= 4;
        if left == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
    out.extend_from_slice(b"\r\n");
}

/// Appends a number in decimal digits.
pub fn decimal(out: &mut Vec<u8>, number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut left = number;
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(left % 10).expect("one digit");
        left /= 10;
        if left == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// The words of a status (RFC 9110, 15); empty for one without.
pub fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        511 => "Network Authentication Required",
        _ => "",
    }
}

/// The Date of answers, put together once a second.
#[derive(Debug, Clone)]
pub struct Date {
    second: u64,
    text: [u8; DATE_BYTES],
}

/// Bytes of a date: `Sun, 06 Nov 1994 08:49:37 GMT`.
pub const DATE_BYTES: usize = 29;

impl Default for Date {
    fn default() -> Self {
        Self {
            second: 0,
            text: date_text(0),
        }
    }
}

impl Date {
    /// The date of so many seconds after the epoch, as a Date field has it.
    pub fn at(&mut self, unix_seconds: u64) -> &[u8; DATE_BYTES] {
        if self.second != unix_seconds {
            (self.second, self.text) = (unix_seconds, date_text(unix_seconds));
        }
        &self.text
    }
}

/// From days to a date: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
fn date_text(unix_seconds: u64) -> [u8; DATE_BYTES] {
    const DAYS: [&[u8; 3]; 7] = [b"Thu", b"Fri", b"Sat", b"Sun", b"Mon", b"Tue", b"Wed"];
    const MONTHS: [&[u8; 3]; 12] = [
        b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov",
        b"Dec",
    ];
    let (days, time) = (unix_seconds / 86_400, unix_seconds % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = (shifted_month + 2) % 12;
    let year = era * 400 + year_of_era + u64::from(month < 2);

    let mut text = *b"Thu, 01 Jan 1970 00:00:00 GMT";
    let index = |number: u64| usize::try_from(number).expect("a small number");
    text[..3].copy_from_slice(DAYS[index(days % 7)]);
    text[8..11].copy_from_slice(MONTHS[index(month)]);
    let mut put = |at: usize, number: u64| {
        text[at] = b'0' + u8::try_from(number / 10 % 10).expect("one digit");
        text[at + 1] = b'0' + u8::try_from(number % 10).expect("one digit");
    };
    put(5, day);
    put(12, year / 100);
    put(14, year);
    put(17, time / 3_600);
    put(20, time / 60 % 60);
    put(23, time % 60);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let mut date = Date::default();
        let mut text = |seconds| String::from_utf8(date.at(seconds).to_vec()).unwrap();
        assert_eq!(text(0), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(text(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(text(951_782_400), "Tue, 29 Feb 2000 00:00:00 GMT");
        assert_eq!(text(951_868_799), "Tue, 29 Feb 2000 23:59:59 GMT");
        assert_eq!(text(1_798_761_599), "Thu, 31 Dec 2026 23:59:59 GMT");
        assert_eq!(text(4_107_542_400), "Mon, 01 Mar 2100 00:00:00 GMT");
    }

    #[test]
    fn a_head_is_what_its_parts_are() {
        let mut out = Vec::new();
        request_line(&mut out, Method::Get, "/a", Some("b=c"));
        field(&mut out, "host", b"x");
        content_length(&mut out, u64::MAX);
        out.extend_from_slice(END);
        let expected = "GET /a?b=c HTTP/1.1\r\nhost: x\r\n\
                        content-length: 18446744073709551615\r\n\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);

        let mut out = Vec::new();
        status_line(&mut out, 404, reason(404).as_bytes());
        chunked(&mut out);
        out.extend_from_slice(END);
        chunk_size(&mut out, 0x1f0);
        chunk_size(&mut out, 0);
        let expected = "HTTP/1.1 404 Not Found\r\ntransfer-encoding: chunked\r\n\r\n1f0\r\n0\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn names_and_values_that_would_break_a_head_are_told_apart() {
        assert!(is_name(b"x-a_b"));
        assert!(!is_name(b"") && !is_name(b"a b") && !is_name(b"a:") && !is_name(b"a\r"));
        assert!(is_value(b"") && is_value(b"a\tb \xff"));
        assert!(!is_value(b" a") && !is_value(b"a\r\nb") && !is_value(b"a\0"));
    }
}
