use std::sync::Arc;

use ballast_model::{
    AssignmentId, BalancePolicy, BalanceSpec, Endpoint, Generation, Health, NodeId, PortTable,
    Protocol, RouteRule, ServiceId, ServiceTable, Weight,
};
use proptest::prelude::*;

use crate::policy::Want;
use crate::table::{Feed, Gate, MemberState, Moment, RouteTable};

fn service(
    number: u64,
    generation: u64,
    ports: u16,
    endpoints: u64,
    policy: usize,
) -> ServiceTable {
    let port = |nth: u16| PortTable {
        name: format!("p{nth}"),
        protocol: Protocol::Http,
        published: (nth == 0).then(|| u16::try_from(8000 + number).expect("small")),
        routes: vec![RouteRule::new(Some(format!("s{number}-{nth}.test")), "/")],
        endpoints: (0..endpoints)
            .map(|slot| Endpoint {
                assignment: AssignmentId::from_bits(number * 100 + slot),
                node: NodeId::from_bits(slot % 3),
                address: ([10, 0, 0, 1], 1000 + nth).into(),
                health: Health::Healthy,
                weight: Weight::DEFAULT,
                zone: None,
            })
            .collect(),
        balance: (policy > 0).then(|| BalanceSpec {
            policy: BalancePolicy::ALL[policy],
            ..BalanceSpec::default()
        }),
        upstream: None,
    };
    ServiceTable {
        service: ServiceId::from_bits(number),
        name: format!("s{number}"),
        generation: Generation(generation),
        ports: (0..ports).map(port).collect(),
    }
}

/// All that can be seen of a table.
fn seen(feed: &Feed) -> Vec<String> {
    let table = feed.table();
    let mut seen = vec![format!("{:?}", table.routing.ports())];
    for pool in &table.pools {
        let key = format!("{}/{}", pool.key.service, pool.key.port);
        seen.push(format!("{key} {:?}", pool.settings().policy));
        for member in &pool.members {
            let backend = &member.backend;
            let found = feed.backends(backend.assignment);
            assert!(found.iter().any(|one| Arc::ptr_eq(one, backend)), "{key}");
            seen.push(format!(
                "{} {} {:?} {:?}",
                backend.assignment,
                backend.address,
                member.state,
                backend.gate()
            ));
        }
        let known = table.pool(&pool.key).expect("is found by its name");
        assert!(Arc::ptr_eq(known, pool));
    }
    seen
}

/// Which pool each published port leads to.
fn leads(table: &RouteTable) -> Vec<Option<u64>> {
    (8000..8010)
        .map(|port| Some(table.published(port)?.key.service.to_bits()))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn prop_table_of_updates_is_the_table_of_a_snapshot(
        steps in prop::collection::vec(
            (0u64..8, any::<bool>(), 1u16..3, 0u64..5, 0usize..6),
            1..30,
        ),
    ) {
        let mut feed = Feed::new();
        let mut now = std::collections::BTreeMap::<u64, ServiceTable>::new();
        for ((number, gone, ports, endpoints, policy), generation) in steps.into_iter().zip(1..) {
            let before = Arc::clone(feed.table());
            let routed = seen(&feed);
            let id = ServiceId::from_bits(number);
            let effects = if gone {
                now.remove(&number);
                feed.update(Generation(generation), Vec::new(), &[id])
            } else {
                let table = service(number, generation, ports, endpoints, policy);
                now.insert(number, table.clone());
                feed.update(Generation(generation), vec![table], &[])
            };
            let mut fresh = Feed::new();
            fresh.snapshot(Generation(generation), now.values().cloned().collect());
            prop_assert_eq!(seen(&feed), seen(&fresh));
            prop_assert_eq!(leads(feed.table()), leads(fresh.table()));
            prop_assert_eq!(
                effects.routing_changed,
                *before.routing != *feed.table().routing,
                "{:?}", routed
            );
            for pool in &feed.table().pools {
                let untouched = pool.key.service != id;
                let kept = before.pool(&pool.key).is_some_and(|old| Arc::ptr_eq(old, pool));
                prop_assert!(!untouched || kept, "what did not change is the same");
            }
        }
    }
}

#[test]
fn state_of_a_pool_outlives_a_change_of_its_endpoints_and_settings() {
    let mut feed = Feed::new();
    feed.snapshot(Generation(1), vec![service(1, 1, 1, 3, 0)]);
    let old = Arc::clone(&feed.table().pools[0]);
    let flight = old
        .begin(&Want::any(7, Moment(1), &[]))
        .expect("is healthy");
    feed.update(Generation(2), vec![service(1, 2, 1, 2, 4)], &[]);
    let new = &feed.table().pools[0];
    assert!(Arc::ptr_eq(old.state(), new.state()));
    assert!(Arc::ptr_eq(&old.stats, &new.stats));
    assert_eq!(new.settings().policy, BalancePolicy::ALL[4]);
    let kept = &new.members[0].backend;
    assert!(Arc::ptr_eq(kept, &old.members[0].backend));
    assert_eq!(old.members[2].backend.gate(), Gate::Draining, "it is gone");
    drop(flight);
}

#[test]
fn snapshot_that_says_the_same_again_keeps_every_pool() {
    let mut feed = Feed::new();
    let tables: Vec<ServiceTable> = (0..5).map(|nth| service(nth, 1, 2, 3, 0)).collect();
    feed.snapshot(Generation(1), tables.clone());
    let before = Arc::clone(feed.table());
    let effects = feed.snapshot(Generation(2), tables);
    assert!(!effects.routing_changed);
    let same = before.pools.iter().zip(&feed.table().pools);
    assert!(same.clone().count() == 10 && same.into_iter().all(|(a, b)| Arc::ptr_eq(a, b)));
    assert_eq!(feed.table().generation, Generation(2));
    let states = feed.table().pools[0].members.iter().map(|m| m.state);
    assert!(states.into_iter().all(|state| state == MemberState::Ready));
}
