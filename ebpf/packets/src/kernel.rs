//! The programs in this machine's kernel, fed by hand.

use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{Context, anyhow, bail, ensure};
use aya::maps::Map;
use aya::programs::{ProgramFd, Xdp};
use aya::{Ebpf, EbpfLoader};
use ballast_ebpf_common::Action;
use ballast_ebpf_common::host::{Outcome, Tables};
use ballast_ebpf_common::layout::flow::{FlowKey, Line};
use ballast_ebpf_common::layout::nat::Translation;
use ballast_ebpf_common::layout::{Backend, BackendCounters, Config, limits, maps};

use crate::memory::Memory;
use crate::sys;

/// Entries of the maps that may be sized.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Lines of the flow table.
    pub flow_lines: u32,
    /// Translations.
    pub nat: u32,
    /// Slots of all rings.
    pub ring: u32,
    /// Members of all services.
    pub members: u32,
    /// Backends.
    pub backends: u32,
    /// Services.
    pub vips: u32,
}

impl Sizes {
    /// Enough for fixtures, quick to clear.
    pub const SMALL: Self = Self {
        flow_lines: 64,
        nat: 64,
        ring: 4_096,
        members: 256,
        backends: 256,
        vips: 64,
    };
}

/// Which program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// `ballast_balance`
    Balance,
    /// `ballast_decap`
    Decapsulate,
}

/// The loaded object.
pub struct Kernel {
    object: Ebpf,
    balance: ProgramFd,
    decapsulate: ProgramFd,
    config: Memory<Config>,
    filter: Memory<u64>,
    ring: Memory<u32>,
    members: Memory<u32>,
    backends: Memory<Backend>,
    flows: Memory<Line>,
    keys: Memory<FlowKey>,
    nat: Memory<Translation>,
    cells: Memory<u64>,
    cpus: usize,
}

/// Returns why programs cannot be loaded here, if so: for tests that then say SKIP.
pub fn absent() -> Option<String> {
    ballast_ebpf_loader::requirements()
        .err()
        .map(|error| error.to_string())
}

/// Returns a map of an object.
pub fn map<'a>(object: &'a Ebpf, name: &str) -> anyhow::Result<BorrowedFd<'a>> {
    let map = object
        .map(name)
        .with_context(|| format!("the object has no map {name}"))?;
    let (Map::Array(data)
    | Map::HashMap(data)
    | Map::LpmTrie(data)
    | Map::PerCpuArray(data)
    | Map::ProgramArray(data)
    | Map::RingBuf(data)) = map
    else {
        bail!("map {name} is of an unexpected kind");
    };
    Ok(data.fd().as_fd())
}

fn memory<T>(object: &Ebpf, name: &str, length: u32) -> anyhow::Result<Memory<T>> {
    Memory::of(map(object, name)?, length as usize).with_context(|| format!("cannot map {name}"))
}

/// Loads a program of an object and returns it.
pub fn load(object: &mut Ebpf, name: &str) -> anyhow::Result<ProgramFd> {
    let program: &mut Xdp = object
        .program_mut(name)
        .with_context(|| format!("the object has no program {name}"))?
        .try_into()?;
    program
        .load()
        .with_context(|| format!("the kernel refuses {name}"))?;
    Ok(program.fd()?.try_clone()?)
}

