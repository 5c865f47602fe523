//! The maps; `ballast_ebpf_common::layout::maps` says what they are.

use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LpmTrie, PerCpuArray, RingBuf};
use ballast_ebpf_common::layout::flow::{FlowKey, Line};
use ballast_ebpf_common::layout::nat::Translation;
use ballast_ebpf_common::layout::quic::QuicKey;
use ballast_ebpf_common::layout::{
    Address, Backend, BackendCounters, Config, Vip, VipKey, limits,
};

#[map]
pub static CONFIG: Array<Config> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
pub static FILTER: Array<[u64; limits::FILTER_WORDS]> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
pub static VIPS: HashMap<VipKey, Vip> = HashMap::with_max_entries(limits::VIPS, 0);
#[map]
pub static NETS: LpmTrie<Address, u32> = LpmTrie::with_max_entries(limits::NETS, 0);
#[map]
pub static BLOCKED: LpmTrie<Address, u32> = LpmTrie::with_max_entries(limits::BLOCKED, 0);
#[map]
pub static RING: Array<u32> = Array::with_max_entries(limits::RING_TABLE, BPF_F_MMAPABLE);
#[map]
pub static MEMBERS: Array<u32> = Array::with_max_entries(limits::MEMBERS, BPF_F_MMAPABLE);
#[map]
pub static BACKENDS: Array<Backend> = Array::with_max_entries(limits::BACKENDS, BPF_F_MMAPABLE);
#[map]
pub static QUIC_IDS: HashMap<QuicKey, u32> = HashMap::with_max_entries(limits::QUIC_IDS, 0);
#[map]
pub static FLOWS: Array<Line> = Array::with_max_entries(limits::FLOW_LINES, BPF_F_MMAPABLE);
#[map]
pub static FLOW_KEYS: Array<FlowKey> =
    Array::with_max_entries(limits::FLOW_LINES * limits::WAYS as u32, BPF_F_MMAPABLE);
#[map]
pub static NAT: Array<Translation> = Array::with_max_entries(limits::NAT_ENTRIES, BPF_F_MMAPABLE);
#[map]
pub static SOURCES: Array<u64> =
    Array::with_max_entries(2 * limits::SOURCE_CELLS, BPF_F_MMAPABLE);
#[map]
pub static DECAP: HashMap<Address, u32> = HashMap::with_max_entries(limits::DECAP_ADDRESSES, 0);
#[map]
pub static PEERS: HashMap<Address, u32> = HashMap::with_max_entries(limits::DECAP_PEERS, 0);
#[map]
pub static BACKEND_COUNT: PerCpuArray<BackendCounters> =
    PerCpuArray::with_max_entries(limits::BACKENDS, 0);
#[map]
pub static VIP_VERDICTS: PerCpuArray<[u64; limits::VERDICTS as usize]> =
    PerCpuArray::with_max_entries(limits::VIPS, 0);
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(limits::EVENT_BYTES, 0);
