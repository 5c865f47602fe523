//! A single member on a real file, for the tests of other modules.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::{Consensus, Leadership};
use crate::data_dir::DataDir;
use crate::metrics::Metrics;

/// A member that leads, and its folder.
pub struct Single {
    /// The member.
    pub consensus: Consensus,
    /// Held as long as it runs.
    pub dir: DataDir,
}

/// Starts a member and waits until it leads.
pub async fn single(path: &Path) -> Single {
    let dir = DataDir::open(path).expect("opens");
    let trust = Arc::new(OnceLock::new());
    let consensus = Consensus::start(&dir, "127.0.0.1:1", trust, Metrics::new())
        .await
        .expect("starts");
    let mut leadership = consensus.leadership();
    let leads = leadership.wait_for(|l| matches!(l, Leadership::Leading { .. }));
    tokio::time::timeout(Duration::from_secs(10), leads)
        .await
        .expect("leads in time")
        .expect("runs");
    Single { consensus, dir }
}
