//! One exchange at a time.

use std::sync::Arc;
use std::time::Duration;

use ballast_model::{Bytes, RouteRule};

use super::super::Way;
use super::world::Case;
use crate::l7::h1::machine::Closing;
use crate::policy::Outcome;
use crate::route::Route;
use crate::table::Gate;

const GET: &str = "GET /a HTTP/1.1\r\nhost: a.test\r\n\r\n";
const POST: &str = "POST /a HTTP/1.1\r\nhost: a.test\r\ncontent-length: 4\r\n\r\nbody";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\none";

#[test]
fn answer_of_an_endpoint_goes_to_the_client_as_it_came_and_both_connections_stay() {
    let mut case = Case::new(1);
    case.client(GET);
    assert_eq!(
        case.world.sent(0),
        "GET /a HTTP/1.1\r\nhost: a.test\r\nx-forwarded-for: 192.0.2.7\r\n\
         x-forwarded-proto: http\r\nx-forwarded-host: a.test\r\nx-forwarded-port: 80\r\n\
         x-real-ip: 192.0.2.7\r\n\r\n"
    );
    assert_eq!(case.world.in_flight(), 1);
    case.link(0, OK);
    assert_eq!(case.world.text(), OK);
    assert!(case.world.links[0].idle && case.world.closed.is_none());
    assert_eq!(case.world.in_flight(), 0);
    assert_eq!(case.world.outcomes, [Outcome::Status(200)]);
    case.client(GET).link(0, OK);
    assert_eq!(case.world.links.len(), 1, "the connection is used again");
    assert_eq!(case.world.ended.len(), 2);
}

#[test]
fn bodies_pass_in_pieces_as_they_come() {
    let mut case = Case::new(1);
    case.client("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbo");
    let head = case.world.sent(0);
    assert!(
        head.contains("\r\ntransfer-encoding: chunked\r\n"),
        "{head}"
    );
    assert!(head.ends_with("\r\n\r\n4\r\nbo"), "{head}");
    case.client("dy\r\n0\r\n").client("x: y\r\n\r\n");
    let sent = case.world.sent(0);
    assert!(sent.ends_with("4\r\nbody\r\n0\r\nx: y\r\n\r\n"), "{sent}");
    for piece in [
        "HTTP/1.1 200",
        " OK\r\ntransfer-encoding: chun",
        "ked\r\n\r\n3\r\no",
        "ne\r\n0\r\n\r\n",
    ] {
        case.link(0, piece);
    }
    let told = case.world.text();
    assert!(told.ends_with("\r\n\r\n3\r\none\r\n0\r\n\r\n"), "{told}");
    assert!(case.world.links[0].idle);
    let traffic = case.world.ended[0].traffic;
    assert_eq!((traffic.received, traffic.sent), (4, 3));
}

#[test]
fn pipelined_requests_are_answered_in_order_and_the_client_waits_meanwhile() {
    let mut case = Case::new(1);
    case.client(format!("{POST}{GET}GET /c HTTP/1.1\r\nho"));
    assert!(case.world.client_paused);
    assert!(case.world.sent(0).ends_with("body"));
    case.link(0, OK);
    assert!(case.world.sent(0).contains("GET /a "), "the second is sent");
    case.link(0, OK);
    assert!(!case.world.client_paused);
    case.client("st: a\r\n\r\n").link(0, OK);
    assert_eq!(case.world.text(), OK.repeat(3));
}

#[test]
fn old_client_gets_no_chunks_and_no_interim_answer() {
    let mut case = Case::new(1);
    case.client("GET / HTTP/1.0\r\n\r\n");
    let sent = case.world.sent(0);
    assert!(sent.contains(" HTTP/1.1\r\nhost: web\r\n"), "{sent}");
    case.link(0, "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n");
    case.link(
        0,
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\non\r\n1\r\ne\r\n0\r\n\r\n",
    );
    let told = case.world.text();
    assert_eq!(told, "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\none");
    assert_eq!(case.world.closed, Some(Closing::Sent));
}

#[test]
fn answer_without_a_length_ends_with_both_connections_unless_it_breaks() {
    for broken in [false, true] {
        let mut case = Case::new(1);
        case.client(GET);
        case.link(0, "HTTP/1.1 200 OK\r\n\r\nhal").link(0, "f");
        case.link_ends(0, broken);
        assert!(
            case.world
                .text()
                .ends_with("\r\nconnection: close\r\n\r\nhalf")
        );
        let closing = if broken {
            Closing::Reset
        } else {
            Closing::Sent
        };
        assert_eq!(case.world.closed, Some(closing));
        assert!(case.world.links[0].gone);
    }
}

