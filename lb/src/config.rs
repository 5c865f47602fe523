//! What an ingress is told at its start.
//!
//! [`RawConfig`] is the YAML of `--config`, with the command line's flags merged in;
//! [`RawConfig::validate`] turns it into a [`Config`] or says what is wrong, where, and what was
//! probably meant. With `services` it describes a stand-alone balancer, without them a member of a
//! cluster.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ballast_link::{JoinToken, paths};
use ballast_model::{
    AssignmentId, Endpoint, Generation, Health, Millis, NodeId, PortTable, Protocol, RouteRule,
    ServiceId, ServiceTable, nearest,
};
use ballast_wire::join::JoinRole;
use serde::Deserialize;
use serde_saphyr::Spanned;

use crate::l7::Timeouts;
use crate::listeners::Shared;

/// Where the shared HTTP listener of a cluster's ingress listens by default.
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8000);
/// Where agents connect to by default.
const DEFAULT_FEED: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 7430);
/// Where the admin server listens by default.
const DEFAULT_ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7431);
/// The node that stand-alone endpoints belong to: they have no agent.
pub const NO_NODE: NodeId = NodeId::from_bits(0);
/// The only policy so far: of two endpoints drawn at random, the one with less in flight.
const POLICIES: [&str; 1] = ["p2c"];

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Something in the file is wrong.
    #[error("{path}:{line}: {message}")]
    InFile {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: u64,
        /// What.
        message: String,
    },
    /// Something is wrong that has no line.
    #[error("{0}")]
    Invalid(String),
}

/// The file's content, or what the flags say. Every field may be left out.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawConfig {
    /// The file that it was read from, for messages and for reloads.
    #[serde(skip)]
    pub path: Option<PathBuf>,
    /// The join token: needed at the first start in a cluster.
    pub join: Option<String>,
    /// `host:port` of managers; the token's is asked if none is given.
    pub manager: Vec<String>,
    /// This ingress's name, for people.
    pub name: Option<String>,
    /// The shared listeners.
    pub listen: RawListen,
    /// The address that published ports are bound to.
    pub bind: Option<IpAddr>,
    /// Where agents connect to.
    pub feed: Option<SocketAddr>,
    /// The same as agents see it.
    pub advertise_feed: Option<SocketAddr>,
    /// Where credentials and the last route table are kept.
    pub data_dir: Option<PathBuf>,
    /// Where the admin server listens, or `off`.
    pub admin: Option<String>,
    /// Threads that serve.
    pub threads: Option<usize>,
    /// The certificate for `listen.https`.
    pub tls: Option<RawTls>,
    /// How long things may take.
    pub timeouts: RawTimeouts,
    /// Stand-alone: the services by name.
    pub services: Option<BTreeMap<String, RawService>>,
    /// Stand-alone: which requests go to which service.
    pub routes: Vec<RawRoute>,
    /// Stand-alone: the L4 balancer in the kernel; not served yet.
    pub l4: Option<Spanned<serde::de::IgnoredAny>>,
}

/// The shared listeners.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawListen {
    /// Plain HTTP/1.1 and HTTP/2.
    pub http: Option<SocketAddr>,
    /// The same over TLS.
    pub https: Option<SocketAddr>,
}

/// A certificate.
#[derive(Debug, Clone, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct RawTls {
    /// PEM file: the certificate, then its issuers.
    pub certificate: PathBuf,
    /// PEM file: its key.
    pub key: PathBuf,
}

/// How long things may take; see [`Timeouts`].
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawTimeouts {
    /// See [`Timeouts::connect`].
    pub connect: Option<Millis>,
    /// See [`Timeouts::read`].
    pub read: Option<Millis>,
    /// See [`Timeouts::write`].
    pub write: Option<Millis>,
    /// See [`Timeouts::whole`].
    pub whole: Option<Millis>,
    /// See [`Timeouts::keep`].
    pub keep: Option<Millis>,
    /// See [`Timeouts::hold`].
    pub hold: Option<Millis>,
}

/// A stand-alone service.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawService {
    /// `host:port` each.
    pub endpoints: Vec<Spanned<String>>,
    /// How endpoints are chosen.
    #[serde(default)]
    pub policy: Option<Spanned<String>>,
    /// How endpoints are checked; a TCP connection a second if not given.
    #[serde(default)]
    pub check: RawCheck,
}

