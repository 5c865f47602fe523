//! The head of a request.

use crate::body::BodyLength;
use crate::fields::{Fields, Scratch};
use crate::head::{self, Coding, Facts, Step, Stop, finish, line_end, refuse};
use crate::limits::{EMPTY_LINES, Limits, METHOD_BYTES};
use crate::method::{Method, Version};
use crate::refusal::{Refusal, Rule};
use crate::scan;
use crate::target::{self, Parts};

/// A request's head, read in place.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    method: Method<'a>,
    parts: Parts<'a>,
    host: &'a str,
    version: Version,
    fields: Fields<'a>,
    body: BodyLength,
    keep_alive: bool,
    expects_continue: bool,
    upgrade: Option<&'a str>,
    head_len: usize,
}

/// Reads the request that begins with the first byte. Returns none while it is not all there; what
/// is refused already is not waited for. Allocates nothing once `scratch` is warm.
///
/// A caller that gets bytes in small pieces asks [`may_end`](crate::may_end) before it comes again,
/// so that a head that drips in is not read from its start for each byte.
///
/// # Errors
///
/// The rule that it breaks. Answer [`Refusal::status`] and close.
pub fn parse_request<'a>(
    bytes: &'a [u8],
    scratch: &'a mut Scratch,
    limits: &Limits,
) -> Result<Option<Request<'a>>, Refusal> {
    let line = match first_line(bytes, limits) {
        Ok(line) => line,
        Err(stop) => return finish(Err(stop), bytes, limits),
    };
    let (facts, end) = match head::fields(bytes, line.end, scratch, limits) {
        Ok(read) => read,
        Err(stop) => return finish(Err(stop), bytes, limits),
    };
    let fields = Fields {
        bytes,
        slots: &scratch.slots,
    };
    let request = whole(line, &facts, fields, end);
    finish(request.map(|request| (request, end)), bytes, limits)
}

struct FirstLine<'a> {
    method: Method<'a>,
    parts: Parts<'a>,
    at: usize,
    version: Version,
    end: usize,
}

fn first_line<'a>(bytes: &'a [u8], limits: &Limits) -> Step<FirstLine<'a>> {
    let mut start = 0;
    while let Some(b'\r' | b'\n') = bytes.get(start) {
        if start >= 2 * EMPTY_LINES {
            return refuse(Rule::EmptyLines, start);
        }
        start = line_end(bytes, start, Rule::EmptyLines)?;
    }
    let method_end = scan::token_end(bytes, start);
    if method_end - start > METHOD_BYTES {
        return refuse(Rule::MethodTooLong, start);
    }
    match bytes.get(method_end) {
        Some(b' ') if method_end > start => {}
        Some(_) => return refuse(Rule::Method, method_end),
        None => return Err(Stop::More),
    }
    let method = Method::of(&bytes[start..method_end]);
    let at = method_end + 1;
    let target_end = scan::target_end(bytes, at);
    if target_end - at > limits.target_bytes {
        return refuse(Rule::TargetTooLong, at);
    }
    match bytes.get(target_end) {
        Some(b' ') if target_end > at => {}
        Some(b'\r' | b'\n') => return refuse(Rule::RequestLine, target_end),
        Some(_) => return refuse(Rule::Target, target_end),
        None => return Err(Stop::More),
    }
    let parts = target::split(method, ascii(&bytes[at..target_end]), at)?;
    let (version, end) = version(bytes, target_end + 1)?;
    let end = line_end(bytes, end, Rule::RequestLine)?;
    Ok(FirstLine {
        method,
        parts,
        at,
        version,
        end,
    })
}

/// Reads a version; returns it and where it ends.
pub(crate) fn version(bytes: &[u8], at: usize) -> Step<(Version, usize)> {
    let rest = bytes.get(at..).unwrap_or_default();
    match rest {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'1', ..] => Ok((Version::Http11, at + 8)),
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0', ..] => Ok((Version::Http10, at + 8)),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor, ..]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            refuse(Rule::VersionNotSupported, at)
        }
        _ => {
            let shape = b"HTTP/0.0";
            let fits = rest.iter().zip(shape).all(|(&byte, &wanted)| {
                if wanted == b'0' {
                    byte.is_ascii_digit()
                } else {
                    byte == wanted
                }
            });
            if fits && rest.len() < shape.len() {
                return Err(Stop::More);
            }
            refuse(Rule::Version, at)
        }
    }
}

/// Every caller has looked at each byte before.
pub(crate) fn ascii(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("only ASCII was let through")
}

