//! What a request is called: its id, and its place in a trace.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwapOption;

use super::trace::{Span, Tracer};
use super::{Entry, ObserveConfig};

/// The longest id of a client's that is kept; a longer one is replaced.
const ID_MAX: usize = 128;
/// Digits of an id that is made here.
const ID_LEN: usize = 32;

/// An id that was made here: 128 random bits in hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RequestId([u8; ID_LEN]);

impl RequestId {
    /// Makes one of 128 random bits.
    pub fn new(random: [u64; 2]) -> Self {
        let mut text = [0; ID_LEN];
        let (high, low) = text.split_at_mut(ID_LEN / 2);
        hex(high, random[0]);
        hex(low, random[1]);
        Self(text)
    }

    /// Returns its text.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

/// Writes 64 bits, or as many as there is room for, in hexadecimal.
pub(super) fn hex(text: &mut [u8], mut bits: u64) {
    for digit in text.iter_mut().rev() {
        *digit = b"0123456789abcdef"[usize::try_from(bits & 15).unwrap_or(0)];
        bits >>= 4;
    }
}

/// What one request is called.
#[derive(Debug, Clone, Default)]
pub struct Named {
    id: Id,
    span: Option<Box<Span>>,
}

#[derive(Debug, Clone, Default)]
enum Id {
    /// Nobody asked for one.
    #[default]
    None,
    /// The client's own.
    Kept(Box<[u8]>),
    Made(RequestId),
}

impl Named {
    /// Returns the id; empty if there is none.
    pub fn request_id(&self) -> &[u8] {
        match &self.id {
            Id::None => b"",
            Id::Kept(id) => id,
            Id::Made(id) => id.as_bytes(),
        }
    }

    /// Returns the id if the endpoint has to be told it in place of what the client said.
    pub fn new_id(&self) -> Option<&[u8]> {
        match &self.id {
            Id::None | Id::Kept(_) => None,
            Id::Made(id) => Some(id.as_bytes()),
        }
    }

    /// Returns the ingress's own span: if there is one, the endpoint is told
    /// [`Span::traceparent`] in place of what the client said.
    pub fn span(&self) -> Option<&Span> {
        self.span.as_deref()
    }
}

/// Names requests as the configuration asks for.
#[derive(Debug, Default)]
pub struct Naming {
    on: AtomicBool,
    ids: AtomicBool,
    tracer: ArcSwapOption<Tracer>,
}

impl Naming {
    /// Takes a configuration. Spans of requests in flight are still told of as they began.
    pub fn take(&self, config: &ObserveConfig) {
        self.ids.store(config.request_id, Ordering::Relaxed);
        let running = self.tracer.load();
        let same = running.as_ref().map(|tracer| &tracer.config) == config.traces.as_ref();
        if !same {
            let tracer = config.traces.clone().map(Tracer::start);
            self.tracer.store(tracer);
        }
        let on = config.request_id || config.traces.is_some();
        self.on.store(on, Ordering::Relaxed);
    }

    /// Whether requests are named at all: if not, what a client says of itself is passed on like
    /// any other header.
    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// Names a request, given what the client said in [`REQUEST_ID`] and [`TRACEPARENT`].
    ///
    /// [`REQUEST_ID`]: super::REQUEST_ID
    /// [`TRACEPARENT`]: super::TRACEPARENT
    pub fn name(
        &self,
        said: Option<&[u8]>,
        traceparent: Option<&[u8]>,
        mut random: impl FnMut() -> u64,
    ) -> Named {
        let id = match said.filter(|id| is_usable(id)) {
            _ if !self.ids.load(Ordering::Relaxed) => Id::None,
            Some(id) => Id::Kept(id.into()),
            None => Id::Made(RequestId::new([random(), random()])),
        };
        let tracer = self.tracer.load();
        let span = tracer
            .as_ref()
            .map(|tracer| Box::new(tracer.begin(traceparent, random)));
        Named { id, span }
    }

    /// Tells of a request that has ended, if its span is sampled.
    pub fn ended(&self, entry: &Entry<'_>) {
        if let Some(span) = entry.named.span().filter(|span| span.is_sampled())
            && let Some(tracer) = &*self.tracer.load()
        {
            tracer.ended(span, entry);
        }
    }
}

/// Whether an id of a client's may stay: short, and nothing in it that a log or a shell minds.
fn is_usable(id: &[u8]) -> bool {
    let fine = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:+/=@".contains(byte);
    !id.is_empty() && id.len() <= ID_MAX && id.iter().all(fine)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn naming() -> Naming {
        let naming = Naming::default();
        naming.take(&ObserveConfig {
            request_id: true,
            ..ObserveConfig::default()
        });
        naming
    }

    #[test]
    fn id_of_a_client_is_kept_unless_it_is_odd() {
        let naming = naming();
        assert!(naming.is_on());
        let kept = naming.name(Some(b"a-1"), None, || 7);
        assert_eq!((kept.request_id(), kept.new_id()), (&b"a-1"[..], None));
        let long = [b'a'; ID_MAX + 1];
        for odd in [&b""[..], b"a b", b"a\"b", b"\xff", &long] {
            let made = naming.name(Some(odd), None, || 0x1234_5678_9abc_def0);
            assert_eq!(made.request_id(), b"123456789abcdef0123456789abcdef0");
            assert_eq!(made.new_id(), Some(made.request_id()));
        }
    }

    #[test]
    fn nothing_is_named_unless_asked_for() {
        let naming = Naming::default();
        assert!(!naming.is_on());
        let named = naming.name(Some(b"a"), None, || 7);
        assert!(named.request_id().is_empty() && named.span().is_none());
    }
}
