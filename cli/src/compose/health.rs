//! `healthcheck`.

use ballast_model::{HealthCheck, ProbeKind};

use super::field::{Field, Section};
use super::finding::Report;
use super::{keys, service};

/// Reads the check; none if the file switches it off, which leaves Ballast's own default.
pub(super) fn read(field: &Field<'_>, report: &mut Report) -> Option<HealthCheck> {
    let section = field.section(report, keys::HEALTHCHECK);
    let off = section
        .get("disable")
        .and_then(|field| field.switch(report));
    if off == Some(true) {
        return None;
    }
    let Some(test) = section.get("test") else {
        field.warn(report, "has no `test`: the default check is used");
        return None;
    };
    let argv = argv(test, report)?;
    let argv = argv.iter().map(|word| service::for_agent(word)).collect();
    let mut check = HealthCheck::with_defaults(ProbeKind::Command { argv });
    tune(&mut check, &section, report);
    Some(check)
}

/// `CMD …`, `CMD-SHELL …`, a string for a shell, or `NONE`.
fn argv(test: &Field<'_>, report: &mut Report) -> Option<Vec<String>> {
    let shell = |line: &str| ["/bin/sh", "-c", line].map(str::to_owned).to_vec();
    if test.is_scalar() {
        return Some(shell(test.text(report)?));
    }
    let mut words = test.texts(report).into_iter();
    let kind = words.next();
    let rest: Vec<String> = words.collect();
    match (kind.as_deref(), rest.as_slice()) {
        (Some("NONE"), []) => None,
        (Some("CMD"), [_, ..]) => Some(rest),
        (Some("CMD-SHELL"), [line]) => Some(shell(line)),
        _ => {
            test.error(
                report,
                "is not a test; write [CMD, program, argument…], [CMD-SHELL, line], or a line for the shell",
            );
            None
        }
    }
}

/// Reads what a check of any kind may say of its timing.
pub(super) fn tune(check: &mut HealthCheck, section: &Section<'_>, report: &mut Report) {
    for (key, span) in [
        ("interval", &mut check.interval),
        ("timeout", &mut check.timeout),
        ("start_period", &mut check.start_period),
    ] {
        if let Some(value) = section.get(key).and_then(|field| field.parse(report)) {
            *span = value;
        }
    }
    for (key, count) in [
        ("retries", &mut check.failure_threshold),
        ("successes", &mut check.success_threshold),
    ] {
        let field = section.get(key);
        if let Some(value) = field.and_then(|field| field.number(report, 1, 1_000)) {
            *count = value;
        }
    }
}
