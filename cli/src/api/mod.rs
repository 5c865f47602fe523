//! The client of the HTTP API: one method for each endpoint, one connection for each request.
//!
//! The API is on a Unix socket nearly always, where a connection costs microseconds; so there is
//! no pool, and nothing that could go stale.

use std::fmt::Write as _;
mod host;
mod lines;
mod tls;
mod transport;

use ballast_model::plan::{PlanRequest, PlanView, Rebalance};
use ballast_model::view::{
    JoinTokenView, LogLine, NodePatch, NodeView, Problem, Scale, ServiceView, StackResult,
    StackSpec, StackView, TaskView,
};
use ballast_model::{Event, Pool, ServiceSpec};
use http::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Failure;

pub use host::Host;
pub use lines::LineStream;
pub use tls::ClientFiles;
use transport::Transport;

/// Bytes of one answer that is read whole: 10,000 services with their specs fit; a server that
/// sends more is not ours.
const MAX_ANSWER: usize = 256 << 20;

/// Of an answer that is read whole.
const JSON: &str = "application/json";
/// Of an answer that is read as it comes.
const LINES: &str = "application/x-ndjson";

/// A manager's API.
#[derive(Debug, Clone)]
pub struct Api {
    transport: Transport,
}

impl Api {
    /// Returns a client of this host; nothing is connected yet.
    ///
    /// # Errors
    /// If the certificate files cannot be used.
    pub fn new(host: Host, files: &ClientFiles) -> Result<Self, Failure> {
        Ok(Self {
            transport: Transport::new(host, files)?,
        })
    }

    /// Returns all services.
    pub async fn services(&self) -> Result<Vec<ServiceView>, Failure> {
        self.get("/v1/services").await
    }

    /// Returns one service, by name.
    pub async fn service(&self, name: &str) -> Result<ServiceView, Failure> {
        self.get(&format!("/v1/services/{}", escape(name))).await
    }

    /// Creates a service.
    pub async fn create_service(&self, spec: &ServiceSpec) -> Result<ServiceView, Failure> {
        self.send(Method::POST, "/v1/services", Some(spec)).await
    }

    /// Replaces a service's spec.
    pub async fn update_service(&self, spec: &ServiceSpec) -> Result<ServiceView, Failure> {
        let path = format!("/v1/services/{}", escape(&spec.name));
        self.send(Method::PUT, &path, Some(spec)).await
    }

    /// Sets the number of replicas.
    pub async fn scale(&self, name: &str, replicas: u32) -> Result<ServiceView, Failure> {
        let path = format!("/v1/services/{}/scale", escape(name));
        self.send(Method::POST, &path, Some(&Scale { replicas }))
            .await
    }

    /// Takes a service back to its spec before.
    pub async fn rollback(&self, name: &str) -> Result<ServiceView, Failure> {
        let path = format!("/v1/services/{}/rollback", escape(name));
        self.send(Method::POST, &path, None::<&()>).await
    }

    /// Removes a service.
    pub async fn remove_service(&self, name: &str) -> Result<(), Failure> {
        self.remove(&format!("/v1/services/{}", escape(name))).await
    }

    /// Returns the tasks of a service.
    pub async fn tasks(&self, service: &str) -> Result<Vec<TaskView>, Failure> {
        self.get(&format!("/v1/services/{}/tasks", escape(service)))
            .await
    }

    /// Returns the lines of a service's tasks as they come.
    pub async fn logs(
        &self,
        service: &str,
        tail: u32,
        follow: bool,
    ) -> Result<LineStream<LogLine>, Failure> {
        let path = format!(
            "/v1/services/{}/logs?tail={tail}&follow={follow}",
            escape(service)
        );
        self.stream(&path).await
    }

    /// Returns all nodes.
    pub async fn nodes(&self) -> Result<Vec<NodeView>, Failure> {
        self.get("/v1/nodes").await
    }

    /// Returns one node, by name or id.
    pub async fn node(&self, node: &str) -> Result<NodeView, Failure> {
        self.get(&format!("/v1/nodes/{}", escape(node))).await
    }

    /// Changes what may run on a node, or its labels.
    pub async fn patch_node(&self, node: &str, patch: &NodePatch) -> Result<NodeView, Failure> {
        let path = format!("/v1/nodes/{}", escape(node));
        self.send(Method::PATCH, &path, Some(patch)).await
    }

    /// Forgets a node.
    pub async fn remove_node(&self, node: &str) -> Result<(), Failure> {
        self.remove(&format!("/v1/nodes/{}", escape(node))).await
    }

    /// Returns the pools that were set.
    pub async fn pools(&self) -> Result<Vec<Pool>, Failure> {
        self.get("/v1/pools").await
    }

    /// Sets how much of its nodes a pool lets be placed.
    pub async fn set_pool(&self, pool: &Pool) -> Result<Pool, Failure> {
        let path = format!("/v1/pools/{}", escape(&pool.name));
        self.send(Method::PUT, &path, Some(pool)).await
    }

