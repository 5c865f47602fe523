//! Hot operations to count instructions of: `instructions CASE COUNT` sets up and does the
//! operation COUNT times; `instructions list` names the cases. `instructions ingress` counts by
//! itself what a whole request costs the ingress beside `BALLAST_BIN_DIR`.
//!
//! `cargo xtask bench instructions` runs each case under callgrind with two counts and subtracts,
//! so that set-up, start and end cancel out: what is left is exact to a few instructions, on a busy
//! machine, too. Nothing here may draw from the clock or a random source.

use std::hint::black_box;
use std::process::ExitCode;

use ballast_http1::{
    BodyLength, BodyReader, Limits, RequestKind, Scratch, parse_request, parse_response,
};
use ballast_lb::policy::Want;
use ballast_lb::route::{Decision, RequestView};
use ballast_lb::table::{Feed, Moment, Session};
use ballast_loadgen::engine::response::{Event, Response};
use ballast_loadgen::plan::{Lane, Plan};
use ballast_loadgen::recorder::Recorder;
use ballast_loadgen::sample::Sample;
use ballast_model::{
    AssignmentId, Bytes, Endpoint, Generation, Health, Incarnation, MilliCpu, NodeId, Placement,
    PortSpec, PortTable, Protocol, Resources, RouteRule, Sequence, ServiceId, ServiceTable, Target,
    Timestamp, Weight,
};
use ballast_scheduler::{Peers, Request, Scheduler};
use ballast_wire::feed::EndpointHealth;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

/// A case: its name, and what does it that often and returns something that depends on all of it.
type Case = (&'static str, fn(u64) -> u64);

const CASES: [Case; 7] = [
    ("scheduler/place-and-free/1000x10000", placement),
    ("lb/route-and-pick/100x10", request),
    ("lb/table-update/100x10", table_update),
    ("loadgen/request", loadgen_request),
    ("http1/request/5-fields", http1_request),
    ("http1/answer/5-fields", http1_answer),
    ("http1/chunked/16-chunks", http1_chunked),
];

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let (name, count) = (args.next(), args.next());
    match (name.as_deref(), count.and_then(|it| it.parse().ok())) {
        (Some("list"), _) => {
            for (name, _) in CASES {
                println!("{name}");
            }
            ExitCode::SUCCESS
        }
        (Some("ingress"), _) => match ballast_bench::l7::instructions::of_ingress("ballast") {
            Ok(each) => {
                println!("{each}");
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("{error:#}");
                ExitCode::FAILURE
            }
        },
        (Some(name), Some(count)) => match CASES.iter().find(|(known, _)| *known == name) {
            Some((_, run)) => {
                println!("{name}: {:016x}", run(count));
                ExitCode::SUCCESS
            }
            None => ExitCode::FAILURE,
        },
        // `cargo bench` starts every bench; this one is for callgrind.
        _ => {
            println!("instructions are counted by `cargo xtask bench instructions`");
            ExitCode::SUCCESS
        }
    }
}

/// One task placed and freed in a fleet that runs ten on each of its 1,000 nodes.
fn placement(count: u64) -> u64 {
    let nodes = ballast_bench::scheduler::fleet::nodes(1000);
    let mut scheduler = Scheduler::rebuild(&nodes, []);
    let ports = [PortSpec {
        name: "http".to_owned(),
        target: Target::Dynamic,
        published: None,
        protocol: Protocol::Http,
        balance: None,
        upstream: None,
    }];
    let placement = Placement::default();
    let mut place = |number: u64| {
        // The same mix again and again: what differs is only how often.
        let resources = Resources::of(
            MilliCpu(50 * (1 + u32::try_from(number % 19).expect("small"))),
            Bytes::from_mib(64 * (1 + number % 37)),
        );
        let request = Request {
            service: ServiceId::from_bits(number % 500),
            resources: &resources,
            ports: &ports,
            placement: &placement,
            node: None,
            avoid: &[],
            kept: &[],
            peers: Peers::none(),
        };
        let placed = scheduler.place(&request).expect("the fleet has room");
        scheduler.commit(placed.reservation, AssignmentId::from_bits(number));
        if let Some(oldest) = number.checked_sub(10_000) {
            assert!(scheduler.free(AssignmentId::from_bits(oldest)));
        }
        placed.node.to_bits() as u64
    };
    (0..10_000 + count).fold(0, |hash, number| hash.rotate_left(5) ^ place(number))
}

