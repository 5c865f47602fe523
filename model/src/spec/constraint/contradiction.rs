//! Finds constraints that no node can meet together.

use std::collections::BTreeMap;
use std::fmt;

use super::{CompareOp, Condition, Constraint, NodeKey};

/// Constraints that exclude each other, whatever nodes there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contradiction {
    /// The place of each in what was asked, ascending; one alone if it contradicts itself.
    pub places: Vec<usize>,
    /// Each as it prints.
    pub texts: Vec<String>,
}

impl fmt::Display for Contradiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.texts.as_slice() {
            [one] => write!(f, "no node can meet `{one}`"),
            texts => write!(f, "no node can meet both `{}`", texts.join("` and `")),
        }
    }
}

/// Returns the first constraints that contradict each other, if there are any.
///
/// Found are values that cannot all be the case, empty ranges of numbers and versions, and what
/// must be there and must not. Not found is what only the fleet can tell, such as a value that no
/// node has.
pub fn contradiction(constraints: &[Constraint]) -> Option<Contradiction> {
    let mut by_key: BTreeMap<&NodeKey, Vec<(usize, &Condition)>> = BTreeMap::new();
    for (place, constraint) in constraints.iter().enumerate() {
        let conditions = by_key.entry(&constraint.key).or_default();
        conditions.push((place, &constraint.condition));
    }
    let clash = |conditions: &Vec<(usize, &Condition)>| {
        values_clash(conditions)
            .or_else(|| absence_clashes(conditions))
            .or_else(|| numbers_clash(conditions))
            .or_else(|| versions_clash(conditions))
    };
    let mut places = by_key.values().filter_map(clash).min()?;
    places.sort_unstable();
    places.dedup();
    let texts = places.iter().map(|&place| constraints[place].to_string());
    let texts = texts.collect();
    Some(Contradiction { places, texts })
}

/// Tries each value of the first finite set against all other conditions.
fn values_clash(conditions: &[(usize, &Condition)]) -> Option<Vec<usize>> {
    let (first, mut left) = conditions
        .iter()
        .find_map(|(place, condition)| match condition {
            Condition::Equal(value) => Some((*place, vec![value.as_str()])),
            Condition::In(values) => Some((*place, values.iter().map(String::as_str).collect())),
            _ => None,
        })?;
    let mut places = vec![first];
    for (place, condition) in conditions {
        let before = left.len();
        left.retain(|value| condition.holds(Some(value)));
        if left.len() < before {
            places.push(*place);
        }
        if left.is_empty() {
            return Some(places);
        }
    }
    None
}

fn absence_clashes(conditions: &[(usize, &Condition)]) -> Option<Vec<usize>> {
    let find = |wanted: fn(&Condition) -> bool| {
        let found = conditions.iter().find(|(_, condition)| wanted(condition));
        found.map(|(place, _)| *place)
    };
    let absent = find(|condition| matches!(condition, Condition::Absent))?;
    let present = find(|condition| !condition.holds(None))?;
    Some(vec![absent, present])
}

fn numbers_clash(conditions: &[(usize, &Condition)]) -> Option<Vec<usize>> {
    let bounds = conditions
        .iter()
        .filter_map(|(place, condition)| match condition {
            Condition::Compare(op, bound) => Some((*place, *op, bound.value())),
            _ => None,
        });
    range_is_empty(bounds)
}

fn versions_clash(conditions: &[(usize, &Condition)]) -> Option<Vec<usize>> {
    let bounds = conditions
        .iter()
        .filter_map(|(place, condition)| match condition {
            Condition::Version(bounds) => Some(
                bounds
                    .iter()
                    .map(|bound| (*place, bound.op, &bound.version)),
            ),
            _ => None,
        })
        .flatten();
    range_is_empty(bounds)
}

