//! How an endpoint is chosen: what each policy needs, prepared when a pool is made.

use std::sync::Arc;

use ballast_model::{BalancePolicy, Weight};

use super::draw::{Bits, Draw};
use super::maglev::{Maglev, Named};
use super::turns::Turns;
use super::{PoolState, Settings, Want};
use crate::table::{Backend, Gate};

/// Pairs that are drawn before every endpoint is looked at.
const ROUNDS: usize = 3;
/// Turns that are passed over before every endpoint is looked at.
const SKIPS: usize = 8;
/// A chance of one.
const ALWAYS: u64 = 1 << 32;
/// Of the draws that meet it, a new endpoint takes at least one in so many.
const COLD: u64 = 10;

/// One member of a pool, as a policy sees it.
#[derive(Debug)]
pub struct Member<'a> {
    /// Its live state.
    pub backend: &'a Arc<Backend>,
    /// Whether it takes requests.
    pub open: bool,
}

/// What chooses among the endpoints of one pool.
#[derive(Debug)]
pub struct Chooser {
    /// No weights, zones, limits, cookies or slow start: the fast path needs no more.
    plain: bool,
    all: Group,
    near: Option<Near>,
    ring: Option<Ring>,
    /// The endpoints' cookies, in order.
    cookies: Vec<(u64, u32)>,
}

/// Endpoints that are drawn from.
#[derive(Debug)]
struct Group {
    endpoints: Vec<Arc<Backend>>,
    draw: Draw,
    turns: Option<Turns>,
}

/// The endpoints of the own zone.
#[derive(Debug)]
struct Near {
    group: Group,
    /// The chance (in 2³²) with which a request stays in the zone.
    chance: u64,
}

/// Every member by hash, those that take nothing now among them.
#[derive(Debug)]
struct Ring {
    table: Arc<Maglev>,
    members: Vec<Arc<Backend>>,
    total_weight: u64,
}

impl Group {
    fn new(endpoints: Vec<Arc<Backend>>, settings: &Settings) -> Self {
        let weights: Vec<Weight> = endpoints.iter().map(|backend| backend.weight()).collect();
        let turns = settings.policy == BalancePolicy::RoundRobin;
        Self {
            draw: Draw::new(&weights),
            turns: turns.then(|| Turns::new(&weights)),
            endpoints,
        }
    }
}

