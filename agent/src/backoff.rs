//! When to try a link again, and how to notice that its other end is gone.

use std::time::Duration;

use ballast_link::TlsStream;

/// How long written data may stay unacknowledged before a connection counts as broken. The kernel
/// alone would wait for a quarter of an hour.
const SILENCE: Duration = Duration::from_secs(3);

/// A delay that doubles with each failure, with jitter, so that agents that lost the same peer do
/// not come back together.
#[derive(Debug)]
pub(crate) struct Backoff {
    first: Duration,
    most: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) const fn new(first: Duration, most: Duration) -> Self {
        Self {
            first,
            most,
            next: first,
        }
    }

    pub(crate) const fn reset(&mut self) {
        self.next = self.first;
    }

    pub(crate) async fn wait(&mut self) {
        // Without random bits there is no jitter: no reason not to try again.
        let percent = getrandom::u32().map_or(100, |bits| 75 + bits % 50);
        let delay = self.next * percent / 100;
        self.next = (self.next * 2).min(self.most);
        tokio::time::sleep(delay).await;
    }
}

/// Breaks the connection when its other end has been silent for long.
pub(crate) fn notice_silence(stream: &TlsStream) {
    let socket = socket2::SockRef::from(stream.get_ref().0);
    // Only an optimisation: without it the loss is noticed later.
    if let Err(error) = socket.set_tcp_user_timeout(Some(SILENCE)) {
        tracing::debug!(%error, "cannot set TCP_USER_TIMEOUT");
    }
}
