//! Which crate may know which.

use cargo_metadata::{DependencyKind, Metadata, Package};

/// The only normal and build edges between our crates; dev-dependencies are free.
const LAYERS: &[(&str, &[&str])] = &[
    ("ballast-model", &[]),
    ("ballast-wire", &["ballast-model"]),
    ("ballast-link", &["ballast-model", "ballast-wire"]),
    ("ballast-scheduler", &["ballast-model"]),
    ("ballast-simulate", &["ballast-model", "ballast-scheduler"]),
    ("ballast-probe", &["ballast-model"]),
    ("ballast-http1", &[]),
    ("ballast-ring", &[]),
    ("ballast-test-ports", &[]),
    ("ballast-ebpf-common", &[]),
    ("ballast-ebpf-loader", &["ballast-ebpf-common"]),
    (
        "ballast-ebpf-packets",
        &["ballast-ebpf-common", "ballast-ebpf-loader"],
    ),
    (
        "ballast-agent",
        &[
            "ballast-model",
            "ballast-wire",
            "ballast-link",
            "ballast-probe",
            "ballast-ebpf-common",
            "ballast-ebpf-loader",
        ],
    ),
    (
        "ballast-lb",
        &[
            "ballast-model",
            "ballast-wire",
            "ballast-link",
            "ballast-probe",
            "ballast-http1",
            "ballast-ring",
            "ballast-ebpf-common",
            "ballast-ebpf-loader",
        ],
    ),
    (
        "ballast-manager",
        &[
            "ballast-model",
            "ballast-wire",
            "ballast-link",
            "ballast-scheduler",
        ],
    ),
    (
        "ballast-cli",
        &[
            "ballast-model",
            "ballast-wire",
            "ballast-link",
            "ballast-scheduler",
            "ballast-simulate",
            "ballast-manager",
            "ballast-agent",
            "ballast-lb",
        ],
    ),
    ("ballast-loadgen", &["ballast-ring"]),
    (
        "ballast-bench",
        &[
            "ballast-model",
            "ballast-scheduler",
            "ballast-simulate",
            "ballast-loadgen",
            "ballast-ring",
            "ballast-test-ports",
            "ballast-ebpf-common",
            "ballast-ebpf-loader",
            "ballast-ebpf-packets",
        ],
    ),
    (
        "ballast-tests",
        &[
            "ballast-model",
            "ballast-wire",
            "ballast-link",
            "ballast-scheduler",
            "ballast-probe",
            "ballast-agent",
            "ballast-lb",
            "ballast-manager",
            "ballast-ring",
            "ballast-loadgen",
            "ballast-bench",
            "ballast-test-ports",
            "ballast-ebpf-common",
            "ballast-ebpf-loader",
            "ballast-ebpf-packets",
        ],
    ),
    ("ballast-hello", &[]),
    ("xtask", &[]),
];

/// Crates of which nothing may be known: no async, no network, no files.
const PURE: &[&str] = &["ballast-model", "ballast-scheduler"];
/// What brings those in.
const IMPURE: &[&str] = &[
    "tokio",
    "mio",
    "hyper",
    "axum",
    "pingora",
    "rustls",
    "rustix",
    "libc",
    "nix",
    "socket2",
    "tempfile",
    "async-trait",
];

pub fn check(metadata: &Metadata) -> Vec<String> {
    metadata.packages.iter().flat_map(edges).collect()
}

fn edges(package: &Package) -> Vec<String> {
    let name = package.name.as_str();
    let Some((_, allowed)) = LAYERS.iter().find(|(layer, _)| *layer == name) else {
        return vec![format!(
            "{}: `{name}` has no row in the table of layers (xtask/src/tidy/layers.rs)",
            package.manifest_path
        )];
    };
    package
        .dependencies
        .iter()
        .filter(|edge| edge.kind != DependencyKind::Development)
        .filter_map(|edge| {
            let to = edge.name.as_str();
            let ours = edge.path.is_some();
            if ours && !allowed.contains(&to) {
                Some(format!("{name}/Cargo.toml: `{name}` must not know `{to}`"))
            } else if PURE.contains(&name) && IMPURE.contains(&to) {
                Some(format!(
                    "{name}/Cargo.toml: `{name}` is pure and must not use `{to}`"
                ))
            } else {
                None
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_has_no_cycle() {
        // Each row may name only rows above it.
        for (index, (name, allowed)) in LAYERS.iter().enumerate() {
            for below in *allowed {
                let position = LAYERS.iter().position(|(layer, _)| layer == below);
                let fine = position.is_some_and(|position| position < index)
                    // The tests may know any.
                    || *name == "ballast-tests";
                assert!(fine, "{name} → {below}");
            }
        }
    }
}
