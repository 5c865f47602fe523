use ballast_model::{BalancePolicy, Millis, Weight};

use super::listen::DEFAULT_LISTEN;
use super::*;

fn read(text: &str) -> Result<Config, String> {
    RawConfig::from_text(Path::new("lb.yaml"), text)
        .and_then(RawConfig::validate)
        .map_err(|error| error.to_string())
}

const CONTRACT: &str = r#"
listen: { http: "127.0.0.1:8090" }
threads: 1
services:
  web: { endpoints: ["127.0.0.1:9001", "127.0.0.1:9002"], policy: p2c }
routes:
  - { match: { host: "example.test", path_prefix: "/" }, service: web }
"#;

#[test]
fn contracts_file_is_read() {
    let config = read(CONTRACT).expect("is valid");
    assert_eq!(config.threads, NonZeroUsize::new(1));
    assert_eq!(config.admin, Some(DEFAULT_ADMIN));
    assert!(!config.admin_said);
    let Mode::StandAlone(alone) = config.mode else {
        panic!("services make it stand-alone");
    };
    let port = &alone.tables[0].ports[0];
    assert_eq!(port.endpoints.len(), 2);
    assert_eq!(port.routes[0].host.as_deref(), Some("example.test"));
    let again = read(CONTRACT).expect("is valid");
    let Mode::StandAlone(again) = again.mode else {
        panic!("services make it stand-alone");
    };
    assert_eq!(again.tables, alone.tables, "ids are stable");
}

#[test]
fn mistakes_are_named_with_their_line_and_the_nearest_key() {
    let listen = "listen: { http: \"127.0.0.1:1\" }\n";
    for (text, expected) in [
        (
            "listen: {}\nservics: {}\n".to_owned(),
            "lb.yaml:2: unknown key `servics`; did you mean `services`?",
        ),
        (
            format!(
                "{listen}services:\n  web: {{ endpoints: [\"127.0.0.1:9001\"] }}\nroutes:\n  - {{ service: wbe }}\n"
            ),
            "lb.yaml:5: no service is called `wbe`; did you mean `web`?",
        ),
        (
            format!("{listen}services:\n  web:\n    endpoints: [\"nine\"]\n"),
            "lb.yaml:4: endpoint `nine` is not ADDRESS:PORT",
        ),
        (
            format!("{listen}services:\n  web:\n    endpoints: []\n    policy: rr\n"),
            "lb.yaml:5: `rr` is not a policy",
        ),
        (format!("{listen}threads: many\n"), "lb.yaml:2: "),
        (
            format!("{listen}services: {{}}\nthreads: 0\n"),
            "`threads` must be 1 or more",
        ),
        (
            "listen: { https: \"127.0.0.1:1\" }\nservices: {}\n".to_owned(),
            "`listen.https` needs `tls",
        ),
        ("services: {}\n".to_owned(), "`listen` names neither"),
        (
            format!(
                "{listen}services: {{}}\nroutes:\n  - {{ match: {{ path_prefix: x }}, service: a }}\n"
            ),
            "lb.yaml:4: no service is called `a`",
        ),
    ] {
        let error = read(&text).expect_err(&text);
        assert!(error.starts_with(expected), "{text}\n{error}");
    }
}

#[test]
fn balance_weights_and_zones_are_read() {
    let text = r#"
listen: { http: "127.0.0.1:1" }
services:
  web:
    policy: peak_ewma
    balance: { slow_start: 30s, limits: { requests: 100 } }
    endpoints:
      - "127.0.0.1:9001"
      - { address: "127.0.0.1:9002", weight: 50, zone: b }
"#;
    let Mode::StandAlone(alone) = read(text).expect("is valid").mode else {
        panic!("services make it stand-alone");
    };
    let port = &alone.tables[0].ports[0];
    let balance = port.balance.as_ref().expect("was given");
    assert_eq!(balance.policy, BalancePolicy::PeakEwma);
    assert_eq!(balance.slow_start, Millis::from_secs(30));
    assert_eq!(balance.limits.requests, 100);
    let told = |at: usize| (port.endpoints[at].weight, port.endpoints[at].zone.clone());
    assert_eq!(told(0), (Weight::DEFAULT, None));
    assert_eq!(told(1), (Weight(50), Some("b".to_owned())));
    for (wrong, expected) in [
        ("weight: 50", "lb.yaml:9: a weight is 0 to 10000"),
        (
            "zone: b",
            "lb.yaml:9: unknown key `zoen`; did you mean `zone`?",
        ),
        ("peak_ewma", "lb.yaml:5: `peak` is not a policy"),
        ("requests: 100", "lb.yaml:6: unknown key `request`"),
        (
            "slow_start: 30s",
            "lb.yaml:6: balance.bound_percent: is 101 to 1000",
        ),
    ] {
        let with = match wrong {
            "weight: 50" => "weight: 50000",
            "zone: b" => "zoen: b",
            "peak_ewma" => "peak",
            "requests: 100" => "request: 100",
            _ => "bound_percent: 5",
        };
        let error = read(&text.replace(wrong, with)).expect_err(with);
        assert!(error.starts_with(expected), "{error}");
    }
}

