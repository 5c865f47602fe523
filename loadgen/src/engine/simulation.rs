//! The core in virtual time, against servers that are a function.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::core::Core;
use super::wire::Wire;
use crate::plan::{Churn, Lane, Pacing, Plan, Profile, Protocol, Think};
use crate::record::{ErrorClass, Record};
use crate::recorder::Recorder;

/// The clock's reading when the schedule begins.
const ZERO_NS: u64 = 1_000_000_000;
const MS: u64 = 1_000_000;
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// What the far end does with a request.
#[derive(Debug, Clone)]
enum Reply {
    /// Answers with these bytes at this time.
    At(u64, Vec<u8>),
    /// Closes at this time.
    Close(u64),
    /// Does nothing.
    Never,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Connected,
    Refused,
    Received(Vec<u8>),
    Ended,
}

/// When, a number that keeps the order, on which connection, in which of its lives, and what.
type Happening = (u64, u64, u32, u64, Event);

/// The world outside the core.
struct World<F> {
    now_ns: u64,
    events: BinaryHeap<Reverse<Happening>>,
    sequence: u64,
    /// How often each connection was opened; what is meant for an earlier time is dropped.
    lives: Vec<u64>,
    open: Vec<bool>,
    listens: fn(u64) -> bool,
    /// Given the time, the connection, and how many requests it has seen.
    reply: F,
    seen: Vec<u64>,
    /// Times of the requests, in the order in which they arrived.
    arrivals: Vec<u64>,
    connects: VecDeque<u64>,
    unsent: usize,
}

impl<F: FnMut(u64, u32, u64) -> Reply> World<F> {
    fn new(connections: usize, reply: F) -> Self {
        Self {
            now_ns: 0,
            events: BinaryHeap::new(),
            sequence: 0,
            lives: vec![0; connections],
            open: vec![false; connections],
            listens: |_| true,
            reply,
            seen: vec![0; connections],
            arrivals: Vec::new(),
            connects: VecDeque::new(),
            unsent: 0,
        }
    }

    fn at(&mut self, at_ns: u64, connection: u32, event: Event) {
        let life = self.lives[connection as usize];
        self.sequence += 1;
        let sequence = self.sequence;
        self.events
            .push(Reverse((at_ns, sequence, connection, life, event)));
    }
}

impl<F: FnMut(u64, u32, u64) -> Reply> Wire for World<F> {
    fn connect(&mut self, connection: u32, _: SocketAddr) -> Result<(), ErrorClass> {
        self.lives[connection as usize] += 1;
        self.seen[connection as usize] = 0;
        self.connects.push_back(self.now_ns);
        let event = if (self.listens)(self.now_ns) {
            Event::Connected
        } else {
            Event::Refused
        };
        self.at(self.now_ns, connection, event);
        Ok(())
    }

    fn send(&mut self, connection: u32, bytes: &[u8]) {
        assert!(self.open[connection as usize], "a request on a closed one");
        assert!(bytes.starts_with(b"GET / HTTP/1.1\r\n"));
        self.arrivals.push(self.now_ns);
        let nth = self.seen[connection as usize];
        self.seen[connection as usize] += 1;
        match (self.reply)(self.now_ns, connection, nth) {
            Reply::At(at_ns, bytes) => self.at(at_ns, connection, Event::Received(bytes)),
            Reply::Close(at_ns) => self.at(at_ns, connection, Event::Ended),
            Reply::Never => {}
        }
    }

    fn unsent(&self, _: u32) -> usize {
        self.unsent
    }

    fn close(&mut self, connection: u32) {
        self.lives[connection as usize] += 1;
        self.open[connection as usize] = false;
    }

    fn reset(&mut self, connection: u32) {
        self.close(connection);
    }
}

fn plan(rate: Option<f64>, duration: Duration, connections: usize) -> Plan {
    let plan = Plan::http("http://127.0.0.1:1/").expect("a plan");
    Plan {
        duration,
        connections,
        records: true,
        ..match rate {
            Some(rate) => plan.at_rate(rate),
            None => plan,
        }
    }
}

fn lane(plan: Plan) -> Lane {
    Lane {
        plan: Arc::new(plan),
        index: 0,
        of: 1,
    }
}

