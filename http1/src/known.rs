//! The fields that a proxy knows by name.

/// Writes each field once.
macro_rules! fields {
    ($($field:ident = $name:literal;)+) => {
        /// A field that is known by name, so that nobody compares its name again.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        #[allow(missing_docs, reason = "each is named as its field is")]
        pub enum KnownField {
            $($field,)+
        }

        impl KnownField {
            /// Every one.
            pub const ALL: &[KnownField] = &[$(KnownField::$field),+];

            /// The name, in lower case.
            pub const fn name(self) -> &'static str {
                match self {
                    $(KnownField::$field => $name,)+
                }
            }
        }
    };
}

fields! {
    Accept = "accept";
    AcceptEncoding = "accept-encoding";
    AcceptLanguage = "accept-language";
    Authorization = "authorization";
    CacheControl = "cache-control";
    Connection = "connection";
    ContentEncoding = "content-encoding";
    ContentLength = "content-length";
    ContentRange = "content-range";
    ContentType = "content-type";
    Cookie = "cookie";
    Date = "date";
    Expect = "expect";
    Forwarded = "forwarded";
    Host = "host";
    Http2Settings = "http2-settings";
    KeepAlive = "keep-alive";
    Location = "location";
    MaxForwards = "max-forwards";
    Origin = "origin";
    Pragma = "pragma";
    ProxyAuthenticate = "proxy-authenticate";
    ProxyAuthorization = "proxy-authorization";
    ProxyConnection = "proxy-connection";
    Range = "range";
    RetryAfter = "retry-after";
    Server = "server";
    SetCookie = "set-cookie";
    Te = "te";
    Traceparent = "traceparent";
    Tracestate = "tracestate";
    Trailer = "trailer";
    TransferEncoding = "transfer-encoding";
    Upgrade = "upgrade";
    UserAgent = "user-agent";
    Vary = "vary";
    Via = "via";
    XForwardedFor = "x-forwarded-for";
    XForwardedHost = "x-forwarded-host";
    XForwardedPort = "x-forwarded-port";
    XForwardedProto = "x-forwarded-proto";
    XRealIp = "x-real-ip";
    XRequestId = "x-request-id";
}

/// A name in lower case, as two words that cover it: its first eight bytes and its last eight, or all
/// of it twice. A name of more than sixteen has bytes between them.
type Words = (u64, u64);

/// The fields of each length of a name.
static BY_LENGTH: [[Option<(Words, KnownField)>; MOST]; LONGEST + 1] = by_length();

/// The most fields that have names of one length.
const MOST: usize = 6;

const fn by_length() -> [[Option<(Words, KnownField)>; MOST]; LONGEST + 1] {
    let mut table = [[None; MOST]; LONGEST + 1];
    let mut number = 0;
    while number < KnownField::ALL.len() {
        let field = KnownField::ALL[number];
        let name = field.name().as_bytes();
        let row = &mut table[name.len()];
        let mut place = 0;
        while row[place].is_some() {
            place += 1;
        }
        let last = name.len().saturating_sub(8);
        row[place] = Some(((word(name, 0), word(name, last)), field));
        number += 1;
    }
    table
}

/// Eight bytes, or as many as there are, in lower case: each with the bit that makes a letter a
/// small one. It leaves `-` and digits as they are, and no byte of a token but a capital becomes a
/// letter by it, nor another one `-` or a digit.
const fn word(name: &[u8], start: usize) -> u64 {
    let mut word = 0;
    let mut at = start + 8;
    while at > start {
        at -= 1;
        word <<= 8;
        if at < name.len() {
            word |= (name[at] | 0x20) as u64;
        }
    }
    word
}

const SMALL: u64 = 0x2020_2020_2020_2020;

impl KnownField {
    /// The field of this name, whatever its case.
    pub fn of(name: &[u8]) -> Option<KnownField> {
        let words = (word(name, 0), word(name, name.len().saturating_sub(8)));
        // Control characters become others when they are made small.
        let may = name.iter().all(|&byte| byte > b' ');
        may.then(|| Self::of_words(name, words)).flatten()
    }

    /// The field whose name lies here, all of whose bytes are past the space.
    #[inline]
    pub(crate) fn at(bytes: &[u8], start: usize, end: usize) -> Option<KnownField> {
        let length = end - start;
        let eight = |at: usize| {
            bytes
                .get(at..at + 8)
                .and_then(|eight| eight.try_into().ok())
        };
        let Some(first) = eight(start).map(|eight| u64::from_le_bytes(eight) | SMALL) else {
            return Self::of(&bytes[start..end]);
        };
        let words = if length >= 8 {
            let last = eight(end - 8).map_or(0, u64::from_le_bytes);
            (first, last | SMALL)
        } else {
            let first = first & ((1 << (8 * length)) - 1);
            (first, first)
        };
        Self::of_words(&bytes[start..end], words)
    }

