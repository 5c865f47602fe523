//! The pools that have requests: whoever watches over them need not look at all the others.

use std::sync::{Arc, Mutex, PoisonError};

use super::PoolState;

/// Pools whose requests began since it was last asked.
#[derive(Debug, Default)]
pub struct Busy(Mutex<Vec<Arc<PoolState>>>);

impl Busy {
    /// Adds one; each is in it once, see [`PoolState::idled`].
    pub(super) fn add(&self, state: Arc<PoolState>) {
        self.lock().push(state);
    }

    /// Takes those that were added since.
    pub fn take(&self) -> Vec<Arc<PoolState>> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Arc<PoolState>>> {
        // A panic while it was held left a list that is still whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use ballast_model::{
        AssignmentId, Endpoint, Generation, Health, NodeId, PortTable, ServiceId, ServiceTable,
        Weight,
    };

    use super::*;
    use crate::policy::Want;
    use crate::table::{Feed, Moment};

    #[test]
    fn pool_is_listed_once_while_it_has_requests_and_again_after_it_idled() {
        let mut feed = Feed::new();
        let tables = (0..3).map(|number| ServiceTable {
            service: ServiceId::from_bits(number),
            name: format!("s{number}"),
            generation: Generation(1),
            ports: vec![PortTable {
                name: "http".to_owned(),
                protocol: ballast_model::Protocol::Http,
                published: None,
                routes: Vec::new(),
                endpoints: vec![Endpoint {
                    assignment: AssignmentId::from_bits(number),
                    node: NodeId::from_bits(1),
                    address: ([10, 0, 0, 1], 80).into(),
                    health: Health::Healthy,
                    weight: Weight::DEFAULT,
                    zone: None,
                }],
                balance: None,
                upstream: None,
            }],
        });
        feed.snapshot(Generation(1), tables.collect());
        let pool = Arc::clone(&feed.table().pools[1]);
        let begin = || pool.begin(&Want::any(1, Moment(1), &[])).expect("is well");
        let busy = Arc::clone(feed.busy());
        assert!(busy.take().is_empty());
        let first = begin();
        let listed = busy.take();
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].key(), Some(&pool.key));
        drop((begin(), first));
        assert!(busy.take().is_empty(), "it is watched already");
        listed[0].idled();
        drop(begin());
        assert_eq!(busy.take().len(), 1);
        listed[0].idled();
        assert!(listed[0].relist());
        drop(begin());
        assert!(busy.take().is_empty(), "whoever relisted it has it");
    }
}
