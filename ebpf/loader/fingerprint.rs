//! What tells whether the object in `object/` was built from the sources beside it.
//!
//! Read by the loader's build script, which refuses a stale object, and by `cargo xtask`, which
//! writes it: one text, so that they cannot disagree.

use std::path::{Path, PathBuf};
use std::{fs, io};

/// The object, in the loader's folder.
pub const OBJECT: &str = "object/ballast.bpf.o";
/// What it was built from and with.
pub const RECORD: &str = "object/record.txt";

/// What of `ebpf/` goes into the object: files, and folders with all that is in them.
const INPUTS: [&str; 5] = [
    "common/Cargo.toml",
    "common/src",
    "xdp/Cargo.toml",
    "xdp/Cargo.lock",
    "xdp/src",
];

/// Returns every file that goes into the object, relative to `ebpf`, in order.
///
/// # Errors
/// One cannot be read.
pub fn inputs(ebpf: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut open: Vec<PathBuf> = INPUTS.iter().map(PathBuf::from).collect();
    while let Some(path) = open.pop() {
        let full = ebpf.join(&path);
        if full.is_dir() {
            for entry in fs::read_dir(&full)? {
                open.push(path.join(entry?.file_name()));
            }
        } else if full.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Returns the fingerprint of all that goes into the object.
///
/// # Errors
/// A source cannot be read.
pub fn of_sources(ebpf: &Path) -> io::Result<String> {
    let mut hash = Fnv::new();
    for path in inputs(ebpf)? {
        hash.add(path.to_string_lossy().as_bytes());
        hash.add(&fs::read(ebpf.join(&path))?);
    }
    Ok(hash.text())
}

/// Returns the fingerprint of some bytes.
pub fn of_bytes(bytes: &[u8]) -> String {
    let mut hash = Fnv::new();
    hash.add(bytes);
    hash.text()
}

/// Returns what `key` has in a record: lines of a key, a space and a value.
pub fn recorded<'a>(record: &'a str, key: &str) -> Option<&'a str> {
    record
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))
}

/// FNV-1a of 128 bits: it finds mistakes, not forgers, and needs no dependency.
struct Fnv(u128);

impl Fnv {
    const fn new() -> Self {
        Self(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d)
    }

    /// Adds some bytes and, so that neighbours cannot trade theirs, their length.
    fn add(&mut self, bytes: &[u8]) {
        let length = (bytes.len() as u64).to_le_bytes();
        for byte in bytes.iter().chain(&length) {
            self.0 ^= u128::from(*byte);
            self.0 = self
                .0
                .wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
        }
    }

    fn text(&self) -> String {
        format!("{:032x}", self.0)
    }
}
