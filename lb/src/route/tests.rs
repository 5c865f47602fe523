use std::collections::HashMap;

use ballast_model::{
    Access, BalancePolicy, BalanceSpec, BasicAuth, Cors, FieldMatch, FixedAnswer, HashKey, Mirror,
    Protocol, RateLimit, Redirect, RequestKey, Rewrite, RouteActions, RouteMatch, RouteRule,
    ServiceId, Split, SplitTarget, StickySpec,
};
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

use super::*;
use crate::policy::sticky::hash_of;
use crate::policy::{Affinity, PoolState, Settings};
use crate::table::{Moment, PoolKey, RouteTable};

/// Fields in a list.
#[derive(Default)]
struct Fields(Vec<(&'static str, String)>);

impl FieldLookup for Fields {
    fn get(&self, name: &str) -> Option<&[u8]> {
        let found = self.0.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| value.as_bytes())
    }

    fn each<'a>(&'a self, name: &str, visit: &mut dyn FnMut(&'a [u8])) {
        for (known, value) in &self.0 {
            if *known == name {
                visit(value.as_bytes());
            }
        }
    }
}

struct Asked {
    method: &'static str,
    host: String,
    path: String,
    query: Option<&'static str>,
    fields: Fields,
    client: &'static str,
    tls: bool,
}

fn get(host: &str, path: &str) -> Asked {
    Asked {
        method: "GET",
        host: host.to_owned(),
        path: path.to_owned(),
        query: None,
        fields: Fields::default(),
        client: "10.0.0.1",
        tls: false,
    }
}

impl Asked {
    fn field(mut self, name: &'static str, value: &str) -> Self {
        self.fields.0.push((name, value.to_owned()));
        self
    }

    fn view(&self) -> RequestView<'_> {
        RequestView {
            entrance: Entrance::Shared,
            method: self.method,
            host: &self.host,
            path: &self.path,
            query: self.query,
            fields: &self.fields,
            client: self.client.parse().expect("an address"),
            tls: self.tls,
        }
    }
}

fn pool(number: u64, balance: &BalanceSpec) -> Arc<Pool> {
    let key = PoolKey {
        service: ServiceId::from_bits(number),
        port: "http".into(),
    };
    let name = format!("s{number}");
    let state = PoolState::new(Settings::from(balance));
    let name = name.as_str().into();
    Arc::new(Pool::of(state, key, name, Protocol::Http, Vec::new()))
}

/// A table of services `s0`, `s1`, … with one rule each.
fn table_of(rules: &[RouteRule], balance: &BalanceSpec) -> RouteTable {
    let pools: Vec<_> = (0..rules.len() as u64).map(|n| pool(n, balance)).collect();
    let mut routing = Routing::default();
    for (place, rule) in rules.iter().enumerate() {
        assert!(routing.add(rule, place, &Routing::default()));
    }
    let names: HashMap<&str, usize> = pools
        .iter()
        .enumerate()
        .map(|(place, pool)| (&pool.service_name[..], place))
        .collect();
    assert_eq!(routing.link(&names), Vec::<String>::new());
    RouteTable {
        generation: ballast_model::Generation(1),
        routing: Arc::new(routing),
        pools: pools.clone(),
    }
}

fn table(rules: &[RouteRule]) -> RouteTable {
    table_of(rules, &BalanceSpec::default())
}

fn rule(host: Option<&str>, prefix: &str) -> RouteRule {
    RouteRule::new(host.map(str::to_owned), prefix)
}

fn when(path: Option<&str>, change: impl FnOnce(&mut RouteMatch)) -> RouteRule {
    let mut rule = rule(None, "/");
    rule.when.path = path.map(str::to_owned);
    change(&mut rule.when);
    rule
}

fn then(change: impl FnOnce(&mut RouteActions)) -> RouteRule {
    let mut rule = rule(None, "/");
    change(&mut rule.then);
    rule
}

