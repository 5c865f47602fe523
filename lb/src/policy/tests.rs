//! Facts about every policy, by property and by simulation on a clock of its own.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;

use ballast_model::{
    AssignmentId, BalanceLimits, BalancePolicy, BalanceSpec, BoundPercent, EjectionSpec, Millis,
    NodeId, OutageSpec, Protocol, ServiceId, StickySpec, Weight, ZoneSpec,
};
use proptest::prelude::*;

use super::draw::{Bits, mix};
use super::{Outcome, Overload, PoolState, Refused, Settings, Want};
use crate::table::{Backend, Gate, InFlight, Member, MemberState, Moment, Pool, PoolKey};

const MS: u64 = 1000;
const SECOND: u64 = 1_000_000;

/// A pool whose members can change, as the feed changes them.
struct Fixture {
    state: Arc<PoolState>,
    members: Vec<Member>,
    pool: Pool,
}

impl Fixture {
    fn new(spec: &BalanceSpec, count: u16) -> Self {
        Self::weighted(spec, &vec![Weight::DEFAULT; count.into()])
    }

    fn weighted(spec: &BalanceSpec, weights: &[Weight]) -> Self {
        assert_eq!(spec.validate("balance"), Ok(()));
        let state = PoolState::new(Settings::from(spec));
        let members: Vec<Member> = weights
            .iter()
            .zip(1u16..)
            .map(|(&weight, number)| {
                let backend = Backend::of_pool(
                    Arc::clone(&state),
                    AssignmentId::from_bits(number.into()),
                    NodeId::from_bits(1),
                    ([10, 0, 0, 1], number).into(),
                );
                backend.place(weight, number <= 4);
                Member {
                    backend: Arc::new(backend),
                    state: MemberState::Ready,
                }
            })
            .collect();
        let pool = pool(&state, &members);
        Self {
            state,
            members,
            pool,
        }
    }

    fn set(&mut self, index: usize, state: MemberState) {
        self.members[index].state = state;
        self.pool = pool(&self.state, &self.members);
    }

    fn backend(&self, index: usize) -> &Arc<Backend> {
        &self.members[index].backend
    }

    /// Sends requests one after the other; returns how many each endpoint got.
    fn shares(
        &self,
        requests: u64,
        now: Moment,
        want: impl Fn(u64, Want<'static>) -> Want<'static>,
    ) -> Vec<u64> {
        let mut shares = vec![0; self.members.len()];
        for nth in 0..requests {
            let any = Want::any(mix(nth ^ 0xabcd), now, &[]);
            let flight = self.pool.begin(&want(nth, any)).expect("one takes it");
            shares[index_of(&flight)] += 1;
            flight.ended(Outcome::Status(200), Some(Duration::from_millis(1)), now);
        }
        shares
    }
}

fn index_of(flight: &InFlight) -> usize {
    let number = flight.backend().assignment.to_bits() - 1;
    usize::try_from(number).expect("small")
}

fn pool(state: &Arc<PoolState>, members: &[Member]) -> Pool {
    for member in members {
        member.backend.set_gate(if member.state.takes_requests() {
            Gate::Open
        } else {
            Gate::Closed
        });
    }
    let key = PoolKey {
        service: ServiceId::from_bits(1),
        port: "http".into(),
    };
    let state = Arc::clone(state);
    Pool::of(state, key, "web".into(), Protocol::Http, members.to_vec())
}

fn spec(policy: BalancePolicy) -> BalanceSpec {
    BalanceSpec {
        policy,
        ..BalanceSpec::default()
    }
}

/// What a simulation found.
struct Found {
    served: Vec<u64>,
    /// In microseconds, sorted.
    latencies: Vec<u64>,
}

impl Found {
    fn percentile(&self, percent: usize) -> u64 {
        self.latencies[(self.latencies.len() - 1) * percent / 100]
    }
}

/// Whole microseconds of a simulated time.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a simulation lasts minutes, and begins at a second"
)]
fn micros(time: f64) -> u64 {
    time as u64
}