/// Runs a plan from the first connection to the last answer.
fn run<F: FnMut(u64, u32, u64) -> Reply>(plan: Plan, world: &mut World<F>) -> Recorder {
    let lane = lane(plan);
    let mut core = Core::new(&lane, ZERO_NS, Recorder::of(&lane));
    core.open_all(world, 0);
    loop {
        core.poll(world, world.now_ns);
        if core.is_done(world.now_ns) {
            return core.into_recorder();
        }
        let next_ns = core.next_ns();
        match world.events.peek() {
            Some(Reverse((at_ns, ..))) if *at_ns <= next_ns => {
                let Some(Reverse((at_ns, _, connection, life, event))) = world.events.pop() else {
                    continue;
                };
                world.now_ns = world.now_ns.max(at_ns);
                if world.lives[connection as usize] != life {
                    continue;
                }
                let now_ns = world.now_ns;
                match event {
                    Event::Connected => {
                        world.open[connection as usize] = true;
                        core.connected(world, connection, now_ns);
                    }
                    Event::Refused => {
                        core.connect_failed(world, connection, ErrorClass::Refused, now_ns);
                    }
                    Event::Received(bytes) => core.received(world, connection, &bytes, now_ns),
                    Event::Ended => core.ended(world, connection, Ok(()), now_ns),
                }
            }
            _ => {
                assert!(next_ns < u64::MAX, "nothing will ever happen");
                assert!(next_ns > world.now_ns, "time stands still at {next_ns}");
                world.now_ns = next_ns;
            }
        }
    }
}

fn classes(records: &[Record]) -> Vec<(ErrorClass, usize)> {
    let mut counts = std::collections::BTreeMap::new();
    for class in records.iter().filter_map(Record::failure) {
        *counts.entry(class).or_insert(0) += 1;
    }
    counts.into_iter().collect()
}

/// A server that answers after 100 µs, but nothing between 0.3 s and 0.5 s.
mod stalling {
    use super::{ANSWER, MS, Reply, ZERO_NS};

    pub const FROM: u64 = ZERO_NS + 300 * MS;
    pub const TO: u64 = ZERO_NS + 500 * MS;
    pub const TAKES: u64 = MS / 10;

    pub fn answered(sent_ns: u64) -> u64 {
        let done_ns = sent_ns + TAKES;
        if (FROM..TO).contains(&done_ns) {
            TO
        } else {
            done_ns
        }
    }

    pub fn reply(now_ns: u64, _: u32, _: u64) -> Reply {
        Reply::At(answered(now_ns), ANSWER.to_vec())
    }
}

/// Returns plans of every profile, 10,000 requests a second for a second, with their due times.
fn profiles(connections: usize) -> Vec<(Plan, Vec<u64>)> {
    let profiles = [
        Profile::Constant { rate: 10_000.0 },
        Profile::Poisson { rate: 10_000.0 },
        Profile::Ramp {
            from: 1000.0,
            to: 19_000.0,
        },
    ];
    let of = |profile| {
        let mut load = plan(None, Duration::from_secs(1), connections);
        load.pacing = Pacing::Open(Arc::new(profile));
        let due = lane(load.clone()).schedule().expect("an open loop");
        let due = due.map(|due| ZERO_NS + u64::try_from(due.as_nanos()).expect("fits"));
        (load, due.collect())
    };
    profiles.map(of).into()
}

fn in_order(mut recorder: Recorder) -> Vec<Record> {
    let mut records = recorder.take_records();
    records.sort_by_key(|record| record.number);
    records
}

#[test]
fn latencies_over_a_stall_are_those_of_the_closed_form() {
    for (load, due) in profiles(4000) {
        let records = in_order(run(load, &mut World::new(4000, stalling::reply)));
        assert_eq!(records.len(), due.len());
        for (record, due_ns) in records.iter().zip(due) {
            // Nobody waits for a connection, so each waits for the end of the stall alone.
            let done_us = (stalling::answered(due_ns) - ZERO_NS) / 1000;
            assert_eq!(record.done_us, done_us, "{record:?}");
            assert_eq!(record.scheduled_us, (due_ns - ZERO_NS) / 1000);
            assert_eq!(record.sent_us, record.scheduled_us);
        }
    }
}

#[test]
fn who_waits_for_a_connection_after_a_stall_waits_as_in_a_queue() {
    for (load, due) in profiles(64) {
        let records = in_order(run(load, &mut World::new(64, stalling::reply)));
        assert_eq!(records.len(), due.len());
        // The textbook's queue with 64 servers: first come, first served.
        let mut free: BinaryHeap<Reverse<u64>> = (0..64).map(|_| Reverse(0)).collect();
        for (record, due_ns) in records.iter().zip(due) {
            let Reverse(earliest_ns) = free.pop().expect("64 of them");
            let sent_ns = due_ns.max(earliest_ns);
            let done_ns = stalling::answered(sent_ns);
            free.push(Reverse(done_ns));
            assert_eq!(record.sent_us, (sent_ns - ZERO_NS) / 1000, "{record:?}");
            assert_eq!(record.done_us, (done_ns - ZERO_NS) / 1000, "{record:?}");
        }
    }
}

#[test]
fn every_connection_takes_its_turn() {
    let mut used = vec![0; 10];
    let mut world = World::new(10, |now_ns, connection: u32, _| {
        used[connection as usize] += 1;
        Reply::At(now_ns + 1, ANSWER.to_vec())
    });
    run(plan(Some(1000.0), Duration::from_secs(1), 10), &mut world);
    drop(world);
    assert_eq!(used, vec![100; 10]);
}

