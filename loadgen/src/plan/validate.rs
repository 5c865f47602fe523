//! Whether a plan can be run.

use std::time::Duration;

use super::curve::CurveError;
use super::units::LONGEST;
use super::{Pacing, Plan, Protocol, Think};

/// Connections of one generator: what its descriptors and ports could ever do.
pub const CONNECTIONS: usize = 4_000_000;
/// Targets of one run.
pub const TARGETS: usize = 1024;
/// Different requests of one target; a replayed log has many.
pub const REQUESTS: usize = 1 << 20;
/// Requests in flight on one connection, pipelined or as streams.
pub const IN_FLIGHT: u32 = 65_536;
/// The largest weight, so that sums of them cannot overflow.
pub const WEIGHT: u32 = 1_000_000;

/// A plan that cannot be run.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum InvalidPlan {
    /// Nothing to drive.
    #[error("no target: give a URL such as http://127.0.0.1:8080/")]
    NoTarget,
    /// Too many of something.
    #[error("{0} {1} are more than {2}")]
    TooMany(usize, &'static str, usize),
    /// A target without request or address.
    #[error("the target {0} has no request or no address")]
    EmptyTarget(String),
    /// All weights are 0, or one is too large.
    #[error("the weights must add up to more than 0, and none be above {WEIGHT}")]
    Weight,
    /// The profile makes no sense.
    #[error("the load cannot be scheduled")]
    Profile(#[source] CurveError),
    /// Nothing is scheduled.
    #[error("{0} is not between 1 ns and seven days")]
    Span(&'static str),
    /// Not one for each.
    #[error(
        "{connections} connections are too few: each of {lanes} lanes needs one for each of \
         {targets} targets"
    )]
    Connections {
        /// As asked for.
        connections: usize,
        /// One for each core.
        lanes: usize,
        /// To drive.
        targets: usize,
    },
    /// Pipelining or streams out of bounds.
    #[error("{0} requests in flight on a connection are not between 1 and {IN_FLIGHT}")]
    InFlight(u32),
    /// Churn that never or always churns.
    #[error("{0} must be above 0")]
    Churn(&'static str),
    /// Bytes that would break the request apart.
    #[error("the header `{0}` has a line break in it, or a name that is none")]
    Header(String),
    /// A protocol without status, headers, ….
    #[error("{0} answers have no status and no headers: only `body~` and `bytes=` can be checked")]
    Check(&'static str),
}

impl Plan {
    /// Returns how many lanes one generator has: one for each core.
    pub fn lanes(&self) -> usize {
        self.cores.len().max(1)
    }

    /// Returns whether this can be run on this many lanes, over all generators.
    ///
    /// # Errors
    /// [`InvalidPlan`] with the first thing that is wrong.
    pub fn validate(&self, lanes: usize) -> Result<(), InvalidPlan> {
        self.check_targets()?;
        self.check_connections(lanes)?;
        let spans = [
            (self.duration, "the duration"),
            (self.timeouts.connect, "the time to connect"),
            (self.timeouts.request, "the timeout"),
        ];
        for (span, name) in spans {
            if span.is_zero() || span > LONGEST {
                return Err(InvalidPlan::Span(name));
            }
        }
        match &self.pacing {
            Pacing::Open(profile) => profile.check(self.duration).map_err(InvalidPlan::Profile),
            Pacing::Closed { think } => check_think(*think),
        }
    }

    fn check_targets(&self) -> Result<(), InvalidPlan> {
        if self.targets.is_empty() {
            return Err(InvalidPlan::NoTarget);
        }
        if self.targets.len() > TARGETS {
            return Err(InvalidPlan::TooMany(self.targets.len(), "targets", TARGETS));
        }
        for target in &self.targets {
            if target.requests.is_empty() || target.addresses.is_empty() {
                return Err(InvalidPlan::EmptyTarget(target.authority.clone()));
            }
            if target.requests.len() > REQUESTS {
                let count = target.requests.len();
                return Err(InvalidPlan::TooMany(count, "different requests", REQUESTS));
            }
            check_weights(target.requests.iter().map(|request| request.weight))?;
            for (name, value) in target.requests.iter().flat_map(|it| &it.headers) {
                let whole = name.parse::<http::HeaderName>().is_ok();
                let broken = |bytes: &[u8]| bytes.iter().any(|b| matches!(b, b'\r' | b'\n' | 0));
                if !whole || value.literals().any(broken) {
                    return Err(InvalidPlan::Header(name.clone()));
                }
            }
        }
        check_weights(self.targets.iter().map(|target| target.weight))
    }

    fn check_connections(&self, lanes: usize) -> Result<(), InvalidPlan> {
        if self.connections > CONNECTIONS {
            return Err(InvalidPlan::TooMany(
                self.connections,
                "connections",
                CONNECTIONS,
            ));
        }
        let driven = self.targets.iter().filter(|target| target.weight > 0);
        let targets = driven.count();
        if self.connections < lanes.max(1).saturating_mul(targets) {
            return Err(InvalidPlan::Connections {
                connections: self.connections,
                lanes,
                targets,
            });
        }
        let in_flight = match self.protocol {
            Protocol::Http1 { pipeline } => pipeline,
            Protocol::Http2 { streams } | Protocol::Grpc { streams } => streams,
            _ => 1,
        };
        if !(1..=IN_FLIGHT).contains(&in_flight) {
            return Err(InvalidPlan::InFlight(in_flight));
        }
        if self.churn.requests_per_connection == Some(0) {
            return Err(InvalidPlan::Churn("the requests per connection"));
        }
        if let Some(rate) = self.churn.connections_per_second
            && !(rate > 0.0 && rate <= super::RATE)
        {
            return Err(InvalidPlan::Churn("the connections per second"));
        }
        let plain = match self.protocol {
            Protocol::WebSocket => "WebSocket",
            Protocol::TcpConnect | Protocol::TcpEcho => "TCP",
            Protocol::UdpEcho => "UDP",
            _ => return Ok(()),
        };
        let headed = |check: &super::Check| {
            matches!(check, super::Check::Status(_) | super::Check::Header { .. })
        };
        if self.checks.iter().any(headed) {
            return Err(InvalidPlan::Check(plain));
        }
        Ok(())
    }
}

fn check_weights(weights: impl Iterator<Item = u32>) -> Result<(), InvalidPlan> {
    let mut sum = 0_u64;
    for weight in weights {
        if weight > WEIGHT {
            return Err(InvalidPlan::Weight);
        }
        sum += u64::from(weight);
    }
    if sum == 0 {
        Err(InvalidPlan::Weight)
    } else {
        Ok(())
    }
}

fn check_think(think: Think) -> Result<(), InvalidPlan> {
    match think {
        Think::Constant(span) | Think::Exponential(span)
            if span == Duration::ZERO || span > LONGEST =>
        {
            Err(InvalidPlan::Span("the think time"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Request, Template};
    use super::*;

    fn plan() -> Plan {
        Plan::http("http://127.0.0.1:1/").expect("plan")
    }

    #[test]
    fn plan_of_a_url_is_valid() {
        assert_eq!(plan().validate(1), Ok(()));
        assert_eq!(plan().at_rate(5.0).validate(64), Ok(()));
    }

    #[test]
    fn each_kind_of_nonsense_is_named() {
        let wrong = |change: fn(&mut Plan), expected: &str| {
            let mut plan = plan();
            change(&mut plan);
            let error = plan.validate(2).expect_err(expected).to_string();
            assert!(error.contains(expected), "{error}");
        };
        wrong(|plan| plan.targets.clear(), "no target");
        wrong(|plan| plan.targets[0].weight = 0, "weights");
        wrong(|plan| plan.targets[0].requests.clear(), "no request");
        wrong(|plan| plan.connections = 1, "1 connections are too few");
        wrong(|plan| plan.connections = usize::MAX, "are more than");
        wrong(|plan| plan.duration = Duration::ZERO, "the duration");
        wrong(|plan| plan.timeouts.request = Duration::MAX, "the timeout");
        wrong(
            |plan| *plan = plan.clone().at_rate(f64::NAN),
            "cannot be scheduled",
        );
        wrong(
            |plan| plan.protocol = Protocol::Http1 { pipeline: 0 },
            "in flight",
        );
        wrong(
            |plan| plan.churn.requests_per_connection = Some(0),
            "above 0",
        );
        wrong(
            |plan| plan.churn.connections_per_second = Some(f64::NAN),
            "above 0",
        );
        wrong(
            |plan| {
                plan.targets[0].requests = vec![Request {
                    headers: vec![("a".to_owned(), Template::literal("x\r\ny"))],
                    ..Request::get(Template::literal("/"))
                }];
            },
            "line break",
        );
        wrong(
            |plan| {
                plan.protocol = Protocol::UdpEcho;
                plan.checks = vec![super::super::Check::Status(vec![200])];
            },
            "UDP answers have no status",
        );
    }
}
