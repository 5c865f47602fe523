//! Turns what the pools' services counted into metrics, when they are asked for.

use std::collections::HashMap;
use std::fmt::Error;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, MetricEncoder,
};
use prometheus_client::metrics::MetricType;

use super::service::{ServiceStats, Totals};
use crate::table::{MemberState, Pool, RouteTable};

/// Of exemplars, which there are none of.
type NoLabels = [(&'static str, &'static str); 0];

/// A service's name as a label, without a copy.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Name(Arc<str>);

impl EncodeLabelValue for Name {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), Error> {
        (&*self.0).encode(encoder)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    service: Name,
    code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ServiceLabels {
    service: Name,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndpointLabels {
    service: Name,
    state: &'static str,
}

/// See [`crate::policy::PolicyEvents`].
#[derive(Debug, Default)]
struct PolicyCounts {
    ejections: u64,
    ejections_refused: u64,
    overloads: u64,
    retries_refused: u64,
}

/// One service at one moment.
#[derive(Debug)]
struct Service {
    name: Name,
    totals: Totals,
    states: [u64; MemberState::ALL.len()],
    in_flight: u64,
    policy: PolicyCounts,
    /// Whether it is in the table: requests without a route are counted, too, under an empty name.
    listed: bool,
}

/// Every service of a table at one moment.
#[derive(Debug)]
pub(super) struct Services(Vec<Service>);

impl Services {
    /// Sums up what was counted; the pools of one service count together.
    pub(super) fn of(table: &RouteTable, unrouted: &ServiceStats) -> Self {
        let mut services = vec![Service {
            name: Name("".into()),
            totals: unrouted.total(),
            states: Default::default(),
            in_flight: 0,
            policy: PolicyCounts::default(),
            listed: false,
        }];
        let mut places: HashMap<Arc<str>, usize> = HashMap::new();
        for pool in &table.pools {
            let name = &pool.service_name;
            let place = *places.entry(Arc::clone(name)).or_insert_with(|| {
                services.push(Service {
                    name: Name(Arc::clone(name)),
                    totals: pool.stats.total(),
                    states: Default::default(),
                    in_flight: 0,
                    policy: PolicyCounts::default(),
                    listed: true,
                });
                services.len() - 1
            });
            services[place].add(pool);
        }
        Self(services)
    }

    fn family(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        (name, help, kind): (&str, &str, MetricType),
        mut encode: impl FnMut(&Service, &mut MetricEncoder<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
        for service in &self.0 {
            encode(service, &mut metric)?;
        }
        Ok(())
    }
}

impl Services {
    fn policies(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        type Count = fn(&PolicyCounts) -> u64;
        let families: [(&str, &str, Count); 4] = [
            (
                "retries_refused",
                "Failed requests not sent again because the budget was spent",
                |policy| policy.retries_refused,
            ),
            (
                "overloads",
                "Requests refused because a limit of the service was reached",
                |policy| policy.overloads,
            ),
            (
                "ejections",
                "Endpoints taken out for their errors",
                |policy| policy.ejections,
            ),
            (
                "ejections_refused",
                "Endpoints left in despite their errors: too many were out",
                |policy| policy.ejections_refused,
            ),
        ];
        for (name, help, count) in families {
            self.family(
                encoder,
                (name, help, MetricType::Counter),
                |service, metric| service.counter(metric, count(&service.policy)),
            )?;
        }
        Ok(())
    }
}

impl Service {
    fn add(&mut self, pool: &Pool) {
        let events = &pool.state().events;
        for (sum, count) in [
            (&mut self.policy.ejections, &events.ejections),
            (
                &mut self.policy.ejections_refused,
                &events.ejections_refused,
            ),
            (&mut self.policy.overloads, &events.overloads),
            (&mut self.policy.retries_refused, &events.retries_refused),
        ] {
            *sum += count.load(Ordering::Relaxed);
        }
        for member in &pool.members {
            let place = MemberState::ALL
                .iter()
                .position(|&state| state == member.state)
                .expect("every state is in `ALL`");
            self.states[place] += 1;
            self.in_flight += u64::from(member.backend.in_flight());
        }
    }

    fn labels(&self) -> ServiceLabels {
        ServiceLabels {
            service: self.name.clone(),
        }
    }

    fn counter(&self, metric: &mut MetricEncoder<'_>, count: u64) -> Result<(), Error> {
        // Services that nobody has asked for anything would double the size of the answer.
        if self.totals.codes.is_empty() && count == 0 {
            return Ok(());
        }
        let labels = self.labels();
        let mut family = metric.encode_family(&labels)?;
        family.encode_counter::<NoLabels, u64, f64>(&count, None)
    }

    fn requests(&self, metric: &mut MetricEncoder<'_>) -> Result<(), Error> {
        for (&code, &count) in &self.totals.codes {
            let labels = RequestLabels {
                service: self.name.clone(),
                code,
            };
            let mut family = metric.encode_family(&labels)?;
            family.encode_counter::<NoLabels, u64, f64>(&count, None)?;
        }
        Ok(())
    }

    fn duration(&self, metric: &mut MetricEncoder<'_>) -> Result<(), Error> {
        let latency = &self.totals.latency;
        let count = latency.count();
        if count == 0 {
            return Ok(());
        }
        let labels = self.labels();
        let (sum, buckets) = (latency.sum.as_secs_f64(), latency.doublings());
        let mut family = metric.encode_family(&labels)?;
        family.encode_histogram::<NoLabels>(sum, count, &buckets, None)
    }

    fn endpoints(&self, metric: &mut MetricEncoder<'_>) -> Result<(), Error> {
        if !self.listed {
            return Ok(());
        }
        for (state, count) in MemberState::ALL.into_iter().zip(self.states) {
            let labels = EndpointLabels {
                service: self.name.clone(),
                state: state.name(),
            };
            metric.encode_family(&labels)?.encode_gauge(&gauge(count))?;
        }
        Ok(())
    }

    fn in_flight(&self, metric: &mut MetricEncoder<'_>) -> Result<(), Error> {
        if !self.listed {
            return Ok(());
        }
        let labels = self.labels();
        let mut family = metric.encode_family(&labels)?;
        family.encode_gauge(&gauge(self.in_flight))
    }
}

fn gauge(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

impl Collector for Services {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        use MetricType::{Counter, Gauge, Histogram};
        let encoder = &mut encoder;
        self.family(
            encoder,
            (
                "requests",
                "Requests answered, by service and status",
                Counter,
            ),
            Service::requests,
        )?;
        let help = "From the request's head to the end of its response";
        self.family(
            encoder,
            ("request_duration_seconds", help, Histogram),
            Service::duration,
        )?;
        let help = "Bytes of request bodies taken from clients";
        self.family(
            encoder,
            ("received_bytes", help, Counter),
            |service, metric| service.counter(metric, service.totals.traffic.received),
        )?;
        let help = "Bytes of response bodies sent to clients";
        self.family(encoder, ("sent_bytes", help, Counter), |service, metric| {
            service.counter(metric, service.totals.traffic.sent)
        })?;
        let help = "Requests sent to another endpoint after the first one failed";
        self.family(encoder, ("retries", help, Counter), |service, metric| {
            service.counter(metric, service.totals.retries)
        })?;
        let help = "Requests sent to a second endpoint besides, since the first was slow";
        self.family(encoder, ("hedges", help, Counter), |service, metric| {
            service.counter(metric, service.totals.hedges)
        })?;
        self.policies(encoder)?;
        let help = "Endpoints in the route table, by service and state";
        self.family(encoder, ("endpoints", help, Gauge), Service::endpoints)?;
        let help = "Requests and connections in flight";
        self.family(encoder, ("in_flight", help, Gauge), Service::in_flight)
    }
}
