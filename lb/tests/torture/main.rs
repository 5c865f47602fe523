//! HTTP/1.1 as RFC 9112 and RFC 9110 have it, restated case by case and held against a running
//! ingress, on raw sockets on both of its sides.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

#[path = "../common/mod.rs"]
mod common;

mod backend;
mod bodies;
mod bounds;
mod client;
mod conversations;
mod fields;
mod refusals;

use backend::{Recorder, Script};
use client::Client;
use common::Ingress;

/// An ingress before one backend, and what the backend answers on which path.
struct Stage {
    ingress: Ingress,
    backend: Recorder,
}

impl Stage {
    async fn new(scripts: impl IntoIterator<Item = (&'static str, Script)>) -> Self {
        let backend = Recorder::start(scripts).await;
        let endpoint = backend.address;
        let ingress = Ingress::start(&format!(
            "services:\n  web: {{ endpoints: [\"{endpoint}\"], check: {{ interval: 1h }} }}\n\
             routes:\n  - {{ service: web }}\n"
        ))
        .await;
        Self { ingress, backend }
    }

    async fn client(&self) -> Client {
        Client::connect(self.ingress.http).await
    }
}
