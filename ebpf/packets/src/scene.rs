//! The world that fixtures play in: one balancer with a service of every kind.
//!
//! Each service has one real unless it says otherwise, so that the expected packet does not depend
//! on a hash.

use std::net::IpAddr;

use anyhow::{Context, bail};
use ballast_ebpf_common::host::Tables;
use ballast_ebpf_common::layout::limits::NO_MEMBER;
use ballast_ebpf_common::layout::quic::QuicKey;
use ballast_ebpf_common::layout::{
    Address, Backend, Config, NetKey, TCP, UDP, Vip, VipKey, backend_flag, decap_flag, flag, mode,
    slot, state, vip_flag,
};

use crate::describe::mac;
use crate::kernel::Sizes;

/// Names of addresses in fixtures.
const NAMES: &[(&str, &str)] = &[
    // A client, another one, one that is blocked.
    ("c", "192.0.2.1"),
    ("c2", "192.0.2.2"),
    ("evil", "192.0.2.66"),
    // Addresses of services: open, closed, any port, in a net.
    ("v", "198.51.100.1"),
    ("closed", "198.51.100.2"),
    ("any", "198.51.100.3"),
    ("net", "203.0.113.77"),
    // The balancer, reals, a node that decapsulates, a router on the way.
    ("b", "10.0.0.1"),
    ("r1", "10.0.0.11"),
    ("r2", "10.0.0.12"),
    ("n", "10.0.0.21"),
    ("d", "10.0.0.99"),
    ("hop", "10.9.9.9"),
    ("c6", "2001:db8:c::1"),
    ("evil6", "2001:db8:bad::1"),
    ("v6", "2001:db8:f::1"),
    ("closed6", "2001:db8:f::2"),
    ("any6", "2001:db8:f::3"),
    ("net6", "2001:db8:aaaa::77"),
    ("b6", "2001:db8::1"),
    ("s1", "2001:db8::11"),
    ("s2", "2001:db8::12"),
    ("n6", "2001:db8::21"),
    ("d6", "2001:db8::99"),
    ("hop6", "2001:db8:9::9"),
];

/// Returns the address of a name.
pub fn address(name: &str) -> Option<IpAddr> {
    let found = NAMES.iter().find(|(known, _)| *known == name);
    found.and_then(|(_, text)| text.parse().ok())
}

fn named(name: &str) -> Address {
    address(name).map_or(Address::NONE, Address::from)
}

/// A service of the scene.
struct Service {
    at: &'static str,
    port: u16,
    protocol: u8,
    flags: u32,
    /// Its backends by name; the ring has the first, and the second as previous.
    backends: &'static [&'static str],
}

const fn service(
    at: &'static str,
    port: u16,
    protocol: u8,
    backends: &'static [&'static str],
) -> Service {
    Service {
        at,
        port,
        protocol,
        flags: 0,
        backends,
    }
}

const fn flagged(mut service: Service, flags: u32) -> Service {
    service.flags = flags;
    service
}

/// Every service; its row of verdicts is its place + 1.
const SERVICES: &[Service] = &[
    service("v", 80, TCP, &["ipip"]),
    service("v", 81, TCP, &["gue"]),
    service("v", 82, TCP, &["nat"]),
    service("v", 84, TCP, &["l2"]),
    service("v", 85, TCP, &["local"]),
    service("v", 86, TCP, &[]),
    service("v", 87, TCP, &["dead"]),
    service("v", 88, TCP, &["draining"]),
    service("v", 89, TCP, &["4in6"]),
    service("v", 90, TCP, &["chain1", "chain2"]),
    service("v", 91, TCP, &["l2", "l2b"]),
    service("v", 92, TCP, &["dead", "ipip"]),
    service("v", 95, TCP, &["egress"]),
    service("v", 96, TCP, &["spread"]),
    service("v", 97, TCP, &["gue6"]),
    service("v", 53, UDP, &["ipip"]),
    service("v", 83, UDP, &["natudp"]),
    service("v", 87, UDP, &["dead"]),
    flagged(service("v", 94, UDP, &["ipip"]), vip_flag::NO_FLOWS),
    flagged(service("v", 443, UDP, &["ipip", "q"]), vip_flag::QUIC),
    service("any", 0, TCP, &["ipip"]),
    service("v6", 80, TCP, &["ip6ip6"]),
    service("v6", 81, TCP, &["gue6"]),
    service("v6", 82, TCP, &["nat6"]),
    service("v6", 84, TCP, &["l2"]),
    service("v6", 87, TCP, &["dead6"]),
    service("v6", 89, TCP, &["6in4"]),
    service("v6", 90, TCP, &["chain61", "chain62"]),
    service("v6", 97, TCP, &["gue"]),
    service("v6", 53, UDP, &["ip6ip6"]),
    service("v6", 83, UDP, &["nat6udp"]),
    flagged(service("v6", 443, UDP, &["ip6ip6", "q6"]), vip_flag::QUIC),
    service("any6", 0, TCP, &["ip6ip6"]),
];