/// How stand-alone endpoints are checked.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawCheck {
    /// A path to GET, answered with a status below 400; without it, a connection is enough.
    pub http: Option<String>,
    /// Between two checks.
    pub interval: Option<Millis>,
    /// After which a check has failed.
    pub timeout: Option<Millis>,
    /// Failures in a row that take an endpoint out.
    pub fall: Option<u32>,
    /// Successes in a row that take it in again.
    pub rise: Option<u32>,
}

/// A stand-alone route.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawRoute {
    /// What it matches; everything if left out.
    #[serde(default, rename = "match")]
    pub matches: RawMatch,
    /// Where it leads.
    pub service: Spanned<String>,
}

/// What a route matches.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawMatch {
    /// Exact host, `*.suffix`, or none for any.
    pub host: Option<String>,
    /// Whole path segments.
    pub path_prefix: Option<Spanned<String>>,
}

/// A proven configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The shared listeners.
    pub listen: Shared,
    /// The address that published ports are bound to.
    pub bind: IpAddr,
    /// Where the admin server listens, if anywhere.
    pub admin: Option<SocketAddr>,
    /// Whether that was said: the default address may be taken by another ingress of the machine,
    /// which is no reason not to serve.
    pub admin_said: bool,
    /// Threads that serve, if said: whoever makes the runtime honours it.
    pub threads: Option<NonZeroUsize>,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// The certificate for `listen.https`.
    pub tls: Option<RawTls>,
    /// Where the table comes from.
    pub mode: Mode,
}

/// Where the route table comes from.
#[derive(Debug, Clone)]
pub enum Mode {
    /// From the file, which is read again when it changes.
    StandAlone(StandAlone),
    /// From the managers and agents of a cluster.
    Cluster(Cluster),
}

/// The services of the file.
#[derive(Debug, Clone)]
pub struct StandAlone {
    /// The file, if there is one.
    pub path: Option<PathBuf>,
    /// Services as a manager would describe them.
    pub tables: Vec<ServiceTable>,
    /// How the endpoints of each service are checked.
    pub checks: BTreeMap<ServiceId, Check>,
}

/// How stand-alone endpoints are checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// A path to GET, or only a connection.
    pub http: Option<String>,
    /// Between two checks.
    pub interval: Duration,
    /// After which a check has failed.
    pub timeout: Duration,
    /// Failures in a row that take an endpoint out.
    pub fall: u32,
    /// Successes in a row that take it in again.
    pub rise: u32,
}

/// How to be a member of a cluster.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// The join token, if given.
    pub join: Option<JoinToken>,
    /// `host:port` of managers, the first to ask first.
    pub managers: Vec<String>,
    /// This ingress's name, for people.
    pub name: String,
    /// Where agents connect to.
    pub feed: SocketAddr,
    /// The same as agents see it, if it differs.
    pub advertise_feed: Option<SocketAddr>,
    /// Where credentials and the last route table are kept.
    pub data_dir: PathBuf,
}

