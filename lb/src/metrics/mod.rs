//! What the ingress counts.
//!
//! What is counted per request lives in [`ServiceStats`], which the pools hold; it is turned into
//! metrics only when somebody asks. What is counted rarely are ordinary counters.

mod collect;
mod latency;
mod service;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

pub use latency::Latency;
pub(crate) use service::thread_number;
pub use service::{ServiceStats, Totals, Traffic};
pub use tls::{Handshake, TlsStats};

use crate::l4::L4Stats;
use crate::l4::xdp::Described;
use crate::observe::LogCounters;
use crate::table::RouteTable;

/// The prefix of every name.
const PREFIX: &str = "ballast_ingress";
/// The same of layer 4.
const L4_PREFIX: &str = "ballast_l4";

/// Everything the ingress counts.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    deregistration: Histogram,
    swap: Histogram,
    /// Requests that no route matched.
    pub unrouted: Arc<ServiceStats>,
    /// Probes asked for because an endpoint stalled or refused.
    pub probes_asked: Counter,
    /// Connections cut because their endpoint was taken out.
    pub severed: Counter,
    /// The access log's lines.
    pub log: LogCounters,
    /// Requests held until an endpoint became ready.
    pub held: Counter,
    /// What is counted of TLS.
    pub tls: TlsStats,
    /// What user space counts at layer 4.
    pub l4: L4Stats,
}

impl Metrics {
    /// Makes and registers all of them.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix(PREFIX);
        let metrics = Self {
            // From 10 µs to 1.3 s, doubling.
            deregistration: Histogram::new((0..18).map(|power| 1e-5 * f64::from(1u32 << power))),
            swap: Histogram::new((0..16).map(|power| 1e-6 * f64::from(1u32 << power))),
            unrouted: Arc::default(),
            log: LogCounters::default(),
            probes_asked: Counter::default(),
            severed: Counter::default(),
            held: Counter::default(),
            tls: TlsStats::default(),
            l4: L4Stats::default(),
            registry: Registry::default(),
        };
        registry.register(
            "deregistration_seconds",
            "From a failure seen by the agent to the endpoint out of the table",
            metrics.deregistration.clone(),
        );
        registry.register(
            "table_swap_seconds",
            "From a message of an agent or manager read to the table swapped",
            metrics.swap.clone(),
        );
        registry.register(
            "probes_asked",
            "Probes asked of agents because an endpoint stalled or refused",
            metrics.probes_asked.clone(),
        );
        registry.register(
            "connections_severed",
            "Connections cut because their endpoint was taken out",
            metrics.severed.clone(),
        );
        registry.register(
            "requests_held",
            "Requests that waited for an endpoint to become ready",
            metrics.held.clone(),
        );
        registry.register(
            "access_log_lines",
            "Lines written to the access log",
            metrics.log.lines.clone(),
        );
        registry.register(
            "access_log_dropped",
            "Lines not written to the access log: it was too slow, or failed",
            metrics.log.dropped.clone(),
        );
        metrics.tls.register(&mut registry);
        Self {
            registry,
            ..metrics
        }
    }

    /// Notes how long an endpoint stayed in the table after its agent saw it fail.
    pub fn deregistered(&self, after: Duration) {
        self.deregistration.observe(after.as_secs_f64());
    }

    /// Notes how long a change took from its arrival to the new table.
    pub fn swapped(&self, after: Duration) {
        self.swap.observe(after.as_secs_f64());
    }

    /// Returns all of it as OpenMetrics text; what belongs to services is read off the table, and
    /// what the kernel balances off its maps.
    pub fn encode(&self, table: &RouteTable, kernel: Vec<Described>) -> String {
        let mut services = Registry::with_prefix(PREFIX);
        services.register_collector(Box::new(collect::Services::of(table, &self.unrouted)));
        let mut l4 = Registry::with_prefix(L4_PREFIX);
        if let Some(collector) = self.l4.collector(kernel) {
            l4.register_collector(Box::new(collector));
        }
        let mut text = String::new();
        encode_registry(&mut text, &services)
            .and_then(|()| encode_registry(&mut text, &l4))
            .and_then(|()| encode_registry(&mut text, &self.registry))
            .and_then(|()| encode_eof(&mut text))
            .expect("writing to a string does not fail");
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
