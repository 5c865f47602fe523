//! The balancer in the kernel between real clients and servers, in network namespaces.

mod flows;
mod rig;
mod world;

use world::World;

/// Skips a test that cannot run here.
macro_rules! needs_root {
    () => {
        if let Some(why) = rig::missing() {
            eprintln!("SKIP: {why}");
            return;
        }
    };
}

#[test]
fn tcp_reaches_every_real_in_every_mode_and_family() {
    needs_root!();
    for v4 in [true, false] {
        let world = World::new(v4, &["r1", "r2"]);
        for mode in ["dsr", "dsr-gue", "nat", "l2"] {
            let balancer = world.balancer("lb", &world.config(mode, "tcp", &["r1", "r2"], ""));
            let seen = world.names_seen(40);
            assert_eq!(seen, ["r1", "r2"], "{mode}, IPv4: {v4}");
            balancer.stop(true);
        }
    }
}

#[test]
fn no_change_breaks_a_flow() {
    needs_root!();
    flows::no_change_breaks_a_flow();
}

#[test]
fn flows_of_a_killed_real_are_reset_and_no_others() {
    needs_root!();
    for v4 in [true, false] {
        flows::flows_of_a_killed_real_are_reset_and_no_others(v4);
    }
}
