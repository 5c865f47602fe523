//! The machine of one client's connection: events in, and what it wants done out, without a socket,
//! a clock or a random source.
//!
//! ```text
//! Phase    Idle ── first byte ──► Head ── head read ──► Exchange ── answer whole ──► Idle
//!            │                      │                      │
//!            └── time, drain ───────┴── refused, last ─────┴──► Closed
//!            Idle, Head ── not ours ──► Leaving ──► (given away)
//!
//! Progress Waiting ◄── none ── (choose) ── begun ──► Connecting ── connected ──► Asking
//!            │ new table          ▲                       │ refused, cut            │
//!            └────────────────────┴───── may retry ◄──────┴──── ended, cut ─────────┤
//!                                                               head of an answer ──┤
//!                                                  Answering ◄──────────────────────┤
//!                                                  Tunnel ◄──── 101 ────────────────┘
//! ```
//!
//! An endpoint that breaks off in `Answering` breaks the client's connection off as well: a part
//! must not be taken for the whole. What may be sent again, and when, is [`crate::l7::retry`]'s.
//!
//! * [`connection`]: the client's side: heads, pipelining, leaving
//! * [`exchange`]: what is known of one request; [`attempt`]: its way to an endpoint;
//!   [`hedge`]: a second one beside it; [`way`]: what its route does; [`response`]: the answer's way back; [`head`]: heads as they
//!   are written
//! * [`shell`]: what the machine asks for; [`story`]: what is told of a request in the end

mod attempt;
mod connection;
mod exchange;
mod head;
mod hedge;
mod response;
mod shell;
mod story;
mod way;

pub use connection::{Connection, UNSENT_MAX};
pub use shell::{Asked, Closing, Desk, Ended, Input, Routed, Shell, Side};
pub use story::Story;
pub use way::Way;

#[cfg(test)]
mod tests;
