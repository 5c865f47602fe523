use ballast_model::{Protocol, RouteRule, Weight};
use proptest::prelude::*;

use super::*;
use crate::table::Sever;

fn endpoint(assignment: u64, node: u64, health: Health) -> Endpoint {
    Endpoint {
        assignment: AssignmentId::from_bits(assignment),
        node: NodeId::from_bits(node),
        address: (
            [10, 0, 0, u8::try_from(node).expect("small")],
            20_000 + u16::try_from(assignment).expect("small"),
        )
            .into(),
        health,
        weight: Weight::DEFAULT,
        zone: None,
    }
}

fn service(generation: u64, endpoints: Vec<Endpoint>) -> ServiceTable {
    ServiceTable {
        service: ServiceId::from_bits(1),
        name: "web".to_owned(),
        generation: Generation(generation),
        ports: vec![PortTable {
            name: "http".to_owned(),
            protocol: Protocol::Http,
            published: Some(8080),
            routes: vec![RouteRule::new(None, "/")],
            endpoints,
            balance: None,
            upstream: None,
        }],
    }
}

fn said(assignment: u64, sequence: u64, health: Health) -> EndpointHealth {
    EndpointHealth {
        assignment: AssignmentId::from_bits(assignment),
        sequence: Sequence(sequence),
        health,
        seen: Timestamp(sequence),
    }
}

fn states(feed: &Feed) -> Vec<MemberState> {
    feed.table().pools[0]
        .members
        .iter()
        .map(|m| m.state)
        .collect()
}

/// Endpoints 1..=count; endpoint n on node (n - 1) % nodes + 1; all synced and healthy.
fn cluster(count: u64, nodes: u64) -> (Feed, Vec<Session>) {
    let mut feed = Feed::new();
    let node_of = |n: u64| (n - 1) % nodes + 1;
    let endpoints = (1..=count).map(|n| endpoint(n, node_of(n), Health::Unknown));
    feed.snapshot(Generation(1), vec![service(1, endpoints.collect())]);
    let sessions = (1..=nodes)
        .map(|node| {
            let session = feed
                .hello(NodeId::from_bits(node), Incarnation(1), Moment(0))
                .expect("is new");
            let all: Vec<_> = (1..=count)
                .filter(|&n| node_of(n) == node)
                .map(|n| said(n, 1, Health::Healthy))
                .collect();
            feed.sync(session, &all, Moment(0)).expect("is open");
            session
        })
        .collect();
    (feed, sessions)
}

use MemberState::{Draining, Out, Ready, Suspect, Unknown};

#[test]
fn new_endpoint_waits_for_its_agent_unless_the_manager_knew_it_healthy() {
    let mut feed = Feed::new();
    let endpoints = vec![
        endpoint(1, 1, Health::Unknown),
        endpoint(2, 1, Health::Healthy),
    ];
    feed.snapshot(Generation(1), vec![service(1, endpoints)]);
    assert_eq!(states(&feed), [Unknown, Ready]);
    let node = NodeId::from_bits(1);
    let session = feed.hello(node, Incarnation(1), Moment(0)).expect("opens");
    feed.sync(session, &[said(1, 1, Health::Healthy)], Moment(0))
        .expect("is open");
    assert_eq!(states(&feed), [Ready, Unknown], "the agent knows no other");
}

#[test]
fn agent_ahead_of_the_manager_is_remembered() {
    let (mut feed, sessions) = cluster(1, 1);
    feed.change(sessions[0], &said(2, 1, Health::Healthy), Moment(1))
        .expect("is open");
    let endpoints = vec![
        endpoint(1, 1, Health::Healthy),
        endpoint(2, 1, Health::Unknown),
    ];
    let effects = feed.update(Generation(2), vec![service(2, endpoints)], &[]);
    assert!(effects.table.is_some() && !effects.routing_changed);
    assert_eq!(states(&feed), [Ready, Ready]);
}

