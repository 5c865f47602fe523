//! Many exchanges, cut into pieces and broken off at random.

use std::collections::HashMap;
use std::sync::Arc;

use ballast_http1::{BodyReader, Limits, RequestKind, Scratch, parse_request, parse_response};
use ballast_model::{Millis, RouteRule};
use proptest::prelude::*;

use super::world::Case;
use crate::route::Route;

/// One request of a client.
#[derive(Debug, Clone)]
struct Asking {
    method: &'static str,
    body: usize,
    chunked: bool,
}

/// How the world is today.
#[derive(Debug, Clone)]
struct Weather {
    /// Of 256 steps of an endpoint, so many break its connection.
    breaks: u8,
    /// Of 256 connections, so many are refused.
    refuses: u8,
    /// Answers come in chunks.
    chunked: bool,
    /// Of 256 moments, in so many time passes until a second endpoint is asked.
    slow: u8,
}

/// After which a second endpoint is asked.
const HEDGE: Millis = Millis(20);

fn asking() -> impl Strategy<Value = Asking> {
    let methods = prop::sample::select(vec!["GET", "HEAD", "POST", "PUT", "DELETE"]);
    (methods, 0..2000usize, any::<bool>()).prop_map(|(method, body, chunked)| Asking {
        method,
        body: if matches!(method, "GET" | "HEAD") {
            0
        } else {
            body
        },
        chunked,
    })
}

fn text_of(number: usize, asking: &Asking) -> String {
    let (method, body) = (asking.method, "b".repeat(asking.body));
    let head = format!("{method} /{number} HTTP/1.1\r\nhost: a\r\n");
    if asking.body == 0 {
        format!("{head}\r\n")
    } else if asking.chunked {
        format!(
            "{head}transfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
            asking.body
        )
    } else {
        format!("{head}content-length: {}\r\n\r\n{body}", asking.body)
    }
}

/// Dice that are cast by a seed.
struct Dice(u64);

impl Dice {
    fn cast(&mut self, sides: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        usize::try_from(self.0 >> 33).expect("31 bits") % sides.max(1)
    }
}

/// An endpoint's side of one connection.
#[derive(Default)]
struct Serving {
    /// How much of what it got it has read.
    read: usize,
    /// What it will say.
    saying: Vec<u8>,
}

/// Everything outside of the machine.
struct Play {
    case: Case,
    dice: Dice,
    weather: Weather,
    serving: Vec<Serving>,
    /// How often each request was begun, by its number.
    begun: HashMap<usize, usize>,
    faults: usize,
}

impl Play {
    /// Reads the next whole request of a connection, and prepares the answer. A request counts as
    /// executed as soon as its head is there.
    fn serve(&mut self, link: usize) {
        let (limits, mut scratch) = (Limits::default(), Scratch::default());
        let serving = &mut self.serving[link];
        let bytes = &self.case.world.links[link].got[serving.read..];
        let Some(request) = parse_request(bytes, &mut scratch, &limits).expect("is valid") else {
            return;
        };
        let number: usize = request.path()[1..].parse().expect("a number");
        let mut reader = BodyReader::new(request.body());
        let head = request.head_len();
        let body = reader.skim(&bytes[head..], &limits).expect("is valid");
        if !reader.is_done() {
            return;
        }
        serving.read += head + body.taken;
        *self.begun.entry(number).or_default() += 1;
        let text = format!("{number}:{}", body.payload);
        let text = text.repeat(1 + number % 40);
        let bodiless = request.method().as_str() == "HEAD";
        let answer = if self.weather.chunked {
            let body = format!("{:x}\r\n{text}\r\n0\r\n\r\n", text.len());
            let body = if bodiless { String::new() } else { body };
            format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{body}")
        } else {
            let body = if bodiless { "" } else { &text };
            format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
                text.len()
            )
        };
        serving.saying.extend_from_slice(answer.as_bytes());
    }

    /// Does one thing at a connection to an endpoint; returns whether there was one to do.
    fn step(&mut self, link: usize) -> bool {
        let state = &self.case.world.links[link];
        if state.gone || state.idle {
            return false;
        }
        if !state.connected {
            let fine = self.dice.cast(256) >= usize::from(self.weather.refuses);
            self.faults += usize::from(!fine);
            self.case.link_connects(link, fine);
            return true;
        }
        self.serve(link);
        if self.dice.cast(256) < usize::from(self.weather.breaks) {
            self.faults += 1;
            let broken = self.dice.cast(2) == 0;
            self.case.link_ends(link, broken);
            return true;
        }
        let saying = &mut self.serving[link].saying;
        if saying.is_empty() || self.case.world.links[link].paused {
            return false;
        }
        let piece: Vec<u8> = saying.drain(..=self.dice.cast(saying.len())).collect();
        self.case.link(link, piece);
        true
    }

    /// Lets time pass until a second endpoint is asked, if that is next.
    fn hedge(&mut self) {
        let soon = self.case.world.now + HEDGE.to_duration();
        if self.case.world.route.is_some()
            && self.case.machine.is_busy()
            && self.case.machine.deadline() <= soon
            && self.dice.cast(256) < usize::from(self.weather.slow)
        {
            self.case.wait();
        }
    }

    /// Plays until nothing happens any more.
    fn run(&mut self, mut asked: &[u8]) {
        for _ in 0..100_000 {
            let mut moved = false;
            if !asked.is_empty()
                && !self.case.world.client_paused
                && self.case.world.closed.is_none()
            {
                let (piece, rest) = asked.split_at(1 + self.dice.cast(asked.len().min(300)));
                asked = rest;
                self.case.client(piece);
                moved = true;
            }
            self.serving
                .resize_with(self.case.world.links.len(), Serving::default);
            self.hedge();
            self.serving
                .resize_with(self.case.world.links.len(), Serving::default);
            for link in 0..self.serving.len() {
                moved |= self.step(link);
            }
            if moved {
                continue;
            }
            if self.case.world.closed.is_some() || !self.case.machine.is_busy() {
                return;
            }
            // Waiting for an endpoint, all of which were tried.
            self.faults += 1;
            self.case.wait();
        }
        panic!("it does not come to an end");
    }
}

