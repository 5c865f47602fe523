//! A request's place in a trace: W3C Trace Context in, a span of the ingress's own out.

mod otlp;

use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use super::names::hex;
use super::{Entry, TraceConfig, bound_of};

/// Bytes of a `traceparent` of version 00.
pub const TRACEPARENT_LEN: usize = 55;
/// Spans that wait to be sent; past it they are dropped, for a slow collector must not slow
/// requests.
const QUEUE: usize = 8192;

/// The ingress's part of a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    trace: u128,
    /// Zero if the trace begins here.
    parent: u64,
    id: u64,
    sampled: bool,
}

impl Span {
    /// Returns the trace's id.
    pub fn trace(&self) -> u128 {
        self.trace
    }

    /// Whether the collector is told of it.
    pub fn is_sampled(&self) -> bool {
        self.sampled
    }

    /// Returns what the endpoint is told: the same trace, with this span as the parent.
    pub fn traceparent(&self) -> [u8; TRACEPARENT_LEN] {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        let [high, low] = halves(self.trace);
        hex(&mut text[3..19], high);
        hex(&mut text[19..35], low);
        hex(&mut text[36..52], self.id);
        hex(&mut text[53..55], u64::from(self.sampled));
        text
    }

    /// Goes on with what a client said in its `traceparent`, if it is valid.
    fn parse(text: &[u8], id: u64) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let mut parts = text.split('-');
        let version = digits(parts.next()?, 2)?;
        let trace = digits(parts.next()?, 32)?;
        let parent = u64::try_from(digits(parts.next()?, 16)?).ok()?;
        let flags = digits(parts.next()?, 2)?;
        // Later versions may say more; 255 is none, and version 0 ends here.
        let ends = parts.next().is_none() || version != 0;
        let valid = version != 255 && ends && trace != 0 && parent != 0;
        valid.then_some(Self {
            trace,
            parent,
            id,
            sampled: flags & 1 == 1,
        })
    }
}

fn halves(trace: u128) -> [u64; 2] {
    let part = |shift: u32| u64::try_from(trace >> shift & u128::from(u64::MAX)).unwrap_or(0);
    [part(64), part(0)]
}

/// Returns a number of exactly this many lowercase hexadecimal digits.
fn digits(text: &str, count: usize) -> Option<u128> {
    let fine = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if text.len() != count || !text.bytes().all(fine) {
        return None;
    }
    u128::from_str_radix(text, 16).ok()
}

/// Begins spans, and sends those that are sampled.
#[derive(Debug)]
pub(super) struct Tracer {
    pub(super) config: TraceConfig,
    bound: u64,
    queue: SyncSender<otlp::Ended>,
}

impl Tracer {
    /// Starts the thread that sends; it ends when the tracer is dropped and all is sent.
    pub(super) fn start(config: TraceConfig) -> Arc<Self> {
        let (queue, ended) = sync_channel(QUEUE);
        let collector = config.collector.clone();
        let thread = std::thread::Builder::new().name("ballast-traces".to_owned());
        if let Err(error) = thread.spawn(move || otlp::send_all(&collector, &ended)) {
            tracing::error!(%error, "no thread for traces: none are sent");
        }
        Arc::new(Self {
            bound: bound_of(config.sample),
            config,
            queue,
        })
    }

    /// Begins the span of a request: in the client's trace, if it has one.
    pub(super) fn begin(
        &self,
        traceparent: Option<&[u8]>,
        mut random: impl FnMut() -> u64,
    ) -> Span {
        let id = random().max(1);
        traceparent
            .and_then(|text| Span::parse(text, id))
            .unwrap_or_else(|| {
                let trace = u128::from(random()) << 64 | u128::from(random().max(1));
                Span {
                    trace,
                    parent: 0,
                    id,
                    sampled: self.bound > 0 && random() <= self.bound,
                }
            })
    }

    /// Tells of a request that has ended. Dropped if too many wait.
    pub(super) fn ended(&self, span: &Span, entry: &Entry<'_>) {
        let _ = self.queue.try_send(otlp::Ended::new(span, entry));
    }
}

/// How long spans are gathered before they are sent together.
const GATHER: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &[u8] = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn span_stays_in_the_trace_of_the_client_and_becomes_the_parent() {
        let span = Span::parse(SAID, 0xabc).expect("is valid");
        assert!(span.is_sampled());
        assert_eq!(span.parent, 0x00f0_67aa_0ba9_02b7);
        let told = "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000abc-01";
        assert_eq!(span.traceparent(), told.as_bytes());
        let again = Span::parse(&span.traceparent(), 1).expect("is valid");
        assert_eq!((again.trace, again.parent), (span.trace, span.id));
    }

    #[test]
    fn invalid_traceparents_begin_a_trace() {
        for text in [
            &b""[..],
            b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            b"ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            b"00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            b"00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            b"00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            b"00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            b"\xff",
        ] {
            assert_eq!(Span::parse(text, 1), None, "{}", text.escape_ascii());
        }
        let later = b"01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03-more";
        assert!(Span::parse(later, 1).is_some_and(|span| span.sampled));
    }
}
