//! What proves over HTTP that a host is ours.

use std::collections::HashMap;

use arc_swap::ArcSwap;

/// Where an ACME server looks for it (RFC 8555, section 8.3).
pub const CHALLENGE_PATH: &str = "/.well-known/acme-challenge/";

/// The answers to the challenges that are under way, by their tokens.
#[derive(Debug, Default)]
pub struct Challenges(ArcSwap<HashMap<String, String>>);

impl Challenges {
    /// Answers a challenge from now on.
    pub fn insert(&self, token: &str, answer: &str) {
        self.0.rcu(|known| {
            let mut known = HashMap::clone(known);
            known.insert(token.to_owned(), answer.to_owned());
            known
        });
    }

    /// Forgets a challenge.
    pub fn remove(&self, token: &str) {
        self.0.rcu(|known| {
            let mut known = HashMap::clone(known);
            known.remove(token);
            known
        });
    }

    /// Returns the answer, if a request's path asks for one that is under way.
    pub fn answer(&self, path: &str) -> Option<String> {
        let token = path.strip_prefix(CHALLENGE_PATH)?;
        self.0.load().get(token).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_token_that_is_under_way_is_answered() {
        let challenges = Challenges::default();
        challenges.insert("abc", "abc.key");
        let answer = |path: &str| challenges.answer(path);
        assert_eq!(
            answer("/.well-known/acme-challenge/abc").as_deref(),
            Some("abc.key")
        );
        assert_eq!(answer("/.well-known/acme-challenge/abd"), None);
        assert_eq!(answer("/.well-known/acme-challenge/"), None);
        assert_eq!(answer("/abc"), None);
        challenges.remove("abc");
        assert_eq!(answer("/.well-known/acme-challenge/abc"), None);
    }
}
