//! Lists of tasks.

use ballast_model::{Bytes, MilliCpu, Millis};

use super::error::TraceError;
use super::nodes::{GPUS_PER_NODE, gpus, milli_cpu};
use super::table::{Row, Table};

/// CPU of one task, in thousandths: the most that a spec may ask for.
pub const CPU_MILLI_PER_TASK: u64 = ballast_model::limits::CPU_PER_TASK.0 as u64;
/// Memory of one task, in MiB: the most that a spec may ask for.
pub const MEMORY_MIB_PER_TASK: u64 = ballast_model::limits::MEMORY_PER_TASK.0 >> 20;
/// The last moment of a trace, in seconds: more than 3,000 years.
pub const LAST_SECOND: u64 = 100_000_000_000;
/// Models that one task may name.
const MODELS_PER_TASK: usize = 32;

/// One task of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceTask {
    /// Its name.
    pub name: String,
    /// The line of the file that it was read from, for messages.
    pub line: u64,
    /// What it wants.
    pub shape: Shape,
    /// When it arrives, since the trace began.
    pub created: Option<Millis>,
    /// When it ends; none runs to the end of the trace.
    pub deleted: Option<Millis>,
}

/// What a task wants: tasks of one shape are of one service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shape {
    /// CPU.
    pub cpu: MilliCpu,
    /// Memory.
    pub memory: Bytes,
    /// How many GPUs.
    pub gpus: u8,
    /// Thousandths of each; 1000 unless `gpus` is 1, 0 without a GPU.
    pub gpu_milli: u16,
    /// The models that will do, sorted, each once; any if empty.
    pub models: Vec<String>,
}

impl Shape {
    /// Returns thousandths of GPUs in all.
    pub fn gpu_total(&self) -> u64 {
        u64::from(self.gpus) * u64::from(self.gpu_milli)
    }
}

/// A list of tasks, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceTasks {
    /// The tasks.
    pub tasks: Vec<TraceTask>,
    /// Rows that arrive before the row above them. They are replayed in the order of their times.
    pub jumps: Jumps,
}

/// Times that go backwards from one row to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Jumps {
    /// How many rows.
    pub rows: u64,
    /// The farthest back.
    pub farthest: Millis,
    /// The line of the first one; 0 if there is none.
    pub first_line: u64,
}

/// Reads a list of tasks: columns `cpu_milli` and `memory_mib`, and where they are there `name`,
/// `num_gpu`, `gpu_milli` (thousandths of one GPU; 1000 if the column is absent), `gpu_spec`
/// (models, `A|B`), `creation_time` and `deletion_time` (seconds). Other columns are left alone.
///
/// # Errors
/// What is wrong, with line and column.
pub fn read_tasks(bytes: &[u8]) -> Result<TraceTasks, TraceError> {
    let table = Table::open(bytes)?;
    let cpu = table.column("cpu_milli")?;
    let memory = table.column("memory_mib")?;
    let name = table.optional("name");
    let num_gpu = table.optional("num_gpu");
    let gpu_milli = table.optional("gpu_milli");
    let gpu_spec = table.optional("gpu_spec");
    let creation = table.optional("creation_time");
    let deletion = table.optional("deletion_time");
    let mut jumps = Jumps::default();
    let mut last = Millis(0);
    let tasks = table.read(|number, row| {
        let count = match num_gpu {
            Some(column) => gpus(row.whole(column, GPUS_PER_NODE.into(), "GPUs of a task")?),
            None => 0,
        };
        let milli = match gpu_milli {
            Some(column) => row.whole(column, 1000, "thousandths of a GPU")?,
            None => 1000,
        };
        let moment = |column| match column {
            Some(column) => Ok(row.moment(column, LAST_SECOND)?.map(Millis)),
            None => Ok(None),
        };
        let created = moment(creation)?;
        let deleted = moment(deletion)?;
        if let (Some(created), Some(deleted)) = (created, deleted)
            && deleted < created
        {
            return Err(row.wrong(format!(
                "is deleted at {} s, before it is created at {} s",
                seconds(deleted),
                seconds(created)
            )));
        }
        if let Some(created) = created {
            jumps.note(last, created, row.line);
            last = created;
        }
        let given = name.map(|column| row.text(column)).unwrap_or_default();
        Ok(TraceTask {
            name: if given.is_empty() {
                format!("task-{number}")
            } else {
                given.to_owned()
            },
            line: row.line,
            shape: Shape {
                cpu: milli_cpu(row.whole(cpu, CPU_MILLI_PER_TASK, "milli-cores")?),
                memory: Bytes::from_mib(row.whole(memory, MEMORY_MIB_PER_TASK, "MiB")?),
                gpus: count,
                gpu_milli: share(row, count, milli)?,
                models: match gpu_spec {
                    Some(column) => models(row, row.text(column))?,
                    None => Vec::new(),
                },
            },
            created,
            deleted,
        })
    })?;
    Ok(TraceTasks { tasks, jumps })
}

impl Jumps {
    fn note(&mut self, last: Millis, now: Millis, line: u64) {
        if now < last {
            if self.rows == 0 {
                self.first_line = line;
            }
            self.rows += 1;
            self.farthest = self.farthest.max(Millis(last.0 - now.0));
        }
    }
}

/// Returns thousandths of each GPU.
fn share(row: &Row<'_>, count: u8, milli: u64) -> Result<u16, TraceError> {
    let milli = u16::try_from(milli).expect("read with 1000 as its limit");
    match (count, milli) {
        (0, _) => Ok(0),
        (_, 0) => Err(row.wrong(format!(
            "asks for {count} GPUs and 0 thousandths of each: `gpu_milli` is 1 to 1000"
        ))),
        (1, _) | (_, 1000) => Ok(milli),
        _ => Err(row.wrong(format!(
            "asks for {milli} thousandths of each of {count} GPUs: a part can be asked of one only"
        ))),
    }
}

fn models(row: &Row<'_>, text: &str) -> Result<Vec<String>, TraceError> {
    let mut models: Vec<String> = text
        .split('|')
        .map(str::trim)
        .filter(|model| !model.is_empty())
        .map(str::to_owned)
        .collect();
    models.sort_unstable();
    models.dedup();
    if models.len() > MODELS_PER_TASK {
        return Err(row.wrong(format!("names more than {MODELS_PER_TASK} models of GPU")));
    }
    Ok(models)
}

fn seconds(time: Millis) -> String {
    let (whole, part) = (time.0 / 1000, time.0 % 1000);
    if part == 0 {
        whole.to_string()
    } else {
        format!("{whole}.{part:03}")
    }
}
