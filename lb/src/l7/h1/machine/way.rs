//! Where a request goes, and what its route does on the way.

use std::sync::Arc;

use crate::policy::Affinity;
use crate::route::{Answer, Route};

/// Where a request goes; outlives the table that decided it.
#[derive(Debug, Default)]
pub struct Way {
    /// What is done to it, if anything is.
    pub route: Option<Arc<Route>>,
    /// Path and query towards the endpoint, if they differ from what came.
    pub target: Option<String>,
    /// The origin that may read the answer.
    pub origin: Option<String>,
    /// What binds it to an endpoint.
    pub affinity: Affinity,
}

impl Way {
    /// Refuses what is larger than the route takes.
    ///
    /// # Errors
    /// The answer.
    pub fn admits(&self, head: usize, body: u64) -> Result<(), Answer> {
        match &self.route {
            Some(route) => {
                route.admits_head(head as u64)?;
                route.admits_body(body)
            }
            None => Ok(()),
        }
    }

    /// Returns whether the route takes so much of a body.
    pub fn admits_body(&self, body: u64) -> bool {
        let route = self.route.as_ref();
        route.is_none_or(|route| route.admits_body(body).is_ok())
    }

    /// Returns what the route answers if no endpoint takes the request.
    pub fn fallback(&self) -> Option<&Answer> {
        self.route.as_ref()?.fallback()
    }

    /// Returns whether answers pass with the head that they came with.
    pub fn leaves_response(&self) -> bool {
        self.route
            .as_ref()
            .is_none_or(|route| route.leaves_response())
    }
}
