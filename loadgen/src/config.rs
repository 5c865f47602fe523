//! What a run is to do.

use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;
use std::time::Duration;

use http::Uri;

/// Requests that are due and wait for a free connection. Past it the run cannot say anything of
/// use about latency any more: further ones are counted as `overload` errors.
pub const BACKLOG: usize = 1 << 20;

/// How requests are spread over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Arrivals {
    /// The same gap between any two.
    #[default]
    Constant,
    /// Exponential gaps, as from many independent users.
    Poisson,
    /// From zero to the rate, evenly over the duration.
    Ramp,
}

/// Where requests go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The resolved address.
    pub address: SocketAddr,
    /// The `Host` header.
    pub authority: String,
    /// Path and query.
    pub path: String,
}

/// A URL that cannot be driven.
#[derive(Debug, thiserror::Error)]
pub enum InvalidTarget {
    /// It is no absolute URL.
    #[error("`{0}` is not a URL such as http://127.0.0.1:8080/")]
    NotAUrl(String),
    /// Its scheme is not served.
    #[error("`{0}://` is not supported yet, only http://")]
    Scheme(String),
    /// Its host does not resolve.
    #[error("cannot resolve `{authority}`")]
    Resolve {
        /// Host and port.
        authority: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Its host resolves to nothing.
    #[error("`{0}` has no address")]
    NoAddress(String),
}

impl FromStr for Target {
    type Err = InvalidTarget;

    /// Reads an `http://` URL and resolves its host, once.
    fn from_str(text: &str) -> std::result::Result<Self, InvalidTarget> {
        let not_a_url = || InvalidTarget::NotAUrl(text.to_owned());
        let uri: Uri = text.parse().map_err(|_| not_a_url())?;
        let scheme = uri.scheme_str().ok_or_else(not_a_url)?;
        if scheme != "http" {
            return Err(InvalidTarget::Scheme(scheme.to_owned()));
        }
        let authority = uri.authority().ok_or_else(not_a_url)?;
        let host = authority.host().trim_matches(['[', ']']);
        let address = (host, authority.port_u16().unwrap_or(80))
            .to_socket_addrs()
            .map_err(|source| InvalidTarget::Resolve {
                authority: authority.to_string(),
                source,
            })?
            .next()
            .ok_or_else(|| InvalidTarget::NoAddress(authority.to_string()))?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(Self {
            address,
            authority: authority.to_string(),
            path: path.to_owned(),
        })
    }
}

/// One run.
#[derive(Debug, Clone)]
pub struct Load {
    /// Where requests go.
    pub target: Target,
    /// Requests a second; none closes the loop.
    pub rate: Option<f64>,
    /// How long requests are scheduled; those in flight are waited for.
    pub duration: Duration,
    /// Connections kept open.
    pub connections: usize,
    /// How requests are spread over time; needs a rate.
    pub arrivals: Arrivals,
    /// Share of requests that are POSTs, 0 to 1.
    pub post_ratio: f64,
    /// Bytes in the body of a POST.
    pub body_bytes: usize,
    /// Prefix of the `X-Request-Id` that each request gets; none sends no id.
    pub request_ids: Option<String>,
    /// More header lines, such as `Accept: text/plain`.
    pub headers: Vec<String>,
    /// From sending to the whole answer; past it the connection is given up.
    pub timeout: Duration,
    /// Whether [`crate::Outcome::records`] is filled: about 40 bytes for each request.
    pub records: bool,
    /// Seed of the arrival gaps and of the choice of methods.
    pub seed: u64,
}

impl Load {
    /// Returns a closed loop of GETs over 64 connections for 10 seconds.
    pub fn new(target: Target) -> Self {
        Self {
            target,
            rate: None,
            duration: Duration::from_secs(10),
            connections: 64,
            arrivals: Arrivals::Constant,
            post_ratio: 0.0,
            body_bytes: 16,
            request_ids: None,
            headers: Vec::new(),
            timeout: Duration::from_secs(10),
            records: false,
            seed: 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_gives_address_authority_and_path() {
        let target: Target = "http://127.0.0.1:8080/a?b=c".parse().expect("parses");
        assert_eq!(target.address, "127.0.0.1:8080".parse().expect("address"));
        assert_eq!(
            (target.authority.as_str(), target.path.as_str()),
            ("127.0.0.1:8080", "/a?b=c")
        );
        let target: Target = "http://[::1]:81".parse().expect("parses");
        assert_eq!((target.address.port(), target.path.as_str()), (81, "/"));
    }

    #[test]
    fn other_schemes_and_relative_paths_are_refused() {
        for bad in ["https://127.0.0.1/", "/x", "127.0.0.1", ""] {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
    }
}