#[test]
fn failure_takes_out_at_once_and_says_when_it_was_seen() {
    let (mut feed, sessions) = cluster(3, 1);
    let held = Arc::clone(&feed.table().pools[0].members[0].backend);
    let effects = feed
        .change(sessions[0], &said(1, 7, Health::Unhealthy), Moment(5))
        .expect("is open");
    assert_eq!(states(&feed), [Out, Ready, Ready]);
    assert_eq!(effects.sever.len(), 1);
    assert_eq!(
        effects.departed,
        [Departure {
            assignment: AssignmentId::from_bits(1),
            seen: Timestamp(7)
        }]
    );
    assert_eq!(held.gate(), Gate::Closed, "older tables see it, too");
}

#[test]
fn draining_takes_nothing_new_and_severs_nothing() {
    let (mut feed, sessions) = cluster(2, 1);
    let effects = feed
        .change(sessions[0], &said(1, 2, Health::Draining), Moment(5))
        .expect("is open");
    assert_eq!(states(&feed), [Draining, Ready]);
    assert!(effects.sever.is_empty());
    let effects = feed
        .change(sessions[0], &said(1, 3, Health::Unhealthy), Moment(6))
        .expect("is open");
    assert_eq!(effects.sever.len(), 1, "it died before it was done");
}

#[test]
fn node_cannot_speak_for_anothers_endpoint() {
    let (mut feed, sessions) = cluster(2, 2);
    feed.change(sessions[1], &said(1, 99, Health::Unhealthy), Moment(1))
        .expect("is open");
    assert_eq!(states(&feed), [Ready, Ready]);
}

#[test]
fn older_lives_and_connections_are_refused() {
    let (mut feed, sessions) = cluster(1, 1);
    let node = NodeId::from_bits(1);
    let later = feed.hello(node, Incarnation(5), Moment(1)).expect("later");
    assert_eq!(
        feed.heartbeat(sessions[0], Moment(2)).expect_err("old"),
        FeedError::Superseded(node)
    );
    assert!(feed.hello(node, Incarnation(4), Moment(3)).is_err());
    feed.change(later, &said(1, 1, Health::Unhealthy), Moment(3))
        .expect("sequence counts anew in a later life");
    assert_eq!(
        states(&feed),
        [Suspect],
        "alone in its pool: the floor holds"
    );
}

#[test]
fn lease_of_a_silent_node_lapses_and_a_heartbeat_revives_it() {
    let (mut feed, sessions) = cluster(4, 2);
    let mut now = Moment(0);
    let mut lapsed_at = None;
    while now.0 < 800_000 {
        now = now.after(TICK);
        feed.heartbeat(sessions[0], now).expect("is open");
        let effects = feed.tick(now);
        if effects.table.is_some() {
            assert_eq!(effects.sever.len(), 2);
            lapsed_at = lapsed_at.or(Some(now));
        }
    }
    assert_eq!(states(&feed), [Ready, Out, Ready, Out]);
    let lapsed_at = lapsed_at.expect("lapsed");
    assert!((500_000..=560_000).contains(&lapsed_at.0), "{lapsed_at:?}");
    feed.heartbeat(sessions[1], now).expect("is open");
    assert_eq!(states(&feed), [Ready, Ready, Ready, Ready]);
}

#[test]
fn own_starvation_lapses_no_lease() {
    let (mut feed, _) = cluster(4, 4);
    feed.tick(Moment(0).after(TICK));
    let effects = feed.tick(Moment(0).after(Duration::from_secs(10)));
    assert!(effects.table.is_none());
    assert_eq!(states(&feed), [Ready; 4]);
}

