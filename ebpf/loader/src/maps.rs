//! Every map, typed.

use std::sync::Arc;

use aya::Ebpf;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{HashMap, Map, MapData, MapError, PerCpuArray, RingBuf};
use ballast_ebpf_common::layout::flow::{FlowKey, Line};
use ballast_ebpf_common::layout::nat::Translation;
use ballast_ebpf_common::layout::quic::QuicKey;
use ballast_ebpf_common::layout::{
    Address, Backend, BackendCounters, Config, NetKey, Vip, VipKey, limits, maps,
};

use crate::Error;
use crate::shared::{Plain, Pod, Shared};

/// How much the maps hold. A map that is pinned already keeps its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Slots of all rings.
    pub ring: u32,
    /// Places of members of all services.
    pub members: u32,
    /// Records of backends.
    pub backends: u32,
    /// Services.
    pub vips: u32,
    /// Lines of four flows; a power of two.
    pub flow_lines: u32,
    /// Translations; a power of two.
    pub translations: u32,
    /// Entries of the block list.
    pub blocked: u32,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            ring: limits::RING_TABLE,
            members: limits::MEMBERS,
            backends: limits::BACKENDS,
            vips: limits::VIPS,
            flow_lines: limits::FLOW_LINES,
            translations: limits::NAT_ENTRIES,
            blocked: limits::BLOCKED,
        }
    }
}

impl Sizes {
    /// Returns the sizes of a node that only decapsulates: next to nothing.
    pub const fn node() -> Self {
        Self {
            ring: 1,
            members: 1,
            backends: 1,
            vips: 1,
            flow_lines: 2,
            translations: 2,
            blocked: 1,
        }
    }

    /// Returns the entries of each map that may be sized.
    pub(crate) fn entries(&self) -> [(&'static str, u32); 10] {
        let ways = u32::try_from(limits::WAYS).unwrap_or(u32::MAX);
        [
            (maps::RING, self.ring),
            (maps::MEMBERS, self.members),
            (maps::BACKENDS, self.backends),
            (maps::BACKEND_COUNTERS, self.backends),
            // Each service has a record for its address, too.
            (maps::VIPS, self.vips.saturating_mul(2)),
            (maps::VIP_VERDICTS, self.vips.saturating_add(1)),
            (maps::FLOWS, self.flow_lines),
            (maps::FLOW_KEYS, self.flow_lines.saturating_mul(ways)),
            (maps::NAT, self.translations),
            (maps::BLOCKED, self.blocked),
        ]
    }
}

/// The maps of a balancer or a decapsulating node.
pub struct Maps {
    /// What holds for all.
    pub config: Shared<Config>,
    /// The filter of addresses, in words.
    pub filter: Shared<u64>,
    /// Slots of all rings.
    pub ring: Shared<u32>,
    /// Members of all services.
    pub members: Shared<u32>,
    /// Records of backends.
    pub backends: Shared<Backend>,
    /// Flows, by lines. Shared with whoever looks through all of them meanwhile.
    pub flows: Arc<Shared<Line>>,
    /// Who began them, four for each line.
    pub flow_keys: Arc<Shared<FlowKey>>,
    /// Translations.
    pub translations: Shared<Translation>,
    /// How many services there may be.
    pub vips_max: u32,
    vips: HashMap<MapData, Pod<VipKey>, Pod<Vip>>,
    nets: LpmTrie<MapData, Pod<Address>, u32>,
    blocked: LpmTrie<MapData, Pod<Address>, u32>,
    quic_ids: HashMap<MapData, Pod<QuicKey>, u32>,
    decap: HashMap<MapData, Pod<Address>, u32>,
    peers: HashMap<MapData, Pod<Address>, u32>,
    backend_counters: PerCpuArray<MapData, Pod<BackendCounters>>,
    verdicts: PerCpuArray<MapData, Pod<[u64; limits::VERDICTS as usize]>>,
    /// Flow events.
    pub events: RingBuf<MapData>,
    /// A program that is loaded later names its maps by their descriptors: they must stay open.
    _open: Vec<MapData>,
}

impl std::fmt::Debug for Maps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Maps").finish_non_exhaustive()
    }
}

fn failed(name: &'static str) -> impl FnOnce(MapError) -> Error {
    move |source| Error::Map {
        name,
        source: source.into(),
    }
}

fn take(object: &mut Ebpf, name: &'static str) -> Result<Map, Error> {
    object.take_map(name).ok_or(Error::NoMap(name))
}

