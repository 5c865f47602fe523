//! Where a body ends.

use std::ops::Range;

use crate::known::{self, KnownField};
use crate::limits::{BODY_BYTES, CHUNK_DIGITS, CHUNK_EXCESS_BYTES, Limits};
use crate::refusal::{Refusal, Rule};
use crate::scan;

/// Where a message's body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BodyLength {
    /// There is none, and nothing said how long it is.
    None,
    /// After so many bytes.
    Length(u64),
    /// Where its last chunk and trailer end.
    Chunked,
    /// Where the connection ends.
    UntilClose,
}

/// Follows a body through the bytes of its connection, whatever pieces they come in. It holds what
/// it lets through to the letter of RFC 9112, 7.1, so that a proxy may pass the bytes on as they
/// came: nobody behind it can find another end.
#[derive(Debug, Clone)]
pub struct BodyReader {
    state: State,
    /// Bytes of the chunk or the body that are still to come; while a size is read, the size.
    remaining: u64,
    /// Bytes of the chunk's line so far, then of the trailer.
    line: usize,
    /// Digits of the size so far.
    digits: u8,
    /// Framing bytes beyond what the payload excuses.
    excess: u32,
    /// Trailer fields so far.
    fields: usize,
    /// The trailer field's name so far, as much of it as a known one could have.
    name: [u8; known::LONGEST],
    name_len: usize,
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Done,
    Length,
    Open,
    Size,
    ExtensionStart,
    ExtensionName,
    ExtensionValueStart,
    ExtensionToken,
    ExtensionQuoted,
    ExtensionEscaped,
    ExtensionQuotedEnd,
    SizeLineFeed,
    Data,
    DataReturn,
    DataLineFeed,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLineFeed,
    EndLineFeed,
}

/// What some bytes were of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fed {
    /// How many of them belong to it, framing included. With the body not done and fewer taken than
    /// were given, the next piece of payload begins there: feed the rest.
    pub taken: usize,
    /// Which of them are payload; empty if none is.
    pub data: Range<usize>,
    /// Whether the body ends behind those taken.
    pub done: bool,
}

/// What some bytes were of a body, all pieces together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skimmed {
    /// How many of them belong to it, framing included: all, unless it is done.
    pub taken: usize,
    /// How many of those are payload.
    pub payload: usize,
    /// Whether the body ends behind those taken.
    pub done: bool,
}

/// Reads a chunk's line that is all there and holds a size alone, as nearly every one is: the size,
/// and how many bytes the line takes. None: it is to be looked at byte by byte.
fn plain_size(bytes: &[u8], limits: &Limits) -> Option<(u64, usize)> {
    // One digit fewer than fit: no sum can be too large.
    let line = bytes.get(..bytes.len().min(usize::from(CHUNK_DIGITS) + 1))?;
    let mut size = 0;
    for (at, &byte) in line.iter().enumerate() {
        match char::from(byte).to_digit(16) {
            Some(digit) if at + 1 < usize::from(CHUNK_DIGITS) => {
                size = size << 4 | u64::from(digit);
            }
            None if at > 0 && line[at..].starts_with(b"\r\n") => {
                let length = at + 2;
                return (length <= limits.chunk_line_bytes).then_some((size, length));
            }
            _ => return None,
        }
    }
    None
}

impl BodyReader {
    /// Begins with the first byte behind the head.
    pub fn new(length: BodyLength) -> Self {
        let (state, remaining) = match length {
            BodyLength::None | BodyLength::Length(0) => (State::Done, 0),
            BodyLength::Length(length) => (State::Length, length),
            BodyLength::Chunked => (State::Size, 0),
            BodyLength::UntilClose => (State::Open, 0),
        };
        Self {
            state,
            remaining,
            line: 0,
            digits: 0,
            excess: 0,
            fields: 0,
            name: [0; known::LONGEST],
            name_len: 0,
        }
    }

    /// Whether the body is over.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Bytes of payload that are known to come: what is left of the body, or of the chunk. None if
    /// nothing has said so.
    pub fn expected(&self) -> Option<u64> {
        matches!(self.state, State::Length | State::Data).then_some(self.remaining)
    }

    /// Says whether the body is whole, now that the connection has ended.
    ///
    /// # Errors
    ///
    /// If it is not.
    pub fn ended(&self) -> Result<(), Refusal> {
        match self.state {
            State::Done | State::Open => Ok(()),
            _ => Err(Refusal::new(Rule::CutShort, 0)),
        }
    }

