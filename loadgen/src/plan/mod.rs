//! What a run is to do, proven: everything the engines need, parsed and resolved.
//!
//! The command line, a profile file or a coordinator make a [`Plan`], which runs as one
//! [`Lane`] per core. Engines only read it.
//!
//! - [`Profile`], [`Curve`], [`Wave`], [`profile_file`], [`replay`]: when requests are due
//! - [`Url`], [`Template`], [`Picker`]: where they go, and what they say
//! - [`Check`], [`Checker`]: what an answer must be like
//! - [`Plan::validate`]: what cannot be run, for the command line and for workers alike

pub mod check;
mod curve;
mod pick;
pub mod profile_file;
pub mod replay;
mod schedule;
mod template;
pub mod units;
mod url;
mod validate;
mod wave;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use check::{Check, Checker, InvalidCheck};
pub use curve::{Curve, CurveError, RATE, SEGMENTS};
pub use pick::{Pick, Picker};
pub use schedule::{Profile, Schedule, Spread};
pub use template::{LETTERS, Part, Template, TemplateError, TemplateProblem};
pub use units::Cores;
pub use url::{Scheme, Url, UrlError};
pub use validate::InvalidPlan;
pub use wave::{InvalidWave, Wave};

/// Requests of one lane that are due and wait for a connection. Past it the run cannot say
/// anything of use about latency any more: further ones are counted as `overload` errors.
pub const BACKLOG: usize = 1 << 20;

/// One run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// Where requests go and what they say; at least one.
    pub targets: Vec<Target>,
    /// What is spoken with all of them.
    pub protocol: Protocol,
    /// When requests are made.
    pub pacing: Pacing,
    /// How long requests are scheduled; those in flight are waited for.
    pub duration: Duration,
    /// Connections kept open, all lanes together; at least one for each lane.
    pub connections: usize,
    /// When connections are given up and made anew.
    pub churn: Churn,
    /// How long is waited for what.
    pub timeouts: Timeouts,
    /// What a response must be like, beyond its status.
    pub checks: Vec<Check>,
    /// Prefix of the `X-Request-Id` that each request gets; none sends no id.
    pub request_ids: Option<String>,
    /// Whether [`crate::Outcome::records`] is filled: about 40 bytes for each request.
    pub records: bool,
    /// Seed of every random draw.
    pub seed: u64,
    /// Which engine is asked for.
    pub engine: EngineChoice,
    /// The cores that lanes are pinned to, one lane each; empty: one lane, not pinned.
    pub cores: Vec<usize>,
    /// Of a replayed log: which of the target's requests each number is ([`Picker`] obeys it).
    pub replay: Option<Arc<Vec<u32>>>,
}

/// When requests are made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Pacing {
    /// At scheduled times, whether or not earlier ones were answered.
    Open(Arc<Profile>),
    /// Each connection (or stream) asks when it was answered, after a pause.
    Closed {
        /// Pause between an answer and the next request.
        think: Think,
    },
}

/// A pause between an answer and the next request of a closed loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Think {
    /// None.
    #[default]
    None,
    /// Always this long.
    Constant(Duration),
    /// Exponential, with this mean.
    Exponential(Duration),
}

/// When connections are given up and made anew.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Churn {
    /// Requests after which a connection is closed; none keeps it.
    pub requests_per_connection: Option<u64>,
    /// Connections closed and reopened a second, all lanes together; none does not.
    pub connections_per_second: Option<f64>,
    /// Whether connections are closed with a RST, which leaves no local port waiting, instead of a
    /// FIN.
    pub reset: bool,
}

/// How long is waited for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeouts {
    /// Connecting, TLS included.
    pub connect: Duration,
    /// From sending a request to its whole answer; past it the connection is given up.
    pub request: Duration,
}

/// What is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    /// HTTP/1.1 with up to `pipeline` requests in flight on a connection; 1 does not pipeline.
    Http1 {
        /// Requests in flight on one connection.
        pipeline: u32,
    },
    /// HTTP/2 with up to `streams` requests in flight on a connection.
    Http2 {
        /// Streams open on one connection.
        streams: u32,
    },
    /// gRPC unary calls over HTTP/2; the body is the message, without its five-byte prefix.
    Grpc {
        /// Streams open on one connection.
        streams: u32,
    },
    /// WebSocket: a binary message is sent and must come back.
    WebSocket,
    /// A TCP connection is opened and closed for each request.
    TcpConnect,
    /// Bytes are sent on a TCP connection and must come back.
    TcpEcho,
    /// A datagram is sent and must come back.
    UdpEcho,
}