impl RawConfig {
    /// Reads a file.
    ///
    /// # Errors
    /// [`ConfigError`] with the line, and the nearest known key for an unknown one.
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::from_text(path, &text)
    }

    /// The same for a text that was read already; an empty one says nothing.
    ///
    /// # Errors
    /// See [`RawConfig::from_file`].
    pub fn from_text(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let raw: Option<Self> = serde_saphyr::from_str(text).map_err(|error| {
            let plain = error.without_snippet();
            ConfigError::InFile {
                path: path.to_owned(),
                line: plain.location().map_or(1, |location| location.line()),
                message: describe(plain),
            }
        })?;
        Ok(Self {
            path: Some(path.to_owned()),
            ..raw.unwrap_or_default()
        })
    }

    /// Proves it.
    ///
    /// # Errors
    /// [`ConfigError`]: what is wrong, with its line if it came from a file.
    pub fn validate(self) -> Result<Config, ConfigError> {
        if let Some(l4) = &self.l4 {
            let message = "`l4` is not available yet: remove it, and publish TCP ports instead";
            return Err(self.at(l4, message.to_owned()));
        }
        let stand_alone = self.services.is_some() || !self.routes.is_empty();
        if stand_alone && self.join.is_some() {
            let message = "`services` make a stand-alone balancer, `join` a member of a cluster: \
                           only one can be";
            return Err(ConfigError::Invalid(message.to_owned()));
        }
        if self.listen.https.is_some() && self.tls.is_none() {
            let message = "`listen.https` needs `tls: {certificate: FILE, key: FILE}`";
            return Err(ConfigError::Invalid(message.to_owned()));
        }
        let threads = self.threads.map(|threads| {
            let message = "`threads` must be 1 or more";
            NonZeroUsize::new(threads).ok_or_else(|| ConfigError::Invalid(message.to_owned()))
        });
        Ok(Config {
            listen: self.listen(stand_alone)?,
            bind: self.bind.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            admin: self.admin()?,
            admin_said: self.admin.is_some(),
            threads: threads.transpose()?,
            timeouts: self.timeouts(stand_alone),
            tls: self.tls.clone(),
            mode: if stand_alone {
                Mode::StandAlone(self.stand_alone()?)
            } else {
                Mode::Cluster(self.cluster()?)
            },
        })
    }

    fn listen(&self, stand_alone: bool) -> Result<Shared, ConfigError> {
        let RawListen { http, https } = self.listen;
        let listen = Shared {
            http: http.or((!stand_alone).then_some(DEFAULT_LISTEN)),
            https,
        };
        if listen == Shared::default() {
            let message = "`listen` names neither `http` nor `https`";
            return Err(ConfigError::Invalid(message.to_owned()));
        }
        Ok(listen)
    }

    fn admin(&self) -> Result<Option<SocketAddr>, ConfigError> {
        match self.admin.as_deref() {
            None => Ok(Some(DEFAULT_ADMIN)),
            Some("off") => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| {
                let message = format!("`{text}` is not an address for `admin`: IP:PORT, or off");
                ConfigError::Invalid(message)
            }),
        }
    }

    fn timeouts(&self, stand_alone: bool) -> Timeouts {
        let mut timeouts = Timeouts::default();
        if stand_alone {
            // Nobody is restarting the endpoint: waiting for it would only add to the delay.
            timeouts.hold = Duration::ZERO;
        }
        let raw = &self.timeouts;
        for (field, value) in [
            (&mut timeouts.connect, raw.connect),
            (&mut timeouts.read, raw.read),
            (&mut timeouts.write, raw.write),
            (&mut timeouts.whole, raw.whole),
            (&mut timeouts.keep, raw.keep),
            (&mut timeouts.hold, raw.hold),
        ] {
            if let Some(value) = value {
                *field = value.to_duration();
            }
        }
        timeouts
    }

    fn stand_alone(&self) -> Result<StandAlone, ConfigError> {
        let services = self.services.clone().unwrap_or_default();
        let mut routes: BTreeMap<&str, Vec<RouteRule>> = BTreeMap::new();
        for route in &self.routes {
            let name = route.service.value.as_str();
            if !services.contains_key(name) {
                let names = services.keys().map(String::as_str);
                let message = with_nearest(format!("no service is called `{name}`"), name, names);
                return Err(self.at(&route.service, message));
            }
            let rule = self.rule(&route.matches)?;
            routes.entry(name).or_default().push(rule);
        }
        let mut tables = Vec::new();
        let mut checks = BTreeMap::new();
        for (name, raw) in &services {
            let id = ServiceId::from_bits(stable_hash(&[name]));
            let routes = routes.remove(name.as_str()).unwrap_or_default();
            tables.push(self.service(id, name, raw, routes)?);
            checks.insert(id, raw.check.validate(name)?);
        }
        Ok(StandAlone {
            path: self.path.clone(),
            tables,
            checks,
        })
    }

    fn rule(&self, raw: &RawMatch) -> Result<RouteRule, ConfigError> {
        let path_prefix = match &raw.path_prefix {
            Some(prefix) if !prefix.value.starts_with('/') => {
                let message = format!("path prefix `{}` does not start with `/`", prefix.value);
                return Err(self.at(prefix, message));
            }
            Some(prefix) => prefix.value.clone(),
            None => "/".to_owned(),
        };
        Ok(RouteRule {
            host: raw.host.clone(),
            path_prefix,
        })
    }

    fn service(
        &self,
        id: ServiceId,
        name: &str,
        raw: &RawService,
        routes: Vec<RouteRule>,
    ) -> Result<ServiceTable, ConfigError> {
        if let Some(policy) = &raw.policy
            && !POLICIES.contains(&policy.value.as_str())
        {
            let message = format!("`{}` is not a policy: p2c is", policy.value);
            return Err(self.at(policy, message));
        }
        let mut endpoints: Vec<Endpoint> = Vec::new();
        for text in &raw.endpoints {
            let address = resolve(&text.value).map_err(|message| self.at(text, message))?;
            if endpoints.iter().any(|other| other.address == address) {
                return Err(self.at(text, format!("endpoint {address} is listed twice")));
            }
            endpoints.push(Endpoint {
                assignment: AssignmentId::from_bits(stable_hash(&[name, &address.to_string()])),
                node: NO_NODE,
                address,
                // Until the first check says otherwise: it must serve from the first moment.
                health: Health::Healthy,
            });
        }
        Ok(ServiceTable {
            service: id,
            name: name.to_owned(),
            generation: Generation(0),
            ports: vec![PortTable {
                name: "http".to_owned(),
                protocol: Protocol::Http,
                published: None,
                routes,
                endpoints,
            }],
        })
    }

    fn cluster(&self) -> Result<Cluster, ConfigError> {
        let invalid = |message: String| ConfigError::Invalid(message);
        let join = self.join.as_deref().map(str::parse::<JoinToken>);
        let join = join.transpose().map_err(|e| invalid(e.to_string()))?;
        if join
            .as_ref()
            .is_some_and(|join| join.role != JoinRole::Ingress)
        {
            let message = "the join token is an agent's: `ballast node join-token ingress` on a \
                           manager prints an ingress's";
            return Err(invalid(message.to_owned()));
        }
        let mut managers = self.manager.clone();
        if managers.is_empty() {
            managers.extend(join.as_ref().and_then(|join| join.manager.clone()));
        }
        let feed = self.feed.unwrap_or(DEFAULT_FEED);
        Ok(Cluster {
            join,
            managers,
            name: self.name.clone().unwrap_or_else(host_name),
            feed,
            advertise_feed: self.advertise_feed,
            data_dir: self
                .data_dir
                .clone()
                .unwrap_or_else(|| paths::data_dir("ingress")),
        })
    }

    fn at<T>(&self, place: &Spanned<T>, message: String) -> ConfigError {
        match &self.path {
            Some(path) => ConfigError::InFile {
                path: path.clone(),
                line: place.referenced.line(),
                message,
            },
            None => ConfigError::Invalid(message),
        }
    }
}

