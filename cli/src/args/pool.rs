//! `ballast pool …`

use ballast_model::{Bytes, MilliCpu};
use clap::{Args, Subcommand};

/// What to do with pools.
#[derive(Debug, Subcommand)]
pub enum PoolCommand {
    /// Lists the pools that were set; all others offer what their nodes have
    Ls,
    /// Sets how much of its nodes a pool lets be placed; what is not given stays
    Set(PoolSet),
    /// Lets all that a pool's nodes have be placed again
    Rm {
        /// Its name
        name: String,
    },
}

/// Of `pool set`.
#[derive(Debug, Args)]
pub struct PoolSet {
    /// Its name; nodes join it by their agent's --pool
    pub name: String,
    /// CPU that is promised, in percent of what is left after the reservation
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub overcommit_cpu: Option<u32>,
    /// Memory that is promised, in percent of what is left after the reservation
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub overcommit_memory: Option<u32>,
    /// CPU of each node that is never promised
    #[arg(long, value_name = "CORES")]
    pub reserve_cpu: Option<MilliCpu>,
    /// Memory of each node that is never promised
    #[arg(long, value_name = "SIZE")]
    pub reserve_memory: Option<Bytes>,
}

/// Reads `150` or `150%`.
fn percent(text: &str) -> Result<u32, String> {
    let number = text.strip_suffix('%').unwrap_or(text);
    let read = number.trim().parse();
    read.map_err(|_| format!("`{text:.32}` is not a percentage, such as `150` or `150%`"))
}
