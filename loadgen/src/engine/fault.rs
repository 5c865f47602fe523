//! What is wrong with an answer.

/// Why bytes are no answer; every one of them is [`crate::ErrorClass::Protocol`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It does not begin as HTTP/1.x does.
    #[error("not HTTP/1.x")]
    NotHttp,
    /// Its first line is none of HTTP/1.x.
    #[error("bad status line")]
    StatusLine,
    /// A line of its head is no header.
    #[error("bad header line")]
    HeaderLine,
    /// It has more headers than anybody reads.
    #[error("too many headers")]
    TooManyHeaders,
    /// Its head, or its trailers, do not end.
    #[error("head too long")]
    HeadTooLong,
    /// Its length is no number, or two.
    #[error("bad content-length")]
    ContentLength,
    /// A chunk's size is no number, or its line does not end.
    #[error("bad chunk size")]
    ChunkSize,
    /// A chunk is longer than it said.
    #[error("bad end of a chunk")]
    ChunkEnd,
    /// One interim response after the other.
    #[error("too many interim responses")]
    Interim,
    /// It speaks another protocol from here on.
    #[error("upgraded without being asked")]
    Upgrade,
    /// Bytes follow that nobody asked for.
    #[error("more than was asked for")]
    Surplus,
}