const ROUTES: &str = r#"
listen: { http: "127.0.0.1:8090" }
services:
  web: { endpoints: ["127.0.0.1:9001"] }
  next: { endpoints: ["127.0.0.1:9002"] }
routes:
  - match: { path: "/users/{id}", methods: [GET], headers: [{ name: x-canary, exact: "1" }] }
    service: web
    then:
      rewrite: { path: "/accounts/{id}" }
      rate_limit: { requests: 100, per: 1s, by: { header: x-user } }
      limits: { body: 1m }
      compression: {}
  - then: { split: { to: [{ service: web, weight: 9 }, { service: next, weight: 1 }] } }
  - match: { host: old.test }
    then: { redirect: { scheme: https, host: new.test, status: 301 } }
"#;

#[test]
fn routes_say_what_they_match_and_do() {
    let Mode::StandAlone(alone) = read(ROUTES).expect("is valid").mode else {
        panic!("services make it stand-alone");
    };
    let of = |name: &str| {
        let table = alone.tables.iter().find(|table| table.name == name);
        &table.expect("has a table").ports[0].routes
    };
    let users = &of("web")[0];
    assert_eq!(users.when.path.as_deref(), Some("/users/{id}"));
    assert_eq!(users.then.limits.body, Some(ballast_model::Bytes(1 << 20)));
    assert_eq!(of("web")[1].then.split.to[1].service, "next");
    let redirect = of("ingress")[0].then.redirect.as_ref();
    assert_eq!(redirect.map(|to| to.status), Some(301));
}

#[test]
fn wrong_routes_are_named_with_their_line() {
    let head = "listen: { http: \"127.0.0.1:1\" }\nservices:\n  web: { endpoints: [] }\nroutes:\n";
    for (route, expected) in [
        (
            "  - { match: { host: a } }",
            "lb.yaml:5: a route needs a `service`",
        ),
        (
            "  - { service: web, then: { mirror: { service: wbe } } }",
            "lb.yaml:5: no service is called `wbe`; did you mean `web`?",
        ),
        (
            "  - { service: web, then: { rewrit: {} } }",
            "lb.yaml:5: unknown key `rewrit`; did you mean `rewrite`?",
        ),
        (
            "  - { service: web, match: { path: users } }",
            "lb.yaml:5: match.path: a path template begins with `/`",
        ),
        (
            "  - { service: web }\n  - { service: web, match: { path_prefix: / } }",
            "lb.yaml:6: another route matches the same requests",
        ),
        (
            "  - { service: web, then: { access: { allow: [here] } } }",
            "lb.yaml:5: route.then.access: `here` is not a network",
        ),
    ] {
        let error = read(&format!("{head}{route}\n")).expect_err(route);
        assert!(error.starts_with(expected), "{route}\n{error}");
    }
}

#[test]
fn yaml_bomb_is_an_error() {
    use std::fmt::Write as _;
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..30 {
        let before = format!("*a{}, ", n - 1).repeat(9);
        writeln!(text, "a{n}: &a{n} [{before}]").expect("writes");
    }
    assert!(read(&text).is_err());
}

#[test]
fn nothing_said_makes_a_member_of_a_cluster_with_defaults() {
    let config = read("").expect("is valid");
    assert_eq!(config.listen.http, Some(DEFAULT_LISTEN));
    assert_eq!(config.admin, Some(DEFAULT_ADMIN));
    assert!(matches!(config.mode, Mode::Cluster(_)));
    assert!(read("join: nonsense").is_err());
}