/// Poisson arrivals at endpoints that each serve one request at a time, first come, first served.
/// `means[i]` is the mean service time (exponential) of endpoint `i`, in microseconds.
fn simulate(fixture: &Fixture, means: &[f64], load: f64, requests: u64) -> Found {
    let mut bits = Bits::new(42);
    let mut exponential = |mean: f64| {
        let uniform = ((bits.next() >> 11) as f64 + 1.0) / (1u64 << 53) as f64;
        -uniform.ln() * mean
    };
    let capacity: f64 = means.iter().map(|mean| 1.0 / mean).sum();
    let gap = 1.0 / (capacity * load);
    let mut free_at = vec![0.0f64; means.len()];
    let mut under_way: BinaryHeap<Reverse<(u64, u64)>> = BinaryHeap::new();
    let mut flights: Vec<Option<(InFlight, u64)>> = Vec::new();
    let mut found = Found {
        served: vec![0; means.len()],
        latencies: Vec::new(),
    };
    let mut clock = SECOND as f64;
    for nth in 0..requests {
        clock += exponential(gap);
        while let Some(&Reverse((at, id))) = under_way.peek()
            && at as f64 <= clock
        {
            under_way.pop();
            let ended = flights[usize::try_from(id).expect("small")].take();
            let (flight, begun) = ended.expect("ends once");
            let latency = Duration::from_micros(at - begun);
            flight.ended(Outcome::Status(200), Some(latency), Moment(at));
        }
        let now = Moment(micros(clock));
        let want = Want {
            hash: Some(mix(nth)),
            ..Want::any(mix(nth ^ 0x77), now, &[])
        };
        let flight = fixture.pool.begin(&want).expect("one takes it");
        let index = index_of(&flight);
        let begins = free_at[index].max(clock);
        free_at[index] = begins + exponential(means[index]);
        found.served[index] += 1;
        // The first tenth only warms up.
        if nth > requests / 10 {
            found.latencies.push(micros(free_at[index] - clock));
        }
        under_way.push(Reverse((micros(free_at[index]), nth)));
        flights.push(Some((flight, now.0)));
    }
    found.latencies.sort_unstable();
    found
}

#[test]
fn two_choices_keep_queues_far_shorter_than_one() {
    let means = vec![1000.0; 20];
    let p99 = |policy| {
        let fixture = Fixture::new(&spec(policy), 20);
        simulate(&fixture, &means, 0.9, 60_000).percentile(99)
    };
    let (one, two) = (p99(BalancePolicy::Random), p99(BalancePolicy::P2c));
    assert!(
        two * 3 < one,
        "{two} µs with two choices, {one} µs with one"
    );
}

#[test]
fn held_requests_differ_by_very_little_under_two_choices() {
    let fixture = Fixture::new(&BalanceSpec::default(), 100);
    let held: Vec<InFlight> = (0..10_000)
        .map(|nth| fixture.pool.begin(&Want::any(mix(nth), Moment(1), &[])))
        .map(|flight| flight.expect("one takes it"))
        .collect();
    let loads = fixture.members.iter().map(|m| m.backend.in_flight());
    let (least, most) = (loads.clone().min(), loads.max());
    assert_eq!(held.len(), 10_000);
    // By chance alone the spread would be about 50.
    assert!(
        most.unwrap_or(0) - least.unwrap_or(0) <= 8,
        "{least:?} to {most:?}"
    );
}

