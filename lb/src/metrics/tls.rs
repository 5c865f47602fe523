//! What is counted of TLS.

use std::fmt::Write as _;
use std::sync::atomic::AtomicI64;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// How a handshake ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Handshake {
    /// With an open session.
    Done,
    /// With an error, or not in time.
    Failed,
}

impl EncodeLabelValue for Handshake {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        encoder.write_str(match self {
            Self::Done => "done",
            Self::Failed => "failed",
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    result: Handshake,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Name {
    name: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

/// What is counted of TLS, and of HTTP/2's frames.
#[derive(Debug, Clone, Default)]
pub struct TlsStats {
    handshakes: Family<Outcome, Counter>,
    floods: Family<Kind, Counter>,
    expiry: Family<Name, Gauge<i64, AtomicI64>>,
    /// Times that certificates were put into force.
    pub loads: Counter,
    /// Times that changed files could not be used.
    pub refusals: Counter,
}

impl TlsStats {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "tls_handshakes",
            "TLS handshakes with clients, by outcome",
            self.handshakes.clone(),
        );
        registry.register(
            "http2_floods",
            "HTTP/2 connections ended because their clients flooded them, by frame",
            self.floods.clone(),
        );
        registry.register(
            "certificate_expiry_timestamp_seconds",
            "When a certificate expires, in seconds since 1970, by its first name",
            self.expiry.clone(),
        );
        registry.register(
            "certificate_loads",
            "Times that certificates were put into force",
            self.loads.clone(),
        );
        registry.register(
            "certificate_refusals",
            "Times that changed certificate files could not be used",
            self.refusals.clone(),
        );
    }

    /// Counts a handshake.
    pub fn handshake(&self, result: Handshake) {
        self.handshakes.get_or_create(&Outcome { result }).inc();
    }

    /// Counts an HTTP/2 connection that was ended because its client flooded it.
    pub fn flood(&self, kind: &'static str) {
        self.floods.get_or_create(&Kind { kind }).inc();
    }

    /// Notes when the certificates expire, each under its name.
    pub fn expiries(&self, certificates: impl Iterator<Item = (String, i64)>) {
        self.expiry.clear();
        for (name, not_after) in certificates {
            self.expiry.get_or_create(&Name { name }).set(not_after);
        }
    }
}
