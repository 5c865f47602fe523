//! Traces: lists of nodes and tasks, read by the names of their columns.
//!
//! What a list says is taken as it is or refused with its line and column; nothing is guessed.
//! Times that go backwards from row to row are no error: they are counted ([`Jumps`]), and a
//! replay goes by the times.

mod error;
mod generate;
mod nodes;
mod table;
mod tasks;

/// The folder of the traces that are kept with this crate, for tests and benches.
pub const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/traces");

pub use error::{Problem, TraceError};
pub use generate::{Generated, GeneratedError};
pub use nodes::{
    CPU_MILLI_PER_NODE, GPUS_PER_NODE, MEMORY_MIB_PER_NODE, NODES, TraceNode, Uniform,
    UniformError, read_nodes,
};
pub use table::ROWS;
pub(crate) use table::{Column, Row, Table};
pub use tasks::{
    CPU_MILLI_PER_TASK, Jumps, LAST_SECOND, MEMORY_MIB_PER_TASK, Shape, TraceTask, TraceTasks,
    read_tasks,
};
