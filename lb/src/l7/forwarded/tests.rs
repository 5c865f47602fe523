use std::convert::Infallible;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

/// The fields of a head, as they came.
#[derive(Debug, Clone, Default)]
struct Came(Vec<(&'static str, String)>);

impl FieldLookup for Came {
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

#[derive(Debug, Default)]
struct Told(Vec<(&'static str, String)>);

impl Sink for Told {
    type Error = Infallible;

    fn field(
        &mut self,
        name: &'static str,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), Infallible> {
        let mut value = Vec::new();
        write(&mut value);
        let value = String::from_utf8(value).expect("text");
        assert!(
            OWN_FIELDS.contains(&name),
            "what came of {name} is taken out"
        );
        self.0.push((name, value));
        Ok(())
    }
}

impl Told {
    fn get(&self, name: &str) -> Option<&str> {
        let mut found = self.0.iter().filter(|(known, _)| *known == name);
        let value = found.next().map(|(_, value)| value.as_str());
        assert!(found.next().is_none(), "{name} is there once");
        value
    }
}

fn trusting(header: ForwardedHeader) -> Forwarding {
    Forwarding {
        trust: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()],
        header,
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn tell(forwarding: &Forwarding, peer: &str, came: &Came) -> Told {
    let seen = Seen {
        peer: ip(peer),
        tls: false,
        host: "a.test:8080",
    };
    let mut told = Told::default();
    let Ok(()) = forwarding.tell(&seen, came, &mut told);
    told
}

fn every(value: &str) -> Came {
    Came(
        OWN_FIELDS
            .iter()
            .map(|name| (*name, value.to_owned()))
            .collect(),
    )
}

const ALL: [ForwardedHeader; 3] = [
    ForwardedHeader::XForwarded,
    ForwardedHeader::Forwarded,
    ForwardedHeader::Both,
];

#[test]
fn nothing_of_an_untrusted_peer_is_passed_on() {
    for header in ALL {
        let forwarding = trusting(header);
        for lie in ["6.6.6.6", "for=6.6.6.6", "https", "666"] {
            let came = every(lie);
            assert_eq!(forwarding.client(ip("192.0.2.7"), &came), ip("192.0.2.7"));
            let told = tell(&forwarding, "192.0.2.7", &came);
            let clean = tell(&forwarding, "192.0.2.7", &Came::default());
            assert_eq!(told.0, clean.0, "{header:?} {lie}");
        }
    }
}

#[test]
fn what_a_trusted_hop_sent_is_appended_to() {
    let came = Came(vec![
        ("x-forwarded-for", "6.6.6.6, 192.0.2.7".to_owned()),
        ("x-forwarded-for", "10.0.0.9".to_owned()),
        ("x-forwarded-proto", "https".to_owned()),
        ("x-forwarded-host", "shop.test".to_owned()),
        ("x-real-ip", "6.6.6.6".to_owned()),
        ("forwarded", "for=6.6.6.6".to_owned()),
    ]);
    let told = tell(&trusting(ForwardedHeader::Both), "10.0.0.1", &came);
    for (name, value) in [
        ("x-forwarded-for", "6.6.6.6, 192.0.2.7, 10.0.0.9, 10.0.0.1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "shop.test"),
        ("x-forwarded-port", "443"),
        ("x-real-ip", "192.0.2.7"),
        (
            "forwarded",
            "for=192.0.2.7;host=\"shop.test\";proto=https, for=10.0.0.1",
        ),
    ] {
        assert_eq!(told.get(name), Some(value), "{name}");
    }
    let came = Came(vec![(
        "forwarded",
        "for=\"[2001:db8::1]:4711\";by=_x".to_owned(),
    )]);
    let forwarding = trusting(ForwardedHeader::Forwarded);
    assert_eq!(forwarding.client(ip("fd00::1"), &came), ip("2001:db8::1"));
    let told = tell(&forwarding, "fd00::1", &came);
    assert_eq!(told.0.len(), 1, "the other fields are not passed on");
    assert_eq!(
        told.get("forwarded"),
        Some(
            "for=\"[2001:db8::1]:4711\";by=_x, \
             for=\"[fd00::1]\";host=\"a.test:8080\";proto=http"
        )
    );
}

#[test]
fn malformed_forwarded_is_not_appended_to_and_names_nobody() {
    let forwarding = trusting(ForwardedHeader::Forwarded);
    for text in [
        "for=\"6.6.6.6",
        "for=6.6.6.6;host=\"a\\\"",
        "for=a\"b, for=\"c",
        "6.6.6.6",
        "for=6.6.6.6;for=7.7.7.7",
        "for=",
        "for = 6.6.6.6",
        "for=\"a\"b",
    ] {
        let came = Came(vec![("forwarded", text.to_owned())]);
        assert_eq!(
            forwarding.client(ip("10.0.0.1"), &came),
            ip("10.0.0.1"),
            "{text}"
        );
        let told = tell(&forwarding, "10.0.0.1", &came);
        let own = "for=10.0.0.1;host=\"a.test:8080\";proto=http";
        assert_eq!(told.get("forwarded"), Some(own), "{text}");
    }
}

#[test]
fn scheme_host_and_port_are_taken_only_if_they_are_such() {
    let told = tell(
        &trusting(ForwardedHeader::XForwarded),
        "10.0.0.1",
        &every("<x>"),
    );
    assert_eq!(told.get("x-forwarded-proto"), Some("http"));
    assert_eq!(told.get("x-forwarded-host"), Some("a.test:8080"));
    assert_eq!(told.get("x-forwarded-port"), Some("8080"));
    for (host, port) in [
        ("a", 80),
        ("a:81", 81),
        ("[::1]", 80),
        ("[::1]:82", 82),
        ("", 80),
    ] {
        assert_eq!(asked_port(host, false), port, "{host}");
    }
}

/// The same by the definition: the whole chain in a list, walked from the right.
fn naive(forwarding: &Forwarding, peer: IpAddr, chain: &[Option<IpAddr>]) -> IpAddr {
    let mut client = peer;
    for node in chain.iter().rev() {
        if !forwarding.trusts(client) {
            break;
        }
        match node {
            Some(address) => client = *address,
            None => break,
        }
    }
    client
}

fn node() -> impl Strategy<Value = Option<IpAddr>> {
    static KNOWN: [&str; 6] = [
        "10.0.0.1",
        "10.9.9.9",
        "fd00::7",
        "192.0.2.7",
        "6.6.6.6",
        "2001:db8::1",
    ];
    prop_oneof![
        6 => select(&KNOWN[..]).prop_map(|text| Some(ip(text))),
        1 => Just(None),
    ]
}

proptest! {
    #[test]
    fn prop_client_is_the_rightmost_untrusted_address(
        lines in vec(vec((node(), 0_u8..3), 0..4), 0..4),
        peer in node(),
    ) {
        let peer = peer.unwrap_or(ip("10.0.0.1"));
        let chain: Vec<_> = lines.iter().flatten().map(|(node, _)| *node).collect();
        for header in ALL {
            let forwarding = trusting(header);
            let rfc = header == ForwardedHeader::Forwarded;
            let text = |(node, form): &(Option<IpAddr>, u8)| match (node, form, rfc) {
                (None, 0, true) => "for=unknown".to_owned(),
                (None, 1, true) => "by=10.0.0.1".to_owned(),
                (None, _, true) => "For=\"_hidden\";proto=http".to_owned(),
                (None, ..) => "unknown".to_owned(),
                (Some(IpAddr::V6(v6)), 0, true) => format!("for=\"[{v6}]\""),
                (Some(IpAddr::V6(v6)), _, true) => format!("proto=http;FOR=\"[{v6}]:1\""),
                (Some(IpAddr::V4(v4)), 0, true) => format!("for={v4}"),
                (Some(IpAddr::V4(v4)), _, true) => format!("host=\"a,b\";for=\"{v4}:1\""),
                (Some(IpAddr::V4(v4)), 1, _) => format!("{v4}:80"),
                (Some(IpAddr::V4(v4)), 2, _) => format!("::ffff:{v4}"),
                (Some(IpAddr::V6(v6)), 1, _) => format!("[{v6}]:80"),
                (Some(IpAddr::V6(v6)), 2, _) => format!("[{v6}]"),
                (Some(address), ..) => address.to_string(),
            };
            let name = if rfc { "forwarded" } else { "x-forwarded-for" };
            let lines = lines.iter().filter(|line| !line.is_empty());
            let came = Came(lines
                .map(|line| (name, line.iter().map(text).collect::<Vec<_>>().join(" , ")))
                .collect());
            prop_assert_eq!(
                forwarding.client(peer, &came),
                naive(&forwarding, peer, &chain),
                "{:?} {:?}", header, came
            );
        }
    }

    #[test]
    fn prop_what_is_told_names_the_peer_last_and_the_next_hop_finds_the_same_client(
        values in vec((select(&OWN_FIELDS[..]), "[ -~]{0,40}"), 0..6),
        trusted: bool,
    ) {
        let peer = if trusted { "10.0.0.1" } else { "192.0.2.7" };
        let came = Came(values);
        for header in ALL {
            let forwarding = trusting(header);
            let client = forwarding.client(ip(peer), &came);
            let told = Came(tell(&forwarding, peer, &came).0);
            // A second ingress behind this one, which it trusts.
            prop_assert_eq!(forwarding.client(ip("10.0.0.2"), &told), client);
            if header == ForwardedHeader::Both {
                let rfc = trusting(ForwardedHeader::Forwarded);
                prop_assert_eq!(rfc.client(ip("10.0.0.2"), &told), client);
            }
        }
    }
}
