//! What the ingress does for a request beside HTTP: the route is looked up, an endpoint chosen; and
//! what a change of its table costs.
//!
//! The same operation as `cargo xtask bench instructions` counts, here in time.

use std::hint::black_box;

use ballast_lb::policy::Want;
use ballast_lb::route::{Decision, RequestView};
use ballast_lb::table::{Feed, Moment};
use ballast_model::{
    AssignmentId, Endpoint, Generation, Health, Incarnation, NodeId, PortTable, Protocol,
    RouteRule, Sequence, ServiceId, ServiceTable, Timestamp, Weight,
};
use ballast_wire::feed::EndpointHealth;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

/// Services and the endpoints of each.
const TABLES: [(u16, u16); 4] = [(10, 10), (100, 10), (100, 100), LARGE];

fn service(number: u16, endpoints: u16) -> ServiceTable {
    let endpoint = |slot: u16| Endpoint {
        assignment: AssignmentId::from_bits(u64::from(number) * 1000 + u64::from(slot)),
        node: NodeId::from_bits(u64::from(slot)),
        address: ([10, 0, 0, 1], number.wrapping_mul(endpoints) + slot).into(),
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
            upstream: None,
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

/// A large table: as many services as a cluster may have, with ten endpoints each.
const LARGE: (u16, u16) = (10_000, 10);

/// What one change costs in a large table, from the message to the new table.
fn change_one_of_many(c: &mut Criterion) {
    let (services, endpoints) = LARGE;
    let mut group = c.benchmark_group("lb");
    group.sample_size(20);
    let mut feed = Feed::new();
    let tables = (0..services).map(|number| service(number, endpoints));
    feed.snapshot(Generation(1), tables.collect());
    let mut generation = 1;
    let size = format!("{services}x{endpoints}");
    let next = |generation: &mut u64, number: u16, endpoints: u16| {
        *generation += 1;
        let mut table = service(number, endpoints);
        table.generation = Generation(*generation);
        table
    };
    group.bench_function(BenchmarkId::new("swap-endpoint", &size), |b| {
        b.iter(|| {
            let count = endpoints - u16::from(generation % 2 == 0);
            let table = next(&mut generation, services / 2, count);
            let effects = feed.update(Generation(generation), vec![table], &[]);
            black_box(effects.table.expect("changed"))
        });
    });
    group.bench_function(BenchmarkId::new("swap-service", &size), |b| {
        b.iter(|| {
            let there = generation % 2 == 0;
            let table = next(&mut generation, services / 2, endpoints);
            let (changed, removed) = if there {
                (vec![table], Vec::new())
            } else {
                (Vec::new(), vec![table.service])
            };
            let effects = feed.update(Generation(generation), changed, &removed);
            black_box(effects.table.expect("changed"))
        });
    });
    let now = Moment(1);
    let session = feed.hello(NodeId::from_bits(3), Incarnation(1), now);
    let session = session.expect("is new");
    let mut sequence = 0;
    group.bench_function(BenchmarkId::new("swap-health", &size), |b| {
        b.iter(|| {
            sequence += 1;
            let said = EndpointHealth {
                assignment: AssignmentId::from_bits(77_003),
                sequence: Sequence(sequence),
                health: [Health::Healthy, Health::Unhealthy][usize::from(sequence % 2 == 0)],
                seen: Timestamp(1),
            };
            let effects = feed.change(session, &said, now).expect("is its agent's");
            black_box(effects.table)
        });
    });
    group.finish();
}

criterion_group!(benches, route_and_pick, change_one_of_many);
criterion_main!(benches);
