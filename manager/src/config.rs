//! What a manager is told: a YAML file and flags → [`RawConfig`] → [`Config`].

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use ballast_model::Millis;
use serde::Deserialize;

use crate::reconcile::MovePolicy;

/// How long members' certificates are valid unless told otherwise.
const CERTIFICATE_LIFETIME: Duration = Duration::from_hours(90 * 24);

/// Shorter ones would be renewed more often than a manager that is away for a moment allows.
const SHORTEST_LIFETIME: Duration = Duration::from_secs(10);

/// Moves in a second at most: the new tasks of a second are to answer before the next ones come.
const MOST_MOVES: u32 = 1000;
/// The shortest time between two looks for nodes to empty: each looks at every task.
const LEAST_EVERY: Millis = Millis::from_secs(10);

/// Mode of the API's socket: whoever may write to it rules the cluster.
const SOCKET_MODE: u32 = 0o600;

/// The configuration as a file or flags hold it: everything may be left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawConfig {
    /// Folder of the log, snapshots and certificates.
    pub data_dir: Option<PathBuf>,
    /// The API's Unix socket.
    pub socket: Option<PathBuf>,
    /// Its mode in octal, such as `0660`.
    pub socket_mode: Option<String>,
    /// Where links, joins and the API over TLS arrive: `IP:PORT`.
    pub listen: Option<String>,
    /// The address under which others reach that port: `HOST:PORT`; goes into join tokens.
    pub advertise: Option<String>,
    /// Plain HTTP for `/metrics`, `/healthz` and `/readyz`: `IP:PORT`, or `off`.
    pub admin: Option<String>,
    /// How long members' certificates are valid, such as `90d`.
    pub certificate_lifetime: Option<Millis>,
    /// When and how fast tasks are moved although nothing is wrong with them.
    pub rebalance: Option<RawRebalance>,
}

/// When and how fast tasks are moved, as a file holds it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawRebalance {
    /// Whether services are evened out when nodes come or tasks end; `true` if not given.
    pub automatic: Option<bool>,
    /// Moves that begin in a second at most; 10 if not given.
    pub moves_per_second: Option<u32>,
    /// How often nodes are emptied, such as `6h`; never if not given.
    pub defragment_every: Option<Millis>,
}

/// A configuration that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {reason}{}", nearest.as_ref().map(|n| format!("; did you mean `{n}`?")).unwrap_or_default())]
pub struct ConfigError {
    /// Which key.
    pub key: String,
    /// What is wrong with it.
    pub reason: String,
    /// The nearest that would be right.
    pub nearest: Option<String>,
}

impl ConfigError {
    fn new(key: &str, reason: impl Into<String>) -> Self {
        Self {
            key: key.to_owned(),
            reason: reason.into(),
            nearest: None,
        }
    }
}

impl RawConfig {
    /// Every key.
    pub const KEYS: [&'static str; 8] = [
        "data_dir",
        "socket",
        "socket_mode",
        "listen",
        "advertise",
        "admin",
        "certificate_lifetime",
        "rebalance",
    ];

    /// Reads a YAML file's contents; an empty file is an empty configuration.
    ///
    /// # Errors
    /// With the line, and for an unknown key the nearest known one.
    pub fn from_yaml(text: &str) -> Result<Self, ConfigError> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        serde_saphyr::from_str(text).map_err(|error| {
            let reason = error.to_string();
            let unknown = reason
                .split_once("unknown field `")
                .and_then(|(_, rest)| rest.split_once('`'))
                .map(|(key, _)| key.to_owned());
            ConfigError {
                nearest: unknown
                    .as_deref()
                    .and_then(|key| ballast_model::nearest(key, Self::KEYS))
                    .map(ToOwned::to_owned),
                key: unknown.unwrap_or_else(|| "the configuration".to_owned()),
                reason,
            }
        })
    }

    /// Returns this with every key that `flags` has taken from there.
    #[must_use]
    pub fn overridden_by(self, flags: Self) -> Self {
        Self {
            data_dir: flags.data_dir.or(self.data_dir),
            socket: flags.socket.or(self.socket),
            socket_mode: flags.socket_mode.or(self.socket_mode),
            listen: flags.listen.or(self.listen),
            advertise: flags.advertise.or(self.advertise),
            admin: flags.admin.or(self.admin),
            certificate_lifetime: flags.certificate_lifetime.or(self.certificate_lifetime),
            rebalance: flags.rebalance.or(self.rebalance),
        }
    }

    /// Proves the configuration and fills in the defaults.
    ///
    /// # Errors
    /// The first key that is wrong.
    pub fn validate(self) -> Result<Config, ConfigError> {
        let listen = parse_address("listen", self.listen.as_deref().unwrap_or("0.0.0.0:7400"))?;
        let admin = match self.admin.as_deref().unwrap_or("127.0.0.1:7410") {
            "off" => None,
            text => Some(parse_address("admin", text)?),
        };
        let socket_mode = match self.socket_mode.as_deref() {
            None => SOCKET_MODE,
            Some(text) => u32::from_str_radix(text.trim_start_matches("0o"), 8)
                .ok()
                .filter(|mode| mode & !0o777 == 0)
                .ok_or_else(|| {
                    let reason = format!("`{text}` is not a file mode in octal, such as `0660`");
                    ConfigError::new("socket_mode", reason)
                })?,
        };
        if let Some(advertise) = &self.advertise {
            check_advertised(advertise)?;
        }
        let lifetime = self
            .certificate_lifetime
            .map_or(CERTIFICATE_LIFETIME, Millis::to_duration);
        if lifetime < SHORTEST_LIFETIME {
            return Err(ConfigError {
                nearest: Some("10s".to_owned()),
                ..ConfigError::new("certificate_lifetime", "is too short to be renewed in time")
            });
        }
        Ok(Config {
            data_dir: self
                .data_dir
                .unwrap_or_else(|| ballast_link::paths::data_dir("manager")),
            socket: self.socket.unwrap_or_else(ballast_link::paths::socket),
            socket_mode,
            listen,
            advertise: self.advertise,
            admin,
            certificate_lifetime: lifetime,
            moves: self.rebalance.unwrap_or_default().validate()?,
        })
    }
}

