//! The system calls that no library wraps: maps by bytes, and test runs.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

const LOOKUP: libc::c_long = 1;
const UPDATE: libc::c_long = 2;
const DELETE: libc::c_long = 3;
const NEXT_KEY: libc::c_long = 4;
const TEST_RUN: libc::c_long = 10;

/// What the calls about an element take.
#[repr(C)]
#[derive(Default)]
struct Element {
    map: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// What a test run takes (`struct bpf_attr`, `test`).
#[repr(C)]
#[derive(Default)]
struct Test {
    program: u32,
    retval: u32,
    size_in: u32,
    size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_size_in: u32,
    context_size_out: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
    batch: u32,
    pad: u32,
}

fn call<T>(command: libc::c_long, attributes: &mut T) -> io::Result<()> {
    // SAFETY: each caller passes the structure that its command takes; the pointers in it are to
    // buffers of the size that the kernel knows, and outlive the call.
    let done =
        unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size_of::<T>()) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn fd(map: BorrowedFd<'_>) -> u32 {
    map.as_raw_fd().cast_unsigned()
}

/// Writes an element; both slices have the sizes that the map was made with.
pub fn update(map: BorrowedFd<'_>, key: &[u8], value: &[u8]) -> io::Result<()> {
    call(
        UPDATE,
        &mut Element {
            map: fd(map),
            key: key.as_ptr() as u64,
            value: value.as_ptr() as u64,
            ..Element::default()
        },
    )
}

/// Reads an element.
pub fn lookup(map: BorrowedFd<'_>, key: &[u8], value: &mut [u8]) -> io::Result<()> {
    call(
        LOOKUP,
        &mut Element {
            map: fd(map),
            key: key.as_ptr() as u64,
            value: value.as_mut_ptr() as u64,
            ..Element::default()
        },
    )
}

/// Removes every element of a hash or trie.
pub fn clear(map: BorrowedFd<'_>, key_size: usize) -> io::Result<()> {
    let mut key = vec![0; key_size];
    loop {
        let mut attributes = Element {
            map: fd(map),
            value: key.as_mut_ptr() as u64,
            ..Element::default()
        };
        if call(NEXT_KEY, &mut attributes).is_err() {
            return Ok(());
        }
        call(
            DELETE,
            &mut Element {
                map: fd(map),
                key: key.as_ptr() as u64,
                ..Element::default()
            },
        )?;
    }
}

/// What a test run gave.
pub struct Ran {
    /// What the program returned.
    pub action: u32,
    /// Bytes of the packet afterwards.
    pub length: usize,
    /// ns for each repetition.
    pub nanoseconds: u32,
}

/// Runs a program `repeat` times on one packet (restored by nobody in between).
pub fn test_run(
    program: BorrowedFd<'_>,
    packet: &[u8],
    out: &mut [u8],
    repeat: u32,
) -> io::Result<Ran> {
    let mut attributes = Test {
        program: fd(program),
        size_in: u32::try_from(packet.len()).unwrap_or(u32::MAX),
        size_out: u32::try_from(out.len()).unwrap_or(u32::MAX),
        data_in: packet.as_ptr() as u64,
        data_out: out.as_mut_ptr() as u64,
        repeat,
        ..Test::default()
    };
    call(TEST_RUN, &mut attributes)?;
    Ok(Ran {
        action: attributes.retval,
        length: attributes.size_out as usize,
        nanoseconds: attributes.duration,
    })
}

const INFO: libc::c_long = 15;

/// What the call about an object takes.
#[repr(C)]
#[derive(Default)]
struct Ask {
    object: u32,
    length: u32,
    info: u64,
}

/// Words of `struct bpf_prog_info` as of Linux 5.16.
const INFO_WORDS: usize = 29;

/// What a program costs the kernel.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Instructions that the verifier went through.
    pub verified: u64,
    /// Bytes of stack of the function that has most.
    pub frame: u64,
}

/// Returns what a program costs.
pub fn cost(program: BorrowedFd<'_>) -> io::Result<Cost> {
    let mut info = [0_u64; INFO_WORDS];
    ask(program, &mut info)?;
    // Two lengths in the third word; asked again with room for the translated instructions.
    let bytes = (info[2] >> 32) as usize;
    let mut instructions = vec![0_u64; bytes / 8];
    let mut info = [0_u64; INFO_WORDS];
    info[2] = (bytes as u64) << 32;
    info[4] = instructions.as_mut_ptr() as u64;
    ask(program, &mut info)?;
    Ok(Cost {
        verified: info[27] & 0xffff_ffff,
        frame: instructions
            .iter()
            .map(|word| depth(*word))
            .max()
            .unwrap_or(0),
    })
}

fn ask(program: BorrowedFd<'_>, info: &mut [u64; INFO_WORDS]) -> io::Result<()> {
    call(
        INFO,
        &mut Ask {
            object: fd(program),
            length: (INFO_WORDS * 8) as u32,
            info: info.as_mut_ptr() as u64,
        },
    )
}

/// Returns how deep into its frame an instruction reaches.
fn depth(instruction: u64) -> u64 {
    const FRAME: u64 = 10;
    let code = instruction & 0xff;
    let (destination, source) = (instruction >> 8 & 15, instruction >> 12 & 15);
    let offset = i64::from((instruction >> 16) as i16);
    let base = match code & 7 {
        // Loads by the source register, stores by the destination.
        1 => source,
        2 | 3 => destination,
        _ => return 0,
    };
    if base == FRAME && offset < 0 {
        offset.unsigned_abs()
    } else {
        0
    }
}
