//! What is balanced at layer 4, proven.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use ballast_ebpf_loader::Mode as AttachMode;
use ballast_model::Protocol;

use crate::table::PoolKey;

/// A service of the L4 balancer; its reals are the members of a pool of the route table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct L4Service {
    /// What it is called in metrics, logs and dumps.
    pub name: Arc<str>,
    /// Where its reals and their health come from.
    pub pool: PoolKey,
    /// Where clients connect to.
    pub vip: Net,
    /// Which port; none: any.
    pub port: Option<u16>,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// How packets get to the reals.
    pub forward: Forward,
    /// Where packets to it come in.
    pub interface: String,
    /// Outer source of encapsulated packets, source of translated ones; by the route if not given.
    pub source: Option<IpAddr>,
    /// Whether all flows of a client go to one real.
    pub by_source: bool,
    /// Whether UDP packets are QUIC: by connection id where one names a real.
    pub quic: bool,
    /// Whether pings to the address are answered.
    pub echo: bool,
    /// Whether a packet that begins nothing and is unknown may be passed on by the first real's
    /// node to the slot's previous one.
    pub second_chance: bool,
    /// QUIC server ids by real.
    pub server_ids: BTreeMap<SocketAddr, u32>,
}

/// How packets get to reals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Forward {
    /// Encapsulated in IP; answers go straight to the client.
    Ipip,
    /// The same in UDP.
    Gue,
    /// With addresses and ports translated, both ways through the balancer.
    Nat,
    /// With another MAC address, on one segment; answers go straight to the client.
    L2,
}

impl Forward {
    /// Returns what it is called in dumps.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ipip => "dsr",
            Self::Gue => "dsr-gue",
            Self::Nat => "nat",
            Self::L2 => "l2",
        }
    }
}

/// Where balancing at layer 4 is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Run {
    /// In the kernel if that can be, else in user space, which is said.
    #[default]
    Auto,
    /// In the kernel, or not at all.
    Kernel,
    /// In user space.
    User,
}

/// How the balancer in the kernel is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct XdpOptions {
    /// Where.
    pub run: Run,
    /// Where maps and links are pinned.
    pub pin: Option<PathBuf>,
    /// Driver or stack.
    pub attach: AttachMode,
    /// Key of the hashes: the same on every balancer of a set. Kept or made if not given.
    pub key: Option<[u64; 2]>,
    /// Flows at once, rounded up to a power of two.
    pub flows: u32,
    /// Translations at once, rounded up to a power of two.
    pub translations: u32,
    /// Services at once.
    pub services: u32,
    /// Slots of each service's ring.
    pub ring: u32,
    /// New flows of one source in a second; 0: no limit.
    pub source_limit: u32,
    /// Sources whose packets are dropped.
    pub block: Vec<Net>,
    /// First source port of translated flows.
    pub nat_base: u16,
    /// How many follow it.
    pub nat_count: u16,
    /// Whether the programs are taken away when the process stops; a crash leaves them either way.
    pub detach_on_stop: bool,
}

impl Default for XdpOptions {
    fn default() -> Self {
        Self {
            run: Run::Auto,
            pin: None,
            attach: AttachMode::Any,
            key: None,
            flows: 1 << 20,
            translations: 1 << 17,
            services: 64,
            ring: 16_381,
            source_limit: 0,
            block: Vec::new(),
            nat_base: 10_000,
            nat_count: 20_000,
            detach_on_stop: false,
        }
    }
}

/// Everything about layer 4.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct L4Config {
    /// The services.
    pub services: Vec<L4Service>,
    /// How they are run.
    pub options: XdpOptions,
    /// Cluster: what becomes of published TCP and UDP ports.
    pub publish: Option<Publish>,
}

/// Published TCP and UDP ports of a cluster on the balancer in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    /// The address that clients connect to: one of this node (node ports), or another.
    pub vip: IpAddr,
    /// Where packets to it come in.
    pub interface: String,
    /// How they get to the tasks.
    pub forward: Forward,
    /// See [`L4Service::source`].
    pub source: Option<IpAddr>,
}

/// An address, or all that begin with some bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Net {
    /// The address, its other bits zero.
    pub address: IpAddr,
    /// How many bits count.
    pub prefix: u8,
}

impl Net {
    /// Returns the net of one address.
    pub const fn of(address: IpAddr) -> Self {
        let prefix = if address.is_ipv4() { 32 } else { 128 };
        Self { address, prefix }
    }

    /// Whether it is one address.
    pub const fn is_single(&self) -> bool {
        self.prefix == Self::of(self.address).prefix
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)?;
        if !self.is_single() {
            write!(f, "/{}", self.prefix)?;
        }
        Ok(())
    }
}

impl FromStr for Net {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let shape =
            || format!("`{text}` is not an address or a net, such as `10.0.0.100` or `fd00::/64`");
        let address: IpAddr = address.parse().map_err(|_| shape())?;
        let whole = Self::of(address);
        let Some(prefix) = prefix else {
            return Ok(whole);
        };
        let prefix: u8 = prefix.parse().map_err(|_| shape())?;
        if prefix > whole.prefix {
            let most = whole.prefix;
            return Err(format!(
                "`{text}`: a prefix of its family has at most {most} bits"
            ));
        }
        let masked = mask(address, prefix);
        if masked != address {
            return Err(format!(
                "`{text}` has bits set past its prefix; the net is `{masked}/{prefix}`"
            ));
        }
        Ok(Self { address, prefix })
    }
}

/// Returns an address with only its first bits.
fn mask(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V4((address.to_bits() & mask).into())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V6((address.to_bits() & mask).into())
        }
    }
}
