//! What the ingress does for a request beside HTTP: the route is looked up, an endpoint chosen.
//!
//! The same operation as `cargo xtask bench instructions` counts, here in time.

use std::hint::black_box;

use ballast_lb::policy::Want;
use ballast_lb::route::{Decision, RequestView};
use ballast_lb::table::{Feed, Moment};
use ballast_model::{
    AssignmentId, Endpoint, Generation, Health, NodeId, PortTable, Protocol, RouteRule, ServiceId,
    ServiceTable, Weight,
};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

/// Services and the endpoints of each.
const TABLES: [(u16, u16); 3] = [(10, 10), (100, 10), (100, 100)];

fn service(number: u16, endpoints: u16) -> ServiceTable {
    let endpoint = |slot: u16| Endpoint {
        assignment: AssignmentId::from_bits(u64::from(number) * 1000 + u64::from(slot)),
        node: NodeId::from_bits(u64::from(slot)),
        address: ([10, 0, 0, 1], 10_000 + number * endpoints + slot).into(),
        health: Health::Healthy,
        weight: Weight::DEFAULT,
        zone: None,
    };
    ServiceTable {
        service: ServiceId::from_bits(u64::from(number)),
        name: format!("service-{number}"),
        generation: Generation(1),
        ports: vec![PortTable {
            name: "http".to_owned(),
            protocol: Protocol::Http,
            published: None,
            routes: vec![RouteRule::new(Some(format!("s{number}.test")), "/")],
            endpoints: (0..endpoints).map(endpoint).collect(),
            balance: None,
        }],
    }
}

fn route_and_pick(c: &mut Criterion) {
    let mut group = c.benchmark_group("lb");
    for (services, endpoints) in TABLES {
        let mut feed = Feed::new();
        let tables = (0..services).map(|number| service(number, endpoints));
        feed.snapshot(Generation(1), tables.collect());
        let table = feed.table().clone();
        let hosts: Vec<String> = (0..services).map(|it| format!("s{it}.test")).collect();
        let mut number = 0_u64;
        let id = BenchmarkId::new("route-and-pick", format!("{services}x{endpoints}"));
        group.bench_function(id, |b| {
            b.iter(|| {
                number = number
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                let host = &hosts[(number >> 33) as usize % hosts.len()];
                let asked = RequestView::bare(black_box(host), "/some/path");
                let Decision::Forward(forward) = table.decide(&asked, number, Moment(0)) else {
                    panic!("the host has a route");
                };
                let flight = forward
                    .pool
                    .begin(&Want::any(number, Moment(number >> 40), &[]));
                black_box(flight.expect("an endpoint").backend().address)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, route_and_pick);
criterion_main!(benches);