impl RawCheck {
    fn validate(&self, service: &str) -> Result<Check, ConfigError> {
        let span =
            |value: Option<Millis>, default: u64| value.unwrap_or(Millis(default)).to_duration();
        let check = Check {
            http: self.http.clone(),
            interval: span(self.interval, 1000),
            timeout: span(self.timeout, 1000),
            fall: self.fall.unwrap_or(1),
            rise: self.rise.unwrap_or(1),
        };
        let wrong = if check.interval < Duration::from_millis(10) {
            Some("`interval` must be 10ms or more")
        } else if check.timeout.is_zero() {
            Some("`timeout` must be more than 0")
        } else if check.fall == 0 || check.rise == 0 {
            Some("`fall` and `rise` must be 1 or more")
        } else if check
            .http
            .as_ref()
            .is_some_and(|path| !path.starts_with('/'))
        {
            Some("`http` is a path and starts with `/`")
        } else {
            None
        };
        match wrong {
            Some(wrong) => {
                let message = format!("check of service `{service}`: {wrong}");
                Err(ConfigError::Invalid(message))
            }
            None => Ok(check),
        }
    }
}

fn describe(error: &serde_saphyr::Error) -> String {
    match error {
        serde_saphyr::Error::SerdeUnknownField {
            field, expected, ..
        } => with_nearest(
            format!("unknown key `{field}`"),
            field,
            expected.iter().copied(),
        ),
        other => {
            let text = other.to_string();
            // Its own words name the place once more: "… at line 3, column 5".
            let end = text.find(" at line ").unwrap_or(text.len());
            text[..end].lines().next().unwrap_or("invalid").to_owned()
        }
    }
}

fn with_nearest<'a>(
    message: String,
    given: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    match nearest(given, known.iter().copied()) {
        Some(meant) => format!("{message}; did you mean `{meant}`?"),
        None if known.is_empty() => message,
        None => format!("{message}; there are {}", known.join(", ")),
    }
}

fn resolve(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let found = text.to_socket_addrs().map_err(|error| {
        format!("endpoint `{text}` is not ADDRESS:PORT, such as `127.0.0.1:9001` ({error})")
    })?;
    // IPv4 first: most programs that are told `localhost` listen there.
    let mut found: Vec<SocketAddr> = found.collect();
    found.sort_by_key(SocketAddr::is_ipv6);
    found
        .first()
        .copied()
        .ok_or_else(|| format!("endpoint `{text}` has no address"))
}