#[test]
fn closed_loop_keeps_every_connection_busy_until_the_end() {
    let mut world = World::new(8, |now_ns, _, _| {
        Reply::At(now_ns + 10 * MS, ANSWER.to_vec())
    });
    let records = in_order(run(plan(None, Duration::from_secs(1), 8), &mut world));
    assert_eq!(records.len(), 800);
    assert!(records.iter().all(|record| record.latency_us() == 10_000));
    assert_eq!(records.last().map(|record| record.sent_us), Some(990_000));
}

#[test]
fn users_think_between_an_answer_and_the_next_question() {
    let mut load = plan(None, Duration::from_secs(1), 2);
    let think = Think::Constant(Duration::from_millis(90));
    load.pacing = Pacing::Closed { think };
    let mut world = World::new(2, |now_ns, _, _| {
        Reply::At(now_ns + 10 * MS, ANSWER.to_vec())
    });
    assert_eq!(run(load.clone(), &mut world).counts().done, 20);

    let think = Think::Exponential(Duration::from_millis(9));
    load.pacing = Pacing::Closed { think };
    load.duration = Duration::from_secs(100);
    let mut world = World::new(2, |now_ns, _, _| Reply::At(now_ns + MS, ANSWER.to_vec()));
    let done = run(load, &mut world).counts().done;
    assert!((19_000..21_000).contains(&done), "{done}");
}

#[test]
fn pipeline_is_filled_and_answered_in_order() {
    let mut load = plan(Some(1000.0), Duration::from_secs(1), 1);
    load.protocol = Protocol::Http1 { pipeline: 4 };
    let mut at_once = Vec::new();
    let mut world = World::new(1, |now_ns, _, nth| {
        at_once.push(now_ns);
        // Each takes 3 ms, one after the other.
        Reply::At(
            (ZERO_NS + (nth + 1) * 3 * MS).max(now_ns + 3 * MS),
            ANSWER.to_vec(),
        )
    });
    let records = in_order(run(load, &mut world));
    assert_eq!(records.len(), 1000);
    assert!(records.is_sorted_by_key(|record| record.done_us));
    assert_eq!(&at_once[..4], [0, 1, 2, 3].map(|nth| ZERO_NS + nth * MS));
    // With four of them under way, one is sent whenever one is answered.
    assert_eq!(at_once[100] - at_once[99], 3 * MS);
}

#[test]
fn who_is_not_answered_times_out_and_so_does_who_waits_for_its_connection() {
    let mut load = plan(Some(100.0), Duration::from_secs(1), 2);
    load.timeouts.request = Duration::from_millis(500);
    let mut world = World::new(2, |_, _, _| Reply::Never);
    let records = in_order(run(load, &mut world));
    assert_eq!(classes(&records), [(ErrorClass::Timeout, 100)]);
    let slowest = records.iter().map(Record::latency_us).max();
    assert_eq!(
        slowest,
        Some(990_000),
        "waited 0.49 s and then asked in vain"
    );
    assert_eq!(world.arrivals.len(), 6, "two every half a second");
}

#[test]
fn refused_requests_fail_at_once_and_a_server_that_returns_is_found() {
    let mut world = World::new(4, |now_ns, _, _| Reply::At(now_ns + MS, ANSWER.to_vec()));
    world.listens = |now_ns| now_ns > ZERO_NS + 500 * MS;
    let records = in_order(run(
        plan(Some(1000.0), Duration::from_secs(2), 4),
        &mut world,
    ));
    assert_eq!(records.len(), 2000);
    let refused = records
        .iter()
        .filter(|record| record.failure() == Some(ErrorClass::Refused))
        .count();
    assert!((500..1500).contains(&refused), "{refused}");
    assert!(records.iter().all(|record| record.latency_us() <= 1000));
    let attempts = world.connects.len();
    assert!(
        attempts < 60,
        "{attempts} attempts in one second and a half"
    );
}

#[test]
fn refused_connection_of_a_closed_loop_is_a_failed_request() {
    let mut world = World::new(4, |_, _, _| Reply::Never);
    world.listens = |_| false;
    let records = in_order(run(plan(None, Duration::from_secs(10), 4), &mut world));
    let all = [(ErrorClass::Refused, records.len())];
    assert_eq!(classes(&records), all);
    assert!((40..100).contains(&records.len()), "{}", records.len());
}

