//! A small API in this process, for what needs no real manager.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use assert_cmd::Command;
use axum::body::Bytes;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::Value;

/// Answers one request: method, path with query, body → status, body.
pub type Answer = dyn Fn(&str, &str, &Value) -> (u16, Value) + Send + Sync;

/// The API; ends with the test.
pub struct FakeApi {
    dir: tempfile::TempDir,
    requests: Arc<Mutex<Vec<(String, Value)>>>,
    _runtime: tokio::runtime::Runtime,
}

impl FakeApi {
    /// Listens on a socket of its own.
    pub fn start(
        answer: impl Fn(&str, &str, &Value) -> (u16, Value) + Send + Sync + 'static,
    ) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, answer): (_, Arc<Answer>) = (requests.clone(), Arc::new(answer));
        let app = axum::Router::new().fallback(move |method: Method, uri: Uri, body: Bytes| {
            let (seen, answer) = (seen.clone(), answer.clone());
            async move { respond(&seen, &answer, &method, &uri, &body) }
        });
        let listener = {
            let _inside = runtime.enter();
            tokio::net::UnixListener::bind(socket(dir.path())).expect("a socket")
        };
        runtime.spawn(async move { axum::serve(listener, app).await });
        Self {
            dir,
            requests,
            _runtime: runtime,
        }
    }

    /// Returns `ballast` with this API as its host.
    pub fn ballast(&self, args: &[&str]) -> Command {
        let mut command = ballast();
        let host = format!("unix://{}", socket(self.dir.path()).display());
        command.arg("--host").arg(host).args(args);
        command
    }

    /// Returns what was asked: `METHOD /path`, and the body.
    pub fn requests(&self) -> Vec<(String, Value)> {
        self.requests.lock().expect("no panic inside").clone()
    }
}

/// Returns `ballast` in an environment without settings.
pub fn ballast() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ballast"));
    command
        .env_remove("BALLAST_HOST")
        .env("NO_COLOR", "1")
        .env("COLUMNS", "100");
    command
}

fn socket(dir: &Path) -> PathBuf {
    dir.join("api.sock")
}

fn respond(
    seen: &Mutex<Vec<(String, Value)>>,
    answer: &Arc<Answer>,
    method: &Method,
    uri: &Uri,
    body: &Bytes,
) -> Response {
    let body: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    let path = uri.to_string();
    seen.lock()
        .expect("no panic inside")
        .push((format!("{method} {path}"), body.clone()));
    let (status, value) = answer(method.as_str(), &path, &body);
    let status = StatusCode::from_u16(status).expect("a status");
    match value {
        // A text is sent as it is: streams.
        Value::String(text) => (status, text).into_response(),
        value => (status, axum::Json(value)).into_response(),
    }
}