/// Where some of the requests go, and what they say.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Target {
    /// The resolved addresses; connections take them in turn. At least one.
    pub addresses: Vec<SocketAddr>,
    /// Set for `https`, `wss`, `grpcs`.
    pub tls: Option<Tls>,
    /// The `Host` header or `:authority`.
    pub authority: String,
    /// Its share of the requests, relative to the others'.
    pub weight: u32,
    /// What is sent: one for each method that is used, with its weight.
    pub requests: Vec<Request>,
}

/// How a target's certificate is judged.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Tls {
    /// The name asked for (SNI) and checked.
    pub server_name: String,
    /// Certificates trusted beside the system's; none adds none.
    pub ca_file: Option<PathBuf>,
    /// Take any certificate.
    pub insecure: bool,
}

/// One request, as it is repeated.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Request {
    /// Its share of the target's requests, relative to the others'.
    pub weight: u32,
    /// `GET`, `POST`, ….
    #[serde(with = "method")]
    pub method: http::Method,
    /// Path and query.
    pub path: Template,
    /// Header names, lowercase, with their values. `host` and `content-length` are not among them
    /// unless the user gave them.
    pub headers: Vec<(String, Template)>,
    /// The body; empty sends none.
    pub body: Template,
}

/// Which engine is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
pub enum EngineChoice {
    /// The fastest that can do it here.
    #[default]
    Auto,
    /// The hot engine on io_uring: plain HTTP/1.1.
    Uring,
    /// The general engine on tokio-uring: every protocol.
    TokioUring,
    /// epoll: the hot engine for plain HTTP/1.1, the general one otherwise.
    Epoll,
}

/// The part of a run that one thread does.
#[derive(Debug, Clone)]
pub struct Lane {
    /// The whole.
    pub plan: Arc<Plan>,
    /// Which part this is, from 0.
    pub index: usize,
    /// How many parts there are, over all cores and generators.
    pub of: usize,
}

impl Lane {
    /// Returns how many connections this lane keeps open.
    pub fn connections(&self) -> usize {
        let all = self.plan.connections;
        all / self.of + usize::from(self.index < all % self.of)
    }

    /// Returns the due times of this lane's requests; none of a closed loop.
    pub fn schedule(&self) -> Option<Schedule> {
        match &self.plan.pacing {
            Pacing::Open(profile) => Some(Schedule::new(
                profile.clone(),
                self.plan.duration,
                self.plan.seed,
                self.index,
                self.of,
            )),
            Pacing::Closed { .. } => None,
        }
    }
}

impl Plan {
    /// Returns a closed loop of GETs of `url` over 64 connections for 10 seconds, on one lane that
    /// is not pinned; what is spoken follows from the scheme.
    ///
    /// # Errors
    /// [`UrlError`] for what is no URL or does not resolve.
    pub fn http(url: &str) -> Result<Self, UrlError> {
        let url: Url = url.parse()?;
        let mut target = url.resolve()?;
        let protocol = url.scheme.protocol();
        let mut request = Request::get(url.path.clone());
        if matches!(protocol, Protocol::Grpc { .. }) {
            request.method = http::Method::POST;
        }
        target.requests = vec![request];
        Ok(Self {
            targets: vec![target],
            protocol,
            pacing: Pacing::Closed { think: Think::None },
            duration: Duration::from_secs(10),
            connections: 64,
            churn: Churn::default(),
            timeouts: Timeouts::default(),
            checks: Vec::new(),
            request_ids: None,
            records: false,
            seed: 1,
            engine: EngineChoice::Auto,
            cores: Vec::new(),
            replay: None,
        })
    }

    /// Makes it an open loop with even gaps at `rate` requests a second.
    pub fn at_rate(mut self, rate: f64) -> Self {
        self.pacing = Pacing::Open(Arc::new(Profile::Constant { rate }));
        self
    }
}

impl Request {
    /// Returns a GET without more headers.
    pub fn get(path: Template) -> Self {
        Self {
            weight: 1,
            method: http::Method::GET,
            path,
            headers: Vec::new(),
            body: Template::default(),
        }
    }
}

impl Default for Timeouts {
    /// Five seconds to connect, ten for a request.
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            request: Duration::from_secs(10),
        }
    }
}

/// Returns the name that somebody who wrote `text` may have meant.
pub(crate) fn nearest<'a>(text: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    names
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(text, name), name))
        .filter(|(distance, name)| *distance <= (name.len() / 3).max(1) && *distance < name.len())
        .min()
        .map(|(_, name)| name)
}

/// Methods go by their names.
mod method {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(method: &http::Method, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(method.as_str())
    }

    pub fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<http::Method, D::Error> {
        let name = String::deserialize(from)?;
        name.parse().map_err(serde::de::Error::custom)
    }
}