#[test]
fn connection_closed_while_idle_is_opened_anew_and_nobody_notices() {
    let mut world = World::new(1, |now_ns, _, _| Reply::At(now_ns + MS, ANSWER.to_vec()));
    let load = plan(Some(10.0), Duration::from_secs(1), 1);
    // Between the second answer and the third request.
    let life = 1;
    world
        .events
        .push(Reverse((ZERO_NS + 150 * MS, 0, 0, life, Event::Ended)));
    let records = in_order(run(load, &mut world));
    assert_eq!((records.len(), classes(&records)), (10, vec![]));
    assert_eq!(world.connects, [0, ZERO_NS + 150 * MS]);
}

#[test]
fn request_that_was_never_sent_goes_out_again_once_and_one_that_was_does_not() {
    for (unsent, expected) in [(usize::MAX, 1), (0, 2)] {
        // The first two that are asked are closed instead of answered.
        let mut left = 2;
        let mut world = World::new(1, move |now_ns, _, _| {
            if left == 0 {
                return Reply::At(now_ns + MS, ANSWER.to_vec());
            }
            left -= 1;
            Reply::Close(now_ns + MS)
        });
        world.unsent = unsent;
        let records = in_order(run(plan(Some(10.0), Duration::from_secs(1), 1), &mut world));
        assert_eq!(classes(&records), [(ErrorClass::Reset, expected)]);
        assert_eq!(records.len(), 10);
    }
}

#[test]
fn connections_are_given_up_after_so_many_requests() {
    let mut most = 0;
    let mut load = plan(Some(1000.0), Duration::from_secs(1), 4);
    load.churn = Churn {
        requests_per_connection: Some(5),
        ..Churn::default()
    };
    let mut world = World::new(4, |now_ns, _, nth| {
        most = most.max(nth);
        Reply::At(now_ns + MS, ANSWER.to_vec())
    });
    let recorder = run(load, &mut world);
    assert_eq!(recorder.counts().done, 1000);
    assert_eq!(recorder.counts().errors.iter().sum::<u64>(), 0);
    assert!((200..=204).contains(&recorder.counts().opened));
    drop(world);
    assert_eq!(most, 4);
}

#[test]
fn connections_are_given_up_so_many_a_second() {
    let mut load = plan(None, Duration::from_secs(2), 10);
    load.churn = Churn {
        connections_per_second: Some(50.0),
        ..Churn::default()
    };
    let mut world = World::new(10, |now_ns, _, _| Reply::At(now_ns + MS, ANSWER.to_vec()));
    let recorder = run(load, &mut world);
    assert_eq!(recorder.counts().errors.iter().sum::<u64>(), 0);
    let opened = recorder.counts().opened;
    assert!((105..=110).contains(&opened), "{opened}");
}

#[test]
fn answer_that_is_followed_by_more_is_a_protocol_error() {
    let mut world = World::new(1, |now_ns, _, _| {
        Reply::At(now_ns + MS, [ANSWER, b"!"].concat())
    });
    let records = in_order(run(plan(Some(10.0), Duration::from_secs(1), 1), &mut world));
    assert_eq!(classes(&records), [(ErrorClass::Protocol, 10)]);
}

proptest::proptest! {
    #[test]
    fn prop_every_request_ends_exactly_once_whatever_the_server_does(
        closed in proptest::prelude::any::<bool>(),
        pipeline in 1_u32..4,
        connections in 1_usize..5,
        per_connection in proptest::option::of(1_u64..4),
        // Nothing takes no time at all: in a closed loop time would stand still.
        whims in proptest::collection::vec((0_u8..7, 1_u64..400), 1..40),
        unsent in proptest::sample::select(vec![0_usize, 60, usize::MAX]),
    ) {
        let mut load = plan((!closed).then_some(200.0), Duration::from_millis(500), connections);
        load.protocol = Protocol::Http1 { pipeline };
        load.timeouts.request = Duration::from_millis(100);
        load.churn.requests_per_connection = per_connection;
        let mut turn = 0;
        let mut world = World::new(connections, |now_ns, _, _| {
            turn += 1;
            let (kind, after_ms) = whims[turn % whims.len()];
            let at_ns = now_ns + after_ms * MS / 2;
            match kind {
                0 => Reply::Never,
                1 => Reply::Close(at_ns),
                2 => Reply::At(at_ns, b"garbage\r\n\r\n".to_vec()),
                3 => Reply::At(at_ns, [ANSWER, ANSWER].concat()),
                4 => Reply::At(at_ns, b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\na".to_vec()),
                _ => Reply::At(at_ns, ANSWER.to_vec()),
            }
        });
        world.unsent = unsent;
        let mut recorder = run(load, &mut world);
        let counts = recorder.counts().clone();
        let mut numbers: Vec<u64> =
            recorder.take_records().iter().map(|record| record.number).collect();
        numbers.sort_unstable();
        let expected: Vec<u64> = (0..numbers.len() as u64).collect();
        proptest::prop_assert_eq!(numbers, expected, "each once");
        if !closed {
            proptest::prop_assert_eq!((counts.released, counts.done), (100, 100));
        }
    }
}