#[test]
fn peak_ewma_sends_little_to_an_endpoint_that_answers_slowly() {
    let mut means = vec![1000.0; 10];
    means[3] = 20_000.0;
    let run = |policy| {
        let fixture = Fixture::new(&spec(policy), 10);
        simulate(&fixture, &means, 0.6, 60_000)
    };
    let (ewma, p2c) = (run(BalancePolicy::PeakEwma), run(BalancePolicy::P2c));
    assert!(
        ewma.served[3] * 2 < p2c.served[3],
        "{:?} against {:?}",
        ewma.served,
        p2c.served
    );
    assert!(ewma.served[3] > 0, "it is asked again");
    let others = ewma.served.iter().enumerate().filter(|(at, _)| *at != 3);
    let (least, most) = others.fold((u64::MAX, 0), |(least, most), (_, &served)| {
        (least.min(served), most.max(served))
    });
    assert!(most < least * 2, "{:?}", ewma.served);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn prop_every_policy_gives_each_endpoint_what_it_weighs(
        policy in prop::sample::select(&BalancePolicy::ALL[..]),
        weights in prop::collection::vec(1u16..=5, 2..8),
    ) {
        const REQUESTS: u64 = 20_000;
        let weights: Vec<Weight> = weights.into_iter().map(|weight| Weight(weight * 20)).collect();
        let fixture = Fixture::weighted(&spec(policy), &weights);
        let shares = fixture.shares(REQUESTS, Moment(SECOND), |nth, want| Want {
            hash: Some(mix(nth)),
            ..want
        });
        let total: u64 = weights.iter().map(|weight| u64::from(weight.0)).sum();
        for (weight, &share) in weights.iter().zip(&shares) {
            let due = REQUESTS * u64::from(weight.0) / total;
            // Peak EWMA weighs latencies besides, and all are alike only once each has answered.
            prop_assert!(
                share.abs_diff(due) <= due / 6 + 60,
                "{policy}: {shares:?} for {weights:?}"
            );
        }
    }

    #[test]
    fn prop_limits_are_never_passed_and_refuse_only_when_reached(
        policy in prop::sample::select(&BalancePolicy::ALL[..]),
        requests in 0u32..12,
        endpoint in 0u32..5,
        count in 1u16..5,
        steps in prop::collection::vec((any::<bool>(), any::<u64>()), 1..120),
    ) {
        let limited = BalanceSpec {
            limits: BalanceLimits {
                requests,
                endpoint_requests: endpoint,
                ..BalanceLimits::default()
            },
            ..spec(policy)
        };
        let fixture = Fixture::new(&limited, count);
        let mut held: Vec<InFlight> = Vec::new();
        for (begin, random) in steps {
            if !begin && !held.is_empty() {
                let at = usize::try_from(random % held.len() as u64).expect("small");
                drop(held.swap_remove(at));
                continue;
            }
            let in_flight = u32::try_from(held.len()).expect("small");
            let want = Want { hash: Some(mix(random)), ..Want::any(random, Moment(1), &[]) };
            match fixture.pool.begin(&want) {
                Ok(flight) => held.push(flight),
                Err(Refused::Overloaded(Overload::Requests)) => {
                    prop_assert!(requests > 0 && in_flight == requests);
                }
                Err(Refused::Overloaded(Overload::Endpoints)) => {
                    prop_assert!(endpoint > 0 && in_flight == endpoint * u32::from(count));
                }
                Err(other) => prop_assert!(false, "{other}"),
            }
            let in_flight = u32::try_from(held.len()).expect("small");
            prop_assert!(requests == 0 || in_flight <= requests);
            for member in &fixture.members {
                prop_assert!(endpoint == 0 || member.backend.in_flight() <= endpoint);
            }
        }
        drop(held);
        prop_assert_eq!(fixture.state.in_flight(), 0);
    }

    #[test]
    fn prop_no_more_endpoints_are_out_for_errors_than_may_be(
        max_percent in 0u8..=100,
        count in 1u16..12,
        steps in prop::collection::vec((0usize..12, 0u64..4 * SECOND, any::<bool>()), 1..400),
    ) {
        let strict = BalanceSpec {
            ejection: EjectionSpec {
                consecutive: 2,
                max_percent,
                ..EjectionSpec::default()
            },
            ..BalanceSpec::default()
        };
        let fixture = Fixture::new(&strict, count);
        let mut now = Moment(SECOND);
        for (index, after, good) in steps {
            now = Moment(now.0 + after);
            let backend = fixture.backend(index % usize::from(count));
            let flight = backend.try_begin(now).expect("is open");
            let outcome = if good { Outcome::Status(200) } else { Outcome::Status(503) };
            flight.ended(outcome, None, now);
            let all = fixture.members.iter();
            let out = all.filter(|m| m.backend.ejected_until(now).is_some()).count();
            prop_assert!(out * 100 <= usize::from(count) * usize::from(max_percent));
            prop_assert!(out < usize::from(count));
        }
    }

    #[test]
    fn prop_bounded_hash_lets_none_have_more_than_its_share_in_flight(
        percent in 110u16..200,
        count in 2u16..12,
        keys in prop::collection::vec(0u64..4, 1..300),
    ) {
        let bounded = BalanceSpec {
            bound_percent: BoundPercent(percent),
            ..spec(BalancePolicy::BoundedHash)
        };
        let fixture = Fixture::new(&bounded, count);
        let mut held = Vec::new();
        for (key, nth) in keys.into_iter().zip(0..) {
            let want = Want { hash: Some(mix(key)), ..Want::any(mix(nth), Moment(1), &[]) };
            held.push(fixture.pool.begin(&want).expect("one takes it"));
            let all = held.len() as u64;
            let share = (all * u64::from(percent)).div_ceil(100 * u64::from(count));
            let most = fixture.members.iter().map(|m| m.backend.in_flight()).max();
            // Of sixteen candidates one has room, but for rare luck: one more then.
            prop_assert!(u64::from(most.unwrap_or(0)) <= share + 1, "{most:?} of {all}");
        }
    }
}

