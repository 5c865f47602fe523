//! Which endpoint a request goes to, and what follows from how it went.
//!
//! [`Settings`] is what a port's `balance` says, with every default filled in. [`PoolState`] is
//! what must outlive a table: budgets and counts, shared by the pools that follow each other.
//! [`crate::table::Pool::begin`] takes a [`Want`] and chooses; `InFlight::ended` takes the
//! [`Outcome`] and judges. All of it is given the time and the random bits.

mod budget;
mod busy;
mod choice;
mod draw;
mod ejection;
mod latency;
mod maglev;
mod retry;
mod settings;
mod state;
pub mod sticky;
mod turns;
mod want;

pub use budget::RetryBudget;
pub use busy::Busy;
pub(crate) use choice::{Chooser, Context, Member};
pub use ejection::{Cause, Outlier};
pub(crate) use latency::PeakLatency;
pub use maglev::{Maglev, Named};
pub use retry::{Attempt, Failure};
pub use settings::{Retries, Settings};
pub use state::{Pending, PolicyEvents, PoolState};
pub use want::{Affinity, Outcome, Overload, Refused, Want};

#[cfg(test)]
mod tests;