impl RawRebalance {
    fn validate(self) -> Result<MovePolicy, ConfigError> {
        let default = MovePolicy::default();
        if self.moves_per_second.is_some_and(|most| most > MOST_MOVES) {
            return Err(ConfigError {
                nearest: Some(MOST_MOVES.to_string()),
                ..ConfigError::new("rebalance.moves_per_second", "is more than the limit")
            });
        }
        if self
            .defragment_every
            .is_some_and(|every| every < LEAST_EVERY)
        {
            return Err(ConfigError {
                nearest: Some(LEAST_EVERY.to_string()),
                ..ConfigError::new("rebalance.defragment_every", "is too often")
            });
        }
        Ok(MovePolicy {
            automatic: self.automatic.unwrap_or(default.automatic),
            per_second: self.moves_per_second.unwrap_or(default.per_second),
            defragment_every: self.defragment_every,
        })
    }
}

fn parse_address(key: &str, text: &str) -> Result<SocketAddr, ConfigError> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let mut error = ConfigError::new(key, format!("`{text}` is not IP:PORT"));
    if text.parse::<IpAddr>().is_ok() {
        error.nearest = Some(format!("{text}:7400"));
    }
    Err(error)
}

fn check_advertised(text: &str) -> Result<(), ConfigError> {
    let port = text.rsplit_once(':').filter(|(host, _)| !host.is_empty());
    match port.map(|(_, port)| port.parse::<u16>()) {
        Some(Ok(1..)) => Ok(()),
        _ => Err(ConfigError::new(
            "advertise",
            format!("`{text}` is not HOST:PORT, such as `10.0.0.1:7400`"),
        )),
    }
}

/// A proven configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Folder of the log, snapshots and certificates; one manager's alone.
    pub data_dir: PathBuf,
    /// The API's Unix socket.
    pub socket: PathBuf,
    /// Its mode.
    pub socket_mode: u32,
    /// Where links, joins and the API over TLS arrive; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The address under which others reach `listen`; found out if none.
    pub advertise: Option<String>,
    /// Plain HTTP for metrics and health, if any; port 0 takes a free one.
    pub admin: Option<SocketAddr>,
    /// How long members' certificates are valid.
    pub certificate_lifetime: Duration,
    /// When and how fast tasks are moved although nothing is wrong with them.
    pub moves: MovePolicy,
}

impl Config {
    /// Returns what to advertise, given the address that was bound: the configured one, else the
    /// bound IP, else (bound to all) the IP from which this machine talks to others.
    pub fn advertised(&self, bound: SocketAddr) -> String {
        if let Some(advertise) = &self.advertise {
            return advertise.clone();
        }
        let ip = match bound.ip() {
            ip if !ip.is_unspecified() => ip,
            _ => outward_ip().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        };
        SocketAddr::new(ip, bound.port()).to_string()
    }
}

/// Returns the source address of packets that leave this machine. Nothing is sent: connecting a
/// UDP socket only asks the routing table.
fn outward_ip() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // Of the block that is reserved for documentation.
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let file = RawConfig::from_yaml("listen: 127.0.0.1:1\nadmin: 'off'\n").expect("reads");
        let flags = RawConfig {
            listen: Some("127.0.0.1:2".to_owned()),
            ..RawConfig::default()
        };
        let config = file.overridden_by(flags).validate().expect("is valid");
        assert_eq!(config.listen.port(), 2);
        assert_eq!(config.admin, None);
        assert_eq!(config.certificate_lifetime, CERTIFICATE_LIFETIME);
    }

    #[test]
    fn unknown_key_is_refused_with_the_nearest() {
        let error = RawConfig::from_yaml("lisen: 127.0.0.1:1\n").expect_err("is unknown");
        assert_eq!(error.nearest.as_deref(), Some("listen"), "{error}");
        assert_eq!(error.key, "lisen");
    }

    #[test]
    fn wrong_values_name_their_key() {
        for (yaml, key) in [
            ("listen: nowhere", "listen"),
            ("admin: 7410", "admin"),
            ("socket_mode: '999'", "socket_mode"),
            ("advertise: host", "advertise"),
            ("certificate_lifetime: 1s", "certificate_lifetime"),
            (
                "rebalance: { moves_per_second: 9999 }",
                "rebalance.moves_per_second",
            ),
            (
                "rebalance: { defragment_every: 1s }",
                "rebalance.defragment_every",
            ),
        ] {
            let error = RawConfig::from_yaml(yaml)
                .and_then(RawConfig::validate)
                .expect_err(yaml);
            assert_eq!(error.key, key, "{error}");
        }
    }

    #[test]
    fn bound_to_all_advertises_something_reachable() {
        let config = RawConfig::default().validate().expect("defaults are valid");
        let advertised = config.advertised("0.0.0.0:7400".parse().expect("an address"));
        assert!(!advertised.starts_with("0.0.0.0"), "{advertised}");
        assert_eq!(
            config.advertised("10.1.2.3:5".parse().expect("an address")),
            "10.1.2.3:5"
        );
    }
}
