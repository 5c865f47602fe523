//! What an ingress is told of a service: its ports, routes and endpoints.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::{
    AssignmentId, BalanceSpec, Generation, Health, NodeId, Protocol, RouteRule, ServiceId,
    UpstreamSpec,
};

/// Everything an ingress needs in order to route to one service: replaced whole, never patched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceTable {
    /// Which service.
    pub service: ServiceId,
    /// Its name, for metrics and logs.
    pub name: String,
    /// Orders tables of this service: the higher one wins.
    pub generation: Generation,
    /// One for each of its ports that is published or routed to.
    pub ports: Vec<PortTable>,
}

/// One port of a service, as an ingress serves it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortTable {
    /// The port's name in the spec.
    pub name: String,
    /// What is spoken.
    pub protocol: Protocol,
    /// The port to listen on, if it is published.
    pub published: Option<u16>,
    /// Routes on the shared HTTP listeners that lead here.
    pub routes: Vec<RouteRule>,
    /// Members. Which of them take traffic, their agents say.
    pub endpoints: Vec<Endpoint>,
    /// How requests are spread over them; the defaults if not given.
    pub balance: Option<BalanceSpec>,
    /// How they are spoken to; plain HTTP/1.1 if not given.
    pub upstream: Option<UpstreamSpec>,
}

/// Address and port at which a task answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Its name: stays across local restarts.
    pub assignment: AssignmentId,
    /// Whose agent may say how it is.
    pub node: NodeId,
    /// Where it answers.
    pub address: SocketAddr,
    /// What the manager last heard of it: taken at once by an ingress that its agent has told
    /// nothing yet, so that a restarted ingress serves before the agents have reconnected.
    pub health: Health,
    /// How much of the requests it gets.
    pub weight: Weight,
    /// Where it is, if that is known: ingresses may prefer their own zone.
    pub zone: Option<String>,
}

/// The label of a node that says in which zone its endpoints are.
pub const ZONE_LABEL: &str = "zone";

/// How much of the requests an endpoint gets, beside others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Weight(pub u16);

impl Weight {
    /// What an endpoint has if nothing is said: between it and the largest weight there is room
    /// in both directions.
    pub const DEFAULT: Self = Self(100);
    /// The largest.
    pub const MAX: Self = Self(10_000);
}

impl Default for Weight {
    fn default() -> Self {
        Self::DEFAULT
    }
}