#[test]
fn floor_keeps_a_pool_whose_probes_fail_all_over() {
    let (mut feed, sessions) = cluster(5, 1);
    for n in 1..=2 {
        feed.change(sessions[0], &said(n, 2, Health::Unhealthy), Moment(n))
            .expect("is open");
    }
    assert_eq!(states(&feed), [Out, Out, Ready, Ready, Ready]);
    let effects = feed
        .change(sessions[0], &said(3, 2, Health::Unhealthy), Moment(3))
        .expect("is open");
    assert_eq!(states(&feed), [Suspect, Suspect, Suspect, Ready, Ready]);
    assert!(effects.sever.is_empty(), "a suspect is not cut off");
    feed.change(sessions[0], &said(1, 3, Health::Healthy), Moment(4))
        .expect("is open");
    assert_eq!(states(&feed), [Ready, Out, Out, Ready, Ready]);
}

#[test]
fn one_dead_node_is_no_mass_failure_even_with_most_replicas() {
    let mut feed = Feed::new();
    let endpoints = [1, 1, 1, 2, 3].into_iter().zip(1..);
    let endpoints = endpoints.map(|(node, n)| endpoint(n, node, Health::Unknown));
    feed.snapshot(Generation(1), vec![service(1, endpoints.collect())]);
    let mut sessions = Vec::new();
    for (node, mine) in [(1, vec![1, 2, 3]), (2, vec![4]), (3, vec![5])] {
        let session = feed
            .hello(NodeId::from_bits(node), Incarnation(1), Moment(0))
            .expect("opens");
        let all: Vec<_> = mine.iter().map(|&n| said(n, 1, Health::Healthy)).collect();
        feed.sync(session, &all, Moment(0)).expect("is open");
        sessions.push(session);
    }
    let mut now = Moment(0);
    let run = |feed: &mut Feed, now: &mut Moment, living: &[Session]| {
        let end = now.after(Duration::from_secs(1));
        while *now < end {
            *now = now.after(TICK);
            for &session in living {
                feed.heartbeat(session, *now).expect("is open");
            }
            feed.tick(*now);
        }
    };
    run(&mut feed, &mut now, &sessions[1..]);
    assert_eq!(states(&feed), [Out, Out, Out, Ready, Ready]);
    run(&mut feed, &mut now, &sessions[2..]);
    assert_eq!(
        states(&feed),
        [Suspect, Suspect, Suspect, Suspect, Ready],
        "most nodes silent: that is us"
    );
}

#[test]
fn live_state_survives_swaps_and_a_removed_endpoint_finishes_its_requests() {
    let (mut feed, sessions) = cluster(2, 1);
    let backend = Arc::clone(&feed.table().pools[0].members[0].backend);
    let request = backend.try_begin(Moment(1)).expect("is open");
    let effects = feed.update(
        Generation(2),
        vec![service(2, vec![endpoint(1, 1, Health::Healthy)])],
        &[],
    );
    assert!(effects.sever.is_empty());
    assert!(Arc::ptr_eq(
        &backend,
        &feed.table().pools[0].members[0].backend
    ));
    feed.update(Generation(3), vec![service(3, vec![])], &[]);
    assert_eq!(backend.gate(), Gate::Draining);
    assert_eq!(feed.backends(backend.assignment).len(), 1);
    let effects = feed
        .change(sessions[0], &said(1, 9, Health::Unhealthy), Moment(3))
        .expect("is open");
    assert_eq!(effects.sever.len(), 1, "it died with a request in flight");
    drop(request);
    feed.tick(Moment(4));
    assert!(feed.backends(backend.assignment).is_empty());
}

