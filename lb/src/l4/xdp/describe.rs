//! What stands in the maps, for people and for metrics.

use std::sync::Arc;

use ballast_ebpf_common::layout::{BackendCounters, Verdict, state};
use serde::Serialize;

use super::service::Service;
use super::{Balancer, Inner, count};

/// A service as it is in the kernel.
#[derive(Debug, Clone, Serialize)]
pub struct Described {
    /// Its name.
    pub service: String,
    /// Address or net.
    pub vip: String,
    /// Port; none: any.
    pub port: Option<u16>,
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// How packets get to reals.
    pub mode: &'static str,
    /// Where packets come in.
    pub interface: String,
    /// Whether the program runs in the driver, in the stack, or nowhere.
    pub xdp: &'static str,
    /// Packets by what became of them.
    pub verdicts: Vec<(&'static str, u64)>,
    /// Its reals.
    pub reals: Vec<DescribedReal>,
}

/// A real as it is in the kernel.
#[derive(Debug, Clone, Serialize)]
pub struct DescribedReal {
    /// Its address; the port as it gets it.
    pub address: String,
    /// What it does.
    pub state: &'static str,
    /// Its weight.
    pub weight: u32,
    /// Slots of the ring that are its.
    pub slots: usize,
    /// Flows that it has, if they were counted.
    pub flows: Option<u64>,
    /// Packets forwarded to it.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Flows that began.
    pub new_flows: u64,
    /// Resets sent in its name.
    pub resets: u64,
}

impl Balancer {
    /// Returns what stands in the maps; flows are counted if `flows`, which looks through all.
    pub fn describe(&self, flows: bool) -> Vec<Described> {
        let table = Arc::clone(&self.lock().programs.maps.flows);
        let counts = flows.then(|| count(&table));
        let inner = self.lock();
        let services = inner.services.values().map(|service| {
            let reals = service.reals.iter().map(|(address, real)| {
                let counted = inner.counters(real.backend);
                DescribedReal {
                    address: address.to_string(),
                    state: match (real.state, real.left) {
                        (state::ACTIVE, _) => "active",
                        (state::DRAINING, true) => "leaving",
                        (state::DRAINING, false) => "draining",
                        _ => "dead",
                    },
                    weight: real.weight,
                    slots: service.slots_of(real.member),
                    flows: counts
                        .as_ref()
                        .map(|counts| counts.get(&real.backend).copied().unwrap_or(0)),
                    packets: counted.packets,
                    bytes: counted.bytes,
                    new_flows: counted.flows,
                    resets: counted.resets,
                }
            });
            let reals: Vec<DescribedReal> = reals.collect();
            let spec = &service.spec;
            Described {
                service: spec.name.to_string(),
                vip: spec.vip.to_string(),
                port: spec.port,
                protocol: if spec.protocol == ballast_model::Protocol::Udp {
                    "udp"
                } else {
                    "tcp"
                },
                mode: spec.forward.name(),
                interface: spec.interface.clone(),
                xdp: inner
                    .attached
                    .get(&spec.interface)
                    .map_or("none", |attached| {
                        if attached.generic {
                            "generic"
                        } else {
                            "native"
                        }
                    }),
                verdicts: inner.verdicts(service, &reals),
                reals,
            }
        });
        services.collect()
    }
}

impl Inner {
    fn counters(&self, backend: u32) -> BackendCounters {
        // It fails only for a record that is not there.
        self.programs
            .maps
            .backend_counters(backend)
            .unwrap_or_default()
    }

    fn verdicts(&self, service: &Service, reals: &[DescribedReal]) -> Vec<(&'static str, u64)> {
        let row = self
            .programs
            .maps
            .verdicts(service.index)
            .unwrap_or_default();
        let forwarded: u64 = reals.iter().map(|real| real.packets).sum();
        let forwarded = forwarded + service.forwarded_before;
        let counted = Verdict::ALL.iter().map(|verdict| {
            let count = match verdict {
                // Counted for each real alone, where the hot path has its line already.
                Verdict::Forwarded => forwarded,
                other => row.get(*other as usize).copied().unwrap_or(0),
            };
            (verdict.label(), count)
        });
        counted.collect()
    }
}
