//! The packets, and the services that they are for.

#![expect(
    clippy::cast_possible_truncation,
    reason = "a few hundred reals and services are numbered"
)]

use anyhow::{Context, Result};
use ballast_ebpf_common::host::Tables;
use ballast_ebpf_common::layout::flow::{Meta, class};
use ballast_ebpf_common::layout::quic::{QuicKey, prefix};
use ballast_ebpf_common::layout::{
    Address, Backend, Config, TCP, UDP, Vip, VipKey, decap_flag, flag, mode, state, vip_flag,
};
use ballast_ebpf_loader::{Ring, Share};
use ballast_ebpf_packets::describe::{self, packet};
use ballast_ebpf_packets::{Course, Kernel, Packets, Program};

use super::SIZES;
use crate::figures::{Figure, Stat};

/// Reals of each service.
const REALS: u32 = 100;
const SLOTS: u32 = 65_537;
/// `XDP_PASS`, `XDP_TX`.
const PASS: u32 = 2;
const TX: u32 = 3;
/// The case whose packet depends on what was sent before.
const ANSWER: &str = "NAT, to the client";

/// One kind of packet.
#[derive(Clone)]
pub struct Case {
    pub name: &'static str,
    pub program: Program,
    pub action: u32,
    /// Whether each run has flows that no run before had.
    pub always_new: bool,
    flows: u32,
    bytes: Vec<u8>,
    /// What is sent first, for each flow.
    before: Vec<Vec<u8>>,
    ipv6: bool,
    fixed: bool,
}

/// Where client address and port are in a packet.
const V4: (u32, u32) = (26, 34);
const V6: (u32, u32) = (34, 54);

impl Case {
    fn new(name: &'static str, flows: u32, text: &str, before: &[&str]) -> Self {
        Self {
            name,
            program: Program::Balance,
            action: TX,
            always_new: false,
            flows,
            bytes: bytes(text),
            before: before.iter().map(|text| bytes(text)).collect(),
            ipv6: text.contains("ip6 "),
            fixed: false,
        }
    }

    fn fixed(mut self) -> Self {
        self.fixed = true;
        self
    }

    /// Returns every case.
    #[expect(clippy::too_many_lines, reason = "a table: one case after the other")]
    pub fn all() -> Vec<Self> {
        const SYN: &str = "ip c>v / tcp 40000>80 S / pay 10";
        const ACK: &str = "ip c>v / tcp 40000>80 A / pay 10";
        let quic = format!(
            "ip c>v / udp 40000>443 / raw 40{}{}",
            hex(&prefix(77, 0)),
            "11".repeat(24)
        );
        vec![
            Self::new("hit, 1 flow", 1, ACK, &[SYN, ACK]),
            Self::new("hit, 64k flows", 65_536, ACK, &[SYN, ACK]),
            Self::new("hit, 256k flows", 262_144, ACK, &[SYN, ACK]),
            Self {
                always_new: true,
                ..Self::new("new flow", 1 << 24, SYN, &[])
            },
            Self::new(
                "miss, no insert",
                1 << 20,
                "ip c>v / tcp 40000>81 A / pay 10",
                &[],
            ),
            Self {
                action: PASS,
                ..Self::new(
                    "not a VIP",
                    1,
                    "ip c>10.99.0.1 / tcp 40000>80 A / pay 10",
                    &[],
                )
            },
            Self::new(
                "IPv6, 1 flow",
                1,
                "ip6 c6>v6 / tcp 40000>80 A / pay 10",
                &[
                    "ip6 c6>v6 / tcp 40000>80 S / pay 10",
                    "ip6 c6>v6 / tcp 40000>80 A / pay 10",
                ],
            ),
            Self::new(
                "UDP, 1 flow",
                1,
                "ip c>v / udp 40000>53 / pay 30",
                &[
                    "ip c>v / udp 40000>53 / pay 30",
                    "ip c>v / udp 40000>53 / pay 30",
                ],
            ),
            Self::new("QUIC by id", 1, &quic, &[]),
            Self::new(
                "ICMP error",
                1,
                "ip 10.9.9.9>v / icmp 3/4 word=1400 / ip v>c df / tcp 80>40000 A / cut 28",
                &[],
            )
            .fixed(),
            Self::new(
                "NAT, to the real",
                1,
                "ip c>v / tcp 40000>82 A / pay 10",
                &[
                    "ip c>v / tcp 40000>82 S / pay 10",
                    "ip c>v / tcp 40000>82 A / pay 10",
                ],
            ),
            Self::new(
                ANSWER,
                1,
                "ip 10.0.2.1>b / tcp 8080>1 A / pay 10",
                &["ip c>v / tcp 40000>82 S / pay 10"],
            )
            .fixed(),
            Self {
                action: PASS,
                program: Program::Decapsulate,
                ..Self::new(
                    "decapsulation",
                    1,
                    "ip b>d df / ip c>v / tcp 40000>80 A / pay 10",
                    &[],
                )
                .fixed()
            },
        ]
    }