    /// Reads on, up to the second piece of payload in these bytes.
    ///
    /// # Errors
    ///
    /// The rule that the framing breaks; nothing of these bytes may be passed on then.
    pub fn feed(&mut self, bytes: &[u8], limits: &Limits) -> Result<Fed, Refusal> {
        match self.state {
            State::Done => Ok(self.fed(0, 0..0)),
            State::Open => Ok(self.fed(bytes.len(), 0..bytes.len())),
            State::Length => {
                let taken = self.take(bytes.len());
                if self.remaining == 0 {
                    self.state = State::Done;
                }
                Ok(self.fed(taken, 0..taken))
            }
            _ => self.feed_chunked(bytes, limits),
        }
    }

    /// Reads all of these bytes that belong to the body, for one who passes them on as they are.
    ///
    /// # Errors
    ///
    /// As [`BodyReader::feed`].
    pub fn skim(&mut self, bytes: &[u8], limits: &Limits) -> Result<Skimmed, Refusal> {
        let (mut taken, mut payload) = (0, 0);
        loop {
            let fed = self
                .feed(&bytes[taken..], limits)
                .map_err(|refusal| Refusal::new(refusal.rule(), taken + refusal.at()))?;
            taken += fed.taken;
            payload += fed.data.len();
            if fed.done || taken == bytes.len() {
                return Ok(Skimmed {
                    taken,
                    payload,
                    done: fed.done,
                });
            }
        }
    }

    fn fed(&self, taken: usize, data: Range<usize>) -> Fed {
        Fed {
            taken,
            data,
            done: self.is_done(),
        }
    }

    /// Counts off what is there of what is expected.
    fn take(&mut self, available: usize) -> usize {
        let taken = usize::try_from(self.remaining).map_or(available, |left| left.min(available));
        self.remaining -= taken as u64;
        taken
    }

    fn feed_chunked(&mut self, bytes: &[u8], limits: &Limits) -> Result<Fed, Refusal> {
        let mut at = 0;
        let mut data = 0..0;
        while let Some(&byte) = bytes.get(at) {
            match self.state {
                State::Data if data.is_empty() => {
                    let taken = self.take(bytes.len() - at);
                    data = at..at + taken;
                    at += taken;
                    if self.remaining == 0 {
                        self.state = State::DataReturn;
                    }
                    continue;
                }
                State::Data | State::Done => break,
                State::Size if self.digits == 0 => {
                    if let Some((size, length)) = plain_size(&bytes[at..], limits) {
                        (self.remaining, self.line) = (size, length);
                        self.line_done()
                            .map_err(|rule| Refusal::new(rule, at + length - 1))?;
                        at += length;
                        continue;
                    }
                }
                State::DataReturn if bytes[at..].starts_with(b"\r\n") => {
                    self.state = State::Size;
                    at += 2;
                    continue;
                }
                _ => {}
            }
            self.step(byte, limits)
                .map_err(|rule| Refusal::new(rule, at))?;
            at += 1;
        }
        Ok(self.fed(at, data))
    }

    /// Reads one byte of framing.
    fn step(&mut self, byte: u8, limits: &Limits) -> Result<(), Rule> {
        match self.state {
            State::DataReturn | State::DataLineFeed => self.chunk_end(byte),
            State::TrailerStart
            | State::TrailerName
            | State::TrailerValue
            | State::TrailerLineFeed
            | State::EndLineFeed => self.trailer(byte, limits),
            _ => {
                self.line += 1;
                if self.line > limits.chunk_line_bytes {
                    return Err(Rule::ChunkLineTooLong);
                }
                self.chunk_line(byte)
            }
        }
    }

    fn chunk_line(&mut self, byte: u8) -> Result<(), Rule> {
        self.state = match (self.state, byte) {
            (State::Size, b'\r') if self.digits > 0 => State::SizeLineFeed,
            (State::Size, b';') if self.digits > 0 => State::ExtensionStart,
            (State::Size, byte) => self.digit(byte)?,
            (State::ExtensionName | State::ExtensionToken | State::ExtensionQuotedEnd, b'\r') => {
                State::SizeLineFeed
            }
            (State::ExtensionName | State::ExtensionToken | State::ExtensionQuotedEnd, b';') => {
                State::ExtensionStart
            }
            (State::ExtensionName, b'=') => State::ExtensionValueStart,
            (State::ExtensionValueStart, b'"') => State::ExtensionQuoted,
            (State::ExtensionStart | State::ExtensionName, byte) if scan::is_token(byte) => {
                State::ExtensionName
            }
            (State::ExtensionValueStart | State::ExtensionToken, byte) if scan::is_token(byte) => {
                State::ExtensionToken
            }
            (State::ExtensionQuoted, b'"') => State::ExtensionQuotedEnd,
            (State::ExtensionQuoted, b'\\') => State::ExtensionEscaped,
            (State::ExtensionQuoted | State::ExtensionEscaped, byte) if scan::is_value(byte) => {
                State::ExtensionQuoted
            }
            (State::SizeLineFeed, b'\n') => return self.line_done(),
            (State::SizeLineFeed, _) => return Err(Rule::BareCarriageReturn),
            (_, b'\n') => return Err(Rule::BareLineFeed),
            _ => return Err(Rule::ChunkExtension),
        };
        Ok(())
    }

