//! Tables. Each is a pure function of what the API answered and of the time.

use ballast_model::view::{NodeView, Replicas, ServiceView, StackView, TaskView, UpdateView};
use ballast_model::{
    Availability, Bytes, Event, Health, MilliCpu, Mode, NodeStatus, Pool, TaskState, Timestamp,
};
use comfy_table::{Cell, ContentArrangement, Table};

use super::Style;
use super::style::Tone;

/// Returns the table of `service ls`.
pub fn services(list: &[ServiceView], style: Style) -> String {
    let mut table = table(
        &["NAME", "MODE", "REPLICAS", "PORTS", "UPDATE", "COMMAND"],
        style,
    );
    for service in list {
        table.add_row(vec![
            Cell::new(&service.name),
            Cell::new(match service.spec.mode {
                Mode::Replicated { .. } => "replicated",
                Mode::Global {} => "global",
                Mode::Job { .. } => "job",
            }),
            replicas(service, style),
            Cell::new(ports(service)),
            match service.update {
                UpdateView::Completed => style.cell("-".to_owned(), Tone::Dim),
                UpdateView::Updating => style.cell("updating".to_owned(), Tone::Warn),
                UpdateView::Paused => style.cell("paused".to_owned(), Tone::Bad),
            },
            Cell::new(shorten(&service.spec.task.command.join(" "), 48)),
        ]);
    }
    finish(&table)
}

fn replicas(service: &ServiceView, style: Style) -> Cell {
    let Replicas {
        desired,
        healthy,
        complete,
        ..
    } = service.replicas;
    let (done, word) = match service.spec.mode {
        Mode::Job { .. } => (complete, " complete"),
        _ => (healthy, ""),
    };
    let tone = match (done >= desired, done) {
        (true, _) => Tone::Good,
        (false, 0) => Tone::Bad,
        (false, _) => Tone::Warn,
    };
    style.cell(format!("{done}/{desired}{word}"), tone)
}

fn ports(service: &ServiceView) -> String {
    let list: Vec<String> = service
        .spec
        .ports
        .iter()
        .map(|port| match port.published {
            Some(published) => format!("{published}:{}/{}", port.name, port.protocol),
            None => format!("{}/{}", port.name, port.protocol),
        })
        .collect();
    if list.is_empty() {
        "-".to_owned()
    } else {
        list.join(" ")
    }
}

/// Returns the table of `service ps` and `stack ps`.
pub fn tasks(list: &[TaskView], now: Timestamp, style: Style) -> String {
    let header = [
        "TASK", "NAME", "NODE", "STATE", "HEALTH", "ADDRESS", "PID", "RESTARTS", "SINCE", "MESSAGE",
    ];
    let mut table = table(&header, style);
    for task in list {
        let dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        table.add_row(vec![
            Cell::new(task.id),
            Cell::new(format!("{}.{}", task.service, task.slot)),
            Cell::new(dash(task.node.clone())),
            style.cell(task.state.to_string(), state_tone(task.state)),
            style.cell(task.health.to_string(), health_tone(task)),
            Cell::new(dash(task.address.clone())),
            Cell::new(dash(task.pid.map(|pid| pid.to_string()))),
            Cell::new(task.restarts),
            Cell::new(age(task.since, now)),
            Cell::new(&task.message),
        ]);
    }
    finish(&table)
}

const fn state_tone(state: TaskState) -> Tone {
    match state {
        TaskState::Running | TaskState::Complete => Tone::Good,
        TaskState::Failed | TaskState::Rejected | TaskState::Lost => Tone::Bad,
        TaskState::Shutdown => Tone::Dim,
        _ => Tone::Warn,
    }
}

const fn health_tone(task: &TaskView) -> Tone {
    match (task.state.is_terminal(), task.health) {
        (true, _) => Tone::Dim,
        (false, Health::Healthy) => Tone::Good,
        (false, Health::Unhealthy) => Tone::Bad,
        (false, Health::Unknown | Health::Draining) => Tone::Warn,
    }
}

