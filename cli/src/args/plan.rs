//! `ballast plan …`

use clap::{Args, Subcommand};

use super::{CreateArgs, ScaleArgs, UpdateArgs};

/// Of `plan`.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Exit status: 0 every task would find a node, 1 some would not or the plan was refused, 2 usage."
)]
pub struct PlanArgs {
    /// The Compose file; `-` reads standard input
    #[arg(
        long = "compose-file",
        short,
        value_name = "FILE",
        required_unless_present = "drain",
        conflicts_with = "drain"
    )]
    pub compose_file: Option<String>,
    /// The stack's name; the file's if not given
    #[arg(requires = "compose_file")]
    pub stack: Option<String>,
    /// Shows where the tasks of a node would go if it were drained
    #[arg(long, value_name = "NODE")]
    pub drain: Option<String>,
    /// What would be done
    #[command(subcommand)]
    pub command: Option<PlanCommand>,
}

/// Of `rebalance`.
#[derive(Debug, Args)]
pub struct RebalanceArgs {
    /// Empties whole nodes and devices, as many as few moves can, instead of evening out services that spread
    #[arg(long)]
    pub defragment: bool,
    /// Only shows what would move
    #[arg(long)]
    pub dry_run: bool,
}

/// What would be done.
#[derive(Debug, Subcommand)]
pub enum PlanCommand {
    /// Shows what a `ballast service …` command would do
    #[command(subcommand)]
    Service(PlanServiceCommand),
}

/// Which command.
#[derive(Debug, Subcommand)]
pub enum PlanServiceCommand {
    /// Creates a service
    Create(Box<CreateArgs>),
    /// Changes a service
    Update(Box<UpdateArgs>),
    /// Changes the number of replicas of one service
    Scale(ScaleArgs),
    /// Removes a service
    Rm {
        /// The service
        name: String,
    },
}
