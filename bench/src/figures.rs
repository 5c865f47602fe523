//! Figures, their statistics and their goals.

use std::fmt;

use serde_json::{Value, json};

/// Which statistic of a figure a goal is set for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stat {
    /// The smallest.
    Min,
    /// The median.
    P50,
    /// 99 % of the values are not above it.
    P99,
    /// The largest.
    Max,
    /// All together.
    Sum,
}

impl Stat {
    const fn name(self) -> &'static str {
        match self {
            Self::Min => "min",
            Self::P50 => "p50",
            Self::P99 => "p99",
            Self::Max => "max",
            Self::Sum => "sum",
        }
    }
}

/// What a statistic of a figure is to keep to.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Goal {
    stat: Stat,
    limit: f64,
    /// The limit is the least and not the most.
    at_least: bool,
}

impl Goal {
    fn is_met(self, value: f64) -> bool {
        if self.at_least {
            value >= self.limit
        } else {
            value <= self.limit
        }
    }

    const fn sign(self) -> &'static str {
        if self.at_least { "≥" } else { "≤" }
    }
}

/// One measured quantity.
#[derive(Debug, Clone)]
pub struct Figure {
    case: String,
    subject: String,
    name: String,
    unit: &'static str,
    values: Vec<f64>,
    goals: Vec<Goal>,
}

impl Figure {
    /// Returns `name` of `subject` in `case`; values come with [`Self::values`].
    pub fn new(
        (case, subject): (impl Into<String>, impl Into<String>),
        name: impl Into<String>,
        unit: &'static str,
    ) -> Self {
        Self {
            case: case.into(),
            subject: subject.into(),
            name: name.into(),
            unit,
            values: Vec::new(),
            goals: Vec::new(),
        }
    }

    /// Sets what was measured.
    #[must_use]
    pub fn values(mut self, values: impl IntoIterator<Item = f64>) -> Self {
        self.values = values.into_iter().collect();
        self.values.sort_by(f64::total_cmp);
        self
    }

    /// Adds a goal: the statistic is not to be above `limit`.
    #[must_use]
    pub fn goal(mut self, stat: Stat, limit: f64) -> Self {
        self.goals.push(Goal {
            stat,
            limit,
            at_least: false,
        });
        self
    }

    /// Adds a goal: the statistic is not to be below `limit`.
    #[must_use]
    pub fn goal_at_least(mut self, stat: Stat, limit: f64) -> Self {
        self.goals.push(Goal {
            stat,
            limit,
            at_least: true,
        });
        self
    }

    /// Returns the median of what was measured.
    pub fn median(&self) -> f64 {
        self.stat(Stat::P50)
    }

    fn stat(&self, stat: Stat) -> f64 {
        let at = |percent: usize| {
            // The nearest rank: the smallest value that `percent` of all do not exceed.
            let rank = (self.values.len() * percent).div_ceil(100).max(1);
            self.values.get(rank - 1).copied().unwrap_or(f64::NAN)
        };
        match stat {
            Stat::Min => at(0),
            Stat::P50 => at(50),
            Stat::P99 => at(99),
            Stat::Max => at(100),
            Stat::Sum => self.values.iter().sum(),
        }
    }

    /// Returns whether every goal is met; a figure without values meets none.
    pub fn is_met(&self) -> bool {
        !self.values.is_empty()
            && self
                .goals
                .iter()
                .all(|goal| goal.is_met(self.stat(goal.stat)))
    }

    fn to_json(&self) -> Value {
        let goals: Vec<Value> = self
            .goals
            .iter()
            .map(|goal| {
                let value = self.stat(goal.stat);
                json!({
                    "stat": goal.stat.name(),
                    "at_least": goal.at_least,
                    "limit": goal.limit,
                    "value": value,
                    "met": goal.is_met(value),
                })
            })
            .collect();
        json!({
            "case": self.case,
            "subject": self.subject,
            "figure": self.name,
            "unit": self.unit,
            "median": self.stat(Stat::P50),
            "min": self.values.first(),
            "max": self.values.last(),
            "p99": self.stat(Stat::P99),
            "sum": self.stat(Stat::Sum),
            "runs": self.values.len(),
            "goals": goals,
        })
    }
}

/// All figures of a bench.
#[derive(Debug, Default)]
pub struct Figures(Vec<Figure>);

impl Figures {
    /// Adds one.
    pub fn push(&mut self, figure: Figure) {
        self.0.push(figure);
    }

    /// Returns whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the figure of that case, subject and name.
    pub fn find(&self, case: &str, subject: &str, name: &str) -> Option<&Figure> {
        self.0
            .iter()
            .find(|figure| figure.case == case && figure.subject == subject && figure.name == name)
    }

    /// Returns them as the array that `--json` writes.
    pub fn to_json(&self) -> Vec<Value> {
        self.0.iter().map(Figure::to_json).collect()
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:36} {:18} {:36} {:>11} {:>11} {:>11} {:>5}  goals",
            "case", "subject", "figure", "median", "min", "max", "runs"
        )?;
        for figure in &self.0 {
            write!(
                f,
                "{:36} {:18} {:36} {:>11.2} {:>11.2} {:>11.2} {:>5} ",
                figure.case,
                figure.subject,
                format!("{}, {}", figure.name, figure.unit),
                figure.stat(Stat::P50),
                figure.values.first().copied().unwrap_or(f64::NAN),
                figure.stat(Stat::Max),
                figure.values.len(),
            )?;
            for goal in &figure.goals {
                let value = figure.stat(goal.stat);
                let met = if goal.is_met(value) { "met" } else { "MISSED" };
                let (name, sign) = (goal.stat.name(), goal.sign());
                write!(f, " {name} {value:.2} {sign} {} {met}", goal.limit)?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_are_nearest_ranks_and_goals_are_judged_by_them() {
        let figure = Figure::new(("kill", "ballast"), "out", "ms")
            .values((1..=50).rev().map(f64::from))
            .goal(Stat::P50, 25.0);
        assert!((figure.stat(Stat::P50) - 25.0).abs() < f64::EPSILON);
        assert!((figure.stat(Stat::P99) - 50.0).abs() < f64::EPSILON);
        assert!(figure.is_met());
        assert!(!figure.clone().goal(Stat::Max, 49.0).is_met());
        assert!(figure.clone().goal_at_least(Stat::P50, 25.0).is_met());
        assert!(!figure.clone().goal_at_least(Stat::P50, 26.0).is_met());
        assert!(!figure.values([]).is_met());
    }
}