fn field(name: &str, exact: &str) -> FieldMatch {
    FieldMatch {
        name: name.to_owned(),
        exact: Some(exact.to_owned()),
        ..FieldMatch::default()
    }
}

/// Returns the service that gets a request; `None` if none does.
fn place(table: &RouteTable, asked: &Asked) -> Option<u64> {
    match table.decide(&asked.view(), 0, Moment(1)) {
        Decision::Forward(forward) => Some(forward.pool.key.service.to_bits()),
        _ => None,
    }
}

fn answer(table: &RouteTable, asked: &Asked) -> Answer {
    match table.decide(&asked.view(), 0, Moment(1)) {
        Decision::Answer(answer) => answer,
        other => panic!("{other:?} is no answer"),
    }
}

fn said<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    let found = answer.fields.iter().find(|(known, _)| known == name);
    found.map(|(_, value)| &value[..])
}

#[test]
fn exact_host_beats_wildcard_beats_any() {
    let table = table(&[
        rule(None, "/"),
        rule(Some("*.a.test"), "/"),
        rule(Some("*.b.a.test"), "/"),
        rule(Some("x.a.test"), "/"),
        rule(Some("only.test"), "/here"),
    ]);
    for (host, expected) in [
        ("x.a.test", 3),
        ("X.A.Test:8080", 3),
        ("x.a.test.", 3),
        ("y.a.test", 1),
        ("z.y.a.test", 1),
        ("c.b.a.test", 2),
        ("a.test", 0),
        ("other", 0),
        ("", 0),
        ("[::1]:80", 0),
        ("only.test", 0),
    ] {
        assert_eq!(place(&table, &get(host, "/")), Some(expected), "{host}");
    }
    assert_eq!(place(&table, &get("only.test", "/here/it/is")), Some(4));
}

#[test]
fn longest_prefix_wins_and_matches_whole_segments() {
    let table = table(&[
        rule(None, "/api"),
        rule(None, "/api/v2/"),
        rule(None, "/apis"),
    ]);
    for (path, expected) in [
        ("/api", Some(0)),
        ("/api/", Some(0)),
        ("/api/v2", Some(1)),
        ("/api/v2/x", Some(1)),
        ("/api/v2/x/y/z", Some(1)),
        ("/api/v22", Some(0)),
        ("/apis/x", Some(2)),
        ("/apia", None),
        ("/", None),
        ("*", None),
    ] {
        assert_eq!(place(&table, &get("h", path)), expected, "{path}");
    }
}

#[test]
fn whole_path_beats_template_beats_prefix() {
    let table = table(&[
        rule(None, "/users/7/posts/9"),
        when(Some("/users/{id}/posts/{post}"), |_| {}),
        when(Some("/users/7/posts/9"), |_| {}),
        when(Some("/users/7/posts/{post}"), |_| {}),
    ]);
    for (path, expected) in [
        ("/users/7/posts/9", Some(2)),
        ("/users/7/posts/8", Some(3)),
        ("/users/8/posts/8", Some(1)),
        ("/users/7/posts/9/more", Some(0)),
        ("/users/8", None),
    ] {
        assert_eq!(place(&table, &get("h", path)), expected, "{path}");
    }
}

