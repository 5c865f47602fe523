//! What an engine tells of one request.

use crate::record::ErrorClass;

/// One request from when it was due to its end. Times are nanoseconds since the start of the run.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Unique in the run; `number % lanes` is the lane.
    pub number: u64,
    /// Which of [`crate::plan::Plan::targets`].
    pub target: u16,
    /// Which of the target's requests.
    pub request: u32,
    /// When it was due; of a closed loop, when it was sent.
    pub due_ns: u64,
    /// When its first byte was handed to the kernel.
    pub sent_ns: u64,
    /// When the first byte of the answer came; 0 if none did.
    pub first_byte_ns: u64,
    /// When the answer was whole, or it failed.
    pub done_ns: u64,
    /// Bytes of the answer, head included.
    pub received_bytes: u64,
    /// Bytes of the request.
    pub sent_bytes: u64,
    /// A status (200 for what has none), or why there is none.
    pub outcome: Result<u16, ErrorClass>,
}

/// One connection that was opened. Spans in nanoseconds.
#[derive(Debug, Clone, Copy)]
pub struct Opened {
    /// From the call to an established TCP connection.
    pub connect_ns: u64,
    /// From then to the end of the TLS handshake; none without TLS.
    pub tls_ns: Option<u64>,
}