/// A service of the L4 balancer in a file, with something instead of something.
fn l4(from: &str, to: &str) -> Result<Config, String> {
    let service = "services: {}\nl4:\n  - vip: 10.0.0.100\n    port: 80\n    protocol: tcp\n    mode: \
                   dsr\n    interface: eth0\n    reals:\n      - { address: 10.0.0.11, weight: 1 }\n      - { \
                   address: 10.0.0.12 }\n";
    assert!(service.contains(from), "{from}");
    read(&service.replace(from, to))
}

#[test]
fn contracts_l4_is_read_and_its_reals_are_of_the_route_table() {
    let config = l4("", "").expect("is valid");
    let service = &config.l4.services[0];
    assert_eq!(&*service.name, "tcp/10.0.0.100/80");
    assert_eq!(service.forward, crate::l4::Forward::Ipip);
    let Mode::StandAlone(alone) = config.mode else {
        panic!("it is stand-alone");
    };
    let table = &alone.tables[0];
    assert_eq!(table.service, service.pool.service);
    assert_eq!(
        table.ports[0].endpoints[1].address.to_string(),
        "10.0.0.12:80"
    );
    assert!(alone.checks.contains_key(&table.service));
}

#[test]
fn mistakes_of_l4_are_named_with_their_line() {
    for (from, to, expected) in [
        (
            "vip: 10.0.0.100",
            "vip: 10.0.0.100/24",
            "lb.yaml:3: `10.0.0.100/24` has bits set past its prefix; the net is `10.0.0.0/24`",
        ),
        (
            "vip: 10.0.0.100",
            "vip: 10.0.0.100/33",
            "lb.yaml:3: `10.0.0.100/33`: a prefix",
        ),
        (
            "vip: 10.0.0.100",
            "vip: ten",
            "lb.yaml:3: `ten` is not an address or a net",
        ),
        ("mode: dsr", "mode: dst", "lb.yaml:6: "),
        (
            "weight: 1",
            "weigth: 1",
            "lb.yaml:9: unknown key `weigth`; did you mean `weight`?",
        ),
        (
            "10.0.0.12",
            "10.0.0.11",
            "lb.yaml:10: real 10.0.0.11:80 is listed twice",
        ),
        (
            "10.0.0.12",
            "\"10.0.0.12:8080\"",
            "lb.yaml:10: real `10.0.0.12:8080`: only `mode: nat` changes ports",
        ),
        (
            "10.0.0.12",
            "10.0.0.100",
            "lb.yaml:10: real `10.0.0.100` is the service's own",
        ),
        (
            "10.0.0.11, weight: 1",
            "10.0.0.11, server_id: 7",
            "lb.yaml:9: `server_id` is",
        ),
        (
            "mode: dsr\n    interface: eth0\n    reals:\n      - { address: 10.0.0.11",
            "mode: nat\n    interface: eth0\n    reals:\n      - { address: fd00::11",
            "lb.yaml:9: real `fd00::11` and the address `10.0.0.100`",
        ),
        (
            "weight: 1 }\n      - { address: 10.0.0.12 }",
            "weight: 0 }",
            "lb.yaml:3: `tcp/10.0.0.100/80`: every real's weight is 0",
        ),
        (
            "services: {}",
            "services: {}\nxdp: { services: 0 }",
            "`xdp.services` is 1 to",
        ),
        (
            "services: {}",
            "services: {}\nxdp: { key: \"12\" }",
            "lb.yaml:2: `xdp.key` is 32 hexadecimal digits",
        ),
    ] {
        let error = l4(from, to).expect_err(to);
        assert!(error.starts_with(expected), "{to}: {error}");
    }
}

#[test]
fn l4_service_that_is_there_twice_is_refused() {
    let twice = "services: {}\nl4:\n  - &a { vip: 10.0.0.1, port: 1, protocol: udp, mode: nat, \
                 interface: eth0, reals: [] }\n  - { vip: 10.0.0.1, port: 1, protocol: udp, mode: \
                 nat, interface: eth0, reals: [] }\n";
    let error = read(twice).expect_err("it is there twice");
    assert!(
        error.starts_with("lb.yaml:4: `udp/10.0.0.1/1` is there twice"),
        "{error}"
    );
}