/// Numbers of nets.
const NETS: &[(&str, u8, u32)] = &[("net", 24, 5), ("net6", 48, 6)];

#[expect(
    clippy::too_many_lines,
    reason = "a table: one backend after the other"
)]
fn backend(name: &str) -> anyhow::Result<Backend> {
    let v4 = Backend {
        state: state::ACTIVE,
        mode: mode::IPIP,
        mtu: 1_500,
        address: named("r1"),
        source: named("b"),
        next_hop: mac("r"),
        own: mac("b"),
        ..Backend::default()
    };
    let v6 = Backend {
        address: named("s1"),
        source: named("b6"),
        ..v4
    };
    Ok(match name {
        "ipip" | "6in4" => v4,
        "ip6ip6" | "4in6" => v6,
        "gue" => Backend {
            mode: mode::GUE,
            ..v4
        },
        "gue6" => Backend {
            mode: mode::GUE,
            ..v6
        },
        "nat" => Backend {
            mode: mode::NAT,
            address: named("n"),
            port: 8_080_u16.to_be(),
            ..v4
        },
        "natudp" => Backend {
            mode: mode::NAT,
            address: named("n"),
            ..v4
        },
        "nat6" => Backend {
            mode: mode::NAT,
            address: named("n6"),
            port: 8_080_u16.to_be(),
            ..v6
        },
        "nat6udp" => Backend {
            mode: mode::NAT,
            address: named("n6"),
            ..v6
        },
        "l2" => Backend {
            mode: mode::L2,
            ..v4
        },
        "l2b" => Backend {
            mode: mode::L2,
            next_hop: mac("q"),
            ..v4
        },
        "local" => Backend {
            mode: mode::LOCAL,
            ..v4
        },
        "dead" => Backend {
            state: state::DEAD,
            ..v4
        },
        "dead6" => Backend {
            state: state::DEAD,
            ..v6
        },
        "draining" => Backend {
            state: state::DRAINING,
            ..v4
        },
        "chain1" => Backend {
            flags: backend_flag::CHAINS,
            ..v4
        },
        "chain2" | "q" => Backend {
            flags: backend_flag::CHAINS,
            address: named("r2"),
            next_hop: mac("q"),
            ..v4
        },
        "chain61" => Backend {
            flags: backend_flag::CHAINS,
            ..v6
        },
        "chain62" | "q6" => Backend {
            flags: backend_flag::CHAINS,
            address: named("s2"),
            next_hop: mac("q"),
            ..v6
        },
        "egress" => Backend { egress: 7, ..v4 },
        "spread" => Backend {
            flags: backend_flag::SPREAD,
            ..v4
        },
        other => bail!("no backend is called {other}"),
    })
}

/// The scene as tables, and where things are in it.
pub struct Scene {
    /// What user space writes.
    pub tables: Tables,
    backends: Vec<(String, u32)>,
}

impl Scene {
    /// Returns the scene at its start.
    pub fn new() -> anyhow::Result<Self> {
        let mut config = Config::new([0x0123_4567_89ab_cdef, 0x0fed_cba9_8765_4321]);
        config.flow_mask = Sizes::SMALL.flow_lines - 1;
        config.nat_mask = Sizes::SMALL.nat - 1;
        config.flags = flag::ENABLED;
        let mut scene = Self {
            tables: Tables::new(config),
            backends: Vec::new(),
        };
        for (place, service) in SERVICES.iter().enumerate() {
            let key = VipKey::new(named(service.at), service.port, service.protocol);
            let vip = scene.members(place as u32 + 1, service)?;
            scene.tables.vips.insert(key, vip);
        }
        for (name, flags) in [
            ("v", vip_flag::ECHO),
            ("v6", vip_flag::ECHO),
            ("closed", vip_flag::CLOSED),
            ("closed6", vip_flag::CLOSED),
            ("any", 0),
            ("any6", 0),
        ] {
            scene.record(named(name), flags);
            scene.tables.admit(named(name));
        }
        for name in ["b", "b6", "d", "d6", "net", "net6"] {
            scene.tables.admit(named(name));
        }
        for (name, prefix, number) in NETS {
            let key = NetKey::new(named(name), *prefix);
            scene.tables.nets.push((key, *number));
            let net = Address::of_net(*number);
            scene.record(net, vip_flag::ECHO);
            let like = if *name == "net" { "v" } else { "v6" };
            let vip = scene.tables.vips[&VipKey::new(named(like), 80, TCP)];
            scene.tables.vips.insert(VipKey::new(net, 80, TCP), vip);
            let udp = scene.tables.vips[&VipKey::new(named(like), 53, UDP)];
            scene.tables.vips.insert(VipKey::new(net, 0, UDP), udp);
        }
        scene.tables.blocked = vec![
            NetKey::new(named("evil"), 32),
            NetKey::new(named("evil6"), 48),
        ];
        scene.quic()?;
        let all = decap_flag::IPIP | decap_flag::GUE | decap_flag::CHAIN;
        scene.tables.decap.insert(named("d"), all);
        scene.tables.decap.insert(named("d6"), all);
        scene.tables.peers.insert(named("b"));
        scene.tables.peers.insert(named("b6"));
        Ok(scene)
    }