/// FNV-1a: the same names are the same endpoints after a reload, and in the next process, too.
fn stable_hash(parts: &[&str]) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for part in parts {
        for byte in part.bytes().chain([0]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash
}

fn host_name() -> String {
    let name = rustix::system::uname();
    name.nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, String> {
        RawConfig::from_text(Path::new("lb.yaml"), text)
            .and_then(RawConfig::validate)
            .map_err(|error| error.to_string())
    }

    const CONTRACT: &str = r#"
listen: { http: "127.0.0.1:8090" }
threads: 1
services:
  web: { endpoints: ["127.0.0.1:9001", "127.0.0.1:9002"], policy: p2c }
routes:
  - { match: { host: "example.test", path_prefix: "/" }, service: web }
"#;

    #[test]
    fn contracts_file_is_read() {
        let config = read(CONTRACT).expect("is valid");
        assert_eq!(config.threads, NonZeroUsize::new(1));
        assert_eq!(config.admin, Some(DEFAULT_ADMIN));
        assert!(!config.admin_said);
        let Mode::StandAlone(alone) = config.mode else {
            panic!("services make it stand-alone");
        };
        let port = &alone.tables[0].ports[0];
        assert_eq!(port.endpoints.len(), 2);
        assert_eq!(port.routes[0].host.as_deref(), Some("example.test"));
        let again = read(CONTRACT).expect("is valid");
        let Mode::StandAlone(again) = again.mode else {
            panic!("services make it stand-alone");
        };
        assert_eq!(again.tables, alone.tables, "ids are stable");
    }

    #[test]
    fn mistakes_are_named_with_their_line_and_the_nearest_key() {
        let listen = "listen: { http: \"127.0.0.1:1\" }\n";
        for (text, expected) in [
            (
                "listen: {}\nservics: {}\n".to_owned(),
                "lb.yaml:2: unknown key `servics`; did you mean `services`?",
            ),
            (
                format!(
                    "{listen}services:\n  web: {{ endpoints: [\"127.0.0.1:9001\"] }}\nroutes:\n  - {{ service: wbe }}\n"
                ),
                "lb.yaml:5: no service is called `wbe`; did you mean `web`?",
            ),
            (
                format!("{listen}services:\n  web:\n    endpoints: [\"nine\"]\n"),
                "lb.yaml:4: endpoint `nine` is not ADDRESS:PORT",
            ),
            (
                format!("{listen}services:\n  web:\n    endpoints: []\n    policy: rr\n"),
                "lb.yaml:5: `rr` is not a policy",
            ),
            (
                format!("{listen}services: {{}}\nl4:\n  - {{ vip: \"10.0.0.100\" }}\n"),
                "lb.yaml:4: `l4` is not available yet",
            ),
            (format!("{listen}threads: many\n"), "lb.yaml:2: "),
            (
                format!("{listen}services: {{}}\nthreads: 0\n"),
                "`threads` must be 1 or more",
            ),
            (
                "listen: { https: \"127.0.0.1:1\" }\nservices: {}\n".to_owned(),
                "`listen.https` needs `tls",
            ),
            ("services: {}\n".to_owned(), "`listen` names neither"),
            (
                format!(
                    "{listen}services: {{}}\nroutes:\n  - {{ match: {{ path_prefix: x }}, service: a }}\n"
                ),
                "lb.yaml:4: no service is called `a`",
            ),
        ] {
            let error = read(&text).expect_err(&text);
            assert!(error.starts_with(expected), "{text}\n{error}");
        }
    }

    #[test]
    fn yaml_bomb_is_an_error() {
        use std::fmt::Write as _;
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for n in 1..30 {
            let before = format!("*a{}, ", n - 1).repeat(9);
            writeln!(text, "a{n}: &a{n} [{before}]").expect("writes");
        }
        assert!(read(&text).is_err());
    }

    #[test]
    fn nothing_said_makes_a_member_of_a_cluster_with_defaults() {
        let config = read("").expect("is valid");
        assert_eq!(config.listen.http, Some(DEFAULT_LISTEN));
        assert_eq!(config.admin, Some(DEFAULT_ADMIN));
        assert!(matches!(config.mode, Mode::Cluster(_)));
        assert!(read("join: nonsense").is_err());
    }
}
