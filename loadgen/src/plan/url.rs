//! URLs that can be driven.

use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;

use super::template::{Template, TemplateError};
use super::{Protocol, Target, Tls, nearest};

/// Addresses of one host that are used; more are left out.
const ADDRESSES: usize = 64;

/// What a URL says is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// HTTP/1.1.
    Http,
    /// HTTP over TLS.
    Https,
    /// HTTP/2 without TLS, known beforehand.
    H2c,
    /// gRPC without TLS.
    Grpc,
    /// gRPC over TLS.
    Grpcs,
    /// WebSocket.
    Ws,
    /// WebSocket over TLS.
    Wss,
    /// A TCP connection.
    Tcp,
    /// Datagrams.
    Udp,
}

impl Scheme {
    /// Every scheme, by name.
    pub const ALL: [(&'static str, Self); 9] = [
        ("http", Self::Http),
        ("https", Self::Https),
        ("h2c", Self::H2c),
        ("grpc", Self::Grpc),
        ("grpcs", Self::Grpcs),
        ("ws", Self::Ws),
        ("wss", Self::Wss),
        ("tcp", Self::Tcp),
        ("udp", Self::Udp),
    ];

    /// Returns how it is written in a URL.
    pub fn name(self) -> &'static str {
        let all = Self::ALL.iter();
        all.clone()
            .find_map(|(name, scheme)| (*scheme == self).then_some(*name))
            .unwrap_or_default()
    }

    /// Returns whether TLS is spoken.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Https | Self::Grpcs | Self::Wss)
    }

    /// Returns what is spoken when nothing else is asked for.
    pub fn protocol(self) -> Protocol {
        match self {
            Self::Http | Self::Https => Protocol::Http1 { pipeline: 1 },
            Self::H2c => Protocol::Http2 { streams: 1 },
            Self::Grpc | Self::Grpcs => Protocol::Grpc { streams: 1 },
            Self::Ws | Self::Wss => Protocol::WebSocket,
            Self::Tcp => Protocol::TcpEcho,
            Self::Udp => Protocol::UdpEcho,
        }
    }

    fn default_port(self) -> Option<u16> {
        match self {
            Self::Http | Self::H2c | Self::Grpc | Self::Ws => Some(80),
            Self::Https | Self::Grpcs | Self::Wss => Some(443),
            Self::Tcp | Self::Udp => None,
        }
    }
}

/// A URL that can be driven; its path may have places ([`Template`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// What is spoken.
    pub scheme: Scheme,
    /// Name or address, without brackets.
    pub host: String,
    /// The port, the scheme's own if none is written.
    pub port: u16,
    /// Host and port as they were written.
    pub authority: String,
    /// Path and query; `/` if none is written.
    pub path: Template,
}

/// A URL that cannot be driven.
#[derive(Debug, thiserror::Error)]
pub enum UrlError {
    /// It does not begin with a scheme.
    #[error("`{0}` has no scheme; did you mean http://{0} ?")]
    NoScheme(String),
    /// Its scheme is not spoken.
    #[error(
        "`{name}://` is not spoken; there are http, https, h2c, grpc, grpcs, ws, wss, tcp and \
         udp{hint}"
    )]
    Scheme {
        /// As it was written.
        name: String,
        /// The nearest that there is, as the end of a sentence; may be empty.
        hint: String,
    },
    /// Nothing between `//` and the path.
    #[error("`{0}` has no host")]
    NoHost(String),
    /// The host or port cannot be one.
    #[error("`{authority}` is no HOST or HOST:PORT with a port from 1 to 65535")]
    Authority {
        /// As it was written.
        authority: String,
    },
    /// `user:password@`.
    #[error("`{0}` has a user in it; give --header 'Authorization: …' instead")]
    User(String),
    /// No port, and none is usual.
    #[error("`{0}` needs a port: {1}://HOST:PORT")]
    NoPort(String, &'static str),
    /// Its path is no template.
    #[error("the path of `{url}`")]
    Path {
        /// The whole.
        url: String,
        /// What is wrong in it.
        #[source]
        source: TemplateError,
    },
    /// Bytes that no request line may have.
    #[error("`{url}` has {found:?} in its path; write it as %{:02X}", *found as u32)]
    PathByte {
        /// The whole.
        url: String,
        /// The first of them.
        found: char,
    },
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

impl FromStr for Url {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| UrlError::NoScheme(text.to_owned()))?;
        let lower = scheme.to_ascii_lowercase();
        let scheme = Scheme::ALL
            .iter()
            .find_map(|(name, scheme)| (*name == lower).then_some(*scheme))
            .ok_or_else(|| UrlError::Scheme {
                name: scheme.to_owned(),
                hint: nearest(&lower, Scheme::ALL.map(|(name, _)| name))
                    .map(|near| format!("; did you mean {near}?"))
                    .unwrap_or_default(),
            })?;
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let (host, port) = host_and_port(text, authority)?;
        let Some(port) = port.or(scheme.default_port()) else {
            return Err(UrlError::NoPort(text.to_owned(), scheme.name()));
        };
        Ok(Self {
            scheme,
            host,
            port,
            authority: authority.to_owned(),
            path: parse_path(text, path)?,
        })
    }
}

