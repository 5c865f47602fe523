//! Everything that is known, as JSON: for `ballast ingress dump`, the status page and tests.

use std::collections::HashMap;

use ballast_model::{AssignmentId, Endpoint};
use serde_json::{Value, json};

use crate::hub::Hub;
use crate::metrics::{ServiceStats, Totals};
use crate::table::{Feed, Member, Moment, Pool, RouteTable};

/// Pools in one answer: more are of no use on a page, and a question can name the service.
const POOLS_MAX: usize = 500;

/// Which pools are asked for.
#[derive(Debug, Default)]
pub(super) struct Question {
    /// A part of the service's name; empty for any.
    pub service: String,
    /// Whether all are wanted, however many.
    pub all: bool,
}

impl Question {
    /// Reads the query of a URL: `service=TEXT`, `all`. Other keys are ignored.
    pub(super) fn parse(query: &str) -> Self {
        let mut question = Self::default();
        for pair in query.split('&') {
            match pair.split_once('=').unwrap_or((pair, "")) {
                ("service", text) => text.clone_into(&mut question.service),
                ("all", _) => question.all = true,
                _ => {}
            }
        }
        question
    }
}

/// Returns the table with what is counted and why each endpoint is as it is.
pub(super) fn describe(hub: &Hub, table: &RouteTable, question: &Question) -> Value {
    let wanted: Vec<&Pool> = table
        .pools
        .iter()
        .map(|pool| &**pool)
        .filter(|pool| pool.service_name.contains(&question.service))
        .collect();
    let shown = if question.all {
        wanted.len()
    } else {
        wanted.len().min(POOLS_MAX)
    };
    let now = hub.now();
    let pools: Vec<Value> = wanted[..shown]
        .iter()
        .map(|pool| describe_pool(&hub.feed(), pool, now))
        .collect();
    let published = table.routing.ports();
    let published: Vec<u16> = published.iter().map(|(port, _)| *port).collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "generation": table.generation,
        "uptime_us": now.0,
        "pid": std::process::id(),
        "agents": hub.agents(),
        "published": published,
        "unrouted": counted(&hub.metrics.unrouted),
        "pools": pools,
        "pools_left_out": wanted.len() - shown,
    })
}

/// The feed is locked for one pool at a time: health must not wait for a whole answer.
fn describe_pool(feed: &Feed, pool: &Pool, now: Moment) -> Value {
    let port = feed.port(&pool.key);
    let said: HashMap<AssignmentId, &Endpoint> = port
        .iter()
        .flat_map(|port| &port.endpoints)
        .map(|endpoint| (endpoint.assignment, endpoint))
        .collect();
    let endpoints: Vec<Value> = pool
        .members
        .iter()
        .map(|member| {
            let said = said.get(&member.backend.assignment).copied();
            describe_member(feed, member, said, now)
        })
        .collect();
    json!({
        "service": pool.service_name.as_ref(),
        "service_id": pool.key.service.to_string(),
        "port": pool.key.port.as_ref(),
        "protocol": pool.protocol,
        "published": port.and_then(|port| port.published),
        "routes": port.map(|port| &port.routes),
        "balance": port.and_then(|port| port.balance.as_ref()),
        "counted": counted(&pool.stats),
        "endpoints": endpoints,
    })
}

fn describe_member(feed: &Feed, member: &Member, said: Option<&Endpoint>, now: Moment) -> Value {
    let backend = &member.backend;
    let latency = backend.latency().unwrap_or_default();
    let ejected = backend.ejected_until(now).map(|until| until.since(now));
    let why = said.map(|endpoint| {
        let why = feed.why(endpoint, member.state, now);
        match ejected {
            Some(left) => {
                let left = left.as_millis();
                format!("{why}; ejected for {left} ms more, for its answers were bad")
            }
            None => why,
        }
    });
    json!({
        "assignment": backend.assignment.to_string(),
        "node": backend.node.to_string(),
        "address": backend.address.to_string(),
        "state": member.state.name(),
        "why": why,
        "avoided": backend.avoided(now),
        "ejected": ejected.is_some(),
        "weight": backend.weight(),
        "in_flight": backend.in_flight(),
        "connections": backend.links.len(),
        "latency_us": u64::try_from(latency.as_micros()).unwrap_or(u64::MAX),
    })
}

/// Counters since the service was first seen. Latencies as pairs of a bucket's end in microseconds
/// and its count, so that a reader can make quantiles of what came between two answers.
fn counted(stats: &ServiceStats) -> Value {
    let totals = stats.total();
    let micros = |quantile| {
        let found = totals.latency.quantile(quantile);
        found.map(|span| u64::try_from(span.as_micros()).unwrap_or(u64::MAX))
    };
    let Totals {
        codes,
        latency,
        traffic,
        retries,
        hedges,
    } = &totals;
    json!({
        "requests": totals.requests(),
        "codes": codes,
        "retries": retries,
        "hedges": hedges,
        "received_bytes": traffic.received,
        "sent_bytes": traffic.sent,
        "p50_us": micros(0.5),
        "p99_us": micros(0.99),
        "latency_us": latency.filled(),
    })
}
