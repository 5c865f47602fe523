//! One log file that a program appends to, bounded without the program noticing.
//!
//! The program holds the file open in append mode, so it can be neither renamed away nor
//! truncated without losing what is written meanwhile. Instead its head is copied to `FILE.1` and
//! then cut out of the file: with `FALLOC_FL_COLLAPSE_RANGE`, which moves the rest to the front
//! (ext4, xfs), or, where a file system cannot, with `FALLOC_FL_PUNCH_HOLE`, which frees the
//! head's blocks and leaves the file's length as it is. Both are atomic against appends.
//!
//! A cut falls on a block, not on a line: `FILE.2`, `FILE.1` and `FILE` one after the other are
//! what the program wrote, byte for byte.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::FallocateFlags;

use super::Bounds;

/// Cuts are made at multiples of the file system's block, at most this.
const LARGEST_BLOCK: u64 = 64 * 1024;

/// How the file in place relates to all that was ever written.
#[derive(Debug, Default)]
struct Shift {
    /// Bytes that were cut out of the front since the agent knows the file.
    cut: u64,
    /// Whether the last write to disk failed; said once.
    failing: bool,
    /// The length when it was last looked at.
    seen: u64,
}

/// One log file and its older parts.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    shift: Mutex<Shift>,
}

impl LogFile {
    /// Names a file; it need not exist yet.
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            shift: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shift> {
        self.shift.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn part(&self, number: u32) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    }

    /// Cuts the file if it is longer than its bound; returns whether it grows fast.
    pub fn bound(&self, bounds: Bounds) -> bool {
        let Ok(metadata) = fs::metadata(&self.path) else {
            return false;
        };
        let grown = {
            let mut shift = self.lock();
            let grown = metadata.len().saturating_sub(shift.seen);
            shift.seen = metadata.len();
            grown
        };
        // What a hole has freed does not count.
        let kept = metadata.len().min(metadata.blocks() * 512);
        if kept > bounds.bytes {
            let result = self.cut(bounds);
            let mut shift = self.lock();
            match &result {
                Err(error) if !shift.failing => {
                    tracing::warn!(file = %self.path.display(), %error, "cannot bound a log");
                }
                _ => {}
            }
            shift.failing = result.is_err();
        }
        grown > bounds.bytes / 20
    }

    fn cut(&self, bounds: Bounds) -> io::Result<()> {
        let file = File::options().read(true).write(true).open(&self.path)?;
        let metadata = file.metadata()?;
        let block = metadata.blksize().clamp(512, LARGEST_BLOCK);
        let head = first_data(&file)?;
        // At least one byte stays: a collapse may not reach the end of the file.
        let length = (metadata.len() - head).saturating_sub(1) / block * block;
        if length == 0 {
            return Ok(());
        }
        let copied = bounds.files > 1 && self.copy_head(&file, head, length, bounds)?;
        let mut shift = self.lock();
        // Renamed and cut under one lock, so that no reader sees the head twice or not at all.
        if copied {
            for number in (1..bounds.files - 1).rev() {
                rename_if_there(&self.part(number), &self.part(number + 1))?;
            }
            fs::rename(self.part(0), self.part(1))?;
        }
        let collapsed = head == 0
            && rustix::fs::fallocate(&file, FallocateFlags::COLLAPSE_RANGE, 0, length).is_ok();
        if collapsed {
            shift.cut += length;
            shift.seen = shift.seen.saturating_sub(length);
        } else {
            let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            rustix::fs::fallocate(&file, hole, 0, head + length)?;
        }
        Ok(())
    }