#[test]
fn route_with_more_conditions_is_asked_first() {
    let table = table(&[
        rule(None, "/"),
        when(None, |when| when.headers = vec![field("X-Canary", "1")]),
        when(None, |when| {
            when.headers = vec![field("x-canary", "1")];
            when.methods = vec!["POST".to_owned()];
        }),
        when(None, |when| when.query = vec![field("beta", "a b")]),
        when(None, |when| {
            when.cookies = vec![FieldMatch {
                name: "who".to_owned(),
                prefix: Some("test-".to_owned()),
                ..FieldMatch::default()
            }];
        }),
    ]);
    let plain = get("h", "/");
    assert_eq!(place(&table, &plain), Some(0));
    let canary = plain.field("x-canary", "1");
    assert_eq!(place(&table, &canary), Some(1));
    let posted = Asked {
        method: "POST",
        ..canary
    };
    assert_eq!(place(&table, &posted), Some(2));
    let queried = Asked {
        query: Some("x=1&beta=a+b"),
        ..get("h", "/")
    };
    assert_eq!(place(&table, &queried), Some(3));
    let cookie = get("h", "/")
        .field("cookie", "a=b")
        .field("cookie", "who=test-7");
    assert_eq!(place(&table, &cookie), Some(4), "in the second field");
    let other = get("h", "/").field("cookie", "who=me");
    assert_eq!(place(&table, &other), Some(0));
}

#[test]
fn field_that_must_be_absent_keeps_a_route_away() {
    let absent = FieldMatch {
        name: "x-skip".to_owned(),
        absent: true,
        ..FieldMatch::default()
    };
    let table = table(&[when(None, |when| when.headers = vec![absent])]);
    assert_eq!(place(&table, &get("h", "/")), Some(0));
    assert_eq!(place(&table, &get("h", "/").field("x-skip", "")), None);
}

#[test]
fn first_of_two_equal_routes_or_ports_stays() {
    let mut routing = Routing::default();
    let none = Routing::default();
    assert!(routing.add(&rule(Some("a"), "/x"), 0, &none));
    assert!(!routing.add(&rule(Some("A"), "/x/"), 1, &none));
    let conditional = when(None, |when| when.methods = vec!["GET".to_owned()]);
    assert!(routing.add(&conditional, 0, &none));
    assert!(!routing.add(&conditional, 1, &none));
    assert!(routing.publish(80, Protocol::Http, 0));
    assert!(!routing.publish(80, Protocol::Tcp, 1));
    assert_eq!(routing.ports(), [(80, Protocol::Http)]);
}

#[test]
fn path_that_servers_read_differently_does_not_pass_a_guard() {
    let mut guarded = rule(None, "/admin");
    guarded.then.access.allow = vec!["192.168.0.0/16".to_owned()];
    let table = table(&[rule(None, "/"), guarded]);
    for path in [
        "/admin",
        "/%61dmin",
        "/x/../admin",
        "/./admin/",
        "/x/%2e%2e/admin",
    ] {
        assert_eq!(answer(&table, &get("h", path)).status, 403, "{path}");
    }
    for path in [
        "//admin",
        "/x%2f..%2fadmin",
        "/admin%2fusers",
        "/..;/admin",
        "/admin;x=1",
        "/x\\..\\admin",
    ] {
        assert_eq!(answer(&table, &get("h", path)).status, 400, "{path}");
    }
    for path in ["/files/a%2Fb", "/a//b", "/a;v=1", "/a%20b", "/a/../b"] {
        assert_eq!(place(&table, &get("h", path)), Some(0), "{path}");
    }
}

#[test]
fn target_is_rewritten_and_keeps_its_query() {
    let rewrite = |prefix: Option<&str>, path: Option<&str>| {
        Some(Rewrite {
            prefix: prefix.map(str::to_owned),
            path: path.map(str::to_owned),
            host: Some("inner.test".to_owned()),
        })
    };
    let mut api = rule(None, "/api");
    api.then.rewrite = rewrite(Some("/v2"), None);
    let mut users = when(Some("/users/{id}"), |_| {});
    users.then.rewrite = rewrite(None, Some("/accounts?user={id}"));
    let table = table(&[api, users]);
    for (path, expected) in [
        ("/api/x", "/v2/x?q=1"),
        ("/%61pi/x", "/v2/x?q=1"),
        ("/users/7", "/accounts?user=7&q=1"),
    ] {
        let asked = Asked {
            query: Some("q=1"),
            ..get("h", path)
        };
        let view = asked.view();
        let Decision::Forward(forward) = table.decide(&view, 0, Moment(1)) else {
            panic!("{path} is forwarded");
        };
        assert_eq!(forward.target.as_deref(), Some(expected));
        assert!(!forward.route.request.keeps(b"Host"));
        assert_eq!(
            forward.route.request.added().last(),
            Some(("host", "inner.test"))
        );
    }
}

