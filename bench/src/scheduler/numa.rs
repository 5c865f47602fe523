//! Virtual machines on hosts of two sockets: how many requests of the lists are placed, and what
//! is broken, against first fit and best fit under the same rules.

use std::path::Path;
use std::time::Instant;

use ballast_simulate::numa::{
    Host, Request, Spot, best_fit, first_fit, read_hosts, read_racks, read_requests, schedule,
    verify,
};
use ballast_simulate::trace::SHIPPED;

use crate::figures::{Figure, Stat};
use crate::options::Options;

type Place = fn(&[Host], &[Request]) -> Vec<Option<Spot>>;

const SUBJECTS: [(&str, Place); 3] = [
    ("ballast", schedule),
    ("first fit", first_fit),
    ("best fit", best_fit),
];

/// Measures.
pub fn run(options: &Options) -> Vec<Figure> {
    let mut figures = Vec::new();
    for list in ["C1", "C2"] {
        let case = format!("numa {list}");
        if !options.wants(&case) {
            continue;
        }
        let racks = read_racks(&kept("topology_provider.csv")).expect("a list that is kept");
        let hosts = read_hosts(&kept("PM_res.csv"), &racks).expect("a list that is kept");
        let requests = read_requests(&kept(&format!("VM_data_{list}.csv")));
        let requests = requests.expect("a list that is kept");
        let mut most_of_others = 0.0_f64;
        // Ours last: it is to place at least as many as the others.
        for (subject, place) in SUBJECTS.into_iter().rev() {
            let begin = Instant::now();
            let spots = place(&hosts, &requests);
            let rate = requests.len() as f64 / begin.elapsed().as_secs_f64();
            let placed = spots.iter().flatten().count() as f64;
            let broken = verify(&hosts, &requests, &spots).total() as f64;
            let figure = |name, unit| Figure::new((case.clone(), subject), name, unit);
            let mut of_placed = figure("placed", "requests").values([placed]);
            if subject == "ballast" {
                of_placed = of_placed.goal_at_least(Stat::P50, most_of_others);
            } else {
                most_of_others = most_of_others.max(placed);
            }
            figures.push(of_placed);
            let of_broken = figure("rules broken", "times").values([broken]);
            figures.push(of_broken.goal(Stat::Max, 0.0));
            figures.push(figure("decisions", "per second").values([rate]));
        }
    }
    figures
}

fn kept(file: &str) -> Vec<u8> {
    let path = Path::new(SHIPPED).join("numa_vm").join(file);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
