//! A world without sockets: what a machine wants is written down, and endpoints are vectors.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::Guard;
use ballast_http1::{Limits, Request};
use ballast_model::{AssignmentId, NodeId, Protocol, ServiceId};

use super::super::{
    Asked, Closing, Connection, Desk, Ended, Input, Routed, Shell, Side, Story, Way,
};
use crate::hub::{Hub, Place};
use crate::l7::{Entrance, Hops, Timeouts};
use crate::policy::{Affinity, Attempt, Outcome, Refused, Want};
use crate::route::Route;
use crate::table::{Backend, Gate, InFlight, Member, MemberState, Moment, Pool, PoolKey};

/// A connection to an endpoint.
#[derive(Debug, Default)]
pub struct Link {
    /// Which endpoint.
    pub endpoint: usize,
    /// What it was sent.
    pub got: Vec<u8>,
    pub connected: bool,
    pub paused: bool,
    /// It was told the end.
    pub shut: bool,
    /// It is closed.
    pub gone: bool,
    /// It waits for another request.
    pub idle: bool,
}

/// What surrounds a machine.
#[derive(Debug)]
pub struct World {
    pub now: Instant,
    pub timeouts: Timeouts,
    pub limits: Limits,
    pub hub: Arc<Hub>,
    pub pool: Arc<Pool>,
    pub routed: bool,
    pub draining: bool,
    pub random: u64,
    /// New connections are there at once.
    pub eager: bool,
    pub links: Vec<Link>,
    /// What the client was sent.
    pub told: Vec<u8>,
    pub client_paused: bool,
    pub client_shut: bool,
    pub closed: Option<Closing>,
    pub handed_over: bool,
    /// Bytes that neither side's kernel takes.
    pub clogged: usize,
    pub ended: Vec<Ended>,
    pub outcomes: Vec<Outcome>,
    pub retries: usize,
    /// Between attempts.
    pub pause: Duration,
    /// What the next request's route does.
    pub way: Way,
    /// What every other request's does.
    pub route: Option<Arc<Route>>,
    pub hops: Arc<Hops>,
}

/// Returns a pool of endpoints that take requests.
pub fn pool(endpoints: u16) -> Arc<Pool> {
    let members = (0..endpoints).map(|number| {
        let address = ([127, 0, 0, 1], 9000 + number).into();
        let assignment = AssignmentId::from_bits(u64::from(number) + 1);
        let backend = Backend::new(assignment, NodeId::from_bits(1), address);
        backend.set_gate(Gate::Open);
        Member {
            backend: Arc::new(backend),
            state: MemberState::Ready,
        }
    });
    let key = PoolKey {
        service: ServiceId::from_bits(1),
        port: "http".into(),
    };
    let members = members.collect();
    Arc::new(Pool::new(key, "web".into(), Protocol::Http, members))
}

impl World {
    pub fn new(endpoints: u16) -> Self {
        Self {
            now: Instant::now(),
            timeouts: Timeouts::default(),
            limits: Limits::default(),
            hub: Hub::new(),
            pool: pool(endpoints),
            routed: true,
            draining: false,
            random: 1,
            eager: true,
            links: Vec::new(),
            told: Vec::new(),
            client_paused: false,
            client_shut: false,
            closed: None,
            handed_over: false,
            clogged: 0,
            ended: Vec::new(),
            outcomes: Vec::new(),
            retries: 0,
            pause: Duration::ZERO,
            way: Way::default(),
            route: None,
            hops: Arc::default(),
        }
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.told).into_owned()
    }

    /// Returns what the link was sent, as text.
    pub fn sent(&self, link: usize) -> String {
        String::from_utf8_lossy(&self.links[link].got).into_owned()
    }

    pub fn in_flight(&self) -> u32 {
        let members = self.pool.members.iter();
        members.map(|member| member.backend.in_flight()).sum()
    }

    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_mul(0x5851_f42d_4c95_7f2d) + 0x1405_7b7e;
        self.random.rotate_left(31)
    }
}

impl Shell for World {
    type Link = usize;

    fn hops(&self) -> Guard<Arc<Hops>> {
        Guard::from_inner(Arc::clone(&self.hops))
    }

    fn now(&self) -> Instant {
        self.now
    }

    fn timeouts(&self) -> &Timeouts {
        &self.timeouts
    }

    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn route(&mut self, _asked: &Asked<'_>) -> Routed {
        if self.routed {
            let mut way = std::mem::take(&mut self.way);
            way.route = way.route.or_else(|| self.route.clone());
            Routed::To(Arc::clone(&self.pool), way)
        } else {
            Routed::Nowhere
        }
    }

    fn begin(
        &mut self,
        pool: &Arc<Pool>,
        affinity: Affinity,
        tried: &[Arc<Backend>],
    ) -> Result<InFlight, Refused> {
        let random = self.next_random();
        let want = Want::any(random, self.hub.moment(self.now), tried);
        pool.begin(&want.with(affinity))
    }

    fn begin_hedge(
        &mut self,
        pool: &Arc<Pool>,
        affinity: Affinity,
        asked: &[Arc<Backend>],
        attempt: &Attempt,
    ) -> Option<InFlight> {
        let hedges = attempt.may_retry(4);
        hedges
            .then(|| self.begin(pool, affinity, asked).ok())
            .flatten()
    }

    fn backoff(&mut self, _pool: &Pool, _attempts: usize) -> Duration {
        self.pause
    }