#[test]
fn keys_stay_where_they_are_when_another_endpoint_fails_and_when_it_returns() {
    let mut fixture = Fixture::new(&spec(BalancePolicy::Maglev), 10);
    let lead = |fixture: &Fixture| -> Vec<usize> {
        (0..2000)
            .map(|key| {
                let want = Want {
                    hash: Some(mix(key)),
                    ..Want::any(key, Moment(1), &[])
                };
                let flight = fixture.pool.begin(&want).expect("one takes it");
                index_of(&flight)
            })
            .collect()
    };
    let before = lead(&fixture);
    fixture.set(4, MemberState::Out);
    let without = lead(&fixture);
    for (before, without) in before.iter().zip(&without) {
        assert!(*without != 4 && (before == without || *before == 4));
    }
    fixture.set(4, MemberState::Ready);
    assert_eq!(lead(&fixture), before);
}

#[test]
fn request_without_its_key_is_balanced_all_the_same() {
    let fixture = Fixture::new(&spec(BalancePolicy::Maglev), 4);
    let shares = fixture.shares(4000, Moment(1), |_, want| want);
    assert!(
        shares.iter().all(|share| (850..=1150).contains(share)),
        "{shares:?}"
    );
}

#[test]
fn round_robin_is_strict_and_goes_on_over_a_new_table() {
    let mut fixture = Fixture::new(&spec(BalancePolicy::RoundRobin), 3);
    let shares = fixture.shares(299, Moment(1), |_, want| want);
    assert_eq!(shares, [100, 100, 99]);
    fixture.set(0, MemberState::Suspect);
    let shares = fixture.shares(1, Moment(1), |_, want| want);
    assert_eq!(shares, [0, 0, 1]);
}

