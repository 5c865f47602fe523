//! Pools and taints: what nodes offer, and to whom.

use ballast_model::{EventKind, NodeId, Pool, Taint, Timestamp, Toleration, limits};

use super::{About, Changes, Rejection, RejectionKind, State};

/// Pools in a cluster.
pub const POOLS: usize = 256;

impl State {
    /// Returns every pool that was set, by name.
    pub fn pools(&self) -> impl Iterator<Item = &Pool> {
        self.pools.values()
    }

    /// Returns a pool that was set.
    pub fn pool(&self, name: &str) -> Option<&Pool> {
        self.pools.get(name)
    }

    pub(super) fn set_pool(
        &mut self,
        pool: &Pool,
        time: Timestamp,
        out: &mut Changes,
    ) -> Result<(), Rejection> {
        if self.pools.get(&pool.name) == Some(pool) {
            return Ok(());
        }
        if self.pools.len() >= POOLS && !self.pools.contains_key(&pool.name) {
            let reason = format!("a cluster has at most {POOLS} pools");
            return Err(Rejection::new(RejectionKind::Limit, reason));
        }
        self.pools.insert(pool.name.clone(), pool.clone());
        self.pool_changed(&pool.name, time, out);
        Ok(())
    }

    pub(super) fn remove_pool(
        &mut self,
        name: &str,
        time: Timestamp,
        out: &mut Changes,
    ) -> Result<(), Rejection> {
        if self.pools.remove(name).is_none() {
            let reason = format!("there is no pool `{name}`");
            return Err(Rejection::new(RejectionKind::NotFound, reason));
        }
        self.pool_changed(name, time, out);
        Ok(())
    }

    /// Makes the nodes of a pool offer what it lets them. Tasks that no longer fit stay.
    fn pool_changed(&mut self, name: &str, time: Timestamp, out: &mut Changes) {
        let members: Vec<NodeId> = self
            .nodes
            .values()
            .filter(|entry| entry.node.description.pool == name)
            .map(|entry| entry.node.id)
            .collect();
        for id in members {
            self.offer(id);
            out.fleet.insert(id);
            let about = About {
                node: Some(id),
                ..About::default()
            };
            let message = format!("pool {name} offers another share now");
            self.note(EventKind::NodeUpdated, time, about, &message);
        }
    }

    /// Computes what a node offers from what it has and its pool lets it.
    pub(super) fn offer(&mut self, id: NodeId) {
        if let Some(entry) = self.nodes.get_mut(&id) {
            let description = &entry.node.description;
            let pool = self.pools.get(&description.pool);
            entry.node.offered = match pool {
                Some(pool) => pool.offers(&description.capacity),
                None => description.capacity.clone(),
            };
        }
    }
}

/// Returns a node's taints after some were taken off and some put on; one of the same key and
/// effect is replaced.
pub(super) fn retaint(
    before: &[Taint],
    taken_off: &[Toleration],
    put_on: &[Taint],
) -> Result<Vec<Taint>, Rejection> {
    let mut taints = before.to_vec();
    taints.retain(|taint| !taken_off.iter().any(|pattern| pattern.bears(taint)));
    for taint in put_on {
        taints.retain(|old| (&old.key, old.effect) != (&taint.key, taint.effect));
        taints.push(taint.clone());
    }
    // In one order, whatever the order of the changes: nodes alike are of one class.
    taints.sort_unstable();
    if taints.len() > limits::TAINTS {
        let reason = format!("a node has at most {} taints", limits::TAINTS);
        return Err(Rejection::new(RejectionKind::Limit, reason).at("taints"));
    }
    Ok(taints)
}
