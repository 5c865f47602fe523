//! Which endpoint a request goes to, and what follows from how it went.
//!
//! [`Settings`] is what a port's `balance` says, with every default filled in. [`PoolState`] is
//! what must outlive a table: budgets and counts, shared by the pools that follow each other.
//! [`crate::table::Pool::begin`] takes a [`Want`] and chooses; `InFlight::ended` takes the
//! [`Outcome`] and judges. All of it is given the time and the random bits.

mod budget;
mod retry;
mod settings;
mod state;
mod want;

pub use budget::RetryBudget;
pub use retry::{Attempt, Failure};
pub use settings::Settings;
pub use state::PoolState;
pub use want::{Outcome, Overload, Refused, Want};