    fn record(&mut self, address: Address, flags: u32) {
        let vip = Vip {
            flags,
            index: SERVICES.len() as u32 + 1,
            ..Vip::default()
        };
        self.tables.vips.insert(VipKey::address(address), vip);
    }

    fn members(&mut self, index: u32, service: &Service) -> anyhow::Result<Vip> {
        let members = self.tables.members.len() as u32;
        for name in service.backends {
            let place = self.tables.backends.len() as u32;
            let backend = backend(name)?;
            self.tables.backends.push(Backend {
                vip: index,
                ..backend
            });
            self.tables.members.push(place);
            let label = format!("{}:{}/{}", service.at, service.port, name);
            self.backends.push((label, place));
        }
        let ring = self.tables.ring.len() as u32;
        let ring_size = if service.backends.is_empty() { 0 } else { 7 };
        // QUIC's second is found by its id alone.
        let previous = if service.backends.len() > 1 && service.flags & vip_flag::QUIC == 0 {
            1
        } else {
            NO_MEMBER
        };
        self.tables
            .ring
            .extend((0..ring_size).map(|_| slot::new(0, previous)));
        Ok(Vip {
            flags: service.flags,
            index,
            ring,
            ring_size,
            members,
            source_limit: 0,
        })
    }

    fn quic(&mut self) -> anyhow::Result<()> {
        for (at, name) in [("v", "v:443/q"), ("v6", "v6:443/q6")] {
            let vip = self.tables.vips[&VipKey::new(named(at), 443, UDP)].index;
            let backend = self.backend(name)?;
            self.tables
                .quic
                .insert(QuicKey { vip, server: 77 }, backend);
        }
        Ok(())
    }

    /// Returns the index of a backend, called `service:port/name`.
    pub fn backend(&self, label: &str) -> anyhow::Result<u32> {
        let found = self.backends.iter().find(|(known, _)| known == label);
        let (_, index) = found.with_context(|| format!("no backend is called {label}"))?;
        Ok(*index)
    }

    /// Changes something: `flags=nat,nets`, `state v:80/ipip dead`, `limit 2`, `connected c>v 1>2`.
    pub fn set(&mut self, words: &[&str]) -> anyhow::Result<()> {
        match words {
            ["flags", names @ ..] => {
                self.tables.config.flags = flag::ENABLED;
                for name in names {
                    self.tables.config.flags |= match *name {
                        "nat" => flag::NAT,
                        "nets" => flag::NETS,
                        "block" => flag::BLOCK_LIST,
                        "decap" => flag::DECAP,
                        "peers" => flag::CHECK_PEERS,
                        "keys" => flag::FLOW_KEYS,
                        other => bail!("no flag is called {other}"),
                    };
                }
            }
            ["disabled"] => self.tables.config.flags = 0,
            ["limit", number] => self.tables.config.source_limit = number.parse()?,
            ["state", label, name] => {
                let index = self.backend(label)? as usize;
                self.tables.backends[index].state = match *name {
                    "active" => state::ACTIVE,
                    "draining" => state::DRAINING,
                    "dead" => state::DEAD,
                    "free" => state::FREE,
                    other => bail!("no state is called {other}"),
                };
            }
            ["reused", label] => {
                let index = self.backend(label)? as usize;
                self.tables.backends[index].generation += 1;
            }
            ["mtu", label, mtu] => {
                let index = self.backend(label)? as usize;
                self.tables.backends[index].mtu = mtu.parse()?;
            }
            other => bail!("nothing is set by `{}`", other.join(" ")),
        }
        Ok(())
    }

    /// Returns how many rows of verdicts there are.
    pub fn rows() -> u32 {
        SERVICES.len() as u32 + 2
    }
}