    /// Copies the head to a part of its own. On a full disk the oldest part makes room; if that is
    /// not enough the head is given up, as a log must not keep a disk full.
    fn copy_head(&self, file: &File, head: u64, length: u64, bounds: Bounds) -> io::Result<bool> {
        for oldest in (1..bounds.files).rev().map(Some).chain([None]) {
            match self.copy_to_part(file, head, length) {
                Ok(()) => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                    drop(fs::remove_file(self.part(0)));
                    if let Some(oldest) = oldest {
                        drop(fs::remove_file(self.part(oldest)));
                    }
                }
                Err(error) => return Err(error),
            }
        }
        tracing::warn!(file = %self.path.display(), bytes = length, "the disk is full: the oldest part of a log is dropped");
        Ok(false)
    }

    fn copy_to_part(&self, mut file: &File, head: u64, length: u64) -> io::Result<()> {
        file.seek(SeekFrom::Start(head))?;
        let mut part = File::create(self.part(0))?;
        let copied = io::copy(&mut file.take(length), &mut part)?;
        if copied == length {
            Ok(())
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }

    /// Returns the last bytes that were written, over all parts, as far as they hold `lines` line
    /// ends or `most` bytes; and the position after them, for [`read_from`](Self::read_from).
    ///
    /// # Errors
    /// If a part cannot be read.
    pub fn tail(&self, lines: usize, most: usize) -> io::Result<(Vec<u8>, u64)> {
        let shift = self.lock();
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((vec![], 0)),
            Err(error) => return Err(error),
        };
        let end = file.metadata()?.len();
        let mut found = Tail::new(lines, most);
        let mut more = found.take(&file, first_data(&file)?, end)?;
        let mut number = 1;
        while more {
            let Ok(part) = File::open(self.part(number)) else {
                break;
            };
            let length = part.metadata()?.len();
            more = found.take(&part, 0, length)?;
            number += 1;
        }
        Ok((found.into_bytes(), shift.cut + end))
    }

    /// Returns up to `most` bytes that were written after a position; what a cut has moved to the
    /// newest part in between is read there.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn read_from(&self, position: &mut u64, most: usize) -> io::Result<Vec<u8>> {
        let shift = self.lock();
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
            Err(error) => return Err(error),
        };
        let start = shift.cut + first_data(&file)?;
        let end = shift.cut + file.metadata()?.len();
        if *position < start {
            let missed = start - *position;
            let part = File::open(self.part(1)).and_then(|part| Ok((part.metadata()?.len(), part)));
            if let Ok((length, part)) = part
                && missed <= length
            {
                let wanted = usize::try_from(missed).unwrap_or(most).min(most);
                return read_at(&part, length - missed, wanted, position);
            }
            // Older than the newest part: the reader was too slow for this writer.
            *position = start;
        }
        let wanted = usize::try_from(end.saturating_sub(*position))
            .unwrap_or(most)
            .min(most);
        let offset = *position - shift.cut;
        read_at(&file, offset, wanted, position)
    }
}

fn read_at(file: &File, offset: u64, wanted: usize, position: &mut u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; wanted];
    file.read_exact_at(&mut bytes, offset)?;
    *position += wanted as u64;
    Ok(bytes)
}

/// Returns where the file's data begins: behind the hole of earlier cuts, if there is one.
fn first_data(file: &File) -> io::Result<u64> {
    match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(0)) {
        Ok(offset) => Ok(offset),
        // Empty, or nothing but a hole.
        Err(rustix::io::Errno::NXIO) => Ok(file.metadata()?.len()),
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::OPNOTSUPP) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

fn rename_if_there(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Collects bytes from the end of a file to its front.
struct Tail {
    lines: usize,
    most: usize,
    seen: usize,
    size: usize,
    chunks: Vec<Vec<u8>>,
}

impl Tail {
    /// Bytes read at a time.
    const CHUNK: u64 = 64 * 1024;

    const fn new(lines: usize, most: usize) -> Self {
        Self {
            lines,
            most,
            seen: 0,
            size: 0,
            chunks: Vec::new(),
        }
    }

    /// Takes from `end` back to `start`; returns whether it wants more.
    fn take(&mut self, file: &File, start: u64, mut end: u64) -> io::Result<bool> {
        if self.lines == 0 {
            return Ok(false);
        }
        while end > start {
            let size = Self::CHUNK.min(end - start);
            end -= size;
            let mut chunk = vec![0; usize::try_from(size).unwrap_or_default()];
            file.read_exact_at(&mut chunk, end)?;
            for place in (0..chunk.len()).rev() {
                // The end of the last line does not begin another one.
                let last = self.size == 0 && place == chunk.len() - 1;
                if chunk[place] == b'\n' && !last {
                    self.seen += 1;
                }
                if self.seen == self.lines || self.size + chunk.len() - place > self.most {
                    self.chunks.push(chunk.split_off(place + 1));
                    return Ok(false);
                }
            }
            self.size += chunk.len();
            self.chunks.push(chunk);
        }
        Ok(true)
    }

    fn into_bytes(self) -> Vec<u8> {
        self.chunks.into_iter().rev().flatten().collect()
    }
}
