//! HTTP/1.1 on the wire (RFC 9112): bytes in, what they mean out.
//!
//! Heads are read in place, bodies are followed, heads are written; nothing here knows a socket, a
//! clock or a thread, and nothing allocates for a message. It is written for a proxy: whatever two
//! implementations might read in two ways is refused, so that nobody behind the proxy finds another
//! message in the bytes than the proxy did. Which choices RFC 9112 leaves, and how they were made,
//! is in `docs/adr/0018-strict-http1.md`.
//!
//! What is deliberately absent: URIs are neither decoded nor normalised, cookies and the like are
//! only bytes, transfer codings other than chunked are refused, HTTP/0.9 does not exist.
//!
//! - [`request`], [`response`]: heads.
//! - [`body`]: where a body ends.
//! - [`fields`], [`known`]: the fields of a head.
//! - [`limits`], [`refusal`]: how much is read, and why a message is not taken.
//! - [`proxy`]: the PROXY protocol, which comes before HTTP.
//! - [`render`]: heads to be sent.

pub mod body;
pub mod fields;
mod head;
pub mod known;
pub mod limits;
mod method;
mod preface;
pub mod proxy;
pub mod refusal;
pub mod render;
pub mod request;
pub mod response;
mod scan;
mod target;

pub use body::{BodyLength, BodyReader, Fed, Skimmed};
pub use fields::{Field, Fields, Scratch};
pub use known::KnownField;
pub use limits::Limits;
pub use method::{Method, Version};
pub use preface::{HTTP2_PREFACE, is_http2_preface, may_end};
pub use refusal::{Refusal, Rule};
pub use request::{Request, parse_request};
pub use response::{RequestKind, Response, parse_response};