#[test]
fn idle_connections_of_a_removed_endpoint_are_closed() {
    struct Flag(Arc<std::sync::atomic::AtomicBool>);
    impl Sever for Flag {
        fn sever(&self) {
            self.0.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    }
    let (mut feed, _) = cluster(1, 1);
    let links = Arc::clone(&feed.table().pools[0].members[0].backend.links);
    let cut = Arc::new(std::sync::atomic::AtomicBool::new(false));
    links
        .register(links.epoch(), Box::new(Flag(cut.clone())))
        .expect("registers");
    feed.update(Generation(2), vec![service(2, vec![])], &[]);
    feed.tick(Moment(1));
    assert!(cut.load(std::sync::atomic::Ordering::Relaxed));
}

#[derive(Debug, Clone)]
enum Step {
    Change(EndpointHealth),
    Update(u64),
    Snapshot(u64),
}

/// What the manager said at a generation: with each, one more of the endpoints exists, up to 4.
fn at(generation: u64) -> Vec<ServiceTable> {
    let count = generation.min(4);
    let endpoints = (1..=count).map(|n| endpoint(n, 1, Health::Unknown));
    vec![service(generation, endpoints.collect())]
}

fn health(bits: u64) -> Health {
    [
        Health::Unknown,
        Health::Healthy,
        Health::Unhealthy,
        Health::Draining,
    ][usize::try_from(bits % 4).expect("below 4")]
}

/// What the agent said of an assignment at a sequence number: a function, as in life.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    let change = (1u64..5, 1u64..20).prop_map(|(assignment, sequence)| {
        let said_then = health(assignment.wrapping_mul(31) ^ sequence.wrapping_mul(7) >> 1);
        Step::Change(said(assignment, sequence, said_then))
    });
    let update = (1u64..10).prop_map(Step::Update);
    let snapshot = (1u64..10).prop_map(Step::Snapshot);
    proptest::collection::vec(prop_oneof![6 => change, 1 => update, 1 => snapshot], 1..60)
}

fn run(steps: &[Step]) -> (Generation, Vec<MemberState>) {
    let mut feed = Feed::new();
    let session = feed
        .hello(NodeId::from_bits(1), Incarnation(1), Moment(0))
        .expect("opens");
    feed.sync(session, &[], Moment(0)).expect("is open");
    feed.snapshot(Generation(0), at(0));
    let mut highest = Generation(0);
    for step in steps {
        match step {
            Step::Change(said) => {
                feed.change(session, said, Moment(1)).expect("is open");
            }
            Step::Update(generation) => {
                feed.update(Generation(*generation), at(*generation), &[]);
            }
            Step::Snapshot(generation) => {
                feed.snapshot(Generation(*generation), at(*generation));
            }
        }
        assert!(feed.table().generation >= highest, "moved backwards");
        highest = feed.table().generation;
        for member in &feed.table().pools[0].members {
            let open = member.backend.gate() == Gate::Open;
            assert_eq!(open, member.state.takes_requests());
        }
    }
    (feed.table().generation, states(&feed))
}

proptest! {
    /// Late, repeated and reordered messages end where those in order end.
    #[test]
    fn prop_every_order_converges(
        steps in steps(),
        seeds in proptest::collection::vec(any::<u64>(), 60),
        again in proptest::collection::vec(any::<prop::sample::Index>(), 0..10),
    ) {
        let mut other: Vec<Step> = steps.clone();
        other.extend(again.iter().map(|index| index.get(&steps).clone()));
        let mut keyed: Vec<(u64, Step)> = other
            .into_iter()
            .enumerate()
            .map(|(place, step)| (seeds[place % seeds.len()].rotate_left(u32::try_from(place).expect("few")), step))
            .collect();
        keyed.sort_by_key(|(key, _)| *key);
        let other: Vec<Step> = keyed.into_iter().map(|(_, step)| step).collect();
        prop_assert_eq!(run(&steps), run(&other));
    }

    /// Whatever was said, a pool in which anything may live takes requests.
    #[test]
    fn prop_floor_never_empties_a_pool(healths in proptest::collection::vec(0u64..3, 1..12)) {
        let count = healths.len() as u64;
        let (mut feed, sessions) = cluster(count, 1);
        for (n, bits) in (1..).zip(&healths) {
            feed.change(sessions[0], &said(n, 2, health(*bits)), Moment(1)).expect("is open");
        }
        let may_live = healths.iter().any(|&bits| health(bits) != Health::Unknown);
        prop_assert_eq!(!feed.table().pools[0].open().is_empty(), may_live);
    }
}