/// Returns the places of two bounds between which nothing lies.
fn range_is_empty<T: Ord>(
    bounds: impl Iterator<Item = (usize, CompareOp, T)>,
) -> Option<Vec<usize>> {
    let bounds: Vec<_> = bounds.collect();
    for (place, op, value) in &bounds {
        for (other_place, other_op, other) in &bounds {
            let empty = match (op, other_op) {
                (CompareOp::Is, _) => !other_op.holds(value, other),
                (CompareOp::AtLeast, CompareOp::AtMost) => value > other,
                (CompareOp::AtLeast | CompareOp::Above, CompareOp::Below)
                | (CompareOp::Above, CompareOp::AtMost) => value >= other,
                _ => false,
            };
            if empty {
                return Some(vec![*place, *other_place]);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn found(texts: &[&str]) -> Option<Vec<usize>> {
        let constraints: Vec<Constraint> =
            texts.iter().map(|text| text.parse().expect(text)).collect();
        contradiction(&constraints).map(|clash| clash.places)
    }

    #[test]
    fn contradictions_are_found_and_named() {
        for (texts, places) in [
            (
                vec!["node.labels.a==1", "node.labels.b==1", "node.labels.a==2"],
                vec![0, 2],
            ),
            (vec!["node.labels.a==1", "node.labels.a!=1"], vec![0, 1]),
            (
                vec!["node.labels.a in (1,2)", "node.labels.a in (3)"],
                vec![0, 1],
            ),
            (
                vec![
                    "node.labels.a in (1,2)",
                    "node.labels.a in (2,3)",
                    "node.labels.a in (1,3)",
                ],
                vec![0, 1, 2],
            ),
            (
                vec!["node.labels.a in (1,2)", "node.labels.a not in (2,1)"],
                vec![0, 1],
            ),
            (
                vec!["node.labels.a exists", "node.labels.a !exists"],
                vec![0, 1],
            ),
            (
                vec!["node.labels.a==1", "node.labels.a !exists"],
                vec![0, 1],
            ),
            (vec!["node.labels.a !exists", "node.labels.a>1"], vec![0, 1]),
            (vec!["node.labels.a>5", "node.labels.a<3"], vec![0, 1]),
            (vec!["node.labels.a>=5", "node.labels.a<5"], vec![0, 1]),
            (vec!["node.labels.a>1g", "node.labels.a==1000"], vec![0, 1]),
            (vec!["node.labels.k version >=6,<5"], vec![0]),
            (
                vec!["node.labels.k version >=6", "node.labels.k version <=5.9"],
                vec![0, 1],
            ),
            (vec!["node.labels.k version ==6,!=6.0"], vec![0]),
            (
                vec!["node.labels.k==5.1", "node.labels.k version >=6"],
                vec![0, 1],
            ),
            (vec!["node.name==a", "node.hostname==b"], vec![0, 1]),
        ] {
            assert_eq!(found(&texts), Some(places), "{texts:?}");
        }
    }

    #[test]
    fn what_can_hold_together_is_let_be() {
        for texts in [
            vec![],
            vec!["node.labels.a==1", "node.labels.b==2", "node.labels.a==1"],
            vec!["node.labels.a in (1,2)", "node.labels.a!=1"],
            vec![
                "node.labels.a !exists",
                "node.labels.a!=1",
                "node.labels.a not in (2)",
            ],
            vec!["node.labels.a>=5", "node.labels.a<=5"],
            vec!["node.labels.a>5", "node.labels.a<5.1"],
            vec!["node.labels.k version >=5.10,<6.2,!=6"],
            vec!["node.labels.a==b", "node.attributes.a==c"],
        ] {
            assert_eq!(found(&texts), None, "{texts:?}");
        }
    }

    proptest! {
        /// No value may meet what is said to be a contradiction.
        #[test]
        fn prop_what_some_value_meets_is_no_contradiction(
            ops in prop::collection::vec((0usize..10, 0u8..4), 0..5),
        ) {
            let constraints: Vec<Constraint> = ops.iter().map(|&(op, n)| {
                let text = match op {
                    0 => format!("node.labels.a=={n}"),
                    1 => format!("node.labels.a!={n}"),
                    2 => format!("node.labels.a in ({n},{})", n + 1),
                    3 => format!("node.labels.a not in ({n},{})", n + 1),
                    4 => "node.labels.a exists".to_owned(),
                    5 => "node.labels.a !exists".to_owned(),
                    6 => format!("node.labels.a>{n}"),
                    7 => format!("node.labels.a<={n}"),
                    8 => format!("node.labels.a version >={n}"),
                    _ => format!("node.labels.a version <{n}"),
                };
                text.parse().expect("written right")
            }).collect();
            let meets = |value: Option<&str>| constraints.iter().all(|c| c.condition.holds(value));
            let values = (0u8..6).map(|n| n.to_string());
            let any = meets(None) || values.into_iter().any(|value| meets(Some(&value)));
            prop_assert!(!(any && contradiction(&constraints).is_some()));
        }
    }
}