#[test]
fn client_that_waits_for_permission_gets_the_endpoints() {
    let mut case = Case::new(1);
    case.client("PUT / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n");
    assert!(case.world.sent(0).contains("expect: 100-continue"));
    case.link(0, "HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(case.world.text(), "HTTP/1.1 100 Continue\r\n\r\n");
    case.client("body").link(0, OK);
    assert!(case.world.text().ends_with(OK));
    assert!(case.world.links[0].idle && case.world.closed.is_none());
}

#[test]
fn answer_before_the_whole_request_ends_both_connections() {
    let mut case = Case::new(1);
    case.client("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nbo");
    case.link(0, "HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n");
    assert!(case.world.text().starts_with("HTTP/1.1 413"));
    assert_eq!(case.world.closed, Some(Closing::Sent));
    assert!(case.world.links[0].gone);
}

#[test]
fn get_moves_on_and_post_does_not_when_an_endpoint_breaks_off() {
    let mut case = Case::new(2);
    case.client(GET).link_ends(0, false);
    assert_eq!(case.world.links.len(), 2);
    assert_ne!(case.world.links[0].endpoint, case.world.links[1].endpoint);
    case.link(1, OK);
    assert_eq!((case.world.text().as_str(), case.world.retries), (OK, 1));
    assert_eq!(case.world.outcomes, [Outcome::Reset, Outcome::Status(200)]);

    let mut case = Case::new(2);
    case.client(POST).link_ends(0, true);
    assert_eq!(case.world.links.len(), 1, "it may have been executed");
    let told = case.world.text();
    assert!(told.starts_with("HTTP/1.1 502 "), "{told}");
    assert!(told.contains("x-ballast-reason: endpoint-failed"), "{told}");
    assert_eq!(case.world.closed, Some(Closing::Sent));
    assert_eq!(case.world.in_flight(), 0);
}

#[test]
fn post_whose_connection_was_refused_goes_elsewhere_with_its_body() {
    let mut case = Case::new(2);
    case.world.eager = false;
    case.client("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbo");
    case.link_connects(0, false);
    case.client("dy");
    case.link_connects(1, true);
    let sent = case.world.sent(1);
    assert!(sent.ends_with("\r\n\r\nbody"), "{sent}");
    case.link(1, OK);
    assert_eq!(case.world.text(), OK);
}

#[test]
fn half_an_answer_is_never_ended_as_if_it_were_whole() {
    for half in [
        "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ] {
        let mut case = Case::new(2);
        case.client(GET).link(0, half).link_ends(0, false);
        assert_eq!(case.world.closed, Some(Closing::Reset), "{half}");
        assert_eq!(case.world.links.len(), 1, "not sent again");
        assert_eq!(case.world.in_flight(), 0);
    }
}

#[test]
fn half_a_head_is_no_answer_yet() {
    let mut case = Case::new(2);
    case.client(GET)
        .link(0, "HTTP/1.1 200 OK\r\nx: ")
        .link_ends(0, false);
    case.link(1, OK);
    assert_eq!(case.world.text(), OK);
}

#[test]
fn what_is_no_http_from_an_endpoint_is_a_failure_of_it() {
    let mut case = Case::new(1);
    case.client(POST).link(0, "SSH-2.0-OpenSSH_9.6\r\n");
    assert!(case.world.text().starts_with("HTTP/1.1 502 "));
    assert!(case.world.links[0].gone);
}

#[test]
fn request_waits_for_an_endpoint_and_goes_to_the_one_that_opens() {
    let mut case = Case::new(1);
    let backend = case.world.pool.members[0].backend.clone();
    backend.set_gate(Gate::Closed);
    case.client(POST);
    assert!(case.machine.is_waiting() && case.world.links.is_empty());
    backend.set_gate(Gate::Open);
    let (desk, world) = (&mut case.desk, &mut case.world);
    case.machine.table_changed(desk, world);
    case.link(0, OK);
    assert_eq!(case.world.text(), OK);

    let mut case = Case::new(1);
    case.world.pool.members[0].backend.set_gate(Gate::Closed);
    case.client(GET).wait();
    let told = case.world.text();
    assert!(told.contains("x-ballast-reason: no-endpoint"), "{told}");
}

#[test]
fn silent_endpoint_costs_a_get_its_time_and_a_post_its_answer() {
    let mut case = Case::new(2);
    case.client(GET).wait();
    case.link(1, OK);
    assert_eq!(case.world.text(), OK);
    assert_eq!(case.world.outcomes[0], Outcome::Timeout);
    let mut case = Case::new(2);
    case.client(POST).wait();
    assert!(case.world.text().starts_with("HTTP/1.1 504 "));
}

#[test]
fn slow_head_is_answered_408_and_an_idle_connection_just_ends() {
    let mut case = Case::new(1);
    case.client("GET / HT").wait();
    assert!(case.world.text().starts_with("HTTP/1.1 408 "));
    let mut case = Case::new(1);
    case.client(GET).link(0, OK).wait();
    assert_eq!(case.world.text(), OK);
    assert_eq!(case.world.closed, Some(Closing::Sent));
}

#[test]
fn what_is_not_http_is_refused_with_the_rule_and_nothing_after_it_is_read() {
    let mut case = Case::new(1);
    case.client(format!(
        "GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n{GET}"
    ));
    let told = case.world.text();
    assert!(told.starts_with("HTTP/1.1 400 "), "{told}");
    assert!(told.contains("x-ballast-reason: bad-request"), "{told}");
    assert_eq!(case.world.closed, Some(Closing::Sent));
    assert!(case.world.links.is_empty());
}

#[test]
fn chunk_that_breaks_the_rules_ends_the_request_and_its_endpoints_connection() {
    let mut case = Case::new(1);
    case.client("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n");
    case.client("4\r\nbody\r\nnonsense\r\n");
    assert!(case.world.text().starts_with("HTTP/1.1 400 "));
    assert!(case.world.links[0].gone);
    assert_eq!(case.world.in_flight(), 0);
}

#[test]
fn http2_and_its_bytes_are_given_away_whole() {
    let mut case = Case::new(1);
    case.client("PRI * HT")
        .client("TP/2.0\r\n\r\nSM\r\n\r\nmore");
    assert!(case.world.handed_over);
    case.client(" still");
    let held = case.machine.into_held();
    assert_eq!(held, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nmore still");
}

#[test]
fn other_protocol_passes_both_ways_until_both_have_ended() {
    let mut case = Case::new(1);
    case.client("GET /ws HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
    let sent = case.world.sent(0);
    assert!(
        sent.contains("connection: upgrade\r\nupgrade: websocket\r\n"),
        "{sent}"
    );
    case.link(
        0,
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nhi",
    );
    case.client("hello");
    assert!(case.world.sent(0).ends_with("\r\n\r\nhello"));
    assert!(case.world.text().ends_with("\r\n\r\nhi"));
    case.link_ends(0, false);
    assert!(case.world.client_shut && case.world.closed.is_none());
    assert_eq!(
        case.world.in_flight(),
        1,
        "it is under way as long as it lasts"
    );
    case.client("bye");
    assert!(case.world.sent(0).ends_with("hellobye"));
    case.client_ends(false);
    assert_eq!(case.world.closed, Some(Closing::Sent));
    assert_eq!(case.world.in_flight(), 0);
    assert_eq!(case.world.ended[0].status, 101);
}

#[test]
fn client_that_leaves_takes_its_request_with_it_and_one_that_half_closes_is_answered() {
    let mut case = Case::new(1);
    case.client(GET).client_ends(true);
    assert!(case.world.links[0].gone);
    assert_eq!(case.world.ended[0].status, 499);
    assert_eq!(case.world.in_flight(), 0);
    let mut case = Case::new(1);
    case.client(GET).client_ends(false).link(0, OK);
    assert!(case.world.text().ends_with("one"));
    assert_eq!(case.world.closed, Some(Closing::Sent));
}

#[test]
fn reader_that_does_not_read_stops_the_writer_on_either_side() {
    let mut case = Case::new(1);
    case.world.clogged = usize::MAX;
    case.client(GET);
    case.link(0, "HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\nx");
    assert!(case.world.links[0].paused);
    case.machine.client_sent(&mut case.world);
    assert!(!case.world.links[0].paused);
    let mut case = Case::new(1);
    case.world.clogged = usize::MAX;
    case.client("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 99\r\n\r\nx");
    case.client("y");
    assert!(case.world.client_paused);
    case.machine.link_sent(0, &mut case.world);
    assert!(!case.world.client_paused);
}

#[test]
fn draining_ends_idle_connections_at_once_and_others_with_their_answer() {
    let mut case = Case::new(1);
    case.client(GET);
    case.world.draining = true;
    case.machine.drain(&mut case.world);
    assert_eq!(case.world.closed, None);
    case.link(0, OK);
    assert!(case.world.text().contains("connection: close\r\n"));
    assert_eq!(case.world.closed, Some(Closing::Sent));
    let mut case = Case::new(1);
    case.world.draining = true;
    case.machine.drain(&mut case.world);
    assert_eq!(case.world.closed, Some(Closing::Sent));
}

#[test]
fn own_answer_to_a_head_has_no_body_and_keeps_the_connection() {
    let mut case = Case::new(1);
    case.world.routed = false;
    case.client("HEAD / HTTP/1.1\r\nhost: a\r\n\r\n");
    let told = case.world.text();
    assert!(
        told.starts_with("HTTP/1.1 404 ") && told.ends_with("\r\n\r\n"),
        "{told}"
    );
    assert_eq!(case.world.closed, None);
    case.client("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\n");
    assert_eq!(
        case.world.closed,
        Some(Closing::Sent),
        "its body is not read"
    );
}

#[test]
fn fields_for_this_hop_stop_here_in_both_directions() {
    let mut case = Case::new(1);
    case.client(
        "GET http://a.test/x?y HTTP/1.1\r\nhost: a.test\r\nconnection: keep-alive, x-drop\r\n\
         x-drop: 1\r\nte: trailers\r\nx-forwarded-for: 1.2.3.4\r\nx-forwarded-proto: gopher\r\n\r\n",
    );
    assert_eq!(
        case.world.sent(0),
        "GET /x?y HTTP/1.1\r\nhost: a.test\r\nx-forwarded-for: 192.0.2.7\r\n\
         x-forwarded-proto: http\r\nx-forwarded-host: a.test\r\nx-forwarded-port: 80\r\n\
         x-real-ip: 192.0.2.7\r\n\r\n"
    );
    case.link(
        0,
        "HTTP/1.1 204 No Content\r\nkeep-alive: 5\r\nconnection: x-own\r\nx-own: 1\r\nx: y\r\n\r\n",
    );
    assert_eq!(case.world.text(), "HTTP/1.1 204 No Content\r\nx: y\r\n\r\n");
}

/// A way over a route of this rule.
fn way(change: impl FnOnce(&mut RouteRule)) -> Way {
    let mut rule = RouteRule::new(None, "/");
    change(&mut rule);
    Way {
        route: Some(Arc::new(Route::new(rule))),
        ..Way::default()
    }
}

#[test]
fn route_changes_target_and_fields_in_both_directions() {
    let mut case = Case::new(1);
    case.world.way = Way {
        target: Some("/new?q".to_owned()),
        ..way(|rule| {
            let then = &mut rule.then;
            let field = |text: &str| (text.to_owned(), "set".to_owned());
            then.request_headers
                .set
                .extend([field("X-A"), field("host")]);
            then.response_headers.remove.push("server".to_owned());
            then.response_headers.add.extend([field("x-b")]);
        })
    };
    case.client("GET /a HTTP/1.1\r\nhost: a\r\nx-a: 1\r\nx-c: 2\r\n\r\n");
    let sent = case.world.sent(0);
    assert!(
        sent.starts_with("GET /new?q HTTP/1.1\r\nx-c: 2\r\n"),
        "{sent}"
    );
    assert!(
        sent.contains("\r\nx-a: set\r\n") && !sent.contains("x-a: 1"),
        "{sent}"
    );
    assert_eq!(sent.matches("\r\nhost: ").count(), 1, "{sent}");
    case.link(
        0,
        "HTTP/1.1 200 OK\r\nserver: x\r\ncontent-length: 0\r\n\r\n",
    );
    assert_eq!(
        case.world.text(),
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nx-b: set\r\n\r\n"
    );
}

#[test]
fn body_past_the_routes_limit_is_refused_declared_or_not() {
    for head in [
        "content-length: 9\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\n",
    ] {
        let mut case = Case::new(1);
        case.world.way = way(|rule| rule.then.limits.body = Some(Bytes(5)));
        case.client(format!("POST / HTTP/1.1\r\nhost: a\r\n{head}"));
        if case.world.closed.is_none() {
            case.client("9\r\nbodybodyb");
        }
        assert!(
            case.world.text().starts_with("HTTP/1.1 413 "),
            "{}",
            case.world.text()
        );
        assert_eq!(case.world.closed, Some(Closing::Sent));
        assert!(case.world.links.iter().all(|link| link.gone));
    }
}

#[test]
fn route_answers_for_endpoints_that_are_not_there() {
    let mut case = Case::new(1);
    case.world.eager = false;
    case.world.timeouts.hold = Duration::ZERO;
    case.world.way = way(|rule| {
        rule.then.fallback = Some(ballast_model::FixedAnswer {
            status: 503,
            body: "soon".to_owned(),
            ..Default::default()
        });
    });
    case.client(GET).link_connects(0, false);
    let told = case.world.text();
    assert!(
        told.starts_with("HTTP/1.1 503 ") && told.ends_with("soon"),
        "{told}"
    );
}

#[test]
fn further_retry_waits_a_while() {
    let mut case = Case::new(3);
    case.world.pause = Duration::from_millis(30);
    case.client(GET).link_ends(0, false);
    assert_eq!(case.world.links.len(), 1);
    assert_eq!(case.machine.deadline(), case.world.now + case.world.pause);
    case.wait();
    case.link(1, OK);
    assert_eq!(case.world.text(), OK);
}

#[test]
fn attempt_has_its_own_time() {
    let mut case = Case::new(2);
    case.world.way = way(|rule| {
        rule.then.timeouts.attempt = Some(ballast_model::Millis(50));
    });
    case.client(GET);
    assert_eq!(
        case.machine.deadline(),
        case.world.now + Duration::from_millis(50)
    );
    case.wait().link(1, OK);
    assert_eq!(case.world.text(), OK);
}

/// A case whose requests go to a second endpoint after 20 ms.
fn hedging(endpoints: u16) -> Case {
    let mut case = Case::new(endpoints);
    case.world.way = way(|rule| {
        rule.then.timeouts.hedge = Some(ballast_model::Millis(20));
        rule.then.timeouts.read = Some(ballast_model::Millis(1000));
    });
    case
}

#[test]
fn slow_endpoint_is_helped_by_a_second_and_the_first_to_answer_wins() {
    for winner in [0, 1] {
        let mut case = hedging(3);
        case.client(GET);
        assert_eq!(
            case.machine.deadline(),
            case.world.now + Duration::from_millis(20)
        );
        case.wait();
        assert_eq!(case.world.links.len(), 2);
        assert_eq!(case.world.sent(0), case.world.sent(1));
        assert_ne!(case.world.links[0].endpoint, case.world.links[1].endpoint);
        case.link(winner, &OK[..9]);
        assert!(case.world.links[1 - winner].gone, "the other is dropped");
        case.link(1 - winner, OK).link(winner, &OK[9..]);
        assert_eq!(case.world.text(), OK);
        assert_eq!(
            case.world.outcomes,
            [Outcome::Cancelled, Outcome::Status(200)]
        );
        assert_eq!((case.world.in_flight(), case.world.retries), (0, 0));
        assert_eq!(case.world.ended[0].attempts, 1 + winner);
        assert!(case.world.closed.is_none());
    }
}

#[test]
fn of_two_attempts_the_one_that_is_left_goes_on() {
    let mut case = hedging(3);
    case.client(GET).wait();
    case.link_ends(0, true);
    assert!(case.world.links[0].gone && case.world.links.len() == 2);
    case.link(1, OK);
    assert_eq!(case.world.text(), OK);
    assert_eq!(case.world.retries, 0, "none was needed");

    let mut case = hedging(3);
    case.client(GET).wait();
    case.link_ends(1, true).link(0, OK);
    assert_eq!(case.world.text(), OK);

    // Both fail: an endpoint that neither was is left.
    let mut case = hedging(3);
    case.client(GET).wait();
    case.link_ends(1, true).link_ends(0, true).link(2, OK);
    assert_eq!(case.world.text(), OK);
    assert_eq!(case.world.in_flight(), 0);

    // The first is given up in its time, and the second has its own.
    let mut case = hedging(3);
    let begun = case.world.now;
    case.client(GET).wait().wait();
    assert_eq!(case.world.now, begun + Duration::from_secs(1));
    assert!(case.world.links[0].gone && !case.world.links[1].gone);
    case.link(1, OK);
    assert_eq!(case.world.text(), OK);
}

#[test]
fn only_what_may_run_twice_and_was_sent_whole_is_asked_twice() {
    let post = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nab";
    let mut case = hedging(3);
    case.client(post);
    assert!(case.machine.deadline() > case.world.now + Duration::from_millis(999));

    let mut case = hedging(3);
    case.client("PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\na");
    case.wait();
    assert_eq!(case.world.links.len(), 1, "half a request helps nobody");

    let mut case = hedging(1);
    case.client(GET).wait();
    assert_eq!(case.world.links.len(), 1, "there is no other");
    case.link(0, OK);
    assert_eq!(case.world.text(), OK);
}

#[test]
fn second_attempt_ends_with_its_request() {
    let mut case = hedging(2);
    case.world.eager = false;
    case.client(GET).link_connects(0, true).wait();
    assert!(!case.world.links[1].connected);
    case.client_ends(true);
    assert!(case.world.links.iter().all(|link| link.gone));
    assert_eq!(case.world.in_flight(), 0);
}

#[test]
fn body_that_comes_drop_by_drop_is_not_waited_for() {
    let mut case = Case::new(1);
    case.client("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n");
    let mut drops = 0;
    while case.world.closed.is_none() {
        case.world.now += Duration::from_secs(5);
        case.client([b'x'; 200]);
        drops += 1;
        assert!(drops < 100, "it is waited for");
    }
    assert!(case.world.text().starts_with("HTTP/1.1 408 "));
    assert_eq!(drops, 7, "the first half minute is free");
    assert_eq!(case.world.outcomes, [Outcome::Cancelled]);

    let mut case = Case::new(1);
    case.world.timeouts.slowest_body = 0;
    case.client("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\n");
    for _ in 0..1000 {
        case.world.now += Duration::from_secs(5);
        case.client("x");
    }
    case.link(0, OK);
    assert_eq!(case.world.text(), OK);
}

#[test]
fn whole_of_a_request_has_its_time_however_it_is_spent() {
    let whole = Duration::from_secs(10);
    // An endpoint that is silent, and whose time alone would be longer.
    let mut case = Case::new(2);
    case.world.timeouts.whole = whole;
    let begun = case.world.now;
    case.client(GET).wait();
    assert_eq!(case.world.now, begun + whole);
    assert!(case.world.text().starts_with("HTTP/1.1 504 "));
    assert_eq!(case.world.links.len(), 1, "there is no time for another");

    // A client that keeps sending.
    let mut case = Case::new(1);
    case.world.timeouts.whole = whole;
    case.client("PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n");
    for _ in 0..9 {
        case.world.now += Duration::from_secs(1);
        case.client([b'x'; 1000]);
    }
    case.wait();
    assert!(case.world.text().starts_with("HTTP/1.1 408 "));

    // An endpoint whose answer has no end.
    let mut case = Case::new(1);
    case.world.timeouts.whole = whole;
    case.client(GET)
        .link(0, "HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n");
    for _ in 0..9 {
        case.world.now += Duration::from_secs(1);
        case.link(0, [b'x'; 1000]);
    }
    case.wait();
    assert_eq!(case.world.closed, Some(Closing::Reset));
    assert_eq!(case.world.now.duration_since(begun).as_secs() / 10, 1);
}

#[test]
fn client_that_does_not_read_is_not_held_against_the_endpoint() {
    let mut case = Case::new(1);
    case.client(GET);
    case.world.clogged = super::super::UNSENT_MAX + 1;
    case.link(0, "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n1234");
    assert!(case.world.links[0].paused);
    case.wait();
    assert_eq!(case.world.closed, Some(Closing::Reset));
    assert_eq!(case.world.outcomes, [Outcome::Cancelled]);
}

#[test]
fn endpoint_that_does_not_take_its_request_has_the_time_for_writing() {
    let mut case = Case::new(1);
    case.world.timeouts.write = Duration::from_secs(3);
    case.world.clogged = super::super::UNSENT_MAX + 1;
    case.client("PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n");
    case.client("abc");
    assert!(case.world.client_paused);
    assert_eq!(
        case.machine.deadline(),
        case.world.now + Duration::from_secs(3)
    );
    case.wait();
    assert!(case.world.links[0].gone);
    assert_eq!(case.world.outcomes, [Outcome::Timeout]);
}

#[test]
fn connection_to_the_only_endpoint_is_waited_for_longer_than_to_one_of_many() {
    for (endpoints, seconds) in [(1, 4), (2, 1)] {
        let mut case = Case::new(endpoints);
        case.world.eager = false;
        let begun = case.world.now;
        case.client(GET);
        while !case.world.links[0].gone {
            case.wait();
        }
        assert_eq!((case.world.now - begun).as_secs(), seconds);
    }
}
