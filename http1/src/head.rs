//! What the heads of requests and answers have in common: lines, fields, and what the fields say
//! about the connection and the body.

use crate::fields::{Scratch, Slot};
use crate::known::KnownField;
use crate::limits::{BODY_BYTES, CONNECTION_OPTIONS, Limits};
use crate::refusal::{Refusal, Rule};
use crate::scan;

/// An answer that is not there yet, as an error is not, so that `?` ends both.
pub(crate) enum Stop {
    /// More bytes are needed.
    More,
    Refused(Refusal),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Stop::Refused(refusal)
    }
}

pub(crate) type Step<T> = Result<T, Stop>;

pub(crate) fn refuse<T>(rule: Rule, at: usize) -> Step<T> {
    Err(Stop::Refused(Refusal::new(rule, at)))
}

/// Turns a stop into what callers of the parsers see. `bytes` are all there are.
pub(crate) fn finish<T>(
    step: Step<(T, usize)>,
    bytes: &[u8],
    limits: &Limits,
) -> Result<Option<T>, Refusal> {
    let too_large = || Refusal::new(Rule::HeadTooLarge, limits.head_bytes);
    match step {
        Ok((_, length)) if length > limits.head_bytes => Err(too_large()),
        Ok((head, _)) => Ok(Some(head)),
        Err(Stop::More) if bytes.len() >= limits.head_bytes => Err(too_large()),
        Err(Stop::More) => Ok(None),
        Err(Stop::Refused(refusal)) => Err(refusal),
    }
}

/// Takes the end of a line, which must begin here; returns where the next one begins. `otherwise` is
/// what it is called if something else stands here.
pub(crate) fn line_end(bytes: &[u8], at: usize, otherwise: Rule) -> Step<usize> {
    match (bytes.get(at), bytes.get(at + 1)) {
        (Some(b'\r'), Some(b'\n')) => Ok(at + 2),
        (None, _) | (Some(b'\r'), None) => Err(Stop::More),
        (Some(b'\r'), _) => refuse(Rule::BareCarriageReturn, at),
        (Some(b'\n'), _) => refuse(Rule::BareLineFeed, at),
        _ => refuse(otherwise, at),
    }
}

/// What Transfer-Encoding said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    Chunked,
    /// Something that is no coding, or not chunked once and last.
    Wrong,
    Unknown,
}

/// What the fields said, noted while they were read.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    pub content_length: Option<u64>,
    /// And where it was, for what is said about it.
    pub coding: Option<(Coding, usize)>,
    pub host: Option<usize>,
    pub upgrade: Option<usize>,
    pub expect: Option<usize>,
    pub close: bool,
    pub keep_alive: bool,
    pub wants_upgrade: bool,
    /// Connection names fields that are not hop-by-hop by themselves.
    names: bool,
    /// Options of Connection so far.
    options: usize,
}

/// Reads the field lines from `start` on and the empty line behind them. Returns what they said and
/// where the head ends.
pub(crate) fn fields(
    bytes: &[u8],
    start: usize,
    scratch: &mut Scratch,
    limits: &Limits,
) -> Step<(Facts, usize)> {
    let slots = &mut scratch.slots;
    slots.clear();
    let mut facts = Facts::default();
    let mut at = start;
    loop {
        match bytes.get(at) {
            None => return Err(Stop::More),
            Some(b'\r') => {
                let end = line_end(bytes, at, Rule::FieldName)?;
                if facts.names {
                    drop_named(bytes, slots);
                }
                return Ok((facts, end));
            }
            Some(_) => {}
        }
        if slots.len() >= limits.fields {
            return refuse(Rule::TooManyFields, at);
        }
        let slot = field(bytes, at)?;
        at = slot.end;
        if let Some(known) = slot.known {
            note(&mut facts, known, bytes, &slot, slots.len())?;
        }
        slots.push(slot);
    }
}

fn field(bytes: &[u8], start: usize) -> Step<Slot> {
    let colon = scan::name_end(bytes, start);
    if bytes.get(colon) != Some(&b':') || colon == start {
        return no_field(bytes, start);
    }
    let known = KnownField::at(bytes, start, colon);
    if known.is_none() {
        // A known name is a token; any other one is looked at byte by byte.
        if scan::token_end(bytes, start) != colon {
            return no_field(bytes, start);
        }
        if is_underscored(&bytes[start..colon]) {
            return refuse(Rule::UnderscoredField, start);
        }
    }
    let mut value = colon + 1;
    while let Some(b' ' | b'\t') = bytes.get(value) {
        value += 1;
    }
    let value_end = scan::value_end(bytes, value);
    let end = line_end(bytes, value_end, Rule::FieldValue)?;
    let value_end = value + trim_end(&bytes[value..value_end]);
    Ok(Slot {
        name: start,
        colon,
        value,
        value_end,
        end,
        known,
        hop_by_hop: known.is_some_and(KnownField::is_hop_by_hop),
    })
}

