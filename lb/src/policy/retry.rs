//! Whether a failed request may be sent to another endpoint.
//!
//! A request that an endpoint may have executed is sent again only if its method is idempotent
//! (RFC 9110, 9.2.2). Any request may be sent again if the endpoint provably has not seen all of
//! its head: no connection was made, or writing the head failed. pingora's own rule retries
//! whatever a reused connection failed, and asks only for the method; this one replaces it.

/// Where an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No connection was made.
    Connecting,
    /// The head of the request was not all written.
    WritingHead,
    /// Later: the endpoint may have executed it.
    Later,
    /// Not the endpoint's doing: the client left, or the request itself is wrong.
    NotTheEndpoint,
}

/// What decides.
#[derive(Debug, Clone, Copy)]
pub struct Attempt {
    /// Where it failed.
    pub failure: Failure,
    /// Whether executing it twice is the same as once.
    pub idempotent: bool,
    /// Whether any of the response has gone to the client.
    pub response_begun: bool,
    /// Whether what was read of the request's body can be sent again.
    pub body_kept: bool,
    /// How many attempts there were, this one included.
    pub attempts: usize,
}

impl Attempt {
    /// Whether another endpoint may be tried, where so many may be in all. The budget is asked
    /// besides: see [`crate::table::Pool::may_retry`].
    pub const fn may_retry(self, most: usize) -> bool {
        if self.response_begun || self.attempts >= most {
            return false;
        }
        match self.failure {
            // Nothing of the body was taken from the client yet.
            Failure::Connecting | Failure::WritingHead => self.body_kept,
            Failure::Later => self.idempotent && self.body_kept,
            Failure::NotTheEndpoint => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 4;
    const ATTEMPT: Attempt = Attempt {
        failure: Failure::Later,
        idempotent: true,
        response_begun: false,
        body_kept: true,
        attempts: 1,
    };

    #[test]
    fn request_that_may_have_run_is_sent_again_only_if_idempotent() {
        assert!(ATTEMPT.may_retry(MOST));
        let post = Attempt {
            idempotent: false,
            ..ATTEMPT
        };
        assert!(!post.may_retry(MOST));
        for failure in [Failure::Connecting, Failure::WritingHead] {
            assert!(Attempt { failure, ..post }.may_retry(MOST));
        }
    }

    #[test]
    fn nothing_is_retried_once_the_client_has_seen_a_byte_or_the_attempts_are_used_up() {
        for attempt in [
            Attempt {
                response_begun: true,
                ..ATTEMPT
            },
            Attempt {
                attempts: MOST,
                ..ATTEMPT
            },
            Attempt {
                body_kept: false,
                ..ATTEMPT
            },
            Attempt {
                failure: Failure::NotTheEndpoint,
                ..ATTEMPT
            },
        ] {
            assert!(!attempt.may_retry(MOST), "{attempt:?}");
        }
    }
}
