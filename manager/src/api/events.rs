//! What happened: once, as lines, or as server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::sse::{Event as SentEvent, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use ballast_model::Event;
use futures_util::stream::{self, Stream, StreamExt as _};
use serde::Deserialize;
use tokio::sync::watch;

use super::Api;
use super::input::{Params, switch};
use crate::raft::Replica;

/// Events that are taken from the state at a time.
const CHUNK: usize = 256;
/// How often a quiet stream shows that it is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const LINES: &str = "application/x-ndjson";

/// Which events.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Wanted {
    /// Those after this index.
    after: u64,
    /// And those that come.
    #[serde(deserialize_with = "switch")]
    follow: bool,
}

/// Returns what happened. With `Accept: text/event-stream` as server-sent events whose ids are the
/// events' indices; with `follow` otherwise as one JSON object a line; else as a JSON array.
#[utoipa::path(get, path = "/v1/events", tag = "events",
    params(("after" = Option<u64>, Query), ("follow" = Option<bool>, Query)),
    responses((status = 200, body = Vec<Event>)))]
pub(super) async fn read(
    State(api): State<Api>,
    headers: HeaderMap,
    Params(wanted): Params<Wanted>,
) -> Response {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let accepts = |kind| text("accept").is_some_and(|accept| accept.contains(kind));
    // A browser that reconnects says where it was.
    let last = text("last-event-id").and_then(|id| id.parse().ok());
    let after = wanted.after.max(last.unwrap_or(0));
    if accepts("text/event-stream") {
        let events = events(api.replica, after, wanted.follow).map(|event| {
            let sent = SentEvent::default()
                .id(event.index.to_string())
                .event(event.kind.to_string())
                .json_data(&event);
            Ok::<_, Infallible>(sent.unwrap_or_default())
        });
        let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
        return Sse::new(events).keep_alive(keep_alive).into_response();
    }
    if wanted.follow || accepts(LINES) {
        let lines = events(api.replica, after, wanted.follow).map(|event| {
            let mut line = serde_json::to_vec(&event).unwrap_or_default();
            line.push(b'\n');
            Ok::<_, Infallible>(line)
        });
        let kind = [(header::CONTENT_TYPE, LINES)];
        return (kind, Body::from_stream(lines)).into_response();
    }
    let state = api.replica.read();
    let events: Vec<Event> = state.events().after(after).cloned().collect();
    drop(state);
    Json(events).into_response()
}

/// Where a reader is.
struct Reader {
    replica: Arc<Replica>,
    applied: watch::Receiver<u64>,
    after: u64,
    follow: bool,
}

/// Returns the events after an index, and with `follow` those that come. A reader that is too slow
/// skips those that the manager has dropped meanwhile.
fn events(replica: Arc<Replica>, after: u64, follow: bool) -> impl Stream<Item = Event> + Send {
    let reader = Reader {
        applied: replica.applied(),
        replica,
        after,
        follow,
    };
    stream::unfold(reader, |mut reader| async {
        let chunk = reader.next_chunk().await?;
        Some((stream::iter(chunk), reader))
    })
    .flatten()
}

impl Reader {
    async fn next_chunk(&mut self) -> Option<Vec<Event>> {
        loop {
            self.applied.borrow_and_update();
            let chunk: Vec<Event> = {
                let state = self.replica.read();
                let events = state.events().after(self.after);
                events.take(CHUNK).cloned().collect()
            };
            if let Some(last) = chunk.last() {
                self.after = last.index;
                return Some(chunk);
            }
            if !self.follow {
                return None;
            }
            self.applied.changed().await.ok()?;
        }
    }
}
