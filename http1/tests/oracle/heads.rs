//! Heads, read in the plainest way: the end first, then lines, then words.

use ballast_http1::{BodyLength, Limits, Request, RequestKind};

#[derive(Debug, PartialEq)]
pub struct NaiveRequest<'a> {
    pub method: &'a str,
    pub target: &'a str,
    pub host: &'a str,
    pub is_11: bool,
    pub keep_alive: bool,
    pub expects_continue: bool,
    pub body: BodyLength,
    pub fields: Vec<(&'a [u8], &'a [u8])>,
    pub dropped: Vec<bool>,
    pub length: usize,
}

#[derive(Debug, PartialEq)]
pub struct NaiveResponse<'a> {
    pub status: u16,
    pub reason: &'a [u8],
    pub body: BodyLength,
    pub keep_alive: bool,
    pub fields: Vec<(&'a [u8], &'a [u8])>,
    pub length: usize,
}

type Field<'a> = (&'a [u8], &'a [u8]);

/// Lines split at CR LF, up to an empty one; none may hold a CR or LF of its own.
fn lines(bytes: &[u8]) -> Option<(Vec<&[u8]>, usize)> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let mut lines = Vec::new();
    let mut rest = &bytes[..end + 2];
    while let Some(at) = rest.windows(2).position(|two| two == b"\r\n") {
        lines.push(&rest[..at]);
        rest = &rest[at + 2..];
    }
    let clean = lines
        .iter()
        .all(|line| !line.contains(&b'\r') && !line.contains(&b'\n'));
    (clean && end + 4 <= Limits::default().head_bytes).then_some((lines, end + 4))
}

fn is_token(bytes: &[u8]) -> bool {
    let may = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
    !bytes.is_empty() && bytes.iter().all(may)
}

fn is_printable(bytes: &[u8]) -> bool {
    bytes.iter().all(|&b| b == b'\t' || !b.is_ascii_control())
}

fn blanks_off(bytes: &[u8]) -> &[u8] {
    let blank = |b: &u8| *b == b' ' || *b == b'\t';
    let start = bytes.iter().position(|b| !blank(b)).unwrap_or(bytes.len());
    let end = bytes
        .iter()
        .rposition(|b| !blank(b))
        .map_or(start, |at| at + 1);
    &bytes[start..end]
}

fn fields<'a>(lines: &[&'a [u8]]) -> Option<Vec<Field<'a>>> {
    if lines.len() > Limits::default().fields {
        return None;
    }
    let field = |line: &&'a [u8]| {
        let colon = line.iter().position(|&b| b == b':')?;
        let (name, value) = (&line[..colon], blanks_off(&line[colon + 1..]));
        let lower = name.to_ascii_lowercase();
        let odd = lower == b"content_length" || lower == b"transfer_encoding";
        (is_token(name) && is_printable(value) && !odd).then_some((name, value))
    };
    lines.iter().map(field).collect()
}

fn values<'a>(fields: &[Field<'a>], name: &str) -> Vec<&'a [u8]> {
    let named = fields
        .iter()
        .filter(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes()));
    named.map(|(_, value)| *value).collect()
}

/// The only value there may be. None: there are several.
fn single<'a>(fields: &[Field<'a>], name: &str) -> Option<Option<&'a [u8]>> {
    let values = values(fields, name);
    (values.len() < 2).then(|| values.first().copied())
}

