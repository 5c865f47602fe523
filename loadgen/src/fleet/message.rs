//! What coordinator and worker say to each other.

use serde::{Deserialize, Serialize};

use crate::plan::Plan;
use crate::recorder::{Counts, Point, Recorder};

/// Said by the coordinator.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Ask {
    /// The first message. Its form never changes, so that versions can refuse each other.
    Hello {
        /// [`super::VERSION`].
        version: u32,
        /// What the worker was told to ask for.
        token: Option<String>,
    },
    /// What does your clock say?
    Ping,
    /// Make ready for this.
    Plan(Box<Work>),
    /// Begin.
    Start {
        /// When, by the worker's clock.
        at_ns: u64,
    },
    /// Schedule nothing more.
    Stop,
    /// Give up what is in flight, too.
    Abort,
}

/// A worker's part of a run.
#[derive(Debug, Serialize, Deserialize)]
pub struct Work {
    /// The whole. Its cores are those of the coordinator's host and mean nothing.
    pub plan: Plan,
    /// The number of this worker's first lane.
    pub first_lane: usize,
    /// Lanes of all workers.
    pub lanes: usize,
    /// For each target the certificates to trust, as PEM: a worker does not have the
    /// coordinator's files.
    pub certificates: Vec<Option<String>>,
}

/// Said by the worker.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "tell", rename_all = "snake_case")]
pub enum Tell {
    /// At your service.
    Welcome {
        /// Lanes that it runs, one on each of its cores.
        lanes: usize,
        /// Its name.
        host: String,
    },
    /// No.
    Refused {
        /// Why.
        reason: String,
    },
    /// The answer to a ping.
    Pong {
        /// Its monotonic clock, from a zero of its own.
        clock_ns: u64,
        /// Its time of day, since 1970.
        wall_ns: u64,
    },
    /// The plan can be run.
    Ready,
    /// How far it is.
    Progress {
        /// Requests done, failed ones included.
        done: u64,
        /// Failed ones.
        failed: u64,
        /// All its lanes' counts so far, for those who look on.
        counts: Box<Counts>,
        /// Its seconds that are over since it last told.
        seconds: Vec<(u64, Point)>,
    },
    /// What it measured.
    Done(Box<Measured>),
    /// The run could not be made.
    Failed {
        /// Why.
        reason: String,
    },
}

/// What one worker measured.
#[derive(Debug, Serialize, Deserialize)]
pub struct Measured {
    /// All of it.
    pub recorder: Recorder,
    /// Which engine ran, and why.
    pub engine: String,
    /// Over which requests were scheduled, in nanoseconds.
    pub scheduled_ns: u64,
    /// How much later than asked the run began, in nanoseconds.
    pub late_ns: u64,
}
