//! Layer 4: TCP and UDP, connection by connection, and client by client.
//!
//! In the kernel by XDP ([`xdp`]) where that can be, in user space ([`tcp`], [`udp`]) elsewhere:
//! on loopback, without root, or by choice. Both follow the same route table.

mod entry;
pub(crate) mod layer;
mod spec;
mod stats;
pub mod tcp;
pub mod udp;
pub mod xdp;

use std::net::IpAddr;

pub use entry::{Entry, UserService};
pub use layer::Layer4;
pub use spec::{Forward, L4Config, L4Service, Net, Publish, Run, XdpOptions};
pub use stats::L4Stats;

use crate::policy::Affinity;
use crate::policy::sticky::hash_of;
use crate::route::client_bytes;
use crate::table::Pool;

/// What binds a connection to an endpoint: nothing but its client's address is known of it.
fn affinity(pool: &Pool, client: IpAddr) -> Affinity {
    let hash = pool.hash_key().map(|_| hash_of(&client_bytes(client)));
    Affinity { hash, sticky: None }
}
