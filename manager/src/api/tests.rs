//! The API as a client sees it, on a real log.

use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use ballast_model::ClusterId;
use ballast_model::view::Problem;
use futures_util::StreamExt as _;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::*;
use crate::ca;
use crate::raft::testing::{Single, single};

const DAY: Duration = Duration::from_hours(24);

struct Server {
    router: Router,
    single: Single,
    _folder: tempfile::TempDir,
}

async fn server() -> Server {
    let folder = tempfile::tempdir().expect("a folder");
    let single = single(folder.path()).await;
    let consensus = &single.consensus;
    let init = ca::found(ClusterId::from_bits(7), SystemTime::now()).expect("draws");
    let ca = Ca::load(&init, DAY).expect("is a CA");
    let founded = consensus.proposer.propose(Command::InitCluster(init)).await;
    founded.expect("commits").expect("is accepted");
    let api = Api {
        proposer: consensus.proposer.clone(),
        replica: Arc::clone(&consensus.replica),
        leadership: consensus.leadership(),
        leader: watch::channel(None).1,
        ca,
        advertised: "10.0.0.1:7400".to_owned(),
        metrics: Metrics::new(),
        plans: Plans::default(),
    };
    Server {
        router: router(api),
        single,
        _folder: folder,
    }
}

impl Server {
    async fn send(&self, request: Request<Body>) -> (StatusCode, Vec<u8>) {
        let response = self.router.clone().oneshot(request).await.expect("answers");
        let status = response.status();
        let body = response.into_body().collect().await.expect("arrives");
        (status, body.to_bytes().to_vec())
    }

    async fn call(&self, method: &str, path: &str, body: Value) -> (StatusCode, Value) {
        let builder = Request::builder().method(method).uri(path);
        let request = if body.is_null() {
            builder.body(Body::empty())
        } else {
            let builder = builder.header(header::CONTENT_TYPE, "application/json");
            builder.body(Body::from(body.to_string()))
        };
        let (status, bytes) = self.send(request.expect("is a request")).await;
        (
            status,
            serde_json::from_slice(&bytes).unwrap_or(Value::Null),
        )
    }

    async fn create(&self, name: &str) {
        let (status, body) = self.call("POST", "/v1/services", web(name)).await;
        assert_eq!(status, StatusCode::CREATED, "{body}");
    }

    async fn end(self) {
        self.single.consensus.shutdown().await;
    }
}

