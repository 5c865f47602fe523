//! What a file must not hold.

use crate::tidy::Source;

/// Lines past which a Rust file owes a reason.
const LINES: usize = 800;
/// The header line that gives it.
const REASON: &str = "//! Size:";
/// Lines of a file's header in which it is looked for.
const HEADER_LINES: usize = 60;

/// The crates that lend memory to the kernel or read its own. Cargo takes a workspace's lints whole
/// or not at all, so their own tables repeat them, but for the one that forbids `unsafe`.
const UNSAFE: &[&str] = &[
    "ring/Cargo.toml",
    "ebpf/common/Cargo.toml",
    "ebpf/loader/Cargo.toml",
    "ebpf/packets/Cargo.toml",
];
/// A crate for another target, outside the workspace.
const FOREIGN: &str = "ebpf/xdp/Cargo.toml";
/// What their tables say instead.
const UNSAFE_LINTS: [&str; 3] = [
    "unsafe_code = \"allow\"",
    "unsafe_op_in_unsafe_fn = \"deny\"",
    "undocumented_unsafe_blocks = \"deny\"",
];

pub fn check(sources: &[Source]) -> Vec<String> {
    let mut complaints: Vec<String> = sources.iter().flat_map(complaints).collect();
    let text = |path: &str| {
        let source = sources.iter().find(|source| source.path == path);
        source.map(|source| source.text.as_str())
    };
    for path in UNSAFE {
        let Some(member) = text(path) else { continue };
        let missing = missing_lints(text("Cargo.toml").unwrap_or_default(), member);
        complaints.extend(missing.map(|line| format!("{path}: `{line}` is missing in its lints")));
    }
    complaints
}

/// Returns which lints of the workspace, but for the ban of `unsafe`, `member` does not repeat.
fn missing_lints<'a>(workspace: &'a str, member: &'a str) -> impl Iterator<Item = &'a str> {
    let lints = workspace
        .lines()
        .skip_while(|line| !line.starts_with("[workspace.lints."))
        .take_while(|line| !line.starts_with("[workspace.dependencies]"))
        .filter(|line| line.contains(" = ") && !line.starts_with("unsafe_code"));
    let wanted = lints.chain(UNSAFE_LINTS);
    wanted.filter(|wanted| !member.lines().any(|line| line == *wanted))
}

fn complaints(source: &Source) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut complain = |reason: String| complaints.push(format!("{}: {reason}", source.path));
    let rust = source.is_rust();
    let lines = source.text.lines().count();
    let excused = || {
        let mut header = source.text.lines().take(HEADER_LINES);
        header.any(|line| line.starts_with(REASON))
    };
    if rust && lines > LINES && !excused() {
        complain(format!(
            "{lines} lines; past {LINES} a `{REASON} …` line says why"
        ));
    }
    for (index, line) in source.text.lines().enumerate() {
        let number = index + 1;
        // Composed, so that this file passes its own check.
        if rust && line.trim_start().starts_with(concat!("#[ig", "nore")) {
            complain(format!(
                "line {number}: tests are not ignored; say SKIP and why"
            ));
        }
        if let Some(path) = machine_path(line) {
            complain(format!("line {number}: `{path}` is a path of one machine"));
        }
    }
    if source.path.ends_with("Cargo.toml") && source.path != "Cargo.toml" {
        let compact: String = source.text.split_whitespace().collect();
        // A workspace of its own (`fuzz/`) cannot take over the lints of this one.
        let own = compact.contains("[workspace]");
        let path = source.path.as_str();
        let excepted = UNSAFE.contains(&path) || path == FOREIGN;
        if !own && !excepted && !compact.contains("[lints]workspace=true") {
            complain("`[lints] workspace = true` is missing".to_owned());
        }
    }
    complaints
}

/// Returns the folder of somebody's own machine that `line` names, if it does.
fn machine_path(line: &str) -> Option<&'static str> {
    const PREFIXES: &[&str] = &[
        concat!("/wo", "rk/"),
        concat!("/ro", "ot/"),
        concat!("/Us", "ers/"),
    ];
    PREFIXES
        .iter()
        .find(|prefix| {
            line.match_indices(**prefix)
                // Only at the start of a path: `target/work/x` is fine.
                .any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '.'))
        })
        .copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str, text: impl Into<String>) -> Source {
        Source {
            path: path.to_owned(),
            text: text.into(),
        }
    }

    #[test]
    fn long_file_needs_a_reason_in_its_header() {
        let long = "\n".repeat(LINES + 1);
        assert_eq!(complaints(&source("a.rs", long.clone())).len(), 1);
        assert_eq!(
            complaints(&source("a.rs", format!("//! X\n{REASON} tables{long}"))).len(),
            0
        );
        assert_eq!(complaints(&source("a.md", long)).len(), 0);
    }

    #[test]
    fn ignored_tests_machine_paths_and_missing_lints_are_found() {
        let ignored = format!("#[test]\n    #[{}]\nfn x() {{}}", "ignore");
        assert_eq!(complaints(&source("a.rs", ignored)).len(), 1);
        let path = format!("see /{}/x", "work");
        assert_eq!(complaints(&source("a.md", path)).len(), 1);
        assert_eq!(complaints(&source("a.md", "target/work/x")).len(), 0);
        assert_eq!(complaints(&source("a/Cargo.toml", "[package]")).len(), 1);
        let lints = "[package]\n[lints]\nworkspace = true\n";
        assert_eq!(complaints(&source("a/Cargo.toml", lints)).len(), 0);
    }

    #[test]
    fn crate_with_unsafe_repeats_all_other_lints() {
        let workspace = "x = 1\n[workspace.lints.rust]\nunsafe_code = \"forbid\"\na = \"deny\"\n\
                         [workspace.lints.clippy]\nb = \"warn\"\n[workspace.dependencies]\nc = 1\n";
        let member = format!("a = \"deny\"\nb = \"warn\"\n{}", UNSAFE_LINTS.join("\n"));
        assert_eq!(missing_lints(workspace, &member).count(), 0);
        let member = member.replace("b = ", "b=");
        let missing: Vec<&str> = missing_lints(workspace, &member).collect();
        assert_eq!(missing, ["b = \"warn\""]);
    }
}
