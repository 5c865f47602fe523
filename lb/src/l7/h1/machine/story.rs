//! What is kept of a request in order to tell of it when it has ended: for the access log and the
//! collector of spans. Nothing is, unless one of them asks.

use std::net::IpAddr;

use ballast_http1::{KnownField, Request};

use crate::observe::Named;

/// What is kept of one request.
#[derive(Debug)]
pub struct Story {
    /// What draws the requests that are told of.
    pub random: u64,
    /// Who asked.
    pub client: IpAddr,
    /// Whether it came over TLS.
    pub tls: bool,
    /// The method.
    pub method: String,
    /// The host.
    pub host: String,
    /// The target as it came.
    pub target: String,
    /// The version.
    pub version: &'static str,
    /// `User-Agent`.
    pub user_agent: Vec<u8>,
    /// `Referer`.
    pub referer: Vec<u8>,
    /// What it is called.
    pub named: Named,
}

impl Story {
    /// Keeps what is needed of a request.
    pub fn new(
        request: &Request<'_>,
        (client, tls): (IpAddr, bool),
        random: u64,
        named: Named,
    ) -> Self {
        let fields = request.fields();
        let value = |value: Option<&[u8]>| value.unwrap_or_default().to_vec();
        Self {
            random,
            client: client.to_canonical(),
            tls,
            method: request.method().as_str().to_owned(),
            host: request.host().to_owned(),
            target: request.target().to_owned(),
            version: request.version().as_str(),
            user_agent: value(fields.known(KnownField::UserAgent)),
            referer: value(fields.get("referer")),
            named,
        }
    }
}
