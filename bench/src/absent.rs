//! Benches of parts that are not built yet: they say so, and their names are not free for anything
//! else.

use crate::{Bench, Options};

/// Names, and why nothing is measured.
const REASONS: [(&str, &str); 1] = [("autoscale", "autoscale: there is no autoscaler yet")];

/// Says what the bench of that name cannot measure.
pub fn run(name: &str, options: &Options) -> Bench {
    let known = REASONS.iter().find(|(known, _)| *known == name);
    let (name, reason) = known
        .copied()
        .unwrap_or(("absent", "there is no such part"));
    Bench::measure(name, options, |bench| {
        bench.missing(reason);
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use std::process::ExitCode;

    use super::*;

    #[test]
    fn part_that_is_not_built_is_named_and_the_status_says_so() {
        let options = Options {
            tiny: true,
            ..Options::default()
        };
        for (name, _) in REASONS {
            let bench = run(name, &options);
            assert_eq!(bench.name, name);
            assert_eq!(bench.missing.len(), 1);
            assert_eq!(Bench::status(&[bench]), ExitCode::from(4));
        }
    }
}
