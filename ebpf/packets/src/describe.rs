//! Packets as text: `ip c>v ttl=64 / tcp 40000>80 S / pay 3`.
//!
//! Layers are separated by ` / `; lengths, protocol numbers and checksums follow from what is
//! around a field unless a word says otherwise. A packet begins with `eth FROM>TO`, or is taken to
//! come from the client to the balancer (`eth c>b`).
//!
//! | layer | words |
//! | --- | --- |
//! | `eth A>B` | MAC addresses by letter; `type=0x..` |
//! | `ip A>B` | `ttl=` `tos=` `id=` `df` `mf` `off=` `proto=` `len=` `ihl=` `ver=` `opts=HEX` |
//! | `ip6 A>B` | `hl=` `tc=` `fl=` `nh=` `len=` `ver=` |
//! | `tcp P>P FLAGS` | flags of `SAFRP` or `0`; `seq=` `ack=` `win=` `doff=` |
//! | `udp P>P` | `len=` `nosum` |
//! | `icmp T/C`, `icmp6 T/C` | `word=`: the second word |
//! | `pay N`, `raw HEX` | N bytes that count up, or these |
//! | `=` | the packet that came in, from its IP header on |
//! | `cut N` | the first N bytes of what this layer is in (at the end of a quoted packet) |
//! | `trunc N`, `pad N` | at the very end: the frame cut to, or filled up to, N bytes |
//!
//! `*` for a port, a flow label or an id: whatever the packet that is compared has there. `^` for a
//! port: the source port of the packet that was sent last.

use std::net::IpAddr;

use anyhow::{Context, bail, ensure};

/// What a description may refer to.
#[derive(Clone, Copy)]
pub struct Scene<'a> {
    /// Names of addresses.
    pub address: &'a dyn Fn(&str) -> Option<IpAddr>,
    /// What came in, for `=`.
    pub input: &'a [u8],
    /// What is compared, for `*`.
    pub actual: &'a [u8],
    /// The source port of the packet that was sent last, for `^`.
    pub sent_from: u16,
}

/// Returns the MAC address of a letter: locally administered, the letter at its end.
pub fn mac(name: &str) -> [u8; 6] {
    let letter = name.bytes().next().unwrap_or(b'?');
    [2, 0, 0, 0, 0, letter]
}

struct Words<'a> {
    kind: &'a str,
    first: &'a str,
    rest: Vec<&'a str>,
}

impl<'a> Words<'a> {
    fn of(layer: &'a str) -> anyhow::Result<Self> {
        let mut words = layer.split_whitespace();
        Ok(Self {
            kind: words.next().context("an empty layer")?,
            first: words.next().unwrap_or(""),
            rest: words.collect(),
        })
    }

    fn has(&self, word: &str) -> bool {
        self.rest.contains(&word)
    }

    fn text(&self, key: &str) -> Option<&'a str> {
        self.rest
            .iter()
            .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    }

    fn number(&self, key: &str) -> anyhow::Result<Option<u64>> {
        self.text(key).map(number).transpose()
    }
}

fn number(text: &str) -> anyhow::Result<u64> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.with_context(|| format!("`{text}` is no number"))
}

fn hex(text: &str) -> anyhow::Result<Vec<u8>> {
    ensure!(
        text.len().is_multiple_of(2),
        "`{text}` is half a byte short"
    );
    (0..text.len() / 2)
        .map(|at| Ok(u8::from_str_radix(&text[at * 2..at * 2 + 2], 16)?))
        .collect()
}

fn pair(text: &str, by: char) -> anyhow::Result<(&str, &str)> {
    text.split_once(by)
        .with_context(|| format!("`{text}` has no `{by}`"))
}