    #[inline]
    fn of_words(name: &[u8], words: Words) -> Option<KnownField> {
        let row = BY_LENGTH.get(name.len())?;
        for entry in row {
            let Some((known, field)) = entry else {
                return None;
            };
            if *known == words {
                let is_all = name.len() <= 16 || name.eq_ignore_ascii_case(field.name().as_bytes());
                return is_all.then_some(*field);
            }
        }
        None
    }

    /// Whether it is meant for the next hop alone, so that a proxy takes it out (RFC 9110, 7.6.1).
    pub fn is_hop_by_hop(self) -> bool {
        matches!(
            self,
            KnownField::Connection
                | KnownField::Http2Settings
                | KnownField::KeepAlive
                | KnownField::ProxyConnection
                | KnownField::Te
                | KnownField::TransferEncoding
                | KnownField::Upgrade
        )
    }

    /// Whether a trailer may not have it: what decides about framing, routing, who asks, or how the
    /// content is understood comes before it or not at all (RFC 9110, 6.5.1).
    pub fn is_forbidden_in_trailers(self) -> bool {
        self.is_hop_by_hop()
            || matches!(
                self,
                KnownField::Authorization
                    | KnownField::CacheControl
                    | KnownField::ContentEncoding
                    | KnownField::ContentLength
                    | KnownField::ContentRange
                    | KnownField::ContentType
                    | KnownField::Cookie
                    | KnownField::Expect
                    | KnownField::Forwarded
                    | KnownField::Host
                    | KnownField::Location
                    | KnownField::MaxForwards
                    | KnownField::ProxyAuthenticate
                    | KnownField::ProxyAuthorization
                    | KnownField::Range
                    | KnownField::SetCookie
                    | KnownField::Trailer
                    | KnownField::Vary
                    | KnownField::XForwardedFor
                    | KnownField::XForwardedHost
                    | KnownField::XForwardedPort
                    | KnownField::XForwardedProto
                    | KnownField::XRealIp
            )
    }

    /// Whether a message means something else without it, so that Connection may not drop it.
    pub(crate) fn is_essential(self) -> bool {
        matches!(
            self,
            KnownField::Host
                | KnownField::ContentLength
                | KnownField::ContentType
                | KnownField::ContentEncoding
                | KnownField::ContentRange
                | KnownField::Authorization
                | KnownField::Cookie
                | KnownField::SetCookie
        )
    }
}

/// The longest name that is known, in bytes.
pub(crate) const LONGEST: usize = 19;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_field_is_found_by_its_name_in_any_case() {
        for &field in KnownField::ALL {
            let name = field.name();
            assert!(name.len() <= LONGEST);
            assert_eq!(KnownField::of(name.as_bytes()), Some(field));
            let upper = name.to_ascii_uppercase();
            assert_eq!(KnownField::of(upper.as_bytes()), Some(field));
        }
    }

    #[test]
    fn a_name_is_known_wherever_it_lies() {
        for &field in KnownField::ALL {
            let name = field.name();
            for after in ["", ":", ": 12345678"] {
                let line = format!("xyz{name}{after}");
                let known = KnownField::at(line.as_bytes(), 3, 3 + name.len());
                assert_eq!(known, Some(field), "{line}");
            }
        }
    }

    #[test]
    fn no_other_byte_passes_for_one_of_a_known_name() {
        for &field in KnownField::ALL {
            for at in 0..field.name().len() {
                for byte in 0..=255 {
                    let mut name = field.name().as_bytes().to_vec();
                    let same = name[at].eq_ignore_ascii_case(&byte);
                    name[at] = byte;
                    let found = KnownField::of(&name);
                    assert_eq!(found == Some(field), same, "{}", name.escape_ascii());
                    if byte > b' ' {
                        name.extend(b": 12345678");
                        assert_eq!(KnownField::at(&name, 0, field.name().len()), found);
                    }
                }
            }
        }
    }

    #[test]
    fn a_name_one_letter_away_is_another_field() {
        for &field in KnownField::ALL {
            for at in 0..field.name().len() {
                let mut name = field.name().as_bytes().to_vec();
                name[at] = if name[at] == b'q' { b'z' } else { b'q' };
                assert_ne!(KnownField::of(&name), Some(field));
                name.remove(at);
                assert_ne!(KnownField::of(&name), Some(field));
            }
        }
        assert_eq!(KnownField::of(b""), None);
    }
}