#[test]
fn new_endpoint_takes_its_share_bit_by_bit() {
    for policy in [
        BalancePolicy::P2c,
        BalancePolicy::Random,
        BalancePolicy::RoundRobin,
    ] {
        let slow = BalanceSpec {
            slow_start: Millis::from_secs(10),
            ..spec(policy)
        };
        let mut fixture = Fixture::new(&slow, 5);
        fixture.set(4, MemberState::Unknown);
        fixture.shares(100, Moment(SECOND), |_, want| want);
        let now = Moment(100 * SECOND);
        fixture.set(4, MemberState::Ready);
        let share = |seconds: u64| {
            let at = now.after(Duration::from_secs(seconds));
            fixture.shares(4000, at, |_, want| want)[4]
        };
        let (first, half, full) = (share(0), share(5), share(10));
        // Its even share is 800.
        assert!((20..=250).contains(&first), "{policy}: {first} at first");
        assert!((280..=620).contains(&half), "{policy}: {half} half way");
        assert!((700..=900).contains(&full), "{policy}: {full} in the end");
    }
}

#[test]
fn own_zone_is_preferred_until_too_few_of_it_are_left() {
    let zoned = BalanceSpec {
        zones: ZoneSpec {
            prefer: true,
            ..ZoneSpec::default()
        },
        ..BalanceSpec::default()
    };
    // The first four are near.
    let mut fixture = Fixture::new(&zoned, 12);
    let near = |fixture: &Fixture| -> u64 {
        let shares = fixture.shares(4000, Moment(1), |_, want| want);
        shares[..4].iter().sum()
    };
    assert_eq!(near(&fixture), 4000);
    fixture.set(0, MemberState::Out);
    assert_eq!(near(&fixture), 4000, "three of four are enough");
    fixture.set(1, MemberState::Out);
    // Two of four are 5/7 of the 70 % that are needed; of the rest a fifth comes back.
    let part = near(&fixture);
    assert!((2900..=3250).contains(&part), "{part}");
    (2..4).for_each(|index| fixture.set(index, MemberState::Out));
    assert_eq!(near(&fixture), 0);
}

#[test]
fn cookie_leads_to_its_endpoint_until_that_is_gone() {
    let sticky = BalanceSpec {
        sticky: Some(StickySpec::default()),
        ..BalanceSpec::default()
    };
    let mut fixture = Fixture::new(&sticky, 6);
    let cookie = fixture.backend(2).cookie();
    let with = |_, want: Want<'static>| Want {
        sticky: Some(cookie),
        ..want
    };
    assert_eq!(fixture.shares(500, Moment(1), with)[2], 500);
    let tried = [Arc::clone(fixture.backend(2))];
    let want = Want {
        sticky: Some(cookie),
        ..Want::any(1, Moment(1), &tried)
    };
    let other = fixture.pool.begin(&want).expect("others take it");
    assert_ne!(index_of(&other), 2, "it failed this request");
    drop(other);
    fixture.set(2, MemberState::Draining);
    let shares = fixture.shares(500, Moment(1), with);
    assert!(shares[2] == 0 && shares.iter().sum::<u64>() == 500);
    let unknown = fixture.shares(100, Moment(1), |nth, want| Want {
        sticky: Some(nth),
        ..want
    });
    assert_eq!(unknown.iter().sum::<u64>(), 100);
}

/// Lets the endpoint fail until it is out, or ten times.
fn fail(fixture: &Fixture, index: usize, outcome: Outcome, now: Moment) -> bool {
    for _ in 0..10 {
        let flight = fixture.backend(index).try_begin(now).expect("is open");
        flight.ended(outcome, None, now);
    }
    fixture.backend(index).ejected_until(now).is_some()
}

