//! `ballast node …`

use ballast_model::{Taint, Toleration};
use clap::{Args, Subcommand, ValueEnum};

use super::KeyValue;

/// What to do with nodes.
#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// Lists nodes
    Ls,
    /// Shows one node
    Inspect {
        /// Name or id
        node: String,
    },
    /// Moves a node's tasks away and places no new ones there
    Drain {
        /// Name or id
        node: String,
        /// Only shows where its tasks would go, and which would find no node
        #[arg(long)]
        dry_run: bool,
    },
    /// Takes a node back into use
    Activate {
        /// Name or id
        node: String,
    },
    /// Places no new tasks on a node; those it has stay
    Pause {
        /// Name or id
        node: String,
    },
    /// Changes a node's labels and taints
    Update(NodeUpdate),
    /// Forgets a node that is down; its certificate is worth nothing afterwards
    Rm {
        /// Name or id
        node: String,
    },
    /// Shows the token with which an agent or an ingress joins
    JoinToken {
        /// For which role
        #[arg(value_enum)]
        role: JoinRoleArg,
        /// Makes a new token; the old one is worth nothing afterwards
        #[arg(long)]
        rotate: bool,
    },
}

/// Of `node update`.
#[derive(Debug, Args)]
pub struct NodeUpdate {
    /// Name or id
    pub node: String,
    /// Sets a label
    #[arg(
        long = "label",
        value_name = "KEY=VALUE",
        required_unless_present_any = ["label_rm", "taints", "untaint"]
    )]
    pub labels: Vec<KeyValue>,
    /// Removes a label
    #[arg(long, value_name = "KEY")]
    pub label_rm: Vec<String>,
    /// Puts a taint on: NoSchedule, PreferNoSchedule or NoExecute for tasks that do not bear it
    #[arg(long = "taint", value_name = "KEY[=VALUE]:EFFECT")]
    pub taints: Vec<Taint>,
    /// Takes taints off; `*` takes all
    #[arg(long, value_name = "KEY[=VALUE][:EFFECT]")]
    pub untaint: Vec<Toleration>,
}

/// What may join.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum JoinRoleArg {
    /// A node.
    Agent,
    /// An ingress.
    Ingress,
}

impl JoinRoleArg {
    /// Returns the role as the API names it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Ingress => "ingress",
        }
    }
}