/// Returns the table of `node ls`.
pub fn nodes(list: &[NodeView], style: Style) -> String {
    let header = [
        "ID",
        "NAME",
        "STATUS",
        "AVAILABILITY",
        "ADDRESS",
        "CPU",
        "MEMORY",
        "TASKS",
    ];
    let mut table = table(&header, style);
    for node in list {
        let (taken, all) = (node.allocated, node.capacity);
        let cpu = |milli: u64| MilliCpu(u32::try_from(milli).unwrap_or(u32::MAX));
        table.add_row(vec![
            Cell::new(node.id),
            Cell::new(&node.name),
            style.cell(
                node.status.to_string(),
                match node.status {
                    NodeStatus::Ready => Tone::Good,
                    NodeStatus::Suspect => Tone::Warn,
                    NodeStatus::Down => Tone::Bad,
                },
            ),
            style.cell(
                node.availability.to_string(),
                match node.availability {
                    Availability::Active => Tone::Plain,
                    Availability::Pause | Availability::Drain => Tone::Warn,
                },
            ),
            Cell::new(&node.address),
            Cell::new(format!("{}/{}", cpu(taken.cpu_millis), cpu(all.cpu_millis))),
            Cell::new(format!(
                "{}/{}",
                Bytes(taken.memory_bytes),
                Bytes(all.memory_bytes)
            )),
            Cell::new(taken.tasks),
        ]);
    }
    finish(&table)
}

/// Returns the table of `pool ls`.
pub fn pools(list: &[Pool], style: Style) -> String {
    let header = ["NAME", "CPU", "MEMORY", "RESERVED CPU", "RESERVED MEMORY"];
    let mut table = table(&header, style);
    for pool in list {
        table.add_row(vec![
            Cell::new(&pool.name),
            Cell::new(format!("{}%", pool.overcommit_cpu_percent)),
            Cell::new(format!("{}%", pool.overcommit_memory_percent)),
            Cell::new(pool.reserved_cpu),
            Cell::new(pool.reserved_memory),
        ]);
    }
    finish(&table)
}

/// Returns the table of `stack ls`.
pub fn stacks(list: &[StackView]) -> String {
    let mut table = table(&["NAME", "SERVICES"], Style::PLAIN);
    for stack in list {
        table.add_row(vec![stack.name.clone(), stack.services.join(" ")]);
    }
    finish(&table)
}

/// Returns one line of `events`.
pub fn event_line(event: &Event) -> String {
    let mut text = format!("{}  {:<22}", event.time, event.kind);
    let names = [
        event.service_name.clone(),
        event.task.map(|task| task.to_string()),
        event
            .node_name
            .clone()
            .or_else(|| event.node.map(|node| node.to_string()))
            .map(|node| format!("@{node}")),
    ];
    for name in names.into_iter().flatten() {
        text.push(' ');
        text.push_str(&name);
    }
    if !event.message.is_empty() {
        text.push_str("  ");
        text.push_str(&event.message);
    }
    text
}

/// Returns a span as people say it: `12s`, `3m`, `5h`, `2d`.
pub fn age(since: Timestamp, now: Timestamp) -> String {
    let seconds = now.since(since).0 / 1000;
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

pub(super) fn table(header: &[&str], style: Style) -> Table {
    let mut table = Table::new();
    table
        .load_style(comfy_table::presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header.to_vec());
    // Decided once, by `Style`, and not again by the table.
    if style.color {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    table
}

/// Prints a table without the blanks at line ends that would wrap on narrow terminals.
pub(super) fn finish(table: &Table) -> String {
    let text = table.to_string();
    let lines: Vec<&str> = text
        .lines()
        .map(|line| line.strip_prefix(' ').unwrap_or(line).trim_end())
        .collect();
    lines.join("\n")
}

fn shorten(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(most - 1).collect();
    short.push('…');
    short
}
