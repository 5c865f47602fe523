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
            pub fn name(self) -> &'static str {
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

impl KnownField {
    /// The field of this name, whatever its case.
    pub fn of(name: &[u8]) -> Option<KnownField> {
        use KnownField as K;
        let first = name.first()?.to_ascii_lowercase();
        let last = name.last()?.to_ascii_lowercase();
        // Length, first and last letter leave one field to compare with.
        let field = match (name.len(), first, last) {
            (2, b't', _) => K::Te,
            (3, b'v', _) => K::Via,
            (4, b'h', _) => K::Host,
            (4, b'd', _) => K::Date,
            (4, b'v', _) => K::Vary,
            (5, b'r', _) => K::Range,
            (6, b'a', _) => K::Accept,
            (6, b'c', _) => K::Cookie,
            (6, b'e', _) => K::Expect,
            (6, b'o', _) => K::Origin,
            (6, b'p', _) => K::Pragma,
            (6, b's', _) => K::Server,
            (7, b't', _) => K::Trailer,
            (7, b'u', _) => K::Upgrade,
            (8, b'l', _) => K::Location,
            (9, b'f', _) => K::Forwarded,
            (9, b'x', _) => K::XRealIp,
            (10, b'c', _) => K::Connection,
            (10, b'k', _) => K::KeepAlive,
            (10, b's', _) => K::SetCookie,
            (10, b't', _) => K::Tracestate,
            (10, b'u', _) => K::UserAgent,
            (11, b'r', _) => K::RetryAfter,
            (11, b't', _) => K::Traceparent,
            (12, b'c', _) => K::ContentType,
            (12, b'm', _) => K::MaxForwards,
            (12, b'x', _) => K::XRequestId,
            (13, b'a', _) => K::Authorization,
            (13, b'c', b'l') => K::CacheControl,
            (13, b'c', _) => K::ContentRange,
            (14, b'c', _) => K::ContentLength,
            (14, b'h', _) => K::Http2Settings,
            (15, b'a', b'g') => K::AcceptEncoding,
            (15, b'a', _) => K::AcceptLanguage,
            (15, b'x', _) => K::XForwardedFor,
            (16, b'c', _) => K::ContentEncoding,
            (16, b'p', _) => K::ProxyConnection,
            (16, b'x', b't') if name[12].eq_ignore_ascii_case(&b'h') => K::XForwardedHost,
            (16, b'x', b't') => K::XForwardedPort,
            (17, b't', _) => K::TransferEncoding,
            (17, b'x', _) => K::XForwardedProto,
            (18, b'p', _) => K::ProxyAuthenticate,
            (19, b'p', _) => K::ProxyAuthorization,
            _ => return None,
        };
        name.eq_ignore_ascii_case(field.name().as_bytes())
            .then_some(field)
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