/// Says why no field's name begins here, or that more bytes are needed to say.
fn no_field<T>(bytes: &[u8], start: usize) -> Step<T> {
    let end = scan::token_end(bytes, start);
    match bytes.get(end) {
        None => Err(Stop::More),
        Some(b' ' | b'\t') if end == start => refuse(Rule::FoldedField, start),
        Some(b'\n') => refuse(Rule::BareLineFeed, end),
        Some(_) => refuse(Rule::FieldName, end),
    }
}

fn trim_end(value: &[u8]) -> usize {
    let last = value
        .iter()
        .rposition(|&byte| byte != b' ' && byte != b'\t');
    last.map_or(0, |last| last + 1)
}

fn is_underscored(name: &[u8]) -> bool {
    matches!(name.len(), 14 | 17)
        && (name.eq_ignore_ascii_case(b"content_length")
            || name.eq_ignore_ascii_case(b"transfer_encoding"))
}

/// Notes what a known field says.
fn note(
    facts: &mut Facts,
    known: KnownField,
    bytes: &[u8],
    slot: &Slot,
    number: usize,
) -> Step<()> {
    let (at, value) = (slot.value, slot.value(bytes));
    match known {
        KnownField::ContentLength if facts.content_length.is_some() => {
            return refuse(Rule::ContentLengthTwice, at);
        }
        KnownField::ContentLength => facts.content_length = Some(content_length(value, at)?),
        KnownField::TransferEncoding if facts.coding.is_some() => {
            return refuse(Rule::TransferEncodingTwice, at);
        }
        KnownField::TransferEncoding => facts.coding = Some((coding(value), at)),
        KnownField::Host if facts.host.is_some() => return refuse(Rule::HostTwice, at),
        KnownField::Host => facts.host = Some(number),
        KnownField::Upgrade => once(&mut facts.upgrade, number, at)?,
        KnownField::Expect => once(&mut facts.expect, number, at)?,
        KnownField::Connection => connection(facts, value, at)?,
        _ => {}
    }
    Ok(())
}

fn once(fact: &mut Option<usize>, number: usize, at: usize) -> Step<()> {
    if fact.replace(number).is_some() {
        return refuse(Rule::FieldTwice, at);
    }
    Ok(())
}

/// Reads the one number that a Content-Length is: no sign, no list, no leading zero, since each of
/// them is read in two ways by somebody.
fn content_length(value: &[u8], at: usize) -> Step<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return refuse(Rule::ContentLength, at);
    }
    if value.len() > 1 && value[0] == b'0' {
        return refuse(Rule::ContentLength, at);
    }
    let mut length = 0_u64;
    for digit in value {
        let more = length.checked_mul(10);
        let more = more.and_then(|length| length.checked_add(u64::from(digit - b'0')));
        length = match more {
            Some(length) if length <= BODY_BYTES => length,
            _ => return refuse(Rule::ContentLengthTooLarge, at),
        };
    }
    Ok(length)
}

fn coding(value: &[u8]) -> Coding {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Coding::Chunked;
    }
    let Some(comma) = value.iter().rposition(|&byte| byte == b',') else {
        return Coding::Wrong;
    };
    let last = scan::trim(&value[comma + 1..]);
    let mut before = value[..comma].split(|&byte| byte == b',').map(scan::trim);
    let is_coding = |coding: &[u8]| {
        let codings = ["gzip", "x-gzip", "deflate", "compress", "x-compress"];
        let mut codings = codings.iter();
        codings.any(|known| coding.eq_ignore_ascii_case(known.as_bytes()))
    };
    if last.eq_ignore_ascii_case(b"chunked") && before.all(is_coding) {
        Coding::Unknown
    } else {
        Coding::Wrong
    }
}

fn connection(facts: &mut Facts, value: &[u8], at: usize) -> Step<()> {
    for option in scan::elements(value) {
        facts.options += 1;
        if facts.options > CONNECTION_OPTIONS {
            return refuse(Rule::Connection, at);
        }
        if option.eq_ignore_ascii_case(b"close") {
            facts.close = true;
        } else if option.eq_ignore_ascii_case(b"keep-alive") {
            facts.keep_alive = true;
        } else if option.eq_ignore_ascii_case(b"upgrade") {
            facts.wants_upgrade = true;
        } else if !option.iter().all(|&byte| scan::is_token(byte)) {
            return refuse(Rule::Connection, at);
        } else {
            match KnownField::of(option) {
                Some(known) if known.is_hop_by_hop() => {}
                Some(known) if known.is_essential() => return refuse(Rule::ConnectionNames, at),
                _ => facts.names = true,
            }
        }
    }
    Ok(())
}

/// Marks the fields that Connection names.
fn drop_named(bytes: &[u8], slots: &mut [Slot]) {
    for number in 0..slots.len() {
        if slots[number].known != Some(KnownField::Connection) {
            continue;
        }
        let value = slots[number].value(bytes);
        for option in scan::elements(value) {
            for slot in slots.iter_mut() {
                slot.hop_by_hop |= slot.name(bytes).eq_ignore_ascii_case(option);
            }
        }
    }
}
