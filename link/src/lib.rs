//! Links between roles: TLS 1.3 with certificates on both sides, from the first day.
//!
//! Every member of a cluster holds a certificate of the cluster's CA that names its cluster, role
//! and id ([`Identity`]). A [`Trust`] connects and accepts with it and can be given a renewed one
//! while it is in use. A [`Link`] carries one type of message each way.
//!
//! * [`token`]: what a new member needs to know: the CA's digest, a secret, an address
//! * [`join`]: how it gets its certificate
//! * [`authority`]: the cluster's CA, held by managers
//! * [`paths`]: where roles keep their data and sockets by default
//!
//! Deliberately absent: what the messages mean, and when to reconnect; the roles know that.

pub mod authority;
mod credentials;
mod error;
mod framed;
mod identity;
pub mod join;
pub mod paths;
pub mod token;
mod trust;

pub use authority::Authority;
pub use credentials::{Credentials, KeyPair};
pub use error::LinkError;
pub use framed::{Link, LinkReceiver, LinkSender};
pub use identity::{Identity, Role};
pub use token::JoinToken;
pub use trust::{Accepted, ClientAuth, Peer, TlsStream, Trust};

/// What is spoken on a connection: the ALPN protocol names of the ports that carry more than one.
pub mod alpn {
    /// Agent or ingress → manager.
    pub const LINK: &[u8] = b"ballast-link/1";
    /// A new member → manager; the only one that needs no client certificate.
    pub const JOIN: &[u8] = b"ballast-join/1";
    /// Manager → manager.
    pub const RAFT: &[u8] = b"ballast-raft/1";
    /// Agent → ingress.
    pub const FEED: &[u8] = b"ballast-feed/1";
    /// The HTTP API over HTTP/1.1.
    pub const HTTP1: &[u8] = b"http/1.1";
    /// The HTTP API over HTTP/2.
    pub const HTTP2: &[u8] = b"h2";
}
