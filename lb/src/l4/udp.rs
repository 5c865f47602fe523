//! Published UDP ports: each client's datagrams go to one endpoint for as long as it keeps sending.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

use super::Entry;
use crate::hub::Hub;
use crate::l7::dial::Cancel;
use crate::table::InFlight;

/// Clients of one port at once; datagrams of more are dropped.
pub const SESSIONS: usize = 4096;
/// After which a client that neither sends nor receives is forgotten.
const IDLE: Duration = Duration::from_secs(30);
/// The longest datagram.
const DATAGRAM: usize = 65_535;
/// The longest datagram of an endpoint; a longer one is cut. Smaller than [`DATAGRAM`] because
/// each client has a buffer of its own.
const ANSWER: usize = 9_216;

type Sessions = Arc<Mutex<HashMap<SocketAddr, Arc<UdpSocket>>>>;

/// Serves a socket until `stop`.
pub async fn serve(hub: Arc<Hub>, socket: UdpSocket, entry: Entry, stop: CancellationToken) {
    let socket = Arc::new(socket);
    let sessions: Sessions = Sessions::default();
    let mut datagram = vec![0; DATAGRAM];
    loop {
        let received = tokio::select! {
            received = socket.recv_from(&mut datagram) => received,
            () = stop.cancelled() => return,
        };
        // An ICMP error of an earlier send surfaces here; the next receive goes on.
        let Ok((length, client)) = received else {
            continue;
        };
        let known = lock(&sessions).get(&client).cloned();
        let upstream = match known {
            Some(upstream) => Some(upstream),
            None => open(&hub, &socket, &sessions, client, &entry, &stop).await,
        };
        if let Some(upstream) = upstream {
            // A full send buffer drops the datagram, as any hop may.
            let _ = upstream.try_send(&datagram[..length]);
        }
    }
}

async fn open(
    hub: &Arc<Hub>,
    socket: &Arc<UdpSocket>,
    sessions: &Sessions,
    client: SocketAddr,
    entry: &Entry,
    stop: &CancellationToken,
) -> Option<Arc<UdpSocket>> {
    if lock(sessions).len() >= SESSIONS {
        return None;
    }
    let mut pool = entry.pool(&hub.table()).cloned()?;
    let affinity = super::affinity(&pool, client.ip());
    let flight = hub
        .begin_for(affinity, &mut pool, &mut Vec::new(), Instant::now())
        .await
        .ok()?;
    let address = flight.backend().address;
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let upstream = Arc::new(UdpSocket::bind((any, 0)).await.ok()?);
    upstream.connect(address).await.ok()?;
    lock(sessions).insert(client, Arc::clone(&upstream));
    let answers = Answers {
        socket: Arc::clone(socket),
        sessions: Arc::clone(sessions),
        client,
        upstream: Arc::clone(&upstream),
        stop: stop.child_token(),
    };
    tokio::spawn(answers.run(flight));
    Some(upstream)
}

fn lock(
    sessions: &Mutex<HashMap<SocketAddr, Arc<UdpSocket>>>,
) -> std::sync::MutexGuard<'_, HashMap<SocketAddr, Arc<UdpSocket>>> {
    sessions.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The way back to one client.
struct Answers {
    socket: Arc<UdpSocket>,
    sessions: Sessions,
    client: SocketAddr,
    upstream: Arc<UdpSocket>,
    stop: CancellationToken,
}

impl Answers {
    /// Passes answers back until the client is idle or the endpoint is taken out; the next
    /// datagram then goes to another endpoint.
    async fn run(self, flight: InFlight) {
        let links = &flight.backend().links;
        let link = links.register(links.epoch(), Box::new(Cancel(self.stop.clone())));
        let mut datagram = vec![0; ANSWER];
        while link.is_ok() {
            let received = tokio::select! {
                received = tokio::time::timeout(IDLE, self.upstream.recv(&mut datagram)) => received,
                () = self.stop.cancelled() => break,
            };
            match received {
                Ok(Ok(length)) => {
                    let _ = self.socket.try_send_to(&datagram[..length], self.client);
                }
                // Refused: nobody listens there any more. Or silent for too long.
                Ok(Err(_)) | Err(_) => break,
            }
        }
        lock(&self.sessions).remove(&self.client);
        if let Ok(link) = link {
            links.release(link);
        }
    }
}