    /// Returns flows that are established.
    pub fn established(flows: u32) -> Self {
        const SYN: &str = "ip c>v / tcp 40000>80 S / pay 10";
        const ACK: &str = "ip c>v / tcp 40000>80 A / pay 10";
        Self::new("established", flows, ACK, &[SYN, ACK])
    }

    /// Returns a flood of SYNs from others.
    pub fn flood() -> Self {
        Self::new(
            "SYN flood",
            1 << 24,
            "ip 20.0.0.1>v / tcp 40000>80 S / pay 10",
            &[],
        )
    }

    /// Returns how its packets follow each other.
    pub fn packets(&self) -> Packets<'_> {
        self.of(&self.bytes)
    }

    fn of<'a>(&self, first: &'a [u8]) -> Packets<'a> {
        let (address_at, port_at) = if self.ipv6 { V6 } else { V4 };
        Packets {
            first,
            flows: self.flows,
            address_at,
            port_at: if self.fixed { 0 } else { port_at },
        }
    }

    /// Returns its goals, as figures.
    pub fn goals(&self, ours: f64, drop: f64, encapsulate: f64, hit: f64) -> Vec<Figure> {
        let figure = |name, value: f64, limit| {
            Figure::new((self.name, "ballast"), name, "×")
                .values([value])
                .goal(Stat::P50, limit)
        };
        match self.name {
            "hit, 1 flow" => vec![
                Figure::new(
                    (self.name, "ballast"),
                    "over the floor of encapsulation",
                    "ns",
                )
                .values([ours - encapsulate])
                .goal(Stat::P50, 24.0),
            ],
            "hit, 64k flows" => vec![figure("÷ encapsulation", ours / encapsulate, 4.5)],
            "new flow" => vec![figure("÷ encapsulation", ours / encapsulate, 6.7)],
            "not a VIP" => vec![figure("÷ drop", ours / drop, 3.2)],
            "NAT, to the real" | ANSWER => {
                vec![figure("÷ hit of DSR", ours / hit, 1.5)]
            }
            _ => Vec::new(),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn names(name: &str) -> Option<std::net::IpAddr> {
    let text = match name {
        "c" => "11.0.0.1",
        "v" => "198.51.100.1",
        "b" => "10.0.0.1",
        "d" => "10.0.0.99",
        "c6" => "2001:db8:c::1",
        "v6" => "2001:db8:f::1",
        "b6" => "2001:db8::1",
        _ => return None,
    };
    text.parse().ok()
}

fn named(name: &str) -> Address {
    names(name).map_or(Address::NONE, Address::from)
}

fn bytes(text: &str) -> Vec<u8> {
    let scene = describe::Scene {
        address: &names,
        input: &[],
        actual: &[],
        sent_from: 0,
    };
    packet(text, scene).expect("the text is sound")
}

/// The services.
pub struct Scene {
    pub tables: Tables,
}

impl Scene {
    /// Returns services of 100 reals each, on rings of 65,537.
    pub fn new() -> Result<Self> {
        let mut config = Config::new([0x0123_4567_89ab_cdef, 0x0fed_cba9_8765_4321]);
        config.flow_mask = SIZES.flow_lines - 1;
        config.nat_mask = SIZES.nat - 1;
        config.flags = flag::ENABLED | flag::NAT;
        let mut scene = Self {
            tables: Tables::new(config),
        };
        let plain = Backend {
            state: state::ACTIVE,
            mode: mode::IPIP,
            mtu: 1_500,
            source: named("b"),
            next_hop: describe::mac("r"),
            own: describe::mac("b"),
            ..Backend::default()
        };
        let v6 = Backend {
            source: named("b6"),
            ..plain
        };
        let nat = Backend {
            mode: mode::NAT,
            port: 8_080_u16.to_be(),
            ..plain
        };
        scene.service("v", 80, TCP, 0, REALS, plain)?;
        scene.service("v", 81, TCP, vip_flag::NO_FLOWS, REALS, plain)?;
        // One real, so that its answers can be written down.
        scene.service("v", 82, TCP, 0, 1, nat)?;
        scene.service("v", 53, UDP, 0, REALS, plain)?;
        let quic = scene.service("v", 443, UDP, vip_flag::QUIC, REALS, plain)?;
        scene.service("v6", 80, TCP, 0, REALS, v6)?;
        let backend = scene.tables.backends.len() as u32 - 2 * REALS;
        let key = QuicKey {
            vip: quic,
            server: 77,
        };
        scene.tables.quic.insert(key, backend);
        for name in ["v", "v6", "b", "d"] {
            scene.tables.admit(named(name));
        }
        scene.tables.decap.insert(named("d"), decap_flag::IPIP);
        Ok(scene)
    }

    fn service(
        &mut self,
        at: &str,
        port: u16,
        protocol: u8,
        flags: u32,
        reals: u32,
        like: Backend,
    ) -> Result<u32> {
        let index = self.tables.vips.len() as u32 + 1;
        let vip = Vip {
            flags,
            index,
            ring: self.tables.ring.len() as u32,
            ring_size: SLOTS,
            members: self.tables.members.len() as u32,
            source_limit: 0,
        };
        for real in 0..reals {
            let place = self.tables.backends.len() as u32;
            let number = place as u8;
            let address = if like.source.is_v4() {
                let net = if like.mode == mode::NAT { 2 } else { 1 };
                Address::from_v4([10, 0, net, if reals == 1 { 1 } else { number }])
            } else {
                let text = format!("2001:db8:1::{:x}", real + 1);
                Address::from(text.parse::<std::net::IpAddr>().context("an address")?)
            };
            self.tables.backends.push(Backend {
                vip: index,
                address,
                ..like
            });
            self.tables.members.push(place);
        }
        let mut ring = Ring::new(SLOTS as usize);
        let shares: Vec<Share> = (0..reals)
            .map(|member| Share {
                member: member as u16,
                weight: 1,
            })
            .collect();
        ring.update(&shares, |_| false);
        self.tables.ring.extend(ring.words());
        let key = VipKey::new(named(at), port, protocol);
        self.tables.vips.insert(key, vip);
        Ok(index)
    }
}

/// Makes the flows of a case, and nothing else, known.
pub fn prepare(kernel: &Kernel, course: &Course, case: &mut Case) -> Result<()> {
    kernel.flows().clear();
    kernel.translations().clear();
    let program = kernel.program(Program::Balance);
    for first in &case.before {
        course.run(program, case.of(first), 0, case.flows)?;
    }
    if case.name == ANSWER {
        // It goes to the port that the flow was sent from.
        let sent = kernel.run(Program::Balance, &case.before[0])?.packet;
        case.bytes[36..38].copy_from_slice(&sent[34..36]);
    }
    Ok(())
}

/// Returns the tags of established flows, sorted.
pub fn established(kernel: &Kernel) -> Vec<u64> {
    let lines = kernel.flows().read_all();
    let ways = lines.into_iter().flat_map(|line| line.ways);
    let mut tags: Vec<u64> = ways
        .filter(|way| way.tag >> 63 == 1 && Meta(way.meta).class() == class::ESTABLISHED)
        .map(|way| way.tag)
        .collect();
    tags.sort_unstable();
    tags
}
