//! What is counted at layer 4.

use std::collections::BTreeMap;
use std::fmt::Error;
use std::sync::{Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet};
use prometheus_client::metrics::MetricType;

use super::xdp::{Described, DescribedReal};

/// Of exemplars, which there are none of.
type NoLabels = [(&'static str, &'static str); 0];
/// A service's name and a verdict.
type Counts = BTreeMap<(String, &'static str), u64>;

/// Of a packet: whose, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PacketLabels {
    service: String,
    verdict: &'static str,
}

/// Of a real.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RealLabels {
    service: String,
    real: String,
}

/// What user space counts itself: the kernel's counters are read off its maps.
#[derive(Debug, Default)]
pub struct L4Stats(Mutex<Counts>);

impl L4Stats {
    /// Counts a datagram, or a connection.
    pub fn count(&self, service: &str, verdict: &'static str) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry((service.to_owned(), verdict)).or_default() += 1;
    }

    /// Returns what turns all of it into metrics, with what stands in the kernel's maps; none if
    /// there is nothing.
    pub(crate) fn collector(&self, kernel: Vec<Described>) -> Option<L4Collector> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut packets = counts.clone();
        for described in &kernel {
            for (verdict, count) in described.verdicts.iter().filter(|(_, count)| *count > 0) {
                *packets
                    .entry((described.service.clone(), verdict))
                    .or_default() += count;
            }
        }
        let some = !packets.is_empty() || !kernel.is_empty();
        some.then_some(L4Collector { packets, kernel })
    }
}

/// Layer 4 at one moment.
#[derive(Debug)]
pub(crate) struct L4Collector {
    packets: Counts,
    kernel: Vec<Described>,
}

impl L4Collector {
    fn reals(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        (name, help, kind): (&str, &str, MetricType),
        value: impl Fn(&DescribedReal) -> u64,
    ) -> Result<(), Error> {
        let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
        for described in &self.kernel {
            for real in &described.reals {
                let labels = RealLabels {
                    service: described.service.clone(),
                    real: real.address.clone(),
                };
                let mut family = metric.encode_family(&labels)?;
                match kind {
                    MetricType::Gauge => {
                        let value = i64::try_from(value(real)).unwrap_or(i64::MAX);
                        family.encode_gauge(&value)?;
                    }
                    _ => family.encode_counter::<NoLabels, u64, f64>(&value(real), None)?,
                }
            }
        }
        Ok(())
    }
}

impl Collector for L4Collector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        use MetricType::{Counter, Gauge};
        let help = "Packets to services at layer 4, by what became of them";
        let mut packets = encoder.encode_descriptor("packets", help, None, Counter)?;
        for ((service, verdict), count) in &self.packets {
            let labels = PacketLabels {
                service: service.clone(),
                verdict,
            };
            let mut family = packets.encode_family(&labels)?;
            family.encode_counter::<NoLabels, u64, f64>(count, None)?;
        }
        let encoder = &mut encoder;
        let help = "Packets forwarded to a real by the kernel";
        self.reals(encoder, ("real_packets", help, Counter), |real| {
            real.packets
        })?;
        let help = "Their bytes, as clients sent them";
        self.reals(encoder, ("real_bytes", help, Counter), |real| real.bytes)?;
        let help = "Flows that began at a real";
        self.reals(encoder, ("real_flows", help, Counter), |real| {
            real.new_flows
        })?;
        let help = "Resets sent to clients in the name of a real that died";
        self.reals(encoder, ("real_resets", help, Counter), |real| real.resets)?;
        let help = "Whether a real takes new flows";
        self.reals(encoder, ("real_active", help, Gauge), |real| {
            u64::from(real.state == "active")
        })
    }
}
