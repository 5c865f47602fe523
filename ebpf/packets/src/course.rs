//! Programs over many packets, timed by the kernel: what restores packets is in
//! `ebpf/xdp/src/bench.rs`.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use anyhow::{Context, ensure};
use aya::programs::ProgramFd;
use aya::{Ebpf, EbpfLoader};

use crate::kernel::{load, map};
use crate::memory::Memory;
use crate::sys;

/// Bytes that the prologue writes at most.
const BYTES: usize = 128;

/// As `Course` of the programs.
#[repr(C)]
#[derive(Clone, Copy)]
struct Record {
    bytes: [u64; BYTES / 8],
    length: u32,
    words: u32,
    next: u32,
    mask: u32,
    address_at: u32,
    port_at: u32,
}

/// How packets follow each other.
#[derive(Clone, Copy)]
pub struct Packets<'a> {
    /// The first one.
    pub first: &'a [u8],
    /// How many flows take turns: a power of two.
    pub flows: u32,
    /// Where the last four bytes of the client's address are.
    pub address_at: u32,
    /// Where the client's port is.
    pub port_at: u32,
}

/// What all else is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Floor {
    /// Drops.
    Drop,
    /// Sends back.
    Transmit,
    /// Puts a header in front and sends back.
    Encapsulate,
}

impl Floor {
    /// All of them, with their names.
    pub const ALL: [(Self, &'static str); 3] = [
        (Self::Drop, "floor: drop"),
        (Self::Transmit, "floor: tx"),
        (Self::Encapsulate, "floor: encapsulate"),
    ];
}

/// The prologue and the floors.
pub struct Course {
    object: Ebpf,
    prologue: ProgramFd,
    floors: [ProgramFd; 3],
    record: Memory<Record>,
}

impl Course {
    /// Loads the object that `cargo xtask ebpf --bench` builds.
    pub fn load(object: &[u8]) -> anyhow::Result<Self> {
        let mut object = EbpfLoader::new().load(object)?;
        let prologue = load(&mut object, "bench_prologue")?;
        let floors = [
            load(&mut object, "floor_drop")?,
            load(&mut object, "floor_tx")?,
            load(&mut object, "floor_encapsulate")?,
        ];
        let record = Memory::of(map(&object, "COURSE")?, 1)?;
        Ok(Self {
            object,
            prologue,
            floors,
            record,
        })
    }

    /// Returns a floor.
    pub fn floor(&self, floor: Floor) -> BorrowedFd<'_> {
        self.floors[floor as usize].as_fd()
    }

    /// Runs `program` on so many packets, from the flow of number `first` on; returns ns for each,
    /// the prologue included, and what the program returned last.
    pub fn run(
        &self,
        program: BorrowedFd<'_>,
        packets: Packets<'_>,
        first: u32,
        count: u32,
    ) -> anyhow::Result<(u32, u32)> {
        ensure!(packets.flows.is_power_of_two(), "flows are a power of two");
        let under_test = program.as_raw_fd().to_ne_bytes();
        sys::update(map(&self.object, "UNDER_TEST")?, &[0; 4], &under_test)?;
        let mut bytes = [0; BYTES];
        let written = packets.first.len().min(BYTES);
        bytes[..written].copy_from_slice(&packets.first[..written]);
        let mut words = [0; BYTES / 8];
        for (word, eight) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_ne_bytes(eight.try_into()?);
        }
        self.record.write(
            0,
            Record {
                bytes: words,
                length: packets.first.len() as u32,
                words: if packets.first.len() >= BYTES { 16 } else { 8 },
                next: first,
                mask: packets.flows - 1,
                address_at: packets.address_at,
                port_at: packets.port_at,
            },
        );
        let mut out = vec![0; packets.first.len() + 1_024];
        let ran = sys::test_run(self.prologue.as_fd(), packets.first, &mut out, count)
            .context("the kernel runs the prologue")?;
        Ok((ran.nanoseconds, ran.action))
    }
}
