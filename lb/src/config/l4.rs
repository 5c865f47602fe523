//! The L4 balancer of the file: `l4`, and `xdp` for how it is run.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ballast_ebpf_loader::Mode as AttachMode;
use ballast_model::{
    AssignmentId, Endpoint, Generation, Health, PortTable, Protocol, ServiceId, ServiceTable,
    Weight,
};
use serde::Deserialize;
use serde_saphyr::Spanned;

use super::service::{NO_NODE, stable_hash};
use super::{Check, ConfigError, RawCheck, RawConfig};
use crate::l4::{Forward, L4Config, L4Service, Net, Publish, Run, XdpOptions};
use crate::table::PoolKey;

/// Reals of one service at most: enough for each to have slots of a ring of the usual size.
const REALS_MAX: usize = 4_096;
/// Services at most, whatever `xdp.services` says: their rings are memory of the kernel.
const SERVICES_MAX: u32 = 4_000;
/// Slots of a ring at most.
const RING_MAX: u32 = 65_537;
/// Flows and translations at most: 16 bytes each, and 64.
const FLOWS_MAX: u32 = 1 << 26;
/// The largest QUIC server id.
const SERVER_ID_MAX: u32 = (1 << 24) - 1;

/// One service of the L4 balancer.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawL4 {
    /// What it is called; protocol, address and port if not given.
    #[serde(default)]
    name: Option<String>,
    /// Address or net that clients connect to.
    vip: Spanned<String>,
    /// Port; any if not given.
    #[serde(default)]
    port: Option<u16>,
    /// `tcp` or `udp`.
    protocol: RawProtocol,
    /// How packets get to the reals.
    mode: RawMode,
    /// `dsr`: in what.
    #[serde(default)]
    encapsulation: RawEncapsulation,
    /// Where packets to it come in.
    interface: String,
    /// Source of encapsulated or translated packets.
    #[serde(default)]
    source: Option<IpAddr>,
    /// Which flows go to the same real.
    #[serde(default)]
    affinity: RawAffinity,
    /// Whether UDP packets are QUIC.
    #[serde(default)]
    quic: bool,
    /// Whether pings are answered.
    #[serde(default = "yes")]
    echo: bool,
    /// Whether reals' nodes pass on what is not theirs.
    #[serde(default)]
    second_chance: bool,
    /// Who answers.
    reals: Vec<Spanned<RawReal>>,
    /// How reals are checked; a TCP connection a second if not given, nothing for UDP.
    #[serde(default)]
    check: Option<RawCheck>,
}

