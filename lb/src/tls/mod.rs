//! TLS: which certificate is shown to whom, how it is loaded, and the session itself.
//!
//! * `identity`: a certificate with its key, read from files
//! * `store`: which of several is shown to whom; swapped whole while connections come in
//! * `server`: the settings of the listener and the files they come from, followed as they change
//! * `hello`: what a client asks for, before anything is answered
//! * `session`: TLS without sockets, for the threads of the hot path
//! * `upstream`: whom to believe and what to show towards endpoints
//!
//! Deliberately absent: early data (a replayed request is executed twice), renegotiation and
//! anything before TLS 1.2, which the library does not have.

mod hello;
mod identity;
mod server;
mod session;
#[cfg(test)]
mod session_tests;
mod store;
mod upstream;

pub use hello::{Hello, look};
pub use identity::{Identity, IdentityFiles, TlsError, certificates, private_key};
pub use server::{
    ClientAuth, Loaded, Minimum, Server, Settings, UnknownName, cipher, cipher_names,
};
pub use session::{Session, SessionError};
pub use store::{ACME_ALPN, Store};
pub use upstream::{Material, UnknownTlsName, Upstreams};
