//! The thread that writes the access log.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::log::{Lines, LogCounters, LogTarget, Sink};

/// How long lines are gathered before they are written together.
const GATHER: Duration = Duration::from_millis(50);
/// Between two looks whether the file was moved away.
const LOOK: Duration = Duration::from_millis(500);
/// Bytes of a buffer that it keeps when it was written.
const KEEP: usize = 64 * 1024;

/// Where lines are written.
#[derive(Debug)]
pub(super) enum Output {
    Stdout,
    File {
        path: PathBuf,
        file: File,
        looked: Instant,
    },
}

impl Output {
    pub(super) fn open(target: &LogTarget) -> io::Result<Self> {
        Ok(match target {
            LogTarget::Stdout => Self::Stdout,
            LogTarget::File(path) => Self::File {
                file: open(path)?,
                path: path.clone(),
                looked: Instant::now(),
            },
        })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(bytes)?;
                out.flush()
            }
            Self::File { path, file, looked } => {
                if looked.elapsed() > LOOK {
                    *looked = Instant::now();
                    if was_moved(path, file) {
                        *file = open(path)?;
                    }
                }
                file.write_all(bytes)
            }
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

fn was_moved(path: &Path, file: &File) -> bool {
    let id = |meta: std::fs::Metadata| (meta.dev(), meta.ino());
    match (std::fs::metadata(path), file.metadata()) {
        (Ok(there), Ok(open)) => id(there) != id(open),
        _ => true,
    }
}

/// Writes until the sink has ended, and then what is left.
pub(super) fn run(sink: &Sink, mut output: Output, counters: &LogCounters) {
    let mut failing = false;
    loop {
        let ended = sink.ended.load(Ordering::Acquire);
        if !ended && !sink.is_woken() {
            std::thread::park();
            continue;
        }
        if !ended {
            // Ends early when a buffer is half full.
            std::thread::park_timeout(GATHER);
        }
        sink.gather(|lines| write(lines, &mut output, counters, &mut failing));
        if ended {
            return;
        }
    }
}

/// Writes lines, and returns their buffer for the next ones.
fn write(
    mut lines: Lines,
    output: &mut Output,
    counters: &LogCounters,
    failing: &mut bool,
) -> Lines {
    match output.write(&lines.bytes) {
        Ok(()) => {
            counters.lines.inc_by(lines.count);
            *failing = false;
        }
        Err(error) => {
            counters.dropped.inc_by(lines.count);
            // Once for as long as it lasts: the disk may be full of this very log.
            if !std::mem::replace(failing, true) {
                tracing::error!(%error, "access log not written");
            }
        }
    }
    lines.bytes.clear();
    lines.bytes.shrink_to(KEEP);
    lines.count = 0;
    lines
}
