//! Changes of rings and services: time and memory.

use std::time::Instant;

use anyhow::Result;
use ballast_ebpf_common::layout::flow::{FlowKey, Line};
use ballast_ebpf_common::layout::nat::Translation;
use ballast_ebpf_common::layout::{Backend, state};
use ballast_ebpf_loader::{Ring, Share};
use ballast_ebpf_packets::{Kernel, Sizes};

use super::SIZES;
use crate::figures::{Figure, Stat};
use crate::{Bench, Options};

const SLOTS: usize = 65_537;
const MEMBERS: u16 = 100;
const RUNS: usize = 51;
/// Services and reals of the large set-up; a ring of fewer slots each, 40 for a real.
const VIPS: u32 = 1_000;
const REALS: u32 = 100;
const SMALL_RING: u32 = 4_001;

pub(super) fn run(options: &Options, bench: &mut Bench) -> Result<()> {
    let kernel = Kernel::load(ballast_ebpf_loader::object(), SIZES)?;
    let shares = |without: Option<u16>| -> Vec<Share> {
        let members = (0..MEMBERS).filter(|member| Some(*member) != without);
        members.map(|member| Share { member, weight: 1 }).collect()
    };
    let (mut whole, mut changed, mut decided, mut died) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for member in (0..MEMBERS).take(options.size(RUNS, 3)) {
        let mut ring = Ring::new(SLOTS);
        ring.update(&shares(None), |_| false);
        let begin = Instant::now();
        kernel.ring().write_all(ring.words());
        whole.push(begin.elapsed().as_secs_f64() * 1e3);
        let backend = kernel.backends().read(usize::from(member));
        let begin = Instant::now();
        kernel.backends().write(
            usize::from(member),
            Backend {
                state: state::DEAD,
                ..backend
            },
        );
        died.push(begin.elapsed().as_secs_f64() * 1e3);
        let begin = Instant::now();
        let changes = ring.update(&shares(Some(member)), |gone| gone == member);
        decided.push(begin.elapsed().as_secs_f64() * 1e3);
        let begin = Instant::now();
        for change in &changes {
            kernel.ring().write(change.slot, change.word);
        }
        changed.push(begin.elapsed().as_secs_f64() * 1e3);
    }
    let of = ("a ring of 65,537", "ballast");
    bench.push(
        Figure::new(of, "all slots written", "ms")
            .values(whole)
            .goal(Stat::P50, 0.1),
    );
    bench.push(Figure::new(of, "a real is marked dead", "ms").values(died));
    bench.push(Figure::new(of, "its slots are given away", "ms").values(decided));
    bench.push(Figure::new(of, "those slots written", "ms").values(changed));
    memory(bench);
    Ok(())
}

/// Bytes of the maps that grow with services and reals, and of those that do not.
fn memory(bench: &mut Bench) {
    let mib = |bytes: u64| bytes as f64 / 1_048_576.0;
    let backends = u64::from(VIPS * REALS);
    let cpus = std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u64);
    // Elements of arrays are rounded up to 8 bytes.
    let rings = u64::from(VIPS * SMALL_RING) * 8;
    let per_backend = size_of::<Backend>() as u64 + 8 + 32 * cpus;
    let per_vip = 256 * cpus + 2 * 64;
    let of = ("1,000 services of 100 reals", "ballast");
    let of_reals = backends * per_backend + u64::from(VIPS) * per_vip;
    bench.push(Figure::new(of, "records and counters", "MiB").values([mib(of_reals)]));
    bench.push(Figure::new(of, "rings of 4,001", "MiB").values([mib(rings)]));
    let Sizes {
        flow_lines, nat, ..
    } = SIZES;
    let flows = u64::from(flow_lines) * (size_of::<Line>() + 4 * size_of::<FlowKey>()) as u64;
    let flows = flows + u64::from(nat) * size_of::<Translation>() as u64;
    bench.push(Figure::new(of, "flow tables, whatever is served", "MiB").values([mib(flows)]));
}
