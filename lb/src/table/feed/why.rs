//! Why an endpoint takes requests or does not, for people.

use ballast_model::{Endpoint, Generation, Health, NodeId, PortTable, ServiceTable};

use super::Feed;
use crate::table::{MemberState, Moment, PoolKey};

/// The node of stand-alone endpoints: its reports are the ingress's own checks.
const OWN_CHECKS: NodeId = NodeId::from_bits(0);

impl Feed {
    /// Returns what the manager, or the file, says of the port behind a pool.
    pub fn port(&self, key: &PoolKey) -> Option<&PortTable> {
        let service = self.services.get(&key.service)?;
        service.ports.iter().find(|port| *port.name == *key.port)
    }

    /// Returns what the manager said last, with the health that its agents said since: for a
    /// process that takes over, and has heard no agent yet.
    pub fn live_snapshot(&self) -> (Generation, Vec<ServiceTable>) {
        let (generation, mut services) = self.snapshot_of();
        let ports = services.iter_mut().flat_map(|service| &mut service.ports);
        for endpoint in ports.flat_map(|port| &mut port.endpoints) {
            endpoint.health = self.known(endpoint).0;
        }
        (generation, services)
    }

    /// Returns what is known of an endpoint, as a reason for its state.
    pub fn why(&self, endpoint: &Endpoint, state: MemberState, now: Moment) -> String {
        let said = self.said(endpoint, now);
        match state {
            MemberState::Suspect => {
                format!(
                    "{said}; so do most of its pool, which is more likely a fault of the probes"
                )
            }
            _ => said,
        }
    }

    fn said(&self, endpoint: &Endpoint, now: Moment) -> String {
        let own = endpoint.node == OWN_CHECKS;
        let Some(node) = self.nodes.get(&endpoint.node) else {
            return format!(
                "its agent has not connected; the manager last heard {}",
                endpoint.health
            );
        };
        if node.lapsed {
            let silent = now.since(node.heard).as_millis();
            return format!("its node has been silent for {silent} ms");
        }
        let report = node.reports.get(&endpoint.assignment);
        match report.map(|report| report.health) {
            Some(Health::Healthy) if own => "its checks pass".to_owned(),
            Some(Health::Unhealthy) if own => "its checks fail".to_owned(),
            None if own => "it has not been checked yet".to_owned(),
            Some(health) => format!("its agent says {health}"),
            None if node.synced => "its agent does not know it".to_owned(),
            None => format!(
                "its agent has said nothing of it yet; the manager last heard {}",
                endpoint.health
            ),
        }
    }
}