impl Ring {
    fn new(members: &[Member<'_>], state: &PoolState) -> Self {
        let named: Vec<Named> = members
            .iter()
            .map(|member| Named {
                name: member.backend.name(),
                weight: member.backend.weight(),
            })
            .collect();
        let open = members.iter().filter(|member| member.open);
        Self {
            table: state.ring(&named),
            total_weight: open
                .map(|member| u64::from(member.backend.weight().0))
                .sum(),
            members: members.iter().map(|m| Arc::clone(m.backend)).collect(),
        }
    }
}

impl Chooser {
    /// Prepares the choice among these.
    ///
    /// # Complexity
    /// Linear, but for a table of hashes whose members changed.
    pub fn new(members: &[Member<'_>], settings: &Settings, state: &PoolState) -> Self {
        let open = members.iter().filter(|member| member.open);
        let open: Vec<Arc<Backend>> = open.map(|member| Arc::clone(member.backend)).collect();
        state.opened(open.len());
        let near = settings.zones.prefer.then(|| near(members, settings));
        let mut cookies = Vec::new();
        if settings.sticky.is_some() {
            cookies.extend(open.iter().map(|backend| backend.cookie()).zip(0u32..));
            cookies.sort_unstable();
        }
        let all = Group::new(open, settings);
        let limits = settings.limits;
        let plain = settings.policy == BalancePolicy::P2c
            && matches!(all.draw, Draw::Even(_))
            && limits.endpoint_requests == 0
            && limits.endpoint_connections == 0
            && settings.slow_start.is_zero()
            && near.is_none()
            && settings.sticky.is_none();
        let ring = settings.policy.hashes().then(|| Ring::new(members, state));
        Self {
            plain,
            all,
            near: near.flatten(),
            ring,
            cookies,
        }
    }

    /// Returns those that take requests.
    pub fn open(&self) -> &[Arc<Backend>] {
        &self.all.endpoints
    }

    /// Chooses for a request; none if it takes a look at every endpoint to find one.
    pub fn choose<'a>(&'a self, context: &Context<'a>) -> Option<&'a Arc<Backend>> {
        if self.plain {
            return self.choose_plain(context.want);
        }
        let want = context.want;
        if let Some(cookie) = want.sticky
            && let Some(backend) = self.by_cookie(cookie)
            && context.takes(backend)
        {
            return Some(backend);
        }
        if let (Some(hash), Some(ring)) = (want.hash, &self.ring) {
            return ring.choose(hash, context);
        }
        let mut bits = Bits::new(want.random);
        if let Some(near) = &self.near
            && bits.chance(near.chance)
            && let Some(backend) = near.group.choose(&mut bits, context)
        {
            return Some(backend);
        }
        self.all.choose(&mut bits, context)
    }

    /// Of two endpoints, the one with less in flight: the default, and what most requests meet.
    fn choose_plain(&self, want: &Want<'_>) -> Option<&Arc<Backend>> {
        let count = self.all.endpoints.len() as u64;
        if count == 0 {
            return None;
        }
        let usable =
            |backend: &Arc<Backend>| !want.has_tried(backend) && !backend.avoided(want.now);
        // 32 random bits each; the bias of a modulus of a few thousand does not matter here.
        let first = (want.random >> 32) % count;
        let step = 1 + (want.random & 0xffff_ffff) % count.saturating_sub(1).max(1);
        let second = (first + step) % count;
        let at = |index: u64| &self.all.endpoints[usize::try_from(index).unwrap_or(0)];
        match (usable(at(first)), usable(at(second))) {
            (true, true) if at(second).in_flight() < at(first).in_flight() => Some(at(second)),
            (true, _) => Some(at(first)),
            (false, true) => Some(at(second)),
            (false, false) => None,
        }
    }

    fn by_cookie(&self, cookie: u64) -> Option<&Arc<Backend>> {
        let at = self.cookies.binary_search_by_key(&cookie, |&(id, _)| id);
        let (_, place) = self.cookies[at.ok()?];
        self.all.endpoints.get(place as usize)
    }
}

/// The own zone's part of the requests: all of them as long as enough of its endpoints are open.
fn near(members: &[Member<'_>], settings: &Settings) -> Option<Near> {
    let own = members.iter().filter(|member| member.backend.is_near());
    let of_zone = own.clone().count() as u64;
    let open = own.filter(|member| member.open);
    let open: Vec<Arc<Backend>> = open.map(|member| Arc::clone(member.backend)).collect();
    if open.is_empty() {
        return None;
    }
    let needed = of_zone * u64::from(settings.zones.spill_below_percent);
    let chance = (open.len() as u64 * 100 * ALWAYS).checked_div(needed);
    Some(Near {
        chance: chance.unwrap_or(ALWAYS).min(ALWAYS),
        group: Group::new(open, settings),
    })
}

/// What a choice is made with.
#[derive(Debug)]
pub struct Context<'a> {
    /// The request.
    pub want: &'a Want<'a>,
    /// How the pool balances.
    pub settings: &'a Settings,
    /// What is shared with the pools before and after.
    pub state: &'a PoolState,
}

impl Context<'_> {
    /// Whether an endpoint may have the request.
    pub fn takes(&self, backend: &Arc<Backend>) -> bool {
        backend.gate() == Gate::Open
            && !self.want.has_tried(backend)
            && !backend.avoided(self.want.now)
            && !self.is_full(backend)
    }

    /// Whether an endpoint has as much under way as it may.
    pub fn is_full(&self, backend: &Backend) -> bool {
        let limits = &self.settings.limits;
        let full = |limit: u32| limit > 0 && backend.in_flight() >= limit;
        // While fewer requests are in flight than there are connections, one of them is free.
        full(limits.endpoint_requests)
            || full(limits.endpoint_connections)
                && backend.links.len() >= limits.endpoint_connections as usize
    }

    /// Whether a new endpoint takes this draw: the older, the more often.
    fn is_warm(&self, backend: &Backend, bits: &mut Bits) -> bool {
        let span = self.settings.slow_start;
        if span.is_zero() {
            return true;
        }
        let age = backend.age(self.want.now);
        if age >= span {
            return true;
        }
        let part = age.as_micros() * u128::from(ALWAYS) / span.as_micros().max(1);
        let part = u64::try_from(part).unwrap_or(ALWAYS);
        bits.chance(part.max(ALWAYS / COLD))
    }

