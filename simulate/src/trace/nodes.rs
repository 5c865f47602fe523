//! Lists of nodes.

use std::collections::BTreeMap;
use std::str::FromStr;

use ballast_model::{Bytes, MilliCpu};

use super::error::{Problem, TraceError};
use super::table::{Table, whole};

/// CPU of one node, in thousandths: 65,536 cores.
pub const CPU_MILLI_PER_NODE: u64 = 65_536_000;
/// Memory of one node, in MiB: 1 PiB.
pub const MEMORY_MIB_PER_NODE: u64 = 1 << 30;
/// GPUs of one node: as many devices as a node may have.
pub const GPUS_PER_NODE: u8 = 16;
/// Nodes of one fleet.
pub const NODES: u64 = 2_000_000;

/// One machine of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceNode {
    /// Its name (`sn`), unique in the list.
    pub name: String,
    /// Its CPU.
    pub cpu: MilliCpu,
    /// Its memory.
    pub memory: Bytes,
    /// How many GPUs it has.
    pub gpus: u8,
    /// What they are; empty without a GPU or where the list does not say.
    pub model: String,
}

/// Reads a list of nodes: columns `cpu_milli` and `memory_mib`, and where they are there `sn`
/// (its name), `gpu` (how many) and `model`. Other columns are left alone.
///
/// # Errors
/// What is wrong, with line and column.
pub fn read_nodes(bytes: &[u8]) -> Result<Vec<TraceNode>, TraceError> {
    let table = Table::open(bytes)?;
    let cpu = table.column("cpu_milli")?;
    let memory = table.column("memory_mib")?;
    let name = table.optional("sn");
    let gpu = table.optional("gpu");
    let model = table.optional("model");
    let mut names = BTreeMap::new();
    table.read(|number, row| {
        if number >= NODES {
            return Err(TraceError::TooManyRows(NODES));
        }
        let given = name.map(|column| row.text(column)).unwrap_or_default();
        let node = TraceNode {
            name: if given.is_empty() {
                format!("node-{number}")
            } else {
                given.to_owned()
            },
            cpu: milli_cpu(row.whole(cpu, CPU_MILLI_PER_NODE, "milli-cores")?),
            memory: Bytes::from_mib(row.whole(memory, MEMORY_MIB_PER_NODE, "MiB")?),
            gpus: match gpu {
                Some(column) => gpus(row.whole(column, GPUS_PER_NODE.into(), "GPUs on a node")?),
                None => 0,
            },
            model: model
                .map(|column| row.text(column))
                .unwrap_or_default()
                .to_owned(),
        };
        match (names.insert(node.name.clone(), row.line), name) {
            (Some(before), Some(column)) => Err(row.value(column, Problem::Twice(before))),
            _ => Ok(node),
        }
    })
}

/// A fleet of identical nodes: `uniform:COUNT:CPU_MILLI:MEMORY_MIB[:GPUS]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uniform {
    /// How many nodes.
    pub count: u64,
    /// CPU of each.
    pub cpu: MilliCpu,
    /// Memory of each.
    pub memory: Bytes,
    /// GPUs of each.
    pub gpus: u8,
}

/// Why a text is no uniform fleet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UniformError {
    /// Not the right number of parts.
    #[error("`{0}` is not `uniform:COUNT:CPU_MILLI:MEMORY_MIB[:GPUS]`")]
    Shape(String),
    /// One part is no such number.
    #[error("{part} of `{text}`: `{value}` {problem}")]
    Part {
        /// The whole.
        text: String,
        /// Which part.
        part: &'static str,
        /// What is there.
        value: String,
        /// What is wrong with it.
        problem: Problem,
    },
}

impl Uniform {
    /// Returns the nodes, named `node-0` and so on.
    pub fn nodes(&self) -> Vec<TraceNode> {
        let node = |number| TraceNode {
            name: format!("node-{number}"),
            cpu: self.cpu,
            memory: self.memory,
            gpus: self.gpus,
            model: String::new(),
        };
        (0..self.count).map(node).collect()
    }
}

impl FromStr for Uniform {
    type Err = UniformError;

    fn from_str(text: &str) -> Result<Self, UniformError> {
        let quoted: String = text.chars().take(80).collect();
        let shape = || UniformError::Shape(quoted.clone());
        let rest = text.strip_prefix("uniform:").ok_or_else(shape)?;
        let parts: Vec<&str> = rest.split(':').collect();
        let (count, cpu, memory, gpu) = match parts[..] {
            [count, cpu, memory] => (count, cpu, memory, "0"),
            [count, cpu, memory, gpus] => (count, cpu, memory, gpus),
            _ => return Err(shape()),
        };
        let part = |part, value: &str, least: u64, most, unit| {
            let number = whole(value, most, unit).and_then(|number| {
                if number < least {
                    Err(Problem::TooSmall(least))
                } else {
                    Ok(number)
                }
            });
            number.map_err(|problem| UniformError::Part {
                text: quoted.clone(),
                part,
                value: value.chars().take(64).collect(),
                problem,
            })
        };
        Ok(Self {
            count: part("COUNT", count, 1, NODES, "nodes")?,
            cpu: milli_cpu(part(
                "CPU_MILLI",
                cpu,
                0,
                CPU_MILLI_PER_NODE,
                "milli-cores",
            )?),
            memory: Bytes::from_mib(part("MEMORY_MIB", memory, 0, MEMORY_MIB_PER_NODE, "MiB")?),
            gpus: gpus(part(
                "GPUS",
                gpu,
                0,
                GPUS_PER_NODE.into(),
                "GPUs on a node",
            )?),
        })
    }
}

/// Converts a number that was read with [`CPU_MILLI_PER_NODE`] or less as its limit.
pub(super) fn milli_cpu(number: u64) -> MilliCpu {
    MilliCpu(u32::try_from(number).expect("below the limit it was read with"))
}

/// Converts a number that was read with [`GPUS_PER_NODE`] as its limit.
pub(super) fn gpus(number: u64) -> u8 {
    u8::try_from(number).expect("below the limit it was read with")
}
