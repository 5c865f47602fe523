//! The ingress: owns the route table and fronts it with L7 and, in user space, L4.
//!
//! It knows nothing of how services are placed. The manager tells it which endpoints exist, each
//! agent how its own are; both only change an immutable table that requests read, so no request
//! waits for either. Alone, a file and its own checks take their place.
//!
//! * [`config`]: what it is told at its start
//! * [`table`]: the core, without clock and sockets: tables, pools, what follows from messages
//! * [`policy`]: which endpoint a request goes to, and what follows from how it went
//! * [`route`]: which route a request takes, and what that does with it; without clock and sockets
//! * [`hub`]: the shell around it, shared by all parts
//! * [`tls`]: certificates and sessions; [`acme`]: certificates that are ordered
//! * [`l7`]: HTTP through pingora; [`l4`]: TCP and UDP; [`listeners`]: the ports
//! * `feed`, `manager`: the links to agents and managers; `standalone`: the file and the checks
//! * `stall`: sees endpoints that hang; `admin`, [`metrics`]: what it tells;
//!   [`observe`]: what it tells of single requests
//! * [`upgrade`]: how one process takes over from another
//!
//! Deliberately absent: DNS, the XDP balancer, and HTTP/1.1 without pingora (later issues).

pub mod acme;
mod admin;
pub mod config;
mod feed;
pub mod hub;
pub mod l4;
pub mod l7;
pub mod listeners;
mod manager;
pub mod metrics;
pub mod observe;
pub mod policy;
pub mod route;
mod run;
mod stall;
mod standalone;
pub mod table;
pub mod tls;
pub mod upgrade;

pub use admin::LogControl;
pub use config::{Config, ConfigError, RawConfig};
pub use run::{IngressError, run};

/// Returns an error's text and those of its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