fn length(fields: &[Field<'_>]) -> Option<Option<u64>> {
    let Some(value) = single(fields, "content-length")? else {
        return Some(None);
    };
    let text = std::str::from_utf8(value).ok()?;
    let plain = text == "0" || !text.starts_with(['0', '+', '-']);
    let number: i64 = plain.then_some(text)?.parse().ok()?;
    Some(Some(u64::try_from(number).ok()?))
}

/// What the fields say of the body; none if it is not to be taken.
fn framing(fields: &[Field<'_>], is_11: bool, default: BodyLength) -> Option<BodyLength> {
    match (single(fields, "transfer-encoding")?, length(fields)?) {
        (None, None) => Some(default),
        (None, Some(length)) => Some(BodyLength::Length(length)),
        (Some(coding), None) => {
            (coding.eq_ignore_ascii_case(b"chunked") && is_11).then_some(BodyLength::Chunked)
        }
        (Some(_), Some(_)) => None,
    }
}

/// The options of all Connection fields, in lower case; none if one is no token.
fn options(fields: &[Field<'_>]) -> Option<Vec<Vec<u8>>> {
    const ESSENTIAL: [&[u8]; 8] = [
        b"host",
        b"content-length",
        b"content-type",
        b"content-encoding",
        b"content-range",
        b"authorization",
        b"cookie",
        b"set-cookie",
    ];
    let values = values(fields, "connection");
    let words = values.iter().flat_map(|value| value.split(|&b| b == b','));
    let words = words.map(|word| blanks_off(word).to_ascii_lowercase());
    let words: Vec<_> = words.filter(|word| !word.is_empty()).collect();
    let good = |word: &Vec<u8>| is_token(word) && !ESSENTIAL.contains(&word.as_slice());
    (words.len() <= 32 && words.iter().all(good)).then_some(words)
}

fn keeps(options: &[Vec<u8>], is_11: bool) -> bool {
    let has = |word: &[u8]| options.iter().any(|option| option == word);
    !has(b"close") && (is_11 || has(b"keep-alive"))
}

fn upgrade(fields: &[Field<'_>], options: &[Vec<u8>], is_11: bool) -> Option<()> {
    let wanted = options.iter().any(|option| option == b"upgrade");
    match single(fields, "upgrade")? {
        Some(value) if wanted && is_11 => (!value.is_empty() && value.is_ascii()).then_some(()),
        _ => Some(()),
    }
}

pub fn is_host(host: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(host).ok()?;
    let name_and_port = match text.strip_prefix('[') {
        Some(rest) => {
            let (ip, rest) = rest.split_once(']')?;
            ip.parse::<std::net::Ipv6Addr>().ok()?;
            rest
        }
        None => {
            let end = text.find(':').unwrap_or(text.len());
            let may = |c: char| c.is_ascii_alphanumeric() || "-._~%!$&'()*+,;=".contains(c);
            (end > 0 && text[..end].chars().all(may)).then_some(())?;
            &text[end..]
        }
    };
    let good = match name_and_port.strip_prefix(':') {
        Some(port) => port.len() <= 5 && port.chars().all(|c| c.is_ascii_digit()),
        None => name_and_port.is_empty(),
    };
    good.then_some(text)
}

/// The authority that a target names, with the port that goes without saying; none if the target
/// fits no form.
fn authority<'a>(method: &str, target: &'a str) -> Option<Option<(&'a str, u16)>> {
    if method == "CONNECT" {
        let (_, port) = is_host(target.as_bytes())?.rsplit_once(':')?;
        let good = !port.is_empty() && !port.ends_with(']');
        return good.then_some(Some((target, 0)));
    }
    if target.starts_with('/') || (target == "*" && method == "OPTIONS") {
        return Some(None);
    }
    let (scheme, rest) = target.split_once("://")?;
    let port = match scheme.to_ascii_lowercase().as_str() {
        "http" => 80,
        "https" => 443,
        _ => return None,
    };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    Some(Some((is_host(&rest.as_bytes()[..end])?, port)))
}

fn same_host(left: &str, right: &str, port: u16) -> bool {
    let plain = |host: &str| {
        let host = host.to_ascii_lowercase();
        let (name, given) = match host.rsplit_once(':') {
            Some((name, given)) if !given.ends_with(']') => (name.to_owned(), given.to_owned()),
            _ => (host, String::new()),
        };
        let given = if given == port.to_string() {
            String::new()
        } else {
            given
        };
        (name, given)
    };
    plain(left) == plain(right)
}

pub fn request(bytes: &[u8]) -> Option<NaiveRequest<'_>> {
    let skipped = if bytes.starts_with(b"\r\n") { 2 } else { 0 };
    let (lines, length) = lines(&bytes[skipped..])?;
    let length = length + skipped;
    if length > Limits::default().head_bytes {
        return None;
    }
    let line = std::str::from_utf8(lines[0]).ok()?;
    let words: Vec<&str> = line.split(' ').collect();
    let [method, target, version] = words[..] else {
        return None;
    };
    let is_11 = match version {
        "HTTP/1.1" => true,
        "HTTP/1.0" => false,
        _ => return None,
    };
    let good = is_token(method.as_bytes())
        && method.len() <= 32
        && target.chars().all(|c| c.is_ascii_graphic() && c != '#')
        && target.len() <= Limits::default().target_bytes;
    let authority = authority(method, good.then_some(target)?)?;

    let fields = fields(&lines[1..])?;
    let host = match single(&fields, "host")? {
        Some(host) => Some(is_host(host)?),
        None if is_11 => return None,
        None => None,
    };
    if let (Some((left, port)), Some(right)) = (authority, host)
        && !same_host(left, right, port)
    {
        return None;
    }
    let expect = single(&fields, "expect")?;
    if expect.is_some_and(|value| !value.eq_ignore_ascii_case(b"100-continue")) {
        return None;
    }
    let body = framing(&fields, is_11, BodyLength::None)?;
    if method == "CONNECT" && body != BodyLength::None {
        return None;
    }
    let options = options(&fields)?;
    upgrade(&fields, &options, is_11)?;
    let dropped = fields.iter().map(|(name, _)| is_dropped(name, &options));
    Some(NaiveRequest {
        method,
        target,
        host: host.or(authority.map(|(host, _)| host)).unwrap_or_default(),
        is_11,
        keep_alive: keeps(&options, is_11),
        expects_continue: expect.is_some() && is_11,
        body,
        dropped: dropped.collect(),
        fields,
        length,
    })
}

fn is_dropped(name: &[u8], options: &[Vec<u8>]) -> bool {
    const ALWAYS: [&[u8]; 7] = [
        b"connection",
        b"http2-settings",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"transfer-encoding",
        b"upgrade",
    ];
    let name = name.to_ascii_lowercase();
    ALWAYS.contains(&name.as_slice()) || options.contains(&name)
}

pub fn response(bytes: &[u8], kind: RequestKind) -> Option<NaiveResponse<'_>> {
    let (lines, length) = lines(bytes)?;
    let (version, rest) = lines[0].split_at_checked(8)?;
    let is_11 = match version {
        b"HTTP/1.1" => true,
        b"HTTP/1.0" => false,
        _ => return None,
    };
    let (digits, rest) = rest.strip_prefix(b" ")?.split_at_checked(3)?;
    let digits = std::str::from_utf8(digits).ok()?;
    let all_digits = digits.chars().all(|c| c.is_ascii_digit()) && !digits.starts_with('0');
    let status: u16 = all_digits.then_some(digits)?.parse().ok()?;
    let reason = match rest {
        [] => rest,
        [b' ', reason @ ..] => reason,
        _ => return None,
    };
    is_printable(reason).then_some(())?;
    let fields = fields(&lines[1..])?;
    // Neither belongs into an answer, but what is there once is no harm.
    single(&fields, "host")?;
    single(&fields, "expect")?;
    let framed = framing(&fields, is_11, BodyLength::UntilClose)?;
    let options = options(&fields)?;
    upgrade(&fields, &options, is_11)?;
    let bare = status < 200 || status == 204;
    let tunnel = kind == RequestKind::Connect && (200..300).contains(&status);
    let body = match kind {
        RequestKind::Head => BodyLength::None,
        _ if bare || status == 304 || tunnel => BodyLength::None,
        _ => framed,
    };
    let strays = match framed {
        BodyLength::Chunked => bare,
        BodyLength::Length(length) => bare && length > 0,
        _ => false,
    };
    let open = body == BodyLength::UntilClose || tunnel || strays;
    Some(NaiveResponse {
        status,
        reason,
        body,
        keep_alive: keeps(&options, is_11) && !open,
        fields,
        length,
    })
}

/// httparse takes whatever we take, and reads the same words.
pub fn agree_with_httparse(bytes: &[u8], request: &Request<'_>) {
    let mut fields = [httparse::EMPTY_HEADER; 100];
    let mut theirs = httparse::Request::new(&mut fields);
    let status = theirs.parse(bytes).expect("httparse takes it, too");
    assert_eq!(status, httparse::Status::Complete(request.head_len()));
    assert_eq!(theirs.method, Some(request.method().as_str()));
    assert_eq!(theirs.path, Some(request.target()));
    let ours = request
        .fields()
        .iter()
        .map(|field| (field.name, field.value));
    let theirs = theirs.headers.iter().map(|h| (h.name.as_bytes(), h.value));
    assert!(ours.eq(theirs));
}