impl Kernel {
    /// Loads an object with maps of these sizes, pinned nowhere.
    pub fn load(object: &[u8], sizes: Sizes) -> anyhow::Result<Self> {
        let mut object = EbpfLoader::new()
            .map_max_entries(maps::FLOWS, sizes.flow_lines)
            .map_max_entries(maps::FLOW_KEYS, sizes.flow_lines * limits::WAYS as u32)
            .map_max_entries(maps::NAT, sizes.nat)
            .map_max_entries(maps::RING, sizes.ring)
            .map_max_entries(maps::MEMBERS, sizes.members)
            .map_max_entries(maps::BACKENDS, sizes.backends)
            .map_max_entries(maps::BACKEND_COUNTERS, sizes.backends)
            .map_max_entries(maps::VIPS, 2 * sizes.vips)
            .map_max_entries(maps::VIP_VERDICTS, sizes.vips)
            .load(object)?;
        let balance = load(&mut object, maps::PROGRAM_BALANCE)?;
        let decapsulate = load(&mut object, maps::PROGRAM_DECAP)?;
        Ok(Self {
            balance,
            decapsulate,
            config: memory(&object, maps::CONFIG, 1)?,
            filter: memory(&object, maps::FILTER, limits::FILTER_WORDS as u32)?,
            ring: memory(&object, maps::RING, sizes.ring)?,
            members: memory(&object, maps::MEMBERS, sizes.members)?,
            backends: memory(&object, maps::BACKENDS, sizes.backends)?,
            flows: memory(&object, maps::FLOWS, sizes.flow_lines)?,
            keys: memory(&object, maps::FLOW_KEYS, sizes.flow_lines * 4)?,
            nat: memory(&object, maps::NAT, sizes.nat)?,
            cells: memory(&object, maps::SOURCES, 2 * limits::SOURCE_CELLS)?,
            cpus: aya::util::nr_cpus().map_err(|(_, error)| error)?,
            object,
        })
    }

    /// Writes what user space writes, whole; flows, translations and counters start empty.
    pub fn fill(&mut self, tables: &Tables) -> anyhow::Result<()> {
        let mut config = tables.config;
        config.flow_mask = self.flows.len() as u32 - 1;
        config.nat_mask = self.nat.len() as u32 - 1;
        ensure!(config == tables.config, "masks are not of the maps' sizes");
        self.forget()?;
        self.reconfigure(tables)
    }

    /// Writes what user space writes; flows and all else stay.
    pub fn reconfigure(&mut self, tables: &Tables) -> anyhow::Result<()> {
        self.config.write_all(&[tables.config]);
        self.filter.write_all(&tables.filter[..]);
        self.ring.write_all(&tables.ring);
        self.members.write_all(&tables.members);
        self.backends.write_all(&tables.backends);
        let object = &self.object;
        let set = |name: &str, entries: Vec<(Vec<u8>, Vec<u8>)>, key_size: usize| {
            let map = map(object, name)?;
            sys::clear(map, key_size)?;
            for (key, value) in entries {
                sys::update(map, &key, &value).with_context(|| format!("cannot fill {name}"))?;
            }
            anyhow::Ok(())
        };
        let vips = tables.vips.iter();
        set(
            maps::VIPS,
            vips.map(|(key, vip)| (bytes(key), bytes(vip))).collect(),
            20,
        )?;
        let nets = tables.nets.iter();
        set(
            maps::NETS,
            nets.map(|(key, net)| (bytes(key), bytes(net))).collect(),
            20,
        )?;
        let blocked = tables.blocked.iter();
        set(
            maps::BLOCKED,
            blocked.map(|key| (bytes(key), bytes(&1_u32))).collect(),
            20,
        )?;
        let quic = tables.quic.iter();
        set(
            maps::QUIC_IDS,
            quic.map(|(key, index)| (bytes(key), bytes(index)))
                .collect(),
            8,
        )?;
        let decap = tables.decap.iter();
        set(
            maps::DECAP,
            decap
                .map(|(key, flags)| (bytes(key), bytes(flags)))
                .collect(),
            16,
        )?;
        let peers = tables.peers.iter();
        set(
            maps::PEERS,
            peers.map(|key| (bytes(key), bytes(&1_u32))).collect(),
            16,
        )
    }

    /// Empties flows, translations, limits and counters.
    pub fn forget(&mut self) -> anyhow::Result<()> {
        self.flows.clear();
        self.keys.clear();
        self.nat.clear();
        self.cells.clear();
        self.clear_counters()
    }

