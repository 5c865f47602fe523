//! The logs of a service's tasks, asked of their agents and sent on as they arrive.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use ballast_model::view::{LogLine, LogStream, Problem};
use ballast_model::{AssignmentId, NodeId, Slot, TaskId};
use ballast_wire::agent::{LogLines, ManagerToAgent};
use futures_util::stream::{self, Stream, StreamExt as _};
use serde::Deserialize;
use tokio::sync::mpsc;

use super::Api;
use super::input::{Params, switch};
use super::problem::{ApiError, Kind};
use super::services::find;
use crate::leader::{LOG_MESSAGES, LeaderContext};
use crate::state::State as Applied;

/// Lines of each task if the client does not say.
const DEFAULT_TAIL: u32 = 100;

/// Which lines.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Wanted {
    tail: u32,
    #[serde(deserialize_with = "switch")]
    follow: bool,
}

impl Default for Wanted {
    fn default() -> Self {
        Self {
            tail: DEFAULT_TAIL,
            follow: false,
        }
    }
}

/// One binding whose log is read.
struct Source {
    node: NodeId,
    node_name: String,
    assignment: AssignmentId,
    task: TaskId,
    slot: Slot,
}

/// Returns the bindings of a service's tasks, each once, with its newest try.
fn sources(state: &Applied, name: &str) -> Result<Vec<Source>, ApiError> {
    let service = find(state, name)?;
    let mut sources: Vec<Source> = Vec::new();
    for entry in state.tasks_of(service.id) {
        let Some(binding) = &entry.task.binding else {
            continue;
        };
        let Some(node) = state.node(binding.node) else {
            continue;
        };
        sources.retain(|known| known.assignment != binding.assignment);
        sources.push(Source {
            node: binding.node,
            node_name: node.node.description.name.clone(),
            assignment: binding.assignment,
            task: entry.task.id,
            slot: entry.task.slot,
        });
    }
    Ok(sources)
}

/// Streams the last lines of a service's tasks, and with `follow` those that come, one JSON object
/// a line.
#[utoipa::path(get, path = "/v1/services/{name}/logs", tag = "services",
    params(("name" = String, Path), ("tail" = Option<u32>, Query),
        ("follow" = Option<bool>, Query)),
    responses((status = 200, content_type = "application/x-ndjson", body = LogLine),
        (status = 404, body = Problem)))]
pub(super) async fn read(
    State(api): State<Api>,
    Path(name): Path<String>,
    Params(wanted): Params<Wanted>,
) -> Result<Response, ApiError> {
    let sources = sources(&api.replica.read(), &name)?;
    let Some(leader) = api.leader.borrow().clone() else {
        let detail = "agents are connected to the leader only";
        return Err(ApiError::new(Kind::NotLeader, detail));
    };
    let open: Vec<_> = sources
        .into_iter()
        .map(|source| Request::open(&leader, source, &wanted).chunks().boxed())
        .collect();
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    let body = Body::from_stream(stream::select_all(open).map(Ok::<_, Infallible>));
    Ok((kind, body).into_response())
}

/// An open request; dropping it tells the agent that nobody reads any more.
struct Request {
    leader: Arc<LeaderContext>,
    source: Source,
    id: u64,
    lines: mpsc::Receiver<LogLines>,
    /// The agent was asked and has not ended its answer.
    is_open: bool,
}

impl Drop for Request {
    fn drop(&mut self) {
        self.leader.registry.close_logs(self.id);
        if self.is_open
            && let Some(link) = self.leader.registry.agent(self.source.node)
        {
            let cancel = ManagerToAgent::CancelLogs { request: self.id };
            // If full, the agent is told when its next lines come and nobody takes them.
            let _ = link.requests.try_send(cancel);
        }
    }
}

impl Request {
    /// Asks an agent for lines.
    fn open(leader: &Arc<LeaderContext>, source: Source, wanted: &Wanted) -> Self {
        let (sender, lines) = mpsc::channel(LOG_MESSAGES);
        let id = leader.registry.open_logs(source.node, sender);
        let ask = ManagerToAgent::ReadLogs {
            request: id,
            assignment: source.assignment,
            tail: wanted.tail,
            follow: wanted.follow,
        };
        let link = leader.registry.agent(source.node);
        Self {
            leader: Arc::clone(leader),
            source,
            id,
            lines,
            is_open: link.is_some_and(|link| link.requests.try_send(ask).is_ok()),
        }
    }

    /// Returns the lines as chunks of JSON lines.
    fn chunks(self) -> impl Stream<Item = Vec<u8>> + Send {
        stream::unfold(Some(self), |request| async {
            let mut request = request?;
            let chunk = request.next().await;
            let rest = request.is_open.then_some(request);
            Some((chunk, rest))
        })
    }

    /// Returns the next chunk; a reason for an early end is told as a line of standard error.
    async fn next(&mut self) -> Vec<u8> {
        let mut chunk = Vec::new();
        if !self.is_open {
            self.notice(&mut chunk, "its node is not connected");
            return chunk;
        }
        let Some(LogLines { lines, end, .. }) = self.lines.recv().await else {
            self.is_open = false;
            let reason = "the log broke off: its node has gone, or this reader is too slow";
            self.notice(&mut chunk, reason);
            return chunk;
        };
        for (stream, line) in lines {
            self.write(&mut chunk, stream, &String::from_utf8_lossy(&line));
        }
        if let Some(reason) = end {
            self.is_open = false;
            if !reason.is_empty() {
                self.notice(&mut chunk, &reason);
            }
        }
        chunk
    }

    fn notice(&self, chunk: &mut Vec<u8>, reason: &str) {
        self.write(chunk, LogStream::Stderr, &format!("[ballast] {reason}"));
    }

    fn write(&self, chunk: &mut Vec<u8>, stream: LogStream, line: &str) {
        let line = LogLine {
            task: self.source.task,
            slot: self.source.slot,
            node: self.source.node_name.clone(),
            stream,
            line: line.to_owned(),
        };
        serde_json::to_writer(&mut *chunk, &line).expect("a log line has only strings");
        chunk.push(b'\n');
    }
}
