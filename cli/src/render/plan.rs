//! Plans, for people.

use std::fmt::Write as _;

use ballast_model::plan::{PlanView, PlanWhen, ServiceAction, ServicePlan, TaskAction, TaskChange};
use ballast_model::view::PendingView;
use comfy_table::Cell;

use super::Style;
use super::style::Tone;
use super::tables::{finish, table};

/// Rows of a plan's table at most; `--output json` has all.
const ROWS: usize = 200;
/// Tasks without a node that are listed for each service at most: their reasons are alike.
const PENDING: usize = 3;

/// Returns what `plan` shows: services, tasks, what would find no node, and the sum.
pub fn plan(plan: &PlanView, style: Style) -> String {
    let mut text = String::new();
    if !plan.services.is_empty() {
        let _ = writeln!(text, "{}\n", services(&plan.services, style));
    }
    if !plan.changes.is_empty() {
        let _ = writeln!(text, "{}", tasks(&plan.changes, style));
        if plan.changes.len() > ROWS {
            let more = plan.changes.len() - ROWS;
            let _ = writeln!(text, "… and {more} more; `--output json` lists all");
        }
        text.push('\n');
    }
    for service in &plan.services {
        pending(&mut text, plan, service);
    }
    if !plan.complete {
        text.push_str("More would follow: the plan was cut off.\n");
    }
    text.push_str(&sum(plan));
    text
}

fn services(list: &[ServicePlan], style: Style) -> String {
    let mut table = table(
        &["", "SERVICE", "CHANGE", "REPLICAS", "NODES THAT FIT"],
        style,
    );
    for service in list {
        let (sign, word, tone) = match service.action {
            ServiceAction::Create => ("+", "create", Tone::Good),
            ServiceAction::Update => ("~", "update", Tone::Warn),
            ServiceAction::Adjust => ("~", "adjust", Tone::Warn),
            ServiceAction::Remove => ("-", "remove", Tone::Bad),
            ServiceAction::Keep => (" ", "keep", Tone::Dim),
        };
        let replicas = if service.replicas_before == service.replicas_after {
            service.replicas_after.to_string()
        } else {
            format!("{} → {}", service.replicas_before, service.replicas_after)
        };
        let nodes = service.nodes.as_ref();
        table.add_row(vec![
            style.cell(sign.to_owned(), tone),
            Cell::new(&service.name),
            style.cell(word.to_owned(), tone),
            Cell::new(replicas),
            Cell::new(nodes.map_or_else(|| "-".to_owned(), |n| format!("{}/{}", n.fit, n.nodes))),
        ]);
    }
    finish(&table)
}

fn tasks(changes: &[TaskChange], style: Style) -> String {
    let mut table = table(&["", "TASK", "ACTION", "FROM", "TO", "WHEN", "WHY"], style);
    for change in changes.iter().take(ROWS) {
        let (sign, word, tone) = match change.action {
            TaskAction::Start => ("+", "start", Tone::Good),
            TaskAction::Stop => ("-", "stop", Tone::Bad),
            TaskAction::Replace => ("~", "replace", Tone::Warn),
            TaskAction::Move => (">", "move", Tone::Warn),
        };
        let dash = |name: &Option<String>| name.clone().unwrap_or_else(|| "-".to_owned());
        table.add_row(vec![
            style.cell(sign.to_owned(), tone),
            Cell::new(format!("{}.{}", change.service, change.slot)),
            style.cell(word.to_owned(), tone),
            Cell::new(dash(&change.from)),
            Cell::new(dash(&change.to)),
            match change.when {
                PlanWhen::Now => Cell::new("now"),
                PlanWhen::Later => style.cell("later".to_owned(), Tone::Dim),
            },
            Cell::new(&change.why),
        ]);
    }
    finish(&table)
}

/// Writes which tasks of a service would find no node, and what would help.
fn pending(text: &mut String, plan: &PlanView, service: &ServicePlan) {
    if service.pending == 0 {
        return;
    }
    let _ = writeln!(
        text,
        "{}: {} would find no node:",
        service.name,
        tasks_of(service.pending)
    );
    let own = plan
        .pending
        .iter()
        .filter(|task| task.service == service.name);
    for task in own.take(PENDING) {
        let _ = write!(text, "  {}.{}: {}", task.service, task.slot, task.why);
        if let Some(node) = &task.stays {
            let _ = write!(text, " (what runs on {node} stays)");
        }
        text.push('\n');
    }
    let rest = (service.pending as usize).saturating_sub(PENDING);
    if rest > 0 {
        let _ = writeln!(text, "  … and {rest} more");
    }
    for line in service.nodes.iter().flat_map(suggestions) {
        let _ = writeln!(text, "  {line}");
    }
    text.push('\n');
}

/// Returns what would help, a line each.
pub fn suggestions(pending: &PendingView) -> Vec<String> {
    let word = |nodes: u32| {
        if nodes == 1 {
            "1 node fits"
        } else {
            "nodes fit"
        }
    };
    pending
        .suggestions
        .iter()
        .map(|suggestion| {
            let fits = match (&suggestion.node, suggestion.nodes) {
                (Some(node), 0 | 1) => format!("{node} fits"),
                (_, 1) => word(1).to_owned(),
                (_, nodes) => format!("{nodes} {}", word(nodes)),
            };
            format!("{}: {fits}", suggestion.change)
        })
        .collect()
}

fn tasks_of(count: u32) -> String {
    if count == 1 {
        "1 task".to_owned()
    } else {
        format!("{count} tasks")
    }
}

fn sum(plan: &PlanView) -> String {
    let of = |action| {
        plan.changes
            .iter()
            .filter(|change| change.action == action)
            .count()
    };
    let parts = [
        (of(TaskAction::Start), "to start"),
        (of(TaskAction::Replace), "to replace"),
        (of(TaskAction::Move), "to move"),
        (of(TaskAction::Stop), "to stop"),
        (plan.pending.len(), "without a node"),
    ];
    let words: Vec<String> = parts
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{count} {word}"))
        .collect();
    if words.is_empty() {
        "Nothing would change for any task.".to_owned()
    } else {
        format!("Tasks: {}.", words.join(", "))
    }
}
