//! What compilers do not check: layers, sizes, documents.
//!
//! Each check returns its complaints as `path: reason`; all are shown before it fails.

mod docs;
mod files;
mod layers;

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use cargo_metadata::{Metadata, MetadataCommand};

use crate::{ebpf, readme, shell};

/// A file of the repository.
pub(crate) struct Source {
    /// Relative to the root.
    pub path: String,
    /// Its text; empty of a file that is not UTF-8.
    pub text: String,
}

impl Source {
    /// Returns whether it is Rust code.
    fn is_rust(&self) -> bool {
        Path::new(&self.path)
            .extension()
            .is_some_and(|extension| extension == "rs")
    }
}

/// Runs every check.
///
/// # Errors
/// Counts the complaints, which are printed.
pub fn run() -> anyhow::Result<()> {
    let metadata: Metadata = MetadataCommand::new()
        .current_dir(shell::root())
        .no_deps()
        .exec()
        .context("cannot read the workspace")?;
    let sources = sources()?;
    let mut complaints = layers::check(&metadata);
    complaints.extend(files::check(&sources));
    complaints.extend(docs::check(&sources, &members(&metadata)));
    complaints.extend(ebpf::complaints());
    complaints.extend(readme::check());
    for complaint in &complaints {
        eprintln!("    {complaint}");
    }
    ensure!(complaints.is_empty(), "{} complaints", complaints.len());
    eprintln!(
        "    {} files, {} crates: tidy",
        sources.len(),
        metadata.packages.len()
    );
    Ok(())
}

/// Returns the folder of each crate, relative to the root.
fn members(metadata: &Metadata) -> Vec<String> {
    metadata
        .packages
        .iter()
        .filter_map(|package| {
            let folder = package.manifest_path.parent()?;
            Some(
                folder
                    .strip_prefix(&metadata.workspace_root)
                    .ok()?
                    .to_string(),
            )
        })
        .collect()
}

/// Returns every file that is in the repository or about to be.
fn sources() -> anyhow::Result<Vec<Source>> {
    let list = shell::output(shell::command("git").args([
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
    ]))?;
    let root = shell::root();
    let mut paths: Vec<&str> = list.lines().collect();
    paths.sort_unstable();
    paths.dedup();
    Ok(paths
        .into_iter()
        .map(|path| (path, root.join(path)))
        .filter(|(_, full): &(&str, PathBuf)| full.is_file())
        .map(|(path, full)| Source {
            path: path.to_owned(),
            text: std::fs::read_to_string(full).unwrap_or_default(),
        })
        .collect())
}
