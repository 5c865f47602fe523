//! In which order a route's parts are asked.

use std::sync::Arc;

use super::cors::Crossing;
use super::key::{affinity, with_key};
use super::paths::Candidate;
use super::routing::Found;
use super::{Answer, Decision, Forward, RequestView, Route, target};
use crate::l7::Entrance;
use crate::policy::sticky::hash_of;
use crate::table::{Moment, Pool, RouteTable};

impl RouteTable {
    /// Decides what becomes of a request: the route of the most exact host, then of the most exact
    /// path, then with the most conditions. `random` are fresh bits, for splits and mirrors.
    ///
    /// # Complexity
    /// Constant in the number of hosts and prefixes; allocates nothing for a route that only
    /// forwards.
    pub fn decide(&self, request: &RequestView<'_>, random: u64, now: Moment) -> Decision<'_> {
        let decided = self.decide_if(request, random, now, &|_| true);
        decided.unwrap_or(Decision::NoRoute)
    }

    /// The same, but `None` if the route does not suit the caller: then nothing was counted against
    /// its rate limits.
    pub fn decide_if(
        &self,
        request: &RequestView<'_>,
        random: u64,
        now: Moment,
        suits: &dyn Fn(&Route) -> bool,
    ) -> Option<Decision<'_>> {
        if let Entrance::Published(port) = request.entrance {
            let pool = self
                .routing
                .published(port)
                .and_then(|at| self.pools.get(at));
            return Some(match pool {
                Some(pool) => Decision::Forward(forward(pool, &self.routing.plain, request)),
                None => Decision::NoRoute,
            });
        }
        let (candidate, read) = match self.routing.find(request) {
            Found::Route(candidate, read) => (candidate, read),
            Found::Nothing => return Some(Decision::NoRoute),
            Found::Ambiguous => {
                let title = "the path means different things to different servers";
                return Some(Decision::Answer(Answer::problem(
                    400,
                    "ambiguous-path",
                    title,
                )));
            }
        };
        let route = &candidate.route;
        if !suits(route) {
            return None;
        }
        let path = read.as_deref().unwrap_or(request.path);
        let origin = match ask(route, request, path, now) {
            Ok(origin) => origin,
            Err(answer) => return Some(Decision::Answer(answer)),
        };
        let place = chosen(candidate, request, random);
        let Some(pool) = self.pools.get(place) else {
            return Some(Decision::NoRoute);
        };
        let rewritten = route.rewrite.as_ref();
        let mirrored = candidate.mirror.filter(|_| {
            // Bits that the split does not look at.
            (random >> 32) % 100 < u64::from(route.mirrored)
        });
        Some(Decision::Forward(Forward {
            target: rewritten.map(|new| target::with_query(new.of(path), request.query)),
            mirror: mirrored.and_then(|place| self.pools.get(place)),
            origin,
            ..forward(pool, route, request)
        }))
    }
}

/// Asks everything that may answer instead of an endpoint. Returns the origin that may read the
/// response.
fn ask(
    route: &Route,
    request: &RequestView<'_>,
    path: &str,
    now: Moment,
) -> Result<Option<String>, Answer> {
    if route.open {
        return Ok(None);
    }
    if let Some(gate) = &route.gate {
        gate.admits(request.client)?;
    }
    let origin = match route.cors.as_ref().map(|cors| cors.judge(request)) {
        Some(Crossing::Preflight(answer)) => return Err(answer),
        Some(Crossing::Allowed(origin)) => Some(origin),
        Some(Crossing::Not) | None => None,
    };
    let answered = || {
        if let Some(answer) = &route.maintenance {
            return Err(answer.clone());
        }
        if let Some(gate) = &route.gate {
            gate.knows(request)?;
        }
        if let Some(rate) = &route.rate {
            rate.take(request, now)?;
        }
        match &route.redirect {
            Some(redirect) => Err(redirect.answer(request, path)),
            None => Ok(()),
        }
    };
    match (answered(), &route.cors) {
        (Ok(()), _) => Ok(origin),
        (Err(answer), None) => Err(answer),
        (Err(mut answer), Some(cors)) => {
            // A script must be able to see why.
            cors.fields(origin.as_deref(), &mut |name, value| {
                answer.fields.push((name.to_owned(), value.to_owned()));
            });
            Err(answer)
        }
    }
}

/// Returns the place of the pool that gets a request.
fn chosen(candidate: &Candidate, request: &RequestView<'_>, random: u64) -> usize {
    let Some(&(sum, _)) = candidate.split.last() else {
        return candidate.place;
    };
    let by = &candidate.route.rule().then.split.by;
    let key = by.as_ref().and_then(|key| with_key(key, request, hash_of));
    let drawn = key.unwrap_or(random) % u64::from(sum);
    candidate
        .split
        .iter()
        .find(|&&(end, _)| drawn < u64::from(end))
        .map_or(candidate.place, |&(_, place)| place)
}

fn forward<'t>(
    pool: &'t Arc<Pool>,
    route: &'t Arc<Route>,
    request: &RequestView<'_>,
) -> Forward<'t> {
    Forward {
        pool,
        route,
        target: None,
        affinity: affinity(pool, request),
        mirror: None,
        origin: None,
    }
}