#[test]
fn redirect_keeps_what_it_is_not_told_to_change() {
    let redirect = |change: fn(&mut Redirect)| {
        let mut redirect = Redirect::default();
        change(&mut redirect);
        table(&[then(|then| then.redirect = Some(redirect))])
    };
    let asked = |tls: bool| Asked {
        query: Some("q=1"),
        tls,
        ..get("a.test:8080", "/x")
    };
    for (change, tls, expected) in [
        (
            (|r| r.scheme = Some("https".to_owned())) as fn(&mut Redirect),
            false,
            "https://a.test/x?q=1",
        ),
        (
            |r| r.scheme = Some("https".to_owned()),
            true,
            "https://a.test:8080/x?q=1",
        ),
        (
            |r| r.host = Some("b.test".to_owned()),
            true,
            "https://b.test/x?q=1",
        ),
        (|r| r.port = Some(9), false, "http://a.test:9/x?q=1"),
        (
            |r| r.prefix = Some("/new".to_owned()),
            false,
            "http://a.test:8080/new/x?q=1",
        ),
        (
            |r| r.path = Some("/".to_owned()),
            false,
            "http://a.test:8080/?q=1",
        ),
    ] {
        let answer = answer(&redirect(change), &asked(tls));
        assert_eq!(
            (answer.status, said(&answer, "location")),
            (308, Some(expected))
        );
    }
}

#[test]
fn split_follows_its_weights_and_a_key_stays_where_it_is() {
    let share = |number: u64, weight: u32| SplitTarget {
        service: format!("s{number}"),
        weight,
    };
    let split = |by: Option<RequestKey>| {
        let first = then(|then| {
            then.split = Split {
                to: vec![share(0, 75), share(1, 25)],
                by,
            };
        });
        table(&[first, rule(Some("other"), "/")])
    };
    let drawn = split(None);
    let asked = get("h", "/");
    let mut counts = [0u32; 2];
    for seed in 0..10_000u64 {
        let random = hash_of(&seed.to_be_bytes());
        let Decision::Forward(forward) = drawn.decide(&asked.view(), random, Moment(1)) else {
            panic!("is forwarded");
        };
        counts[usize::try_from(forward.pool.key.service.to_bits()).expect("small")] += 1;
    }
    assert!((7300..7700).contains(&counts[0]), "{counts:?}");
    let keyed = split(Some(RequestKey::Cookie("user".to_owned())));
    let mut seen = [0u32; 2];
    for user in 0..1000 {
        let asked = get("h", "/").field("cookie", &format!("user={user}"));
        let places: Vec<u64> = (0..5u64)
            .map(
                |random| match keyed.decide(&asked.view(), random, Moment(1)) {
                    Decision::Forward(forward) => forward.pool.key.service.to_bits(),
                    other => panic!("{other:?}"),
                },
            )
            .collect();
        assert!(places.iter().all(|one| *one == places[0]));
        seen[usize::try_from(places[0]).expect("small")] += 1;
    }
    assert!((690..810).contains(&seen[0]), "{seen:?}");
}

