//! HTTP: pingora's proxy behind our own listeners.
//!
//! Our listeners accept (published ports come and go while the process runs, which pingora's
//! cannot) and hand each connection to pingora's `HttpProxy`; [`Balancer`] is what it asks on the
//! way: which endpoint, whether to try again, what to answer when nothing helps.

mod answer;
mod balancer;
mod compressor;
pub mod dial;
pub mod flood;
pub mod forwarded;
mod front;
pub mod h1;
mod hops;
mod mirror;
mod peer;
mod tell;
mod tls;
mod upgrade;
mod watched;
mod way;

pub use answer::REASON_HEADER;
pub use balancer::{Balancer, Timeouts};
pub use front::{Entrance, Entrances, Front};
pub use hops::Hops;
pub use tls::Prefixed;