    fn newest(&mut self, _pool: &Pool) -> Option<Arc<Pool>> {
        Some(Arc::clone(&self.pool))
    }

    fn hold(&mut self) -> Option<Place> {
        self.hub.hold()
    }

    fn responded(&mut self, backend: &Backend, latency: Duration) {
        backend.responded(latency, Moment(1));
    }

    fn progressed(&mut self, backend: &Backend) {
        backend.progressed(Moment(1));
    }

    fn judge(&mut self, flight: InFlight, outcome: Outcome) {
        self.outcomes.push(outcome);
        drop(flight);
    }

    fn may_retry(&mut self, _pool: &Pool, attempt: &Attempt) -> bool {
        let retry = attempt.may_retry(4);
        self.retries += usize::from(retry);
        retry
    }

    fn story(&mut self, _: &Request<'_>, _: IpAddr, _: bool) -> Option<Box<Story>> {
        None
    }

    fn finished(&mut self, _pool: Option<&Arc<Pool>>, ended: Ended, _story: Option<&Story>) {
        self.ended.push(ended);
    }

    fn draining(&self) -> bool {
        self.draining
    }

    fn dial(&mut self, backend: &Arc<Backend>) -> Option<(usize, bool)> {
        let endpoint = usize::from(backend.address.port()) - 9000;
        let idle = |link: &Link| link.idle && link.endpoint == endpoint;
        if let Some(place) = self.links.iter().position(idle) {
            self.links[place].idle = false;
            return Some((place, true));
        }
        self.links.push(Link {
            endpoint,
            connected: self.eager,
            ..Link::default()
        });
        Some((self.links.len() - 1, self.eager))
    }

    fn release(&mut self, link: usize) {
        assert!(!self.links[link].gone && !self.links[link].idle);
        self.links[link].idle = true;
    }

    fn discard(&mut self, link: usize) {
        self.links[link].gone = true;
    }

    fn send(&mut self, to: Side<usize>, bytes: &[u8]) {
        match to {
            Side::Client => {
                assert!(self.closed.is_none(), "nothing is sent to who is gone");
                self.told.extend_from_slice(bytes);
            }
            Side::Link(link) => {
                assert!(
                    !self.links[link].gone,
                    "nothing is sent on a closed connection"
                );
                self.links[link].got.extend_from_slice(bytes);
            }
        }
    }

    fn pass(&mut self, to: Side<usize>, input: Input<'_>, part: Range<usize>) {
        self.send(to, &input.bytes[part]);
    }

    fn unsent(&self, _to: Side<usize>) -> usize {
        self.clogged
    }

    fn pause(&mut self, from: Side<usize>) {
        match from {
            Side::Client => self.client_paused = true,
            Side::Link(link) => self.links[link].paused = true,
        }
    }

    fn resume(&mut self, from: Side<usize>) {
        match from {
            Side::Client => self.client_paused = false,
            Side::Link(link) => self.links[link].paused = false,
        }
    }

    fn shutdown(&mut self, to: Side<usize>) {
        match to {
            Side::Client => self.client_shut = true,
            Side::Link(link) => self.links[link].shut = true,
        }
    }

    fn close(&mut self, how: Closing) {
        assert!(self.closed.is_none(), "closed twice");
        self.closed = Some(how);
    }

    fn hand_over(&mut self) {
        self.handed_over = true;
    }
}

/// A client's machine in its world.
#[derive(Debug)]
pub struct Case {
    pub machine: Connection<usize>,
    pub desk: Desk<usize>,
    pub world: World,
}

impl Case {
    pub fn new(endpoints: u16) -> Self {
        let world = World::new(endpoints);
        let client = Ipv4Addr::new(192, 0, 2, 7).into();
        Self {
            machine: Connection::new(client, Entrance::Shared, world.now),
            desk: Desk::default(),
            world,
        }
    }

    pub fn client(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        let (desk, world) = (&mut self.desk, &mut self.world);
        self.machine.client_received(bytes.as_ref(), desk, world);
        self
    }

    pub fn client_ends(&mut self, broken: bool) -> &mut Self {
        let (desk, world) = (&mut self.desk, &mut self.world);
        self.machine.client_ended(broken, desk, world);
        self
    }

    pub fn link(&mut self, link: usize, bytes: impl AsRef<[u8]>) -> &mut Self {
        let (desk, world) = (&mut self.desk, &mut self.world);
        self.machine
            .link_received(link, bytes.as_ref(), desk, world);
        self
    }

    pub fn link_connects(&mut self, link: usize, fine: bool) -> &mut Self {
        self.world.links[link].connected = fine;
        let result = if fine {
            Ok(())
        } else {
            Err(std::io::ErrorKind::ConnectionRefused.into())
        };
        let (desk, world) = (&mut self.desk, &mut self.world);
        self.machine.link_connected(link, result, desk, world);
        self
    }

    pub fn link_ends(&mut self, link: usize, broken: bool) -> &mut Self {
        let (desk, world) = (&mut self.desk, &mut self.world);
        self.machine.link_ended(link, broken, desk, world);
        self
    }

    /// Lets time pass until something is due.
    pub fn wait(&mut self) -> &mut Self {
        self.world.now = self.machine.deadline();
        let (desk, world) = (&mut self.desk, &mut self.world);
        self.machine.expired(desk, world);
        self
    }
}
