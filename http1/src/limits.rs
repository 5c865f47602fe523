//! How much of a message is read before it is refused.

/// The bounds of one message. Whatever passes one is refused, and the connection with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a whole head, from its first byte to the empty line that ends it: 32 KiB, the most
    /// that nginx's defaults hold. Past it: 431, or 502 for an answer.
    pub head_bytes: usize,
    /// Field lines of a head, and again of a trailer: 100, as Apache and hyper have it. Past it: 431.
    pub fields: usize,
    /// Bytes of a request's target: 8 KiB, as RFC 9112 asks everyone to take. Past it: 414.
    pub target_bytes: usize,
    /// Bytes of the line before a chunk, its size and its extensions: 256. Past it: 400.
    pub chunk_line_bytes: usize,
    /// Bytes of a trailer: 4 KiB. Past it: 431.
    pub trailer_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes: 32 << 10,
            fields: 100,
            target_bytes: 8 << 10,
            chunk_line_bytes: 256,
            trailer_bytes: 4 << 10,
        }
    }
}

/// Bytes of a method that is looked at; longer than any that is registered. Past it: 501.
pub const METHOD_BYTES: usize = 32;

/// Options of all Connection fields of a head; each is looked for among all fields. Past it: 400.
pub const CONNECTION_OPTIONS: usize = 32;

/// Empty lines that may come before a request, as after a form that an old client ended with one
/// line end too many (RFC 9112, 2.2). Past it: 400.
pub const EMPTY_LINES: usize = 1;

/// The longest body that is believed, in bytes: what a signed 64-bit number holds, since that is
/// what many who come after us count with.
pub const BODY_BYTES: u64 = i64::MAX as u64;

/// Digits of a chunk's size.
pub const CHUNK_DIGITS: u8 = 16;

/// Bytes of framing that a chunked body may carry beyond 16 a chunk and twice its payload: without
/// it, chunks of one byte with long extensions cost far more than they bring (CVE-2023-39326).
/// Past it: 400.
pub const CHUNK_EXCESS_BYTES: u32 = 16 << 10;
