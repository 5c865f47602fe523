//! A comparison for people, in plain text.

use std::fmt;

use super::{Change, Compared, Comparison};

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "A: {} ({} runs)", self.a, self.runs_a)?;
        writeln!(f, "B: {} ({} runs)", self.b, self.runs_b)?;
        writeln!(
            f,
            "{:8} {:>12} {:>12}      change  95 % interval          p",
            "", "A", "B"
        )?;
        for figure in &self.figures {
            line(f, figure)?;
        }
        writeln!(f, "test: {}", self.test)?;
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        let named = |change: Change| {
            let names = self
                .figures
                .iter()
                .filter(|figure| figure.verdict == change);
            let names: Vec<_> = names.map(|figure| figure.figure.name()).collect();
            names.join(", ")
        };
        match self.verdict {
            Change::Worse => writeln!(f, "B is WORSE: {}", named(Change::Worse)),
            Change::Better => writeln!(f, "B is better: {}", named(Change::Better)),
            Change::Mixed => writeln!(
                f,
                "B is WORSE: {}; and better: {}",
                named(Change::Worse),
                named(Change::Better)
            ),
            Change::None | Change::Untested => {
                writeln!(
                    f,
                    "no difference found; the intervals say how large one may be"
                )
            }
        }
    }
}

fn line(f: &mut fmt::Formatter<'_>, figure: &Compared) -> fmt::Result {
    write!(
        f,
        "{:8} {:12.3} {:12.3} {:2}",
        figure.figure.name(),
        figure.a,
        figure.b,
        figure.unit
    )?;
    let (Some(change), Some(low), Some(high), Some(p)) = (
        figure.change_percent,
        figure.low_percent,
        figure.high_percent,
        figure.p_corrected,
    ) else {
        return writeln!(f);
    };
    let mark = match figure.verdict {
        Change::Worse => "  WORSE",
        Change::Better => "  better",
        _ => "",
    };
    writeln!(
        f,
        " {change:+7.2} %  [{low:+7.2} … {high:+7.2}]  {p:8.4}{mark}"
    )
}
