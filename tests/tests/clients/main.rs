//! Clients that people use, against the ingress as it is started for them: none of our own code is
//! at their end of the connection.
//!
//! A client that is not installed is said as SKIP.

mod backend;
mod browser;
mod command;
mod load;
mod stage;
mod websocket;
