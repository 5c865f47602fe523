//! Answers a request for a task's log: the last lines, and what follows as long as it is wanted.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use ballast_model::view::LogStream;
use ballast_wire::agent::LogLines;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::TaskLogs;

/// Bytes of a line; the rest of a longer one is cut off.
pub const LINE_BYTES: usize = 16 * 1024;
/// Lines of one request at most.
const TAIL_LINES: usize = 100_000;
/// Bytes of both streams' tails at most.
const TAIL_BYTES: usize = 8 << 20;
/// Bytes of lines in one message: small beside a frame's limit, so that health overtakes logs.
const MESSAGE_BYTES: usize = 128 * 1024;
/// Bytes that are read at once while following.
const FOLLOW_CHUNK: usize = 256 * 1024;
/// How often a file that somebody follows is looked at.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(50);

/// A request for a log.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// Comes back with the lines.
    pub id: u64,
    /// How many of the last lines of each stream.
    pub tail: u32,
    /// Whether to go on.
    pub follow: bool,
}

/// Sends what was asked for until it ends, is cancelled or nobody takes it any more.
pub async fn serve(
    logs: Arc<TaskLogs>,
    request: Request,
    out: mpsc::Sender<LogLines>,
    cancelled: CancellationToken,
) {
    let end = tokio::select! {
        () = cancelled.cancelled() => return,
        result = stream(&logs, request, &out) => match result {
            Ok(()) => String::new(),
            Err(error) => format!("the log cannot be read: {error}"),
        },
    };
    let last = LogLines {
        request: request.id,
        lines: Vec::new(),
        end: Some(end),
    };
    // Nobody is left to be told if the link has gone.
    drop(out.send(last).await);
}

async fn stream(
    logs: &Arc<TaskLogs>,
    request: Request,
    out: &mpsc::Sender<LogLines>,
) -> io::Result<()> {
    let lines = usize::try_from(request.tail)
        .unwrap_or(TAIL_LINES)
        .min(TAIL_LINES);
    let mut readers = Vec::new();
    for place in 0..logs.streams().len() {
        let shared = logs.clone();
        let tail = move || shared.streams()[place].1.tail(lines, TAIL_BYTES);
        let (bytes, position) = tokio::task::spawn_blocking(tail)
            .await
            .map_err(io::Error::other)??;
        let mut reader = Reader {
            stream: logs.streams()[place].0,
            place,
            position,
            lines: Lines::default(),
        };
        let found = reader.lines.push(&bytes);
        if !send(out, request.id, reader.stream, found).await {
            return Ok(());
        }
        readers.push(reader);
    }
    if !request.follow {
        for reader in &mut readers {
            let rest = reader.lines.finish();
            send(out, request.id, reader.stream, rest).await;
        }
        return Ok(());
    }
    loop {
        let mut idle = true;
        for reader in &mut readers {
            let shared = logs.clone();
            let (place, mut position) = (reader.place, reader.position);
            let read = move || {
                let bytes = shared.streams()[place]
                    .1
                    .read_from(&mut position, FOLLOW_CHUNK);
                bytes.map(|bytes| (bytes, position))
            };
            let (bytes, position) = tokio::task::spawn_blocking(read)
                .await
                .map_err(io::Error::other)??;
            reader.position = position;
            idle &= bytes.is_empty();
            let found = reader.lines.push(&bytes);
            if !send(out, request.id, reader.stream, found).await {
                return Ok(());
            }
        }
        if idle {
            tokio::time::sleep(FOLLOW_INTERVAL).await;
        }
    }
}

struct Reader {
    stream: LogStream,
    place: usize,
    position: u64,
    lines: Lines,
}

/// Sends lines in messages of bounded size; returns whether somebody still takes them.
async fn send(
    out: &mpsc::Sender<LogLines>,
    request: u64,
    stream: LogStream,
    lines: Vec<Vec<u8>>,
) -> bool {
    let mut batch = Vec::new();
    let mut size = 0;
    let mut lines = lines.into_iter().peekable();
    while let Some(line) = lines.next() {
        size += line.len();
        batch.push((stream, line));
        if size >= MESSAGE_BYTES || lines.peek().is_none() {
            size = 0;
            let message = LogLines {
                request,
                lines: std::mem::take(&mut batch),
                end: None,
            };
            if out.send(message).await.is_err() {
                return false;
            }
        }
    }
    true
}

/// Cuts bytes into lines.
#[derive(Debug, Default)]
pub struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    /// Takes bytes and returns the lines that they end, without their ends.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let (content, ends) = match piece.strip_suffix(b"\n") {
                Some(content) => (content, true),
                None => (piece, false),
            };
            let room = LINE_BYTES - self.partial.len();
            self.partial
                .extend_from_slice(&content[..content.len().min(room)]);
            if ends {
                found.push(std::mem::take(&mut self.partial));
            }
        }
        found
    }

    /// Returns a last line that has no end.
    pub fn finish(&mut self) -> Vec<Vec<u8>> {
        let rest = std::mem::take(&mut self.partial);
        if rest.is_empty() { vec![] } else { vec![rest] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_in_pieces_and_long_ones_are_cut() {
        let mut lines = Lines::default();
        assert_eq!(lines.push(b"a\nb"), [b"a".to_vec()]);
        assert_eq!(lines.push(b"c\n\n"), [b"bc".to_vec(), vec![]]);
        let found = lines.push(&[vec![b'x'; LINE_BYTES * 2], b"\nafter\xff\n".to_vec()].concat());
        assert_eq!(found[0].len(), LINE_BYTES);
        assert_eq!(found[1], b"after\xff");
        lines.push(b"open");
        assert_eq!(lines.finish(), [b"open".to_vec()]);
    }
}