fn web(name: &str) -> Value {
    json!({
        "name": name,
        "task": {"command": ["sleep", "1000"]},
        "mode": {"replicated": {"replicas": 2}},
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn service_is_made_read_scaled_rolled_back_and_removed() {
    let server = server().await;
    server.create("web").await;
    let (status, list) = server.call("GET", "/v1/services", Value::Null).await;
    assert_eq!(
        (status, list[0]["name"].as_str()),
        (StatusCode::OK, Some("web"))
    );
    let body = json!({"replicas": 5});
    let (status, view) = server.call("POST", "/v1/services/web/scale", body).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(view["replicas"]["desired"], 5);
    let path = "/v1/services/web/rollback";
    let (status, view) = server.call("POST", path, Value::Null).await;
    assert_eq!(
        (status, &view["replicas"]["desired"]),
        (StatusCode::OK, &json!(2))
    );
    let stale = server.call("PUT", "/v1/services/web?generation=1", web("web"));
    assert_eq!(stale.await.0, StatusCode::CONFLICT);
    let (status, _) = server.call("DELETE", "/v1/services/web", Value::Null).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    server.end().await;
}

/// Method, path, content type, body; then status, kind, field, nearest.
type Bad = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    u16,
    &'static str,
    Option<&'static str>,
    Option<&'static str>,
);

const JSON: &str = "application/json";

#[rustfmt::skip]
const BAD_REQUESTS: &[Bad] = &[
    ("GET", "/v1/servcies", "", "", 404, "no-such-path", None, Some("/v1/services")),
    ("GET", "/", "", "", 404, "no-such-path", None, None),
    ("DELETE", "/v1/services", "", "", 405, "method-not-allowed", None, Some("GET, POST")),
    ("PUT", "/v1/services/web/scale", JSON, "{}", 405, "method-not-allowed", None, Some("POST")),
    ("GET", "/v1/services/wbe", "", "", 404, "not-found", None, Some("web")),
    ("GET", "/v1/services/wbe/tasks", "", "", 404, "not-found", None, Some("web")),
    ("GET", "/v1/services/wbe/logs", "", "", 404, "not-found", None, Some("web")),
    ("GET", "/v1/nodes/nowhere", "", "", 404, "not-found", None, None),
    ("GET", "/v1/stacks/none", "", "", 404, "not-found", None, None),
    ("GET", "/v1/join-tokens/agnt", "", "", 404, "not-found", None, Some("agent")),
    ("POST", "/v1/services", JSON, "{", 400, "malformed-json", None, None),
    ("POST", "/v1/services", JSON, "", 400, "malformed-json", None, None),
    ("POST", "/v1/services", "text/yaml", "name: a", 415, "not-json", None, Some(JSON)),
    ("POST", "/v1/services", JSON, r#"{"name":"a"}"#, 422, "invalid-field", None, Some("task")),
    ("POST", "/v1/services", JSON, r#"{"name":"a","task":{"command":["x"],"envv":{}}}"#,
        422, "invalid-field", Some("task.envv"), Some("env")),
    ("POST", "/v1/services", JSON, r#"{"name":"A b","task":{"command":["x"]}}"#,
        422, "invalid-field", Some("name"), Some("a-b")),
    ("POST", "/v1/services", JSON, r#"{"name":"a","task":{"command":[]}}"#,
        422, "invalid-field", Some("task.command"), None),
    ("POST", "/v1/services", JSON,
        r#"{"name":"a","task":{"command":["x"]},"mode":{"replicated":{"replicas":1000000}}}"#,
        422, "invalid-field", Some("mode.replicated.replicas"), Some("100000")),
    ("POST", "/v1/services", JSON,
        r#"{"name":"a","task":{"command":["x"],"resources":{"memory":"-64m"}}}"#,
        422, "invalid-field", Some("task.resources.memory"), None),
    ("POST", "/v1/services", JSON, r#"{"name":"web","task":{"command":["x"]}}"#,
        409, "conflict", Some("name"), Some("web-2")),
    ("PUT", "/v1/services/web", JSON, r#"{"name":"wob","task":{"command":["x"]}}"#,
        422, "invalid-field", Some("name"), Some("web")),
    ("PUT", "/v1/services/web?generaton=1", JSON, r#"{"name":"web","task":{"command":["x"]}}"#,
        400, "invalid-query", Some("generaton"), Some("generation")),
    ("POST", "/v1/services/web/scale", JSON, r#"{"replicas":1000000}"#,
        422, "invalid-field", Some("replicas"), Some("100000")),
    ("POST", "/v1/services/web/scale", JSON, r#"{"replicas":-1}"#,
        422, "invalid-field", Some("replicas"), None),
    ("PUT", "/v1/stacks/s", JSON, r#"{"services":[]}"#,
        422, "invalid-field", Some("services"), None),
    ("PUT", "/v1/stacks/s", JSON, r#"{"services":[{"name":"a","task":{"command":[""]}}]}"#,
        422, "invalid-field", Some("services[0].task.command"), None),
    ("GET", "/v1/events?folow=1", "", "", 400, "invalid-query", Some("folow"), Some("follow")),
    ("GET", "/v1/events?after=x", "", "", 400, "invalid-query", None, None),
];

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_get_problems_that_name_field_and_nearest() {
    let server = server().await;
    server.create("web").await;
    for (method, path, kind, body, status, problem, field, nearest) in BAD_REQUESTS {
        let mut builder = Request::builder().method(*method).uri(*path);
        if !kind.is_empty() {
            builder = builder.header(header::CONTENT_TYPE, *kind);
        }
        let request = builder.body(Body::from(*body)).expect("is a request");
        let (got, bytes) = server.send(request).await;
        let context = format!(
            "{method} {path} {body}: {}",
            String::from_utf8_lossy(&bytes)
        );
        let document: Problem = serde_json::from_slice(&bytes).expect(&context);
        assert_eq!(
            (got.as_u16(), document.status),
            (*status, *status),
            "{context}"
        );
        assert_eq!(
            document.r#type,
            format!("urn:ballast:problem:{problem}"),
            "{context}"
        );
        assert_eq!(document.field.as_deref(), *field, "{context}");
        assert_eq!(document.nearest.as_deref(), *nearest, "{context}");
    }
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn long_body_is_refused() {
    let server = server().await;
    let request = Request::post("/v1/services")
        .header(header::CONTENT_TYPE, JSON)
        .body(Body::from(vec![b' '; input::BODY_BYTES + 1]));
    let (status, _) = server.send(request.expect("is a request")).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn document_has_every_route_and_every_route_is_served() {
    let server = server().await;
    let document = serde_json::to_value(document()).expect("is JSON");
    let paths = document["paths"].as_object().expect("has paths");
    assert_eq!(paths.len(), ROUTES.len());
    for (path, methods) in ROUTES {
        let item = paths.get(*path).expect(path).as_object().expect(path);
        let known: Vec<&str> = item.keys().map(String::as_str).collect();
        for method in *methods {
            assert!(known.contains(method), "{method} {path} is not described");
            let request = Request::builder()
                .method(method.to_uppercase().as_str())
                .uri(path.replace(['{', '}'], ""))
                .body(Body::empty());
            let (status, body) = server.send(request.expect("is a request")).await;
            let text = String::from_utf8_lossy(&body);
            assert_ne!(status, StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
            assert!(!text.contains("no-such-path"), "{method} {path}");
        }
        assert_eq!(known.len(), methods.len(), "{path}: {known:?}");
    }
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn follower_of_events_sees_what_happens_next() {
    let server = server().await;
    server.create("before").await;
    let request = Request::get("/v1/events?follow=1")
        .header(header::ACCEPT, "text/event-stream")
        .body(Body::empty())
        .expect("is a request");
    let response = server
        .router
        .clone()
        .oneshot(request)
        .await
        .expect("answers");
    let mut stream = response.into_body().into_data_stream();
    let mut seen = String::new();
    server.create("after").await;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while !seen.contains("\"service_name\":\"after\"") {
        let chunk = tokio::time::timeout_at(deadline, stream.next()).await;
        let chunk = chunk.expect("in time").expect("goes on").expect("arrives");
        seen.push_str(&String::from_utf8_lossy(&chunk));
    }
    assert!(seen.contains("\"service_name\":\"before\""), "{seen}");
    assert!(seen.contains("event: service.created"), "{seen}");
    let (_, list) = server.call("GET", "/v1/events", Value::Null).await;
    let last = list.as_array().expect("an array").len();
    let path = format!("/v1/events?after={}", last - 1);
    let (_, rest) = server.call("GET", &path, Value::Null).await;
    assert_eq!(rest.as_array().map(Vec::len), Some(1));
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rotated_token_differs_and_health_is_served() {
    let server = server().await;
    let path = "/v1/join-tokens/agent";
    let (_, before) = server.call("GET", path, Value::Null).await;
    let (status, after) = server.call("POST", path, Value::Null).await;
    assert_eq!(status, StatusCode::OK);
    assert_ne!(before["token"], after["token"]);
    assert_eq!(server.call("GET", path, Value::Null).await.1, after);
    for path in ["/healthz", "/readyz"] {
        assert_eq!(
            server.call("GET", path, Value::Null).await.0,
            StatusCode::OK
        );
    }
    let request = Request::get("/metrics").body(Body::empty());
    let (_, text) = server.send(request.expect("is a request")).await;
    let text = String::from_utf8_lossy(&text);
    assert!(text.contains("ballast_manager_services 0"), "{text}");
    server.end().await;
}

#[tokio::test]
async fn plan_says_what_a_deploy_would_do_and_changes_nothing() {
    let server = server().await;
    server.create("web").await;
    let before = server.single.consensus.replica.read().version();
    let stack = json!({ "stack": { "name": "shop", "services": [web("shop-web")] } });
    let (status, body) = server.call("POST", "/v1/plan", stack.clone()).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert_eq!(body["services"][0]["action"], "create");
    assert_eq!(body["fits"], false, "there is no node");
    assert_eq!(body["pending"][0]["why"], "there is no node");
    for (body, expected, field) in [
        (
            json!({ "scale": { "service": "wbe", "replicas": 2 } }),
            404,
            None,
        ),
        (json!({ "drain": { "node": "n1" } }), 404, None),
        (json!({ "drian": { "node": "n1" } }), 422, None),
        (
            json!({ "service": { "name": "UP", "task": { "command": ["x"] } } }),
            422,
            Some("name"),
        ),
    ] {
        let (status, problem) = server.call("POST", "/v1/plan", body.clone()).await;
        assert_eq!(status.as_u16(), expected, "{body}: {problem}");
        assert_eq!(problem["field"].as_str(), field, "{body}: {problem}");
    }
    assert_eq!(server.single.consensus.replica.read().version(), before);
    server.end().await;
}