    /// Lets all that a pool's nodes have be placed again.
    pub async fn remove_pool(&self, name: &str) -> Result<(), Failure> {
        self.remove(&format!("/v1/pools/{}", escape(name))).await
    }

    /// Returns the join token of a role, a new one if asked.
    pub async fn join_token(&self, role: &str, rotate: bool) -> Result<JoinTokenView, Failure> {
        if rotate {
            let path = format!("/v1/join-tokens/{role}");
            self.send(Method::POST, &path, None::<&()>).await
        } else {
            self.get(&format!("/v1/join-tokens/{role}")).await
        }
    }

    /// Returns what a change would do.
    pub async fn plan(&self, request: &PlanRequest) -> Result<PlanView, Failure> {
        self.send(Method::POST, "/v1/plan", Some(request)).await
    }

    /// Moves tasks; returns the moves that are to come.
    pub async fn rebalance(&self, request: Rebalance) -> Result<PlanView, Failure> {
        self.send(Method::POST, "/v1/rebalance", Some(&request))
            .await
    }

    /// Returns all stacks.
    pub async fn stacks(&self) -> Result<Vec<StackView>, Failure> {
        self.get("/v1/stacks").await
    }

    /// Makes a stack what the spec says.
    pub async fn deploy(&self, stack: &str, spec: &StackSpec) -> Result<StackResult, Failure> {
        let path = format!("/v1/stacks/{}", escape(stack));
        self.send(Method::PUT, &path, Some(spec)).await
    }

    /// Removes a stack with its services.
    pub async fn remove_stack(&self, stack: &str) -> Result<(), Failure> {
        self.remove(&format!("/v1/stacks/{}", escape(stack))).await
    }

    /// Returns the events after an index that the manager still has.
    pub async fn events(&self, after: Option<u64>) -> Result<Vec<Event>, Failure> {
        let after = after.unwrap_or(0);
        self.get(&format!("/v1/events?after={after}")).await
    }

    /// Returns the events after an index, and those that come.
    pub async fn follow_events(&self, after: Option<u64>) -> Result<LineStream<Event>, Failure> {
        let after = after.unwrap_or(0);
        self.stream(&format!("/v1/events?follow=true&after={after}"))
            .await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.send(Method::GET, path, None::<&()>).await
    }

    async fn remove(&self, path: &str) -> Result<(), Failure> {
        let answer = self
            .transport
            .send(Method::DELETE, path, JSON, None)
            .await?;
        let status = answer.status();
        let body = transport::read_body(answer, MAX_ANSWER).await?;
        if status.is_success() {
            Ok(())
        } else {
            Err(refusal(status, &body))
        }
    }

    async fn send<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<T, Failure> {
        let body = body
            .map(serde_json::to_vec)
            .transpose()
            .map_err(|error| Failure::while_doing("cannot encode the request", error))?;
        let answer = self.transport.send(method, path, JSON, body).await?;
        let status = answer.status();
        let body = transport::read_body(answer, MAX_ANSWER).await?;
        if !status.is_success() {
            return Err(refusal(status, &body));
        }
        serde_json::from_slice(&body).map_err(|error| {
            Failure::Failed(format!(
                "the manager's answer to {path} is not understood ({error}); is it another version?"
            ))
        })
    }

    async fn stream<T: DeserializeOwned>(&self, path: &str) -> Result<LineStream<T>, Failure> {
        let answer = self.transport.send(Method::GET, path, LINES, None).await?;
        let status = answer.status();
        if status.is_success() {
            return Ok(LineStream::new(answer.into_body()));
        }
        let body = transport::read_body(answer, MAX_ANSWER).await?;
        Err(refusal(status, &body))
    }
}

/// Returns the problem document of a refusal, or one made up from the status.
fn refusal(status: http::StatusCode, body: &[u8]) -> Failure {
    if let Ok(problem) = serde_json::from_slice::<Problem>(body) {
        return Failure::Refused(Box::new(problem));
    }
    let text = String::from_utf8_lossy(body);
    let text: String = text.trim().chars().take(200).collect();
    Failure::Refused(Box::new(Problem {
        r#type: "about:blank".to_owned(),
        title: status.canonical_reason().unwrap_or("Error").to_owned(),
        status: status.as_u16(),
        detail: if text.is_empty() {
            format!("the manager answered {status}")
        } else {
            format!("the manager answered {status}: {text}")
        },
        field: None,
        nearest: None,
    }))
}

/// Returns a name as one path segment.
fn escape(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_path_segment() {
        assert_eq!(escape("web-1"), "web-1");
        assert_eq!(escape("../nodes?x"), "..%2Fnodes%3Fx");
        assert_eq!(escape("ü"), "%C3%BC");
    }

    #[test]
    fn answer_that_is_no_problem_document_still_says_its_status() {
        let failure = refusal(http::StatusCode::BAD_GATEWAY, b"upstream gone");
        assert_eq!(
            failure.to_string(),
            "the manager answered 502 Bad Gateway: upstream gone"
        );
    }
}
