//! Forgets ingresses that have gone, so that agents stop calling them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ballast_model::IngressId;
use ballast_wire::log::Command;

use super::LeaderContext;
use crate::clock;

/// How long an ingress may be without a link before it is forgotten. It serves on meanwhile and
/// says hello again when it connects; only health no longer reaches it in one hop. So it is long:
/// a network that is cut for minutes must not part agents from ingresses that they still reach.
const GONE_AFTER: Duration = Duration::from_mins(15);
/// How often it is looked.
const CHECK: Duration = Duration::from_secs(5);

/// Looks after ingresses until the leadership ends.
pub(super) async fn forget_gone(leader: Arc<LeaderContext>) {
    let mut absent = BTreeMap::new();
    loop {
        tokio::time::sleep(CHECK).await;
        let here: Vec<(IngressId, bool)> = {
            let state = leader.replica.read();
            let ingresses = state.ingresses().map(|ingress| ingress.id);
            ingresses
                .map(|id| (id, leader.registry.has_ingress(id)))
                .collect()
        };
        for ingress in take_gone(&mut absent, &here, Instant::now()) {
            let command = Command::RemoveIngress {
                ingress,
                time: clock::now(),
            };
            match leader.proposer.propose(command).await {
                Ok(_) => tracing::info!(ingress_id = %ingress, "ingress forgotten"),
                // Found again at the next look.
                Err(error) => tracing::debug!(%error, "ingress not forgotten yet"),
            }
        }
    }
}

/// Returns the ingresses that have been without a link for [`GONE_AFTER`]; keeps since when.
fn take_gone(
    absent: &mut BTreeMap<IngressId, Instant>,
    ingresses: &[(IngressId, bool)],
    now: Instant,
) -> Vec<IngressId> {
    let mut since = BTreeMap::new();
    for (id, is_linked) in ingresses {
        if !is_linked {
            since.insert(*id, *absent.get(id).unwrap_or(&now));
        }
    }
    *absent = since;
    let gone = absent
        .iter()
        .filter(|(_, since)| now - **since >= GONE_AFTER);
    gone.map(|(id, _)| *id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_ingress_that_stays_away_is_forgotten() {
        let (here, away) = (IngressId::from_bits(1), IngressId::from_bits(2));
        let start = Instant::now();
        let mut absent = BTreeMap::new();
        let seen = [(here, true), (away, false)];
        assert!(take_gone(&mut absent, &seen, start).is_empty());
        let back = [(here, true), (away, true)];
        assert!(take_gone(&mut absent, &back, start + GONE_AFTER / 2).is_empty());
        assert!(take_gone(&mut absent, &seen, start + GONE_AFTER).is_empty());
        assert_eq!(
            take_gone(&mut absent, &seen, start + GONE_AFTER * 2),
            [away]
        );
    }
}