/// Returns the Internet checksum of these bytes, by the definition.
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u32;
    for part in parts {
        for two in part.chunks(2) {
            let low = two.get(1).copied().unwrap_or(0);
            sum += u32::from(u16::from_be_bytes([two[0], low]));
        }
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Returns the bytes of a description.
pub fn packet(text: &str, scene: Scene<'_>) -> anyhow::Result<Vec<u8>> {
    let mut layers: Vec<&str> = text.split(" / ").map(str::trim).collect();
    let mut size = None;
    while let Some(last) = layers.last() {
        let words = Words::of(last)?;
        if words.kind != "trunc" && words.kind != "pad" {
            break;
        }
        size = Some(number(words.first)? as usize);
        layers.pop();
    }
    if !layers.first().is_some_and(|layer| layer.starts_with("eth")) {
        layers.insert(0, "eth c>b");
    }
    let mut bytes = build(&layers, scene, 0, &Around::default())?;
    if let Some(size) = size {
        bytes.resize(size, 0);
    }
    Ok(bytes)
}

/// What the layer outside says: for protocol numbers and pseudo headers.
#[derive(Default)]
struct Around {
    addresses: Vec<u8>,
    /// Inside is what an ICMP error quotes.
    quoted: bool,
}

fn kind_of(layer: Option<&&str>, scene: Scene<'_>) -> u8 {
    let Some(layer) = layer else { return 59 };
    match layer.split_whitespace().next().unwrap_or("") {
        "ip" => 4,
        "ip6" => 41,
        "tcp" => 6,
        "udp" => 17,
        "icmp" => 1,
        "icmp6" => 58,
        "=" => match scene.input.get(14).map(|byte| byte >> 4) {
            Some(4) => 4,
            _ => 41,
        },
        _ => 253,
    }
}

/// Builds the layers; `at` is where they begin in the frame.
fn build(layers: &[&str], scene: Scene<'_>, at: usize, around: &Around) -> anyhow::Result<Vec<u8>> {
    let Some((layer, inside)) = layers.split_first() else {
        return Ok(Vec::new());
    };
    let words = Words::of(layer)?;
    match words.kind {
        "eth" => ethernet(&words, inside, scene),
        "ip" => ipv4(&words, inside, scene, at, around),
        "ip6" => ipv6(&words, inside, scene, at, around),
        "tcp" => tcp(&words, inside, scene, at, around),
        "udp" => udp(&words, inside, scene, at, around),
        "icmp" | "icmp6" => icmp(&words, inside, scene, at, around),
        "=" => Ok(scene.input.get(14..).unwrap_or_default().to_vec()),
        "pay" => Ok((0..number(words.first)?).map(|byte| byte as u8).collect()),
        "raw" => hex(words.first),
        "cut" => Ok(Vec::new()),
        other => bail!("no layer is called `{other}`"),
    }
}

/// Returns a field that may be `*`: then two or four bytes of what is compared.
fn wild(text: &str, scene: Scene<'_>, at: usize) -> anyhow::Result<u16> {
    if text == "^" {
        return Ok(scene.sent_from);
    }
    if text == "*" {
        let bytes = scene.actual.get(at..at + 2).unwrap_or(&[0, 0]);
        return Ok(u16::from_be_bytes([bytes[0], bytes[1]]));
    }
    Ok(number(text)? as u16)
}

fn ethernet(words: &Words<'_>, inside: &[&str], scene: Scene<'_>) -> anyhow::Result<Vec<u8>> {
    let (from, to) = pair(words.first, '>')?;
    let mut bytes = Vec::new();
    bytes.extend(mac(to));
    bytes.extend(mac(from));
    let body = build(inside, scene, 14, &Around::default())?;
    let guess = match body.first().map(|byte| byte >> 4) {
        Some(6) => 0x86dd,
        _ => 0x0800,
    };
    let kind = words.number("type")?.unwrap_or(guess) as u16;
    bytes.extend(kind.to_be_bytes());
    bytes.extend(body);
    Ok(bytes)
}

fn address(name: &str, scene: Scene<'_>) -> anyhow::Result<IpAddr> {
    if let Some(address) = (scene.address)(name) {
        return Ok(address);
    }
    name.parse()
        .with_context(|| format!("`{name}` is no address and no name of one"))
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn cut(inside: &[&str]) -> anyhow::Result<Option<usize>> {
    let Some(last) = inside.last().filter(|layer| layer.starts_with("cut ")) else {
        return Ok(None);
    };
    Ok(Some(number(last.trim_start_matches("cut "))? as usize))
}

fn ipv4(
    words: &Words<'_>,
    inside: &[&str],
    scene: Scene<'_>,
    at: usize,
    outside: &Around,
) -> anyhow::Result<Vec<u8>> {
    let (from, to) = pair(words.first, '>')?;
    let options = words.text("opts").map(hex).transpose()?.unwrap_or_default();
    let around = Around {
        addresses: [octets(address(from, scene)?), octets(address(to, scene)?)].concat(),
        quoted: false,
    };
    ensure!(
        around.addresses.len() == 8,
        "`{}`: not both IPv4",
        words.first
    );
    let header = 20 + options.len();
    let body = build(inside, scene, at + header, &around)?;
    let ihl = words.number("ihl")?.unwrap_or(header as u64 / 4) as u8;
    let version = words.number("ver")?.unwrap_or(4) as u8;
    let length = words.number("len")?.unwrap_or((header + body.len()) as u64) as u16;
    let id = match words.text("id") {
        Some(text) => wild(text, scene, at + 4)?,
        None => 0,
    };
    let mut fragment = words.number("off")?.unwrap_or(0) as u16 / 8;
    fragment |= u16::from(words.has("df")) << 14 | u16::from(words.has("mf")) << 13;
    let protocol = words.number("proto")?;
    let protocol = protocol.unwrap_or_else(|| u64::from(kind_of(inside.first(), scene)));
    let mut bytes = vec![version << 4 | ihl, words.number("tos")?.unwrap_or(0) as u8];
    bytes.extend(length.to_be_bytes());
    bytes.extend(id.to_be_bytes());
    bytes.extend(fragment.to_be_bytes());
    bytes.push(words.number("ttl")?.unwrap_or(64) as u8);
    bytes.push(protocol as u8);
    bytes.extend([0, 0]);
    bytes.extend(&around.addresses);
    bytes.extend(options);
    let sum = checksum(&[&bytes]);
    bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    bytes.extend(body);
    if outside.quoted
        && let Some(length) = cut(inside)?
    {
        bytes.truncate(length);
    }
    Ok(bytes)
}

fn ipv6(
    words: &Words<'_>,
    inside: &[&str],
    scene: Scene<'_>,
    at: usize,
    outside: &Around,
) -> anyhow::Result<Vec<u8>> {
    let (from, to) = pair(words.first, '>')?;
    let around = Around {
        addresses: [octets(address(from, scene)?), octets(address(to, scene)?)].concat(),
        quoted: false,
    };
    ensure!(
        around.addresses.len() == 32,
        "`{}`: not both IPv6",
        words.first
    );
    let body = build(inside, scene, at + 40, &around)?;
    let label = match words.text("fl") {
        Some("*") => {
            let word = scene.actual.get(at..at + 4).unwrap_or(&[0; 4]);
            u32::from_be_bytes(word.try_into()?) & 0xf_ffff
        }
        Some(text) => number(text)? as u32,
        None => 0,
    };
    let version = words.number("ver")?.unwrap_or(6) as u32;
    let class = words.number("tc")?.unwrap_or(0) as u32;
    let length = words.number("len")?.unwrap_or(body.len() as u64) as u16;
    let next = words.number("nh")?;
    let next = next.unwrap_or_else(|| u64::from(kind_of(inside.first(), scene)));
    let mut bytes = (version << 28 | class << 20 | label).to_be_bytes().to_vec();
    bytes.extend(length.to_be_bytes());
    bytes.push(next as u8);
    bytes.push(words.number("hl")?.unwrap_or(64) as u8);
    bytes.extend(&around.addresses);
    bytes.extend(body);
    if outside.quoted
        && let Some(length) = cut(inside)?
    {
        bytes.truncate(length);
    }
    Ok(bytes)
}

fn pseudo(around: &Around, protocol: u8, length: usize) -> Vec<u8> {
    let mut bytes = around.addresses.clone();
    bytes.extend([0, protocol]);
    bytes.extend((length as u32).to_be_bytes());
    bytes
}

fn ports(words: &Words<'_>, scene: Scene<'_>, at: usize) -> anyhow::Result<Vec<u8>> {
    let (from, to) = pair(words.first, '>')?;
    let mut bytes = wild(from, scene, at)?.to_be_bytes().to_vec();
    bytes.extend(wild(to, scene, at + 2)?.to_be_bytes());
    Ok(bytes)
}

fn tcp(
    words: &Words<'_>,
    inside: &[&str],
    scene: Scene<'_>,
    at: usize,
    around: &Around,
) -> anyhow::Result<Vec<u8>> {
    let flags = words.rest.first().copied().unwrap_or("0");
    let flags = flags.chars().try_fold(0_u8, |flags, letter| {
        Ok(flags
            | match letter {
                'F' => 1,
                'S' => 2,
                'R' => 4,
                'P' => 8,
                'A' => 16,
                'U' => 32,
                '0' => 0,
                other => bail!("no flag of TCP is called {other}"),
            })
    })?;
    let mut bytes = ports(words, scene, at)?;
    bytes.extend((words.number("seq")?.unwrap_or(1_000) as u32).to_be_bytes());
    let acknowledged = words
        .number("ack")?
        .unwrap_or(if flags & 16 == 0 { 0 } else { 2_000 });
    bytes.extend((acknowledged as u32).to_be_bytes());
    bytes.push((words.number("doff")?.unwrap_or(5) as u8) << 4);
    bytes.push(flags);
    bytes.extend((words.number("win")?.unwrap_or(8_192) as u16).to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend(build(inside, scene, at + 20, around)?);
    let sum = checksum(&[&pseudo(around, 6, bytes.len()), &bytes]);
    bytes[16..18].copy_from_slice(&sum.to_be_bytes());
    Ok(bytes)
}

fn udp(
    words: &Words<'_>,
    inside: &[&str],
    scene: Scene<'_>,
    at: usize,
    around: &Around,
) -> anyhow::Result<Vec<u8>> {
    let body = build(inside, scene, at + 8, around)?;
    let length = words.number("len")?.unwrap_or(8 + body.len() as u64) as u16;
    let mut bytes = ports(words, scene, at)?;
    bytes.extend(length.to_be_bytes());
    bytes.extend([0; 2]);
    bytes.extend(body);
    if !words.has("nosum") {
        let sum = checksum(&[&pseudo(around, 17, bytes.len()), &bytes]);
        let sum = if sum == 0 { 0xffff } else { sum };
        bytes[6..8].copy_from_slice(&sum.to_be_bytes());
    }
    Ok(bytes)
}

fn icmp(
    words: &Words<'_>,
    inside: &[&str],
    scene: Scene<'_>,
    at: usize,
    around: &Around,
) -> anyhow::Result<Vec<u8>> {
    let (kind, code) = pair(words.first, '/')?;
    let mut bytes = vec![number(kind)? as u8, number(code)? as u8, 0, 0];
    bytes.extend((words.number("word")?.unwrap_or(0) as u32).to_be_bytes());
    let quoting = Around {
        addresses: around.addresses.clone(),
        quoted: true,
    };
    bytes.extend(build(inside, scene, at + 8, &quoting)?);
    let sum = if words.kind == "icmp" {
        checksum(&[&bytes])
    } else {
        checksum(&[&pseudo(around, 58, bytes.len()), &bytes])
    };
    bytes[2..4].copy_from_slice(&sum.to_be_bytes());
    Ok(bytes)
}
