//! TCP and UDP in user space: connection by connection, and client by client.

pub mod tcp;
pub mod udp;

use std::net::IpAddr;

use crate::policy::Affinity;
use crate::policy::sticky::hash_of;
use crate::route::client_bytes;
use crate::table::Pool;

/// What binds a connection to an endpoint: nothing but its client's address is known of it.
fn affinity(pool: &Pool, client: IpAddr) -> Affinity {
    let hash = pool.hash_key().map(|_| hash_of(&client_bytes(client)));
    Affinity { hash, sticky: None }
}