    fn digit(&mut self, byte: u8) -> Result<State, Rule> {
        let Some(digit) = char::from(byte).to_digit(16) else {
            return Err(match byte {
                b'\n' => Rule::BareLineFeed,
                _ if self.digits > 0 && !byte.is_ascii_alphanumeric() => Rule::ChunkExtension,
                _ => Rule::ChunkSize,
            });
        };
        self.digits += 1;
        let size = self.remaining << 4 | u64::from(digit);
        if self.digits > CHUNK_DIGITS || self.remaining >> 60 != 0 || size > BODY_BYTES {
            return Err(Rule::ChunkTooLarge);
        }
        self.remaining = size;
        Ok(State::Size)
    }

    /// Goes on to the chunk's payload, or to the trailer behind the last one.
    fn line_done(&mut self) -> Result<(), Rule> {
        // The line and the line end behind the payload.
        let framing = u64::try_from(self.line)
            .unwrap_or(u64::MAX)
            .saturating_add(2);
        let excused = self.remaining.saturating_mul(2).saturating_add(16);
        let excess = u64::from(self.excess)
            .saturating_add(framing)
            .saturating_sub(excused);
        self.excess = u32::try_from(excess).unwrap_or(u32::MAX);
        if self.excess > CHUNK_EXCESS_BYTES {
            return Err(Rule::ChunkOverhead);
        }
        (self.line, self.digits) = (0, 0);
        self.state = if self.remaining == 0 {
            State::TrailerStart
        } else {
            State::Data
        };
        Ok(())
    }

    fn chunk_end(&mut self, byte: u8) -> Result<(), Rule> {
        self.state = match (self.state, byte) {
            (State::DataReturn, b'\r') => State::DataLineFeed,
            (State::DataLineFeed, b'\n') => State::Size,
            (State::DataReturn, b'\n') => return Err(Rule::BareLineFeed),
            (State::DataLineFeed, _) => return Err(Rule::BareCarriageReturn),
            _ => return Err(Rule::ChunkEnd),
        };
        Ok(())
    }

    fn trailer(&mut self, byte: u8, limits: &Limits) -> Result<(), Rule> {
        self.line += 1;
        self.state = match (self.state, byte) {
            (State::TrailerStart, b'\r') => State::EndLineFeed,
            (State::EndLineFeed, b'\n') => State::Done,
            (State::TrailerLineFeed, b'\n') => State::TrailerStart,
            (State::EndLineFeed | State::TrailerLineFeed, _) => {
                return Err(Rule::BareCarriageReturn);
            }
            (State::TrailerStart, b' ' | b'\t') => return Err(Rule::FoldedField),
            (State::TrailerStart, byte) if scan::is_token(byte) => {
                self.fields += 1;
                if self.fields > limits.fields {
                    return Err(Rule::TooManyFields);
                }
                self.name_len = 0;
                self.name_byte(byte)
            }
            (State::TrailerName, byte) if scan::is_token(byte) => self.name_byte(byte),
            (State::TrailerName, b':') => self.name_done()?,
            (State::TrailerValue, b'\r') => State::TrailerLineFeed,
            (State::TrailerValue, byte) if scan::is_value(byte) => State::TrailerValue,
            (_, b'\n') => return Err(Rule::BareLineFeed),
            (State::TrailerValue, _) => return Err(Rule::FieldValue),
            _ => return Err(Rule::FieldName),
        };
        // The empty line that ends it is not counted.
        let counts = !matches!(self.state, State::EndLineFeed | State::Done);
        if counts && self.line > limits.trailer_bytes {
            return Err(Rule::TrailerTooLarge);
        }
        Ok(())
    }

    fn name_byte(&mut self, byte: u8) -> State {
        if let Some(place) = self.name.get_mut(self.name_len) {
            *place = byte;
        }
        self.name_len = (self.name_len + 1).min(known::LONGEST + 1);
        State::TrailerName
    }

    fn name_done(&self) -> Result<State, Rule> {
        let known = self.name.get(..self.name_len).and_then(KnownField::of);
        if known.is_some_and(KnownField::is_forbidden_in_trailers) {
            return Err(Rule::TrailerField);
        }
        Ok(State::TrailerValue)
    }
}
