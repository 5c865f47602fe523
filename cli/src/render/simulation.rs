//! The table of `simulate`.

use ballast_simulate::{GpuAllocated, Report, Run};
use comfy_table::Cell;

use super::Style;
use super::style::Tone;
use super::tables::{finish, table};

/// Runs up to this many are shown one by one; of more only the mean.
const SHOWN_RUNS: usize = 20;

/// One row: a run, or the mean over all.
struct Row {
    name: String,
    placed: f64,
    unplaced: f64,
    used_mean: f64,
    used_peak: f64,
    cpu: f64,
    memory: f64,
    gpu: Option<GpuAllocated>,
    moved: f64,
    bounds: Option<(f64, f64)>,
}

impl Row {
    fn of_run(run: &Run) -> Self {
        Self {
            name: format!("seed {}", run.seed),
            placed: run.placed as f64,
            unplaced: run.unplaced as f64,
            used_mean: run.nodes_used_mean,
            used_peak: run.nodes_used_peak as f64,
            cpu: run.cpu_allocated_percent,
            memory: run.memory_allocated_percent,
            gpu: run.gpu_allocated_percent,
            moved: run.moved as f64,
            bounds: run.nodes_to_volume_bound.zip(run.nodes_to_whole_bound),
        }
    }

    fn of_mean(report: &Report) -> Self {
        let mean = &report.mean;
        Self {
            name: "mean".to_owned(),
            placed: mean.placed,
            unplaced: mean.unplaced,
            used_mean: mean.nodes_used_mean,
            used_peak: mean.nodes_used_peak,
            cpu: mean.cpu_allocated_percent,
            memory: mean.memory_allocated_percent,
            gpu: mean.gpu_allocated_percent,
            moved: mean.moved,
            bounds: mean.nodes_to_volume_bound.zip(mean.nodes_to_whole_bound),
        }
    }
}

/// Returns the table of `simulate`, and a line of what is true of all runs.
pub fn simulation(report: &Report, style: Style) -> String {
    let mut rows: Vec<Row> = Vec::new();
    if report.runs.len() > 1 && report.runs.len() <= SHOWN_RUNS {
        rows.extend(report.runs.iter().map(Row::of_run));
    }
    rows.push(Row::of_mean(report));
    let replay = report.protocol == "replay";
    let has_gpus = rows.iter().any(|row| row.gpu.is_some());
    let mut header = vec![
        "RUN",
        "PLACED",
        "UNPLACED",
        "NODES USED",
        "PEAK",
        "CPU",
        "MEMORY",
    ];
    if has_gpus {
        header.push("GPU");
        if !replay {
            header.extend(["GPU AT 100", "GPU AT 130"]);
        }
    }
    if replay {
        header.extend(["MOVED", "NODES ÷ BOUND", "÷ WHOLE NODES"]);
    }
    let mut table = table(&header, style);
    for row in rows {
        table.add_row(cells(&row, has_gpus, replay, style));
    }
    let summary = format!(
        "policy {}, protocol {}: {} tasks, {} nodes; {} decisions/s",
        report.policy,
        report.protocol,
        report.tasks,
        report.nodes,
        rounded(report.placements_per_second)
    );
    format!("{}\n\n{summary}", finish(&table))
}

fn cells(row: &Row, has_gpus: bool, replay: bool, style: Style) -> Vec<Cell> {
    let percent = |value: f64| Cell::new(format!("{value:.1} %"));
    let maybe = |value: Option<f64>| value.map_or_else(|| Cell::new("-"), percent);
    let ratio = |value: Option<f64>| {
        Cell::new(value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}")))
    };
    let tone = if row.unplaced > 0.0 {
        Tone::Warn
    } else {
        Tone::Plain
    };
    let mut cells = vec![
        Cell::new(&row.name),
        Cell::new(rounded(row.placed)),
        style.cell(rounded(row.unplaced), tone),
        Cell::new(format!("{:.1}", row.used_mean)),
        Cell::new(rounded(row.used_peak)),
        percent(row.cpu),
        percent(row.memory),
    ];
    if has_gpus {
        cells.push(maybe(row.gpu.map(|gpu| gpu.overall)));
        if !replay {
            cells.push(maybe(row.gpu.and_then(|gpu| gpu.at_100)));
            cells.push(maybe(row.gpu.and_then(|gpu| gpu.at_130)));
        }
    }
    if replay {
        cells.push(Cell::new(rounded(row.moved)));
        cells.push(ratio(row.bounds.map(|(volume, _)| volume)));
        cells.push(ratio(row.bounds.map(|(_, whole)| whole)));
    }
    cells
}

/// Returns a count or a mean of counts: whole if it is, else with one digit.
fn rounded(value: f64) -> String {
    if value >= 1000.0 || value.fract() == 0.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.1}")
    }
}