/// 100 services with ten endpoints each, all healthy, every service on a route of its own.
fn services(generation: u64) -> Vec<ServiceTable> {
    (0..100).map(|number| service(number, generation)).collect()
}

fn service(number: u16, generation: u64) -> ServiceTable {
    let endpoints = (0..10)
        .map(|slot| Endpoint {
            assignment: AssignmentId::from_bits(u64::from(number * 10 + slot)),
            node: NodeId::from_bits(u64::from(slot)),
            address: ([10, 0, 0, 1], 20_000 + number * 10 + slot).into(),
            health: Health::Healthy,
            weight: Weight::DEFAULT,
            zone: None,
        })
        .collect();
    ServiceTable {
        service: ServiceId::from_bits(u64::from(number)),
        name: format!("service-{number}"),
        generation: Generation(generation),
        ports: vec![PortTable {
            name: "http".to_owned(),
            protocol: Protocol::Http,
            published: None,
            routes: vec![RouteRule::new(Some(format!("s{number}.test")), "/")],
            endpoints,
            balance: None,
            upstream: None,
        }],
    }
}

/// What the ingress does for a request beside HTTP: its route is looked up, an endpoint is chosen,
/// the request is counted in and out, and its latency noted.
fn request(count: u64) -> u64 {
    let mut feed = Feed::new();
    feed.snapshot(Generation(1), services(1));
    let table = feed.table().clone();
    let hosts: Vec<String> = (0..100).map(|number| format!("s{number}.test")).collect();
    let mut hash = 0_u64;
    for number in 0..count {
        let host = &hosts[usize::try_from(number % 100).expect("small")];
        // Any bits will do, as long as they are the same each time.
        let random = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let now = Moment(number);
        let asked = RequestView::bare(black_box(host), "/some/path");
        let Decision::Forward(forward) = table.decide(&asked, random, now) else {
            panic!("the host has a route");
        };
        let flight = forward
            .pool
            .begin(&Want::any(random, now, &[]))
            .expect("an endpoint");
        let backend = flight.backend();
        backend.responded(std::time::Duration::from_micros(300), now);
        hash = hash.rotate_left(5) ^ u64::from(backend.address.port());
    }
    hash
}

/// One endpoint's health flips, and a new table is made and swapped in.
fn table_update(count: u64) -> u64 {
    let mut feed = Feed::new();
    feed.snapshot(Generation(1), services(1));
    let node = NodeId::from_bits(3);
    let session = feed.hello(node, Incarnation(1), Moment(0)).expect("opens");
    let all: Vec<_> = (0..100).map(|number| said(number, 1, true)).collect();
    feed.sync(session, &all, Moment(0)).expect("is open");
    (0..count).fold(0, |hash, number| {
        hash ^ u64::from(flip(&mut feed, session, number))
    })
}

fn flip(feed: &mut Feed, session: Session, number: u64) -> bool {
    let report = said(number % 100, 2 + number, (number / 100) % 2 == 1);
    let effects = feed.change(session, &report, Moment(0)).expect("is open");
    effects.table.is_some()
}

fn said(service: u64, sequence: u64, healthy: bool) -> EndpointHealth {
    EndpointHealth {
        assignment: AssignmentId::from_bits(service * 10 + 3),
        sequence: Sequence(sequence),
        health: if healthy {
            Health::Healthy
        } else {
            Health::Unhealthy
        },
        seen: Timestamp(sequence),
    }
}

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Sun, 22 Nov 2026 06:00:00 \
GMT\r\nContent-Type: application/octet-stream\r\nContent-Length: 32\r\nConnection: keep-alive\r\n\r\n\
xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";

/// Reads one answer; returns what depends on all of it.
fn answer(response: &mut Response) -> u64 {
    let mut data = black_box(ANSWER);
    let mut sum = 0;
    while let Some(event) = response.next(&mut data, false).expect("a response") {
        match event {
            Event::Head { status, .. } => sum += u64::from(status),
            Event::Body(body) => sum += body.len() as u64,
            Event::End { .. } => return sum,
        }
    }
    unreachable!("the answer is whole")
}

