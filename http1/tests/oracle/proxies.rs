//! PROXY headers, read in the plainest way.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

#[derive(Debug, PartialEq)]
pub enum Verdict {
    Header {
        addresses: Option<(SocketAddr, SocketAddr)>,
        length: usize,
    },
    Unfinished,
    Refused,
}

pub fn read(bytes: &[u8]) -> Verdict {
    let binary = b"\r\n\r\n\0\r\nQUIT\n";
    if bytes.is_empty() || binary.starts_with(bytes) || b"PROXY ".starts_with(bytes) {
        Verdict::Unfinished
    } else if bytes.starts_with(binary) {
        second(bytes)
    } else if bytes.starts_with(b"PROXY ") {
        first(bytes)
    } else {
        Verdict::Refused
    }
}

fn first(bytes: &[u8]) -> Verdict {
    let Some(end) = bytes.iter().take(107).position(|&b| b == b'\n') else {
        return if bytes.len() < 107 {
            Verdict::Unfinished
        } else {
            Verdict::Refused
        };
    };
    let length = end + 1;
    let Some(words) = std::str::from_utf8(&bytes[..length])
        .ok()
        .and_then(|line| line.strip_suffix("\r\n"))
        .map(|line| line.split(' ').collect::<Vec<_>>())
    else {
        return Verdict::Refused;
    };
    let port = |word: &str| {
        word.parse::<u16>()
            .ok()
            .filter(|port| port.to_string() == word)
    };
    let addresses = match words[..] {
        [_, "UNKNOWN", ..] => {
            return Verdict::Header {
                addresses: None,
                length,
            };
        }
        [_, family @ ("TCP4" | "TCP6"), from, to, from_port, to_port] => {
            let ip = |word: &str| match family {
                "TCP4" => word.parse::<Ipv4Addr>().ok().map(IpAddr::from),
                _ => word.parse::<Ipv6Addr>().ok().map(IpAddr::from),
            };
            let ends = (ip(from), port(from_port), ip(to), port(to_port));
            if let (Some(from), Some(from_port), Some(to), Some(to_port)) = ends {
                Some(((from, from_port).into(), (to, to_port).into()))
            } else {
                None
            }
        }
        _ => None,
    };
    if addresses.is_none() {
        return Verdict::Refused;
    }
    Verdict::Header { addresses, length }
}

fn second(bytes: &[u8]) -> Verdict {
    let [command, family] = match bytes[12..] {
        [] => return Verdict::Unfinished,
        [command] => [command, 0],
        [command, family, ..] => [command, family],
    };
    let families = [
        0x00, 0x01, 0x02, 0x10, 0x11, 0x12, 0x20, 0x21, 0x22, 0x30, 0x31, 0x32,
    ];
    if ![0x20, 0x21].contains(&command) || !families.contains(&family) {
        return Verdict::Refused;
    }
    if bytes.len() < 16 {
        return Verdict::Unfinished;
    }
    let length = 16 + usize::from(bytes[14]) * 256 + usize::from(bytes[15]);
    if length > 4096 {
        return Verdict::Refused;
    }
    if bytes.len() < length {
        return Verdict::Unfinished;
    }
    let body = &bytes[16..length];
    let size = [0, 12, 36, 216][usize::from(family >> 4)];
    if body.len() < size || (size > 0 && !are_extensions(bytes, 16 + size, length)) {
        return Verdict::Refused;
    }
    let addresses = match (command, family) {
        (0x21, 0x11) => {
            let ip = |at: usize| Ipv4Addr::new(body[at], body[at + 1], body[at + 2], body[at + 3]);
            Some((
                (ip(0), port(body, 8)).into(),
                (ip(4), port(body, 10)).into(),
            ))
        }
        (0x21, 0x21) => {
            let word = |at: usize| port(body, at);
            let ip =
                |at: usize| Ipv6Addr::from(std::array::from_fn::<u16, 8, _>(|i| word(at + 2 * i)));
            Some(((ip(0), word(32)).into(), (ip(16), word(34)).into()))
        }
        _ => None,
    };
    Verdict::Header { addresses, length }
}

fn port(bytes: &[u8], at: usize) -> u16 {
    u16::from(bytes[at]) * 256 + u16::from(bytes[at + 1])
}

fn are_extensions(bytes: &[u8], start: usize, end: usize) -> bool {
    let mut at = start;
    while at < end {
        if at + 3 > end {
            return false;
        }
        let length = usize::from(port(bytes, at + 1));
        let value = at + 3;
        if value + length > end {
            return false;
        }
        if bytes[at] == 3 {
            let mut zeroed = bytes[..end].to_vec();
            if length != 4 {
                return false;
            }
            zeroed[value..value + 4].fill(0);
            if crc32c(&zeroed).to_be_bytes() != bytes[value..value + 4] {
                return false;
            }
        }
        at = value + length;
    }
    true
}

/// By a table, as others do it.
fn crc32c(bytes: &[u8]) -> u32 {
    let table: Vec<u32> = (0..256_u32)
        .map(|byte| {
            (0..8).fold(byte, |crc, _| {
                if crc % 2 == 1 {
                    (crc / 2) ^ 0x82f6_3b78
                } else {
                    crc / 2
                }
            })
        })
        .collect();
    let crc = bytes.iter().fold(u32::MAX, |crc, &byte| {
        table[((crc ^ u32::from(byte)) % 256) as usize] ^ (crc / 256)
    });
    crc ^ u32::MAX
}
