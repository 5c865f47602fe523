//! Compose files → service specs.
//!
//! Nothing is ignored in silence: every key is honoured, or skipped with a warning because leaving
//! it out changes nothing that matters, or refused because it would. One table ([`keys`]) says
//! which and why; every finding names file, line and column.
//!
//! * [`tree`]: YAML with the place of everything, behind limits that stop YAML bombs
//! * [`interpolate`]: variables, as in `${VARIABLE:-default}`
//! * [`keys`]: what is honoured
//! * [`service`], [`ports`], [`health`], [`deploy`], [`extension`]: the parts of a service
//! * [`words`]: a command line in one string → its words
//!
//! Deliberately absent: `.env` files, `include`, `extends` and several files at once; images,
//! volumes and networks, which the process driver has no use for.

mod balance;
mod deploy;
mod env;
mod extension;
mod field;
mod finding;
mod health;
mod interpolate;
mod keys;
mod ports;
mod rules;
mod service;
mod tree;
mod words;

use std::collections::BTreeMap;
use std::path::Path;

use ballast_model::view::StackSpec;
use ballast_model::{Protocol, ServiceSpec, limits};

use field::Field;
use finding::Report;
pub use finding::{Finding, Position, Severity};

/// A Compose file and what it may refer to.
pub struct Source<'a> {
    /// How it is named in messages.
    pub name: &'a str,
    /// Its text.
    pub text: &'a str,
    /// What relative paths in it are relative to.
    pub folder: &'a Path,
    /// The environment in which it is interpolated.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
}

impl std::fmt::Debug for Source<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// What a file says.
#[derive(Debug)]
pub struct Outcome {
    /// The stack; none if a finding is an error.
    pub stack: Option<StackSpec>,
    /// Errors and warnings, in the file's order.
    pub findings: Vec<Finding>,
}

/// Reads a Compose file as the stack of this name.
pub fn read(source: &Source<'_>, stack: &str) -> Outcome {
    let mut report = Report::default();
    let services = read_services(source, stack, &mut report);
    let (findings, failed) = report.finish();
    Outcome {
        stack: (!failed).then_some(StackSpec { services }),
        findings,
    }
}

/// Returns the name of a stack's service: `STACK-SERVICE`, or just the stack's name if both are
/// the same, so that `hello.yaml` with its one service `hello` makes `hello`.
pub fn service_name(stack: &str, service: &str) -> String {
    if stack == service {
        stack.to_owned()
    } else {
        format!("{stack}-{service}")
    }
}

fn read_services(source: &Source<'_>, stack: &str, report: &mut Report) -> Vec<ServiceSpec> {
    let mut specs = Vec::new();
    let mut root = match tree::parse(source.text) {
        Ok(root) => root,
        Err((at, message)) => {
            report.error(at, "", message);
            return specs;
        }
    };
    interpolate::expand_tree(&mut root, source.variable, report);
    let root = Field::root(&root);
    let top = root.section(report, keys::TOP);
    let Some(services) = top.get("services") else {
        if !report.has_errors() {
            let message = "the file has no `services`: nothing to deploy";
            report.error(root.node.at, "services", message);
        }
        return specs;
    };
    let entries = services.entries(report);
    if entries.is_empty() && !report.has_errors() {
        report.error(services.node.at, "services", "there is no service in it");
    }
    if entries.len() > limits::SERVICES {
        let message = format!("at most {} services are allowed", limits::SERVICES);
        report.error(services.node.at, "services", message);
        return specs;
    }
    let mut published = BTreeMap::new();
    let names: Vec<String> = entries
        .iter()
        .map(|(name, _)| (*name).to_string())
        .collect();
    for (name, field) in entries {
        let before = report.len();
        if let Some(mut spec) = service::read(source, stack, name, &field, report) {
            rules::rename(&mut spec.placement.services, |other| {
                let here = names.iter().any(|name| *name == other);
                here.then(|| service_name(stack, other))
            });
            let udp = |protocol| protocol == Protocol::Udp;
            for port in &spec.ports {
                let Some(number) = port.published else {
                    continue;
                };
                let other = published.insert((udp(port.protocol), number), name);
                if let Some(other) = other.filter(|_| report.len() == before) {
                    let message = format!("port {number} is published by service `{other}`, too");
                    field.error(report, &message);
                }
            }
            specs.push(spec);
        }
    }
    specs
}