fn host_and_port(url: &str, authority: &str) -> Result<(String, Option<u16>), UrlError> {
    if authority.contains('@') {
        return Err(UrlError::User(url.to_owned()));
    }
    if authority.is_empty() || authority.starts_with(':') {
        return Err(UrlError::NoHost(url.to_owned()));
    }
    let bad = || UrlError::Authority {
        authority: authority.to_owned(),
    };
    let parsed: http::uri::Authority = authority.parse().map_err(|_| bad())?;
    let host = parsed.host().trim_matches(['[', ']']).to_owned();
    let port = match authority.strip_prefix(parsed.host()) {
        Some("") => None,
        Some(port) => {
            let port = port.strip_prefix(':').ok_or_else(bad)?;
            Some(port.parse().ok().filter(|port| *port > 0).ok_or_else(bad)?)
        }
        None => return Err(bad()),
    };
    Ok((host, port))
}

fn parse_path(url: &str, path: &str) -> Result<Template, UrlError> {
    let path = path.split('#').next().unwrap_or_default();
    let path = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{path}")
    };
    let template = Template::parse(&path).map_err(|source| UrlError::Path {
        url: url.to_owned(),
        source,
    })?;
    for literal in template.literals() {
        let text = String::from_utf8_lossy(literal);
        if let Some(found) = text.chars().find(|c| !c.is_ascii_graphic()) {
            return Err(UrlError::PathByte {
                url: url.to_owned(),
                found,
            });
        }
    }
    Ok(template)
}

impl Url {
    /// Returns a target with this address and no request yet.
    ///
    /// # Errors
    /// [`UrlError::Resolve`] or [`UrlError::NoAddress`].
    pub fn resolve(&self) -> Result<Target, UrlError> {
        let addresses: Vec<SocketAddr> = (self.host.as_str(), self.port)
            .to_socket_addrs()
            .map_err(|source| UrlError::Resolve {
                authority: self.authority.clone(),
                source,
            })?
            .take(ADDRESSES)
            .collect();
        if addresses.is_empty() {
            return Err(UrlError::NoAddress(self.authority.clone()));
        }
        Ok(Target {
            addresses,
            tls: self.scheme.is_tls().then(|| Tls {
                server_name: self.host.clone(),
                ca_file: None,
                insecure: false,
            }),
            authority: self.authority.clone(),
            weight: 1,
            requests: Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().expect("parses")
    }

    fn error(text: &str) -> String {
        text.parse::<Url>().expect_err(text).to_string()
    }

    #[test]
    fn url_gives_scheme_host_port_and_path() {
        let plain = url("http://127.0.0.1:8080/a?b={{counter}}#c");
        assert_eq!((plain.host.as_str(), plain.port), ("127.0.0.1", 8080));
        assert_eq!(plain.authority, "127.0.0.1:8080");
        assert_eq!(
            plain.path,
            Template::parse("/a?b={{counter}}").expect("parses")
        );
        let six = url("HTTPS://[::1]");
        assert_eq!(
            (six.host.as_str(), six.port, six.scheme),
            ("::1", 443, Scheme::Https)
        );
        assert_eq!(url("http://a?x=1").path, Template::literal("/?x=1"));
        assert_eq!(url("http://a").path, Template::literal("/"));
        assert_eq!(url("udp://a:9").scheme.protocol(), Protocol::UdpEcho);
    }

    #[test]
    fn errors_say_what_would_be_right() {
        assert_eq!(
            error("127.0.0.1:80/x"),
            "`127.0.0.1:80/x` has no scheme; did you mean http://127.0.0.1:80/x ?"
        );
        assert!(error("htp://a/").ends_with("did you mean http?"));
        assert!(error("gopher://a/").contains("is not spoken"));
        assert_eq!(error("http:///x"), "`http:///x` has no host");
        assert_eq!(error("http://:80/x"), "`http://:80/x` has no host");
        assert!(error("http://u:p@a/").contains("--header"));
        assert_eq!(error("tcp://a"), "`tcp://a` needs a port: tcp://HOST:PORT");
        assert!(error("http://a/b c").contains("%20"));
        for bad in [
            "http://a:b/",
            "http://a:0/",
            "http://a:70000/",
            "http://[::1/",
            "http://a:/",
            "http://a b/",
        ] {
            assert!(error(bad).contains("is no HOST"), "{bad}: {}", error(bad));
        }
        assert!(error("").contains("no scheme"));
    }

    proptest::proptest! {
        #[test]
        fn prop_no_text_makes_the_parser_panic(text in "(http|tcp)?(://)?[a\\[\\]:@/?#{}é \\\\0-9]{0,12}") {
            let _ = text.parse::<Url>();
        }
    }
}
