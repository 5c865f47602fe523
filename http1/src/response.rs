//! The head of an answer.

use crate::body::BodyLength;
use crate::fields::{Fields, Scratch};
use crate::head::{self, Coding, Facts, Step, Stop, finish, line_end, refuse};
use crate::known::KnownField;
use crate::limits::Limits;
use crate::method::{Method, Version};
use crate::refusal::{Refusal, Rule};
use crate::request::{upgrade, version};
use crate::scan;

/// What an answer's body depends on: the request that it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RequestKind {
    /// HEAD: its answer has no body, whatever its fields say.
    Head,
    /// CONNECT: after a 2xx follows the tunnel.
    Connect,
    /// Any other.
    Other,
}

impl From<Method<'_>> for RequestKind {
    fn from(method: Method<'_>) -> Self {
        match method {
            Method::Head => RequestKind::Head,
            Method::Connect => RequestKind::Connect,
            _ => RequestKind::Other,
        }
    }
}

/// An answer's head, read in place.
#[derive(Debug, Clone, Copy)]
pub struct Response<'a> {
    status: u16,
    reason: &'a [u8],
    version: Version,
    fields: Fields<'a>,
    body: BodyLength,
    keep_alive: bool,
    upgrade: Option<&'a str>,
    head_len: usize,
}

/// Reads the answer that begins with the first byte. Returns none while it is not all there.
///
/// # Errors
///
/// The rule that it breaks. Answer the client 502 and close the connection to the upstream.
pub fn parse_response<'a>(
    bytes: &'a [u8],
    scratch: &'a mut Scratch,
    request: RequestKind,
    limits: &Limits,
) -> Result<Option<Response<'a>>, Refusal> {
    let line = match status_line(bytes) {
        Ok(line) => line,
        Err(stop) => return finish(Err(stop), bytes, limits),
    };
    let (facts, end) = match head::fields(bytes, line.end, scratch, limits) {
        Ok(read) => read,
        Err(stop) => return finish(Err(stop), bytes, limits),
    };
    if has_no_length(line.status) {
        // Some servers send `Content-Length: 0` with a 204; a client may trip over it.
        for slot in &mut scratch.slots {
            slot.hop_by_hop |= slot.known == Some(KnownField::ContentLength);
        }
    }
    let fields = Fields {
        bytes,
        slots: &scratch.slots,
    };
    let response = whole(&line, &facts, fields, request, end);
    finish(response.map(|response| (response, end)), bytes, limits)
}

struct StatusLine<'a> {
    version: Version,
    status: u16,
    reason: &'a [u8],
    end: usize,
}

fn status_line(bytes: &[u8]) -> Step<StatusLine<'_>> {
    let (version, at) = version(bytes, 0)?;
    let digits = match bytes.get(at..) {
        Some([b' ', a, b, c, ..]) => [*a, *b, *c],
        Some([b' ', rest @ ..]) if rest.iter().all(u8::is_ascii_digit) => return Err(Stop::More),
        Some([]) | None => return Err(Stop::More),
        Some([b' ', ..]) => return refuse(Rule::Status, at + 1),
        Some(_) => return refuse(Rule::StatusLine, at),
    };
    if !digits.iter().all(u8::is_ascii_digit) || digits[0] == b'0' {
        return refuse(Rule::Status, at + 1);
    }
    let status = digits
        .iter()
        .fold(0, |status, digit| status * 10 + u16::from(digit - b'0'));
    let at = at + 4;
    // Without a reason many leave out the space before it, too.
    let start = match bytes.get(at) {
        Some(b' ') => at + 1,
        Some(b'\r' | b'\n') => at,
        Some(_) => return refuse(Rule::Status, at),
        None => return Err(Stop::More),
    };
    let reason_end = scan::value_end(bytes, start);
    let end = line_end(bytes, reason_end, Rule::StatusLine)?;
    Ok(StatusLine {
        version,
        status,
        reason: &bytes[start..reason_end],
        end,
    })
}

/// Whether an answer of this status has no body and may not say how long it is (RFC 9110, 8.6).
fn has_no_length(status: u16) -> bool {
    status < 200 || status == 204
}

fn whole<'a>(
    line: &StatusLine<'a>,
    facts: &Facts,
    fields: Fields<'a>,
    request: RequestKind,
    head_len: usize,
) -> Step<Response<'a>> {
    let is_11 = line.version == Version::Http11;
    let framed = framed(line, facts)?;
    let is_tunnel = request == RequestKind::Connect && (200..300).contains(&line.status);
    let body = if has_no_length(line.status)
        || line.status == 304
        || request == RequestKind::Head
        || is_tunnel
    {
        BodyLength::None
    } else {
        framed
    };
    // What has no body by definition, and yet says that it has one, may send it all the same.
    let strays = has_no_length(line.status)
        && !matches!(framed, BodyLength::UntilClose | BodyLength::Length(0));
    let upgrade = match facts.upgrade {
        Some(number) if facts.wants_upgrade && is_11 => {
            let slot = &fields.slots[number];
            upgrade(slot.value(fields.bytes), slot.value)?
        }
        _ => None,
    };
    Ok(Response {
        status: line.status,
        reason: line.reason,
        version: line.version,
        fields,
        body,
        keep_alive: !facts.close
            && (is_11 || facts.keep_alive)
            && body != BodyLength::UntilClose
            && !is_tunnel
            && !strays,
        upgrade,
        head_len,
    })
}

/// What the fields alone say; RFC 9112, 6.3.
fn framed(line: &StatusLine<'_>, facts: &Facts) -> Step<BodyLength> {
    Ok(match (facts.coding, facts.content_length) {
        (Some((_, at)), Some(_)) => return refuse(Rule::TwoLengths, at),
        (Some((_, at)), None) if line.version == Version::Http10 => {
            return refuse(Rule::TransferEncodingHere, at);
        }
        (Some((Coding::Chunked, _)), None) => BodyLength::Chunked,
        (Some((Coding::Unknown, at)), None) => return refuse(Rule::TransferCodingUnknown, at),
        (Some((Coding::Wrong, at)), None) => return refuse(Rule::TransferEncoding, at),
        (None, Some(length)) => BodyLength::Length(length),
        (None, None) => BodyLength::UntilClose,
    })
}

impl<'a> Response<'a> {
    /// The status, 100 to 999.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The words behind the status, as they came; often empty.
    pub fn reason(&self) -> &'a [u8] {
        self.reason
    }

    /// The version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The fields.
    pub fn fields(&self) -> Fields<'a> {
        self.fields
    }

    /// Where the body ends, the request considered.
    pub fn body(&self) -> BodyLength {
        self.body
    }

    /// Whether another request may be sent on this connection once the body is over.
    pub fn keep_alive(&self) -> bool {
        self.keep_alive
    }

    /// The protocol that is spoken from here on, of a 101: the Upgrade field, if Connection names
    /// it, too.
    pub fn upgrade(&self) -> Option<&'a str> {
        self.upgrade
    }

    /// Bytes of the head, the empty line that ends it included; the body begins there.
    pub fn head_len(&self) -> usize {
        self.head_len
    }

    /// Whether the real answer is still to come: 1xx, but for 101, after which there is no other.
    pub fn is_interim(&self) -> bool {
        self.status < 200 && self.status != 101
    }
}