fn typed<T>(object: &mut Ebpf, name: &'static str) -> Result<T, Error>
where
    T: TryFrom<Map, Error = MapError>,
{
    T::try_from(take(object, name)?).map_err(failed(name))
}

/// Maps an array into memory: `each` elements for each entry.
fn shared<T: Plain>(
    (object, kept): (&mut Ebpf, &mut Vec<MapData>),
    name: &'static str,
    each: usize,
) -> Result<Shared<T>, Error> {
    let Map::Array(data) = take(object, name)? else {
        return Err(Error::NoMap(name));
    };
    let entries = data.info().map_err(failed(name))?.max_entries();
    let length = usize::try_from(entries).unwrap_or(0) * each;
    let shared = Shared::of(data.fd(), length).map_err(|source| Error::Map {
        name,
        source: source.into(),
    });
    kept.push(data);
    shared
}

impl Maps {
    /// Takes the maps out of a loaded object.
    pub(crate) fn of(object: &mut Ebpf) -> Result<Self, Error> {
        let vips = take(object, maps::VIPS)?;
        let vips_max = match &vips {
            Map::HashMap(data) => data.info().map_err(failed(maps::VIPS))?.max_entries() / 2,
            _ => return Err(Error::NoMap(maps::VIPS)),
        };
        let mut kept_open = Vec::new();
        let kept = &mut kept_open;
        Ok(Self {
            config: shared((object, kept), maps::CONFIG, 1)?,
            filter: shared((object, kept), maps::FILTER, limits::FILTER_WORDS)?,
            ring: shared((object, kept), maps::RING, 1)?,
            members: shared((object, kept), maps::MEMBERS, 1)?,
            backends: shared((object, kept), maps::BACKENDS, 1)?,
            flows: Arc::new(shared((object, kept), maps::FLOWS, 1)?),
            flow_keys: Arc::new(shared((object, kept), maps::FLOW_KEYS, 1)?),
            translations: shared((object, kept), maps::NAT, 1)?,
            vips_max,
            vips: HashMap::try_from(vips).map_err(failed(maps::VIPS))?,
            nets: typed(object, maps::NETS)?,
            blocked: typed(object, maps::BLOCKED)?,
            quic_ids: typed(object, maps::QUIC_IDS)?,
            decap: typed(object, maps::DECAP)?,
            peers: typed(object, maps::PEERS)?,
            backend_counters: typed(object, maps::BACKEND_COUNTERS)?,
            verdicts: typed(object, maps::VIP_VERDICTS)?,
            events: typed(object, maps::EVENTS)?,
            _open: kept_open,
        })
    }

    /// Returns every service and record of an address.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn vips(&self) -> Result<Vec<(VipKey, Vip)>, Error> {
        self.vips
            .iter()
            .map(|entry| entry.map(|(key, vip)| (key.0, vip.0)))
            .collect::<Result<_, MapError>>()
            .map_err(failed(maps::VIPS))
    }

    /// Writes a service.
    ///
    /// # Errors
    /// The kernel refuses: the map is full.
    pub fn set_vip(&mut self, key: VipKey, vip: Vip) -> Result<(), Error> {
        let set = self.vips.insert(Pod(key), Pod(vip), 0);
        set.map_err(failed(maps::VIPS))
    }

    /// Forgets a service, if it is there.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn remove_vip(&mut self, key: VipKey) -> Result<(), Error> {
        gone(self.vips.remove(&Pod(key))).map_err(failed(maps::VIPS))
    }

    /// Makes the nets those of `wanted`: each with its number.
    ///
    /// # Errors
    /// The kernel refuses: the map is full.
    pub fn set_nets(&mut self, wanted: &[(NetKey, u32)]) -> Result<(), Error> {
        set_trie(&mut self.nets, wanted).map_err(failed(maps::NETS))
    }

    /// Makes the block list that of `wanted`.
    ///
    /// # Errors
    /// The kernel refuses: the map is full.
    pub fn set_blocked(&mut self, wanted: &[NetKey]) -> Result<(), Error> {
        let wanted: Vec<(NetKey, u32)> = wanted.iter().map(|net| (*net, 1)).collect();
        set_trie(&mut self.blocked, &wanted).map_err(failed(maps::BLOCKED))
    }

    /// Makes the QUIC server ids those of `wanted`: each with the index of its backend.
    ///
    /// # Errors
    /// The kernel refuses: the map is full.
    pub fn set_quic_ids(&mut self, wanted: &[(QuicKey, u32)]) -> Result<(), Error> {
        let wanted: Vec<(Pod<QuicKey>, u32)> = wanted
            .iter()
            .map(|(key, value)| (Pod(*key), *value))
            .collect();
        set_hash(&mut self.quic_ids, &wanted, |a, b| a.0 == b.0).map_err(failed(maps::QUIC_IDS))
    }

    /// Makes the addresses at which is decapsulated those of `wanted`, each with its flags.
    ///
    /// # Errors
    /// The kernel refuses: the map is full.
    pub fn set_decap(&mut self, wanted: &[(Address, u32)]) -> Result<(), Error> {
        let wanted: Vec<(Pod<Address>, u32)> = wanted
            .iter()
            .map(|(key, value)| (Pod(*key), *value))
            .collect();
        set_hash(&mut self.decap, &wanted, |a, b| a.0 == b.0).map_err(failed(maps::DECAP))
    }

    /// Makes the peers that encapsulated packets are taken from those of `wanted`.
    ///
    /// # Errors
    /// The kernel refuses: the map is full.
    pub fn set_peers(&mut self, wanted: &[Address]) -> Result<(), Error> {
        let wanted: Vec<(Pod<Address>, u32)> = wanted.iter().map(|key| (Pod(*key), 1)).collect();
        set_hash(&mut self.peers, &wanted, |a, b| a.0 == b.0).map_err(failed(maps::PEERS))
    }

    /// Returns what was counted for a backend, on all CPUs together.
    ///
    /// # Errors
    /// The kernel refuses: there is no such backend.
    pub fn backend_counters(&self, index: u32) -> Result<BackendCounters, Error> {
        let all = self.backend_counters.get(&index, 0);
        let all = all.map_err(failed(maps::BACKEND_COUNTERS))?;
        let mut sum = BackendCounters::default();
        for Pod(one) in all.iter() {
            sum.packets += one.packets;
            sum.bytes += one.bytes;
            sum.flows += one.flows;
            sum.resets += one.resets;
        }
        Ok(sum)
    }

    /// Makes the counters of a backend zero: its record is another's now.
    ///
    /// # Errors
    /// The kernel refuses: there is no such backend.
    pub fn clear_backend_counters(&mut self, index: u32) -> Result<(), Error> {
        clear(
            &mut self.backend_counters,
            index,
            Pod(BackendCounters::default()),
        )
        .map_err(failed(maps::BACKEND_COUNTERS))
    }

    /// Returns what was counted for a service (0: for none), by verdict, on all CPUs together.
    ///
    /// # Errors
    /// The kernel refuses: there is no such service.
    pub fn verdicts(&self, vip: u32) -> Result<[u64; limits::VERDICTS as usize], Error> {
        let all = self.verdicts.get(&vip, 0);
        let all = all.map_err(failed(maps::VIP_VERDICTS))?;
        let mut sum = [0; limits::VERDICTS as usize];
        for Pod(one) in all.iter() {
            for (sum, one) in sum.iter_mut().zip(one) {
                *sum += one;
            }
        }
        Ok(sum)
    }

    /// Makes the counters of a service zero.
    ///
    /// # Errors
    /// The kernel refuses: there is no such service.
    pub fn clear_verdicts(&mut self, vip: u32) -> Result<(), Error> {
        clear(&mut self.verdicts, vip, Pod([0; limits::VERDICTS as usize]))
            .map_err(failed(maps::VIP_VERDICTS))
    }
}