fn whole<'a>(
    line: FirstLine<'a>,
    facts: &Facts,
    fields: Fields<'a>,
    head_len: usize,
) -> Step<Request<'a>> {
    let at = |number: usize| fields.slots[number].value;
    let value = |number: usize| fields.slots[number].value(fields.bytes);
    let host = match facts.host {
        Some(number) => Some(target::host(value(number), at(number))?),
        None if line.version == Version::Http11 => return refuse(Rule::HostMissing, head_len),
        None => None,
    };
    let host = match host {
        Some(host) if !line.parts.agrees(host) => return refuse(Rule::HostDisagrees, line.at),
        Some(host) => host,
        None => line.parts.authority.unwrap_or_default(),
    };
    let is_11 = line.version == Version::Http11;
    let expects_continue = match facts.expect {
        Some(number) if value(number).eq_ignore_ascii_case(b"100-continue") => is_11,
        Some(number) => return refuse(Rule::Expectation, at(number)),
        None => false,
    };
    let upgrade = match facts.upgrade {
        Some(number) if facts.wants_upgrade && is_11 => {
            upgrade(value(number), at(number))?.filter(|protocols| !speaks_for_us(protocols))
        }
        _ => None,
    };
    Ok(Request {
        method: line.method,
        parts: line.parts,
        host,
        version: line.version,
        fields,
        body: body(&line, facts)?,
        keep_alive: !facts.close && (is_11 || facts.keep_alive),
        expects_continue,
        upgrade,
        head_len,
    })
}

/// Reads an Upgrade field, which is text.
pub(crate) fn upgrade(value: &[u8], at: usize) -> Step<Option<&str>> {
    if value.is_empty() || !value.is_ascii() {
        return refuse(Rule::FieldValue, at);
    }
    Ok(Some(ascii(value)))
}

/// Whether one of these protocols carries HTTP requests itself, or hides them. Behind an upgrade to
/// it that a proxy passes on, requests reach the endpoint that the proxy never sees.
fn speaks_for_us(protocols: &str) -> bool {
    let mut protocols = protocols.split(',').map(str::trim);
    protocols.any(|protocol| {
        let name = protocol.split('/').next().unwrap_or_default();
        let hidden = ["h2c", "h2", "h3", "http", "tls"];
        hidden
            .iter()
            .any(|hidden| name.eq_ignore_ascii_case(hidden))
    })
}

/// RFC 9112, 6.3, with every choice made for the refusal.
fn body(line: &FirstLine<'_>, facts: &Facts) -> Step<BodyLength> {
    let body = match (facts.coding, facts.content_length) {
        (Some((_, at)), Some(_)) => return refuse(Rule::TwoLengths, at),
        (Some((_, at)), None) if line.version == Version::Http10 => {
            return refuse(Rule::TransferEncodingHere, at);
        }
        (Some((Coding::Chunked, _)), None) => BodyLength::Chunked,
        (Some((Coding::Unknown, at)), None) => return refuse(Rule::TransferCodingUnknown, at),
        (Some((Coding::Wrong, at)), None) => return refuse(Rule::TransferEncoding, at),
        (None, Some(length)) => BodyLength::Length(length),
        (None, None) => BodyLength::None,
    };
    // What follows a CONNECT is the tunnel, whatever its head says, for some; a body for others.
    if line.method == Method::Connect && body != BodyLength::None {
        return refuse(Rule::TargetForm, line.at);
    }
    Ok(body)
}

impl<'a> Request<'a> {
    /// What is to be done.
    pub fn method(&self) -> Method<'a> {
        self.method
    }

    /// The path of the target, from its first `/` on, as it came: neither decoded nor normalised.
    /// `/` if an absolute target has none, `*` of an `OPTIONS *`, empty of a CONNECT.
    pub fn path(&self) -> &'a str {
        self.parts.path
    }

    /// What follows the first `?` of the target.
    pub fn query(&self) -> Option<&'a str> {
        self.parts.query
    }

    /// The target as it came.
    pub fn target(&self) -> &'a str {
        self.parts.target
    }

    /// The host that is asked, with its port if one was given, as it came: of the Host field, or of
    /// the target, which agree if both are there. Empty only in HTTP/1.0. Its characters are those of
    /// a host.
    pub fn host(&self) -> &'a str {
        self.host
    }

    /// The version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The fields.
    pub fn fields(&self) -> Fields<'a> {
        self.fields
    }

    /// Where the body ends; never [`BodyLength::UntilClose`].
    pub fn body(&self) -> BodyLength {
        self.body
    }

    /// Whether the client means to send more requests on this connection.
    pub fn keep_alive(&self) -> bool {
        self.keep_alive
    }

    /// Whether the client waits for a `100 Continue` before it sends the body.
    pub fn expects_continue(&self) -> bool {
        self.expects_continue
    }

    /// The protocols that the client would rather speak: the Upgrade field, if Connection names it,
    /// too. None if there is HTTP or TLS among them (`h2c`, `TLS/1.0`): nobody has to agree to an
    /// upgrade, and through that one requests would pass unseen.
    pub fn upgrade(&self) -> Option<&'a str> {
        self.upgrade
    }

    /// Bytes of the head, the empty line that ends it included; the body begins there.
    pub fn head_len(&self) -> usize {
        self.head_len
    }
}