const fn yes() -> bool {
    true
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawProtocol {
    Tcp,
    Udp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawMode {
    Dsr,
    Nat,
    L2,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawEncapsulation {
    #[default]
    Ipip,
    Gue,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawAffinity {
    #[default]
    Flow,
    Source,
}

/// One real.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawReal {
    /// Its address; `nat`: with a port, if it is another than the service's.
    address: String,
    /// How much of the flows it gets beside the others; 0: no new ones.
    #[serde(default = "one")]
    weight: u16,
    /// `quic`: what connection ids call it.
    #[serde(default)]
    server_id: Option<u32>,
}

const fn one() -> u16 {
    1
}

/// How the balancer in the kernel is run.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawXdp {
    run: RawRun,
    pin: Option<PathBuf>,
    attach: RawAttach,
    key: Option<Spanned<String>>,
    flows: Option<u32>,
    translations: Option<u32>,
    services: Option<u32>,
    ring: Option<u32>,
    source_limit: u32,
    block: Vec<Spanned<String>>,
    nat_ports: Option<[u16; 2]>,
    detach_on_stop: bool,
    publish: Option<RawPublish>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum RawRun {
    #[default]
    Auto,
    Kernel,
    UserSpace,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum RawAttach {
    #[default]
    Any,
    Native,
    Generic,
}

/// Cluster: what becomes of published TCP and UDP ports.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPublish {
    vip: IpAddr,
    interface: String,
    mode: RawMode,
    #[serde(default)]
    encapsulation: RawEncapsulation,
    #[serde(default)]
    source: Option<IpAddr>,
}

/// The services of the L4 balancer as the route table knows them, and how they are checked.
pub(super) type Tables = (Vec<ServiceTable>, BTreeMap<ServiceId, Check>);

impl RawConfig {
    /// Proves `l4` and `xdp`.
    pub(super) fn l4(&self) -> Result<(L4Config, Tables), ConfigError> {
        let options = self.xdp_options()?;
        let most = options.services as usize;
        if self.l4.len() > most {
            let message = format!(
                "`l4` has {} services; `xdp: {{services: {most}}}` is what there is room for",
                self.l4.len()
            );
            return Err(self.at(&self.l4[most], message));
        }
        let mut seen = BTreeSet::new();
        let mut services = Vec::new();
        let mut tables = Tables::default();
        for raw in &self.l4 {
            let (service, table) = self.l4_service(raw)?;
            let place = (service.vip, service.port, service.protocol);
            if !seen.insert((place.0, place.1, service.protocol == Protocol::Udp)) {
                let message = format!("`{}` is there twice", service.name);
                return Err(self.at(&raw.value.vip, message));
            }
            let check = match (&raw.value.check, service.protocol, service.port) {
                (Some(check), ..) => Some(check.clone()),
                (None, Protocol::Tcp, Some(_)) => Some(RawCheck::default()),
                _ => None,
            };
            if let Some(check) = check {
                tables
                    .1
                    .insert(table.service, check.validate(&service.name)?);
            }
            tables.0.push(table);
            services.push(service);
        }
        let publish = self.xdp.publish.as_ref().map(|publish| Publish {
            vip: publish.vip,
            interface: publish.interface.clone(),
            forward: forward(publish.mode, publish.encapsulation),
            source: publish.source,
        });
        let config = L4Config {
            services,
            options,
            publish,
        };
        Ok((config, tables))
    }

    fn l4_service(&self, raw: &Spanned<RawL4>) -> Result<(L4Service, ServiceTable), ConfigError> {
        let l4 = &raw.value;
        let at_vip = |message: String| self.at(&l4.vip, message);
        let vip: Net = l4.vip.value.parse().map_err(at_vip)?;
        let port = l4.port.filter(|port| *port != 0);
        let (protocol, word) = match l4.protocol {
            RawProtocol::Tcp => (Protocol::Tcp, "tcp"),
            RawProtocol::Udp => (Protocol::Udp, "udp"),
        };
        let shown = port.map_or_else(|| "any".to_owned(), |port| port.to_string());
        let place = format!("{word}/{vip}/{shown}");
        let name = l4.name.clone().unwrap_or_else(|| place.clone());
        if let Some(message) = contradiction(l4, &name) {
            return Err(at_vip(message));
        }
        let id = ServiceId::from_bits(stable_hash(&["l4", &place]));
        let mut endpoints: Vec<Endpoint> = Vec::new();
        let mut server_ids = BTreeMap::new();
        for real in &l4.reals {
            let (endpoint, server) = self.l4_real(l4, &name, &vip, port, real)?;
            if endpoints
                .iter()
                .any(|other| other.address == endpoint.address)
            {
                let address = endpoint.address;
                return Err(self.at(real, format!("real {address} is listed twice")));
            }
            if let Some(server) = server {
                if server_ids.values().any(|other| *other == server) {
                    return Err(self.at(real, format!("server id {server} is given twice")));
                }
                server_ids.insert(endpoint.address, server);
            }
            endpoints.push(endpoint);
        }
        let service = L4Service {
            pool: PoolKey {
                service: id,
                port: word.into(),
            },
            vip,
            port,
            protocol,
            forward: forward(l4.mode, l4.encapsulation),
            interface: l4.interface.clone(),
            source: l4.source,
            by_source: matches!(l4.affinity, RawAffinity::Source),
            quic: l4.quic,
            echo: l4.echo,
            second_chance: l4.second_chance && l4.mode == RawMode::Dsr,
            server_ids,
            name: name.as_str().into(),
        };
        let table = ServiceTable {
            service: id,
            name,
            generation: Generation(0),
            ports: vec![PortTable {
                name: word.to_owned(),
                protocol,
                published: None,
                routes: Vec::new(),
                endpoints,
                balance: None,
                upstream: None,
            }],
        };
        Ok((service, table))
    }

    fn l4_real(
        &self,
        l4: &RawL4,
        service: &str,
        vip: &Net,
        port: Option<u16>,
        real: &Spanned<RawReal>,
    ) -> Result<(Endpoint, Option<u32>), ConfigError> {
        let text = &real.value.address;
        let wrong = |message: String| self.at(real, message);
        let address = match (text.parse::<IpAddr>(), text.parse::<SocketAddr>()) {
            (Ok(address), _) => SocketAddr::new(address, port.unwrap_or(0)),
            (_, Ok(address)) if l4.mode == RawMode::Nat => address,
            (_, Ok(address)) if Some(address.port()) == port => address,
            (_, Ok(_)) => {
                return Err(wrong(format!(
                    "real `{text}`: only `mode: nat` changes ports"
                )));
            }
            _ => {
                return Err(wrong(format!(
                    "`{text}` is not an address, such as `10.0.0.11` (`mode: nat`: or `10.0.0.11:8080`)"
                )));
            }
        };
        if l4.mode != RawMode::Dsr && address.is_ipv4() != vip.address.is_ipv4() {
            return Err(wrong(format!(
                "real `{text}` and the address `{vip}` of `{service}` are not of one family: only \
                 `mode: dsr` puts one into the other"
            )));
        }
        if vip.is_single() && address.ip() == vip.address {
            return Err(wrong(format!("real `{text}` is the service's own address")));
        }
        if real.value.weight > Weight::MAX.0 {
            return Err(wrong(format!("a weight is 0 to {}", Weight::MAX.0)));
        }
        if let Some(server) = real.value.server_id
            && (!l4.quic || server == 0 || server > SERVER_ID_MAX)
        {
            return Err(wrong(format!(
                "`server_id` is 1 to {SERVER_ID_MAX}, and for `quic: true`"
            )));
        }
        let named = ["l4", service, &address.to_string()];
        let endpoint = Endpoint {
            assignment: AssignmentId::from_bits(stable_hash(&named)),
            node: NO_NODE,
            address,
            // Until the first check says otherwise: it must serve from the first moment.
            health: Health::Healthy,
            weight: Weight(real.value.weight),
            zone: None,
        };
        Ok((endpoint, real.value.server_id))
    }

    fn xdp_options(&self) -> Result<XdpOptions, ConfigError> {
        let raw = &self.xdp;
        let default = XdpOptions::default();
        let within =
            |name: &str, value: Option<u32>, default: u32, range: std::ops::RangeInclusive<u32>| {
                let value = value.unwrap_or(default);
                if range.contains(&value) {
                    return Ok(value);
                }
                let (least, most) = (range.start(), range.end());
                let message = format!("`xdp.{name}` is {least} to {most}");
                Err(ConfigError::Invalid(message))
            };
        let block = raw.block.iter().map(|text| {
            let net = text.value.parse::<Net>();
            net.map_err(|message| self.at(text, message))
        });
        let (nat_base, nat_count) = match raw.nat_ports {
            None => (default.nat_base, default.nat_count),
            Some([first, last]) if first >= 1024 && last > first => (first, last - first),
            Some(_) => {
                let message = "`xdp.nat_ports` is [FIRST, LAST], from 1024 on";
                return Err(ConfigError::Invalid(message.to_owned()));
            }
        };
        Ok(XdpOptions {
            run: match raw.run {
                RawRun::Auto => Run::Auto,
                RawRun::Kernel => Run::Kernel,
                RawRun::UserSpace => Run::User,
            },
            pin: raw.pin.clone(),
            attach: match raw.attach {
                RawAttach::Any => AttachMode::Any,
                RawAttach::Native => AttachMode::Native,
                RawAttach::Generic => AttachMode::Generic,
            },
            key: raw.key.as_ref().map(|key| self.key(key)).transpose()?,
            flows: within("flows", raw.flows, default.flows, 1_024..=FLOWS_MAX)?,
            translations: within(
                "translations",
                raw.translations,
                default.translations,
                1_024..=FLOWS_MAX,
            )?,
            services: within("services", raw.services, default.services, 1..=SERVICES_MAX)?,
            ring: within("ring", raw.ring, default.ring, 1..=RING_MAX)?,
            source_limit: raw.source_limit,
            block: block.collect::<Result<_, _>>()?,
            nat_base,
            nat_count,
            detach_on_stop: raw.detach_on_stop,
        })
    }

    fn key(&self, text: &Spanned<String>) -> Result<[u64; 2], ConfigError> {
        let value = u128::from_str_radix(&text.value, 16).ok();
        let value = value.filter(|_| text.value.len() == 32);
        let Some(value) = value else {
            let message = "`xdp.key` is 32 hexadecimal digits (openssl rand -hex 16)";
            return Err(self.at(text, message.to_owned()));
        };
        #[expect(clippy::cast_possible_truncation, reason = "its two halves")]
        let halves = [(value >> 64) as u64, value as u64];
        Ok(halves)
    }
}

/// Returns what in a service cannot be, whatever its reals are.
fn contradiction(l4: &RawL4, name: &str) -> Option<String> {
    let count = l4.reals.len();
    let idle = count > 0 && l4.reals.iter().all(|real| real.value.weight == 0);
    if l4.quic && matches!(l4.protocol, RawProtocol::Tcp) {
        Some(format!("`{name}`: QUIC is spoken over `protocol: udp`"))
    } else if l4.mode != RawMode::Dsr && l4.encapsulation != RawEncapsulation::default() {
        Some(format!("`{name}`: `encapsulation` is for `mode: dsr`"))
    } else if count > REALS_MAX {
        Some(format!(
            "`{name}` has {count} reals; {REALS_MAX} is the most"
        ))
    } else if idle {
        Some(format!(
            "`{name}`: every real's weight is 0: nobody is left to take flows"
        ))
    } else {
        None
    }
}

fn forward(mode: RawMode, encapsulation: RawEncapsulation) -> Forward {
    match (mode, encapsulation) {
        (RawMode::Dsr, RawEncapsulation::Ipip) => Forward::Ipip,
        (RawMode::Dsr, RawEncapsulation::Gue) => Forward::Gue,
        (RawMode::Nat, _) => Forward::Nat,
        (RawMode::L2, _) => Forward::L2,
    }
}