#[test]
fn endpoint_with_errors_gets_nothing_until_its_time_is_over() {
    let fixture = Fixture::new(&BalanceSpec::default(), 4);
    let now = Moment(SECOND);
    assert!(
        !fail(&fixture, 1, Outcome::Status(500), now),
        "an error of the program's own"
    );
    assert!(!fail(&fixture, 1, Outcome::Cancelled, now));
    assert!(fail(&fixture, 1, Outcome::Status(503), now));
    assert!(fail(&fixture, 2, Outcome::Timeout, now));
    assert!(
        !fail(&fixture, 3, Outcome::Reset, now),
        "half are out already"
    );
    let later = now.after(Duration::from_secs(1));
    let shares = fixture.shares(400, later, |_, want| want);
    assert_eq!((shares[1], shares[2]), (0, 0));
    let over = now.after(Duration::from_secs(6));
    let shares = fixture.shares(400, over, |_, want| want);
    assert!(shares.iter().all(|&share| share > 60), "{shares:?}");
    fail(&fixture, 1, Outcome::Status(503), over);
    fixture.backend(1).forgive();
    assert_eq!(fixture.backend(1).ejected_until(over), None);
    let events = &fixture.state.events;
    let count = |of: &std::sync::atomic::AtomicU64| of.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(count(&events.ejections), 3);
    assert!(count(&events.ejections_refused) > 0);
}

#[test]
fn pool_whose_last_endpoints_are_out_for_errors_fails_open_unless_told_not_to() {
    for fail_open in [true, false] {
        let open = BalanceSpec {
            outage: OutageSpec {
                fail_open,
                ..OutageSpec::default()
            },
            ..BalanceSpec::default()
        };
        let mut fixture = Fixture::new(&open, 4);
        let now = Moment(SECOND);
        assert!(fail(&fixture, 0, Outcome::Status(503), now));
        assert!(fail(&fixture, 1, Outcome::Status(503), now));
        fixture.set(2, MemberState::Out);
        fixture.set(3, MemberState::Out);
        let begun = fixture.pool.begin(&Want::any(5, now, &[]));
        assert_eq!(begun.is_ok(), fail_open);
        if let Err(refused) = begun {
            assert_eq!(refused, Refused::NoEndpoint);
        }
    }
}

#[test]
fn as_many_wait_for_an_endpoint_as_may() {
    let few = BalanceSpec {
        limits: BalanceLimits {
            pending: 2,
            ..BalanceLimits::default()
        },
        ..BalanceSpec::default()
    };
    let fixture = Fixture::new(&few, 1);
    let first = fixture.pool.wait().expect("one may");
    let _second = fixture.pool.wait().expect("two may");
    let third = fixture.pool.wait().err();
    assert_eq!(third, Some(Refused::Overloaded(Overload::Pending)));
    drop(first);
    assert!(fixture.pool.wait().is_ok());
}

#[test]
fn backoff_is_none_at_first_and_then_doubles_up_to_its_limit() {
    let fixture = Fixture::new(&BalanceSpec::default(), 1);
    let longest = |tries| fixture.pool.backoff(tries, u64::MAX);
    assert_eq!(longest(1), Duration::ZERO);
    assert_eq!(longest(2), Duration::from_millis(5));
    assert_eq!(longest(4), Duration::from_millis(20));
    assert_eq!(longest(60), Duration::from_millis(250));
    assert_eq!(
        fixture.pool.backoff(4, 0),
        Duration::ZERO,
        "drawn by chance"
    );
}

#[test]
fn threads_that_begin_and_end_together_leave_nothing_behind() {
    let limited = BalanceSpec {
        limits: BalanceLimits {
            requests: 6,
            endpoint_requests: 2,
            ..BalanceLimits::default()
        },
        ..BalanceSpec::default()
    };
    let fixture = Fixture::new(&limited, 4);
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let fixture = &fixture;
            scope.spawn(move || {
                let mut bits = Bits::new(thread);
                for nth in 0..5000 {
                    let now = Moment(nth * MS);
                    if let Ok(flight) = fixture.pool.begin(&Want::any(bits.next(), now, &[])) {
                        flight.ended(Outcome::Status(200), None, now);
                    }
                }
            });
        }
    });
    assert_eq!(fixture.state.in_flight(), 0);
    let left: u32 = fixture.members.iter().map(|m| m.backend.in_flight()).sum();
    assert_eq!(left, 0);
}
