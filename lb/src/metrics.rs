//! What the ingress counts.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::table::{MemberState, RouteTable};

/// A service's name as a label, without a copy per request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Name(pub Arc<str>);

impl EncodeLabelValue for Name {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        (&*self.0).encode(encoder)
    }
}

/// Labels of a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    service: Name,
    code: u16,
}

/// Labels of what is counted per service.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ServiceLabels {
    service: Name,
}

/// Labels of endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct EndpointLabels {
    service: Name,
    state: &'static str,
}

/// Everything the ingress counts.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    duration: Family<ServiceLabels, Histogram, fn() -> Histogram>,
    endpoints: Family<EndpointLabels, Gauge>,
    in_flight: Family<ServiceLabels, Gauge>,
    retries: Family<ServiceLabels, Counter>,
    deregistration: Histogram,
    swap: Histogram,
    /// Probes asked for because an endpoint stalled or refused.
    pub probes_asked: Counter,
    /// Connections cut because their endpoint was taken out.
    pub severed: Counter,
    /// Requests held until an endpoint became ready.
    pub held: Counter,
}

/// From 100 µs to 13 s, doubling.
fn request_buckets() -> Histogram {
    Histogram::new((0..18).map(|power| 1e-4 * f64::from(1u32 << power)))
}

impl Metrics {
    /// Makes and registers all of them.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("ballast_ingress");
        let metrics = Self {
            requests: Family::default(),
            duration: Family::new_with_constructor(request_buckets as fn() -> Histogram),
            endpoints: Family::default(),
            in_flight: Family::default(),
            retries: Family::default(),
            // From 10 µs to 1.3 s, doubling.
            deregistration: Histogram::new((0..18).map(|power| 1e-5 * f64::from(1u32 << power))),
            swap: Histogram::new((0..16).map(|power| 1e-6 * f64::from(1u32 << power))),
            probes_asked: Counter::default(),
            severed: Counter::default(),
            held: Counter::default(),
            registry: Registry::default(),
        };
        registry.register(
            "requests",
            "Requests answered, by service and status",
            metrics.requests.clone(),
        );
        registry.register(
            "request_duration_seconds",
            "From the request's head to the end of its response",
            metrics.duration.clone(),
        );
        registry.register(
            "endpoints",
            "Endpoints in the route table, by service and state",
            metrics.endpoints.clone(),
        );
        registry.register(
            "in_flight",
            "Requests and connections in flight",
            metrics.in_flight.clone(),
        );
        registry.register(
            "retries",
            "Requests sent to another endpoint after the first one failed",
            metrics.retries.clone(),
        );
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
        Self {
            registry,
            ..metrics
        }
    }

    /// Counts an answered request; 499 stands for a client that left before the answer.
    pub fn request(&self, service: &Arc<str>, code: u16, took: Duration) {
        let service = Name(Arc::clone(service));
        self.duration
            .get_or_create(&ServiceLabels {
                service: service.clone(),
            })
            .observe(took.as_secs_f64());
        self.requests
            .get_or_create(&RequestLabels { service, code })
            .inc();
    }

    /// Counts a retry.
    pub fn retry(&self, service: &Arc<str>) {
        let service = Name(Arc::clone(service));
        self.retries.get_or_create(&ServiceLabels { service }).inc();
    }

    /// Notes how long an endpoint stayed in the table after its agent saw it fail.
    pub fn deregistered(&self, after: Duration) {
        self.deregistration.observe(after.as_secs_f64());
    }

    /// Notes how long a change took from its arrival to the new table.
    pub fn swapped(&self, after: Duration) {
        self.swap.observe(after.as_secs_f64());
    }

    /// Returns all of it as OpenMetrics text; the gauges are read off the table.
    pub fn encode(&self, table: &RouteTable) -> String {
        self.endpoints.clear();
        self.in_flight.clear();
        for pool in &table.pools {
            let service = Name(Arc::clone(&pool.service_name));
            let mut in_flight = 0;
            for state in MemberState::ALL {
                let labels = EndpointLabels {
                    service: service.clone(),
                    state: state.name(),
                };
                let members = pool.members.iter().filter(|member| member.state == state);
                let count = i64::try_from(members.count()).unwrap_or(i64::MAX);
                self.endpoints.get_or_create(&labels).inc_by(count);
            }
            for member in &pool.members {
                in_flight += i64::from(member.backend.in_flight());
            }
            self.in_flight
                .get_or_create(&ServiceLabels { service })
                .inc_by(in_flight);
        }
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)
            .expect("writing to a string does not fail");
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
