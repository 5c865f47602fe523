//! Random packets and mutated fixtures: the host function against the kernel's program.

use ballast_ebpf_common::host::World;
use ballast_ebpf_common::layout::flag;
use ballast_ebpf_common::layout::flow::{Line, Meta};
use ballast_ebpf_packets::describe::{Scene as Names, packet};
use ballast_ebpf_packets::{Program, Scene, Sizes, Step, address};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Packets of a run: about a second.
const PACKETS: usize = 40_000;
/// Tables so large that nothing is evicted: what is evicted depends on the clock, of which each side
/// has its own.
const SIZES: Sizes = Sizes {
    flow_lines: 32_768,
    nat: 131_072,
    ..Sizes::SMALL
};

#[test]
fn kernel_does_what_the_host_does_with_packets_that_nobody_wrote() {
    let Some(mut kernel) = super::kernel(SIZES) else {
        return;
    };
    let mut scene = Scene::new().expect("the scene is sound");
    scene.tables.config.flow_mask = SIZES.flow_lines - 1;
    scene.tables.config.nat_mask = SIZES.nat - 1;
    scene.tables.config.flags |=
        flag::NAT | flag::NETS | flag::BLOCK_LIST | flag::DECAP | flag::FLOW_KEYS;
    let seeds = seeds();
    kernel.fill(&scene.tables).expect("the maps take it");
    let world = World::new(scene.tables.clone());
    let mut random = StdRng::seed_from_u64(7);
    for number in 0..PACKETS {
        let bytes = mutant(&seeds, &mut random);
        let (host, program) = if number % 8 == 0 {
            (world.decapsulate(&bytes), Program::Decapsulate)
        } else {
            (world.balance(&bytes), Program::Balance)
        };
        let there = kernel.run(program, &bytes).expect("the kernel runs it");
        if let Err(error) = super::fixtures::same(&host, &there) {
            panic!("packet {number}: {error:#}\n  in     {bytes:02x?}");
        }
    }
    for row in 0..Scene::rows() {
        let there = kernel.verdicts(row).expect("rows can be read");
        assert_eq!(
            world.verdicts()[row as usize],
            there,
            "verdicts of row {row}"
        );
    }
    let timeless = |lines: Vec<Line>| {
        let ways = lines.into_iter().flat_map(|line| line.ways);
        let ways = ways.map(|way| (way.tag, Meta(way.meta).with(0, Meta(way.meta).class())));
        ways.collect::<Vec<_>>()
    };
    assert!(
        timeless(world.flows()) == timeless(kernel.flows().read_all()),
        "the flow tables differ"
    );
}

/// Returns every packet that a fixture sends.
fn seeds() -> Vec<Vec<u8>> {
    let files = super::fixtures::FILES.iter();
    let fixtures = files
        .flat_map(|(_, text)| ballast_ebpf_packets::fixtures(text).expect("fixtures can be read"));
    let inputs = fixtures
        .flat_map(|fixture| fixture.steps)
        .filter_map(|step| match step {
            Step::Packet { input, .. } => Some(input),
            _ => None,
        });
    let names = Names {
        address: &address,
        input: &[],
        actual: &[],
        sent_from: 20_000,
    };
    inputs
        .map(|input| packet(&input, names).expect("fixtures are sound"))
        .collect()
}

/// Returns a packet like one of `seeds`, changed in some places, cut or longer.
fn mutant(seeds: &[Vec<u8>], random: &mut StdRng) -> Vec<u8> {
    let mut bytes = seeds[random.next_u32() as usize % seeds.len()].clone();
    let changes = random.next_u32() % 4;
    for _ in 0..changes {
        // Headers more often than what follows.
        let within = if random.next_u32().is_multiple_of(4) {
            bytes.len()
        } else {
            bytes.len().min(74)
        };
        let at = 12 + random.next_u32() as usize % (within - 12).max(1);
        let Some(byte) = bytes.get_mut(at) else {
            continue;
        };
        match random.next_u32() % 3 {
            0 => *byte ^= 1 << (random.next_u32() % 8),
            1 => *byte = random.next_u32().to_le_bytes()[0],
            _ => *byte = [0, 1, 4, 6, 17, 0x45, 0x60, 0xff][random.next_u32() as usize % 8],
        }
    }
    if random.next_u32().is_multiple_of(8) {
        let length = 14 + random.next_u32() as usize % bytes.len();
        bytes.resize(length, 0xa5);
    }
    bytes
}