#[test]
fn share_of_a_service_that_is_not_there_goes_to_the_others() {
    let mut routing = Routing::default();
    let missing = then(|then| {
        then.split.to = vec![
            SplitTarget {
                service: "gone".to_owned(),
                weight: 99,
            },
            SplitTarget {
                service: "s1".to_owned(),
                weight: 1,
            },
        ];
    });
    assert!(routing.add(&missing, 0, &Routing::default()));
    assert_eq!(routing.link(&HashMap::from([("s1", 1)])), ["gone"]);
    let balance = BalanceSpec::default();
    let table = RouteTable {
        generation: ballast_model::Generation(1),
        pools: vec![pool(0, &balance), pool(1, &balance)],
        routing: Arc::new(routing),
    };
    for random in 0..200 {
        let asked = get("h", "/");
        let view = asked.view();
        let Decision::Forward(forward) = table.decide(&view, random, Moment(1)) else {
            panic!("is forwarded");
        };
        assert_eq!(forward.pool.key.service.to_bits(), 1);
    }
}

#[test]
fn mirror_gets_its_percentage() {
    let mirrored = then(|then| {
        then.mirror = Some(Mirror {
            service: "s1".to_owned(),
            percent: 10,
        });
    });
    let table = table(&[mirrored, rule(Some("other"), "/")]);
    let asked = get("h", "/");
    let copies = (0..10_000u64).filter(|seed| {
        let random = hash_of(&seed.to_be_bytes());
        let view = asked.view();
        let Decision::Forward(forward) = table.decide(&view, random, Moment(1)) else {
            panic!("is forwarded");
        };
        assert!(forward.route.needs_pingora());
        forward.mirror.is_some()
    });
    let copies = copies.count();
    assert!((850..1150).contains(&copies), "{copies}");
}

#[test]
fn limited_client_is_told_when_to_come_back_and_others_are_served() {
    let limited = then(|then| {
        then.rate_limit = Some(RateLimit {
            requests: 2,
            per: ballast_model::Millis(10_000),
            burst: None,
            by: RequestKey::Header("x-user".to_owned()),
        });
    });
    let before = table(std::slice::from_ref(&limited));
    let ann = || get("h", "/").field("x-user", "ann");
    assert_eq!(place(&before, &ann()), Some(0));
    assert_eq!(place(&before, &ann()), Some(0));
    let refused = answer(&before, &ann());
    assert_eq!(
        (refused.status, said(&refused, "retry-after")),
        (429, Some("5"))
    );
    assert_eq!(
        place(&before, &get("h", "/").field("x-user", "bob")),
        Some(0)
    );
    let mut next = Routing::default();
    assert!(next.add(&limited, 0, &before.routing));
    let after = RouteTable {
        routing: Arc::new(next),
        ..table(&[rule(None, "/x")])
    };
    assert_eq!(
        answer(&after, &ann()).status,
        429,
        "the next table remembers"
    );
}

#[test]
fn password_opens_and_does_not_go_on_to_the_endpoint() {
    let digest = Sha256::digest(b"pepperopen sesame");
    let digest = digest.iter().fold(String::new(), |mut text, byte| {
        let _ = std::fmt::Write::write_fmt(&mut text, format_args!("{byte:02x}"));
        text
    });
    let users = [("ann".to_owned(), format!("sha256:pepper:{digest}"))];
    let basic = BasicAuth {
        realm: "in\"ner".to_owned(),
        users: users.into(),
    };
    let table = table(&[then(|then| {
        then.access = Access {
            basic: Some(basic),
            ..Access::default()
        };
    })]);
    let with = |text: &str| get("h", "/").field("authorization", text);
    let right = with("bASIC YW5uOm9wZW4gc2VzYW1l");
    assert_eq!(place(&table, &right), Some(0));
    let view = right.view();
    let Decision::Forward(forward) = table.decide(&view, 0, Moment(1)) else {
        panic!("is forwarded");
    };
    assert!(!forward.route.request.keeps(b"Authorization"));
    for wrong in [
        get("h", "/"),
        with("Basic YW5uOm9wZW4gc2VzYW0="),
        with("Basic Ym9iOm9wZW4gc2VzYW1l"),
        with("Bearer YW5uOm9wZW4gc2VzYW1l"),
        with("Basic !"),
        with("Basic"),
    ] {
        let answer = answer(&table, &wrong);
        let challenge = "Basic realm=\"in'ner\", charset=\"UTF-8\"";
        assert_eq!(answer.status, 401);
        assert_eq!(said(&answer, "www-authenticate"), Some(challenge));
    }
}

