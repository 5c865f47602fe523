//! Published TCP ports: each connection goes to one endpoint.

use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::{SockRef, TcpKeepalive};
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::Entry;
use crate::hub::{Hub, random_bits};
use crate::l7::Timeouts;
use crate::l7::dial::{Cancel, connect};
use crate::policy::Outcome;
use crate::table::{Backend, InFlight, LinkId};

/// How long a probe may take that is asked for after a refused connection.
const PROBE_TIMEOUT: Duration = Duration::from_millis(50);
/// Bytes buffered in each direction of a connection.
const BUFFER: usize = 16 * 1024;
/// After which a silent peer is asked by TCP whether it is still there.
const KEEPALIVE: Duration = Duration::from_mins(1);

/// Serves one connection until both sides have closed. It is reset if no
/// endpoint takes it, and at once when its endpoint is taken out.
pub async fn serve(hub: Arc<Hub>, timeouts: Timeouts, client: TcpStream, entry: Entry) {
    let Some(pool) = entry.pool(&hub.table()).cloned() else {
        reset(client);
        return;
    };
    let stats = Arc::clone(&pool.stats);
    let begun = Instant::now();
    let deadline = begun + pool.hold(timeouts.hold);
    let affinity = client
        .peer_addr()
        .map(|peer| super::affinity(&pool, peer.ip()));
    let affinity = affinity.unwrap_or_default();
    let mut pool = pool;
    hub.metrics.l4.count(&pool.service_name, "new_flow");
    let mut tried: Vec<Arc<Backend>> = Vec::new();
    for attempt in 0..pool.attempts() {
        let backoff = pool.backoff(attempt, random_bits());
        if !backoff.is_zero() {
            tokio::time::sleep(backoff).await;
        }
        let begun = hub.begin_for(affinity, &mut pool, &mut tried, deadline);
        let Ok(flight) = begun.await else {
            break;
        };
        if attempt > 0 {
            stats.retried();
        }
        let backend = Arc::clone(flight.backend());
        let epoch = backend.links.epoch();
        match connect(&backend.links, epoch, backend.address, timeouts.connect).await {
            Ok(upstream) => {
                flight.is_well();
                relay(&flight, epoch, client, upstream).await;
                return;
            }
            Err(error) => {
                tracing::debug!(address = %backend.address, %error, "endpoint refused");
                flight.ended(Outcome::ConnectFailed, None, hub.now());
                hub.ask_probe(&backend, PROBE_TIMEOUT);
                tried.push(backend);
            }
        }
    }
    hub.metrics.l4.count(&pool.service_name, "no_real");
    reset(client);
}

/// Copies both ways until both are done; half-closed connections go on in the other direction.
async fn relay(flight: &InFlight, epoch: u64, mut client: TcpStream, mut upstream: TcpStream) {
    let token = CancellationToken::new();
    let backend = flight.backend();
    let link = backend
        .links
        .register(epoch, Box::new(Cancel(token.clone())));
    let Ok(link) = link else {
        reset(client);
        return;
    };
    let _link = Link { backend, link };
    for socket in [&client, &upstream] {
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE);
        // Worth having, not worth failing for.
        let _ = SockRef::from(socket).set_tcp_keepalive(&keepalive);
        let _ = socket.set_nodelay(true);
    }
    let severed = tokio::select! {
        copied = copy_bidirectional_with_sizes(&mut client, &mut upstream, BUFFER, BUFFER) => {
            // A reset on one side is passed on to the other.
            copied.is_err()
        }
        () = token.cancelled() => true,
    };
    if severed {
        reset(client);
        reset(upstream);
    }
}

struct Link<'a> {
    backend: &'a Backend,
    link: LinkId,
}

impl Drop for Link<'_> {
    fn drop(&mut self) {
        self.backend.links.release(self.link);
    }
}

/// Closes with a reset: the peer must not take the end for a regular one.
fn reset(socket: TcpStream) {
    let _ = SockRef::from(&socket).set_linger(Some(Duration::ZERO));
}
