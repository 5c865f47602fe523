//! Fixtures: files of packets that go in and what must come out.
//!
//! A fixture begins with `## name`; `#` begins a comment. Then, in order: `set …` changes the scene
//! ([`Scene::set`](crate::Scene::set)), `in: PACKET` goes in, and `out: ACTION PACKET` must come
//! out: `tx`, `redirect` and `pass` with a packet ([`describe`](crate::describe)), `pass` alone for
//! the packet as it came, `drop`. `count: LABEL N` says how often a verdict was given since the
//! fixture began. `node` before `in:` runs the decapsulator instead of the balancer.

use anyhow::{Context, bail};

/// One line of a fixture.
#[derive(Clone, Debug)]
pub enum Step {
    /// Words of a `set`.
    Set(String),
    /// A packet, what must come out, and whether the decapsulator runs.
    Packet {
        /// What goes in.
        input: String,
        /// What must come out.
        output: String,
        /// Whether the decapsulator runs, not the balancer.
        node: bool,
    },
    /// How often a verdict was given on all services together.
    Count(String, u64),
}

/// A fixture.
#[derive(Clone, Debug)]
pub struct Fixture {
    /// What it shows.
    pub name: String,
    /// Its lines.
    pub steps: Vec<Step>,
}

/// Reads a file of fixtures.
pub fn fixtures(text: &str) -> anyhow::Result<Vec<Fixture>> {
    let mut all: Vec<Fixture> = Vec::new();
    let mut input = None;
    let mut node = false;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(name) = line.strip_prefix("## ") {
            all.push(Fixture {
                name: name.to_owned(),
                steps: Vec::new(),
            });
            node = false;
            continue;
        }
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let where_ = || format!("line {}: `{line}`", number + 1);
        let fixture = all.last_mut().with_context(where_)?;
        if line == "node" {
            node = true;
        } else if let Some(words) = line.strip_prefix("set ") {
            fixture.steps.push(Step::Set(words.to_owned()));
        } else if let Some(packet) = line.strip_prefix("in: ") {
            input = Some(packet.to_owned());
        } else if let Some(output) = line.strip_prefix("out: ") {
            fixture.steps.push(Step::Packet {
                input: input.take().with_context(where_)?,
                output: output.to_owned(),
                node,
            });
        } else if let Some(count) = line.strip_prefix("count: ") {
            let (label, times) = count.split_once(' ').with_context(where_)?;
            let times = times.parse().with_context(where_)?;
            fixture.steps.push(Step::Count(label.to_owned(), times));
        } else {
            bail!("{}", where_());
        }
    }
    Ok(all)
}