#[test]
fn denied_network_stays_out_even_if_it_is_allowed() {
    let guarded = then(|then| {
        then.access.allow = vec!["10.0.0.0/8".to_owned()];
        then.access.deny = vec!["10.9.0.0/16".to_owned()];
    });
    let table = table(&[guarded]);
    for (client, allowed) in [
        ("10.0.0.1", true),
        ("::ffff:10.0.0.1", true),
        ("10.9.0.1", false),
        ("11.0.0.1", false),
        ("fd00::1", false),
    ] {
        let asked = Asked {
            client,
            ..get("h", "/")
        };
        assert_eq!(place(&table, &asked).is_some(), allowed, "{client}");
    }
}

#[test]
fn script_of_an_allowed_origin_may_ask_and_no_other() {
    let cors = then(|then| {
        then.cors = Some(Cors {
            origins: vec!["https://app.test".to_owned(), "https://*.b.test".to_owned()],
            methods: vec!["DELETE".to_owned()],
            credentials: true,
            max_age: Some(ballast_model::Millis(600_000)),
            ..Cors::default()
        });
    });
    let table = table(&[cors]);
    let preflight = |origin: &str| Asked {
        method: "OPTIONS",
        ..get("h", "/")
            .field("origin", origin)
            .field("access-control-request-method", "DELETE")
            .field("access-control-request-headers", "x-a")
    };
    for (origin, allowed) in [
        ("https://app.test", true),
        ("https://x.b.test", true),
        ("https://b.test", false),
        ("https://evil.test/.b.test", false),
        ("http://app.test", false),
        ("null", false),
    ] {
        let told = answer(&table, &preflight(origin));
        let shown = allowed.then_some(origin);
        assert_eq!(told.status, if allowed { 204 } else { 403 }, "{origin}");
        assert_eq!(said(&told, "access-control-allow-origin"), shown);
        assert_eq!(said(&told, "vary"), Some("origin"));
        let asked = get("h", "/").field("origin", origin);
        let view = asked.view();
        let Decision::Forward(forward) = table.decide(&view, 0, Moment(1)) else {
            panic!("is forwarded");
        };
        assert_eq!(forward.origin.as_deref(), shown);
    }
    let told = answer(&table, &preflight("https://app.test"));
    for (name, value) in [
        ("access-control-allow-methods", "GET, HEAD, POST, DELETE"),
        ("access-control-allow-headers", "x-a"),
        ("access-control-allow-credentials", "true"),
        ("access-control-max-age", "600"),
    ] {
        assert_eq!(said(&told, name), Some(value), "{name}");
    }
}

#[test]
fn response_says_what_the_route_says_of_origins() {
    let cors = then(|then| {
        then.cors = Some(Cors {
            origins: vec!["https://app.test".to_owned()],
            ..Cors::default()
        });
        then.response_headers.remove = vec!["Server".to_owned()];
        then.response_headers.add = [("X-Via".to_owned(), "b".to_owned())].into();
    });
    let route = Route::new(cors);
    for (name, kept) in [
        (&b"Access-Control-Allow-Origin"[..], false),
        (b"SERVER", false),
        (b"content-type", true),
    ] {
        assert_eq!(route.keeps_response_field(name), kept);
    }
    let mut added = Vec::new();
    route.response_fields(Some("https://app.test"), &mut |name, value| {
        added.push(format!("{name}: {value}"));
    });
    assert_eq!(
        added,
        [
            "vary: origin",
            "access-control-allow-origin: https://app.test",
            "x-via: b"
        ]
    );
    assert!(!route.leaves_response() && Route::default().leaves_response());
}