    /// Sets every counter to 0.
    pub fn clear_counters(&mut self) -> anyhow::Result<()> {
        let counters = map(&self.object, maps::BACKEND_COUNTERS)?;
        let zero = vec![0; size_of::<BackendCounters>() * self.cpus];
        for index in 0..self.backends.len() as u32 {
            sys::update(counters, &index.to_ne_bytes(), &zero)?;
        }
        let verdicts = map(&self.object, maps::VIP_VERDICTS)?;
        let zero = vec![0; limits::VERDICTS as usize * 8 * self.cpus];
        let mut vip = 0_u32;
        while sys::update(verdicts, &vip.to_ne_bytes(), &zero).is_ok() {
            vip += 1;
        }
        Ok(())
    }

    /// Runs a program on a packet.
    pub fn run(&self, program: Program, packet: &[u8]) -> anyhow::Result<Outcome> {
        let mut out = vec![0; packet.len() + 1_024];
        let ran = sys::test_run(self.program(program), packet, &mut out, 1)?;
        out.truncate(ran.length);
        let action = match ran.action {
            1 => Action::Drop,
            2 => Action::Pass,
            3 => Action::Transmit,
            4 => Action::Redirect,
            other => bail!("the program returned {other}"),
        };
        Ok(Outcome {
            action,
            packet: out,
            egress: None,
        })
    }

    /// Returns a program.
    pub fn program(&self, program: Program) -> BorrowedFd<'_> {
        match program {
            Program::Balance => self.balance.as_fd(),
            Program::Decapsulate => self.decapsulate.as_fd(),
        }
    }

    /// Returns a map.
    pub fn map(&self, name: &str) -> anyhow::Result<BorrowedFd<'_>> {
        map(&self.object, name)
    }

    /// The flow table.
    pub fn flows(&self) -> &Memory<Line> {
        &self.flows
    }

    /// The translations.
    pub fn translations(&self) -> &Memory<Translation> {
        &self.nat
    }

    /// The slots.
    pub fn ring(&self) -> &Memory<u32> {
        &self.ring
    }

    /// The backends.
    pub fn backends(&self) -> &Memory<Backend> {
        &self.backends
    }

    /// Returns the counters of a backend, summed over the CPUs.
    pub fn counters(&self, backend: u32) -> anyhow::Result<BackendCounters> {
        let words = self.per_cpu(maps::BACKEND_COUNTERS, backend, 4)?;
        Ok(BackendCounters {
            packets: words[0],
            bytes: words[1],
            flows: words[2],
            resets: words[3],
        })
    }

    /// Returns the verdicts on a service, summed over the CPUs.
    pub fn verdicts(&self, vip: u32) -> anyhow::Result<[u64; limits::VERDICTS as usize]> {
        let words = self.per_cpu(maps::VIP_VERDICTS, vip, limits::VERDICTS as usize)?;
        words
            .try_into()
            .map_err(|_| anyhow!("a row has 32 counters"))
    }

    fn per_cpu(&self, name: &str, index: u32, words: usize) -> anyhow::Result<Vec<u64>> {
        let mut values = vec![0; words * 8 * self.cpus];
        sys::lookup(map(&self.object, name)?, &index.to_ne_bytes(), &mut values)?;
        let mut sums = vec![0; words];
        for (at, word) in values.chunks_exact(8).enumerate() {
            let word: [u8; 8] = word.try_into()?;
            sums[at % words] += u64::from_ne_bytes(word);
        }
        Ok(sums)
    }
}

/// Returns the bytes of a key or value, as the kernel takes them.
fn bytes<T: Copy>(value: &T) -> Vec<u8> {
    // SAFETY: records of the layout have no padding: their sizes are asserted there.
    unsafe { std::slice::from_raw_parts((&raw const *value).cast::<u8>(), size_of::<T>()) }.to_vec()
}
