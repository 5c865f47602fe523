//! Why a message is not taken.

use thiserror::Error;

/// Why a message is not taken, and where in it. The connection it came on is of no more use: where
/// the next message would begin is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{} at byte {at}", .rule.text())]
pub struct Refusal {
    rule: Rule,
    at: usize,
}

impl Refusal {
    pub(crate) fn new(rule: Rule, at: usize) -> Self {
        Self { rule, at }
    }

    /// The rule that was broken.
    pub fn rule(self) -> Rule {
        self.rule
    }

    /// The byte at which it was noticed, counted from where the parser was given the message (of a
    /// body: from where that call's bytes began).
    pub fn at(self) -> usize {
        self.at
    }

    /// The status to answer a request with. Of an answer of an upstream it says nothing: that is
    /// 502 whatever it was.
    pub fn status(self) -> u16 {
        self.rule.facts().0
    }

    /// A short constant name, for a label or a log.
    pub fn code(self) -> &'static str {
        self.rule.facts().1
    }
}

/// Writes the rules once: documentation, name, status to answer with, code, words.
macro_rules! rules {
    ($($(#[$doc:meta])+ $name:ident = $status:literal, $code:literal, $text:literal;)+) => {
        /// A rule of RFC 9112 (or of ours where it leaves a choice) that a message broke.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Rule {
            $($(#[$doc])+ $name,)+
        }

        impl Rule {
            /// Every rule.
            pub const ALL: &[Rule] = &[$(Rule::$name),+];

            fn facts(self) -> (u16, &'static str, &'static str) {
                match self {
                    $(Rule::$name => ($status, $code, $text),)+
                }
            }
        }
    };
}

rules! {
    /// A line feed without a carriage return before it.
    BareLineFeed = 400, "bare_line_feed", "a line feed without a carriage return";
    /// A carriage return without a line feed behind it.
    BareCarriageReturn = 400, "bare_carriage_return", "a carriage return without a line feed";
    /// More empty lines before a request than are forgiven.
    EmptyLines = 400, "empty_lines", "empty lines before the request";
    /// The first line is not method, target and version with one space between.
    RequestLine = 400, "request_line", "a malformed request line";
    /// The method is no token.
    Method = 400, "method", "a method that is no token";
    /// The method is longer than any that exists.
    MethodTooLong = 501, "method_too_long", "a method longer than any that exists";
    /// A byte in the target that no URI has, or a target of none of the four forms.
    Target = 400, "target", "a malformed request target";
    /// The target is past [`Limits::target_bytes`](crate::Limits::target_bytes).
    TargetTooLong = 414, "target_too_long", "a request target that is too long";
    /// The form of the target does not fit the method.
    TargetForm = 400, "target_form", "a request target that does not fit the method";
    /// No version where one belongs.
    Version = 400, "version", "a malformed version";
    /// A version that is neither HTTP/1.0 nor HTTP/1.1.
    VersionNotSupported = 505, "version_not_supported", "a version other than HTTP/1.0 and HTTP/1.1";
    /// The status line is not version, status and reason.
    StatusLine = 400, "status_line", "a malformed status line";
    /// The status is not three digits from 100 up.
    Status = 400, "status", "a malformed status";
    /// The head is past [`Limits::head_bytes`](crate::Limits::head_bytes).
    HeadTooLarge = 431, "head_too_large", "a head that is too large";
    /// More fields than [`Limits::fields`](crate::Limits::fields).
    TooManyFields = 431, "too_many_fields", "too many fields";
    /// A field's name is no token, or there is a space before its colon.
    FieldName = 400, "field_name", "a malformed field name";
    /// A control character in a field's value.
    FieldValue = 400, "field_value", "a control character in a field";
    /// A value that goes on in the next line.
    FoldedField = 400, "folded_field", "a folded field";
    /// The name of a framing field spelt with an underscore: a gateway to CGI takes it for the real
    /// one.
    UnderscoredField = 400, "underscored_field", "a framing field spelt with an underscore";
    /// No Host in an HTTP/1.1 request.
    HostMissing = 400, "host_missing", "no host";
    /// More than one Host.
    HostTwice = 400, "host_twice", "more than one host";
    /// A Host that is none: empty, with user information, or with a character that no host has.
    Host = 400, "host", "a malformed host";
    /// The target names another host than the Host field.
    HostDisagrees = 400, "host_disagrees", "a target and a host that disagree";
    /// Content-Length is not one number in digits.
    ContentLength = 400, "content_length", "a malformed content-length";
    /// More than one Content-Length, be they equal.
    ContentLengthTwice = 400, "content_length_twice", "more than one content-length";
    /// A Content-Length past [`BODY_BYTES`](crate::limits::BODY_BYTES).
    ContentLengthTooLarge = 400, "content_length_too_large", "a content-length beyond all bounds";
    /// Transfer-Encoding is not `chunked` once and last.
    TransferEncoding = 400, "transfer_encoding", "a malformed transfer-encoding";
    /// More than one Transfer-Encoding field.
    TransferEncodingTwice = 400, "transfer_encoding_twice", "more than one transfer-encoding";
    /// A transfer coding other than chunked.
    TransferCodingUnknown = 501, "transfer_coding_unknown", "a transfer coding other than chunked";
    /// Both Transfer-Encoding and Content-Length.
    TwoLengths = 400, "two_lengths", "both a transfer-encoding and a content-length";
    /// Transfer-Encoding in HTTP/1.0, or where there is no body by definition.
    TransferEncodingHere = 400, "transfer_encoding_here", "a transfer-encoding where none can be";
    /// Connection holds something that is no list of tokens.
    Connection = 400, "connection", "a malformed connection field";
    /// Connection asks to drop a field that the message cannot be understood without.
    ConnectionNames = 400, "connection_names", "a connection field that names an essential field";
    /// More than one Upgrade or Expect field.
    FieldTwice = 400, "field_twice", "a field twice that may come once";
    /// An expectation that is not `100-continue`.
    Expectation = 417, "expectation", "an unknown expectation";
    /// A chunk's size is no number in hexadecimal digits.
    ChunkSize = 400, "chunk_size", "a malformed chunk size";
    /// A chunk's size past [`BODY_BYTES`](crate::limits::BODY_BYTES).
    ChunkTooLarge = 400, "chunk_too_large", "a chunk size beyond all bounds";
    /// What follows a chunk's size is no extension.
    ChunkExtension = 400, "chunk_extension", "a malformed chunk extension";
    /// The line before a chunk is past
    /// [`Limits::chunk_line_bytes`](crate::Limits::chunk_line_bytes).
    ChunkLineTooLong = 400, "chunk_line_too_long", "a chunk line that is too long";
    /// Framing out of all proportion to the payload.
    ChunkOverhead = 400, "chunk_overhead", "more chunk framing than payload";
    /// A chunk's payload is not followed by a line end.
    ChunkEnd = 400, "chunk_end", "a chunk that does not end where it said";
    /// A field in the trailer that belongs into a head.
    TrailerField = 400, "trailer_field", "a trailer field that belongs into the head";
    /// The trailer is past [`Limits::trailer_bytes`](crate::Limits::trailer_bytes).
    TrailerTooLarge = 431, "trailer_too_large", "a trailer that is too large";
    /// The connection ended before the message did.
    CutShort = 400, "cut_short", "an end before that of the message";
}

impl Rule {
    /// What is wrong, in words.
    pub fn text(self) -> &'static str {
        self.facts().2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_has_a_code_of_its_own_and_a_status_of_a_client_or_server_error() {
        let mut codes: Vec<_> = Rule::ALL.iter().map(|rule| rule.facts().1).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Rule::ALL.len());
        for rule in Rule::ALL {
            assert!([400, 414, 417, 431, 501, 505].contains(&rule.facts().0));
        }
    }

    #[test]
    fn a_refusal_says_what_and_where() {
        let refusal = Refusal::new(Rule::TwoLengths, 17);
        let text = "both a transfer-encoding and a content-length at byte 17";
        assert_eq!(refusal.to_string(), text);
        assert_eq!((refusal.status(), refusal.code()), (400, "two_lengths"));
    }
}
