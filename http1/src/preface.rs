//! What may be said of a connection's first bytes.

use memchr::memchr_iter;

/// The first bytes of an HTTP/2 connection whose client knew that it would be one.
pub const HTTP2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Whether an HTTP/2 connection begins with these bytes. None: they are too few to tell.
pub fn is_http2_preface(bytes: &[u8]) -> Option<bool> {
    let length = bytes.len().min(HTTP2_PREFACE.len());
    if bytes[..length] != HTTP2_PREFACE[..length] {
        return Some(false);
    }
    (length == HTTP2_PREFACE.len()).then_some(true)
}

/// Whether it is worth reading a head again that was not whole when only `seen` of these bytes were
/// there: it may be whole or refused now. A head that comes byte by byte is so looked at once, not
/// once for each byte.
pub fn may_end(bytes: &[u8], seen: usize, limits: &crate::Limits) -> bool {
    if bytes.len() >= limits.head_bytes {
        return true;
    }
    let Some(new) = bytes.get(seen..) else {
        return true;
    };
    let feeds = memchr_iter(b'\n', new).map(|at| seen + at);
    let mut ends = feeds.map(|feed| &bytes[..=feed]);
    // The end of a head, or a line feed that will be refused.
    ends.any(|head| head.ends_with(b"\n\r\n") || !head.ends_with(b"\r\n"))
}