/// What the load generator does for a request beside the sockets: it is scheduled, filled in, its
/// answer read and taken down.
fn loadgen_request(count: u64) -> u64 {
    let plan = Plan::http("http://127.0.0.1:80/some/path").expect("a plan");
    // All of them in one second: what is done once a second reads clocks.
    let mut plan = plan.at_rate(1e6);
    plan.duration = std::time::Duration::from_hours(1);
    let lane = Lane {
        plan: plan.into(),
        index: 0,
        of: 1,
    };
    let mut recorder = Recorder::of(&lane);
    let mut rng = StdRng::seed_from_u64(1);
    let path = &lane.plan.targets[0].requests[0].path;
    let schedule = lane.schedule().expect("an open loop");
    let (mut bytes, mut hash) = (Vec::new(), 0_u64);
    let mut response = Response::new();
    for (number, due) in (0..count).zip(schedule) {
        let due_ns = u64::try_from(due.as_nanos()).expect("short");
        recorder.released(due_ns, due_ns + 10_000);
        bytes.clear();
        path.render(number, &mut rng, &mut bytes);
        hash = hash.rotate_left(5) ^ answer(&mut response);
        recorder.done(&Sample {
            number,
            target: 0,
            request: 0,
            due_ns,
            sent_ns: due_ns + 12_000,
            first_byte_ns: due_ns + 90_000,
            done_ns: due_ns + 100_000 + 1000 * (number % 50),
            received_bytes: 300,
            sent_bytes: bytes.len() as u64,
            outcome: Ok(200),
        });
        hash = hash.rotate_left(5) ^ bytes.len() as u64;
    }
    hash ^ recorder.counts().done
}

/// A client's head read, and its fields copied for the endpoint.
fn http1_request(count: u64) -> u64 {
    const HEAD: &[u8] = b"GET /a/path?and=a&query HTTP/1.1\r\nHost: example.test:8080\r\n\
        User-Agent: Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101\r\nAccept: */*\r\n\
        Connection: keep-alive\r\nCookie: session=0123456789abcdef; theme=dark\r\n\r\n";
    let (mut scratch, limits) = (Scratch::default(), Limits::default());
    let mut out = Vec::with_capacity(HEAD.len());
    let mut read = |number: u64| {
        let request = parse_request(black_box(HEAD), &mut scratch, &limits);
        let request = request.expect("well-formed").expect("whole");
        out.clear();
        request
            .fields()
            .copy_kept(&mut out, |field| !field.hop_by_hop);
        number ^ out.len() as u64 ^ request.host().len() as u64
    };
    (0..count).fold(0, |hash, number| hash.rotate_left(5) ^ read(number))
}

/// An endpoint's head read.
fn http1_answer(count: u64) -> u64 {
    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nServer: hello\r\n\
        Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Type: application/octet-stream\r\n\
        Content-Length: 128\r\nConnection: keep-alive\r\n\r\n";
    let (mut scratch, limits) = (Scratch::default(), Limits::default());
    let kind = RequestKind::Other;
    let mut read = |number: u64| {
        let answer = parse_response(black_box(HEAD), &mut scratch, kind, &limits);
        let answer = answer.expect("well-formed").expect("whole");
        number ^ u64::from(answer.status()) ^ answer.head_len() as u64
    };
    (0..count).fold(0, |hash, number| hash.rotate_left(5) ^ read(number))
}

/// A body of 16 chunks followed to its end.
fn http1_chunked(count: u64) -> u64 {
    let mut body = Vec::new();
    for _ in 0..16 {
        body.extend_from_slice(b"400\r\n");
        body.extend_from_slice(&[b'x'; 1024]);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"0\r\n\r\n");
    let limits = Limits::default();
    let follow = |number: u64| {
        let mut reader = BodyReader::new(BodyLength::Chunked);
        let skimmed = reader.skim(black_box(&body), &limits).expect("a body");
        number ^ skimmed.payload as u64 ^ u64::from(skimmed.done)
    };
    (0..count).fold(0, |hash, number| hash.rotate_left(5) ^ follow(number))
}