#[test]
fn maintenance_answers_everything_but_preflights() {
    let closed = then(|then| {
        then.maintenance = Some(FixedAnswer {
            body: "back at noon".to_owned(),
            headers: [("retry-after".to_owned(), "60".to_owned())].into(),
            ..FixedAnswer::default()
        });
    });
    let told = answer(&table(&[closed]), &get("h", "/"));
    assert_eq!(told.status, 503);
    assert_eq!(said(&told, "retry-after"), Some("60"));
    assert_eq!(told.body, "back at noon");
}

#[test]
fn sizes_have_limits_only_where_the_route_says_so() {
    let limited = Route::new(then(|then| {
        then.limits.body = Some(ballast_model::Bytes(10));
        then.limits.head = Some(ballast_model::Bytes(20));
    }));
    assert!(limited.admits_body(10).is_ok() && limited.admits_head(20).is_ok());
    let status = |refused: Result<(), Answer>| refused.expect_err("too long").status;
    assert_eq!(status(limited.admits_body(11)), 413);
    assert_eq!(status(limited.admits_head(21)), 431);
    assert!(Route::default().admits_body(u64::MAX).is_ok());
}

#[test]
fn pool_that_hashes_is_told_the_key_and_the_clients_cookie() {
    let balance = BalanceSpec {
        policy: BalancePolicy::Maglev,
        hash: HashKey::Header("x-user".to_owned()),
        sticky: Some(StickySpec::default()),
        ..BalanceSpec::default()
    };
    let table = table_of(&[rule(None, "/")], &balance);
    let asked = get("h", "/")
        .field("x-user", "ann")
        .field("cookie", "a=b; ballast_endpoint=00000000000000ff");
    let view = asked.view();
    let Decision::Forward(forward) = table.decide(&view, 0, Moment(1)) else {
        panic!("is forwarded");
    };
    let expected = Affinity {
        hash: Some(hash_of(b"ann")),
        sticky: Some(255),
    };
    assert_eq!(forward.affinity, expected);
    let plain = get("h", "/");
    let view = plain.view();
    let Decision::Forward(forward) = table.decide(&view, 0, Moment(1)) else {
        panic!("is forwarded");
    };
    assert_eq!(forward.affinity, Affinity::default());
}

#[test]
fn only_what_a_body_must_pass_through_needs_pingora() {
    assert!(!Route::default().needs_pingora());
    let compressed = then(|then| then.compression = Some(ballast_model::Compression::default()));
    assert!(Route::new(compressed).needs_pingora());
    assert!(Route::new(then(|then| then.grpc_web = true)).needs_pingora());
}

proptest! {
    #[test]
    fn prop_any_host_and_path_is_routed_without_a_panic(host in ".{0,40}", path in ".{0,40}") {
        let table = table(&[rule(Some("*.a"), "/"), rule(Some("b"), "/x"), rule(None, "/")]);
        let asked = get(&host, &path);
        let decided = table.decide(&asked.view(), 0, Moment(1));
        prop_assert!(!matches!(decided, Decision::NoRoute));
    }

    /// The table finds what a look at every rule finds.
    #[test]
    fn prop_prefixes_are_found_as_by_looking_at_each(
        prefixes in proptest::collection::btree_set("(/[ab]{1,2}){0,4}", 1..12),
        path in "(/[ab]{1,2}){0,6}/?",
    ) {
        let rules: Vec<RouteRule> = prefixes
            .iter()
            .map(|prefix| rule(None, if prefix.is_empty() { "/" } else { prefix }))
            .collect();
        let expected = prefixes
            .iter()
            .enumerate()
            .filter(|(_, prefix)| {
                path.strip_prefix(prefix.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            })
            .max_by_key(|(_, prefix)| prefix.len())
            .map(|(at, _)| at as u64);
        prop_assert_eq!(place(&table(&rules), &get("h", &path)), expected);
    }
}
