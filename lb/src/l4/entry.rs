//! Where connections and datagrams come in in user space.

use std::net::SocketAddr;
use std::sync::Arc;

use ballast_model::Protocol;

use crate::table::{Pool, PoolKey, RouteTable};

/// Whose they are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Entry {
    /// The service's that has published the port.
    Published(u16),
    /// The service's of this name.
    Service(PoolKey),
}

impl Entry {
    /// Returns the pool that answers.
    pub fn pool<'a>(&self, table: &'a RouteTable) -> Option<&'a Arc<Pool>> {
        match self {
            Self::Published(port) => table.published(*port),
            Self::Service(key) => table.pool(key),
        }
    }
}

/// A service of the L4 balancer that is served in user space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserService {
    /// Where it is listened on.
    pub address: SocketAddr,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Its reals.
    pub pool: PoolKey,
}
