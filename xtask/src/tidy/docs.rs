//! Documents that must keep up with the code.

use std::collections::BTreeSet;

use crate::tidy::Source;

/// Files that a repository of ours has.
const REQUIRED: &[&str] = &[
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "LICENSE",
    "deny.toml",
    "docs/nomenclature.md",
];
const INVARIANT: &str = "**Invariant:**";
/// Stands before the names of the tests that hold an invariant.
const HELD_BY: &str = "Held by";

pub fn check(sources: &[Source], members: &[String]) -> Vec<String> {
    let mut complaints: Vec<String> = REQUIRED
        .iter()
        .filter(|path| !sources.iter().any(|source| source.path == **path))
        .map(|path| format!("{path}: is missing"))
        .collect();
    let Some(architecture) = sources
        .iter()
        .find(|source| source.path == "ARCHITECTURE.md")
    else {
        return complaints;
    };
    for member in members {
        if !architecture.text.contains(&format!("`{member}/`")) {
            complaints.push(format!("ARCHITECTURE.md: does not mention `{member}/`"));
        }
    }
    complaints.extend(invariants(&architecture.text, &functions(sources)));
    complaints
}

/// Returns the name of every function in the code.
fn functions(sources: &[Source]) -> BTreeSet<&str> {
    sources
        .iter()
        .filter(|source| source.is_rust())
        .flat_map(|source| source.text.lines())
        .filter_map(|line| line.split_once("fn "))
        .map(|(_, rest)| {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
            &rest[..end.unwrap_or(rest.len())]
        })
        .collect()
}

/// Complains of each invariant that names no test, or one that does not exist.
fn invariants(text: &str, functions: &BTreeSet<&str>) -> Vec<String> {
    let mut complaints = Vec::new();
    for paragraph in text
        .split("\n\n")
        .flat_map(|block| block.split(INVARIANT).skip(1))
    {
        let what: String = paragraph.trim().chars().take(50).collect();
        let Some((_, held_by)) = paragraph.split_once(HELD_BY) else {
            complaints.push(format!(
                "ARCHITECTURE.md: no `{HELD_BY} …` in the invariant “{what}…”"
            ));
            continue;
        };
        let names: Vec<&str> = held_by.split('`').skip(1).step_by(2).collect();
        if names.is_empty() {
            complaints.push(format!(
                "ARCHITECTURE.md: the invariant “{what}…” names no test"
            ));
        }
        for name in names {
            let last = name.rsplit("::").next().unwrap_or(name);
            if !functions.contains(last) {
                complaints.push(format!("ARCHITECTURE.md: there is no test `{name}`"));
            }
        }
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invariant_must_name_a_test_that_exists() {
        let functions = BTreeSet::from(["apply_is_pure"]);
        let check = |text: &str| invariants(text, &functions).len();
        assert_eq!(
            check("x\n\n**Invariant:** pure.\nHeld by `manager::apply_is_pure`.\n"),
            0
        );
        assert_eq!(check("**Invariant:** pure. Held by `gone`."), 1);
        assert_eq!(check("**Invariant:** pure."), 1);
        assert_eq!(
            check("**Invariant:** a. Held by `gone`.\n**Invariant:** b. Held by nothing."),
            2
        );
    }
}
