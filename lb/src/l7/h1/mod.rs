//! HTTP/1.1 on the hot path: a thread per core, a ring on each, and a machine for each connection.
//!
//! ```text
//! listener (SO_REUSEPORT) ─► worker ─► machine ─► uplinks ─► endpoint
//!                              │  ▲ inbox: listen, cut, drain
//!                              └─► handoff ─► pingora (HTTP/2, what a route asks of it)
//! ```
//!
//! A request is read in place, its head is rendered once, and bodies are passed on as they came.
//! Nothing is allocated for a request once a thread is warm, and no thread waits for another: what
//! they share is the table, endpoints' counters and the service's statistics. See ADR 0017.
//!
//! * [`machine`]: the core, without sockets: what a connection does with what happens to it
//! * [`worker`]: the shell around the machines of one thread; [`uplinks`]: its connections to
//!   endpoints
//! * [`threads`]: starts, listens, drains; [`inbox`]: how other threads speak to a worker
//! * [`preface`]: the PROXY header before it; [`secure`]: TLS around a machine; [`relay`]: from there to
//!   pingora
//! * [`telling`]: the access log and spans
//! * [`handoff`]: connections that are not ours to serve

mod handoff;
mod inbox;
mod machine;
mod preface;
mod relay;
mod secure;
mod telling;
mod threads;
mod uplinks;
mod worker;

pub use handoff::{HANDOFF_MAX, HandOver, Kind, serve as serve_handed_over};
pub use inbox::ListenId;
pub use threads::{Setup, Threads};
