//! One immutable table.

use std::sync::Arc;

use ballast_model::Generation;

use super::{Pool, PoolKey};
use crate::route::Routing;

/// One immutable table: routes, published ports, pools. `decide` says what becomes of a request.
#[derive(Debug, Default)]
pub struct RouteTable {
    /// What the manager (or the file) called it.
    pub generation: Generation,
    /// Every pool, in order of the services; [`Routing`] names them by their place.
    pub pools: Vec<Arc<Pool>>,
    /// Which pool answers what; shared by tables that differ only in the pools' members.
    pub routing: Arc<Routing>,
}

impl RouteTable {
    /// Returns the pool behind a published port.
    pub fn published(&self, port: u16) -> Option<&Arc<Pool>> {
        self.pools.get(self.routing.published(port)?)
    }

    /// Returns the pool of this name.
    pub fn pool(&self, key: &PoolKey) -> Option<&Arc<Pool>> {
        let from = self
            .pools
            .partition_point(|pool| pool.key.service < key.service);
        let mut own = self.pools[from..]
            .iter()
            .take_while(|pool| pool.key.service == key.service);
        own.find(|pool| pool.key == *key)
    }
}
