//! A stream of JSON objects: server-sent events, or one object a line.

use std::collections::VecDeque;
use std::marker::PhantomData;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;

use crate::Failure;

/// Bytes of one line; a longer one is not ours.
const MAX_LINE: usize = 1 << 20;

/// Objects of one kind as they arrive.
pub struct LineStream<T> {
    body: Incoming,
    lines: Lines,
    kind: PhantomData<T>,
}

impl<T: DeserializeOwned> LineStream<T> {
    /// Reads a body.
    pub fn new(body: Incoming) -> Self {
        Self {
            body,
            lines: Lines::default(),
            kind: PhantomData,
        }
    }

    /// Returns the next object; `None` at the end.
    ///
    /// # Errors
    /// If the connection breaks or a line is not such an object.
    pub async fn next(&mut self) -> Result<Option<T>, Failure> {
        loop {
            if let Some(line) = self.lines.take() {
                return serde_json::from_str(&line).map(Some).map_err(|error| {
                    Failure::while_doing("a line of the stream is not understood", error)
                });
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => {
                    return Err(Failure::while_doing(
                        "the stream from the manager broke",
                        error,
                    ));
                }
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.lines.push(&data)?;
                    }
                }
            }
        }
    }
}

/// Cuts bytes into objects. Of server-sent events only `data:` counts; comments (`:`) keep the
/// connection alive, and what else there is names what the object says itself.
#[derive(Debug, Default)]
struct Lines {
    partial: Vec<u8>,
    ready: VecDeque<String>,
}

impl Lines {
    fn push(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            if self.partial.len() + piece.len() > MAX_LINE {
                return Err(Failure::Failed(format!(
                    "a line of the stream is longer than {MAX_LINE} bytes"
                )));
            }
            self.partial.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                let line = String::from_utf8_lossy(&self.partial).trim().to_owned();
                self.partial.clear();
                let data = line.strip_prefix("data:").map_or(line.as_str(), str::trim);
                if data.starts_with('{') {
                    self.ready.push_back(data.to_owned());
                }
            }
        }
        Ok(())
    }

    fn take(&mut self) -> Option<String> {
        self.ready.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_and_plain_lines_arrive_in_pieces() {
        let mut lines = Lines::default();
        lines
            .push(b": hello\nevent: task\nid: 7\nda")
            .expect("short");
        assert_eq!(lines.take(), None);
        lines
            .push(b"ta: {\"a\":1}\n\n{\"b\":2}\r\n{\"c\"")
            .expect("short");
        assert_eq!(lines.take().as_deref(), Some("{\"a\":1}"));
        assert_eq!(lines.take().as_deref(), Some("{\"b\":2}"));
        assert_eq!(lines.take(), None);
    }

    #[test]
    fn endless_line_is_refused() {
        let mut lines = Lines::default();
        let chunk = vec![b'x'; 64 << 10];
        let refused = (0..32).any(|_| lines.push(&chunk).is_err());
        assert!(refused);
    }
}
