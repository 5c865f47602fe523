//! Where the API is.

use std::fmt;
use std::path::PathBuf;

use crate::Failure;

/// An address of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// A Unix socket, guarded by its file mode.
    Unix(PathBuf),
    /// TCP without TLS: only of use through a tunnel, as the manager itself never serves it.
    Http {
        /// Name or IP address.
        name: String,
        /// Port.
        port: u16,
    },
    /// TCP with TLS and a client certificate.
    Https {
        /// Name or IP address.
        name: String,
        /// Port.
        port: u16,
    },
}

/// The port that managers listen on.
const DEFAULT_PORT: u16 = 7400;

impl Host {
    /// Reads a URL; the local socket if there is none.
    ///
    /// # Errors
    /// [`Failure::Usage`] if it is not one of the three forms.
    pub fn parse(url: Option<&str>) -> Result<Self, Failure> {
        let Some(url) = url.filter(|url| !url.is_empty()) else {
            return Ok(Self::Unix(ballast_link::paths::socket()));
        };
        let wrong = |reason: &str| {
            Failure::Usage(format!(
                "`{url}` is not a host: {reason}; write unix:///path/to/socket, http://host:port or https://host:port"
            ))
        };
        if let Some(path) = url.strip_prefix("unix://") {
            if !path.starts_with('/') {
                return Err(wrong("the socket's path must be absolute"));
            }
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        let (tls, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            _ => return Err(wrong("the scheme is missing or unknown")),
        };
        let authority: http::uri::Authority = rest
            .trim_end_matches('/')
            .parse()
            .map_err(|_| wrong("no host name and port after the scheme"))?;
        if authority.host().is_empty() || authority.as_str().contains('@') {
            return Err(wrong("no host name and port after the scheme"));
        }
        let name = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let port = authority.port_u16().unwrap_or(DEFAULT_PORT);
        Ok(if tls {
            Self::Https { name, port }
        } else {
            Self::Http { name, port }
        })
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Http { name, port } => write!(f, "http://{name}:{port}"),
            Self::Https { name, port } => write!(f, "https://{name}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_read_and_print() {
        for url in [
            "unix:///run/ballast/ballast.sock",
            "http://127.0.0.1:7400",
            "https://manager.test:9000",
        ] {
            assert_eq!(Host::parse(Some(url)).expect(url).to_string(), url);
        }
        assert_eq!(
            Host::parse(Some("https://[::1]/")).expect("v6"),
            Host::Https {
                name: "::1".to_owned(),
                port: 7400
            }
        );
    }

    #[test]
    fn other_texts_are_usage_errors() {
        for url in ["localhost", "unix://x", "ftp://x", "http://", "https://a b"] {
            let failure = Host::parse(Some(url)).expect_err(url);
            assert_eq!(failure.exit_status(), 2, "{url}");
        }
    }
}
