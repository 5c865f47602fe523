//! Refuses an object that was not built from the sources beside it.

mod fingerprint;

use std::path::Path;
use std::{env, fs};

fn main() {
    let loader = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    let loader = Path::new(&loader);
    let ebpf = loader.parent().unwrap_or(loader);
    for watched in [
        "common/src",
        "common/Cargo.toml",
        "xdp/src",
        "xdp/Cargo.toml",
        "xdp/Cargo.lock",
    ] {
        println!("cargo:rerun-if-changed={}", ebpf.join(watched).display());
    }
    for watched in [
        fingerprint::OBJECT,
        fingerprint::RECORD,
        "fingerprint.rs",
        "build.rs",
    ] {
        println!("cargo:rerun-if-changed={}", loader.join(watched).display());
    }
    let record = fs::read_to_string(loader.join(fingerprint::RECORD)).unwrap_or_default();
    let sources = fingerprint::of_sources(ebpf).unwrap_or_default();
    let object = fs::read(loader.join(fingerprint::OBJECT)).unwrap_or_default();
    let object = fingerprint::of_bytes(&object);
    for (key, now) in [("sources", sources), ("object", object)] {
        let recorded = fingerprint::recorded(&record, key);
        assert!(
            recorded == Some(now.as_str()),
            "ebpf/loader/{} was made with other {key}: `cargo xtask ebpf` makes it anew",
            fingerprint::OBJECT,
        );
    }
}
