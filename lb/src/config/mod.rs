//! What an ingress is told at its start.
//!
//! [`RawConfig`] is the YAML of `--config`, with the command line's flags merged in;
//! [`RawConfig::validate`] turns it into a [`Config`] or says what is wrong, where, and what was
//! probably meant. With `services` it describes a stand-alone balancer, without them a member of a
//! cluster.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ballast_link::{JoinToken, paths};
use ballast_model::{ServiceId, ServiceTable, nearest};
use ballast_wire::join::JoinRole;
use serde::Deserialize;
use serde_saphyr::Spanned;

use crate::admin::LogControl;
use crate::l4::L4Config;
use crate::l7::Timeouts;
use crate::l7::h1::Setup;
use crate::listeners::Shared;
use crate::observe::ObserveConfig;
use crate::upgrade::UpgradeConfig;

mod acme;
mod forwarded;
mod io;
mod l4;
mod listen;
mod observe;
mod route;
mod service;
mod timeouts;
mod tls;

pub use acme::RawAcme;
pub use forwarded::{RawForwarded, RawForwardedHeader};
pub use io::RawIo;
pub use l4::{RawL4, RawReal, RawXdp};
pub use listen::RawListen;
pub use observe::{RawAccessLog, RawTraces, RawUpgrade};
pub use route::{RawMatch, RawRoute};
pub use service::{Check, NO_NODE, RawCheck, RawService};
pub use timeouts::RawTimeouts;
pub use tls::{RawCertificate, RawClientAuth, RawTls};

use service::stable_hash;

/// Where agents connect to by default.
const DEFAULT_FEED: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 7430);
/// Where the admin server listens by default.
const DEFAULT_ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7431);

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

/// Keys and values of a file: ten thousand services of ten endpoints have a third of a million.
const MOST_NODES: usize = 4_000_000;

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
    /// The zone that it is in: services may prefer endpoints of the same.
    pub zone: Option<String>,
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
    /// What drives those that serve HTTP.
    pub io: RawIo,
    /// Whether each of those stays on a core of its own.
    pub pin_threads: bool,
    /// The certificates and settings of `listen.https`.
    pub tls: Option<RawTls>,
    /// Who is believed about clients, and how endpoints are told of them.
    pub forwarded: RawForwarded,
    /// How long things may take.
    pub timeouts: RawTimeouts,
    /// How one process takes over from another.
    pub upgrade: Option<RawUpgrade>,
    /// A line for each request, or for some.
    pub access_log: Option<RawAccessLog>,
    /// Whether each request gets an id, unless it has one.
    pub request_id: bool,
    /// Spans by OTLP.
    pub traces: Option<RawTraces>,
    /// Stand-alone: the services by name.
    pub services: Option<BTreeMap<String, RawService>>,
    /// Stand-alone: which requests go to which service.
    pub routes: Vec<Spanned<RawRoute>>,
    /// Stand-alone: the services of the L4 balancer.
    pub l4: Vec<Spanned<RawL4>>,
    /// How the L4 balancer is run in the kernel.
    pub xdp: RawXdp,
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
    /// The threads that serve HTTP.
    pub hot: Setup,
    /// The zone that it is in.
    pub zone: Option<String>,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// How the next process takes over from this one, if it may.
    pub upgrade: Option<UpgradeConfig>,
    /// What is told of single requests.
    pub observe: ObserveConfig,
    /// The certificates and settings of `listen.https`.
    pub tls: Option<crate::tls::Settings>,
    /// Who is believed about clients.
    pub hops: crate::l7::Hops,
    /// What is asked of an ACME server.
    pub acme: Option<crate::acme::AcmeSettings>,
    /// What is balanced at layer 4.
    pub l4: L4Config,
    /// Who can change what the process logs: for whoever makes it, the file has no say.
    pub log: Option<Arc<dyn LogControl>>,
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
        let options = serde_saphyr::options! {
            budget: serde_saphyr::budget! {
                max_nodes: MOST_NODES,
                max_events: 4 * MOST_NODES,
            },
        };
        let raw: Option<Self> =
            serde_saphyr::from_str_with_options(text, options).map_err(|error| {
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
        let stand_alone = self.services.is_some() || !self.routes.is_empty() || !self.l4.is_empty();
        let (l4, l4_tables) = self.l4()?;
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
        let threads = threads.transpose()?;
        Ok(Config {
            listen: self.listen(stand_alone)?,
            bind: self.bind.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            admin: self.admin()?,
            admin_said: self.admin.is_some(),
            threads,
            hot: self.hot(threads),
            zone: self.zone.clone(),
            timeouts: self.timeouts(stand_alone),
            upgrade: self.upgrade.as_ref().map(RawUpgrade::config),
            observe: observe::observe(
                self.access_log.as_ref(),
                self.request_id,
                self.traces.as_ref(),
            )?,
            tls: self.tls()?,
            acme: self.acme()?,
            hops: self.hops()?,
            log: None,
            l4,
            mode: if stand_alone {
                Mode::StandAlone(self.stand_alone(l4_tables)?)
            } else {
                Mode::Cluster(self.cluster()?)
            },
        })
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

    fn stand_alone(&self, l4: l4::Tables) -> Result<StandAlone, ConfigError> {
        let services = self.services.clone().unwrap_or_default();
        let mut routes = self.rules()?;
        let mut tables = Vec::new();
        let mut checks = BTreeMap::new();
        for (name, raw) in &services {
            let id = ServiceId::from_bits(stable_hash(&[name]));
            let routes = routes.remove(name.as_str()).unwrap_or_default();
            tables.push(self.service(id, name, raw, routes)?);
            checks.insert(id, raw.check.validate(name)?);
        }
        tables.extend(routes.into_values().map(route::answers));
        tables.extend(l4.0);
        checks.extend(l4.1);
        Ok(StandAlone {
            path: self.path.clone(),
            tables,
            checks,
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

    pub(super) fn at<T>(&self, place: &Spanned<T>, message: String) -> ConfigError {
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

pub(super) fn with_nearest<'a>(
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

fn host_name() -> String {
    let name = rustix::system::uname();
    name.nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests;
