//! The route table: what an ingress needs in order to route, and the core that keeps it.
//!
//! Nothing here reads a clock, a socket or a random source: moments, messages and random bits are
//! handed in. [`Feed`] takes what the manager and the agents say, and makes [`RouteTable`]s; a
//! table is immutable and replaced whole, so a request sees one from start to end. What must be
//! seen at once by requests that hold an older table (gate, load, latency) lives in [`Backend`],
//! which all tables share.

mod backend;
mod feed;
mod links;
mod moment;
mod pool;
mod routes;

pub use backend::{Backend, Gate, InFlight};
pub use feed::{Departure, Effects, Feed, FeedError, Session, TICK};
pub use links::{LinkId, Links, Sever, TakenOut};
pub use moment::Moment;
pub use pool::{Member, MemberState, Pool, PoolKey};
pub use routes::RouteTable;
