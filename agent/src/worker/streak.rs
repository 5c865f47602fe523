//! Restarts in a row: how many, since when, and what to say of them.

use std::time::Instant;

use ballast_model::{Millis, RestartPolicy};

/// Restarts in a row of one slot.
#[derive(Debug, Clone)]
pub(super) struct Streak {
    /// How many.
    pub(super) count: u32,
    since: Instant,
    last: String,
}

/// What follows the end of a try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// Another try after this long, and what to say meanwhile.
    Retry(Millis, String),
    /// None: the attempts are used up.
    GiveUp(String),
}

impl Streak {
    pub(super) const fn new(count: u32, now: Instant) -> Self {
        Self {
            count,
            since: now,
            last: String::new(),
        }
    }

    /// Counts the end of a try that ran for `ran`, and returns what follows it.
    pub(super) fn ended(
        &mut self,
        policy: &RestartPolicy,
        ran: Millis,
        last: String,
        now: Instant,
    ) -> Next {
        if ran >= policy.window || self.count == 0 {
            *self = Self::new(0, now);
        }
        self.last = last;
        if policy.max_attempts > 0 && self.count >= policy.max_attempts {
            return Next::GiveUp(format!(
                "gave up after {} restart{} in {}; last: {}",
                self.count,
                if self.count == 1 { "" } else { "s" },
                self.elapsed(now),
                self.last
            ));
        }
        self.count = self.count.saturating_add(1);
        let delay = policy.delay_before(self.count);
        let message = if delay.0 == 0 {
            self.last.clone()
        } else {
            format!(
                "restart {} in {}, next try in {delay}; last: {}",
                self.count,
                self.elapsed(now),
                self.last
            )
        };
        Next::Retry(delay, message)
    }

    /// Returns what to say of a try that follows others.
    pub(super) fn note(&self, now: Instant) -> String {
        match self.count {
            0 => String::new(),
            _ if self.last.is_empty() => String::new(),
            1 => format!("restarted; last: {}", self.last),
            count => format!(
                "restart {count} in {}; last: {}",
                self.elapsed(now),
                self.last
            ),
        }
    }

    /// Returns the span since the first restart, in whole seconds once it has any.
    fn elapsed(&self, now: Instant) -> Millis {
        let millis = u64::try_from(now.duration_since(self.since).as_millis()).unwrap_or(u64::MAX);
        Millis(if millis < 1000 {
            millis
        } else {
            millis / 1000 * 1000
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn crash(streak: &mut Streak, policy: &RestartPolicy, ran: u64, now: Instant) -> Next {
        streak.ended(policy, Millis(ran), "exit status 1".to_owned(), now)
    }

    #[test]
    fn crash_loop_backs_off_and_says_so() {
        let (policy, begun) = (RestartPolicy::default(), Instant::now());
        let mut streak = Streak::new(0, begun);
        let first = crash(&mut streak, &policy, 5, begun);
        assert_eq!(first, Next::Retry(Millis(0), "exit status 1".to_owned()));
        for _ in 2..8 {
            crash(&mut streak, &policy, 5, begun);
        }
        let eighth = crash(
            &mut streak,
            &policy,
            5,
            begun + Duration::from_millis(72_300),
        );
        let message = "restart 8 in 1m12s, next try in 6s400ms; last: exit status 1".to_owned();
        assert_eq!(eighth, Next::Retry(Millis(6400), message));
    }

    #[test]
    fn long_run_starts_the_count_anew() {
        let (policy, now) = (RestartPolicy::default(), Instant::now());
        let mut streak = Streak::new(5, now);
        let next = crash(&mut streak, &policy, 10_000, now);
        assert!(matches!(next, Next::Retry(Millis(0), _)));
        assert_eq!(streak.count, 1);
    }

    #[test]
    fn attempts_are_used_up() {
        let policy = RestartPolicy {
            max_attempts: 2,
            ..RestartPolicy::default()
        };
        let now = Instant::now();
        let mut streak = Streak::new(0, now);
        assert!(matches!(
            crash(&mut streak, &policy, 1, now),
            Next::Retry(..)
        ));
        assert!(matches!(
            crash(&mut streak, &policy, 1, now),
            Next::Retry(..)
        ));
        let end = crash(&mut streak, &policy, 1, now);
        let message = "gave up after 2 restarts in 0s; last: exit status 1".to_owned();
        assert_eq!(end, Next::GiveUp(message));
    }
}