/// Reads what the client was told: the status of each answer that is whole, in order.
fn answers(told: &[u8], askings: &[Asking]) -> Vec<u16> {
    let (limits, mut scratch) = (Limits::default(), Scratch::default());
    let mut at = 0;
    let mut statuses = Vec::new();
    for (number, asking) in askings.iter().enumerate() {
        let kind = if asking.method == "HEAD" {
            RequestKind::Head
        } else {
            RequestKind::Other
        };
        let parsed = parse_response(&told[at..], &mut scratch, kind, &limits).expect("is valid");
        let Some(response) = parsed else {
            break;
        };
        at += response.head_len();
        let mut reader = BodyReader::new(response.body());
        let mut body = Vec::new();
        while at < told.len() && !reader.is_done() {
            let fed = reader.feed(&told[at..], &limits).expect("is valid");
            body.extend_from_slice(&told[at + fed.data.start..at + fed.data.end]);
            at += fed.taken;
        }
        if !reader.is_done() {
            break;
        }
        if response.status() == 200 && kind == RequestKind::Other {
            let text = format!("{number}:{}", asking.body).repeat(1 + number % 40);
            assert_eq!(
                String::from_utf8_lossy(&body),
                text,
                "the answer of request {number}"
            );
        }
        statuses.push(response.status());
    }
    statuses
}

fn play(askings: &[Asking], weather: Weather, seed: u64) -> Result<(), TestCaseError> {
    let mut case = Case::new(3);
    case.world.eager = seed.is_multiple_of(3);
    case.world.route = (weather.slow > 0).then(|| {
        let mut rule = RouteRule::new(None, "/");
        rule.then.timeouts.hedge = Some(HEDGE);
        Arc::new(Route::new(rule))
    });
    let mut play = Play {
        case,
        dice: Dice(seed),
        weather,
        serving: Vec::new(),
        begun: HashMap::new(),
        faults: 0,
    };
    let texts = askings.iter().enumerate();
    let asked: String = texts
        .map(|(number, asking)| text_of(number, asking))
        .collect();
    play.run(asked.as_bytes());
    let statuses = answers(&play.case.world.told, askings);
    for (number, asking) in askings.iter().enumerate() {
        let begun = play.begun.get(&number).copied().unwrap_or(0);
        if asking.method == "POST" {
            prop_assert!(begun <= 1, "POST {} was executed {} times", number, begun);
        }
        if statuses.get(number) == Some(&200) {
            prop_assert!(
                begun >= 1,
                "request {} was answered and not executed",
                number
            );
        }
    }
    if play.faults == 0 {
        prop_assert_eq!(statuses, vec![200; askings.len()]);
        prop_assert!(play.case.world.closed.is_none());
    }
    prop_assert!(!play.case.machine.is_busy());
    prop_assert_eq!(play.case.world.in_flight(), 0, "nothing is left in flight");
    prop_assert_eq!(
        play.case
            .world
            .links
            .iter()
            .filter(|link| !link.gone && !link.idle)
            .count(),
        0,
        "no connection is left behind"
    );
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn prop_every_request_is_answered_in_order_however_the_bytes_are_cut(
        askings in prop::collection::vec(asking(), 1..6),
        chunked in any::<bool>(),
        slow in 0..200u8,
        seed in any::<u64>(),
    ) {
        play(&askings, Weather { breaks: 0, refuses: 0, chunked, slow }, seed)?;
    }

    #[test]
    fn prop_no_post_runs_twice_and_nothing_is_left_behind_when_endpoints_fail(
        askings in prop::collection::vec(asking(), 1..6),
        breaks in 0..120u8,
        refuses in 0..120u8,
        chunked in any::<bool>(),
        slow in 0..200u8,
        seed in any::<u64>(),
    ) {
        play(&askings, Weather { breaks, refuses, chunked, slow }, seed)?;
    }

    #[test]
    fn prop_whatever_a_client_sends_no_bytes_break_the_machine(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..12),
        valid in any::<bool>(),
    ) {
        let mut case = Case::new(2);
        if valid {
            case.client("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n");
        }
        for piece in &pieces {
            if case.world.closed.is_none() {
                case.client(piece);
            }
        }
        if case.world.closed.is_none() {
            case.client_ends(true);
        }
        prop_assert!(case.world.closed.is_some() || case.world.handed_over);
        prop_assert_eq!(case.world.in_flight(), 0);
    }

    #[test]
    fn prop_whatever_an_endpoint_sends_no_bytes_break_the_machine(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..12),
        start in prop::sample::select(vec![
            "", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 40\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\n",
        ]),
    ) {
        let mut case = Case::new(1);
        case.client("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n");
        case.link(0, start);
        for piece in &pieces {
            if !case.world.links[0].gone && !case.world.links[0].idle {
                case.link(0, piece);
            }
        }
        if !case.world.links[0].gone && !case.world.links[0].idle {
            case.link_ends(0, true);
        }
        prop_assert!(!case.machine.is_busy());
        prop_assert_eq!(case.world.in_flight(), 0);
    }
}
