//! A flood of SYNs takes nothing from those who are there.

use ballast_ebpf_common::host::World;
use ballast_ebpf_common::layout::flow::{Line, Meta, class};
use ballast_ebpf_common::layout::limits;
use ballast_ebpf_packets::describe::{Scene as Names, packet};
use ballast_ebpf_packets::{Program, Scene, Sizes, address};

/// Returns a segment to the service, from the client of that number.
struct Segments {
    syn: Vec<u8>,
    ack: Vec<u8>,
}

impl Segments {
    fn new() -> Self {
        let names = Names {
            address: &address,
            input: &[],
            actual: &[],
            sent_from: 0,
        };
        let of = |text| packet(text, names).expect("the text is sound");
        Self {
            syn: of("ip c>v / tcp 40000>80 S"),
            ack: of("ip c>v / tcp 40000>80 A"),
        }
    }

    /// Writes the number into source address and port: checksums do not matter to the balancer.
    fn from(&mut self, opens: bool, number: u32) -> &[u8] {
        let bytes = if opens { &mut self.syn } else { &mut self.ack };
        let address = 0x0b00_0000 + number / 1_024;
        bytes[26..30].copy_from_slice(&address.to_be_bytes());
        let port = 1_024 + (number % 1_024) as u16;
        bytes[34..36].copy_from_slice(&port.to_be_bytes());
        bytes
    }
}

fn scene(lines: u32) -> Scene {
    let mut scene = Scene::new().expect("the scene is sound");
    scene.tables.config.flow_mask = lines - 1;
    scene
}

/// Returns the tags of established flows.
fn established(lines: &[Line]) -> Vec<u64> {
    let ways = lines.iter().flat_map(|line| line.ways);
    let mut tags: Vec<u64> = ways
        .filter(|way| way.tag >> 63 == 1 && Meta(way.meta).class() == class::ESTABLISHED)
        .map(|way| way.tag)
        .collect();
    tags.sort_unstable();
    tags
}

/// Every flow that is there before is there afterwards, although the table has been overrun.
fn stand(flows: u32, syns: u32, mut run: impl FnMut(&[u8]), table: impl Fn() -> Vec<Line>) {
    let mut segments = Segments::new();
    for number in 0..flows {
        run(segments.from(true, number));
        run(segments.from(false, number));
    }
    let before = established(&table());
    assert_eq!(
        before.len(),
        flows as usize,
        "all flows found a way at first"
    );
    for number in 0..syns {
        run(segments.from(true, 0x100_0000 + number));
    }
    let after = established(&table());
    let lost = before
        .iter()
        .filter(|tag| after.binary_search(tag).is_err())
        .count();
    assert_eq!(lost, 0, "of {flows} flows");
}

#[test]
fn four_million_syns_displace_no_established_flow_on_the_host() {
    let lines = limits::FLOW_LINES;
    let world = World::new(scene(lines).tables);
    let run = |packet: &[u8]| {
        world.balance(packet);
    };
    stand(65_536, 4_000_000, run, || world.flows());
}

#[test]
fn syns_displace_no_established_flow_in_the_kernel() {
    // The bench does it at full size; a packet is a system call here.
    let lines = 16_384;
    let sizes = Sizes {
        flow_lines: lines,
        ..Sizes::SMALL
    };
    let Some(mut kernel) = super::kernel(sizes) else {
        return;
    };
    kernel.fill(&scene(lines).tables).expect("the maps take it");
    let kernel = &kernel;
    let run = |packet: &[u8]| {
        kernel
            .run(Program::Balance, packet)
            .expect("the kernel runs it");
    };
    stand(4_096, 250_000, run, || kernel.flows().read_all());
}