    /// What an endpoint has to do, by its weight; less is better. Idle endpoints are alike: which
    /// of them is drawn depends on their weights already.
    fn load(&self, backend: &Backend) -> f32 {
        let weight = f32::from(backend.weight().0.max(1)) / f32::from(Weight::DEFAULT.0);
        let work = backend.in_flight() as f32 / weight;
        if self.settings.policy != BalancePolicy::PeakEwma {
            return work;
        }
        let latency = backend.peak_latency(self.want.now);
        // One that has a request and no answer yet is as good as unknown: asked once.
        if latency == 0.0 && work > 0.0 {
            UNKNOWN_MICROS * work
        } else {
            latency * (work + 1.0)
        }
    }
}

/// The latency that an endpoint is taken to have that has been asked and has never answered.
const UNKNOWN_MICROS: f32 = 1e6;

impl Group {
    fn choose<'a>(&'a self, bits: &mut Bits, context: &Context<'_>) -> Option<&'a Arc<Backend>> {
        match (&self.turns, context.settings.policy) {
            (Some(turns), _) => self.choose_in_turn(turns, bits, context),
            (None, BalancePolicy::Random) => self.choose_one(bits, context),
            (None, _) => (0..ROUNDS).find_map(|_| self.choose_of_two(bits, context)),
        }
    }

    fn choose_in_turn<'a>(
        &'a self,
        turns: &Turns,
        bits: &mut Bits,
        context: &Context<'_>,
    ) -> Option<&'a Arc<Backend>> {
        let mut cold = None;
        for _ in 0..SKIPS.min(self.endpoints.len()) {
            let backend = &self.endpoints[turns.place(context.state.turn())?];
            if context.takes(backend) {
                if context.is_warm(backend, bits) {
                    return Some(backend);
                }
                cold = cold.or(Some(backend));
            }
        }
        cold
    }

    fn choose_one<'a>(
        &'a self,
        bits: &mut Bits,
        context: &Context<'_>,
    ) -> Option<&'a Arc<Backend>> {
        let mut cold = None;
        for _ in 0..2 * ROUNDS {
            let backend = self.endpoints.get(self.draw.draw(bits))?;
            if context.takes(backend) {
                if context.is_warm(backend, bits) {
                    return Some(backend);
                }
                cold = cold.or(Some(backend));
            }
        }
        cold
    }

    fn choose_of_two<'a>(
        &'a self,
        bits: &mut Bits,
        context: &Context<'_>,
    ) -> Option<&'a Arc<Backend>> {
        let first = self.draw.draw(bits);
        let second = match &self.draw {
            Draw::Even(count) if *count > 1 => (first + 1 + bits.below(count - 1)) % count,
            draw => draw.draw(bits),
        };
        let first = self.endpoints.get(first)?;
        let second = &self.endpoints[second];
        match (context.takes(first), context.takes(second)) {
            (true, true) => {
                let (warm, other) = (context.is_warm(first, bits), context.is_warm(second, bits));
                let better = context.load(second) < context.load(first);
                Some(if warm == other && better || !warm && other {
                    second
                } else {
                    first
                })
            }
            (true, false) => Some(first),
            (false, true) => Some(second),
            (false, false) => None,
        }
    }
}

impl Ring {
    fn choose(&self, hash: u64, context: &Context<'_>) -> Option<&Arc<Backend>> {
        let bounded = context.settings.policy == BalancePolicy::BoundedHash;
        let mut passed = None;
        for place in self.table.candidates(hash) {
            let Some(backend) = self.members.get(place) else {
                continue;
            };
            if !context.takes(backend) {
                continue;
            }
            if !bounded || self.is_within(backend, context) {
                return Some(backend);
            }
            passed = passed.or(Some(backend));
        }
        // All that were looked at have their share and more: as good as the first.
        passed
    }

    /// Whether one more keeps an endpoint within its share of what is in flight, this request
    /// included.
    ///
    /// # Source
    /// Mirrokni, Thorup, Zadimoghaddam: Consistent Hashing with Bounded Loads, SODA'18.
    fn is_within(&self, backend: &Backend, context: &Context<'_>) -> bool {
        let all = u64::from(context.state.in_flight());
        let weight = u64::from(backend.weight().0);
        let percent = u64::from(context.settings.bound_percent);
        let share = (all * percent * weight).div_ceil(100 * self.total_weight.max(1));
        u64::from(backend.in_flight()) < share.max(1)
    }
}
