//! Each protocol under the model checker, in every interleaving of a few preemptions:
//! `RUSTFLAGS="--cfg loom" cargo test -p ballast-scheduler --lib loom_`.

use ballast_model::NodeId;
use loom::sync::Arc;
use loom::thread;

use super::custom::Custom;
use super::dirty::{CLEAN, Dirty};
use super::lanes::{Lanes, PER_WORD, Remains};
use super::line::{Demand, Extra, Line, Unsettled};
use super::nodes::{Allowed, Ask, Index, Order, Stock};
use super::words::{Amounts, Fields};
use crate::sync::{AtomicU32, Ordering};

/// Runs a test in every interleaving with so few preemptions: three find all that two threads can
/// do to each other in one place.
fn model(test: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(test);
}

fn amounts(cpu: i64, slots: i64) -> Amounts {
    Amounts::of(Fields {
        cpu,
        memory: 0,
        disk: 0,
        slots,
    })
}

fn demand(cpu: i64) -> Demand {
    Demand {
        amounts: amounts(cpu, 1),
        ..Demand::default()
    }
}

#[test]
fn loom_a_word_is_never_taken_beyond_what_is_there() {
    model(|| {
        let line = Arc::new(Line::new(amounts(10, 9), Remains::default()));
        let other = Arc::clone(&line);
        let thread = thread::spawn(move || {
            let took = other.take_amounts(amounts(6, 1)).is_some();
            if took {
                other.give_amounts(amounts(6, 1));
            }
            took
        });
        let mine = line.take_amounts(amounts(6, 1)).is_some();
        assert!(line.free().cpu() >= 0);
        assert!(thread.join().unwrap() || mine, "one of them has room");
        let left = if mine { 4 } else { 10 };
        assert_eq!(line.free().cpu(), left);
    });
}

#[test]
fn loom_devices_over_two_words_are_taken_whole_or_given_back() {
    model(|| {
        let whole = [Lanes::of([1000]), Lanes::of([1000])];
        let line = Arc::new(Line::new(amounts(10, 9), whole));
        let other = Arc::clone(&line);
        // It wants both words, we want the second alone.
        let thread = thread::spawn(move || other.take_devices(&whole));
        let mine = line.take_devices(&[Lanes(0), whole[1]]);
        let theirs = thread.join().unwrap();
        assert!(mine != theirs, "the second word is taken once");
        let left = line.remains();
        let first = if theirs { 0 } else { 1000 };
        assert_eq!([left[0].get(0), left[1].get(0)], [first, 0]);
        assert_eq!((1..PER_WORD).map(|lane| left[0].get(lane)).sum::<u16>(), 0);
    });
}

#[test]
fn loom_a_reservation_that_is_taken_back_makes_nobody_fail() {
    model(|| {
        // One slot; the one unit of the named resource is gone already.
        let line = Line::new(amounts(10, 1), Remains::default());
        let extra = Extra {
            custom: Custom::of([(0, 0)]),
            ..Extra::default()
        };
        let node = Arc::new((line, extra, Unsettled::default()));
        let other = Arc::clone(&node);
        let thread = thread::spawn(move || {
            let (line, extra, unsettled) = &*other;
            let wants = Demand {
                custom: vec![(0, 1)],
                ..demand(1)
            };
            assert!(line.take(extra, &wants, unsettled).is_none());
        });
        let (line, extra, unsettled) = &*node;
        loop {
            let mark = unsettled.mark();
            if line.take(extra, &demand(1), unsettled).is_some() {
                break;
            }
            assert!(
                !unsettled.is_quiet_since(mark),
                "there was room all the time"
            );
            thread::yield_now();
        }
        thread.join().unwrap();
        assert_eq!(line.free().slots(), 0);
    });
}

#[test]
fn loom_dirty_stack_loses_no_change() {
    model(|| {
        struct Shared {
            dirty: Dirty,
            links: [AtomicU32; 2],
            values: [AtomicU32; 2],
        }
        let zeros = || [AtomicU32::new(0), AtomicU32::new(0)];
        let shared = Arc::new(Shared {
            dirty: Dirty::default(),
            links: [AtomicU32::new(CLEAN), AtomicU32::new(CLEAN)],
            values: zeros(),
        });
        let other = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            for node in [0, 1, 0] {
                // Relaxed: the stack itself has to order it.
                other.values[node as usize].fetch_add(1, Ordering::Relaxed);
                other.dirty.push(node, |node| &other.links[node as usize]);
            }
        });
        let mut filed = [0; 2];
        let tidy = |filed: &mut [u32; 2]| {
            let links = |node: u32| &shared.links[node as usize];
            shared.dirty.take(links, |node| {
                filed[node as usize] = shared.values[node as usize].load(Ordering::Relaxed);
            });
        };
        // Here the model checker may let the other go first: it does not by itself.
        thread::yield_now();
        tidy(&mut filed);
        // Not node 0: this thread would file it again, and hide what was lost of it.
        shared.values[1].fetch_add(1, Ordering::Relaxed);
        shared.dirty.push(1, |node| &shared.links[node as usize]);
        thread.join().unwrap();
        tidy(&mut filed);
        assert_eq!(
            filed,
            [2, 2],
            "what was filed last is what was written last"
        );
    });
}

#[test]
fn loom_who_finds_a_shard_busy_finds_the_room_in_it_all_the_same() {
    model(|| {
        let mut index = Index::new(1);
        let stock = Stock {
            free: amounts(10, 2),
            slots: 2,
            devices: Remains::default(),
            class: 0,
            open: true,
        };
        index.upsert(NodeId::from_bits(1), stock);
        index.keep(Order::Fullest, &Allowed::All);
        index.prepare();
        let index = Arc::new(index);
        let place = |index: &Index| {
            let wants = demand(5);
            let ask = Ask {
                demand: &wants,
                allowed: &Allowed::All,
                skip: None,
                order: Order::Fullest,
            };
            let (mut judge, mut take) = (|_| Some(()), |at, ()| index.take(at, &wants));
            let found = index.find(0, &ask, &mut judge, &mut take);
            found.or_else(|| index.find_anywhere(&ask, &mut judge, &mut take))
        };
        let other = Arc::clone(&index);
        let thread = thread::spawn(move || {
            let (at, grant) = place(&other).expect("there is room for two");
            other.give(at, &grant);
        });
        assert!(place(&index).is_some(), "there is room for two");
        thread.join().unwrap();
        assert!(place(&index).is_some(), "what was given back is found");
        assert!(place(&index).is_none());
    });
}
