//! The lists of virtual machines on hosts of two sockets.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use ballast_simulate::numa::{
    Broken, Host, Request, Spot, best_fit, first_fit, read_hosts, read_racks, read_requests,
    schedule, verify,
};
use ballast_simulate::trace::SHIPPED;

fn shipped(file: &str) -> Vec<u8> {
    std::fs::read(Path::new(SHIPPED).join("numa_vm").join(file)).expect("kept here")
}

fn hosts() -> Vec<Host> {
    let racks = read_racks(&shipped("topology_provider.csv")).expect("reads");
    read_hosts(&shipped("PM_res.csv"), &racks).expect("reads")
}

fn requests(list: &str) -> Vec<Request> {
    read_requests(&shipped(&format!("VM_data_{list}.csv"))).expect("reads")
}

#[test]
fn lists_that_are_kept_read_as_published() {
    assert_eq!(hosts().len(), 1710);
    for list in ["C1", "C2"] {
        assert_eq!(requests(list).len(), 4998);
    }
}

#[test]
fn no_rule_is_broken_and_no_baseline_places_more() {
    let hosts = hosts();
    for list in ["C1", "C2"] {
        let requests = requests(list);
        let placed = |name: &str, place: fn(&[Host], &[Request]) -> Vec<Option<Spot>>| {
            let begun = Instant::now();
            let spots = place(&hosts, &requests);
            let mut without: BTreeMap<(String, u8), usize> = BTreeMap::new();
            for (request, spot) in requests.iter().zip(&spots) {
                if spot.is_none() {
                    let strategy = request.bound.map(|(_, strategy)| strategy);
                    let kind = format!("{strategy:?}");
                    *without.entry((kind, request.sockets)).or_default() += 1;
                }
            }
            println!(
                "{list} {name}: {} placed in {:?}, without a host: {without:?}",
                spots.iter().flatten().count(),
                begun.elapsed()
            );
            assert_eq!(
                verify(&hosts, &requests, &spots),
                Broken::default(),
                "{list} {name}"
            );
            spots.iter().flatten().count()
        };
        let ours = placed("scheduler", schedule);
        let first = placed("first fit", first_fit);
        let best = placed("best fit", best_fit);
        assert!(
            ours >= first && ours >= best,
            "{list}: {ours}, {first}, {best}"
        );
    }
}