fn clear<T: aya::Pod>(
    map: &mut PerCpuArray<MapData, T>,
    index: u32,
    zero: T,
) -> Result<(), MapError> {
    let cpus = map.get(&index, 0)?.len();
    let zeros = aya::maps::PerCpuValues::try_from(vec![zero; cpus]);
    let zeros = zeros.map_err(MapError::from)?;
    map.set(index, zeros, 0)
}

/// What is not there need not be removed.
fn gone(removed: Result<(), MapError>) -> Result<(), MapError> {
    match removed {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error))
            if error.io_error.raw_os_error() == Some(libc::ENOENT) =>
        {
            Ok(())
        }
        other => other,
    }
}

fn set_hash<K: aya::Pod>(
    map: &mut HashMap<MapData, K, u32>,
    wanted: &[(K, u32)],
    same: impl Fn(&K, &K) -> bool,
) -> Result<(), MapError> {
    let there: Vec<K> = map.keys().collect::<Result<_, _>>()?;
    for (key, value) in wanted {
        map.insert(key, value, 0)?;
    }
    for key in there {
        if !wanted.iter().any(|(wanted, _)| same(wanted, &key)) {
            gone(map.remove(&key))?;
        }
    }
    Ok(())
}

fn set_trie(
    map: &mut LpmTrie<MapData, Pod<Address>, u32>,
    wanted: &[(NetKey, u32)],
) -> Result<(), MapError> {
    let there: Vec<Key<Pod<Address>>> = map.keys().collect::<Result<_, _>>()?;
    for (net, value) in wanted {
        map.insert(&Key::new(net.prefix, Pod(net.address)), value, 0)?;
    }
    for key in there {
        let kept = wanted
            .iter()
            .any(|(net, _)| net.prefix == key.prefix_len() && net.address == key.data().0);
        if !kept {
            gone(map.remove(&key))?;
        }
    }
    Ok(())
}
